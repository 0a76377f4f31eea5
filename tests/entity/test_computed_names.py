"""Image classes whose file names depend on other rows, or on columns that change."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import ForeignKey, String, insert, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from aioimageattach.entity import Image, Placeholder, ThumbnailMarks, image_attachment
from aioimageattach.exc import NotLoadedError
from aioimageattach.stores import MemoryStore
from tests.databases import Database
from tests.entity.models import started

PNG = "image/png"
Sessions = async_sessionmaker[AsyncSession]


class Base(DeclarativeBase):
    """Declarative base of these models."""


class Club(Base):
    """A club whose number is part of the file name of its badge."""

    __tablename__ = "club"
    id: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[int]
    badge = image_attachment["Badge"]("Badge")


class Badge(Base, Image, Placeholder, ThumbnailMarks):
    """The badge of a club."""

    __tablename__ = "badge"
    club_id: Mapped[int] = mapped_column(ForeignKey(Club.id), primary_key=True)
    label: Mapped[str | None] = mapped_column(String(20))
    club: Mapped[Club] = relationship(viewonly=True, lazy="joined")

    @property
    def object_id(self) -> int:
        return self.club.number


class Stamp(Base, Image):
    """A member of a club without an attachment."""

    __tablename__ = "stamp"
    club_id: Mapped[int] = mapped_column(ForeignKey(Club.id), primary_key=True)
    club: Mapped[Club] = relationship(lazy="joined")

    @property
    def object_id(self) -> int:
        return self.club.number


class Ticket(Base, Image):
    """An image class with an identifier that the application may change."""

    __tablename__ = "ticket"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    number: Mapped[int]

    @property
    def object_id(self) -> int:
        return self.number


@pytest.fixture
async def store() -> MemoryStore:
    """An empty store."""
    return MemoryStore()


@pytest.fixture
async def sessions(sqlite_database: Database, store: MemoryStore) -> Sessions:
    """Sessions with the store bound to them."""
    return await started(sqlite_database, Base.metadata, store, expire_on_commit=False)


def values(revision: str | None = None, **more: Any) -> dict[str, Any]:
    return {
        "width": 3, "height": 2, "variant": "", "mimetype": PNG, "original": True, "revision": revision,
        "byte_size": 1, **more,
    }  # fmt: skip


async def test_legacy_files_whose_names_depend_on_the_owner(sessions: Sessions, store: MemoryStore) -> None:
    """A file without a revision is kept while rows exist whose file names only a session could calculate."""
    async with sessions() as session, session.begin():
        session.add_all([Club(id=1, number=10), Club(id=2, number=20)])
        await session.flush()
        await session.execute(insert(Badge.__table__), [values(club_id=1), values(club_id=2)])
        names = [store.name_of(badge.key) for badge in await session.scalars(select(Badge).order_by(Badge.club_id))]
    for name in names:
        await store.put_object(name, b"x", mimetype=PNG)
    left = []
    for number in (1, 2):
        async with sessions() as session, session.begin():
            await (await session.get_one(Club, number)).badge.delete()
        left.append({info.name async for info in store.list_objects()})
    assert left == [{*names}, {names[0]}]


async def test_a_row_without_attachment_whose_name_depends_on_its_owner(sessions: Sessions, store: MemoryStore) -> None:
    """Such a row can be deleted, and its file is deleted with it."""
    async with sessions() as session, session.begin():
        session.add(Club(id=1, number=10))
        await session.flush()
        await session.execute(insert(Stamp.__table__), [values(club_id=1)])
    async with sessions() as session, session.begin():
        stamp = (await session.scalars(select(Stamp))).one()
        name = store.name_of(stamp.key)
        await store.put_object(name, b"x", mimetype=PNG)
        await session.delete(stamp)
    async with sessions() as session:
        assert (await session.scalars(select(Stamp))).all() == []
    assert [info async for info in store.list_objects()] == []


async def test_a_changed_identifier_without_a_store(sqlite_database: Database) -> None:
    """If the store is unknown, a change of ``object_id`` is accepted: built-in stores do not use it in names."""
    sessions = await started(sqlite_database, Base.metadata)
    async with sessions() as session, session.begin():
        await session.execute(insert(Ticket.__table__), [values("a" * 26, id=1, number=7)])
    async with sessions() as session, session.begin():
        (await session.scalars(select(Ticket))).one().number = 8
    async with sessions() as session:
        assert (await session.scalars(select(Ticket.number))).one() == 8


async def test_mixin_columns_that_were_not_inserted(sessions: Sessions) -> None:
    """The columns are read without a query after the flush, even if the file was attached without examination."""
    async with sessions() as session, session.begin():
        session.add(club := Club(id=1, number=10))
        await session.flush()
        badge = await club.badge.from_raw_file(b"x", None, (3, 2), PNG, extra_kwargs={"club": club})
        await session.flush()
        assert (badge.thumbhash, badge.dominant_colour, badge.thumbnail_marks) == (None, None, None)


async def test_a_row_of_the_set_is_expired(sessions: Sessions) -> None:
    """The set reports that it is not loaded, and ``load()`` reads the row again."""
    async with sessions() as session, session.begin():
        session.add(club := Club(id=1, number=10))
        await session.flush()
        badge = await club.badge.from_raw_file(b"x", None, (3, 2), PNG)
        await session.flush()
        session.expire(badge)
        with pytest.raises(NotLoadedError):
            _ = club.badge.size
        await club.badge.load()
        assert club.badge.size == (3, 2)
        session.expire(badge)
        await club.badge.from_raw_file(b"y", None, (4, 2), PNG)
        assert club.badge.size == (4, 2)


async def test_a_row_takes_the_key_of_a_deleted_one(sessions: Sessions, store: MemoryStore) -> None:
    """SQLAlchemy turns a DELETE and an INSERT of one primary key into an UPDATE; the new row keeps its own file."""
    async with sessions() as session, session.begin():
        session.add(club := Club(id=1, number=10))
        await session.flush()
        await club.badge.from_raw_file(b"old", None, (3, 2), PNG)
    async with sessions() as session, session.begin():
        club = await session.get_one(Club, 1)
        await club.badge.load()
        old = club.badge.require_original()
        await session.delete(old)
        new = await club.badge.from_raw_file(b"new", None, (3, 2), PNG)
        assert new is not old
    async with sessions() as session:
        club = await session.get_one(Club, 1)
        await club.badge.load()
        assert await club.badge.make_blob() == b"new"
    assert len([info async for info in store.list_objects()]) == 1


async def test_a_picture_whose_name_depends_on_its_owner_is_replaced(sessions: Sessions, store: MemoryStore) -> None:
    """If the file name depends on the owner, replacing an image deletes the old file, as for any other class."""
    async with sessions() as session, session.begin():
        session.add(club := Club(id=1, number=10))
        await session.flush()
        await club.badge.from_raw_file(b"old", None, (3, 2), PNG)
    async with sessions() as session, session.begin():
        club = await session.get_one(Club, 1)
        await club.badge.from_raw_file(b"new", None, (4, 2), PNG)
    [info] = [info async for info in store.list_objects()]
    assert ".4x2." in info.name
