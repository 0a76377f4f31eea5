"""Prepared transactions, which may be committed later by any program."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from sqlalchemy import URL, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from aioimageattach.exc import RefusedError
from tests.databases import Database, Servers
from tests.faults.cluster import cluster, new_database
from tests.faults.conftest import rig_of
from tests.faults.rig import Rig, Style, get, swept


@pytest.fixture(scope="session")
def preparing() -> Iterator[URL]:
    """A PostgreSQL server with prepared transactions enabled, which they are not by default."""
    with tempfile.TemporaryDirectory() as folder, cluster(Path(folder), max_prepared_transactions=8) as url:
        yield url


@pytest.fixture(params=["asyncpg", "psycopg", "asyncmy", "aiomysql"])
async def rig(request: pytest.FixtureRequest, servers: Servers, tmp_path: Path) -> AsyncIterator[Rig]:
    """The databases that support two phases, with each driver."""
    driver = request.param
    if driver in ("asyncpg", "psycopg"):
        url = new_database(request.getfixturevalue("preparing"), f"test_{secrets.token_hex(4)}")
        database = Database("postgresql", driver, url.set(drivername=f"postgresql+{driver}"))
    else:
        database = servers.database(driver, tmp_path)
    yield await rig_of(database)
    await database.aclose()


async def test_committed(rig: Rig, style: Style) -> None:
    """A two-phase commit behaves like any other commit."""
    await rig.user()
    async with style(async_sessionmaker(rig.engine, twophase=True)) as session:
        await rig.attach((await get(session)).picture, b"new")
    await rig.check(b"new")


async def prepare(rig: Rig) -> str:
    """Replace an image in a prepared transaction, and return its name in the database."""
    async with AsyncSession(rig.engine, twophase=True) as session:
        await rig.attach((await get(session)).picture, b"new")
        connection = await session.connection()
        name: str = connection.sync_connection.get_transaction().xid  # type: ignore[union-attr]
        await session.run_sync(lambda sync_session: sync_session.prepare())
        await session.invalidate()
    return name


async def decide(rig: Rig, name: str, how: str) -> None:
    """Commit or roll back the transaction, like an administrator."""
    async with rig.engine.connect() as connection:
        connection = await connection.execution_options(isolation_level="AUTOCOMMIT")
        statement = f"{how} PREPARED" if rig.database.name == "postgresql" else f"XA {how}"
        await connection.execute(text(f"{statement} '{name}'"))


@pytest.mark.parametrize("later", ["COMMIT", "ROLLBACK"])
async def test_nobody_there_for_the_second(rig: Rig, later: str) -> None:
    """The files of both outcomes are kept; a sweep on PostgreSQL refuses to run."""
    await rig.user()
    name = await prepare(rig)
    try:
        if rig.database.name == "postgresql":
            with pytest.raises(RefusedError, match="1 transactions were prepared"):
                await swept(rig.database, rig.store)
        assert len(await rig.store.names()) == 2
    finally:  # which would otherwise lock the tables forever
        await decide(rig, name, later)
    await rig.check(b"new" if later == "COMMIT" else b"old", orphans=True)
    assert await swept(rig.database, rig.store) == 1
