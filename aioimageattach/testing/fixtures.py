"""Fixtures for pytest: ``pytest_plugins = ["aioimageattach.testing.fixtures"]`` in the topmost ``conftest.py``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ..context import override_store
from ..stores._memory import MemoryStore
from ._faulty import FaultyStore

__all__ = ["faulty_image_store", "image_store"]


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
