"""Offloaded values: their files are verified and swept as those of pictures are."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import delete, select, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from aioimageattach import bind_store
from aioimageattach.exc import DamagedValueError, DeclarationError, MigrationError, StoreFileNotFoundError
from aioimageattach.inventory import kinds
from aioimageattach.maintenance import Mismatch, sweep, verify
from aioimageattach.migration import migrate
from aioimageattach.offload import StoredText, stored_text
from aioimageattach.stores.memory import MemoryStore
from aioimageattach.testing import assert_consistent
from tests.databases import Database
from tests.entity.models import started
from tests.testing.test_contract import ThirdPartyStore

NOW = timedelta(0)


class Base(DeclarativeBase):
    """The base of the model here."""


class Article(Base):
    """Has two texts."""

    __tablename__ = "article"
    id: Mapped[int] = mapped_column(primary_key=True)
    body: Mapped[StoredText | None] = stored_text(compression="gzip")
    note: Mapped[StoredText | None] = stored_text(inline_below=20)


@pytest.fixture
def store() -> MemoryStore:
    """Where the texts are."""
    return MemoryStore()


@pytest.fixture
async def sessions(sqlite_database: Database, store: MemoryStore) -> async_sessionmaker[AsyncSession]:
    """Ten articles; one has no text, and one a note that stays in the row."""
    sessions = await started(sqlite_database, Base.metadata)
    bind_store(sessions, store)
    async with sessions.begin() as session:
        session.add_all(Article(id=n, body=f"the body {n} " * 50, note=f"a note that is long {n}") for n in range(8))
        session.add_all([Article(id=8), Article(id=9, note="short")])
    return sessions


async def names(store: MemoryStore) -> set[str]:
    return {info.name async for info in store.list_objects() if not info.name.startswith(".")}


async def alter(store: MemoryStore, name: str, data: bytes | None) -> None:
    """Do behind the library's back what disks and people do."""
    await store.delete_object(name)
    if data is not None:
        await store.put_object(name, data)


async def test_what_is_lost_or_altered_is_told(sessions: async_sessionmaker[AsyncSession], store: MemoryStore) -> None:
    """Of compressed values and plain ones; what is no picture is not made again."""
    plan = verify(sessions, Base, deep=True)
    assert [flaw async for flaw in plan] == []
    assert (plan.progress.sound, plan.progress.bytes) == (16, sum([one.size async for one in store.list_objects()]))
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
        flaw.reference.name: flaw async for flaw in verify(sessions, Base, deep=True, repair=True)
    }
    assert {name: (flaw.problem, type(flaw.error), flaw.repaired) for name, flaw in found.items()} == {
        bodies[0]: ("checksum", DamagedValueError, False),
        bodies[1]: ("size", type(None), False),
        bodies[2]: ("missing", StoreFileNotFoundError, False),
        note.name: ("checksum", DamagedValueError, False),
    }
    assert {flaw.reference.name async for flaw in verify(sessions, Base)} == set(bodies[1:3])


async def test_a_row_that_names_no_file_is_told(sessions: async_sessionmaker[AsyncSession], store: MemoryStore) -> None:
    """What somebody wrote there, or the column of another table: neither a verification nor a move passes it over."""
    async with sessions.begin() as session:
        await session.execute(text("UPDATE article SET body = '@s3://other/secret' WHERE id = 1"))
        await session.execute(text("UPDATE article SET note = '@article.body/elsewhere' WHERE id = 2"))
    found = {repr(flaw.reference.identity): flaw async for flaw in verify(sessions, Base)}
    assert {(who, flaw.problem, flaw.reference.object_type) for who, flaw in found.items()} == {
        ("(1,)", "unreadable", "article.body"),
        ("(2,)", "unreadable", "article.note"),
    }
    assert all(isinstance(flaw.error, DamagedValueError) for flaw in found.values())
    with pytest.raises(AssertionError, match="4 problems") as caught:
        await assert_consistent(sessions, Base)
    assert "Article (1,): unreadable: the column article.body holds" in str(caught.value)
    assert "no row refers to article.body/" in str(caught.value)
    plan = migrate(sessions, Base, store, MemoryStore())
    with pytest.raises(MigrationError, match="2 files could not be moved"):
        await plan.execute()
    assert (plan.progress.copied, {type(failure.error) for failure in plan.failures}) == (14, {DamagedValueError})


async def test_a_store_without_names_has_no_values(sessions: async_sessionmaker[AsyncSession]) -> None:
    """It is not asked for what it cannot have."""
    flaws = [flaw async for flaw in verify(sessions, Article, ThirdPartyStore())]
    assert {flaw.problem for flaw in flaws} == {"unreadable"}
    assert isinstance(flaws[0].error, DeclarationError)
    assert "has no names, and 'article." in str(flaws[0].error)


async def test_what_no_row_names_is_removed(sessions: async_sessionmaker[AsyncSession], store: MemoryStore) -> None:
    """The files of rows that went in bulk; a column that lost all its rows is doubted, as a class of pictures is."""
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
