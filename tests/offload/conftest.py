"""Fixtures for the tests of offloaded columns."""

from __future__ import annotations

import pytest
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from tests.databases import Database
from tests.entity.models import started
from tests.faults.stores import FaultyStore
from tests.offload.models import Base

Sessions = async_sessionmaker[AsyncSession]


@pytest.fixture
def store() -> FaultyStore:
    """An empty store that counts its calls and can fail on demand."""
    return FaultyStore()


@pytest.fixture
async def sessions(sqlite_database: Database, store: FaultyStore) -> Sessions:
    """Sessions on SQLite, with the tables and the store."""
    return await sessions_of(sqlite_database, store)


@pytest.fixture
async def each_sessions(database: Database, store: FaultyStore) -> Sessions:
    """Sessions on each of three databases, with the tables and the store."""
    return await sessions_of(database, store)


async def sessions_of(database: Database, store: FaultyStore) -> Sessions:
    return await started(database, Base.metadata, store, expire_on_commit=False)
