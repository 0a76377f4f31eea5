"""What the command line is told of by ``module:name``: models, and stores of every odd kind."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import ForeignKey
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.pool import NullPool

from aioimageattach import bind_store
from aioimageattach.entity import Image, MultipleImageSet, image_attachment
from aioimageattach.exc import StoreError, StorePermissionError
from aioimageattach.file import AsyncFile, Source
from aioimageattach.offload import StoredText, stored_text
from aioimageattach.store import ObjectInfo, Store
from aioimageattach.stores.fs import FileSystemStore
from aioimageattach.stores.memory import MemoryStore
from tests import photos

SMALL = photos.saved(photos.opened("chelsea", (90, 60)), "JPEG")
DATABASE = "app.sqlite"
MEDIA = "media"


class Base(DeclarativeBase):
    """The models."""


class User(Base):
    __tablename__ = "user"
    id: Mapped[int] = mapped_column(primary_key=True)
    picture = image_attachment["UserPicture"]("UserPicture")


class UserPicture(Base, Image):
    __tablename__ = "user_picture"
    user_id: Mapped[int] = mapped_column(ForeignKey("user.id"), primary_key=True)


class Post(Base):
    __tablename__ = "post"
    id: Mapped[int] = mapped_column(primary_key=True)
    photos = image_attachment["PostPhoto", MultipleImageSet["PostPhoto"]]("PostPhoto", uselist=True)


class PostPhoto(Base, Image):
    __tablename__ = "post_photo"
    post_id: Mapped[int] = mapped_column(ForeignKey("post.id"), primary_key=True)
    order_index: Mapped[int] = mapped_column(primary_key=True)


class Note(Base):
    __tablename__ = "note"
    id: Mapped[int] = mapped_column(primary_key=True)
    body: Mapped[StoredText | None] = stored_text(compression="gzip")


def engine() -> AsyncEngine:
    """Of the database in the present folder."""
    return create_async_engine(f"sqlite+aiosqlite:///{DATABASE}")


async def sessions() -> async_sessionmaker[AsyncSession]:
    """For the database in the present folder."""
    return async_sessionmaker(engine())


def unbound() -> async_sessionmaker[AsyncSession]:
    """Gets its engine when a session is made."""
    return async_sessionmaker(class_=_Bound)


class _Bound(AsyncSession):
    def __init__(self, **options: Any) -> None:
        path = f"sqlite+aiosqlite:///{DATABASE}"
        super().__init__(**{**options, "bind": create_async_engine(path, poolclass=NullPool)})


async def bound_sessions() -> async_sessionmaker[AsyncSession]:
    """Sessions with the application's store."""
    found = async_sessionmaker(engine())
    bind_store(found, media())
    return found


def media() -> FileSystemStore:
    """In the present folder."""
    return FileSystemStore(MEDIA, "https://example.com/")


memory = MemoryStore()
nothing = 0


@asynccontextmanager
async def entered() -> AsyncIterator[Store]:
    """A store that is there for a while."""
    Path("entered").touch()
    yield media()
    Path("entered").unlink()


class _Interrupting(FileSystemStore):
    """Somebody presses the keys when the third file is put."""

    number = signal.SIGINT
    puts = 0

    async def put_object(
        self, name: str, data: Source, *, mimetype: str = "application/octet-stream", reproducible: bool = False
    ) -> None:
        self.puts += 1
        if self.puts == 3:
            os.kill(os.getpid(), self.number)
        await super().put_object(name, data, mimetype=mimetype, reproducible=reproducible)


def interrupting() -> FileSystemStore:
    return _Interrupting("new", "https://example.com/")


def terminating() -> FileSystemStore:
    store = _Interrupting("new", "https://example.com/")
    store.number = signal.SIGTERM
    return store


class Changing(MemoryStore):
    """What is read is not what was put."""

    async def get_object(self, name: str, *, start: int = 0, end: int | None = None) -> AsyncFile:
        await super().put_object(f"{name}.x", b"x")
        return await super().get_object(f"{name}.x", start=start, end=end)


class Hiding(MemoryStore):
    """What was put is not listed."""

    async def list_objects(self, prefix: str = "", *, start_after: str = "") -> AsyncIterator[ObjectInfo]:
        for found in ():
            yield found


class Undeletable(FileSystemStore):
    """Deletes nothing."""

    async def delete_object(self, name: str) -> None:
        raise StorePermissionError("read only")

    async def delete_objects(self, names: Iterable[str]) -> dict[str, StoreError]:
        return {name: StorePermissionError("read only") for name in names}

    async def move_objects(self, names: Mapping[str, str]) -> dict[str, StoreError]:
        return {name: StorePermissionError("read only") for name in names}


class Plain(Store):
    """Has no names."""

    def __init__(self) -> None:
        self.inner = MemoryStore()

    async def put_file(self, *args: Any, **options: Any) -> None:
        await self.inner.put_file(*args, **options)

    async def get_file(self, *args: Any, **options: Any) -> AsyncFile:
        return await self.inner.get_file(*args, **options)

    def get_url(self, *args: Any, **options: Any) -> str:
        return self.inner.get_url(*args, **options)

    async def delete_file(self, *args: Any, **options: Any) -> None:
        await self.inner.delete_file(*args, **options)


def broken() -> FileSystemStore:
    raise RuntimeError("a fault of the application's own")


def undeletable() -> FileSystemStore:
    return Undeletable(MEDIA, "https://example.com/")


class _Slow(FileSystemStore):
    """Takes its time."""

    async def put_object(
        self, name: str, data: Source, *, mimetype: str = "application/octet-stream", reproducible: bool = False
    ) -> None:
        await asyncio.sleep(0.05)
        await super().put_object(name, data, mimetype=mimetype, reproducible=reproducible)

    async def list_objects(self, prefix: str = "", *, start_after: str = "") -> AsyncIterator[ObjectInfo]:
        await asyncio.sleep(0.2)
        async for found in super().list_objects(prefix, start_after=start_after):
            yield found


def slow() -> FileSystemStore:
    return _Slow("new", "https://example.com/")


def listing() -> FileSystemStore:
    return _Slow(MEDIA, "https://example.com/")
