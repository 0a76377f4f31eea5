"""The ways in which a task is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import anyio
import pytest

Cancel = Callable[[Callable[[], Awaitable[object]]], Awaitable[None]]


async def natively(work: Callable[[], Awaitable[object]]) -> None:
    task = asyncio.ensure_future(work())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def twice(work: Callable[[], Awaitable[object]]) -> None:
    task = asyncio.ensure_future(work())
    for _ in range(2):
        await asyncio.sleep(0.01)
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def by_a_scope(work: Callable[[], Awaitable[object]]) -> None:
    with anyio.move_on_after(0.01) as scope:
        await work()
    assert scope.cancelled_caught


async def by_a_timeout(work: Callable[[], Awaitable[object]]) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await work()


async def by_a_neighbour(work: Callable[[], Awaitable[object]]) -> None:
    async def fail() -> None:
        await asyncio.sleep(0.01)
        raise ZeroDivisionError

    with pytest.raises(ExceptionGroup) as caught:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail())
            group.create_task(work())  # type: ignore[arg-type]
    assert caught.group_contains(ZeroDivisionError)


every_cancellation = pytest.mark.parametrize("cancel", [natively, twice, by_a_scope, by_a_timeout, by_a_neighbour])
