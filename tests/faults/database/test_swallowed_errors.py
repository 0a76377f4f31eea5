"""Errors that the application ignores after the flush: the database has rolled back, and commit() raises nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import pytest
from sqlalchemy import insert, text, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from tests.faults.database.changes import CHANGES, Change, left_by, replace
from tests.faults.models import User
from tests.faults.rig import STYLES, Rig, get, swept

Failure = Callable[[AsyncSession], Awaitable[object]]


async def an_unknown_table(session: AsyncSession) -> None:
    await session.execute(text("SELECT * FROM nothing_of_this_name"))


async def a_violated_constraint(session: AsyncSession) -> None:
    await session.execute(insert(User.__table__).values(id=2))


async def a_statement_that_takes_too_long(session: AsyncSession) -> None:
    await session.execute(text("SET LOCAL statement_timeout = 20"))
    await session.execute(text("SELECT pg_sleep(30)"))


async def a_division_by_zero(session: AsyncSession) -> None:
    await session.execute(text("SELECT 1/0"))


ABORTED: list[tuple[Failure, str, str]] = [
    (an_unknown_table, "commit", "replace"),
    (a_violated_constraint, "begin", "remove"),
    (a_statement_that_takes_too_long, "dependency", "delete_owner"),
    (a_division_by_zero, "begin", "replace"),
]
"""Errors, each with another way to use a session and another change."""

postgresql = pytest.mark.parametrize(
    "rig", [f"{driver} {kind}" for driver in ("asyncpg", "psycopg") for kind in ("pictures", "values")], indirect=True
)
mariadb = pytest.mark.parametrize("rig", ["asyncmy pictures", "asyncmy values"], indirect=True)
sqlite = pytest.mark.parametrize("rig", ["aiosqlite pictures", "aiosqlite values"], indirect=True)


async def check_old(rig: Rig) -> None:
    """Assert that the database has all its previous contents, and that one sweep removes the rest."""
    await rig.check(b"old", b"two", orphans=True)
    await swept(rig.database, rig.store)
    await rig.check(b"old", b"two")


@postgresql
@pytest.mark.parametrize(("failure", "style", "change"), ABORTED, ids=[failure.__name__ for failure, *_ in ABORTED])
async def test_postgresql_answers_commit_with_rollback(rig: Rig, failure: Failure, style: str, change: str) -> None:
    """A failed statement aborts the transaction; its COMMIT is a ROLLBACK without an error."""
    await rig.user(1)
    await rig.user(2, b"two")
    async with STYLES[style](rig.sessions) as session:
        await CHANGES[change](rig, session)
        await session.flush()
        with contextlib.suppress(DBAPIError):
            await failure(session)
    await check_old(rig)


@postgresql
async def test_the_disagreement_is_logged(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """The log contains that a file was kept although the session considered it unused."""
    await rig.user(1)
    async with rig.sessions() as session:
        await replace(rig, session)
        await session.flush()
        with contextlib.suppress(DBAPIError):
            await an_unknown_table(session)
        await session.commit()
    assert [record for record in caplog.records if record.name.startswith("aioimageattach")]


@postgresql
async def test_the_session_continues_after_the_silent_rollback(rig: Rig) -> None:
    """The next transaction of the session replaces the actual file."""
    await rig.user(1)
    async with rig.sessions() as session:
        await replace(rig, session)
        await session.flush()
        with contextlib.suppress(DBAPIError):
            await an_unknown_table(session)
        await session.commit()
        session.expunge_all()
        await rig.replace(await get(session), b"newer")
        await session.commit()
    await rig.check(b"newer", orphans=True)
    await swept(rig.database, rig.store)
    await rig.check(b"newer")


async def test_a_failed_statement_in_a_savepoint(rig: Rig, change: Change) -> None:
    """An error confined to a savepoint changes nothing else, and the transaction is committed."""
    await rig.user(1)
    await rig.user(2, b"two")
    async with rig.sessions() as session:
        await change(rig, session)
        await session.flush()
        with contextlib.suppress(DBAPIError):
            async with session.begin_nested():
                await an_unknown_table(session)
        await session.commit()
    await rig.check(*left_by(change), b"two")


@mariadb
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
async def test_a_deadlock_on_mariadb(rig: Rig, change: Change) -> None:
    """The victim of a deadlock is rolled back completely; its commit has nothing to commit."""
    await rig.user(1)
    await rig.user(2, b"two")
    await rig.user(3, None)
    async with rig.sessions() as victim, rig.sessions() as other:
        await change(rig, victim)
        await victim.flush()
        await victim.execute(update(User.__table__).where(User.__table__.c.id == 1).values(name="locked here"))
        await other.execute(
            update(User).where(User.id == 3).values(name="x" * 50)
        )  # the smaller transaction is the victim
        for number in range(100, 200):
            await other.execute(insert(User.__table__).values(id=number))
        await other.execute(update(User).where(User.id == 2).values(name="locked there"))
        waiting = asyncio.create_task(other.execute(update(User).where(User.id == 1).values(name="wanted")))
        await blocked(rig, waiting)
        with pytest.raises(DBAPIError, match="Deadlock"):
            await victim.execute(update(User).where(User.id == 2).values(name="wanted, too"))
        await victim.commit()
        await waiting
        await other.rollback()
    await check_old(rig)


async def blocked(rig: Rig, task: asyncio.Task[object]) -> None:
    """Wait until a statement waits for a lock of MariaDB."""
    async with rig.database.reader.connect() as connection, asyncio.timeout(30):
        connection = await connection.execution_options(isolation_level="AUTOCOMMIT")
        query = text(
            "SELECT count(*) FROM information_schema.innodb_trx JOIN information_schema.processlist"
            " ON id = trx_mysql_thread_id WHERE db = database() AND trx_state = 'LOCK WAIT'"
        )
        while not await connection.scalar(query):
            assert not task.done()
            await asyncio.sleep(0.2)  # InnoDB updates this table only if it was not read for 0.1 s


@sqlite
@pytest.mark.parametrize("then", ["commit", "rollback"])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
async def test_a_conflict_that_rolls_back_on_sqlite(rig: Rig, change: Change, then: str) -> None:
    """``INSERT OR ROLLBACK`` ends the transaction that the session considers open."""
    await rig.user(1)
    await rig.user(2, b"two")
    async with rig.sessions() as session:
        await change(rig, session)
        await session.flush()
        with contextlib.suppress(DBAPIError):
            await session.execute(text("INSERT OR ROLLBACK INTO user (id) VALUES (2)"))
        await getattr(session, then)()
    await check_old(rig)


@sqlite
async def test_statements_after_a_conflict_on_sqlite_are_permanent(rig: Rig) -> None:
    """After the transaction has ended, each statement commits by itself, and a rollback undoes nothing."""
    await rig.user(1)
    await rig.user(2, b"two")
    async with rig.sessions() as session:
        with contextlib.suppress(DBAPIError):
            await session.execute(text("INSERT OR ROLLBACK INTO user (id) VALUES (2)"))
        await replace(rig, session)
        await session.flush()
        await session.rollback()
    await rig.check(b"new", b"two", orphans=True)
    await swept(rig.database, rig.store)
    await rig.check(b"new", b"two")
