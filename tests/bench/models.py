"""An owner with an image, and databases for it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from sqlalchemy import ForeignKey
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from aioimageattach import Image, Store, image_attachment

__all__ = ["Base", "Sessions", "User", "UserPicture", "prepared", "sqlite", "stored"]

Sessions = async_sessionmaker[AsyncSession]


class Base(DeclarativeBase):
    """The declarative base."""


class UserPicture(Base, Image):
    """One size of the image of a user."""

    __tablename__ = "user_picture"
    user_id: Mapped[int] = mapped_column(ForeignKey("user.id"), primary_key=True)


class User(Base):
    """A user with an image."""

    __tablename__ = "user"
    id: Mapped[int] = mapped_column(primary_key=True)
    picture = image_attachment(UserPicture)


def sqlite(folder: Path | None = None) -> AsyncEngine:
    """Return an engine for a new database in a folder, or in memory."""
    return create_async_engine("sqlite+aiosqlite://" + (f"/{folder}/bench.sqlite" if folder else ""))


@asynccontextmanager
async def prepared(engine: AsyncEngine) -> AsyncIterator[Sessions]:
    """Create the tables, and dispose of the engine at the end."""
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    try:
        yield async_sessionmaker(engine, expire_on_commit=False)
    finally:
        await engine.dispose()


async def stored(sessions: Sessions, store: Store, blob: bytes) -> int:
    """Commit a user with an image; return the primary key."""
    async with sessions() as session:
        user = User()
        session.add(user)
        await user.picture.from_blob(blob, store)
        await session.commit()
        return user.id
