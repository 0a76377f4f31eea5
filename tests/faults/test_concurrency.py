"""Two concurrent transactions change the same image: one complete set is left, in any order."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import event, select
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from aioimageattach.context import bind_store, store_context
from aioimageattach.exc import NoOriginalError, StoreFileNotFoundError
from tests import photos
from tests.databases import Database, Servers
from tests.faults.conftest import rig_of
from tests.faults.models import User
from tests.faults.rig import Rig, check, get
from tests.faults.stores import Stop

LEVELS = ["READ COMMITTED", "REPEATABLE READ"]
LARGE = photos.saved(photos.opened("coffee", (60, 40)), "JPEG")
OTHER = photos.saved(photos.opened("chelsea", (60, 40)), "JPEG")

Work = Callable[[AsyncSession, Callable[[], Awaitable[object]]], Awaitable[None]]


@pytest.fixture(params=[f"{driver} {level}" for driver in ("asyncpg", "asyncmy") for level in LEVELS])
async def rig(request: pytest.FixtureRequest, servers: Servers, tmp_path: Any) -> AsyncIterator[Rig]:
    """The two databases with several writers, at the two common isolation levels."""
    driver, _, level = request.param.partition(" ")
    rig = await rig_of(servers.database(driver, tmp_path))
    rig.engine = rig.database.engine(isolation_level=level)
    rig.sessions = async_sessionmaker(rig.engine, expire_on_commit=False)
    rig.level = level  # type: ignore[attr-defined]
    yield rig
    await rig.database.aclose()


async def together(rig: Rig, *works: Work, before: str) -> list[BaseException | None]:
    """Run some work in several transactions, which meet after loading or before committing.

    The work receives a barrier to await after attaching. Transactions that meet before COMMIT wait for each other only
    until one of them waits for a lock of another.
    """
    meeting = asyncio.Barrier(len(works))

    async def run(work: Work) -> None:
        async with rig.sessions() as session, session.begin():
            bind_store(session, rig.store)

            async def meet() -> None:
                if before == "commit":
                    await session.flush()
                    with contextlib.suppress(TimeoutError, asyncio.BrokenBarrierError):
                        async with asyncio.timeout(0.3):
                            await meeting.wait()
                else:
                    await meeting.wait()

            await work(session, meet)

    return await asyncio.gather(*(run(work) for work in works), return_exceptions=True)  # type: ignore[return-value]


def replacing(content: bytes, size: tuple[int, int]) -> Work:
    """Attach an image."""

    async def work(session: AsyncSession, meet: Callable[[], Awaitable[object]]) -> None:
        user = await get(session)
        await user.picture.from_raw_file(content, None, size, "image/png")
        await user.picture.from_raw_file(content + b" small", None, (3, 2), "image/png", original=False)
        await meet()

    return work


async def deleting(session: AsyncSession, meet: Callable[[], Awaitable[object]]) -> None:
    """Delete the image."""
    await (await get(session)).picture.delete()
    await meet()


def may_refuse(rig: Rig, errors: list[BaseException | None]) -> None:
    """Assert that no transaction failed, except at most one that could not be serialised."""
    failed = [error for error in errors if error is not None]
    assert all(isinstance(error, DBAPIError) for error in failed), failed
    assert len(failed) <= (1 if "REPEATABLE" in rig.level else 0), failed  # type: ignore[attr-defined]


@pytest.mark.parametrize("before", ["flush", "commit"])
@pytest.mark.parametrize("sizes", [((30, 20), (30, 20)), ((8, 8), (9, 9))], ids=["same size", "other sizes"])
async def test_two_replace(rig: Rig, sizes: tuple[tuple[int, int], tuple[int, int]], before: str) -> None:
    """The last replacement is kept, and the image stored in between is deleted."""
    await rig.user(thumbnail=b"small")
    errors = await together(rig, replacing(b"A", sizes[0]), replacing(b"B", sizes[1]), before=before)
    may_refuse(rig, errors)
    assert await check(rig.database, rig.store) in ({b"A", b"A small"}, {b"B", b"B small"})


@pytest.mark.parametrize("sizes", [((30, 20), (30, 20)), ((8, 8), (9, 9))], ids=["same size", "other sizes"])
async def test_two_attach_the_first(rig: Rig, sizes: tuple[tuple[int, int], tuple[int, int]]) -> None:
    """Although there is no row to lock yet, one set is left."""
    await rig.user(content=None)
    errors = await together(rig, replacing(b"A", sizes[0]), replacing(b"B", sizes[1]), before="flush")
    failed = [error for error in errors if error is not None]
    assert all(isinstance(error, DBAPIError) for error in failed)
    assert len(failed) < 2
    contents = await check(rig.database, rig.store)
    assert contents in ({b"A", b"A small"}, {b"B", b"B small"})


@pytest.mark.parametrize("before", ["flush", "commit"])
async def test_one_replaces_and_one_deletes(rig: Rig, before: str) -> None:
    """In any order, the new image is left, or none."""
    await rig.user(thumbnail=b"small")
    may_refuse(rig, await together(rig, replacing(b"A", (9, 9)), deleting, before=before))
    assert await check(rig.database, rig.store) in ({b"A", b"A small"}, set())


async def test_two_delete(rig: Rig) -> None:
    """Both deletions succeed without a warning."""
    await rig.user(thumbnail=b"small")
    may_refuse(rig, await together(rig, deleting, deleting, before="flush"))
    await rig.check()


@pytest.mark.parametrize("old", [None, b"old"])
async def test_many_users_at_once(rig: Rig, old: bytes | None) -> None:
    """Transactions of different owners do not block each other, and never deadlock."""
    for number in range(1, 7):
        await rig.user(number, old)
    meeting = asyncio.Barrier(6)

    async def attach(number: int) -> None:
        async with rig.sessions() as session, session.begin():
            user = await get(session, number)
            await meeting.wait()
            await rig.attach(user.picture, b"%d" % number)
            await session.flush()
            async with asyncio.timeout(30):
                await meeting.wait()  # all of them have flushed, none has committed

    engine = rig.database.engine(pool_size=6)
    rig.sessions = async_sessionmaker(engine, expire_on_commit=False)
    await asyncio.gather(*(attach(number) for number in range(1, 7)))
    await rig.check(*(b"%d" % number for number in range(1, 7)))


# --- thumbnails ------------------------------------------------------------------------------------------------------


async def photographed(rig: Rig, blob: bytes = LARGE) -> None:
    """Commit a user with a real photograph."""
    async with rig.sessions() as session, session.begin():
        user = await session.get(User, 1) or User(id=1)
        session.add(user)
        await user.picture.from_blob(blob, rig.store)


@pytest.fixture
async def statements(rig: Rig) -> AsyncIterator[list[str]]:
    """Collect the statements that are sent to the database."""
    sent: list[str] = []

    def note(connection: object, cursor: object, statement: str, *rest: object) -> None:
        sent.append(statement)

    engine: AsyncEngine = rig.engine
    event.listen(engine.sync_engine, "before_cursor_execute", note)
    yield sent
    event.remove(engine.sync_engine, "before_cursor_execute", note)


async def test_two_want_one_thumbnail(rig: Rig, statements: list[str]) -> None:
    """Both transactions get the same row, neither fails, and one file exists."""
    await photographed(rig)
    meeting = asyncio.Barrier(2)

    async def want() -> str | None:
        async with rig.sessions() as session, session.begin():
            user = await get(session)
            await meeting.wait()
            thumbnail = await user.picture.get_or_generate_thumbnail(20, store=rig.store)
            assert (await session.scalars(select(User))).one() is user
            return thumbnail.revision

    found = await asyncio.gather(want(), want(), return_exceptions=True)
    failed = [error for error in found if isinstance(error, BaseException)]
    if "REPEATABLE" in rig.level and rig.database.name == "postgresql":  # type: ignore[attr-defined]
        assert all(isinstance(error, DBAPIError) for error in failed)  # its snapshot never includes the other's row
    else:
        assert not failed
        assert len(set(found)) == 1
    assert sum(statement.startswith("INSERT INTO user_picture") for statement in statements) == 3
    assert len(await check(rig.database, rig.store)) == 2


@pytest.mark.parametrize("change", ["replace", "delete"])
@pytest.mark.parametrize("first", ["thumbnail", "change"])
async def test_a_thumbnail_of_a_picture_that_is_replaced_meanwhile(rig: Rig, change: str, first: str) -> None:
    """Whichever commits first, no thumbnail of the old image is left; its maker may get an error."""
    if first == "thumbnail" and "REPEATABLE" in rig.level:  # type: ignore[attr-defined]
        pytest.skip("what is replaced is read in a snapshot that may be older than the thumbnail")
    await photographed(rig)
    stop = Stop()

    async def thumbnail() -> None:
        async with rig.sessions() as session, session.begin():
            user = await get(session)
            rig.store.at("get", stop, 1, after=True)
            await user.picture.generate_thumbnail(width=20, store=rig.store)

    async def alter() -> None:
        with store_context(rig.store):
            async with rig.sessions() as session, session.begin():
                user = await get(session)
                if change == "delete":
                    await user.picture.delete()
                else:
                    await user.picture.from_blob(OTHER)
                if first == "thumbnail":
                    await changed()

    making: asyncio.Task[None] | None = None

    async def changed() -> None:
        stop.go.set()
        assert making is not None
        await making

    making = asyncio.create_task(thumbnail())
    await stop.reached.wait()
    if first == "thumbnail":
        await alter()
    else:
        await alter()
        stop.go.set()
        with pytest.raises((NoOriginalError, StoreFileNotFoundError, DBAPIError)):
            await making
    await rig.check(*([OTHER] if change == "replace" else []))


async def test_a_hundred_want_one_thumbnail(sqlite_database: Database) -> None:
    """One decode and one file; SQLite's writers wait for each other if they use BEGIN IMMEDIATE."""
    rig = await rig_of(sqlite_database)
    await photographed(rig)
    engine = rig.database.engine(pool_size=5, max_overflow=0)

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Any) -> None:
        connection.exec_driver_sql("ROLLBACK")
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    sessions = async_sessionmaker(engine)

    async def want() -> str | None:
        async with sessions() as session, session.begin():
            user = await get(session)
            return (await user.picture.get_or_generate_thumbnail(20, store=rig.store)).revision

    found = await asyncio.gather(*(want() for _ in range(40)))
    assert len(set(found)) == 1
    assert rig.store.counts["get"] <= 2
    assert len(await check(rig.database, rig.store)) == 2


async def test_two_replace_on_sqlite(sqlite_rig: Rig) -> None:
    """With deferred transactions, SQLite refuses the second one: its file is deleted, and the first is complete."""
    rig = sqlite_rig
    await rig.user()
    errors = await together(rig, replacing(b"A", (8, 8)), replacing(b"B", (9, 9)), before="flush")
    [failed] = [error for error in errors if error is not None]
    assert isinstance(failed, OperationalError)
    assert "locked" in str(failed)
    assert await check(rig.database, rig.store) in ({b"A", b"A small"}, {b"B", b"B small"})


async def test_two_replace_on_sqlite_one_after_the_other(sqlite_rig: Rig) -> None:
    """With BEGIN IMMEDIATE the second waits, and sees the changes of the first."""
    rig = sqlite_rig
    await rig.user()

    @event.listens_for(rig.engine.sync_engine, "begin")
    def begin(connection: Any) -> None:
        connection.exec_driver_sql("ROLLBACK")
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    async def replace(content: bytes, size: tuple[int, int]) -> None:
        async with rig.sessions() as session, session.begin():
            await rig.attach((await get(session)).picture, content, size)

    await asyncio.gather(replace(b"A", (8, 8)), replace(b"B", (9, 9)))
    assert await check(rig.database, rig.store) in ({b"A"}, {b"B"})
