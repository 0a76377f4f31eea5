"""Models and stores that the tests pass to the command line as ``module:name``."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import ForeignKey
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.pool import NullPool
from taskiq import BrokerMessage, InMemoryBroker

from aioimageattach import Recipe, Srcset, bind_store
from aioimageattach.entity import Image, MultipleImageSet, image_attachment
from aioimageattach.exc import StoreError, StorePermissionError
from aioimageattach.file import AsyncFile, Source
from aioimageattach.offload import StoredText, stored_text
from aioimageattach.store import ObjectInfo, Store
from aioimageattach.stores import MemoryStore, RoutingStore
from aioimageattach.stores.fs import FileSystemStore
from aioimageattach.taskiq import ThumbnailTasks
from tests import photos

SMALL = photos.saved(photos.opened("chelsea", (90, 60)), "JPEG")
DATABASE = "app.sqlite"
MEDIA = "media"


class Base(DeclarativeBase):
    """The declarative base."""


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


class OtherBase(DeclarativeBase):
    """Another declarative base."""


class Page(OtherBase):
    __tablename__ = "page"
    id: Mapped[int] = mapped_column(primary_key=True)
    body: Mapped[StoredText | None] = stored_text(index=True)


class CardBase(DeclarativeBase):
    """A declarative base with declared thumbnails."""


class Card(CardBase, Image):
    __tablename__ = "card"
    __thumbnails__ = {"icon": Recipe(width=20), "wide": Srcset([30, 60], sizes="100vw", fallback=None)}
    id: Mapped[int] = mapped_column(primary_key=True)


class TenantCard(CardBase, Image):
    __tablename__ = "tenant_card"
    __thumbnails__ = {"icon": Recipe(width=20)}
    id: Mapped[int] = mapped_column(primary_key=True)
    tenant: Mapped[str]

    @property
    def object_type(self) -> str:
        return f"card-of-{self.tenant}"


class Queue:
    """Records the originals that it receives, like ThumbnailTasks, and the calls of its broker."""

    def __init__(self) -> None:
        self.broker: Any = self
        self.notes: list[str] = []

    async def startup(self) -> None:
        """Record the start."""
        self.notes.append("startup")

    async def shutdown(self) -> None:
        """Record the shutdown."""
        self.notes.append("shutdown")

    async def enqueue(self, original: str, thumbnails: Sequence[str]) -> None:
        """Take a job."""
        self.notes.append(f"{original} {len(thumbnails)}")


queue = Queue()


def tasks() -> ThumbnailTasks:
    """Return tasks whose broker runs them in this process."""
    return ThumbnailTasks(InMemoryBroker(await_inplace=True), media(), [Card])


class Brokerless:
    """A queue without a broker to start."""

    async def enqueue(self, original: str, thumbnails: Sequence[str]) -> None:
        """Take a job."""


class NoMethod:
    """An object with only an attribute of the right name."""

    enqueue = 0


no_method = NoMethod()


class Refusing:
    """Refuses each job; the error contains the URL of a broker."""

    broker = "amqp://user:hunter2@host/"

    async def enqueue(self, original: str, thumbnails: Sequence[str]) -> None:
        """Refuse a job."""
        raise ConnectionError(f"{self.broker} cannot be reached")


def unreachable() -> ThumbnailTasks:
    """Tasks whose broker fails."""

    class Broker(InMemoryBroker):
        async def kick(self, message: BrokerMessage) -> None:
            raise ConnectionError("redis://:hunter2@host/0 cannot be reached")

    return ThumbnailTasks(Broker(), media(), [Card])


def brokerless() -> Brokerless:
    """Return a queue without a broker."""
    return Brokerless()


def engine() -> AsyncEngine:
    """Return an engine for the database in the current directory."""
    return create_async_engine(f"sqlite+aiosqlite:///{DATABASE}")


async def sessions() -> async_sessionmaker[AsyncSession]:
    """Return a session maker for the database in the current directory."""
    return async_sessionmaker(engine())


def unbound() -> async_sessionmaker[AsyncSession]:
    """Return a session maker whose engine is created with each session."""
    return async_sessionmaker(class_=_Bound)


class _Bound(AsyncSession):
    def __init__(self, **options: Any) -> None:
        path = f"sqlite+aiosqlite:///{DATABASE}"
        super().__init__(**{**options, "bind": create_async_engine(path, poolclass=NullPool)})


async def bound_sessions() -> async_sessionmaker[AsyncSession]:
    """Return a session maker with the store of the application."""
    found = async_sessionmaker(engine())
    bind_store(found, media())
    return found


def media() -> FileSystemStore:
    """Return a store in the current directory."""
    return FileSystemStore(MEDIA, "https://example.com/")


def routed() -> RoutingStore:
    """Return a routing store with a separate store for the images, by the name of their table."""
    return RoutingStore({"user_picture": media()}, memory)


def routed_thumbnails() -> RoutingStore:
    """Return a routing store with a separate store for declared thumbnails."""
    return RoutingStore({"user-picture.t": memory}, media())


def misrouted() -> RoutingStore:
    """Return a routing store with a misspelled object type, so that the images go to the default store."""
    return RoutingStore({"user_pictures": memory}, media())


memory = MemoryStore()
nothing = 0
none = None


class Lazy:
    """An object whose attributes are not available yet, as a proxy outside of its context."""

    @property
    def base(self) -> object:
        """The declarative base."""
        raise RuntimeError("postgresql://user:hunter2@host/name is not connected")


lazy = Lazy()


def named(name: str) -> MemoryStore:
    """A store with a name, which is required."""
    return MemoryStore(name)


def mistaken() -> MemoryStore:
    """A store, but the function calls another one wrongly."""
    return named()  # type: ignore[call-arg]


@asynccontextmanager
async def entering() -> AsyncIterator[Store]:
    """Provide a store as an asynchronous context manager."""
    Path("entering").touch()
    yield media()
    Path("entering").unlink()


class _Interrupting(FileSystemStore):
    """A store that sends a signal when the third file is put."""

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


class _InterruptedBackfill(FileSystemStore):
    """A store that sends a signal when the seventh thumbnail is put."""

    left = 7

    async def put_object(
        self, name: str, data: Source, *, mimetype: str = "application/octet-stream", reproducible: bool = False
    ) -> None:
        self.left -= 1
        if not self.left:
            os.kill(os.getpid(), signal.SIGINT)
        await super().put_object(name, data, mimetype=mimetype, reproducible=reproducible)


def interrupted_backfill() -> FileSystemStore:
    return _InterruptedBackfill(MEDIA, "https://example.com/")


class _InterruptedSweep(FileSystemStore):
    """A store that sends a signal when the files of users are listed."""

    async def list_objects(self, prefix: str = "", *, start_after: str = "") -> AsyncIterator[ObjectInfo]:
        if prefix == "user-picture/":
            os.kill(os.getpid(), signal.SIGINT)
        async for found in super().list_objects(prefix, start_after=start_after):
            yield found


def interrupted_sweep() -> FileSystemStore:
    return _InterruptedSweep(MEDIA, "https://example.com/")


def terminating() -> FileSystemStore:
    store = _Interrupting("new", "https://example.com/")
    store.number = signal.SIGTERM
    return store


class Changing(MemoryStore):
    """A store that returns bytes other than those that were put."""

    async def get_object(self, name: str, *, start: int = 0, end: int | None = None) -> AsyncFile:
        await super().put_object(f"{name}.x", b"x")
        return await super().get_object(f"{name}.x", start=start, end=end)


class Hiding(MemoryStore):
    """A store that lists no files."""

    async def list_objects(self, prefix: str = "", *, start_after: str = "") -> AsyncIterator[ObjectInfo]:
        for found in ():
            yield found


class Undeletable(FileSystemStore):
    """A store that refuses to delete and move files."""

    async def delete_object(self, name: str) -> None:
        raise StorePermissionError("read only")

    async def delete_objects(self, names: Iterable[str]) -> dict[str, StoreError]:
        return {name: StorePermissionError("read only") for name in names}

    async def move_objects(self, names: Mapping[str, str]) -> dict[str, StoreError]:
        return {name: StorePermissionError("read only") for name in names}


class Plain(Store):
    """A store that is not a ``KeyedStore``."""

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
    raise RuntimeError("an error in the application")


def undeletable() -> FileSystemStore:
    return Undeletable(MEDIA, "https://example.com/")


class _Slow(FileSystemStore):
    """A store that waits for a line of progress before its second put and before each listing."""

    puts = 0

    async def put_object(
        self, name: str, data: Source, *, mimetype: str = "application/octet-stream", reproducible: bool = False
    ) -> None:
        self.puts += 1
        if self.puts == 2:
            await _written(b" left")
        await super().put_object(name, data, mimetype=mimetype, reproducible=reproducible)

    async def list_objects(self, prefix: str = "", *, start_after: str = "") -> AsyncIterator[ObjectInfo]:
        if not prefix.startswith("."):
            await _written(b"sweep")
        async for found in super().list_objects(prefix, start_after=start_after):
            yield found


async def _written(words: bytes) -> None:
    """Wait until the command, which runs in this process, has written a string."""
    outputs: list[Any] = [sys.stdout, sys.stderr]  # of click's CliRunner
    while not any(words in output.buffer.getvalue() for output in outputs):
        await asyncio.sleep(0.005)


def slow() -> FileSystemStore:
    return _Slow("new", "https://example.com/")


def listing() -> FileSystemStore:
    return _Slow(MEDIA, "https://example.com/")
