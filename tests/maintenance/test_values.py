"""Verification and sweep of the files of offloaded values."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import delete, select, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from aioimageattach._inventory import kinds
from aioimageattach.exc import DamagedValueError, DeclarationError, MigrationError, StoreFileNotFoundError
from aioimageattach.maintenance import Mismatch, sweep, verify
from aioimageattach.migration import migrate
from aioimageattach.offload import StoredText, stored_text
from aioimageattach.stores import MemoryStore
from aioimageattach.testing import assert_consistent
from tests.databases import Database
from tests.entity.models import started
from tests.stores.plain import PlainStore

NOW = timedelta(0)


class Base(DeclarativeBase):
    """The declarative base."""


class Article(Base):
    """An article with two texts."""

    __tablename__ = "article"
    id: Mapped[int] = mapped_column(primary_key=True)
    body: Mapped[StoredText | None] = stored_text(compression="gzip")
    note: Mapped[StoredText | None] = stored_text(inline_below=20)


@pytest.fixture
def store() -> MemoryStore:
    """The store of the texts."""
    return MemoryStore()


@pytest.fixture
async def sessions(sqlite_database: Database, store: MemoryStore) -> async_sessionmaker[AsyncSession]:
    """Sessions with ten articles, one of which has no text, and one a note that is stored inline."""
    sessions = await started(sqlite_database, Base.metadata, store)
    async with sessions.begin() as session:
        session.add_all(Article(id=n, body=f"the body {n} " * 50, note=f"a note that is long {n}") for n in range(8))
        session.add_all([Article(id=8), Article(id=9, note="short")])
    return sessions


async def names(store: MemoryStore) -> set[str]:
    return {info.name async for info in store.list_objects() if not info.name.startswith(".")}


async def alter(store: MemoryStore, name: str, data: bytes | None) -> None:
    """Delete or replace a file without the library's knowledge."""
    await store.delete_object(name)
    if data is not None:
        await store.put_object(name, data)


async def test_missing_and_altered_values_are_reported(
    sessions: async_sessionmaker[AsyncSession], store: MemoryStore
) -> None:
    """Missing and altered values are reported, compressed or not, and not repaired."""
    plan = verify(sessions, Base, deep=True)
    assert [mismatch async for mismatch in plan] == []
    assert (plan.progress.counts["sound"], plan.progress.bytes) == (
        16,
        sum([one.size async for one in store.list_objects()]),
    )
    async with sessions() as session:
        articles = (await session.scalars(select(Article).where(Article.id < 4).order_by(Article.id))).all()
    bodies = [article.body.name for article in articles if article.body is not None]
    note = articles[3].note
    assert note is not None
    async with await store.get_object(str(bodies[0])) as file:
        blob = bytearray(await file.read())
    blob[-9] ^= 1
    for name, data in ((bodies[0], bytes(blob)), (bodies[1], b"cut"), (bodies[2], None), (note.name, b"x" * 21)):
        await alter(store, str(name), data)
    found: dict[Any, Mismatch] = {
        mismatch.reference.name: mismatch async for mismatch in verify(sessions, Base, deep=True, repair=True)
    }
    assert {name: (mismatch.problem, type(mismatch.error), mismatch.repaired) for name, mismatch in found.items()} == {
        bodies[0]: ("checksum", DamagedValueError, False),
        bodies[1]: ("size", type(None), False),
        bodies[2]: ("missing", StoreFileNotFoundError, False),
        note.name: ("checksum", DamagedValueError, False),
    }
    assert {mismatch.reference.name async for mismatch in verify(sessions, Base)} == set(bodies[1:3])


async def test_values_without_a_valid_name_are_reported(
    sessions: async_sessionmaker[AsyncSession], store: MemoryStore
) -> None:
    """Verification and migration report a row whose value this library did not write."""
    async with sessions.begin() as session:
        await session.execute(text("UPDATE article SET body = '@s3://other/secret' WHERE id = 1"))
        await session.execute(text("UPDATE article SET note = '@article.body/elsewhere' WHERE id = 2"))
    found = {repr(mismatch.reference.identity): mismatch async for mismatch in verify(sessions, Base)}
    assert {(row, mismatch.problem, mismatch.reference.object_type) for row, mismatch in found.items()} == {
        ("(1,)", "unreadable", "article.body"),
        ("(2,)", "unreadable", "article.note"),
    }
    assert all(isinstance(mismatch.error, DamagedValueError) for mismatch in found.values())
    with pytest.raises(AssertionError, match="4 problems") as caught:
        await assert_consistent(sessions, Base)
    assert "Article (1,): unreadable: the column article.body holds" in str(caught.value)
    assert "no row refers to article.body/" in str(caught.value)
    plan = migrate(sessions, Base, store, MemoryStore())
    with pytest.raises(MigrationError, match="2 files could not be copied"):
        await plan.execute()
    assert (plan.progress.counts["copied"], {type(failure.error) for failure in plan.failures}) == (
        14,
        {DamagedValueError},
    )


async def test_a_store_without_names(sessions: async_sessionmaker[AsyncSession]) -> None:
    """A store that is not a ``KeyedStore`` is rejected, because it cannot contain offloaded values."""
    mismatches = [mismatch async for mismatch in verify(sessions, Article, PlainStore())]
    assert {mismatch.problem for mismatch in mismatches} == {"unreadable"}
    assert isinstance(mismatches[0].error, DeclarationError)
    assert "expected a KeyedStore, which can have a file named 'article." in str(mismatches[0].error)


async def test_orphaned_values_are_removed(sessions: async_sessionmaker[AsyncSession], store: MemoryStore) -> None:
    """Values of bulk-deleted rows are removed; a column that has lost all of its rows is an objection."""
    assert [repr(kind) for kind in kinds(Base)] == ["<StoredKind Article.body>", "<StoredKind Article.note>"]
    before = await names(store)
    async with sessions() as session:
        gone = await session.get_one(Article, 5)
    async with sessions.begin() as session:
        await session.execute(delete(Article).where(Article.id == 5))
    orphans = {str(handle.name) for handle in (gone.body, gone.note) if handle is not None}
    plan = sweep(sessions, Base, grace=NOW, delete=True, force=True)
    assert {orphan.name async for orphan in plan} == orphans
    assert await names(store) == before - orphans
    async with sessions.begin() as session:
        await session.execute(delete(Article).where(Article.id < 8))
    plan = sweep(sessions, Base, grace=NOW)
    assert len([orphan async for orphan in plan]) == 14
    assert [str(one).partition(" (")[0] for one in plan.objections] == [
        "article.body/: the database has no row for 7 files",
        "article.note/: the database has no row for 7 files",
    ]
