"""The store in a directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from aioimageattach.stores.fs import FileSystemStore
from aioimageattach.testing import StoreContract


class TestFileSystemStore(StoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> FileSystemStore:
        return FileSystemStore(tmp_path / "files", "https://example.com/files")
