"""The inventory, verify, sweep and migrate include offloaded columns."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import ForeignKey, String, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from aioimageattach._inventory import StoredKind, kinds, references
from aioimageattach.exc import DamagedValueError, TransactionExpiredError
from aioimageattach.key import make_revision
from aioimageattach.maintenance import sweep, verify
from aioimageattach.migration import migrate
from aioimageattach.offload import StoredText, load_stored, stored_text
from aioimageattach.store import KeyedStore
from aioimageattach.stores import MemoryStore
from aioimageattach.stores.fs import FileSystemStore
from tests.databases import Database
from tests.entity.models import started


class Base(DeclarativeBase):
    """Declarative base of these models."""


class Work(Base):
    """A class with two texts, one of which is deferred."""

    __tablename__ = "work"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(10), default="work")
    body: Mapped[StoredText | None] = stored_text(compression="gzip", deferred=True)
    note: Mapped[StoredText | None] = stored_text(inline_below=10)
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "work"}


class Novel(Work):
    """A subclass with another text, in its parent's table."""

    blurb: Mapped[StoredText | None] = stored_text()
    __mapper_args__ = {"polymorphic_identity": "novel"}


class Poem(Work):
    """A subclass with another text, in a separate table."""

    __tablename__ = "poem"
    id: Mapped[int] = mapped_column(ForeignKey(Work.id), primary_key=True)
    metre: Mapped[StoredText | None] = stored_text(dedupe=True)
    __mapper_args__ = {"polymorphic_identity": "poem"}


async def library(database: Database, store: KeyedStore) -> async_sessionmaker[AsyncSession]:
    """Three works, with six files and two texts in rows."""
    sessions = await started(database, Base.metadata, store)
    async with sessions() as session, session.begin():
        session.add(Work(id=1, body="the work " * 9, note="short"))
        session.add(Novel(id=2, body="the novel " * 9, note="a note that is long", blurb="blurb"))
        session.add(Poem(id=3, body="the poem " * 9, note="short", metre="iambic"))
    return sessions


async def names(store: KeyedStore) -> set[str]:
    return {info.name async for info in store.list_objects() if not info.name.startswith(".")}


async def test_the_inventory_has_each_attribute_once(database: Database) -> None:
    """Attributes of subclasses belong to them, inherited ones do not; rows without a file are skipped."""
    store = MemoryStore()
    sessions = await library(database, store)
    found = kinds(Base)
    assert [repr(kind) for kind in found] == [
        "<StoredKind Novel.blurb>",
        "<StoredKind Poem.metre>",
        "<StoredKind Work.body>",
        "<StoredKind Work.note>",
    ]
    assert [kind.object_types for kind in found] == [
        {"work.blurb"},
        {"poem.metre"},
        {"work.body"},
        {"work.note"},
    ]
    named = {reference.name for kind in found async for reference in references(sessions, kind)}
    assert named == await names(store)
    assert len(named) == 6


@pytest.fixture(params=["memory", "directory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> KeyedStore:
    """A store of each of two kinds."""
    return MemoryStore() if request.param == "memory" else FileSystemStore(tmp_path / "files", "http://test/")


async def test_verify(sqlite_database: Database, store: KeyedStore) -> None:
    """Intact files are accepted, compressed or not; altered, truncated and missing ones are found."""
    sessions = await library(sqlite_database, store)
    assert [flaw async for flaw in verify(sessions, Base, store, deep=True)] == []
    [body, *_] = sorted(name for name in await names(store) if name.startswith("work.body/"))
    blurb = next(name for name in await names(store) if name.startswith("work.blurb/"))
    note = next(name for name in await names(store) if name.startswith("work.note/"))
    async with await store.get_object(body) as file:
        altered = bytearray(await file.read())
    altered[-9] ^= 1
    for name, data in ((body, bytes(altered)), (blurb, b"blur"), (note, None)):
        await store.delete_object(name)
        if data is not None:
            await store.put_object(name, data)
    found = {flaw.reference.name: flaw.problem async for flaw in verify(sessions, Base, store, deep=True)}
    assert found == {body: "checksum", blurb: "size", note: "missing"}


def aged(name: str, days: int) -> str:
    """Return the name that the file would have if it had been put earlier."""
    object_type, _, _, rest = name.split("/")
    revision = make_revision(time.time() - 86400 * days)[:26]
    return f"{object_type}/{revision[:5]}/{revision[5:7]}/{revision}.{rest.partition('.')[2]}"


class OldStore(MemoryStore):
    """A store whose files are two days old."""

    def age(self) -> None:
        for name, (blob, _) in self._files.items():
            self._files[name] = (blob, datetime.now(UTC) - timedelta(days=2))


async def test_sweep(database: Database) -> None:
    """Old orphaned files are deleted; referenced, shared and foreign files are kept."""
    store = OldStore()
    sessions = await library(database, store)
    kept = await names(store)
    orphans = {aged(name, 2) for name in kept if "shared" not in name}
    shared = next(name for name in kept if "shared" in name)
    orphans |= {shared.replace(".6.6.", ".7.7.")}
    foreign = {"work.body/notes.txt", "work.body/01234/56/0123456.1.1.zz.txt", "elsewhere/x"}
    for name in orphans | foreign:
        await store.put_object(name, b"x")
    store.age()
    plan = sweep(sessions, Base, store, delete=True, max_share=1)
    assert {orphan.name async for orphan in plan} == orphans
    assert await names(store) == kept | foreign


async def test_sweep_keeps_young_files(sqlite_database: Database) -> None:
    """A young file without a row is kept, because its transaction may be open."""
    store = MemoryStore()
    sessions = await library(sqlite_database, store)
    young = {aged(name, 0) for name in await names(store) if "shared" not in name}
    for name in young:
        await store.put_object(name, b"x")
    assert [orphan async for orphan in sweep(sessions, Base, store, delete=True, max_share=1)] == []
    assert young < await names(store)


async def test_migrate(sqlite_database: Database, store: KeyedStore) -> None:
    """Every value can be read from the other store afterwards."""
    sessions = await library(sqlite_database, store)
    other = MemoryStore()
    async for _ in migrate(sessions, Base, store, other):
        pass
    assert await names(other) == await names(store)
    async with sessions() as session:
        poem = await session.get_one(Poem, 3)
        await session.refresh(poem, ["body"])
        await load_stored([poem], Work.body, Work.note, Poem.metre, store=other)
        assert (poem.body and poem.body.value) == "the poem " * 9


async def test_edited_rows_are_reported(sqlite_database: Database) -> None:
    """A row with any foreign content is reported with the reason."""
    sessions = await library(sqlite_database, MemoryStore())
    async with sessions() as session, session.begin():
        await session.execute(text("UPDATE work SET body = '@other/column/x.txt'"))
    [kind] = [kind for kind in kinds(Base) if isinstance(kind, StoredKind) and kind.key == "body"]
    found = [reference async for reference in references(sessions, kind)]
    assert {(one.name, one.content, type(one.damage)) for one in found} == {(None, None, DamagedValueError)}


async def test_the_age_of_a_shared_file_counts_for_the_fence(
    sqlite_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shared file may soon be old enough for a sweep, so the fence uses the earliest time at which it was put."""
    store = MemoryStore()
    sessions = await library(sqlite_database, store)
    clock: Callable[[], float] = time.time
    async with sessions() as session:
        session.add(Poem(id=4, metre="iambic"))
        await session.flush()
        monkeypatch.setattr(time, "time", lambda: clock() + 19 * 3600)
        with pytest.raises(TransactionExpiredError):
            await session.commit()
    assert len(await names(store)) == 6
