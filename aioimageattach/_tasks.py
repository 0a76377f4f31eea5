"""Tasks: waiting for work despite a cancellation, bounded concurrency, and single flight."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Coroutine,
    Hashable,
    Sequence,
)
from dataclasses import dataclass, field
from typing import Any, ParamSpec, TypeVar, cast
from weakref import WeakKeyDictionary

import anyio

__all__ = [
    "as_completed",
    "begin",
    "cancel_and_wait",
    "cancelled_after",
    "finish",
    "is_in_flight",
    "map_concurrently",
    "single_flight",
]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


# --- waiting despite a cancellation ----------------------------------------------------------------------------------


async def _wait_shielded(task: asyncio.Future[Any]) -> None:
    """Wait until the task is done, no matter how often the caller is cancelled in the meantime."""
    with anyio.CancelScope(shield=True):
        while not task.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([task])


def _when_done(task: asyncio.Future[Any]) -> asyncio.Future[None]:
    """Return a future that is done when the task is. Cancelling it does not cancel the task."""
    # Equivalent to asyncio.wait() with one task, at a third of the cost.
    ended: asyncio.Future[None] = task.get_loop().create_future()

    def set_ended(_: asyncio.Future[Any]) -> None:
        if not ended.done():
            ended.set_result(None)

    task.add_done_callback(set_ended)
    return ended


def begin(work: Coroutine[Any, Any, R]) -> tuple[asyncio.Task[R], asyncio.Future[None]]:
    """Start work in a task for :func:`finish`; return the task, and the future that is done when it ends."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()

    async def run() -> R:
        try:
            return await work
        finally:
            # The task is done as soon as this frame returns, so before any waiter can run.
            if not ended.done():
                ended.set_result(None)

    return loop.create_task(run()), ended


async def finish(
    work: Awaitable[R],
    *,
    stop: Callable[[], object] | None = None,
    undo: Callable[[R], Awaitable[object]] | None = None,
    ended: asyncio.Future[None] | None = None,
) -> R:
    """Wait until the work has ended, even if the caller is cancelled in the meantime; then raise the cancellation.

    Args:
        work: Awaited in a separate task, which a cancellation of the caller does not reach.
        stop: Called on a cancellation, to tell the work that it may end early.
        undo: Awaited with the result if the work succeeds after the caller was cancelled.
        ended: A future that the work completes in its last step, so that the caller continues one iteration of the
            event loop earlier; see :func:`begin`.
    """
    task = asyncio.ensure_future(work)
    try:
        await (ended or _when_done(task))
    except asyncio.CancelledError:
        if stop is not None:
            stop()
        await _wait_shielded(task)
        if not task.cancelled() and task.exception() is None and undo is not None:
            await _wait_shielded(asyncio.ensure_future(undo(task.result())))
        raise
    return task.result()


async def cancel_and_wait(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Cancel tasks and wait until all of them have ended. Their results and errors are ignored."""
    running = [task for task in tasks if task.cancel()]
    try:
        if running:
            await finish(asyncio.wait(running))
    finally:
        for task in tasks:
            if task.done() and not task.cancelled():
                task.exception()  # otherwise asyncio logs that it was never retrieved


@contextlib.asynccontextmanager
async def cancelled_after(
    event: Callable[P, Awaitable[object]], *args: P.args, **kwargs: P.kwargs
) -> AsyncGenerator[None]:
    """Cancel the block, without an error, when ``event(*args)`` ends; cancel the event if the block ends first."""
    scope = anyio.CancelScope()

    async def cancel() -> None:
        await event(*args, **kwargs)
        scope.cancel()

    waiting = asyncio.create_task(cancel())
    try:
        with scope:
            yield
    finally:
        waiting.cancel()
        await finish(asyncio.wait([waiting]))


# --- bounded concurrency ---------------------------------------------------------------------------------------------


async def map_concurrently(function: Callable[[T], Awaitable[R]], items: Sequence[T], *, limit: int) -> list[R]:
    """Call a function for each item, at most ``limit`` at the same time; return the results in the order of the items.

    The first error is raised. On an error or a cancellation, the other calls are cancelled, and they have ended when
    this function raises.
    """
    results: dict[int, R] = {}
    numbered = enumerate(items)

    async def work() -> None:
        for number, item in numbered:
            results[number] = await function(item)

    if not items:
        return []
    # gather() would pass each further cancellation of the caller on to calls that are cleaning up.
    workers = [asyncio.create_task(work()) for _ in range(min(limit, len(items)))]
    try:
        done, _ = await asyncio.wait(workers, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        await cancel_and_wait(workers)
    for error in [worker.exception() for worker in done]:
        if error is not None:
            raise error
    return [results[number] for number in range(len(items))]


async def as_completed(works: AsyncIterator[Coroutine[Any, Any, R]], limit: int) -> AsyncGenerator[R, None]:
    """Run coroutines as they arrive, at most ``limit`` at the same time; yield their results in order of completion.

    If the iteration ends early, the running coroutines are cancelled, and the generator waits until they have ended.
    """
    running: set[asyncio.Task[R]] = set()
    done: set[asyncio.Task[R]] = set()
    try:
        async for work in works:
            running.add(asyncio.create_task(work))
            if len(running) >= limit:
                done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    yield task.result()
        while running:
            done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                yield task.result()
    finally:
        await cancel_and_wait(running | done)


# --- single flight ---------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Flight:
    task: asyncio.Task[Any]
    waiting: int = 0


@dataclass(slots=True)
class _LoopFlights:
    """The single-flight work of one event loop. Must not refer to the loop, which would then never be freed."""

    flying: dict[Hashable, _Flight] = field(default_factory=dict)  # entries exist only while a task waits
    kept: dict[Hashable, tuple[float, Any]] = field(default_factory=dict)  # expiry time and result


_flights: WeakKeyDictionary[asyncio.AbstractEventLoop, _LoopFlights] = WeakKeyDictionary()


async def single_flight(key: Hashable, work: Callable[[], Coroutine[Any, Any, R]], *, keep: float = 0.0) -> R:
    """Run the work once for all concurrent calls with the same key, and return its result to each.

    The first call starts the work. It is cancelled when all waiting callers have been cancelled.

    Args:
        key: Identifies the work.
        work: Awaited in a separate task.
        keep: How long the result is kept for later calls, in seconds.
    """
    loop = asyncio.get_running_loop()
    flights = _flights.setdefault(loop, _LoopFlights())
    _expire(flights)
    if key in flights.kept:
        return cast("R", flights.kept[key][1])
    flight = flights.flying.get(key)
    if flight is None:
        flight = flights.flying[key] = _Flight(loop.create_task(work()))
    flight.waiting += 1
    try:
        result = await asyncio.shield(flight.task)
        if keep and flights.flying.get(key) is flight:
            flights.kept[key] = time.monotonic() + keep, result
            loop.call_later(keep, _expire, flights)
        return cast("R", result)
    finally:
        flight.waiting -= 1
        if (not flight.waiting or flight.task.done()) and flights.flying.get(key) is flight:
            del flights.flying[key]  # before the cancellation, which must not affect calls that are made from now on
        if not flight.waiting:
            await cancel_and_wait([flight.task])


def is_in_flight(key: Hashable) -> bool:
    """Return whether :func:`single_flight` is running the work of a key in this event loop."""
    flights = _flights.get(asyncio.get_running_loop())
    return flights is not None and key in flights.flying


def _expire(flights: _LoopFlights) -> None:
    now = time.monotonic()
    for key in [key for key, (until, _) in flights.kept.items() if until <= now]:
        del flights.kept[key]
