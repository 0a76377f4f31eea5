"""Models of the migration tests: users' images, posts' photos, and single-table inheritance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any, ClassVar

from sqlalchemy import ForeignKey, String
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from aioimageattach.entity import Image, MultipleImageSet, image_attachment
from aioimageattach.maintenance import Progress
from aioimageattach.store import KeyedStore, Store
from tests.databases import Database

Sessions = async_sessionmaker[AsyncSession]


class Base(DeclarativeBase):
    """The declarative base."""


class User(Base):
    """A user with one image."""

    __tablename__ = "user"
    id: Mapped[int] = mapped_column(primary_key=True)
    picture = image_attachment["UserPicture"]("UserPicture")


class UserPicture(Base, Image):
    """The image of a user."""

    __tablename__ = "user_picture"
    user_id: Mapped[int] = mapped_column(ForeignKey("user.id"), primary_key=True)


class Post(Base):
    """A post with photos and panoramas."""

    __tablename__ = "post"
    id: Mapped[int] = mapped_column(primary_key=True)
    photos = image_attachment["Photo", MultipleImageSet["Photo"]]("Photo", uselist=True)
    panoramas = image_attachment["Panorama", MultipleImageSet["Panorama"]]("Panorama", uselist=True, overlaps="photos")


class Photo(Base, Image):
    """A photo of a post."""

    __tablename__ = "photo"
    post_id: Mapped[int] = mapped_column(ForeignKey(Post.id), primary_key=True)
    order_index: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(20), default="photo")
    __mapper_args__: ClassVar[dict[str, Any]] = {"polymorphic_on": "kind", "polymorphic_identity": "photo"}


class Panorama(Photo):
    """A photo in the same table."""

    __mapper_args__: ClassVar[dict[str, Any]] = {"polymorphic_identity": "panorama"}


async def tables(database: Database) -> Sessions:
    """Create the tables and return a session maker."""
    await database.create(Base.metadata)
    return async_sessionmaker(database.engine(), expire_on_commit=False)


async def add_users(sessions: Sessions, store: Store, blobs: Sequence[bytes], first: int = 1) -> None:
    """Commit a user for each image; the bytes need not be an image."""
    async with sessions() as session, session.begin():
        for number, blob in enumerate(blobs, first):
            user = User(id=number)
            session.add(user)
            await user.picture.from_raw_file(blob, store, (30, 20), "image/png")


async def contents(store: KeyedStore) -> dict[str, bytes]:
    """Return the bytes of all files in a store, except quarantined ones and records of ownership."""
    found = {}
    async for info in store.list_objects():
        if info.name.startswith("."):  # in quarantine, or a record of ownership
            continue
        async with await store.get_object(info.name) as file:
            found[info.name] = await file.read()
    return found


def counted(progress: Progress) -> dict[str, Any]:
    """Return the values of a progress that are not 0."""
    values = {field.name: getattr(progress, field.name) for field in fields(progress)}
    return {name: value for name, value in (values.pop("counts") | values).items() if value}
