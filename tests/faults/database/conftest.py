"""A database and a store with either images or offloaded values, for tests in which the database decides."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from aioimageattach.context import bind_store
from tests.databases import Servers
from tests.faults.conftest import rig_of
from tests.faults.database.changes import CHANGES, Change
from tests.faults.rig import Rig, StoredRig

DRIVERS = ("aiosqlite", "asyncpg", "psycopg", "asyncmy")
KINDS = {"pictures": Rig, "values": StoredRig}
ALL = [f"{driver} {kind}" for driver in DRIVERS for kind in KINDS]
THOROUGH = pytest.mark.thorough
# A second driver of a database matters for connections, errors and locks: tests of these name it.
EACH_DRIVER = [pytest.param(one, marks=THOROUGH) if one == "psycopg" else one for one in DRIVERS]
RIGS = [pytest.param(one, marks=THOROUGH) if "psycopg" in one else one for one in ALL if one != "psycopg pictures"]


async def bound_rig(servers: Servers, folder: Path, driver: str, kind: type[Rig] = Rig) -> Rig:
    """Return a rig whose sessions have its store bound."""
    made = await rig_of(servers.database(driver, folder))
    rig = kind(made.database, made.store, made.engine)
    bind_store(rig.sessions, rig.store)
    return rig


@pytest.fixture(params=RIGS)
async def rig(request: pytest.FixtureRequest, servers: Servers, tmp_path: Path) -> AsyncIterator[Rig]:
    """Images and values, with each database."""
    driver, _, kind = request.param.partition(" ")
    rig = await bound_rig(servers, tmp_path, driver, KINDS[kind])
    yield rig
    await rig.database.aclose()


@pytest.fixture(params=EACH_DRIVER)
async def picture_rig(request: pytest.FixtureRequest, servers: Servers, tmp_path: Path) -> AsyncIterator[Rig]:
    """Images, with each of four drivers."""
    rig = await bound_rig(servers, tmp_path, request.param)
    yield rig
    await rig.database.aclose()


@pytest.fixture(params=EACH_DRIVER)
async def value_rig(request: pytest.FixtureRequest, servers: Servers, tmp_path: Path) -> AsyncIterator[Rig]:
    """Values, with each of four drivers."""
    rig = await bound_rig(servers, tmp_path, request.param, StoredRig)
    yield rig
    await rig.database.aclose()


@pytest.fixture
def change(request: pytest.FixtureRequest) -> Change:
    """A different change with each rig; tests for which it matters are parametrized with all of them."""
    return [*CHANGES.values()][ALL.index(request.node.callspec.params["rig"]) % len(CHANGES)]
