"""The relationship behind an attachment, under the names that SQLAlchemy's own interfaces accept."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import ForeignKey, select
from sqlalchemy.ext.asyncio import AsyncAttrs, AsyncSession, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, configure_mappers, mapped_column, noload, raiseload, relationship

from aioimageattach.entity import Image, image_attachment
from aioimageattach.exc import NotLoadedError
from tests import photos
from tests.databases import Database
from tests.entity.models import CountingStore, User, started

Sessions = async_sessionmaker[AsyncSession]
BLOB = photos.photo("chelsea")


class Base(AsyncAttrs, DeclarativeBase):
    """Declarative base of these models."""


class Person(Base):
    """An owner of a portrait."""

    __tablename__ = "person"
    id: Mapped[int] = mapped_column(primary_key=True)
    portrait: Any = image_attachment("Portrait", back_populates="person")
    friend: Mapped[Any] = relationship("Friend", back_populates="portrait", uselist=False)


class Portrait(Base, Image):
    """The portrait, with a relationship to its person that names the attachment."""

    __tablename__ = "portrait"
    person_id: Mapped[int] = mapped_column(ForeignKey("person.id"), primary_key=True)
    person: Mapped[Person] = relationship(Person, back_populates="portrait")


class Friend(Base):
    """A class with an ordinary relationship of the same name."""

    __tablename__ = "friend"
    id: Mapped[int] = mapped_column(primary_key=True)
    portrait_id: Mapped[int] = mapped_column(ForeignKey("person.id"))
    portrait: Mapped[Person] = relationship(Person, back_populates="friend")


@pytest.fixture
async def people(sqlite_database: Database, store: CountingStore) -> Sessions:
    """Sessions with SQLAlchemy's defaults, and a person with a portrait."""
    sessions = await started(sqlite_database, Base.metadata, store)
    async with sessions.begin() as session:
        session.add(person := Person(id=1))
        await person.portrait.from_blob(BLOB)
    return sessions


async def test_back_populates(people: Sessions) -> None:
    """An image's relationship to its owner may name the attachment; both sides stay in sync."""
    configure_mappers()
    assert Portrait.person.property.back_populates == "portrait_images"
    assert Friend.portrait.property.back_populates == "friend"
    async with people.begin() as session:
        person = await session.get_one(Person, 1)
        [row] = person.portrait
        assert row.person is person
        new = await person.portrait.from_blob(BLOB)
        assert new.person is person


def test_invalid_back_populates() -> None:
    """SQLAlchemy rejects a name that is not an attachment, and a missing class."""

    class Own(DeclarativeBase):
        pass

    class Owner(Own):
        __tablename__ = "owner"
        id: Mapped[int] = mapped_column(primary_key=True)
        picture: Any = image_attachment("Picture")

    class Picture(Own, Image):
        __tablename__ = "picture"
        owner_id: Mapped[int] = mapped_column(ForeignKey("owner.id"), primary_key=True)
        owner: Mapped[Owner] = relationship(Owner, back_populates="portrait")
        other: Mapped[Any] = relationship("Missing", back_populates="picture")

    assert Picture.__mapper__
    with pytest.raises(Exception, match=r"portrait|Missing"):
        Own.registry.configure()
    Own.registry.dispose()


async def test_awaitable_attributes(people: Sessions) -> None:
    """``awaitable_attrs`` and ``run_sync`` load the rows, as for any relationship."""
    async with people() as session:
        person = await session.get_one(Person, 1)
        await session.commit()
        with pytest.raises(NotLoadedError):
            bool(person.portrait)
        assert (await person.awaitable_attrs.portrait).size == (451, 300)
        await session.commit()
        assert await session.run_sync(lambda _: person.portrait.size) == (451, 300)


@pytest.mark.parametrize("option", [raiseload, noload])
async def test_rows_that_must_not_be_loaded(people: Sessions, option: Any) -> None:
    """Rows that a query must not load are not loaded in ``run_sync`` either."""
    async with people() as session:
        query = select(Person).options(raiseload(Person.portrait))
        person = (await session.scalars(query)).one()
        with pytest.raises(NotLoadedError):
            await session.run_sync(lambda _: bool(person.portrait))


async def test_refresh(people: Sessions) -> None:
    """``refresh`` accepts the name of the relationship, which the error for unloaded rows contains."""
    async with people() as session:
        person = await session.get_one(Person, 1)
        await session.commit()
        with pytest.raises(NotLoadedError, match="portrait_images"):
            bool(person.portrait)
        await session.refresh(person, ["portrait_images"])
        assert person.portrait


async def test_refresh_by_the_key_of_the_attribute(people: Sessions) -> None:
    """``refresh`` accepts the key of the class attribute, so that no code needs to know the relationship's name."""
    async with people() as session:
        person = await session.get_one(Person, 1)
        await session.commit()
        with pytest.raises(KeyError):  # of SQLAlchemy, before it calls any hook
            await session.refresh(person, ["portrait"])
        await session.refresh(person, ["id", Person.portrait.key])
        assert person.portrait.size == (451, 300)


async def test_files_that_were_read_before(sessions: Sessions, store: CountingStore) -> None:
    """A source without bytes was probably read before, so the error suggests ``seek(0)``."""
    for attach in (User().picture.from_file, User().picture.from_raw_file):
        with pytest.raises(ValueError, match=r"got no bytes; if the file was read before, call seek\(0\) first"):
            await attach(b"", store)
