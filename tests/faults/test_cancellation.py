"""Cancellation at every possible point: all changes are made or none, and only CancelledError is raised."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import pytest
from sqlalchemy import event, text

from aioimageattach.store import KeyedStore
from aioimageattach.stores.fs import FileSystemStore
from aioimageattach.stores.s3 import S3Store
from tests.descriptors import count_all, falls_to
from tests.faults.cancelling import WAYS
from tests.faults.models import Post
from tests.faults.operations import OPERATIONS, Operation, with_store
from tests.faults.rig import STYLES, GivenUp, Rig, check, get, named, settled
from tests.faults.stores import FaultyStore, Stop, hangs
from tests.faults.tally import Tally

TWICE = [
    pytest.param(way, times, marks=[pytest.mark.thorough] if times > 1 else []) for way in WAYS for times in (1, 2)
]


async def ready(rig: Rig) -> None:
    """Make sure that the pool has an intact connection, and no broken one that still holds a lock."""
    gc.collect()
    async with rig.engine.connect() as connection:
        if rig.database.name == "sqlite":
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            await connection.execute(text("BEGIN IMMEDIATE"))
            await connection.execute(text("ROLLBACK"))


@contextlib.contextmanager
def commits(rig: Rig) -> Iterator[list[object]]:
    """Collect the COMMITs that are sent."""
    sent: list[object] = []

    def note(connection: object) -> None:
        sent.append(connection)

    event.listen(rig.engine.sync_engine, "commit", note)
    try:
        yield sent
    finally:
        event.remove(rig.engine.sync_engine, "commit", note)


async def everywhere(
    rig: Rig, tally: Tally, way: str, times: int, work: Callable[[bytes], Any], *, step: int = 1
) -> int:
    """Cancel some work at each of its suspensions, and check rows and files each time.

    Args:
        rig: The database and the store.
        tally: Counts the cancellations.
        way: How to cancel.
        times: How often it is cancelled.
        work: Called with different bytes each time.
        step: 1 for each suspension, 2 for every second one.

    Returns:
        The number of suspensions at which it was cancelled.
    """
    at = 1
    before = await check(rig.database, rig.store)
    while True:
        await ready(rig)
        with commits(rig) as sent:
            reached = await WAYS[way](lambda at=at: work(b"at %d" % at), at, times)
            await settled()
        names, after = await named(rig.database, rig.store)
        orphans = await rig.store.names() - names
        for name in orphans:
            await rig.store.inner.delete_object(name)  # like a sweep
        if not sent:
            assert after == before
            assert not orphans, f"cancelled at {at}"
        if not reached:
            assert not orphans
            return at // step
        tally.add("cancellations", kind=f"{way}, {times}")
        before = after
        at += step


@pytest.mark.parametrize(
    ("way", "times", "style"),
    [("task", 1, "commit"), ("task", 2, "begin"), ("scope", 1, "dependency"), ("scope", 2, "commit")],
)
async def test_replacing_a_picture(rig: Rig, way: str, times: int, style: str, tally: Tally) -> None:
    """After attaching, flushing and committing, the old or the new image exists completely."""
    await rig.user(thumbnail=b"small")

    async def replace(content: bytes) -> None:
        async with STYLES[style](rig.sessions) as session:
            await rig.attach((await get(session)).picture, content)

    assert await everywhere(rig, tally, way, times, replace) > 8
    assert len(await check(rig.database, rig.store)) == 1


@pytest.mark.parametrize("way", WAYS)
async def test_savepoints(rig: Rig, way: str, tally: Tally) -> None:
    """One savepoint is released, one is rolled back, and the error of one is caught."""
    await rig.user()

    async def work(content: bytes) -> None:
        async with rig.sessions() as session, session.begin():
            user = await get(session)
            async with session.begin_nested():
                await rig.attach(user.picture, b"released " + content)
            with contextlib.suppress(GivenUp):
                async with session.begin_nested():
                    await rig.attach(user.picture, b"rolled back " + content)
                    await session.flush()
                    raise GivenUp

    assert await everywhere(rig, tally, way, 1, work, step=1 if rig.database.name == "sqlite" else 2) > 4
    [content] = await check(rig.database, rig.store)
    assert content.startswith(b"released")


@pytest.mark.parametrize("way", WAYS)
async def test_rolling_back_and_closing(rig: Rig, way: str, tally: Tally) -> None:
    """Cancelled during the rollback, nothing of the transaction remains."""
    await rig.user()

    async def work(content: bytes) -> None:
        async with rig.sessions() as session:
            await rig.attach((await get(session)).picture, content)
            await session.flush()
            await session.rollback()
            await rig.attach((await get(session)).picture, content)
            await session.flush()

    assert await everywhere(rig, tally, way, 1, work, step=1 if rig.database.name == "sqlite" else 2) > 4
    await rig.check(b"old")


@pytest.mark.parametrize(("way", "times"), [("task", 2), ("scope", 1)])
async def test_closing_in_a_finally(rig: Rig, way: str, times: int, tally: Tally) -> None:
    """Without a shield, closing is interrupted, and SQLAlchemy does not report the end of the transaction."""
    await rig.user()

    async def work(content: bytes) -> None:
        session = rig.sessions()
        try:
            await rig.attach((await get(session)).picture, content)
            await session.flush()
        finally:
            await session.close()

    assert await everywhere(rig, tally, way, times, work) > 4
    await rig.check(b"old")


def doing(rig: Rig, operation: Operation) -> Callable[[bytes], Any]:
    """Run the operation in a separate transaction."""
    work = with_store(operation, rig.store)

    async def do(content: bytes) -> None:
        async with rig.sessions() as session, session.begin():
            await work(session, content)

    return do


@pytest.mark.parametrize(
    ("way", "times"),
    [("task", 1), *(pytest.param(*case, marks=pytest.mark.thorough) for case in [("task", 2), ("scope", 1)])],
)
@pytest.mark.parametrize("operation", OPERATIONS)
async def test_each_operation(sqlite_rig: Rig, operation: str, way: str, times: int, tally: Tally) -> None:
    """In memory, only the library and the database suspend; a scope cancels repeatedly."""
    do = doing(sqlite_rig, OPERATIONS[operation])
    await do(b"first")
    assert await everywhere(sqlite_rig, tally, way, times, do) > 8


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("operation", ["photograph", "delete_owner"])
async def test_with_a_directory(sqlite_rig: Rig, tmp_path: Any, operation: str, way: str, tally: Tally) -> None:
    """Threads that write, delete or process pixels have ended when the operation has."""
    sqlite_rig.store = FaultyStore(FileSystemStore(tmp_path / "files", "http://test/"))
    do = doing(sqlite_rig, OPERATIONS[operation])
    await do(b"first")
    assert await everywhere(sqlite_rig, tally, way, 1, do) > 8


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("operation", ["replace", "photograph"])
async def test_with_a_bucket(sqlite_rig: Rig, s3_store: S3Store, operation: str, way: str, tally: Tally) -> None:
    """A put whose response is no longer awaited is undone."""
    sqlite_rig.store = FaultyStore(s3_store)
    do = doing(sqlite_rig, OPERATIONS[operation])
    await do(b"first")
    assert await everywhere(sqlite_rig, tally, way, 1, do) > 8


@pytest.fixture(params=["directory", "bucket"])
async def real_store(request: pytest.FixtureRequest, tmp_path: Any, s3_store: S3Store) -> KeyedStore:
    """A store on disk, and one over the network."""
    return s3_store if request.param == "bucket" else FileSystemStore(tmp_path / "files", "http://test/")


@pytest.mark.parametrize(("way", "times"), TWICE)
async def test_reading(real_store: KeyedStore, way: str, times: int, tally: Tally) -> None:
    """Opening, reading and closing, and reading as a whole, leave the file unchanged and nothing open."""
    await real_store.put_object("a/b", bytes(3_000_000))

    async def read() -> None:
        async with await real_store.get_object("a/b") as file:
            await file.read(10)
            await file.read()
        async with await real_store.get_object("a/b", start=5, end=9) as file:
            assert await file.read() == bytes(4)
        await real_store.head_object("a/b")

    await read()
    before = count_all()
    at = 1
    while await WAYS[way](read, at, times):
        at += 1
        await asyncio.sleep(0.003 if times > 1 else 0)
    tally.add("cancellations", at - 1, kind=f"{way}, {times}")
    assert at > 4
    await read()
    assert await falls_to(before + 1)  # a connection that waits for its next use


async def test_a_thread_that_writes_while_its_caller_is_cancelled(sqlite_rig: Rig, tmp_path: Any) -> None:
    """Repeated twenty times with increasing delays: no file appears after the call has ended."""
    rig = sqlite_rig
    rig.store = FaultyStore(FileSystemStore(tmp_path / "files", "http://test/"))
    await rig.user()

    async def replace(content: bytes) -> None:
        async with rig.sessions() as session:
            await rig.attach((await get(session)).picture, content)
            await session.flush()

    for number in range(20):
        task = asyncio.create_task(replace(bytes(1_000_000)))
        await asyncio.sleep(number / 1000)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await settled()
        left = await rig.store.names()
        assert len(left) == 1
    await asyncio.sleep(0.05)
    assert await rig.store.names() == left
    await rig.check(b"old")


@pytest.mark.parametrize("way", ["commit", "rollback"])
async def test_cancelled_again_while_it_cleans_up(sqlite_rig: Rig, way: str) -> None:
    """The clean-up is completed despite repeated cancellation; CancelledError is raised, and the commit is kept."""
    rig = sqlite_rig
    await rig.user()
    stop = Stop()
    rig.store.at("delete", stop, 1)

    async def replace() -> None:
        async with rig.sessions() as session:
            await rig.attach((await get(session)).picture, b"new")
            await session.flush()
            await (session.commit() if way == "commit" else session.rollback())

    task = asyncio.create_task(replace())
    await stop.reached.wait()
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0.001)
    assert not task.done()
    stop.go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    await settled()
    await rig.check(b"new" if way == "commit" else b"old")


@pytest.mark.parametrize("after", [False, True])
async def test_cancelled_while_many_are_uploaded(rig: Rig, after: bool) -> None:
    """One put hangs while others are complete or in progress: none of the files is left."""
    await rig.user()
    stop = Stop()
    rig.store.at("put", stop, 3, after=after)

    async def attach() -> None:
        async with rig.sessions() as session, session.begin():
            session.add(post := Post(id=1))
            for place in range(12):  # more than are uploaded concurrently
                await rig.attach(post.photos.get_image_set(place=place), b"%d" % place)

    task = asyncio.create_task(attach())
    await stop.reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await rig.check(b"old")


async def test_a_sibling_fails(rig: Rig) -> None:
    """A task group cancels an upload because of an error in another task, and only that error is raised."""
    await rig.user()
    rig.store.at("put", hangs)

    async def replace() -> None:
        async with rig.sessions() as session, session.begin():
            await rig.attach((await get(session)).picture, b"new")

    async def fail() -> None:
        await asyncio.sleep(0.05)
        raise GivenUp

    with pytest.raises(ExceptionGroup) as caught:
        async with asyncio.TaskGroup() as group:
            group.create_task(replace())
            group.create_task(fail())
    assert [type(error) for error in caught.value.exceptions] == [GivenUp]
    await rig.check(b"old")


async def test_a_transaction_that_could_not_even_end(sqlite_rig: Rig) -> None:
    """A transaction interrupted while closing ends with the next one of its session."""
    rig = sqlite_rig
    await rig.user()
    async with rig.sessions() as session:
        await rig.attach((await get(session)).picture, b"new")
        await session.flush()
        with anyio.CancelScope() as scope:
            scope.cancel()
            await session.rollback()
        await rig.attach((await get(session)).picture, b"newer")
        await session.commit()
    await rig.check(b"newer")
