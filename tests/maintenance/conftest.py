"""Fixtures of the maintenance tests: rows in three databases, and files of any age."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from aioimageattach import bind_store
from aioimageattach.entity._image import utcnow
from aioimageattach.key import ImageKey, make_revision
from aioimageattach.store import KeyedStore
from aioimageattach.stores import MemoryStore
from aioimageattach.stores.fs import FileSystemStore
from tests.databases import Database
from tests.maintenance.models import Base, User, UserPicture
from tests.stores.s3.conftest import gate as gate
from tests.stores.s3.conftest import make_store as make_store
from tests.stores.s3.conftest import s3_server as s3_server

DAY = 24 * 3600


def row(number: int, revision: str | None, **more: Any) -> dict[str, Any]:
    """Return the columns of an image."""
    return {
        "user_id": number,
        "width": 30,
        "height": 20,
        "variant": "",
        "mimetype": "image/png",
        "original": True,
        "created_at": utcnow(),
        "revision": revision,
        **more,
    }


class AgedStore:
    """A store in memory whose files can have any age, and rows that name them."""

    def __init__(self) -> None:
        self.store = MemoryStore()

    def put(self, name: str, days: float = 3) -> str:
        """Put a file of some age, or change the age of a file; return its name."""
        blob, _ = self.store._files.get(name, (b"blob", None))
        self.store._files[name] = (blob, datetime.now(UTC) - timedelta(days=days))
        return name

    def picture(self, days: float = 3, object_type: str = "user-picture") -> str:
        """Put a file of some age; return its revision."""
        revision = make_revision(time.time() - days * DAY)
        self.put(ImageKey(object_type, None, 30, 20, "image/png", revision).file_name(), days)
        return revision

    async def fill(self, engine: AsyncEngine, count: int, *, lost: int = 0, base: Any = Base) -> None:
        """Put images in order of time, and commit rows for all but the last ones."""
        rows = [row(number, self.picture(3 - number * 0.001)) for number in range(1, count + 1)]
        async with engine.begin() as connection:
            await connection.run_sync(base.metadata.create_all)
            await connection.execute(insert(User), [{"id": number} for number in range(1, count + 1)])
            await connection.execute(insert(UserPicture.__table__), rows[: count - lost])

    @property
    def names(self) -> set[str]:
        """The names of the files, except quarantined ones and records of ownership."""
        return {name for name in self.store._files if not name.startswith(".")}


class Place:
    """A database with users, and a directory with their images."""

    def __init__(self, database: Database, root: Path, **options: Any) -> None:
        self.database = database
        self.store = FileSystemStore(root, "/media/", fsync=False)
        self.engine = database.engine(**options)
        self.sessions: async_sessionmaker[AsyncSession] = async_sessionmaker(self.engine, expire_on_commit=False)
        bind_store(self.sessions, self.store)
        self.users = 0

    async def file(
        self,
        object_type: str = "user-picture",
        *,
        named: float = 2 * DAY,
        put: float = 2 * DAY,
        blob: bytes = b"blob",
        size: tuple[int, int] = (30, 20),
    ) -> ImageKey:
        """Put a file.

        Args:
            object_type: The object type, with which the name begins.
            named: Age according to the name, in seconds.
            put: Age according to the store, in seconds.
            blob: The bytes.
            size: Width and height in the name.
        """
        now = time.time()
        key = ImageKey(object_type, None, *size, "image/jpeg", make_revision(now - named))
        await self.name(self.store.name_of(key), put=put, blob=blob)
        return key

    async def name(self, name: str, *, put: float = 2 * DAY, blob: bytes = b"blob") -> str:
        """Put a file with a given name."""
        await self.store.put_object(name, blob)
        then = time.time() - put
        os.utime(Path(self.store.path, name), (then, then))
        return name

    async def row(self, key: ImageKey, **values: Any) -> dict[str, Any]:
        """Commit a user, and a row for an image with a key."""
        self.users += 1
        row = {
            "user_id": self.users,
            "width": key.width,
            "height": key.height,
            "variant": "",
            "mimetype": key.mimetype,
            "original": True,
            "created_at": utcnow(),
            "revision": key.revision,
            **values,
        }
        async with self.sessions.begin() as session:
            if row["user_id"] == self.users:
                await session.execute(insert(User), [{"id": self.users, "name": f"user {self.users}"}])
            await session.execute(insert(UserPicture.__table__), [row])
        return row

    async def rows(self, count: int, **ages: float) -> list[str]:
        """Commit rows with their files; return the names of the files."""
        names = []
        for _ in range(count):
            key = await self.file(**ages)  # type: ignore[arg-type]
            await self.row(key)
            names.append(self.store.name_of(key))
        return names

    async def names(self) -> set[str]:
        """Return the names of all files, except quarantined ones and records of ownership."""
        return await names_in(self.store)


async def names_in(store: KeyedStore) -> set[str]:
    """Return the names of all files in a store, except quarantined ones and records of ownership."""
    return {found.name async for found in store.list_objects() if not found.name.startswith(".")}


async def place_of(database: Database, root: Path, **options: Any) -> Place:
    await database.create(Base.metadata)
    return Place(database, root, **options)


@pytest.fixture
async def place(sqlite_database: Database, tmp_path: Path) -> Place:
    """SQLite and a directory."""
    return await place_of(sqlite_database, tmp_path / "media")


@pytest.fixture
async def any_place(database: Database, tmp_path: Path) -> Place:
    """Each of the three databases, and a directory."""
    return await place_of(database, tmp_path / "media")


@pytest.fixture
async def postgresql(servers: Any, tmp_path: Path) -> AsyncIterator[Database]:
    """An empty PostgreSQL database."""
    database: Database = servers.database("asyncpg", tmp_path)
    yield database
    await database.aclose()


@pytest.fixture
async def mariadb(servers: Any, tmp_path: Path) -> AsyncIterator[Database]:
    """An empty MariaDB database."""
    database: Database = servers.database("asyncmy", tmp_path)
    yield database
    await database.aclose()


@asynccontextmanager
async def role_on(engine: AsyncEngine) -> AsyncIterator[str]:
    """Create a second PostgreSQL role, which may read all tables, for the duration of a block."""
    role = f"aioimageattach_{secrets.token_hex(4)}"
    async with engine.begin() as connection:
        for statement in (
            f"CREATE ROLE {role}",
            f"GRANT USAGE ON SCHEMA public TO {role}",
            "REVOKE CREATE ON SCHEMA public FROM PUBLIC",
            f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}",
        ):
            await connection.execute(text(statement))
    try:
        yield role
    finally:
        async with engine.begin() as connection:
            await connection.execute(text(f"DROP OWNED BY {role}"))
            await connection.execute(text(f"DROP ROLE {role}"))
