"""The outcome of a COMMIT that was sent is unknown: the files of both outcomes are kept."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import async_sessionmaker

from tests.databases import Servers
from tests.faults.conftest import rig_of
from tests.faults.proxy import Proxy
from tests.faults.rig import Rig, Style, check, get

PLAIN: dict[str, dict[str, Any]] = {"asyncpg": {"ssl": False}, "psycopg": {"sslmode": "disable"}}
"""Options that make the traffic of a driver readable for the proxy."""


@pytest.fixture(params=["asyncpg", "asyncmy"])
async def rig(request: pytest.FixtureRequest, servers: Servers, tmp_path: Any) -> AsyncIterator[Rig]:
    """The two databases that are reached over a network."""
    database = servers.database(request.param, tmp_path)
    yield await rig_of(database)
    await database.aclose()


@pytest.fixture
async def proxy(rig: Rig) -> AsyncIterator[Proxy]:
    """A proxy between the database and the sessions of a test."""
    proxy = Proxy()
    async with proxy.before(rig.database.url) as url:
        rig.engine = rig.database.engine(url=url, connect_args=PLAIN.get(rig.database.driver, {}))
        rig.sessions = async_sessionmaker(rig.engine, expire_on_commit=False)
        yield proxy
        proxy.fault = None
        proxy.go.set()
        await rig.engine.dispose()
        gc.collect()


async def test_the_reply_is_lost(rig: Rig, proxy: Proxy, style: Style, caplog: pytest.LogCaptureFixture) -> None:
    """The database committed: an error is raised, the row has its file, and the old file is left for the sweep."""
    await rig.user()
    with pytest.raises(DBAPIError):
        async with style(rig.sessions) as session:
            await rig.attach((await get(session)).picture, b"new")
            await session.flush()
            proxy.fault = "lose the reply"
    assert proxy.met.is_set()
    assert "2 files are left for the sweep: the outcome of their transaction is unknown" in caplog.text
    await rig.check(b"new", orphans=True)
    assert len(await rig.store.names()) == 2


@pytest.mark.parametrize("rig", ["psycopg", "aiomysql"], indirect=True)
async def test_the_reply_is_lost_to_another_driver(rig: Rig, proxy: Proxy) -> None:
    """The files of both outcomes are kept with the style in which the session is notified least."""
    await test_the_reply_is_lost_with_a_savepoint_left_open(rig, proxy)


async def test_the_commit_never_arrives(rig: Rig, proxy: Proxy, style: Style) -> None:
    """Nothing was committed, which is unknown: the same error is raised, and both files are kept."""
    await rig.user()
    with pytest.raises(DBAPIError):
        async with style(rig.sessions) as session:
            await rig.attach((await get(session)).picture, b"new")
            await session.flush()
            proxy.fault = "swallow"
    assert proxy.met.is_set()
    await rig.check(b"old", orphans=True)
    assert len(await rig.store.names()) == 2


@pytest.mark.parametrize("by", ["timeout", "cancel"])
async def test_a_commit_that_takes_too_long(rig: Rig, proxy: Proxy, style: Style, by: str) -> None:
    """A timeout or cancellation during COMMIT raises its own error, and no row is without its file."""
    await rig.user()

    async def replace() -> None:
        async with style(rig.sessions) as session:
            await rig.attach((await get(session)).picture, b"new")
            await session.flush()
            proxy.fault = "delay the reply"

    task = asyncio.create_task(replace())
    await proxy.met.wait()
    asyncio.get_running_loop().call_later(0.1, proxy.go.set)
    if by == "timeout":
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(task, 0.05)
    else:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert proxy.met.is_set()
    assert await check(rig.database, rig.store, orphans=True) in ({b"old"}, {b"new"})


async def test_the_reply_is_lost_with_a_savepoint_left_open(rig: Rig, proxy: Proxy) -> None:
    """The commit also released the savepoint; its outcome is equally unknown."""
    await rig.user()
    with pytest.raises(DBAPIError):
        async with rig.sessions() as session, session.begin():
            await session.begin_nested()
            await rig.attach((await get(session)).picture, b"new")
            await session.flush()
            proxy.fault = "lose the reply"
    assert proxy.met.is_set()
    await rig.check(b"new", orphans=True)
