"""One piece of work for all tasks that want the same at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from dataclasses import dataclass
from typing import Any, TypeVar, cast
from weakref import WeakKeyDictionary

from .._threads import finish

__all__ = ["single_flight"]

R = TypeVar("R")


@dataclass(slots=True)
class _Flight:
    task: asyncio.Task[Any]
    waiting: int = 0


_flights: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Hashable, _Flight]] = WeakKeyDictionary()


async def single_flight(key: Hashable, work: Callable[[], Coroutine[Any, Any, R]], *, keep: float = 0.0) -> R:
    """Return the outcome of the work, begun by the first of the tasks that want it, and cancelled with the last.

    Args:
        key: What makes two pieces of work the same.
        work: Is awaited in a task of its own.
        keep: Seconds for which a result is there for tasks that come later.
    """
    loop = asyncio.get_running_loop()
    flights = _flights.setdefault(loop, {})
    flight = flights.get(key)
    if flight is None:
        flight = flights[key] = _Flight(loop.create_task(work()))

    def forget() -> None:
        if flights.get(key) is flight:
            del flights[key]

    flight.waiting += 1
    try:
        return cast("R", await asyncio.shield(flight.task))
    finally:
        flight.waiting -= 1
        if not flight.waiting and not flight.task.done():
            flight.task.cancel()
            await finish(asyncio.wait([flight.task]))
        if flight.task.done():
            failed = flight.task.cancelled() or flight.task.exception() is not None
            if failed or not keep:
                forget()
            elif not flight.waiting:
                loop.call_later(keep, forget)
