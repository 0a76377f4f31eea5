"""The commit fence: a COMMIT is refused once a sweep could treat the transaction's files as orphaned."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from aioimageattach import bind_store
from aioimageattach._transaction.fence import GRACE, check_age, grace_of, set_grace
from aioimageattach.exc import DeclarationError, TransactionExpiredError
from tests.databases import Database
from tests.faults.models import Base, User
from tests.faults.rig import STYLES, Rig
from tests.faults.stores import FaultyStore

ANY = timedelta(microseconds=1)
"""A grace time after which each upload is old."""

SHORT = timedelta(seconds=2)
"""A grace time within which a commit succeeds, also on a busy machine."""


@pytest.fixture
async def rig(database: Database) -> Rig:
    """Each database in turn, with an image."""
    return await rig_of(database)


@pytest.fixture
async def sqlite_rig(sqlite_database: Database) -> Rig:
    """SQLite, with an image, for tests that wait until a transaction is old."""
    return await rig_of(sqlite_database)


async def rig_of(database: Database) -> Rig:
    await database.create(Base.metadata)
    rig = Rig(database, FaultyStore(), database.engine(pool_size=1, max_overflow=0))
    await rig.user(1, b"old")
    bind_store(rig.sessions, rig.store)
    return rig


@pytest.mark.parametrize("style", STYLES)
async def test_an_old_transaction_is_not_committed(rig: Rig, style: str) -> None:
    """For every way to use a session, the rows and files are rolled back, and the connection is clean."""
    with pytest.raises(TransactionExpiredError, match=r"expected a commit at most .* after the first upload"):
        async with STYLES[style](rig.sessions) as session:
            session.add(user := User(id=2))
            await rig.attach(user.picture, b"new")
            await rig.attach((await session.get_one(User, 1)).picture, b"newer")
            await session.flush()
            set_grace(session, ANY)
    await rig.user(3, b"next")
    await rig.check(b"old", b"next")


async def test_a_session_can_be_used_after_a_rollback(rig: Rig) -> None:
    """After a rollback, the session can be used as after a COMMIT that the database refused."""
    async with rig.sessions() as session:
        session.add(user := User(id=2))
        await rig.attach(user.picture, b"new")
        await session.flush()
        set_grace(session, ANY)
        with pytest.raises(TransactionExpiredError):
            await session.commit()
        await session.rollback()
        set_grace(session, GRACE)
        session.add(user := User(id=2))
        await rig.attach(user.picture, b"again")
        await session.commit()
    await rig.check(b"old", b"again")


@pytest.mark.parametrize("released", [True, False])
async def test_files_of_a_savepoint_count_if_they_are_kept(sqlite_rig: Rig, released: bool) -> None:
    """Uploads of a released savepoint count, and those of a rolled back one do not."""
    rig = sqlite_rig
    set_grace(rig.sessions, SHORT)
    async with rig.sessions() as session:
        savepoint = await session.begin_nested()
        session.add(user := User(id=2))
        await rig.attach(user.picture, b"new")
        await session.flush()
        await asyncio.sleep(SHORT.total_seconds())
        if released:
            await savepoint.commit()
            with pytest.raises(TransactionExpiredError):
                await session.commit()
        else:
            await savepoint.rollback()
            session.add(user := User(id=3))
            await rig.attach(user.picture, b"newer")
            await session.commit()
    await rig.check(b"old", *([] if released else [b"newer"]))


async def test_the_age_starts_with_the_upload(sqlite_rig: Rig) -> None:
    """An image that was attached long ago is not old, and a slow upload is."""
    rig = sqlite_rig
    set_grace(rig.sessions, SHORT)
    async with rig.sessions() as session:
        session.add(user := User(id=2))
        await rig.attach(user.picture, b"new")
        await asyncio.sleep(SHORT.total_seconds())
        await session.commit()

    async def slow(name: str) -> None:
        await asyncio.sleep(SHORT.total_seconds())

    rig.store.at("put", slow, after=True)
    async with rig.sessions() as session:
        session.add(user := User(id=3))
        await rig.attach(user.picture, b"slow")
        with pytest.raises(TransactionExpiredError):
            await session.commit()
    await rig.check(b"old", b"new")


async def test_a_transaction_without_new_files_may_take_long(rig: Rig) -> None:
    """A transaction without new files has no files that a sweep could delete."""
    async with rig.sessions() as session:
        user = await session.get_one(User, 1)
        await user.picture.delete()
        await session.flush()
        set_grace(session, ANY)
        await session.commit()
    await rig.check()


def test_the_share_of_the_grace_time() -> None:
    """A commit is refused after three quarters of the grace time, and the message states the limit."""
    check_age(18 * 3600, GRACE)
    check_age(-1, GRACE)
    check_age(float("-inf"), GRACE)
    with pytest.raises(TransactionExpiredError, match=r"at most 64,800 s after .*, got one after 64,801 s"):
        check_age(18 * 3600 + 1, GRACE)


async def test_the_grace_time_of_sessions(sqlite_database: Database) -> None:
    """The default is one day; a session has its own grace time or that of its sessionmaker."""
    sessions: async_sessionmaker[AsyncSession] = async_sessionmaker(sqlite_database.engine(), info={"mine": 1})
    assert grace_of(sessions) == GRACE == timedelta(days=1)
    set_grace(sessions, timedelta(hours=2))
    async with sessions() as session:
        assert session.info["mine"] == 1
        assert grace_of(session) == timedelta(hours=2)
        set_grace(session, timedelta(hours=1))
        assert grace_of(session) == timedelta(hours=1)
    assert grace_of(sessions) == timedelta(hours=2)


@pytest.mark.parametrize("grace", [timedelta(0), timedelta(seconds=-1), timedelta(days=1, seconds=1)])
def test_grace_times_out_of_range(grace: timedelta) -> None:
    """A grace time longer than the sweep's default is refused."""
    with pytest.raises(ValueError, match=r"at most 1 day, 0:00:00, got"):
        set_grace(async_sessionmaker(), grace)


@pytest.mark.parametrize("target", [None, 7])
def test_objects_without_sessions_are_refused(target: Any) -> None:
    """An object without sessions is refused."""
    with pytest.raises(DeclarationError, match="expected a session or a sessionmaker"):
        set_grace(target, timedelta(hours=1))
