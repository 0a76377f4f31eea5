"""SQLAlchemy's bridge from its synchronous event hooks to the event loop. No other module imports it."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar

from sqlalchemy.util.concurrency import await_only, in_greenlet

__all__ = ["await_", "in_bridge"]

R = TypeVar("R")


def await_(work: Awaitable[R]) -> R:
    """Await a coroutine inside an event hook that an ``AsyncSession`` has called."""
    return await_only(work)


def in_bridge() -> bool:
    """Return whether :func:`await_` works here: the caller is an ``AsyncSession``, not a plain ``Session``."""
    return in_greenlet()
