"""Fixtures for the tests of declared thumbnails."""

from __future__ import annotations

from pathlib import Path

import pytest

from aioimageattach.store import KeyedStore
from aioimageattach.stores import MemoryStore
from aioimageattach.stores.fs import FileSystemStore


@pytest.fixture(params=["directory", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> KeyedStore:
    """A store in a directory, and one in memory."""
    return MemoryStore() if request.param == "memory" else FileSystemStore(tmp_path, "/", fsync=False)
