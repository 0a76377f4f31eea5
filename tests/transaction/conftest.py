"""What the tests of this room stand on."""

from __future__ import annotations

import pytest
from sqlalchemy.ext.asyncio import async_sessionmaker

from tests.databases import Database
from tests.transaction.kit import STYLES, Base, Rig, ScriptedStore, Style


@pytest.fixture
async def rig(database: Database) -> Rig:
    """Three databases in turn, with tables and a store."""
    await database.create(Base.metadata)
    return Rig(async_sessionmaker(database.engine(), expire_on_commit=False), ScriptedStore(), database)


@pytest.fixture
async def sqlite_rig(sqlite_database: Database) -> Rig:
    """SQLite, with tables and a store."""
    await sqlite_database.create(Base.metadata)
    return Rig(async_sessionmaker(sqlite_database.engine(), expire_on_commit=False), ScriptedStore(), sqlite_database)


@pytest.fixture(params=STYLES)
def style(request: pytest.FixtureRequest) -> Style:
    """The three ways to use a session."""
    return STYLES[request.param]
