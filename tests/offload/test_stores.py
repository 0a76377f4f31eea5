"""Stores of values, each alone and several in one transaction."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, select, text
from sqlalchemy.ext.asyncio import async_sessionmaker

from aioimageattach.context import bind_store
from aioimageattach.exc import StoreFileNotFoundError, StoreUnavailableError
from aioimageattach.maintenance import sweep
from aioimageattach.offload import StoredText, load_stored
from aioimageattach.store import KeyedStore
from aioimageattach.stores import RoutingStore
from aioimageattach.stores.fs import FileSystemStore
from tests.databases import Database
from tests.entity.models import started
from tests.faults.stores import FaultyStore, fails
from tests.offload.conftest import Sessions
from tests.offload.models import Article, Base, Part
from tests.servers.gate import Gate
from tests.stores.s3.conftest import MakeStore
from tests.stores.s3.conftest import gate as gate
from tests.stores.s3.conftest import make_store as make_store
from tests.stores.s3.conftest import s3_server as s3_server

LONG = "a long text with 𝄞 and ü\n" * 30_000
VALUES: dict[str, Any] = {
    "body": LONG,
    "data": bytes(range(256)) * 2000,
    "outline": {"heads": ["𝄞", None, 1.5]},
    "packed": {"a": b"\0\xff"},
}


@pytest.fixture(params=["directory", "bucket", "routed"])
async def real_store(request: pytest.FixtureRequest, tmp_path: Path, gate: Gate, make_store: MakeStore) -> KeyedStore:
    """A directory, S3, and a store that routes between them."""
    directory, bucket = FileSystemStore(tmp_path / "files", "http://test/"), make_store(gate.url)
    stores: dict[str, KeyedStore] = {
        "directory": directory,
        "bucket": bucket,
        "routed": RoutingStore({"article.body": bucket}, directory),
    }
    return stores[request.param]


async def names(store: KeyedStore) -> set[str]:
    return {info.name async for info in store.list_objects() if not info.name.startswith(".")}


async def test_each_store(sqlite_database: Database, real_store: KeyedStore) -> None:
    """A value is written, listed, loaded concurrently, streamed, replaced, rolled back and deleted."""
    sessions = await started(sqlite_database, Base.metadata, real_store, expire_on_commit=False)
    async with sessions() as session, session.begin():
        session.add(Article(id=1, **VALUES))
    before = await names(real_store)
    assert len(before) == 4
    async with sessions() as session:
        row = await session.get_one(Article, 1)
        await load_stored([row], Article.body, Article.data, Article.outline, Article.packed)
        assert {key: getattr(row, key).value for key in VALUES} == VALUES
        assert row.body is not None
        async with await row.body.open() as file:
            assert b"".join([piece async for piece in file]).decode() == LONG
        row.body = "rolled back"  # type: ignore[assignment]
        await session.flush()
        assert len(await names(real_store)) == 5
        await session.rollback()
        assert await names(real_store) == before
    async with sessions() as session, session.begin():
        row = await session.get_one(Article, 1)
        row.body = "replaced"  # type: ignore[assignment]
    assert len(await names(real_store) - before) == len(before - await names(real_store)) == 1
    async with sessions() as session, session.begin():
        await session.delete(await session.get_one(Article, 1))
    assert await names(real_store) == set()


async def test_a_lost_file(sqlite_database: Database, real_store: KeyedStore) -> None:
    """Each store raises the same error."""
    sessions = await started(sqlite_database, Base.metadata, real_store, expire_on_commit=False)
    async with sessions() as session, session.begin():
        session.add(row := Article(id=1, body="text"))
    [name] = await names(real_store)
    await real_store.delete_object(name)
    async with sessions() as session:
        row = await session.get_one(Article, 1)
        assert row.body is not None
        assert row.body.size == 4
        with pytest.raises(StoreFileNotFoundError):
            await row.body.load()
        with pytest.raises(StoreFileNotFoundError):
            async with await row.body.open() as file:
                await file.read()


async def test_two_stores_in_one_transaction(sessions: Sessions, store: FaultyStore) -> None:
    """Each value is put into the store of its handle, and a failure in one store leaves nothing in the other."""
    other = FaultyStore()
    other.at("put", fails)
    async with sessions() as session:
        session.add(row := Article(id=1, body="here", data=b"here"))
        row.note = StoredText("that is long enough for a file, and there", store=other)
        with pytest.raises(StoreUnavailableError):
            await session.flush()
        assert await store.names() == await other.names() == set()
        other.heal()
        await session.rollback()
        session.add(row)
        await session.commit()
    assert (len(await store.names()), len(await other.names())) == (2, 1)
    async with sessions() as session, session.begin():
        row = await session.get_one(Article, 1)
        assert row.note is not None
        assert await row.note.load(other) == "that is long enough for a file, and there"


@pytest.mark.parametrize("stored", ["here", "loaded", "detached", "closed"])
async def test_copied_between_stores(sqlite_database: Database, sessions: Sessions, stored: str) -> None:
    """The handle of another store's row is read there, and its copy is put into the store of its own session."""
    other = FaultyStore()
    elsewhere = async_sessionmaker(sqlite_database.engine(), expire_on_commit=False)
    bind_store(elsewhere, other)
    async with elsewhere() as source:
        source.add(row := Article(id=1, body="a text"))
        await source.commit()
        if stored != "here":
            source.expunge_all()
            row = await source.get_one(Article, 1)
            await source.commit()
        handle = row.body
        assert handle is not None
        if stored == "detached":
            source.expunge(row)
        elif stored == "closed":
            await source.close()
        async with sessions() as session, session.begin():
            session.add(copy := Article(id=2, body=handle, note=handle))
            assert copy.body is not None
            assert await copy.body.load() == "a text"
            copy.body = copy.note
    async with sessions() as session:
        row = await session.get_one(Article, 2)
        await load_stored([row], Article.body, Article.note)
        assert row.body == row.note == "a text"
    assert len(await other.names()) == 1


async def test_changes_that_bypass_the_session_are_swept(each_sessions: Sessions, store: FaultyStore) -> None:
    """Files of a bulk DELETE of unloaded rows, of a database cascade, and unreferenced shared files are swept."""
    sessions = each_sessions
    async with sessions() as session, session.begin():
        session.add(Article(id=1, body="kept", parts=[Part(number=1, body="part", tags=["shared"])]))
        session.add(Article(id=2, body="bulk"))
    kept = {name for name in await store.names() if name.startswith("article.body")}
    assert len(await store.names()) == 4
    async with sessions() as session, session.begin():
        await session.execute(delete(Article).where(Article.id == 2))
        await session.execute(text("DELETE FROM part"))
    assert len(await store.names()) == 4
    plan = sweep(sessions, Base, store, grace=timedelta(0), delete=True, force=True)
    removed = {orphan.name async for orphan in plan}
    assert len(removed) == 3
    async with sessions() as session:
        row = await session.get_one(Article, 1)
        assert row.body is not None
        assert await row.body.load() == "kept"
    assert await store.names() == kept - removed


TEXTS = ["", "a", "ü", "𝄞" * 4, "\0", "a\0b", "\n\r\t\\'\"%s:x", "=#@", "\ufeff", "x" * 19, "x" * 20, LONG]


async def test_any_text_on_any_database(each_sessions: Sessions) -> None:
    """Values in a row or a file keep four-byte characters, NUL and quotes, at sizes around the limit."""
    async with each_sessions() as session, session.begin():
        session.add_all([Article(id=number, note=value) for number, value in enumerate(TEXTS, 1)])
    async with each_sessions() as session:
        rows = list(await session.scalars(select(Article).order_by(Article.id)))
        assert [row.note is not None and row.note.name is None for row in rows] == [
            len(value.encode()) < 20 for value in TEXTS
        ]
        await load_stored(rows, Article.note)
        assert [row.note and row.note.value for row in rows] == TEXTS
