"""The store in memory."""

from __future__ import annotations

import pytest

from aioimageattach.stores.memory import MemoryStore
from aioimageattach.testing import StoreContract


class TestMemoryStore(StoreContract):
    @pytest.fixture
    def store(self) -> MemoryStore:
        return MemoryStore()
