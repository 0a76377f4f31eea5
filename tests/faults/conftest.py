"""Fixtures for the tests of faults."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from aioimageattach.store import KeyedStore
from aioimageattach.stores.fs import FileSystemStore
from aioimageattach.stores.s3 import S3Store
from tests.databases import REQUIRED, Database
from tests.faults.models import Base
from tests.faults.rig import STYLES, Rig, Style
from tests.faults.stores import FaultyStore
from tests.faults.tally import Tally
from tests.servers.gate import ACCESS_KEY, SECRET_KEY
from tests.servers.ministack import BIND, Ministack

STORE = os.environ.get("AIOIMAGEATTACH_STORE", "memory")
SECOND = {"mariadb", "asyncmy", "aiomysql", "psycopg"}
"""Databases and drivers with which a test of SQLite or PostgreSQL is repeated."""
SERVERS = {*SECOND, "postgresql", "asyncpg"}
"""The same for tests of offloaded values, which repeat those of images."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the repetitions of a test with a second database or driver as thorough."""
    repetitions, first = list[tuple[pytest.Item, str]](), set[str]()
    for item in items:
        if isinstance(item, pytest.Function) and Path(__file__).parent in item.path.parents:
            name, _, case = item.nodeid.partition("[")
            words = re.findall(r"\w+", case)
            if (SERVERS if "values" in words or "offload" in item.path.parts else SECOND).isdisjoint(words):
                first.add(name)
            else:
                repetitions.append((item, name))
    for item, name in repetitions:
        if name in first:
            item.add_marker(pytest.mark.thorough)


MakeRig = Callable[[Database], Awaitable[Rig]]


async def rig_of(database: Database) -> Rig:
    await database.create(Base.metadata)
    return Rig(database, FaultyStore(), database.engine())


@pytest.fixture(scope="session")
def tally() -> Iterator[Tally]:
    """Counters for the scorecard, written to the file named by ``AIOIMAGEATTACH_TALLY``."""
    tally = Tally()
    yield tally
    if path := os.environ.get("AIOIMAGEATTACH_TALLY"):
        tally.save(Path(path))


@pytest.fixture(scope="session")
def bucket_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ministack]:
    """An S3 server with a bucket."""
    try:
        server = Ministack(tmp_path_factory.mktemp("ministack"))
    except FileNotFoundError as error:
        if REQUIRED:
            raise
        pytest.skip(str(error))
    server.create_bucket("pictures", "eu-central-1")
    yield server
    server.close()


def bucket_store(server: Ministack) -> S3Store:
    """A store with an empty prefix of the bucket."""
    return S3Store(
        "pictures",
        ACCESS_KEY,
        SECRET_KEY,
        prefix=secrets.token_hex(8),
        region="eu-central-1",
        endpoint_url=f"http://{BIND}:{server.port}",
    )


@pytest.fixture
async def s3_store(bucket_server: Ministack) -> AsyncIterator[S3Store]:
    """Such a store, closed at the end."""
    async with bucket_store(bucket_server) as store:
        yield store


@pytest.fixture(autouse=STORE != "memory")
async def usual_store(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[None]:
    """Use the store named by ``AIOIMAGEATTACH_STORE`` in tests that do not choose one."""
    made: list[S3Store] = []

    def directory() -> FileSystemStore:
        return FileSystemStore(tmp_path / secrets.token_hex(4), "http://test/")

    def bucket() -> S3Store:
        made.append(bucket_store(request.getfixturevalue("bucket_server")))
        return made[-1]

    kinds: dict[str, Callable[[], KeyedStore]] = {"directory": directory, "bucket": bucket}
    monkeypatch.setattr(FaultyStore, "usual", staticmethod(kinds[STORE]))
    yield
    for store in made:
        await store.aclose()


@pytest.fixture
def make_rig() -> MakeRig:
    """The kind of rig: with images."""
    return rig_of


@pytest.fixture
async def rig(database: Database, make_rig: MakeRig) -> Rig:
    """Three databases in turn, with tables and an empty store."""
    return await make_rig(database)


@pytest.fixture
async def any_driver_rig(any_driver_database: Database, make_rig: MakeRig) -> Rig:
    """The same with each of the five drivers."""
    return await make_rig(any_driver_database)


@pytest.fixture
async def sqlite_rig(sqlite_database: Database, make_rig: MakeRig) -> Rig:
    """SQLite, with tables and an empty store."""
    return await make_rig(sqlite_database)


@pytest.fixture(params=STYLES)
def style(request: pytest.FixtureRequest) -> Style:
    """The three ways to use a session."""
    return STYLES[request.param]
