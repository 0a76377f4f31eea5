"""Helpers for tests of faults: a database and a store, three ways to use a session, and the invariants."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase

from aioimageattach.entity import Image, ImageSubset
from aioimageattach.maintenance import sweep
from aioimageattach.offload import StoredBinary
from aioimageattach.offload._columns import columns_of
from tests.databases import Database
from tests.faults.models import Base, Leaf, User
from tests.faults.stores import FaultyStore

PNG = "image/png"
SIZE = (30, 20)


class GivenUp(Exception):
    """Raised by a test in the middle of an operation."""


async def named(
    database: Database, store: FaultyStore, base: type[DeclarativeBase] = Base
) -> tuple[set[str], set[bytes]]:
    """Assert that each committed row has its files, byte for byte; return their names and contents.

    Args:
        database: Read with a separate connection.
        store: The store that contains the files of all rows.
        base: The declarative base of the classes.
    """
    names: set[str] = set()
    contents: set[bytes] = set()
    async with AsyncSession(database.reader) as session:
        for mapper in base.registry.mappers:
            if issubclass(mapper.class_, Image):
                for row in await session.scalars(select(mapper)):
                    name = store.name_of(row.key)
                    async with await store.inner.get_object(name) as file:
                        blob = await file.read()
                    assert (len(blob), hashlib.sha256(blob).hexdigest()) == (row.byte_size, row.sha256)
                    names.add(name)
                    contents.add(blob)
            for column in columns_of(mapper).values():
                for handle in await session.scalars(select(column).where(column.is_not(None))):
                    if handle.name is not None:  # otherwise the value is in the row
                        async with await handle.open(store.inner) as file:  # reading compares size and SHA-256
                            contents.add(await file.read())
                        names.add(handle.name)
    return names, contents


async def check(
    database: Database, store: FaultyStore, base: type[DeclarativeBase] = Base, *, orphans: bool = False
) -> set[bytes]:
    """Assert that each committed row has its file, byte for byte, and that no file is orphaned.

    Args:
        database: As for :func:`named`.
        store: A store that contains only files of these rows.
        base: As for :func:`named`.
        orphans: ``True`` if orphaned files are allowed, because the outcome was unknown.

    Returns:
        The contents of the rows' files.
    """
    names, contents = await named(database, store, base)
    if not orphans:
        there = await store.names()
        assert not names - there, "rows without files"
        assert not there - names, "files without rows"
    return contents


async def swept(database: Database, store: FaultyStore, base: type[DeclarativeBase] = Base) -> int:
    """Sweep without a grace time while nothing is uploaded, and return the number of deleted files."""
    sessions = async_sessionmaker(database.reader)
    plan = sweep(sessions, base, store, grace=timedelta(0), delete=True, force=True)
    return (await plan.execute()).counts["removed"]


async def settled() -> None:
    """Wait for background work: SQLAlchemy closes a cancelled session in a separate task.

    This does not wait for a connection that a cancellation broke: aiosqlite may never close it.
    """

    def closing(task: asyncio.Task[Any]) -> bool:
        return "_terminate" not in str(task.get_coro())

    while others := {task for task in asyncio.all_tasks() - {asyncio.current_task()} if closing(task)}:
        await asyncio.wait(others)


class Rig:
    """A database with its tables, and a store."""

    def __init__(self, database: Database, store: FaultyStore, engine: AsyncEngine) -> None:
        self.database = database
        self.store = store
        self.engine = engine
        self.sessions = async_sessionmaker(engine, expire_on_commit=False)

    async def check(self, *expected: bytes, orphans: bool = False) -> None:
        """Assert the invariants, and that the rows' files have the given contents."""
        assert await check(self.database, self.store, orphans=orphans) == set(expected)

    async def attach(self, pictures: Any, content: bytes, size: tuple[int, int] = SIZE, **options: Any) -> Any:
        """Attach bytes with a given size and type, without examining them."""
        return await pictures.from_raw_file(content, self.store, size, PNG, **options)

    async def replace(self, owner: User, content: bytes, size: tuple[int, int] = SIZE) -> None:
        """Replace the picture of a user."""
        await self.attach(owner.picture, content, size)

    async def remove(self, owner: User) -> None:
        """Delete the picture of a user."""
        await owner.picture.delete()

    async def read(self, owner: User) -> bytes | None:
        """Return the bytes of a user's picture; ``None`` if there is none."""
        await owner.picture.load()
        return await owner.picture.make_blob(self.store) if owner.picture else None

    async def user(self, number: int = 1, content: bytes | None = b"old", thumbnail: bytes | None = None) -> None:
        """Commit a user with a picture, by default."""
        async with self.sessions() as session, session.begin():
            user = User(id=number, name=f"user {number}")
            session.add(user)
            if content is not None:
                await self.attach(user.picture, content)
            if thumbnail is not None:
                await self.attach(user.picture, thumbnail, (3, 2), original=False)


class StoredRig(Rig):
    """Assigns values instead of pictures: an original is one value, a thumbnail another."""

    async def attach(self, pictures: Any, content: bytes, size: tuple[int, int] = SIZE, **options: Any) -> Any:
        """Assign bytes to the owner of an image set."""
        rows = pictures._rows
        value = StoredBinary(content, store=self.store)
        if isinstance(pictures, ImageSubset):
            rows.owner.leaves.append(Leaf(place=pictures.identity["place"], body=value))
        elif options.get("original", True):
            rows.owner.body, rows.owner.small = value, None
        else:
            rows.owner.small = value
        return rows.owner

    async def replace(self, owner: User, content: bytes, size: tuple[int, int] = SIZE) -> None:
        """Replace the value of a user."""
        owner.body = StoredBinary(content, store=self.store)

    async def remove(self, owner: User) -> None:
        """Remove the value of a user."""
        owner.body = None

    async def read(self, owner: User) -> bytes | None:
        """Return the value of a user."""
        return None if owner.body is None else await owner.body.load(self.store)


async def get(session: AsyncSession, number: int = 1) -> User:
    """Return the user with that number."""
    return await session.get_one(User, number)


Style = Callable[[async_sessionmaker[AsyncSession]], AbstractAsyncContextManager[AsyncSession]]


@asynccontextmanager
async def plain(sessions: async_sessionmaker[AsyncSession]) -> AsyncIterator[AsyncSession]:
    """Commit with ``await session.commit()``; after an error, the session is closed without a rollback."""
    async with sessions() as session:
        yield session
        await session.commit()


@asynccontextmanager
async def begun(sessions: async_sessionmaker[AsyncSession]) -> AsyncIterator[AsyncSession]:
    """Use ``async with session.begin()``."""
    async with sessions() as session, session.begin():
        yield session


@asynccontextmanager
async def dependency(sessions: async_sessionmaker[AsyncSession]) -> AsyncIterator[AsyncSession]:
    """Act like a dependency of a web framework: commit after the handler, and roll back if it raises."""
    async with sessions() as session:
        try:
            yield session
            await session.commit()
        except BaseException:
            await session.rollback()
            raise


STYLES: dict[str, Style] = {"commit": plain, "begin": begun, "dependency": dependency}
