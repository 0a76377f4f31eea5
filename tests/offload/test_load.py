"""Loading values: threads, memory and cancellation."""

from __future__ import annotations

import asyncio
import threading
import tracemalloc
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from aioimageattach.exc import DeclarationError, NotLoadedError, StoreUnavailableError
from aioimageattach.offload import Stored, StoredBinary, StoredText, load_stored, stored, stored_binary, stored_text
from tests.databases import Database
from tests.entity.models import started
from tests.faults.stores import FaultyStore
from tests.offload.conftest import Sessions


class Base(DeclarativeBase):
    """Declarative base of these models."""


class StoredWitness(Stored[str]):
    """A serializer that records the threads in which it runs."""

    __slots__ = ()
    kind = ".txt"
    plain = str
    threads: set[tuple[str, bool]] = set()

    @classmethod
    def encode(cls, value: str) -> bytes:
        cls.threads.add(("encode", threading.current_thread() is threading.main_thread()))
        return value.encode()

    @classmethod
    def decode(cls, data: bytes) -> str:
        cls.threads.add(("decode", threading.current_thread() is threading.main_thread()))
        return data.decode()


class Tape(Base):
    """A class with values of any size."""

    __tablename__ = "tape"
    id: Mapped[int] = mapped_column(primary_key=True)
    witness: Mapped[StoredWitness | None] = stored(StoredWitness)
    text: Mapped[StoredText | None] = stored_text()
    data: Mapped[StoredBinary | None] = stored_binary(compression="zstd")


@pytest.fixture
async def sessions(sqlite_database: Database, store: FaultyStore) -> Sessions:
    """Sessions on SQLite, with the tables and the store."""
    return await started(sqlite_database, Base.metadata, store, expire_on_commit=False)


async def test_large_values_are_processed_in_threads(sessions: Sessions) -> None:
    """Large values are not encoded or decoded in the event loop."""
    StoredWitness.threads.clear()
    value = "x" * 100_000
    async with sessions() as session, session.begin():
        session.add(Tape(id=1, witness=value))
    async with sessions() as session:
        row = await session.get_one(Tape, 1)
        assert row.witness is not None
        assert await row.witness.load() == value
        async with await StoredWitness(value).open() as file:
            assert await file.read() == value.encode()
    assert StoredWitness.threads == {("encode", False), ("decode", False)}


async def test_a_stream_takes_little_memory(sessions: Sessions) -> None:
    """A stream of 32 MB takes a few blocks of 256 KiB."""
    size = 32_000_000
    async with sessions() as session, session.begin():
        session.add(Tape(id=1, data=bytes(size)))
    async with sessions() as session:
        row = await session.get_one(Tape, 1)
        assert row.data is not None
        tracemalloc.start()
        try:
            async with await row.data.open() as file:
                read = 0
                while piece := await file.read(65536):
                    read += len(piece)
            assert tracemalloc.get_traced_memory()[1] < 8_000_000
        finally:
            tracemalloc.stop()
    assert read == size
    assert not row.data.loaded


async def tapes(sessions: Sessions, count: int = 20) -> list[Tape]:
    async with sessions() as session, session.begin():
        session.add_all([Tape(id=number, text=f"text {number}") for number in range(1, count + 1)])
    async with sessions() as session:
        return list(await session.scalars(select(Tape).order_by(Tape.id)))


async def test_loading_is_cancelled(sessions: Sessions, store: FaultyStore) -> None:
    """Values that were read are loaded, nothing continues in the background, and the next call loads the rest."""
    rows = await tapes(sessions)
    hanging = asyncio.Event()

    async def hang(name: str) -> None:
        if store.counts["get"] > 5:
            hanging.set()
            await asyncio.Event().wait()

    store.at("get", hang)
    task = asyncio.ensure_future(load_stored(rows, Tape.text, store=store, concurrency=3))
    await hanging.wait()
    while store.counts["get"] < 8:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(asyncio.all_tasks()) == 1
    loaded = [row.text is not None and row.text.loaded for row in rows]
    assert loaded == [True] * 5 + [False] * 15
    store.heal()
    await load_stored(rows, Tape.text, store=store)
    assert [row.text and row.text.value for row in rows] == [f"text {number}" for number in range(1, 21)]
    assert store.counts["get"] == 8 + 15


async def test_an_error_ends_the_other_loads(sessions: Sessions, store: FaultyStore) -> None:
    """The error is raised although other loads hang."""
    rows = await tapes(sessions)

    async def fail_or_hang(name: str) -> None:
        if store.counts["get"] == 4:
            raise StoreUnavailableError("told to fail", store="test")
        await asyncio.Event().wait()

    store.at("get", fail_or_hang)
    with pytest.raises(StoreUnavailableError, match="told to fail"):
        await load_stored(rows, Tape.text, store=store, concurrency=8)
    assert len(asyncio.all_tasks()) == 1


async def test_rows_whose_column_is_not_loaded(sessions: Sessions, store: FaultyStore) -> None:
    """Expired rows raise an error before anything is read, and without values nothing is done."""
    await tapes(sessions, 3)
    async with sessions() as session:
        rows = list(await session.scalars(select(Tape)))
        session.expire(rows[2])
        with pytest.raises(NotLoadedError, match=r"session\.refresh"):
            await load_stored(rows, Tape.text)
        await load_stored([], Tape.text)
        await load_stored(rows[:2], Tape.data)
    assert store.counts["get"] == 0


@pytest.mark.parametrize(
    ("attributes", "options", "message"),
    [
        ((), {}, "expected the attributes to load"),
        (("text",), {}, "expected an attribute such as Article.body, got 'text'"),
        ((Tape.id,), {}, "Tape.id is not offloaded: it is a int"),
        ((Tape.text,), {"concurrency": 0}, "concurrency: expected at least 1, got 0"),
    ],
)
async def test_invalid_arguments(attributes: Any, options: Any, message: str) -> None:
    """The message states the expected arguments."""
    with pytest.raises(DeclarationError, match=message):
        await load_stored([Tape(id=1)], *attributes, **options)


async def test_handles_keep_the_bound_store(sessions: Sessions, store: FaultyStore) -> None:
    """A value is loaded after the session is closed, even if its row is no longer referenced."""
    first, second = await tapes(sessions, 2)
    assert first.text is not None
    assert second.text is not None
    early, late = second.text, first.text
    del second
    assert [await late.load(), await early.load()] == ["text 1", "text 2"]
    async with sessions() as session:
        row = await session.get_one(Tape, 1)
        handle = row.text
    del row, session
    assert handle is not None
    assert await handle.load() == "text 1"
