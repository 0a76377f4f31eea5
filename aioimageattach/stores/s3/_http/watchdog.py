"""Timeouts that share one timer for all requests of an event loop.

``asyncio.timeout`` creates and cancels a timer for each request, and another one for each rescheduling, although nearly
none of them ever fires.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf
from types import TracebackType
from typing import Self

__all__ = ["Limit", "Watchdog"]


class Limit:
    """A context manager that raises :class:`TimeoutError` when its time is up, like ``asyncio.timeout_at``.

    Args:
        watchdog: Checks the time.
        until: The deadline, by the loop's clock.
        idle: How long the block may make no progress, in seconds.

    Attributes:
        at: The time at which the block expires unless it makes progress, by the loop's clock.
    """

    __slots__ = ("_cancelling", "_expired", "_idle", "_task", "_until", "_watchdog", "at")

    def __init__(self, watchdog: Watchdog, until: float, idle: float = inf) -> None:
        self._watchdog = watchdog
        self._until = until
        self._idle = idle
        self._expired = False
        self.at: float = min(until, watchdog.time() + idle)

    def postpone(self) -> None:
        """Report progress, which restarts the idle period."""
        self.at = min(self._until, self._watchdog.time() + self._idle)

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._cancelling = task.cancelling()
        self._watchdog.add(self)
        return self

    def expire(self) -> None:
        """Cancel the block, because its time is up."""
        self._expired = True
        self._task.cancel()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._watchdog.discard(self)
        # A simultaneous cancellation from elsewhere takes precedence over the timeout.
        if self._expired and self._task.uncancel() <= self._cancelling and exc_type is asyncio.CancelledError:
            raise TimeoutError from exc


class Watchdog:
    """The timer that enforces the limits of one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.time: Callable[[], float] = loop.time
        self._limits: set[Limit] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._wakes_at = inf

    def add(self, limit: Limit) -> None:
        """Start enforcing a limit."""
        self._limits.add(limit)
        if limit.at < self._wakes_at:
            self._wake_at(limit.at)

    def discard(self, limit: Limit) -> None:
        """Stop enforcing a limit; the timer is not rescheduled."""
        self._limits.discard(limit)

    def _wake_at(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._wakes_at = at
        self._timer = self._loop.call_at(at, self._look)

    def _look(self) -> None:
        self._timer, self._wakes_at = None, inf
        now = self._loop.time()
        for limit in [limit for limit in self._limits if limit.at <= now]:
            self._limits.discard(limit)
            limit.expire()
        if self._limits:
            self._wake_at(min(limit.at for limit in self._limits))

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._wakes_at = None, inf
