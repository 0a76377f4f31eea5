"""What turns the tests of faults with pictures into those of faults with offloaded columns."""

from __future__ import annotations

from typing import Any

import pytest

from aioimageattach.entity import ImageSubset
from aioimageattach.offload import StoredBinary
from tests.databases import DRIVERS, Database
from tests.faults.conftest import rig_of
from tests.faults.models import Leaf
from tests.faults.rig import SIZE, STYLES, Rig, Style

PAIRED = {"sqlite": "commit", "postgresql": "begin", "mariadb": "dependency"}


class StoredRig(Rig):
    """Where the others attach a picture, it assigns a value: an original is one, a thumbnail another."""

    async def attach(self, pictures: Any, content: bytes, size: tuple[int, int] = SIZE, **options: Any) -> Any:
        """Assign bytes to the owner of a set of pictures."""
        rows = pictures._rows
        value = StoredBinary(content, store=self.store)
        if isinstance(pictures, ImageSubset):
            rows.owner.leaves.append(Leaf(place=pictures.identity["place"], body=value))
        elif options.get("original", True):
            rows.owner.body, rows.owner.small = value, None
        else:
            rows.owner.small = value
        return rows.owner


async def stored_rig_of(database: Database) -> StoredRig:
    """The same database and store as the others have."""
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
    """The same by each of the five drivers."""
    return await stored_rig_of(any_driver_database)


@pytest.fixture
async def sqlite_rig(sqlite_database: Database) -> Rig:
    """SQLite, with tables and an empty store."""
    return await stored_rig_of(sqlite_database)


@pytest.fixture
def style(request: pytest.FixtureRequest) -> Style:
    """Another one with each database; with pictures, each is tried with all."""
    words = request.node.callspec.params.values()
    [database] = {
        DRIVERS[word].database if word in DRIVERS else word for word in words if word in PAIRED or word in DRIVERS
    }
    return STYLES[PAIRED[database]]
