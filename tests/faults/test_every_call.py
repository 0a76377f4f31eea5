"""Each call of the store and the database fails once, in each operation of an application."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy.exc import DBAPIError
from sqlalchemy.util import await_only

from aioimageattach.exc import StoreUnavailableError
from tests.databases import Servers
from tests.faults.operations import OPERATIONS, Operation, with_store
from tests.faults.rig import STYLES, Rig, check, named
from tests.faults.stores import fails
from tests.faults.tally import Tally
from tests.faults.trouble import Broken, Trouble, When


@pytest.fixture(params=OPERATIONS)
def operation(request: pytest.FixtureRequest) -> Operation:
    """Each operation."""
    return OPERATIONS[request.param]


class Failures:
    """Runs an operation repeatedly, with a different failure each time.

    Args:
        rig: The database and the store.
        work: The operation.
        tally: Counts the failures.
    """

    def __init__(self, rig: Rig, work: Operation, tally: Tally) -> None:
        self.rig = rig
        self.work = with_store(work, rig.store)
        self.tally = tally
        self.count = 0
        self.before: set[bytes] = set()

    async def prepare(self) -> None:
        """Commit images that could be lost; run the operation once without a failure."""
        await self.attempt()
        self.before = await check(self.rig.database, self.rig.store)

    async def attempt(self) -> None:
        """Run the operation, with each of the three ways to use a session in turn."""
        self.count += 1
        style = list(STYLES.values())[self.count % 3]
        async with style(self.rig.sessions) as session:
            await self.work(session, b"attempt %d" % self.count)

    async def look(self, kind: str, *, committed: bool, orphans: bool = False) -> None:
        """Assert the invariants, and that nothing changed without a commit; then delete orphaned files."""
        self.tally.add("failing calls", kind=kind)
        names, contents = await named(self.rig.database, self.rig.store)
        left = await self.rig.store.names() - names
        assert orphans or not left
        for name in left:
            await self.rig.store.inner.delete_object(name)
        if not committed:
            assert contents == self.before
        self.before = contents


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("method", ["put", "get", "delete"])
async def test_of_the_store(sqlite_rig: Rig, operation: Operation, method: str, after: bool, tally: Tally) -> None:
    """A failed put or get fails the operation and leaves nothing; a failed delete leaves at most its file."""
    rig = sqlite_rig
    failures = Failures(rig, operation, tally)
    await failures.prepare()
    number = 0
    while True:
        number += 1
        calls = rig.store.counts[method]
        rig.store.at(method, fails, number, after=after)
        try:
            await failures.attempt()
        except StoreUnavailableError:
            assert method != "delete"
            committed = False
        else:
            committed = True
        reached = rig.store.counts[method] >= calls + number
        rig.store.heal()
        await failures.look(f"store, {method}", committed=committed, orphans=method == "delete")
        if not reached:
            break
        assert committed == (method == "delete")


def losing(servers: Servers, database: str) -> Callable[[Any], None]:
    """Return a function that breaks a connection to the database."""

    def lose(connection: Any) -> None:
        if database == "sqlite":
            await_only(connection._execute(connection._conn.close))
        else:
            backend = connection.get_server_pid() if database == "postgresql" else connection.thread_id()
            await_only(asyncio.to_thread(servers.kill, database, backend))

    return lose


@pytest.mark.parametrize("when", ["before", "after", "lost"])
async def test_of_the_database(rig: Rig, servers: Servers, operation: Operation, when: When, tally: Tally) -> None:
    """Statements and COMMITs fail before they are sent or after they were executed, or the connection breaks."""
    failures = Failures(rig, operation, tally)
    await failures.prepare()
    number = 0
    while True:
        number += 1
        trouble = Trouble(number, when, losing(servers, rig.database.name))
        with trouble.at(rig.engine):
            try:
                await failures.attempt()
            except (Broken, DBAPIError):
                assert trouble.met
                assert not trouble.late
                failed = True
            else:
                failed = False
        await failures.look(
            f"{rig.database.name}, {when}", committed=not failed, orphans=trouble.doubtful or trouble.late
        )
        if not trouble.met:
            break
        assert failed != trouble.late
