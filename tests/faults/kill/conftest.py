"""Environments for killed workers: each database, with a directory and with a bucket."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Protocol

import pytest

from tests import photos
from tests.databases import MAIN_DRIVERS, Servers
from tests.faults.kill.parent import Zygote
from tests.faults.kill.place import Place
from tests.servers.ministack import BIND, Ministack

PLACES = [f"{database} {store}" for database in MAIN_DRIVERS for store in ("directory", "bucket")]


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    """The process from which workers are forked."""
    zygote = Zygote()
    yield zygote
    zygote.close()


class MakePlaces(Protocol):
    """Makes databases and stores for a number of workers."""

    def __call__(self, workers: int, *, stopping: bool = False) -> list[Place]:
        """Return one place for all workers, or one for each if they would block each other.

        SQLite has one writer. InnoDB locks the neighbours of a revision that is deleted and written again, so that a
        worker that stops there would block every insertion of the others.
        """


@contextlib.asynccontextmanager
async def places(request: pytest.FixtureRequest, servers: Servers, tmp_path: Path) -> AsyncIterator[MakePlaces]:
    """Yield a function that creates places with the parameter's database and store."""
    name, kind = request.param.split()
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(photos.saved(photos.opened("coffee", (60, 40)), "JPEG"))
    made: list[Place] = []

    def store(number: int) -> dict[str, str]:
        if kind == "directory":
            return {"folder": str(tmp_path / f"files {number}")}
        server: Ministack = request.getfixturevalue("bucket_server")
        return {"url": f"http://{BIND}:{server.port}", "bucket": "pictures", "prefix": secrets.token_hex(8)}

    def make(workers: int, *, stopping: bool = False) -> list[Place]:
        apart = name == "sqlite" or (name == "mariadb" and stopping)
        for number in range(workers if apart else 1):
            database = servers.database(MAIN_DRIVERS[name], tmp_path, another=number > 0)
            made.append(Place(database, store(number), str(photo)))
        return made

    yield make
    for place in made:
        await place.database.aclose()


@pytest.fixture(params=PLACES)
async def make_places(request: pytest.FixtureRequest, servers: Servers, tmp_path: Path) -> AsyncIterator[MakePlaces]:
    """Each database, with each store."""
    async with places(request, servers, tmp_path) as make:
        yield make


@pytest.fixture(params=["sqlite directory"])
async def make_directories(
    request: pytest.FixtureRequest, servers: Servers, tmp_path: Path
) -> AsyncIterator[MakePlaces]:
    """The simplest database, with directories."""
    async with places(request, servers, tmp_path) as make:
        yield make


@pytest.fixture(params=["postgresql bucket"])
async def make_buckets(request: pytest.FixtureRequest, servers: Servers, tmp_path: Path) -> AsyncIterator[MakePlaces]:
    """One database, with a bucket."""
    async with places(request, servers, tmp_path) as make:
        yield make
