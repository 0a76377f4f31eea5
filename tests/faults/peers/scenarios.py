"""Scenarios that such a library encounters in an application, which any of these libraries can run.

Each scenario runs in a separate process, with SQLite and a directory. Another process then checks the result.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from sqlalchemy import delete, event
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine


class Peer(ABC):
    """A library, used as its documentation recommends.

    Args:
        folder: An empty directory for the database and the files.
    """

    name: str
    package: str
    User: Any
    Base: Any

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = folder / "files"
        self.files.mkdir(exist_ok=True)

    def engine(self) -> AsyncEngine:
        """Return an engine with transactions and savepoints as SQLAlchemy documents them for SQLite."""
        engine = create_async_engine(f"sqlite+aiosqlite:///{self.folder}/rows.sqlite")

        @event.listens_for(engine.sync_engine, "connect")
        def connect(connection: Any, _: object) -> None:
            connection.isolation_level = None
            cursor = connection.cursor()
            cursor.execute("PRAGMA foreign_keys = ON")
            cursor.close()

        @event.listens_for(engine.sync_engine, "begin")
        def begin(connection: Any) -> None:
            connection.exec_driver_sql("BEGIN")

        return engine

    @abstractmethod
    def sessions(self, engine: AsyncEngine) -> Callable[[], AsyncSession]:
        """Return a sessionmaker."""

    @abstractmethod
    async def attach(self, session: AsyncSession, user: Any, content: bytes) -> None:
        """Attach an image to a user, replacing the previous one."""

    @abstractmethod
    async def take(self, session: AsyncSession, user: Any) -> None:
        """Remove the image of a user."""

    @abstractmethod
    async def read(self, user: Any) -> bytes | None:
        """Return the contents of a user's image; raise an error if its file is missing."""

    async def sweep(self, engine: AsyncEngine) -> bool:
        """Delete orphaned files; return whether the library supports it."""
        return False

    @abstractmethod
    def copy(self, source: Any, target: Any) -> None:
        """Copy the image of a user to another one by assignment."""

    def stored(self) -> int:
        """Return the number of files, without a backend's own metadata files."""
        found = (path.relative_to(self.files) for path in self.files.rglob("*") if path.is_file())
        # records of ownership, the quarantine, and libcloud's metadata files are not files of rows
        return sum(not path.parts[0].startswith(".") and not path.name.endswith(".metadata.json") for path in found)


class Scene:
    """A running scenario."""

    def __init__(self, peer: Peer, engine: AsyncEngine) -> None:
        self.peer = peer
        self.session = peer.sessions(engine)

    async def user(self, session: AsyncSession, number: int = 1) -> Any:
        """Return the user, or a new one."""
        user = await session.get(self.peer.User, number)
        if user is None:
            session.add(user := self.peer.User(id=number))
        return user

    async def attach(self, session: AsyncSession, content: bytes, number: int = 1) -> Any:
        """Attach an image to the user."""
        user = await self.user(session, number)
        await self.peer.attach(session, user, content)
        return user

    @contextlib.asynccontextmanager
    async def begun(self) -> AsyncIterator[AsyncSession]:
        """Yield a session with a transaction."""
        async with self.session() as session, session.begin():
            yield session


Scenario = Callable[[Scene], Awaitable[None]]
SCENARIOS: dict[str, tuple[Scenario, dict[int, bytes] | None]] = {}
"""Scenarios with the expected contents of the users' images; ``None`` for those in the database."""


class GivenUp(Exception):
    """Raised by a handler."""


def scenario(name: str, expected: dict[int, bytes] | None) -> Callable[[Scenario], Scenario]:
    """Register a scenario and its expected outcome. User 1 has the image ``b"old"`` before."""

    def note(function: Scenario) -> Scenario:
        SCENARIOS[name] = (function, expected)
        return function

    return note


def die() -> None:
    """Exit as with ``kill -9``."""
    os.kill(os.getpid(), signal.SIGKILL)


@scenario("committed", {1: b"new"})
async def _(scene: Scene) -> None:
    async with scene.begun() as session:
        await scene.attach(session, b"new")


@scenario("killed after commit() has returned", {1: b"new"})
async def _(scene: Scene) -> None:
    async with scene.session() as session:
        await scene.attach(session, b"new")
        await session.commit()
        die()


@scenario("killed before COMMIT", {1: b"old"})
async def _(scene: Scene) -> None:
    async with scene.session() as session:
        await scene.attach(session, b"new")
        await session.flush()
        die()


@scenario("rolled back", {1: b"old"})
async def _(scene: Scene) -> None:
    async with scene.session() as session:
        await scene.attach(session, b"new")
        await session.flush()
        await session.rollback()


@scenario("closed without a commit", {1: b"old"})
async def _(scene: Scene) -> None:
    async with scene.session() as session:
        await scene.attach(session, b"new")
        await session.flush()


@scenario("the handler raises an error", {1: b"old"})
async def _(scene: Scene) -> None:
    with contextlib.suppress(GivenUp):
        async with scene.begun() as session:
            await scene.attach(session, b"new")
            await session.flush()
            raise GivenUp


@scenario("a constraint violation", {1: b"old"})
async def _(scene: Scene) -> None:
    with contextlib.suppress(IntegrityError):
        async with scene.begun() as session:
            await scene.attach(session, b"new")
            session.add(scene.peer.User(id=2, name="taken"))


@scenario("COMMIT is rejected by the database", {1: b"old"})
async def _(scene: Scene) -> None:
    with contextlib.suppress(IntegrityError):
        async with scene.begun() as session:
            (await scene.attach(session, b"new")).boss_id = 77


@scenario("savepoint rolled back, transaction committed", {1: b"new", 2: b"two"})
async def _(scene: Scene) -> None:
    async with scene.begun() as session:
        await scene.attach(session, b"two", 2)
        await scene.attach(session, b"new")
        await session.flush()
        savepoint = await session.begin_nested()
        await scene.attach(session, b"three", 3)
        await session.flush()
        await savepoint.rollback()


@scenario("replaced in a savepoint that is rolled back", {1: b"old", 2: b"two"})
async def _(scene: Scene) -> None:
    async with scene.begun() as session:
        await scene.attach(session, b"two", 2)
        savepoint = await session.begin_nested()
        await scene.attach(session, b"new")
        await session.flush()
        await savepoint.rollback()


@scenario("deleted in a savepoint that is rolled back", {1: b"old", 2: b"two"})
async def _(scene: Scene) -> None:
    async with scene.begun() as session:
        await scene.attach(session, b"two", 2)
        await session.flush()
        savepoint = await session.begin_nested()
        await session.delete(await scene.user(session))
        await session.flush()
        await savepoint.rollback()


@scenario("savepoint released, transaction rolled back", {1: b"old"})
async def _(scene: Scene) -> None:
    async with scene.session() as session:
        async with session.begin_nested():
            await scene.attach(session, b"new")
        await session.rollback()


@scenario("a caught constraint violation in a savepoint", {1: b"new", 2: b"two"})
async def _(scene: Scene) -> None:
    async with scene.begun() as session:
        await scene.attach(session, b"new")
        await session.flush()
        with contextlib.suppress(IntegrityError):
            async with session.begin_nested():
                (await scene.attach(session, b"three", 3)).name = "taken"
        await scene.attach(session, b"two", 2)


@scenario("replaced three times in one transaction", {1: b"3"})
async def _(scene: Scene) -> None:
    async with scene.begun() as session:
        for content in (b"1", b"2", b"3"):
            await scene.attach(session, content)
            await session.flush()


@scenario("deleted, then rolled back", {1: b"old"})
async def _(scene: Scene) -> None:
    async with scene.session() as session:
        await scene.peer.take(session, await scene.user(session))
        await session.flush()
        await session.rollback()


@scenario("the user is deleted", {})
async def _(scene: Scene) -> None:
    async with scene.begun() as session:
        await session.delete(await scene.user(session))


@scenario("a loaded user is deleted by a statement", {})
async def _(scene: Scene) -> None:
    async with scene.begun() as session:
        await scene.user(session)
        await session.execute(delete(scene.peer.User).where(scene.peer.User.id == 1))


@scenario("another session is rolled back meanwhile", {1: b"new"})
async def _(scene: Scene) -> None:
    async with scene.session() as ours, scene.session() as theirs:
        await scene.attach(ours, b"new")
        await theirs.get(scene.peer.User, 1)
        await scene.attach(theirs, b"theirs", 2)
        await theirs.rollback()
        await ours.commit()


@scenario("one image for two users, one of whom is deleted", None)
async def _(scene: Scene) -> None:
    with contextlib.suppress(Exception):  # a refusal is also an answer
        async with scene.begun() as session:
            user, other = await scene.user(session), await scene.user(session, 2)
            scene.peer.copy(user, other)
    async with scene.begun() as session:
        await session.delete(await scene.user(session))


@scenario("the second of two files cannot be written", {1: b"old"})
async def _(scene: Scene) -> None:
    with contextlib.suppress(Exception):
        async with scene.begun() as session:
            await scene.attach(session, b"new")
            await scene.attach(session, bytes(3_000_000), 2)
            resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))


@scenario("cancelled during commit()", None)
async def _(scene: Scene) -> None:
    async def replace() -> None:
        async with scene.session() as session:
            await scene.attach(session, bytes(100_000))
            await session.commit()

    for turns in range(1, 100):
        task = asyncio.create_task(replace())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
