"""Fixtures for pytest: ``pytest_plugins = ["aioimageattach.testing.fixtures"]`` in the topmost ``conftest.py``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .. import context
from ..store import Store
from ..stores.memory import MemoryStore
from .faulty import FaultyStore

__all__ = ["faulty_image_store", "image_store"]


def _as_default(store: Store) -> Iterator[None]:
    before = context.get_default_store()
    context.set_default_store(store)
    try:
        yield
    finally:
        context.set_default_store(before)


@pytest.fixture
def image_store() -> Iterator[MemoryStore]:
    """An empty store in memory; during the test it is the store of all that names no other."""
    store = MemoryStore()
    for _ in _as_default(store):
        yield store


@pytest.fixture
def faulty_image_store() -> Iterator[FaultyStore]:
    """The same, which misbehaves when it is told to."""
    store = FaultyStore()
    for _ in _as_default(store):
        yield store
