"""Work that several tasks want at the same time, and objects of which each event loop has its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Hashable
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast
from weakref import WeakKeyDictionary

from ._threads import finish

__all__ = ["single_flight"]

R = TypeVar("R")


@dataclass(slots=True)
class _Flight:
    task: asyncio.Task[Any]
    waiting: int = 0


@dataclass(slots=True)
class _Flights:
    """The work of one event loop. No reference to the loop may be kept here, or it would never be freed."""

    flying: dict[Hashable, _Flight] = field(default_factory=dict)  # only while a task waits, which keeps the loop alive
    kept: dict[Hashable, tuple[float, Any]] = field(default_factory=dict)  # the time it is kept until, and the result


_flights: WeakKeyDictionary[asyncio.AbstractEventLoop, _Flights] = WeakKeyDictionary()


async def single_flight(key: Hashable, work: Callable[[], Coroutine[Any, Any, R]], *, keep: float = 0.0) -> R:
    """Return the result of the work, which the first of the tasks that want it starts, and the last one cancels.

    Args:
        key: Equal for equal work.
        work: Awaited in its own task.
        keep: How long the result is kept for tasks that come later, in seconds.
    """
    loop = asyncio.get_running_loop()
    flights = _flights.setdefault(loop, _Flights())
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
        if not flight.waiting and not flight.task.done():
            flight.task.cancel()
            await finish(asyncio.wait([flight.task]))
        if flight.task.done() and flights.flying.get(key) is flight:
            del flights.flying[key]


def _expire(flights: _Flights) -> None:
    now = time.monotonic()
    for key in [key for key, (until, _) in flights.kept.items() if until <= now]:
        del flights.kept[key]
