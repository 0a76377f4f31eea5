"""The fixtures on which all other tests rely."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import pyvips
from blockbuster import BlockingError
from sqlalchemy import Column, Integer, MetaData, Table, UniqueConstraint, func, insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.pool import NullPool

import aioimageattach as package
from tests.databases import Database, Servers

metadata = MetaData()
numbers = Table("numbers", metadata, Column("number", Integer), UniqueConstraint("number"))


async def test_each_test_has_an_empty_database(any_driver_database: Database) -> None:
    """With each driver, the database of a test is empty, so tables can be created."""
    await any_driver_database.create(metadata)
    async with any_driver_database.engine().begin() as connection:
        assert await connection.scalar(select(func.count()).select_from(numbers)) == 0
        await connection.execute(insert(numbers).values(number=1))


async def test_savepoints_roll_back_by_themselves(any_driver_database: Database) -> None:
    """With every driver, rolling back a savepoint keeps the earlier changes of the transaction."""
    await any_driver_database.create(metadata)
    async with AsyncSession(any_driver_database.engine()) as session:
        await session.execute(insert(numbers).values(number=1))
        with pytest.raises(IntegrityError):
            async with session.begin_nested():
                await session.execute(insert(numbers).values(number=2))
                await session.execute(insert(numbers).values(number=1))
        async with session.begin_nested():
            await session.execute(insert(numbers).values(number=3))
        assert set(await session.scalars(select(numbers.c.number))) == {1, 3}
        await session.rollback()
        assert set(await session.scalars(select(numbers.c.number))) == set()


async def test_an_autocommit_engine_keeps_changes_after_a_rollback(database: Database) -> None:
    """Engine options reach the driver: with AUTOCOMMIT, a rollback undoes nothing."""
    await database.create(metadata)
    async with AsyncSession(database.engine(isolation_level="AUTOCOMMIT")) as session:
        await session.execute(insert(numbers).values(number=1))
        await session.rollback()
        assert list(await session.scalars(select(numbers.c.number))) == [1]


async def test_an_open_transaction_does_not_block_the_next_test(
    database: Database, servers: Servers, tmp_path: Path
) -> None:
    """The database is emptied even if a transaction of the previous test is still open."""
    await database.create(metadata)
    async with database.engine(poolclass=NullPool).connect() as forgotten:
        await forgotten.execute(insert(numbers).values(number=1))
        following = servers.database(database.driver, tmp_path)
        try:
            await following.create(metadata)
        finally:
            await following.aclose()
        await forgotten.invalidate()


BLOCKING = {
    "sleep": "import time; time.sleep(0)",
    "disk": "import os; os.stat('/')",
    "libvips": "import pyvips; pyvips.Image.black(1, 1)",
    "libvips' pixels": "blank.write_to_memory()",
    "libvips' copies": "blank.copy_memory()",
}


@pytest.mark.parametrize("code", BLOCKING.values(), ids=BLOCKING)
async def test_blocking_calls_of_the_package_fail(code: str) -> None:
    """Code of the package fails if it sleeps, reads the disk or processes pixels in the event loop."""
    inside = compile(
        code, f"{package.__path__[0]}-guarded.py", "exec"
    )  # equivalent to a call inside, and not measured for coverage
    blank = await asyncio.to_thread(pyvips.Image.black, 1, 1)
    with pytest.raises(BlockingError):
        exec(inside, {"blank": blank})
    await asyncio.to_thread(exec, inside, {"blank": blank})
