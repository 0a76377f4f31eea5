"""Deadlocks of MariaDB that no lock order prevents, reproduced with SQLAlchemy alone.

See https://bugs.mysql.com/bug.php?id=68021 and https://bugs.mysql.com/bug.php?id=81563. If a version of MariaDB no
longer passes these tests, ``docs/howto/transactions.md`` can promise more.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from sqlalchemy import Column, Integer, MetaData, String, Table, delete, insert, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection

from tests.databases import Servers

DEADLOCK = 1213

metadata = MetaData()
files = Table(
    "file",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("revision", String(26), unique=True, nullable=False),
)


async def waits(connection: AsyncConnection, thread: int) -> bool:
    """Return whether the transaction of a server thread waits for a lock."""
    query = text("SELECT trx_state FROM information_schema.innodb_trx WHERE trx_mysql_thread_id = :thread")
    return await connection.scalar(query, {"thread": thread}) == "LOCK WAIT"


@pytest.mark.parametrize("level", ["READ COMMITTED", "REPEATABLE READ"])
async def test_neighbours_in_a_unique_index_wait_for_one_another(servers: Servers, tmp_path: Path, level: str) -> None:
    """Two transactions each delete a row, and insert its unique value again under another primary key.

    To find duplicates, InnoDB also locks the next value in the index and the gap before it, at each isolation level.
    """
    database = servers.database("asyncmy", tmp_path)
    await database.create(metadata)
    engine = database.engine(isolation_level=level)
    async with engine.begin() as connection:
        await connection.execute(insert(files), [{"id": 20, "revision": "a"}, {"id": 40, "revision": "b"}])
    async with engine.connect() as one, engine.connect() as two, database.reader.connect() as observer:
        thread = await two.scalar(text("SELECT CONNECTION_ID()"))
        await one.execute(delete(files).where(files.c.id == 40))
        await two.execute(delete(files).where(files.c.id == 20))
        waiting = asyncio.ensure_future(two.execute(insert(files).values(id=10, revision="a")))
        while not waiting.done() and not await waits(observer, thread):
            await asyncio.sleep(0.2)  # InnoDB updates this table only if it was not read for 0.1 s
        again = one.execute(insert(files).values(id=30, revision="b"))
        outcomes = await asyncio.gather(waiting, again, return_exceptions=True)
    codes = [one.orig.args[0] for one in outcomes if isinstance(one, OperationalError) and one.orig is not None]
    await database.aclose()
    assert codes == [DEADLOCK]
