"""Fixtures for the security tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from tests.databases import Database
from tests.entity.models import Base, CountingStore, started


@pytest.fixture
def store() -> CountingStore:
    """An empty store that counts its calls."""
    return CountingStore()


@pytest.fixture
async def sessions(sqlite_database: Database, store: CountingStore) -> async_sessionmaker[AsyncSession]:
    """Sessions on SQLite with the store bound to them."""
    return await started(sqlite_database, Base.metadata, store, expire_on_commit=False)


@pytest.fixture
async def session(sessions: async_sessionmaker[AsyncSession]) -> AsyncIterator[AsyncSession]:
    """A session."""
    async with sessions() as session:
        yield session
