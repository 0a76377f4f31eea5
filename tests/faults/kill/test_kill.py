"""SIGKILL at any moment: every committed row has its file, and a sweep deletes the rest."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from tests.faults.kill.conftest import MakePlaces
from tests.faults.kill.parent import Zygote
from tests.faults.kill.place import Place
from tests.faults.kill.steps import Note
from tests.faults.kill.worker import REQUEST
from tests.faults.soak import ROUNDS
from tests.faults.tally import Tally

STOPS = [
    "before put",
    "during put",
    "after put",
    "after INSERT",
    "before COMMIT",
    "after COMMIT",
    "before delete",
    "after delete",
]
CALLS = ["mkdirat", "openat", "write", "fchmod", "fsync", "linkat", "unlinkat"]
SWEEPS = [("before sweeping", 1), ("after sweeping", 1)]
FILE_STOPS = [step if step != "after INSERT" else "after UPDATE" for step in STOPS]
ALONE: dict[str, Any] = {"shared": False}


async def run(
    places: list[Place], zygote: Zygote, tally: Tally, specs: list[dict[str, Any]], seconds: float | None = None
) -> list[tuple[str, Note]]:
    """Run workers until each has stopped or exited, or for some time; kill them, and check every place.

    Args:
        places: One for all of them, or one for each.
        zygote: Forks the workers.
        tally: Counts the workers.
        specs: The description of each worker; users and a place are added.
        seconds: The duration; ``None`` until they stop.
    """
    for place in places:
        await place.create()
    specs = [
        places[line % len(places)].spec(**{"users": list(range(10 * line + 1, 10 * line + 4)), **spec})
        for line, spec in enumerate(specs)
    ]
    ended = zygote.run(*specs, seconds=seconds)
    for number, place in enumerate(places):
        lines = range(len(specs)) if len(places) == 1 else [number]
        notes = {line: ended[line][1] for line in lines}
        sweepers = [{"stop": stop} for stop in SWEEPS if number % 4 == 0]
        files, orphans = await place.check(zygote, notes, *sweepers)
        tally.add("kills", len(notes), place=place.database.name)
        tally.add("files of committed rows", files)
        tally.add("files without a row before the sweep", orphans)
    for end, note in ended:
        tally.add("killed", step=end if end == "SIGSYS" else note.step)
    return ended


@pytest.mark.parametrize("seed", range(ROUNDS))
async def test_at_each_step(make_places: MakePlaces, zygote: Zygote, tally: Tally, seed: int) -> None:
    """Two processes per step, one at its first occurrence and one later, are killed together."""
    random = Random(seed)
    stops = [(step, time) for step in STOPS for time in (1, random.randint(2, 4))]
    specs = [{"stop": stop, "seed": random.randrange(2**32), **ALONE} for stop in stops]
    ended = await run(make_places(len(stops), stopping=True), zygote, tally, specs)
    assert [(end, note.step) for end, note in ended] == [("stopped", step) for step, _ in stops]


async def files_at_each_step(places: list[Place], zygote: Zygote, tally: Tally, seed: int) -> None:
    """Kill one process per step, whose transactions attach, replace, copy and delete files only."""
    random = Random(seed)
    stops = [(step, random.randint(1, 2)) for step in FILE_STOPS]
    specs = [{"stop": stop, "seed": random.randrange(2**32), "only files": True, **ALONE} for stop in stops]
    ended = await run(places, zygote, tally, specs)
    assert [(end, note.step) for end, note in ended] == [("stopped", step) for step, _ in stops]


@pytest.mark.parametrize("seed", range(ROUNDS))
async def test_files_in_a_directory(make_directories: MakePlaces, zygote: Zygote, tally: Tally, seed: int) -> None:
    """Attached files survive a kill at each step as pictures do."""
    await files_at_each_step(make_directories(len(FILE_STOPS)), zygote, tally, seed)


@pytest.mark.parametrize("seed", range(ROUNDS))
async def test_files_in_a_bucket(make_buckets: MakePlaces, zygote: Zygote, tally: Tally, seed: int) -> None:
    """The same in a bucket, with a database that all processes use."""
    await files_at_each_step(make_buckets(len(FILE_STOPS)), zygote, tally, seed)


@pytest.mark.thorough
@pytest.mark.parametrize("seed", range(ROUNDS))
async def test_at_random(make_places: MakePlaces, zygote: Zygote, tally: Tally, seed: int) -> None:
    """Many processes run concurrently; with one store, they use the same pictures where the database allows it."""
    random = Random(seed)
    places = make_places(12)
    same = len(places) == 1 and ("bucket" in places[0].store) == (seed % 2 == 0)
    common = {"users": [1, 2, 3, 4], "shared": True} if same else ALONE
    specs = [{"seed": random.randrange(2**32), **common} for _ in range(12)]
    ended = await run(places, zygote, tally, specs, random.uniform(0.7, 1.2))
    assert {end for end, _ in ended} == {"busy"}


@pytest.mark.parametrize("seed", range(ROUNDS))
@pytest.mark.parametrize("unnamed", [True, pytest.param(False, marks=pytest.mark.thorough)])
async def test_at_each_system_call(
    make_directories: MakePlaces, zygote: Zygote, tally: Tally, unnamed: bool, seed: int
) -> None:
    """The kernel kills the process at each system call of a put or a delete, with and without unnamed files."""
    random = Random(seed)
    specs = [
        {"dies": [number, call], "seed": random.randrange(2**32), "unnamed files": unnamed, **ALONE}
        for call in CALLS
        # once directories exist, it may take long until one is created
        for number in ([1, 1] if call == "mkdirat" else [random.randint(1, 4), random.randint(1, 4)])
    ]
    ended = await run(make_directories(len(specs)), zygote, tally, specs)
    assert {end for end, _ in ended} == {"SIGSYS"}


@pytest.mark.parametrize("seed", range(ROUNDS))
async def test_in_an_upload_of_parts(make_buckets: MakePlaces, zygote: Zygote, tally: Tally, seed: int) -> None:
    """Killed before the first request, between two parts and before the last: the sweep aborts unfinished uploads."""
    random = Random(seed)
    specs = [{"stop": (REQUEST, time), "seed": random.randrange(2**32), **ALONE} for time in range(1, 11)]
    ended = await run(make_buckets(1), zygote, tally, specs)
    assert {end for end, _ in ended} == {"stopped"}
