"""Fixtures that repeat the tests of faults with offloaded columns instead of images."""

from __future__ import annotations

import pytest

from tests.databases import DRIVERS, Database
from tests.faults.conftest import MakeRig, rig_of
from tests.faults.rig import STYLES, StoredRig, Style

PAIRED = {"sqlite": "commit", "postgresql": "begin", "mariadb": "dependency"}


async def stored_rig_of(database: Database) -> StoredRig:
    """Return a rig with the same database and store."""
    rig = await rig_of(database)
    stored = StoredRig(rig.database, rig.store, rig.engine)
    stored.sessions = rig.sessions
    return stored


@pytest.fixture
def make_rig() -> MakeRig:
    """The kind of rig: with offloaded values."""
    return stored_rig_of


@pytest.fixture
def style(request: pytest.FixtureRequest) -> Style:
    """A different way to use a session with each database; with images, all are tried."""
    words = request.node.callspec.params.values()
    [database] = {
        DRIVERS[word].database if word in DRIVERS else word for word in words if word in PAIRED or word in DRIVERS
    }
    return STYLES[PAIRED[database]]
