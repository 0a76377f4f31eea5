"""Time limits that share one timer."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from aioimageattach.stores.s3._http.watchdog import Limit, Watchdog


@pytest.fixture
async def watchdog() -> Any:
    found = Watchdog(asyncio.get_running_loop())
    yield found
    found.close()


def soon(seconds: float) -> float:
    return asyncio.get_running_loop().time() + seconds


async def test_a_block_that_ends_in_time(watchdog: Watchdog) -> None:
    """A block that ends in time is never cancelled."""
    with Limit(watchdog, soon(0.01)):
        await asyncio.sleep(0)
    await asyncio.sleep(0.02)


async def test_a_block_that_takes_too_long(watchdog: Watchdog) -> None:
    """The block raises TimeoutError, and its task is not left cancelled."""
    with pytest.raises(TimeoutError), Limit(watchdog, soon(0.01)):
        await asyncio.Event().wait()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(0)


async def test_a_postponed_limit(watchdog: Watchdog) -> None:
    """A limit that was postponed expires at the later time."""
    with Limit(watchdog, soon(0.01)) as limit:
        limit.at = soon(60)
        await asyncio.sleep(0.03)
    with pytest.raises(TimeoutError), Limit(watchdog, soon(0.01)) as limit:
        limit.at = soon(0.02)
        await asyncio.Event().wait()


async def test_a_block_that_makes_progress(watchdog: Watchdog) -> None:
    """The block is cancelled if it makes no progress for too long, and in any case at the deadline."""
    with pytest.raises(TimeoutError), Limit(watchdog, soon(60), 0.01):
        await asyncio.Event().wait()
    with Limit(watchdog, soon(60), 5) as limit:
        before = limit.at
        await asyncio.sleep(0.01)
        limit.postpone()
        assert before < limit.at < soon(6)
    latest = soon(1)
    with Limit(watchdog, latest, 5) as limit:
        limit.postpone()
        assert limit.at == latest


async def test_many_limits(watchdog: Watchdog) -> None:
    """Each limit expires at its own time, and all share a timer."""
    ended: list[int] = []

    async def wait(number: int, seconds: float) -> None:
        with pytest.raises(TimeoutError), Limit(watchdog, soon(seconds)):
            await asyncio.Event().wait()
        ended.append(number)

    async with asyncio.TaskGroup() as group:
        for number, seconds in enumerate((0.06, 0.02, 0.04)):
            group.create_task(wait(number, seconds))
    assert ended == [1, 2, 0]


async def test_a_cancellation_takes_precedence(watchdog: Watchdog) -> None:
    """A cancellation before or together with the limit is raised instead of TimeoutError."""
    started = asyncio.Event()

    async def wait(limit: Limit) -> None:
        with limit:
            started.set()
            await asyncio.Event().wait()

    for expires in (False, True):
        limit = Limit(watchdog, soon(60))
        task = asyncio.create_task(wait(limit))
        await started.wait()
        started.clear()
        if expires:
            limit.expire()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_an_error_of_the_block(watchdog: Watchdog) -> None:
    """An error that the block raises when it is cancelled propagates."""
    with pytest.raises(KeyError), Limit(watchdog, soon(0.01)):
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise KeyError from None
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(0)
