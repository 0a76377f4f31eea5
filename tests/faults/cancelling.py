"""Cancel a coroutine at each of its awaits, in several ways."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any

import anyio

Work = Callable[[], Coroutine[Any, Any, object]]


@types.coroutine
def _watched(work: Coroutine[Any, Any, Any], suspended: Callable[[int], object]) -> Generator[Any, Any, Any]:
    """Run a coroutine, and report the number of each suspension of the task before it happens."""
    steps = work.__await__()
    number = 0
    error: BaseException | None = None
    while True:
        try:
            future = steps.send(None) if error is None else steps.throw(error)
        except StopIteration as end:
            return end.value
        number += 1
        suspended(number)
        try:
            error = None
            yield future
        except BaseException as thrown:
            error = thrown


async def natively(work: Work, at: int, times: int = 1) -> bool:
    """Run a coroutine in a task, and cancel it at the given suspension; optionally again 1 ms later.

    Returns:
        Whether it was long enough to be cancelled there.

    Raises:
        AssertionError: It ended in another way than with CancelledError.
    """
    reached = False

    def suspended(number: int) -> None:
        nonlocal reached
        if number == at:
            reached = True
            loop = asyncio.get_running_loop()
            loop.call_soon(task.cancel)
            for again in range(1, times):
                loop.call_later(again / 1000, task.cancel)

    task = asyncio.create_task(_run(work, suspended))
    try:
        await task
    except asyncio.CancelledError:
        assert reached
    return reached


async def _run(work: Work, suspended: Callable[[int], object]) -> object:
    return await _watched(work(), suspended)


async def by_scope(work: Work, at: int, times: int = 1) -> bool:
    """The same in an anyio cancel scope, which cancels at every further await while it is open."""
    reached = False

    def suspended(number: int) -> None:
        nonlocal reached
        if number == at:
            reached = True
            loop = asyncio.get_running_loop()
            loop.call_soon(scope.cancel)
            for again in range(1, times):
                loop.call_later(again / 1000, outer.cancel)

    with anyio.CancelScope() as outer, anyio.CancelScope() as scope:
        await _run(work, suspended)
    return reached


WAYS: dict[str, Callable[[Work, int, int], Coroutine[Any, Any, bool]]] = {"task": natively, "scope": by_scope}
