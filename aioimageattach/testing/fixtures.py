"""Fixtures for pytest: ``pytest_plugins = ["aioimageattach.testing.fixtures"]`` in the topmost ``conftest.py``."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator

import pytest

from .._transaction.handover import receivers
from ..context import override_store
from ..stores._memory import MemoryStore
from ..thumbnails._dispatch import Dispatcher
from ._faulty import FaultyStore

__all__ = ["faulty_image_store", "image_store", "thumbnails_made"]


@pytest.fixture
def image_store() -> Iterator[MemoryStore]:
    """Provide an empty store in memory, which the application under test uses instead of its own store.

    See :func:`~aioimageattach.context.override_store`.
    """
    store = MemoryStore()
    with override_store(store):
        yield store


@pytest.fixture
def faulty_image_store() -> Iterator[FaultyStore]:
    """Provide a :class:`FaultyStore`, which the application under test uses instead of its own store."""
    store = FaultyStore()
    with override_store(store):
        yield store


@pytest.fixture
def thumbnails_made() -> Callable[[], Awaitable[None]]:
    """Provide a coroutine function that waits for the thumbnails of all images committed so far.

    It waits for each running :class:`~aioimageattach.thumbnails.ThumbnailWorker` of the process, and until each
    :class:`~aioimageattach.taskiq.ThumbnailTasks` has sent its jobs.
    """

    async def wait() -> None:
        for one in receivers():
            loop = one.loop if isinstance(one, Dispatcher) else None
            if isinstance(one, Dispatcher) and loop is not None:
                await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(one.join(), loop))

    return wait
