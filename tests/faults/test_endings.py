"""Transactions and savepoints that end without an error."""

from __future__ import annotations

import gc
import weakref
from collections.abc import AsyncIterator
from typing import Any, Literal

import pytest
from fastapi import Depends, FastAPI, Request
from httpx import ASGITransport, AsyncClient
from sqlalchemy.exc import IntegrityError, SAWarning
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.ext.horizontal_shard import ShardedSession

from aioimageattach.context import store_context
from tests.databases import Database
from tests.faults.models import Base, User
from tests.faults.rig import GivenUp, Rig, Style, check, get
from tests.faults.stores import FaultyStore

JoinMode = Literal["conditional_savepoint", "rollback_only", "control_fully", "create_savepoint"]

# --- committed -------------------------------------------------------------------------------------------------------


async def test_committed_means_stored(any_driver_rig: Rig, style: Style) -> None:
    """An image attached inside a store context and committed outside is stored when the commit returns."""
    rig = any_driver_rig
    async with style(rig.sessions) as session:
        session.add(user := User(id=1))
        with store_context(rig.store):
            await user.picture.from_raw_file(b"new", size=(3, 2), mimetype="image/png")
        assert not await rig.store.names()
    await rig.check(b"new")


async def test_replaced_by_one_of_the_same_size(rig: Rig, style: Style) -> None:
    """The old file exists until the commit, and is deleted after it."""
    await rig.user(thumbnail=b"small")
    async with style(rig.sessions) as session:
        await rig.attach((await get(session)).picture, b"new")
        await session.flush()
        assert len(await rig.store.names()) == 3
    await rig.check(b"new")


async def session_of_the_request(request: Request) -> AsyncIterator[AsyncSession]:
    """Yield a session, as in FastAPI's documentation."""
    async with request.app.state.rig.sessions() as session:
        yield session
        await session.commit()


async def upload(fate: str, request: Request, session: AsyncSession = Depends(session_of_the_request)) -> int:  # noqa: B008
    """A handler that may fail after it has flushed."""
    user = await get(session)
    await request.app.state.rig.attach(user.picture, fate.encode())
    await session.flush()
    if fate == "bad":
        raise GivenUp
    return user.id


async def test_a_web_frameworks_dependency(rig: Rig) -> None:
    """With FastAPI, the image is stored when the handler responds, and deleted if it raises."""
    app = FastAPI()
    app.state.rig = rig
    app.post("/{fate}")(upload)
    await rig.user()
    async with AsyncClient(transport=ASGITransport(app), base_url="http://test") as client:
        with pytest.raises(GivenUp):
            await client.post("/bad")
        await rig.check(b"old")
        assert (await client.post("/good")).json() == 1
        await rig.check(b"good")


# --- given up --------------------------------------------------------------------------------------------------------


async def leave(session: AsyncSession, how: str) -> None:
    """End the transaction of a session without a commit."""
    if how == "rollback":
        await session.rollback()
    elif how == "reset":
        await session.reset()
    elif how == "invalidate":
        await session.invalidate()
    else:
        if how == "expunge":
            session.expunge_all()
        await session.close()


@pytest.mark.parametrize("how", ["rollback", "close", "reset", "invalidate", "expunge"])
async def test_every_way_to_give_up(rig: Rig, how: str) -> None:
    """Uploads are deleted, old files stay, even with the same size and type, and the session is usable."""
    await rig.user(1)
    await rig.user(2, b"two")
    async with rig.sessions() as session:
        await rig.attach((await get(session, 1)).picture, b"new")
        await rig.attach((await get(session, 2)).picture, b"other", (9, 9))
        await session.flush()
        assert len(await rig.store.names()) == 4
        await leave(session, how)
        assert len(await rig.store.names()) == 2
        await rig.check(b"old", b"two")
        await rig.attach((await get(session, 1)).picture, b"newer")
        await session.commit()
    await rig.check(b"newer", b"two")


async def test_left_by_the_block_alone(rig: Rig) -> None:
    """``async with session`` ends without a commit and without an error."""
    await rig.user()
    async with rig.sessions() as session:
        await rig.attach((await get(session)).picture, b"new")
        await session.flush()
    await rig.check(b"old")


async def test_forgotten(sqlite_rig: Rig) -> None:
    """A garbage-collected session orphans its upload, and leaves no coroutine unawaited."""
    rig = sqlite_rig
    await rig.user()

    async def forget() -> weakref.ref[AsyncSession]:
        session = rig.sessions()
        await rig.attach((await get(session)).picture, b"new")
        await session.flush()
        await (await session.connection()).invalidate()
        return weakref.ref(session)

    forgotten = await forget()
    gc.collect()
    assert forgotten() is None
    await rig.check(b"old", orphans=True)
    assert len(await rig.store.names()) == 2


async def test_each_session_keeps_its_own(rig: Rig) -> None:
    """The rollback of one session does not affect another that is open concurrently."""
    await rig.user(1)
    await rig.user(2, b"two")
    async with rig.sessions() as ours, rig.sessions() as theirs:
        await rig.attach((await get(ours, 1)).picture, b"ours")
        await ours.flush()
        await rig.attach((await get(theirs, 2)).picture, b"theirs")
        if rig.database.name != "sqlite":  # which has one writer at a time
            await theirs.flush()
        await theirs.rollback()
        await ours.commit()
    await rig.check(b"ours", b"two")


# --- savepoints ------------------------------------------------------------------------------------------------------


async def test_savepoints_rolled_back(rig: Rig, style: Style) -> None:
    """Uploads of two nested, rolled back savepoints are deleted after the commit; replaced files stay."""
    await rig.user(1, thumbnail=b"small")
    await rig.user(2, b"two")
    await rig.user(3, b"three")
    async with style(rig.sessions) as session:
        await rig.attach((await get(session, 2)).picture, b"TWO")
        outer = await session.begin_nested()
        await rig.attach((await get(session, 1)).picture, b"ONE")
        inner = await session.begin_nested()
        await rig.attach((await get(session, 1)).picture, b"one!", (7, 7))
        await rig.attach((await get(session, 3)).picture, b"THREE")
        await session.flush()
        assert len(await rig.store.names()) == 8
        await inner.rollback()
        await outer.rollback()
        assert len(await rig.store.names()) == 8
        await (await get(session, 3)).picture.load()
        with store_context(rig.store):
            await (await get(session, 3)).picture.delete()
            await session.flush()
    await rig.check(b"old", b"small", b"TWO")


async def test_savepoints_released(rig: Rig, style: Style) -> None:
    """Nothing is deleted before the outermost commit, and then exactly the replaced files."""
    await rig.user(1)
    await rig.user(2, b"two")
    async with style(rig.sessions) as session:
        async with session.begin_nested():
            await rig.attach((await get(session, 1)).picture, b"ONE")
            async with session.begin_nested():
                with store_context(rig.store):
                    await session.delete(await get(session, 2))
                    await session.flush()
        assert len(await rig.store.names()) == 3
    await rig.check(b"ONE")


async def test_savepoints_released_and_all_rolled_back(rig: Rig, style: Style) -> None:
    """A released savepoint is not committed: the old files stay."""
    await rig.user(1)
    await rig.user(2, b"two")
    with pytest.raises(GivenUp):
        async with style(rig.sessions) as session:
            async with session.begin_nested():
                await rig.attach((await get(session, 1)).picture, b"ONE")
                with store_context(rig.store):
                    await session.delete(await get(session, 2))
                    await session.flush()
            raise GivenUp
    await rig.check(b"old", b"two")


async def test_a_violated_constraint_in_a_savepoint(any_driver_rig: Rig, style: Style) -> None:
    """If the error is caught outside of the savepoint, its files are deleted, and the rest is committed."""
    rig = any_driver_rig
    await rig.user()
    async with style(rig.sessions) as session:
        await rig.attach((await get(session)).picture, b"new")
        with pytest.raises(IntegrityError):
            async with session.begin_nested():
                session.add(other := User(id=2, name="user 1"))
                await rig.attach(other.picture, b"other")
        session.add(third := User(id=3))
        await rig.attach(third.picture, b"third")
    await rig.check(b"new", b"third")


async def test_a_savepoint_left_open_at_the_commit(rig: Rig) -> None:
    """The commit releases the savepoint."""
    await rig.user()
    async with rig.sessions() as session, session.begin():
        await session.begin_nested()
        await rig.attach((await get(session)).picture, b"new")
    await rig.check(b"new")


@pytest.mark.parametrize("options", [{}, {"connect_args": {"isolation_level": None}}])
@pytest.mark.parametrize("commit", [False, True])
async def test_sqlite_without_the_recipe(sqlite_database: Database, options: dict[str, Any], commit: bool) -> None:
    """By default, SQLite's driver commits with the outermost savepoint or after each statement: what is rolled back
    afterwards stays, with its files.
    """
    await sqlite_database.create(Base.metadata)
    engine = create_async_engine(sqlite_database.url, **options)
    store = FaultyStore()
    async with AsyncSession(engine) as session:
        async with session.begin_nested():
            session.add(user := User(id=1))
            await user.picture.from_raw_file(b"new", store, (3, 2), "image/png")
        await (session.commit() if commit else session.rollback())
    await engine.dispose()
    assert await check(sqlite_database, store) == {b"new"}


async def test_sqlite_without_the_recipe_and_without_savepoints(sqlite_database: Database) -> None:
    """Without savepoints, its transactions work normally."""
    await sqlite_database.create(Base.metadata)
    engine = create_async_engine(sqlite_database.url)
    store = FaultyStore()
    async with AsyncSession(engine) as session:
        session.add(user := User(id=1))
        await user.picture.from_raw_file(b"new", store, (3, 2), "image/png")
        await session.flush()
        await session.rollback()
    await engine.dispose()
    assert await check(sqlite_database, store) == set()


# --- a transaction that is not the session's own ---------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["conditional_savepoint", "rollback_only", "control_fully", "create_savepoint"])
@pytest.mark.parametrize("ending", ["rollback", "commit"])
async def test_a_session_in_a_transaction_of_its_connection(
    rig: Rig, mode: JoinMode, ending: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As in the recipe for test suites: the session's commit is not final, so all files are kept; this is logged."""
    await rig.user()
    async with rig.engine.connect() as connection:
        outer = await connection.begin()
        async with AsyncSession(connection, join_transaction_mode=mode) as session:
            await rig.attach((await get(session)).picture, b"new")
            await session.commit()
        assert len(await rig.store.names()) == 2
        if outer.is_active:
            await getattr(outer, ending)()
    kept = b"new" if ending == "commit" or mode == "control_fully" else b"old"
    assert "the session was created with a connection" in caplog.text
    await rig.check(kept, orphans=True)
    assert len(await rig.store.names()) == 2


@pytest.mark.parametrize("mode", ["conditional_savepoint", "rollback_only", "control_fully", "create_savepoint"])
async def test_a_rollback_in_a_transaction_of_its_connection(rig: Rig, mode: JoinMode) -> None:
    """The database cannot be queried while the outer transaction is open: the uploads are left for the sweep."""
    await rig.user()
    async with rig.engine.connect() as connection:
        outer = await connection.begin()
        async with AsyncSession(connection, join_transaction_mode=mode) as session:
            await rig.attach((await get(session)).picture, b"new")
            await session.flush()
            await session.rollback()
        await rig.check(b"old", orphans=True)
        if outer.is_active:
            await outer.commit()
    await rig.check(b"old", orphans=True)


async def test_a_session_bound_by_class_to_a_connection(rig: Rig) -> None:
    """The same holds for a connection that is bound for one class."""
    await rig.user()
    async with rig.engine.connect() as connection:
        outer = await connection.begin()
        binds: Any = {Base: connection}
        async with AsyncSession(binds=binds) as session:
            await rig.attach((await get(session)).picture, b"new")
            await session.commit()
        await outer.rollback()
    await rig.check(b"old", orphans=True)


async def test_a_session_over_shards(sqlite_database: Database) -> None:
    """The session owns its connections, although it cannot name one for a class alone."""
    await sqlite_database.create(Base.metadata)
    store = FaultyStore()

    def choose(mapper: object, instance: object, clause: object = None) -> str:
        if instance is None and clause is None:
            raise LookupError
        return "one"

    sessions = async_sessionmaker(
        sync_session_class=ShardedSession,
        shards={"one": sqlite_database.engine().sync_engine},
        shard_chooser=choose,
        identity_chooser=lambda *_, **__: ["one"],
        execute_chooser=lambda _: ["one"],
    )
    for content in (b"old", b"new"):
        async with sessions() as session:
            user = await session.get(User, 1) or User(id=1)
            session.add(user)
            await user.picture.from_raw_file(content, store, (3, 2), "image/png")
            await session.commit()
        assert await check(sqlite_database, store) == {content}


async def test_the_connection_is_committed_under_the_session(rig: Rig) -> None:
    """The connection is committed, then the session rolls back: the row exists, and so does its file."""
    await rig.user()
    async with rig.sessions() as session:
        await rig.attach((await get(session)).picture, b"new")
        await session.flush()
        await (await session.connection()).commit()
        with pytest.warns(SAWarning, match="already deassociated"):
            await session.rollback()
    await rig.check(b"new", orphans=True)


# --- transactions that are none, or two ------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["engine", "option", "connection"])
async def test_autocommit(rig: Rig, by: str) -> None:
    """Each statement is permanent immediately: a rollback deletes no file, and the row is complete."""
    await rig.user()
    engine = rig.engine
    if by == "engine":
        engine = rig.database.engine(isolation_level="AUTOCOMMIT")
    elif by == "option":
        engine = engine.execution_options(isolation_level="AUTOCOMMIT")
    async with AsyncSession(engine) as session:
        if by == "connection":
            await session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
        await rig.attach((await get(session)).picture, b"new")
        await session.flush()
        await session.rollback()
        await rig.check(b"new", orphans=True)
        with store_context(rig.store):
            await session.delete(await get(session))
            await session.commit()
    assert len(await rig.store.names()) == 1  # the one that was replaced and rolled back
    await rig.check(orphans=True)
