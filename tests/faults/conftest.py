"""What the tests of faults stand on."""

from __future__ import annotations

import pytest

from tests.databases import Database
from tests.faults.models import Base
from tests.faults.rig import STYLES, Rig, Style
from tests.faults.stores import FaultyStore


async def rig_of(database: Database) -> Rig:
    await database.create(Base.metadata)
    return Rig(database, FaultyStore(), database.engine())


@pytest.fixture
async def rig(database: Database) -> Rig:
    """Three databases in turn, with tables and an empty store."""
    return await rig_of(database)


@pytest.fixture
async def any_driver_rig(any_driver_database: Database) -> Rig:
    """The same by each of the five drivers."""
    return await rig_of(any_driver_database)


@pytest.fixture
async def sqlite_rig(sqlite_database: Database) -> Rig:
    """SQLite, with tables and an empty store."""
    return await rig_of(sqlite_database)


@pytest.fixture(params=STYLES)
def style(request: pytest.FixtureRequest) -> Style:
    """The three ways to use a session."""
    return STYLES[request.param]
