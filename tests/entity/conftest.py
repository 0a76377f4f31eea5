"""Fixtures for the tests of entities."""

from __future__ import annotations

import pytest
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from tests.databases import Database
from tests.entity.models import Base, CountingStore, started


@pytest.fixture
def store() -> CountingStore:
    """An empty store."""
    return CountingStore()


@pytest.fixture
async def sessions(sqlite_database: Database) -> async_sessionmaker[AsyncSession]:
    """Sessions on SQLite with the tables of the models and ``expire_on_commit=False``."""
    return await started(sqlite_database, Base.metadata, expire_on_commit=False)


@pytest.fixture
async def expiring(sqlite_database: Database) -> async_sessionmaker[AsyncSession]:
    """Sessions like those of ``sessions``, but with SQLAlchemy's default: a commit expires all attributes."""
    return await started(sqlite_database, Base.metadata)
