"""aioimageattach."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from sqlalchemy import ForeignKey
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, make_transient, mapped_column

from aioimageattach.context import bind_store
from aioimageattach.entity import Image, image_attachment
from aioimageattach.maintenance import sweep
from aioimageattach.stores.fs import FileSystemStore
from tests.faults.peers.scenarios import Peer


class Base(DeclarativeBase):
    """Declarative base of these models."""


class User(Base):
    """An owner of one image."""

    __tablename__ = "user"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None] = mapped_column(unique=True)
    boss_id: Mapped[int | None] = mapped_column(ForeignKey("user.id", deferrable=True, initially="DEFERRED"))
    picture = image_attachment["Picture"]("Picture")


class Picture(Base, Image):
    """The image."""

    __tablename__ = "picture"
    user_id: Mapped[int] = mapped_column(ForeignKey("user.id", ondelete="CASCADE"), primary_key=True)


class Library(Peer):
    """This library, with a directory bound to the sessions."""

    name = package = "aioimageattach"
    Base, User = Base, User

    def sessions(self, engine: AsyncEngine) -> Callable[[], AsyncSession]:
        self.store = FileSystemStore(self.files, "http://test/")
        sessions = async_sessionmaker(engine, expire_on_commit=False)
        bind_store(sessions, self.store)
        return sessions

    async def attach(self, session: AsyncSession, user: Any, content: bytes) -> None:
        await user.picture.from_raw_file(content, self.store, (3, 2), "image/png")

    async def take(self, session: AsyncSession, user: Any) -> None:
        await user.picture.delete()

    async def read(self, user: Any) -> bytes | None:
        return await user.picture.make_blob(self.store) if user.picture else None

    async def sweep(self, engine: AsyncEngine) -> bool:
        sessions = async_sessionmaker(engine)
        await sweep(sessions, Base, self.store, grace=timedelta(0), delete=True, force=True).execute()
        return True

    def copy(self, source: Any, target: Any) -> None:
        row = source.picture.require_original()
        make_transient(row)
        row.user_id = target.id
        target.picture.session.add(row)
