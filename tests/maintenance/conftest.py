"""What the tests of maintenance stand on: rows on three databases, and files whose age can be chosen."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from aioimageattach import bind_store
from aioimageattach.entity.image import utcnow
from aioimageattach.key import ImageKey, make_revision
from aioimageattach.store import KeyedStore
from aioimageattach.stores.fs import FileSystemStore
from tests.databases import Database
from tests.maintenance.models import Base, User, UserPicture
from tests.stores.s3.conftest import gate as gate
from tests.stores.s3.conftest import make_store as make_store
from tests.stores.s3.conftest import s3_server as s3_server

DAY = 24 * 3600


class Place:
    """A database with users, and a directory with their pictures."""

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
            object_type: The beginning of its name.
            named: Age of its name in seconds.
            put: Age of the file in seconds.
            blob: What it holds.
            size: Width and height that its name says.
        """
        now = time.time()
        key = ImageKey(object_type, None, *size, "image/jpeg", make_revision(now - named))
        await self.name(self.store.name_of(key), put=put, blob=blob)
        return key

    async def name(self, name: str, *, put: float = 2 * DAY, blob: bytes = b"blob") -> str:
        """Put a file of a name of one's own."""
        await self.store.put_object(name, blob)
        then = time.time() - put
        os.utime(Path(self.store.path, name), (then, then))
        return name

    async def row(self, key: ImageKey, **values: Any) -> dict[str, Any]:
        """Commit a user, and a row of a picture of that key."""
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
        """The names of all files, without those in quarantine and the records of ownership."""
        return await names_in(self.store)


async def names_in(store: KeyedStore) -> set[str]:
    """The names of all files in a store, without those in quarantine and the records of ownership."""
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
    """Three databases in turn, and a directory."""
    return await place_of(database, tmp_path / "media")
