"""Fixtures that repeat the tests of faults with offloaded columns instead of images."""

from __future__ import annotations

import pytest

from tests.databases import DRIVERS, Database
from tests.faults.conftest import rig_of
from tests.faults.rig import STYLES, Rig, StoredRig, Style

PAIRED = {"sqlite": "commit", "postgresql": "begin", "mariadb": "dependency"}


async def stored_rig_of(database: Database) -> StoredRig:
    """Return a rig with the same database and store."""
    rig = await rig_of(database)
    stored = StoredRig(rig.database, rig.store, rig.engine)
    stored.sessions = rig.sessions
    return stored


@pytest.fixture
async def rig(database: Database) -> Rig:
    """Three databases in turn, with tables and an empty store."""
    return await stored_rig_of(database)


@pytest.fixture
async def any_driver_rig(any_driver_database: Database) -> Rig:
    """The same with each of the five drivers."""
    return await stored_rig_of(any_driver_database)


@pytest.fixture
async def sqlite_rig(sqlite_database: Database) -> Rig:
    """SQLite, with tables and an empty store."""
    return await stored_rig_of(sqlite_database)


@pytest.fixture
def style(request: pytest.FixtureRequest) -> Style:
    """A different way to use a session with each database; with images, all are tried."""
    words = request.node.callspec.params.values()
    [database] = {
        DRIVERS[word].database if word in DRIVERS else word for word in words if word in PAIRED or word in DRIVERS
    }
    return STYLES[PAIRED[database]]
