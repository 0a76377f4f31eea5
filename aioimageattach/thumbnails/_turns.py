"""A limit on the number of originals in progress, shared by all code that renders in an event loop."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from enum import IntEnum
from itertools import count
from typing import NamedTuple
from weakref import WeakKeyDictionary

from .._telemetry import WAIT

__all__ = ["Priority", "Turns", "turns"]


class Priority(IntEnum):
    """The order in which waiting work is admitted."""

    REQUEST = 0
    """A client is waiting for the file."""
    NEW = 1
    """An image that has just been attached."""
    REST = 2
    """All other work: a backfill, and the other widths of a file that was requested."""


class _Waiter(NamedTuple):
    priority: Priority
    number: int
    places: int
    future: asyncio.Future[None]


class Turns:
    """Counts the originals in progress in one event loop, and admits others in the order of their priority.

    Each caller states how many originals may be in progress, including its own. Waiters are admitted by priority, and
    within a priority in the order of their arrival.

    Attributes:
        active: Number of originals in progress.
    """

    def __init__(self) -> None:
        self.active = 0
        self._waiting: list[_Waiter] = []  # a heap; futures refer to the loop, but only while tasks wait for them
        self._numbers = count()

    def is_awaited(self, priority: Priority) -> bool:
        """Return whether work of this or a higher priority is waiting."""
        return bool(self._waiting) and self._waiting[0].priority <= priority

    def try_acquire(self, priority: Priority, places: int) -> bool:
        """Take a place if one is free and no work of this or a higher priority is waiting; return whether it did."""
        if self.active >= places or self.is_awaited(priority):
            return False
        self.active += 1
        return True

    async def acquire(self, priority: Priority, places: int) -> None:
        """Wait for a place and take it.

        Args:
            priority: Priority among the waiters.
            places: Number of originals that may be in progress, including this one; at least 1.
        """
        with WAIT.measure(priority=priority.name.lower()):
            await self._acquire(priority, places)

    async def _acquire(self, priority: Priority, places: int) -> None:
        if self.try_acquire(priority, places):
            return
        waiter = _Waiter(priority, next(self._numbers), places, asyncio.get_running_loop().create_future())
        heapq.heappush(self._waiting, waiter)
        try:
            await waiter.future
        except asyncio.CancelledError:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
                heapq.heapify(self._waiting)
            else:  # the place was assigned in the same iteration of the event loop
                self.active -= 1
            self._admit()
            raise

    def release(self) -> None:
        """Free a place."""
        self.active -= 1
        self._admit()

    @asynccontextmanager
    async def hold(self, priority: Priority, places: int) -> AsyncGenerator[None]:
        """Hold a place during the block; for the arguments, see :meth:`acquire`."""
        await self.acquire(priority, places)
        try:
            yield
        finally:
            self.release()

    def _admit(self) -> None:
        while self._waiting and self.active < self._waiting[0].places:
            self.active += 1
            heapq.heappop(self._waiting).future.set_result(None)


_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, Turns] = WeakKeyDictionary()


def turns() -> Turns:
    """Return the places of the running event loop."""
    return _turns.setdefault(asyncio.get_running_loop(), Turns())
