"""Random use of a session: after each transaction, rows and files equal those of a simple model."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from hypothesis.strategies import randoms, sampled_from

from tests.databases import Servers
from tests.faults.conftest import rig_of
from tests.faults.program import ENDS, WITHIN, Program
from tests.faults.rig import Rig
from tests.faults.soak import ROUNDS
from tests.faults.tally import Tally

# After a rollback to a savepoint, a session keeps objects that were loaded in it, although their rows are gone. While
# one of them is in memory, SQLAlchemy warns about a new object with the same key.
pytestmark = [
    pytest.mark.filterwarnings("ignore:New instance .* conflicts with persistent instance"),
    pytest.mark.filterwarnings("ignore:Identity map already had an identity"),
]


def spread(weights: dict[str, int]) -> list[str]:
    """Return each name as often as its frequency says."""
    return [name for name, weight in weights.items() for _ in range(weight)]


async def run(rig: Rig, number: int, tally: Tally) -> None:
    """Run ten random transactions of eight steps each."""
    random = Random(number)
    program = Program(rig, random)
    for step in range(80):
        await program.do(random.choice(spread(ENDS if step % 8 == 7 else WITHIN)))
    await program.session.close()
    tally.add("random programs", kind=rig.database.name)


@pytest.mark.parametrize("number", range(8 * ROUNDS))
async def test_a_program(sqlite_rig: Rig, number: int, tally: Tally) -> None:
    """A random program on SQLite equals the model."""
    await run(sqlite_rig, number, tally)


@pytest.mark.parametrize("number", range(1000, 1000 + ROUNDS))
@pytest.mark.parametrize("driver", ["asyncpg", "psycopg", "asyncmy", "aiomysql"])
async def test_a_program_on_a_server(servers: Servers, tmp_path: Any, driver: str, number: int, tally: Tally) -> None:
    """A random program on the other databases equals the model."""
    database = servers.database(driver, tmp_path)
    try:
        await run(await rig_of(database), number, tally)
    finally:
        await database.aclose()


def machine(servers: Servers, driver: str, folder: Path, tally: Tally) -> type[RuleBasedStateMachine]:
    """Return the same as a state machine for hypothesis, which finds the shortest failing sequence."""
    runner = asyncio.Runner()

    class Machine(RuleBasedStateMachine):
        @initialize(random=randoms(use_true_random=False))
        def begin(self, random: Random) -> None:
            self.database = servers.database(driver, folder)
            self.program = Program(runner.run(rig_of(self.database)), random)

        @rule(name=sampled_from(spread(WITHIN)))
        def go_on(self, name: str) -> None:
            runner.run(self.program.do(name))

        @rule(name=sampled_from(spread(ENDS)))
        def end(self, name: str) -> None:
            runner.run(self.program.do(name))

        def teardown(self) -> None:
            if hasattr(self, "program"):
                runner.run(self.program.session.close())
                runner.run(self.database.aclose())
                tally.add("random programs", kind=f"{self.database.name}, state machine")

    return Machine


@pytest.mark.parametrize("driver", ["aiosqlite", "asyncpg"] if ROUNDS > 1 else ["aiosqlite"])
def test_a_state_machine(servers: Servers, tmp_path: Path, driver: str, tally: Tally) -> None:
    """A failing run is reduced to the necessary steps; ``AIOIMAGEATTACH_SEED`` sets the printed seed."""
    number = int(os.environ.get("AIOIMAGEATTACH_SEED") or Random().getrandbits(32))
    print(f"AIOIMAGEATTACH_SEED={number}")  # noqa: T201
    run_state_machine_as_test(
        seed(number)(machine(servers, driver, tmp_path, tally)),
        settings=settings(
            max_examples=12 * ROUNDS,
            stateful_step_count=40,
            deadline=None,
            database=None,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        ),
    )
