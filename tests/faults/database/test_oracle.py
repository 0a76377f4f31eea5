"""Random programs: each committed row opens its own bytes, and one sweep removes all other files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.databases import Servers
from tests.faults.database.oracle import TRIGGERS, Base, fault_of, run, shortened, steps_of
from tests.faults.soak import ROUNDS
from tests.faults.tally import Tally

PROGRAMS = {"aiosqlite": 30, "asyncpg": 20, "psycopg": 10, "asyncmy": 20}
"""Number of programs per driver and round if all tests are requested; otherwise five per database."""
FIRST = int(os.environ.get("AIOIMAGEATTACH_SEED") or 1)
"""Number of the first program; the others follow."""
CHUNK = 5


@pytest.mark.parametrize(
    ("driver", "first"),
    [
        pytest.param(driver, first, marks=[pytest.mark.thorough] if driver == "psycopg" or first > FIRST else [])
        for driver, count in PROGRAMS.items()
        for first in range(FIRST, FIRST + count * ROUNDS, CHUNK)
    ],
)
async def test_the_database_is_the_oracle(
    servers: Servers, tmp_path: Path, driver: str, first: int, tally: Tally
) -> None:
    """Five programs run; a failing one is reduced to the necessary steps."""
    database = servers.database(driver, tmp_path)
    try:
        await database.create(Base.metadata)
        for number in range(first, first + CHUNK):
            steps, trigger = steps_of(number), ["", "", *TRIGGERS][number % 4]
            error = await fault_of(database, steps, trigger)
            if error is not None:
                steps = await shortened(database, steps, trigger, type(error))
                error.add_note(f"program {number}; shortened: run(database, {steps!r}, {trigger!r})")
                await run(database, steps, trigger)
                raise error
            tally.add("random programs", kind=f"{database.name}, judged by the database")
    finally:
        await database.aclose()
