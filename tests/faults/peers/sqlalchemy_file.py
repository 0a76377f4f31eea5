"""sqlalchemy-file: a column whose file is stored with libcloud."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from libcloud.storage.drivers.local import LocalStorageDriver
from sqlalchemy import ForeignKey
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy_file import FileField
from sqlalchemy_file.storage import StorageManager

from tests.faults.peers.scenarios import Peer


class Base(DeclarativeBase):
    """Declarative base of these models."""


class User(Base):
    """An owner of one image."""

    __tablename__ = "user"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None] = mapped_column(unique=True)
    boss_id: Mapped[int | None] = mapped_column(ForeignKey("user.id", deferrable=True, initially="DEFERRED"))
    picture = mapped_column(FileField)


class Library(Peer):
    """The library, whose storage manager is global."""

    name = package = "sqlalchemy-file"
    Base, User = Base, User

    def sessions(self, engine: AsyncEngine) -> Callable[[], AsyncSession]:
        if not StorageManager.get_default.__self__._storages:  # type: ignore[attr-defined]
            driver = LocalStorageDriver(str(self.folder))
            StorageManager.add_storage("default", driver.get_container("files"))
        return async_sessionmaker(engine, expire_on_commit=False)

    async def attach(self, session: AsyncSession, user: Any, content: bytes) -> None:
        user.picture = content

    async def take(self, session: AsyncSession, user: Any) -> None:
        user.picture = None

    async def read(self, user: Any) -> bytes | None:
        return None if user.picture is None else bytes(user.picture.file.read())

    def copy(self, source: Any, target: Any) -> None:
        target.picture = source.picture
