"""Transactions and savepoints that end without the session: the files follow the database."""

from __future__ import annotations

import asyncio
import warnings
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError, InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.util import await_only

from aioimageattach.context import bind_store
from tests.databases import Servers
from tests.faults.conftest import rig_of
from tests.faults.database.changes import CHANGES, Change, left_by, replace
from tests.faults.rig import Rig, get, swept

changes = pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)


async def check_after_a_sweep(rig: Rig, *expected: bytes) -> None:
    """Assert that rows have their files, and that one sweep removes all others."""
    await rig.check(*expected, orphans=True)
    await swept(rig.database, rig.store)
    await rig.check(*expected)


# --- savepoints that the session does not know -----------------------------------------------------------------------


@pytest.mark.parametrize("end", ["rollback", "commit"])
async def test_a_savepoint_of_the_connection(rig: Rig, change: Change, end: str) -> None:
    """``connection.begin_nested()`` undoes a flush, and the session is not notified."""
    await rig.user()
    async with rig.sessions() as session:
        savepoint = await (await session.connection()).begin_nested()
        await change(rig, session)
        await session.flush()
        await getattr(savepoint, end)()
        await session.commit()
    await check_after_a_sweep(rig, *({b"old"} if end == "rollback" else left_by(change)))


async def test_a_savepoint_in_sql(rig: Rig, change: Change) -> None:
    """A savepoint that SQL statements roll back undoes a flush, too, and the session is not notified."""
    await rig.user()
    async with rig.sessions() as session:
        await session.execute(text("SAVEPOINT mine"))
        await change(rig, session)
        await session.flush()
        await session.execute(text("ROLLBACK TO SAVEPOINT mine"))
        await session.commit()
    await check_after_a_sweep(rig, b"old")


async def test_a_savepoint_of_the_connection_within_one_of_the_session(rig: Rig, change: Change) -> None:
    """The inner savepoint is rolled back, the outer one is released."""
    await rig.user()
    async with rig.sessions() as session:
        async with session.begin_nested():
            await session.execute(text("SAVEPOINT mine"))
            await change(rig, session)
            await session.flush()
            await session.execute(text("ROLLBACK TO SAVEPOINT mine"))
        await session.commit()
    await check_after_a_sweep(rig, b"old")


async def test_replaced_before_and_in_a_savepoint_of_the_connection(rig: Rig) -> None:
    """The file of the first replacement is kept."""
    await rig.user()
    async with rig.sessions() as session:
        await rig.replace(await get(session), b"first")
        await session.flush()
        savepoint = await (await session.connection()).begin_nested()
        await replace(rig, session)
        await session.flush()
        await savepoint.rollback()
        await session.commit()
    await check_after_a_sweep(rig, b"first")


async def test_the_session_continues_after_a_savepoint_of_the_connection(rig: Rig) -> None:
    """The next change of the session replaces the actual file, or is refused."""
    await rig.user()
    async with rig.sessions() as session:
        savepoint = await (await session.connection()).begin_nested()
        await replace(rig, session)
        await session.flush()
        await savepoint.rollback()
        session.expire_all()
        await rig.replace(await get(session), b"newer")
        await session.commit()
    await check_after_a_sweep(rig, b"newer")


# --- transactions ----------------------------------------------------------------------------------------------------


async def test_rolled_back_by_a_statement(rig: Rig, change: Change) -> None:
    """``ROLLBACK`` is sent as a statement, and the session commits nothing."""
    await rig.user()
    async with rig.sessions() as session:
        await change(rig, session)
        await session.flush()
        await session.execute(text("ROLLBACK"))
        await commit(session)
    await check_after_a_sweep(rig, b"old")


async def test_committed_by_a_statement(rig: Rig, change: Change) -> None:
    """``COMMIT`` is sent as a statement, and the rollback of the session has no effect."""
    await rig.user()
    async with rig.sessions() as session:
        await change(rig, session)
        await session.flush()
        await session.execute(text("COMMIT"))
        await session.rollback()
    await check_after_a_sweep(rig, *left_by(change))


async def commit(session: AsyncSession) -> None:
    """Commit although the transaction has ended, which some drivers refuse."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            await session.commit()
        except (DBAPIError, InvalidRequestError):
            await session.rollback()


@pytest.mark.parametrize("rig", ["asyncmy pictures", "asyncmy values"], indirect=True)
@changes
async def test_a_table_is_made_on_mariadb(rig: Rig, change: Change) -> None:
    """DDL commits earlier flushes; the rollback of the session has no effect."""
    await rig.user()
    async with rig.sessions() as session:
        await change(rig, session)
        await session.flush()
        await session.execute(text("CREATE TABLE other (id INTEGER)"))
        await session.rollback()
    await check_after_a_sweep(rig, *left_by(change))


@pytest.mark.parametrize("rig", ["asyncmy pictures", "asyncmy values"], indirect=True)
@changes
async def test_a_table_is_made_in_a_savepoint_on_mariadb(rig: Rig, change: Change) -> None:
    """DDL ends the savepoint with the transaction: rolling back to it fails, and undoes nothing."""
    await rig.user()
    async with rig.sessions() as session:
        savepoint = await session.begin_nested()
        await change(rig, session)
        await session.flush()
        await session.execute(text("CREATE TABLE other (id INTEGER)"))
        with pytest.raises(DBAPIError, match="SAVEPOINT"):
            await savepoint.rollback()
        await session.rollback()
    await check_after_a_sweep(rig, *left_by(change))


AUTOCOMMIT: dict[str, dict[str, Any]] = {
    "aiosqlite": {"connect_args": {"isolation_level": None}},
    "asyncmy": {"connect_args": {"autocommit": True}},
    "psycopg": {"connect_args": {"autocommit": True}},
}
"""How to make each driver commit every statement without SQLAlchemy's knowledge."""


@pytest.mark.parametrize(
    "rig", [f"{driver} {kind}" for driver in AUTOCOMMIT for kind in ("pictures", "values")], indirect=True
)
async def test_a_driver_that_commits_by_itself(rig: Rig, change: Change) -> None:
    """Each statement is permanent immediately; a rollback undoes nothing."""
    await rig.user()
    engine = create_async_engine(rig.database.url, **AUTOCOMMIT[rig.database.driver])
    rig.sessions = async_sessionmaker(engine, expire_on_commit=False)
    bind_store(rig.sessions, rig.store)
    async with rig.sessions() as session:
        await change(rig, session)
        await session.flush()
        await session.rollback()
    await engine.dispose()
    await check_after_a_sweep(rig, *left_by(change))


@pytest.mark.parametrize("rig", ["asyncmy pictures", "asyncmy values"], indirect=True)
@changes
async def test_autocommit_by_a_statement_on_mariadb(rig: Rig, change: Change) -> None:
    """``SET autocommit`` commits the open transaction, and each later statement."""
    await rig.user()
    async with rig.sessions() as session:
        await session.execute(text("SET autocommit = 1"))
        await change(rig, session)
        await session.flush()
        await session.rollback()
        await session.execute(text("SET autocommit = 0"))
    await check_after_a_sweep(rig, *left_by(change))


# --- when the database cannot be asked -------------------------------------------------------------------------------


class Outage:
    """Refuses every connection that is taken from an engine's pool after COMMIT was sent."""

    def __init__(self, rig: Rig) -> None:
        self.begun = False
        event.listen(rig.engine.sync_engine, "commit", self._commit)
        event.listen(rig.engine.sync_engine, "begin", self._begin)

    def _commit(self, connection: object) -> None:
        self.begun = True

    def _begin(self, connection: object) -> None:
        if self.begun:
            raise ConnectionResetError("the database is down")


async def test_the_database_is_down_when_it_is_asked(rig: Rig, change: Change) -> None:
    """The commit succeeds without an error; files that may be unused are left for the sweep."""
    await rig.user()
    outage = Outage(rig)
    async with rig.sessions() as session:
        await change(rig, session)
        await session.commit()
        assert outage.begun
    outage.begun = False
    await check_after_a_sweep(rig, *left_by(change))


async def test_the_database_does_not_answer_when_it_is_asked(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The query has a time limit; files that may be unused are left for the sweep."""
    monkeypatch.setattr("aioimageattach._transaction.references.QUERY_TIMEOUT", 0.1)
    await rig.user()
    hanging: list[bool] = []

    def begin(connection: object) -> None:
        if hanging:
            await_only(asyncio.Event().wait())

    event.listen(rig.engine.sync_engine, "begin", begin)
    event.listen(rig.engine.sync_engine, "commit", lambda connection: hanging.append(True))
    async with rig.sessions() as session:
        await replace(rig, session)
        hanging.clear()
        await session.commit()
    assert len(await rig.store.names()) == 2
    hanging.clear()
    await check_after_a_sweep(rig, b"new")


async def test_no_connection_is_free_when_the_database_is_asked(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another task takes the connection that the commit returned: the old file is left for the sweep."""
    monkeypatch.setattr("aioimageattach._transaction.references.QUERY_TIMEOUT", 0.1)
    await rig.user()
    engine = rig.database.engine(pool_size=1, max_overflow=0)
    rig.sessions = async_sessionmaker(engine, expire_on_commit=False)
    bind_store(rig.sessions, rig.store)
    taken, ended = asyncio.Event(), asyncio.Event()

    async def take() -> None:
        async with engine.connect():
            taken.set()
            await ended.wait()

    async with rig.sessions() as session:
        await replace(rig, session)
        await session.flush()
        taker = asyncio.ensure_future(take())
        await asyncio.sleep(0)
        assert not taken.is_set()
        await session.commit()
        assert taken.is_set()
    assert len(await rig.store.names()) == 2
    ended.set()
    await taker
    await check_after_a_sweep(rig, b"new")


@pytest.mark.parametrize("driver", ["aiosqlite", "asyncpg", "asyncmy"])
async def test_a_pool_of_one_connection(servers: Servers, tmp_path: Path, driver: str) -> None:
    """The query needs no second connection."""
    rig = await rig_of(servers.database(driver, tmp_path))
    try:
        engine = rig.database.engine(pool_size=1, max_overflow=0, pool_timeout=5)
        rig.sessions = async_sessionmaker(engine, expire_on_commit=False)
        bind_store(rig.sessions, rig.store)
        await rig.user()
        for content in (b"first", b"second"):
            async with rig.sessions() as session, session.begin():
                await rig.attach((await get(session)).picture, content)
        await rig.check(b"second")
    finally:
        await rig.database.aclose()


async def test_a_first_picture_costs_no_question(rig: Rig) -> None:
    """A transaction without unused files sends no statement after its COMMIT."""
    await rig.user(1, None)
    sent: list[str] = []

    async with rig.sessions() as session:
        await rig.replace(await get(session), b"new")
        await session.flush()
        event.listen(
            rig.engine.sync_engine, "before_cursor_execute", lambda c, cursor, statement, *rest: sent.append(statement)
        )
        await session.commit()
    assert sent == []
    await rig.check(b"new")
