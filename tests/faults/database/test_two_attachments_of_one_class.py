"""Attachments that share an image class, distinguished by a column in their join condition."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import ForeignKey, String, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from aioimageattach.entity import Image, image_attachment
from tests import photos
from tests.databases import Database
from tests.entity.models import started
from tests.faults.rig import check
from tests.faults.stores import FaultyStore

Sessions = async_sessionmaker[AsyncSession]


class Base(DeclarativeBase):
    """Owners with two images of one class."""


class Person(Base):
    """An owner whose images have a kind in their key."""

    __tablename__ = "person"
    id: Mapped[int] = mapped_column(primary_key=True)
    avatar = image_attachment["Look"](
        "Look", primaryjoin="and_(Person.id == foreign(Look.person_id), Look.kind == 'avatar')"
    )
    cover = image_attachment["Look"](
        "Look", primaryjoin="and_(Person.id == foreign(Look.person_id), Look.kind == 'cover')"
    )


class Look(Base, Image):
    """An avatar or a cover."""

    __tablename__ = "look"
    person_id: Mapped[int] = mapped_column(ForeignKey(Person.id), primary_key=True)
    kind: Mapped[str] = mapped_column(String(10), primary_key=True)


AVATAR, COVER, OTHER = (
    photos.saved(photos.opened(name, size), "PNG")
    for name, size in (("coffee", (30, 20)), ("chelsea", (40, 30)), ("rocket", (32, 24)))
)


@pytest.fixture
def store() -> FaultyStore:
    """An empty store."""
    return FaultyStore()


@pytest.fixture
def owner() -> Any:
    """The owner class whose images have a kind in their key."""
    return Person


@pytest.fixture
async def sessions(database: Database, store: FaultyStore, owner: Any) -> AsyncIterator[Sessions]:
    """Sessions, and an owner with both images."""
    sessions = await started(database, Base.metadata, store, expire_on_commit=False)
    async with sessions() as session, session.begin():
        session.add(one := owner(id=1))
        await one.avatar.from_blob(AVATAR)
        await one.cover.from_blob(COVER)
    return sessions


async def kinds(sessions: Sessions, owner: Any) -> list[tuple[str, int]]:
    """Return the kind and the width of each image."""
    async with sessions() as session:
        return sorted((row.kind, row.width) for row in await session.scalars(select(Look)))


async def test_attached(database: Database, store: FaultyStore, sessions: Sessions, owner: Any) -> None:
    """Each image is stored with its kind, and found by its owner."""
    assert await kinds(sessions, owner) == [("avatar", 30), ("cover", 40)]
    async with sessions() as session:
        one = await session.get_one(owner, 1)
        assert (one.avatar.width, one.cover.width) == (30, 40)
        assert len(one.avatar) == len(one.cover) == 1
    assert await check(database, store, Base) == {AVATAR, COVER}


async def test_thumbnails(database: Database, store: FaultyStore, sessions: Sessions, owner: Any) -> None:
    """A thumbnail has the kind of its original, however it is made."""
    async with sessions() as session, session.begin():
        one = await session.get_one(owner, 1)
        await one.cover.generate_thumbnail(width=10)
        await one.avatar.get_or_generate_thumbnail(width=12)
        await session.flush()
        await one.cover.get_or_generate_thumbnail(width=14)
        await one.cover.from_raw_file(b"by hand", None, (5, 4), "image/png", original=False)
    assert await kinds(sessions, owner) == [
        ("avatar", 12),
        ("avatar", 30),
        ("cover", 5),
        ("cover", 10),
        ("cover", 14),
        ("cover", 40),
    ]
    await check(database, store, Base)


@pytest.mark.parametrize("loaded", [True, False])
async def test_one_is_replaced(
    database: Database, store: FaultyStore, sessions: Sessions, owner: Any, loaded: bool
) -> None:
    """Replacing one image does not change the other."""
    async with sessions() as session, session.begin():
        one = await session.get_one(owner, 1)
        if not loaded:
            session.expire(one)
            await session.refresh(one, ["id"])
        await one.avatar.from_blob(OTHER)
    assert await kinds(sessions, owner) == [("avatar", 32), ("cover", 40)]
    assert await check(database, store, Base) == {OTHER, COVER}


async def test_both_are_replaced(database: Database, store: FaultyStore, sessions: Sessions, owner: Any) -> None:
    """Both images can be replaced in one flush."""
    async with sessions() as session, session.begin():
        one = await session.get_one(owner, 1)
        await one.cover.from_blob(AVATAR)
        await one.avatar.from_blob(COVER)
    assert len(await kinds(sessions, owner)) == 2
    assert await check(database, store, Base) == {AVATAR, COVER}


async def test_one_is_deleted(database: Database, store: FaultyStore, sessions: Sessions, owner: Any) -> None:
    """The image is deleted with its thumbnails, and only its files are deleted."""
    async with sessions() as session, session.begin():
        await (await session.get_one(owner, 1)).cover.generate_thumbnail(width=10)
    async with sessions() as session, session.begin():
        await (await session.get_one(owner, 1)).cover.delete()
    assert await kinds(sessions, owner) == [("avatar", 30)]
    assert await check(database, store, Base) == {AVATAR}


async def test_the_owner_is_deleted(database: Database, store: FaultyStore, sessions: Sessions, owner: Any) -> None:
    """The owner is deleted with both images."""
    async with sessions() as session, session.begin():
        await session.delete(await session.get_one(owner, 1))
    assert await check(database, store, Base) == set()


async def test_the_kind_of_a_row_is_changed(
    database: Database, store: FaultyStore, sessions: Sessions, owner: Any
) -> None:
    """A cover that becomes the avatar leaves its set and joins the other."""
    async with sessions() as session, session.begin():
        one = await session.get_one(owner, 1)
        await one.avatar.delete()
        await session.flush()
        one.cover.require_original().kind = "avatar"
    assert await kinds(sessions, owner) == [("avatar", 40)]
    assert await check(database, store, Base) == {COVER}
