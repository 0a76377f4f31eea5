"""Fixtures for every test: empty databases, and a guard against blocking the event loop."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from weakref import WeakSet

import pytest
import pyvips
from blockbuster import BlockBuster, BlockBusterFunction
from coverage import Coverage
from sqlalchemy import event
from sqlalchemy.orm import Mapper, registry

from tests import canary
from tests.databases import DRIVERS, MAIN_DRIVERS, Database, Servers

EACH_DRIVER = [
    driver if driver in MAIN_DRIVERS.values() else pytest.param(driver, marks=pytest.mark.thorough)
    for driver in DRIVERS
]

LOCAL_REGISTRIES = WeakSet[registry]()


def pytest_configure(config: pytest.Config) -> None:
    """Watch the whole run for secrets."""
    canary.register(config)


def pytest_sessionfinish() -> None:
    """Undo what ``pytest_runtest_setup()`` did: plugins look for referrers when they write their summaries."""
    gc.unfreeze()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Collect the garbage of earlier tests, then keep the garbage collector from visiting what existed before this one.

    Thousands of collections would otherwise visit all modules and test items, which takes a tenth of a second each.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def _blockbuster() -> BlockBuster:
    _spare_lock_of_coverage()
    guard = BlockBuster(["aioimageattach"])
    for owner, name in (
        (pyvips.Operation, "call"),
        (pyvips.Image, "copy_memory"),
        (pyvips.Image, "write_to_memory"),
    ):
        guard.functions[f"pyvips.{owner.__name__}.{name}"] = BlockBusterFunction(
            owner, name, scanned_modules=["aioimageattach"]
        )
    for function in guard.functions.values():  # asyncpg looks for passwords and keys for every connection
        function.can_block_in("asyncpg/connect_utils.py", "_parse_connect_arguments")
        function.can_block_in("aioimageattach/__init__.py", "__getattr__")  # an import, which reads files anywhere
        # a directory is identified when its store is created, as programs do at start-up
        function.can_block_in("aioimageattach/stores/fs/_tree.py", "place_of")
        function.can_block_in("aioimageattach/stores/fs/_paths.py", "absolute_path")
    return guard


def _spare_lock_of_coverage() -> None:
    """Give coverage the methods its lock has before the guard replaces them.

    A thread takes this lock for nanoseconds whenever it enters another file. Through the guard it is held for longer
    and may be contended, which would then be reported as a blocking call of whatever function the thread entered.
    """
    collector: Any = getattr(Coverage.current(), "_collector", None)
    if collector is not None:
        lock = collector.data_lock
        collector.data_lock = SimpleNamespace(acquire=lock.acquire, release=lock.release)


@pytest.fixture(autouse=True)
def blocking_guard(_blockbuster: BlockBuster) -> Iterator[BlockBuster]:
    """Make any blocking call of the package in an event loop fail, including work of libvips."""
    _blockbuster.activate()
    try:
        yield _blockbuster
    finally:
        _blockbuster.deactivate()


@event.listens_for(Mapper, "after_mapper_constructed")
def _note_local_model(mapper: Mapper[Any], cls: type) -> None:
    if "<locals>" in cls.__qualname__:
        LOCAL_REGISTRIES.add(mapper.registry)


@pytest.fixture(autouse=True)
def forget_local_models() -> Iterator[None]:
    """Dispose of the models that the body of a test maps.

    Otherwise a class may outlive another class that it refers to, and SQLAlchemy then refuses to configure mappers.
    """
    LOCAL_REGISTRIES.clear()
    yield
    for made in [*LOCAL_REGISTRIES]:
        classes = [mapper.class_ for mapper in made.mappers]
        if all("<locals>" in cls.__qualname__ for cls in classes) and not any(
            hasattr(
                cls, "__declare_first__"
            )  # SQLAlchemy 2.0 would configure these again although they are disposed of
            for cls in classes
        ):
            made.dispose(cascade=True)


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    """The database servers that are reachable in this run."""
    servers = Servers()
    yield servers
    servers.close()


@pytest.fixture(params=MAIN_DRIVERS)
async def database(request: pytest.FixtureRequest, servers: Servers, tmp_path: Path) -> AsyncIterator[Database]:
    """An empty database: SQLite, PostgreSQL and MariaDB, each with its main driver."""
    database = servers.database(MAIN_DRIVERS[request.param], tmp_path)
    yield database
    await database.aclose()


@pytest.fixture(params=EACH_DRIVER)
async def any_driver_database(
    request: pytest.FixtureRequest, servers: Servers, tmp_path: Path
) -> AsyncIterator[Database]:
    """An empty database, with each of the five drivers if all tests run, otherwise with the three main ones."""
    database = servers.database(request.param, tmp_path)
    yield database
    await database.aclose()


@pytest.fixture
async def sqlite_database(servers: Servers, tmp_path: Path) -> AsyncIterator[Database]:
    """An empty SQLite database in a file."""
    database = servers.database("aiosqlite", tmp_path)
    yield database
    await database.aclose()
