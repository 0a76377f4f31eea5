"""The one door to SQLAlchemy's bridge between its synchronous hooks and the event loop."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar

from sqlalchemy.util.concurrency import await_only, in_greenlet

__all__ = ["await_", "in_bridge"]

R = TypeVar("R")


def await_(work: Awaitable[R]) -> R:
    """Await from inside a hook that an ``AsyncSession`` called."""
    return await_only(work)


def in_bridge() -> bool:
    """Whether :func:`await_` works here: the code was called by an ``AsyncSession``, not by a plain ``Session``."""
    return in_greenlet()
