"""Limits on what is awaited, by one timer."""

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
    """Nothing happens, also not later."""
    with Limit(watchdog, soon(0.01)):
        await asyncio.sleep(0)
    await asyncio.sleep(0.02)


async def test_a_block_that_takes_too_long(watchdog: Watchdog) -> None:
    """It ends by a timeout, and its task is not left cancelled."""
    with pytest.raises(TimeoutError), Limit(watchdog, soon(0.01)):
        await asyncio.Event().wait()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(0)


async def test_a_limit_that_is_moved(watchdog: Watchdog) -> None:
    """The later time counts."""
    with Limit(watchdog, soon(0.01)) as limit:
        limit.at = soon(60)
        await asyncio.sleep(0.03)
    with pytest.raises(TimeoutError), Limit(watchdog, soon(0.01)) as limit:
        limit.at = soon(0.02)
        await asyncio.Event().wait()


async def test_a_block_that_makes_progress(watchdog: Watchdog) -> None:
    """It ends when it has made none for too long, and at the latest time in any case."""
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
    """Each ends by itself, whichever was first, and they share a timer."""
    ended: list[int] = []

    async def wait(number: int, seconds: float) -> None:
        with pytest.raises(TimeoutError), Limit(watchdog, soon(seconds)):
            await asyncio.Event().wait()
        ended.append(number)

    async with asyncio.TaskGroup() as group:
        for number, seconds in enumerate((0.06, 0.02, 0.04)):
            group.create_task(wait(number, seconds))
    assert ended == [1, 2, 0]


async def test_a_cancellation_counts_more(watchdog: Watchdog) -> None:
    """Whether it comes before the limit or together with it."""
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
    """What the block makes of being ended is raised as it is."""
    with pytest.raises(KeyError), Limit(watchdog, soon(0.01)):
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise KeyError from None
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(0)
