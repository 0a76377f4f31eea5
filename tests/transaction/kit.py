"""Models, stores with faults and the invariants that the tests of transactions stand on."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from sqlalchemy import ForeignKey, Unicode, UniqueConstraint, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from aioimageattach.entity import Image, MultipleImageSet, image_attachment
from aioimageattach.exc import StoreUnavailableError
from aioimageattach.file import Source
from aioimageattach.stores.memory import MemoryStore


class Base(DeclarativeBase):
    """The base of the models here."""


class Owner(Base):
    """Has one picture, and a name that no other has."""

    __tablename__ = "owner"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None] = mapped_column(Unicode(60))
    picture = image_attachment["Picture"]("Picture")
    __table_args__ = (UniqueConstraint("name"),)


class Picture(Base, Image):
    """The picture of an owner."""

    __tablename__ = "picture"
    owner_id: Mapped[int] = mapped_column(ForeignKey("owner.id", ondelete="CASCADE", onupdate="CASCADE"), primary_key=True)


class Album(Base):
    """Has any number of photos."""

    __tablename__ = "album"
    id: Mapped[int] = mapped_column(primary_key=True)
    photos = image_attachment["Photo", MultipleImageSet["Photo"]]("Photo", uselist=True)


class Photo(Base, Image):
    """One photo of an album."""

    __tablename__ = "photo"
    album_id: Mapped[int] = mapped_column(ForeignKey("album.id"), primary_key=True)
    place: Mapped[int] = mapped_column(primary_key=True)


class ScriptedStore(MemoryStore):
    """A store that fails, or waits, at the calls it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.puts = 0
        self.deletes = 0
        self.fail_put: Callable[[int], bool] = lambda n: False
        self.fail_delete: Callable[[int], bool] = lambda n: False
        self.before_put: Callable[[], Any] | None = None
        self.after_put: Callable[[], Any] | None = None

    async def put_object(
        self, name: str, data: Source, *, mimetype: str = "application/octet-stream", reproducible: bool = False
    ) -> None:
        self.puts += 1
        number = self.puts
        if self.before_put is not None:
            await self.before_put()
        if self.fail_put(number):
            raise StoreUnavailableError(f"put number {number} fails", store=repr(self), name=name)
        await super().put_object(name, data, mimetype=mimetype, reproducible=reproducible)
        if self.after_put is not None:
            await self.after_put()

    async def delete_object(self, name: str) -> None:
        self.deletes += 1
        if self.fail_delete(self.deletes):
            raise StoreUnavailableError(f"delete number {self.deletes} fails", store=repr(self), name=name)
        await asyncio.sleep(0)
        await super().delete_object(name)

    async def names(self) -> set[str]:
        """The names of all files."""
        return {found.name async for found in self.list_objects()}


class Rig:
    """One database, one store, and what must hold of both."""

    def __init__(self, sessions: async_sessionmaker[AsyncSession], store: ScriptedStore, database: Any) -> None:
        self.sessions = sessions
        self.store = store
        self.database = database

    async def attach(self, picture: Any, content: bytes, size: tuple[int, int] = (30, 20)) -> Any:
        """Attach bytes whose size and type are taken as they are said."""
        return await picture.from_raw_file(content, self.store, size, "image/png")

    async def owner(self, number: int = 1, content: bytes | None = b"old") -> None:
        """Commit an owner with a picture."""
        async with self.sessions() as session, session.begin():
            owner = Owner(id=number, name=f"owner {number}")
            session.add(owner)
            if content is not None:
                await self.attach(owner.picture, content)

    async def rows(self) -> list[Any]:
        """All image rows that are committed."""
        async with self.sessions() as session:
            found: list[Any] = list(await session.scalars(select(Picture)))
            return found + list(await session.scalars(select(Photo)))

    async def contents(self) -> set[bytes]:
        """The bytes of all committed rows, each checked against its row."""
        found = set()
        for row in await self.rows():
            blob = await row.make_blob(self.store)
            assert hashlib.sha256(blob).hexdigest() == row.sha256
            assert len(blob) == row.byte_size
            found.add(blob)
        return found

    async def check(self, *expected: bytes, orphans: bool = False) -> None:
        """Every row has its file, with these contents; and no file is without a row, unless that may be."""
        assert await self.contents() == set(expected)
        named = {self.store.name_of(row.key) for row in await self.rows()}
        if orphans:
            assert named <= await self.store.names()
        else:
            assert named == await self.store.names()


Style = Callable[[async_sessionmaker[AsyncSession]], AbstractAsyncContextManager[AsyncSession]]


@asynccontextmanager
async def plain(sessions: async_sessionmaker[AsyncSession]) -> AsyncIterator[AsyncSession]:
    """``await session.commit()`` at the end; an error leaves the session to be closed."""
    async with sessions() as session:
        yield session
        await session.commit()


@asynccontextmanager
async def begun(sessions: async_sessionmaker[AsyncSession]) -> AsyncIterator[AsyncSession]:
    """``async with session.begin()``."""
    async with sessions() as session, session.begin():
        yield session


@asynccontextmanager
async def dependency(sessions: async_sessionmaker[AsyncSession]) -> AsyncIterator[AsyncSession]:
    """A web framework's dependency: commits after the handler, rolls back where it raised."""
    session = sessions()
    try:
        yield session
        await session.commit()
    except BaseException:
        await session.rollback()
        raise
    finally:
        await session.close()


STYLES: dict[str, Style] = {"commit": plain, "begin": begun, "dependency": dependency}
