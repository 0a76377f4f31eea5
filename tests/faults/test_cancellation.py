"""Cancelled wherever it can be: all of it happened or none, no file is lost, and only CancelledError comes."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import pytest
from sqlalchemy import event, text

from aioimageattach.context import store_context
from aioimageattach.stores.fs import FileSystemStore
from tests import photos
from tests.faults.cancelling import WAYS
from tests.faults.models import Post, User
from tests.faults.rig import STYLES, GivenUp, Rig, check, get, named, settled
from tests.faults.stores import FaultyStore, Stop, hangs


async def ready(rig: Rig) -> None:
    """Have a connection in the pool that no cancellation broke, and no broken one that still holds a lock."""
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
    rig: Rig, way: str, times: int, work: Callable[[bytes], Any], *, step: int = 1, may_leave: int = 0
) -> int:
    """Cancel some work at each of its suspensions, and look at rows and files each time.

    Args:
        rig: Where.
        way: Which of the ways there are.
        times: How often it is cancelled.
        work: Given other bytes each time.
        step: Take each suspension, or each second one.
        may_leave: At how many suspensions an upload may be left for sweep, though no COMMIT was sent.

    Returns:
        At how many it was cancelled.
    """
    gc.freeze()  # so that collecting is quick
    try:
        at, left = 1, 0
        before = await check(rig.database, rig.store)
        while True:
            await ready(rig)
            with commits(rig) as sent:
                reached = await WAYS[way](lambda at=at: work(b"at %d" % at), at, times)
                await settled()
            names, after = await named(rig.database, rig.store)
            orphans = await rig.store.names() - names
            for name in orphans:
                await rig.store.inner.delete_object(name)  # as a sweep would
            if not sent:
                assert after == before
                left += bool(orphans)
                assert left <= may_leave
            if not reached:
                assert not orphans
                return at // step
            before = after
            at += step
    finally:
        gc.unfreeze()


@pytest.mark.parametrize(
    ("way", "times", "style"),
    [("task", 1, "commit"), ("task", 2, "begin"), ("scope", 1, "dependency"), ("scope", 2, "commit")],
)
async def test_replacing_a_picture(rig: Rig, way: str, times: int, style: str) -> None:
    """Attach, flush, commit: the old picture or the new one, whole."""
    await rig.user(thumbnail=b"small")

    async def replace(content: bytes) -> None:
        async with STYLES[style](rig.sessions) as session:
            await rig.attach((await get(session)).picture, content)

    assert await everywhere(rig, way, times, replace) > 8
    assert len(await check(rig.database, rig.store)) == 1


@pytest.mark.parametrize("way", WAYS)
async def test_savepoints(rig: Rig, way: str) -> None:
    """One released, one rolled back, and one that is caught."""
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

    assert await everywhere(rig, way, 1, work, step=1 if rig.database.name == "sqlite" else 2) > 4
    [content] = await check(rig.database, rig.store)
    assert content.startswith(b"released")


@pytest.mark.parametrize("way", WAYS)
async def test_rolling_back_and_closing(rig: Rig, way: str) -> None:
    """Cancelled while it gives up, nothing of it stays either.

    But for one moment: rolled back, and its connection on the way to the pool, SQLAlchemy does not say that a
    transaction is over if it is cancelled, and there is no next one that would.
    """
    await rig.user()

    async def work(content: bytes) -> None:
        async with rig.sessions() as session:
            await rig.attach((await get(session)).picture, content)
            await session.flush()
            await session.rollback()
            await rig.attach((await get(session)).picture, content)
            await session.flush()

    assert await everywhere(rig, way, 1, work, step=1 if rig.database.name == "sqlite" else 2, may_leave=1) > 4
    await rig.check(b"old")


@pytest.mark.parametrize("way", WAYS)
async def test_deleting_an_owner(sqlite_rig: Rig, way: str) -> None:
    """All of its pictures or none."""
    rig = sqlite_rig

    async def work(content: bytes) -> None:
        with store_context(rig.store):
            async with rig.sessions() as session, session.begin():
                old = await session.get(User, 1)
                if old is not None:
                    await session.delete(old)
                    await session.flush()
                session.add(user := User(id=1))
                await rig.attach(user.picture, content)
                await rig.attach(user.picture, b"small " + content, (3, 2), original=False)

    assert await everywhere(rig, way, 1, work) > 8
    assert len(await check(rig.database, rig.store)) == 2


@pytest.mark.parametrize("way", WAYS)
async def test_pixels_and_a_directory(sqlite_rig: Rig, tmp_path: Any, way: str) -> None:
    """A photograph, two thumbnails made in threads, all of it written by threads: none writes on after the end."""
    rig = sqlite_rig
    rig.store = FaultyStore(FileSystemStore(tmp_path / "files", "http://test/"))
    photo = photos.saved(photos.opened("coffee", (60, 40)), "JPEG")

    async def work(content: bytes) -> None:
        async with rig.sessions() as session, session.begin():
            user = await session.get(User, 1) or User(id=1)
            session.add(user)
            await user.picture.from_blob(photo + content, rig.store)
            await user.picture.generate_thumbnails([30, 20])
            await session.flush()
            await user.picture.get_or_generate_thumbnail(10)

    assert await everywhere(rig, way, 1, work, step=2) > 8
    await work(b"")
    assert len(await check(rig.database, rig.store)) == 4


async def test_a_thread_that_writes_while_its_caller_is_cancelled(sqlite_rig: Rig, tmp_path: Any) -> None:
    """Twenty times, a little later each time: no file appears once the call is over."""
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
    """The clean-up is finished first, however often; then CancelledError comes, and the commit stands."""
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
    """One put hangs, others are done or under way: none is left."""
    await rig.user()
    stop = Stop()
    rig.store.at("put", stop, 3, after=after)

    async def attach() -> None:
        async with rig.sessions() as session, session.begin():
            session.add(post := Post(id=1))
            for place in range(12):  # more than go up at once
                await rig.attach(post.photos.get_image_set(place=place), b"%d" % place)

    task = asyncio.create_task(attach())
    await stop.reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await rig.check(b"old")


async def test_a_sibling_fails(rig: Rig) -> None:
    """A task group cancels the upload of one task for the error of another, which alone comes out."""
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
    """Interrupted while it closed, it is ended with the next one of its session."""
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
