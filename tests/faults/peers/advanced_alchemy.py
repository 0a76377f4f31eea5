"""advanced-alchemy: a column whose file is stored with obstore."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

from advanced_alchemy.config import AsyncSessionConfig, SQLAlchemyAsyncConfig
from advanced_alchemy.types import FileObject, StoredObject, storages
from advanced_alchemy.types.file_object.backends.obstore import ObstoreBackend
from obstore.store import LocalStore
from sqlalchemy import ForeignKey
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from tests.faults.peers.scenarios import Peer


class Base(DeclarativeBase):
    """Declarative base of these models."""


class User(Base):
    """An owner of one image."""

    __tablename__ = "user"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None] = mapped_column(unique=True)
    boss_id: Mapped[int | None] = mapped_column(ForeignKey("user.id", deferrable=True, initially="DEFERRED"))
    picture: Mapped[FileObject | None] = mapped_column(StoredObject(backend="files"))


class Library(Peer):
    """The library, configured with its listener for files; each file gets a unique name."""

    name = package = "advanced-alchemy"
    Base, User = Base, User

    def sessions(self, engine: AsyncEngine) -> Callable[[], AsyncSession]:
        if not storages.is_registered("files"):
            storages.register_backend(ObstoreBackend(key="files", fs=LocalStore(str(self.files))))
        options = AsyncSessionConfig(expire_on_commit=False)
        return SQLAlchemyAsyncConfig(engine_instance=engine, session_config=options).create_session_maker()

    async def attach(self, session: AsyncSession, user: Any, content: bytes) -> None:
        user.picture = FileObject(backend="files", filename=f"{uuid.uuid4()}.png", content=content)

    async def take(self, session: AsyncSession, user: Any) -> None:
        user.picture = None

    async def read(self, user: Any) -> bytes | None:
        return None if user.picture is None else bytes(await user.picture.get_content_async())

    def copy(self, source: Any, target: Any) -> None:
        target.picture = source.picture
