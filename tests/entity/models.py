"""Models, sessions and stores for the tests of entities."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import ForeignKey, MetaData, Unicode, UnicodeText, event
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from aioimageattach.context import bind_store
from aioimageattach.entity import Image, MultipleImageSet, image_attachment
from aioimageattach.file import AsyncFile, Source
from aioimageattach.store import Store
from aioimageattach.stores import MemoryStore
from tests.databases import Database
from tests.photos import photo


class Base(DeclarativeBase):
    """Declarative base of these models."""


class User(Base):
    """An owner of one image."""

    __tablename__ = "user"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(Unicode(60), default="somebody")
    picture = image_attachment["UserPicture"]("UserPicture")


class UserPicture(Base, Image):
    """The image of a user."""

    __tablename__ = "user_picture"
    user_id: Mapped[int] = mapped_column(ForeignKey("user.id"), primary_key=True)
    user: Mapped[User] = relationship("User")


class Post(Base):
    """An owner of any number of photos."""

    __tablename__ = "post"
    id: Mapped[int] = mapped_column(primary_key=True)
    content: Mapped[str] = mapped_column(UnicodeText, default="")
    photos = image_attachment["PostPhoto", MultipleImageSet["PostPhoto"]]("PostPhoto", uselist=True)


class PostPhoto(Base, Image):
    """One photo of a post."""

    __tablename__ = "post_photo"
    post_id: Mapped[int] = mapped_column(ForeignKey(Post.id), primary_key=True)
    post: Mapped[Post] = relationship(Post)
    order_index: Mapped[int] = mapped_column(primary_key=True)


class CountingStore(MemoryStore):
    """A store that counts its calls."""

    def __init__(self, base_url: str = "memory:/") -> None:
        super().__init__(base_url)
        self.calls: list[str] = []

    async def put_object(
        self, name: str, data: Source, *, mimetype: str = "application/octet-stream", reproducible: bool = False
    ) -> None:
        self.calls.append(f"put {name}")
        await super().put_object(name, data, mimetype=mimetype, reproducible=reproducible)

    async def get_object(self, name: str, *, start: int = 0, end: int | None = None) -> AsyncFile:
        self.calls.append(f"get {name}")
        return await super().get_object(name, start=start, end=end)

    async def delete_object(self, name: str) -> None:
        self.calls.append(f"delete {name}")
        await super().delete_object(name)

    async def names(self) -> list[str]:
        """Return the names of all files."""
        return [found.name async for found in self.list_objects()]


async def started(
    database: Database, metadata: MetaData, store: Store | None = None, **options: Any
) -> async_sessionmaker[AsyncSession]:
    """Create the tables, and return a sessionmaker with the given options, to which the store is bound."""
    await database.create(metadata)
    sessions = async_sessionmaker(database.engine(), **options)
    if store is not None:
        bind_store(sessions, store)
    return sessions


async def key_with_photo(sessions: async_sessionmaker[AsyncSession], owner: Any) -> int:
    """Commit a new owner with a photo of Chelsea, and return its key."""
    async with sessions.begin() as session:
        session.add(owner)
        await owner.photo.from_blob(photo("chelsea"))
    return int(owner.id)


def engine_of(sessions: async_sessionmaker[AsyncSession]) -> AsyncEngine:
    """Return the engine of a sessionmaker."""
    engine = sessions.kw["bind"]
    assert isinstance(engine, AsyncEngine)
    return engine


@contextmanager
def statements(sessions: async_sessionmaker[AsyncSession]) -> Iterator[list[str]]:
    """Collect the SQL statements that are executed inside the block."""
    found: list[str] = []

    def note(connection: object, cursor: object, statement: str, *rest: object) -> None:
        if statement != "BEGIN":  # sent by the documented settings for SQLite
            found.append(statement)

    engine = engine_of(sessions).sync_engine
    event.listen(engine, "before_cursor_execute", note)
    try:
        yield found
    finally:
        event.remove(engine, "before_cursor_execute", note)
