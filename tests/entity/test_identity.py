"""Rows that are unhashable, equal to each other or false: rows are compared by identity only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
from sqlalchemy import ForeignKey, MetaData
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedAsDataclass, mapped_column

from aioimageattach.context import store_context
from aioimageattach.entity import Image, MultipleImageSet, image_attachment
from aioimageattach.key import ImageKey
from aioimageattach.offload import StoredText, load_stored, stored_text
from aioimageattach.testing import assert_consistent
from tests import photos
from tests.databases import Database
from tests.entity.models import CountingStore, started

COFFEE, CHELSEA = photos.photo("coffee"), photos.photo("chelsea")
Sessions = async_sessionmaker[AsyncSession]


@dataclass
class Models:
    """An owner class with images and values, and its metadata."""

    owner: Any
    metadata: MetaData
    base: Any
    others: tuple[Any, ...]  # mapped classes live as long as they are referenced


def unhashable() -> Models:
    """Dataclasses that compare by value; two images of one owner are equal."""

    class Base(MappedAsDataclass, DeclarativeBase):
        pass

    class Owner(Base):
        __tablename__ = "owner"
        id: Mapped[int] = mapped_column(primary_key=True, compare=False)
        bio: Mapped[StoredText | None] = stored_text(default=None, compare=False)
        picture: ClassVar[image_attachment[Any]] = image_attachment("Picture")
        photos: ClassVar[Any] = image_attachment("Photo", uselist=True)

    class Picture(Base, Image):
        __tablename__ = "picture"
        owner_id: Mapped[int] = mapped_column(ForeignKey("owner.id"), primary_key=True, init=False)

    class Photo(Base, Image):
        __tablename__ = "photo"
        owner_id: Mapped[int] = mapped_column(ForeignKey("owner.id"), primary_key=True, init=False)
        number: Mapped[int] = mapped_column(primary_key=True, init=False, compare=False)

    assert Owner(id=1) == Owner(id=2)
    with pytest.raises(TypeError, match="unhashable"):
        hash(Owner(id=1))
    return Models(Owner, Base.metadata, Base, (Picture, Photo))


def contrary() -> Models:
    """Classes whose instances are equal to everything, and false."""

    class Contrary:
        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = None  # type: ignore[assignment]

        def __bool__(self) -> bool:
            return False

    class Base(Contrary, DeclarativeBase):
        pass

    class Owner(Base):
        __tablename__ = "owner"
        id: Mapped[int] = mapped_column(primary_key=True)
        bio: Mapped[StoredText | None] = stored_text()
        picture = image_attachment["Picture"]("Picture")
        photos = image_attachment["Photo", MultipleImageSet["Photo"]]("Photo", uselist=True)

    class Picture(Base, Image):
        __tablename__ = "picture"
        owner_id: Mapped[int] = mapped_column(ForeignKey("owner.id"), primary_key=True)

    class Photo(Base, Image):
        __tablename__ = "photo"
        owner_id: Mapped[int] = mapped_column(ForeignKey("owner.id"), primary_key=True)
        number: Mapped[int] = mapped_column(primary_key=True)

    return Models(Owner, Base.metadata, Base, (Picture, Photo))


@pytest.fixture(params=[unhashable, contrary], ids=lambda make: make.__name__)
def models(request: pytest.FixtureRequest) -> Models:
    found: Models = request.param()
    return found


@pytest.fixture
async def sessions(sqlite_database: Database, models: Models) -> Sessions:
    return await started(sqlite_database, models.metadata, expire_on_commit=False)


def is_one_of(row: object, rows: Any) -> bool:
    """Return ``True`` if a row is among others, by identity."""
    return any(row is other for other in rows)


async def test_a_picture_is_attached_replaced_and_deleted(
    models: Models, sessions: Sessions, store: CountingStore
) -> None:
    """After each step the store contains exactly the files of the rows, including thumbnails."""
    with store_context(store):
        async with sessions() as session, session.begin():
            session.add(owner := models.owner(id=1))
            original = await owner.picture.from_blob(COFFEE)
            small = await owner.picture.generate_thumbnail(width=30)
            assert owner.picture.find_thumbnail(width=30) is small
            assert owner.picture.original is original
            assert (await owner.picture.get_or_generate_thumbnail(width=30)) is small
            assert (await owner.picture.get_or_generate_thumbnail(width=20)) is not small
        assert len(await store.names()) == 3
        await assert_consistent(sessions, models.base, store)
        async with sessions() as session, session.begin():
            owner = await session.get_one(models.owner, 1)
            before = list(owner.picture)
            new = await owner.picture.from_blob(CHELSEA)
            assert owner.picture.original is new
            assert not any(is_one_of(row, owner.picture) for row in before)
        assert len(await store.names()) == 1
        await assert_consistent(sessions, models.base, store)
        async with sessions() as session, session.begin():
            owner = await session.get_one(models.owner, 1)
            await owner.picture.generate_thumbnail(width=30)
            await session.flush()
            await owner.picture.delete()
            assert len(owner.picture) == 0
        assert await store.names() == []


@pytest.mark.parametrize("new", [True, False])
async def test_pending_rows_are_replaced(models: Models, sessions: Sessions, store: CountingStore, new: bool) -> None:
    """Replacing removes the right pending rows, for new and stored owners, with and without a session."""
    with store_context(store):
        async with sessions() as session, session.begin():
            session.add(owner := models.owner(id=1))
            if not new:
                await session.flush()
            for number in (1, 2, 3):
                photo = owner.photos.get_image_set(number=number)
                await photo.from_blob(COFFEE)
                await photo.generate_thumbnail(width=30)
            kept = owner.photos.get_image_set(number=1).images
            await owner.photos.get_image_set(number=2).from_blob(CHELSEA)
            await owner.photos.get_image_set(number=3).delete()
            assert [len(one) for one in owner.photos] == [2, 1]
            assert all(is_one_of(row, owner.photos.get_image_set(number=1)) for row in kept)
        assert len(await store.names()) == 3
        await assert_consistent(sessions, models.base, store)
        free = models.owner(id=2)
        for number in (1, 2):
            await free.photos.get_image_set(number=number).from_blob(COFFEE)
        last = free.photos.get_image_set(number=2)
        await last.from_blob(CHELSEA)
        small = await last.generate_thumbnail(width=30)
        assert (await last.get_or_generate_thumbnail(width=30)) is small
        async with sessions() as session, session.begin():
            session.add(free)
        assert len(await store.names()) == 6
        await assert_consistent(sessions, models.base, store)


async def test_a_file_is_adopted_once(models: Models, sessions: Sessions, store: CountingStore) -> None:
    """Adopting a file again returns the same row."""
    key = ImageKey("picture", None, *photos.opened("coffee").size, "image/jpeg", store.make_revision())
    await store.put(key, COFFEE, reproducible=False)
    async with sessions() as session, session.begin():
        session.add(owner := models.owner(id=1))
        row = await owner.picture.adopt(store.name_of(key), store)
        assert (await owner.picture.adopt(store.name_of(key), store)) is row
    await assert_consistent(sessions, models.base, store)
    assert await store.names() == [store.name_of(key)]


async def test_one_of_many_is_deleted(models: Models, sessions: Sessions, store: CountingStore) -> None:
    """One of several images is deleted by its set, by the session and with its owner; the others remain."""
    with store_context(store):
        async with sessions() as session, session.begin():
            for identity in (1, 2, 3):
                session.add(owner := models.owner(id=identity))
                for number in (1, 2, 3):
                    await owner.photos.get_image_set(number=number).from_blob(COFFEE)
        async with sessions() as session, session.begin():
            first, second = [await session.get_one(models.owner, identity) for identity in (1, 2)]
            await first.photos.get_image_set(number=2).delete()
            await session.delete(first.photos.get_image_set(number=3).require_original())
            await second.photos.get_image_set(number=1).from_blob(CHELSEA)
            await session.delete(await session.get_one(models.owner, 3))
            assert [one.identity for one in first.photos] == [{"number": 1}]
        assert len(await store.names()) == 4
        await assert_consistent(sessions, models.base, store)


async def test_a_savepoint_is_rolled_back(models: Models, sessions: Sessions, store: CountingStore) -> None:
    """After the rollback the replaced images exist, and those attached in the savepoint do not."""
    with store_context(store):
        async with sessions() as session, session.begin():
            session.add(owner := models.owner(id=1))
            await owner.picture.from_blob(COFFEE)
            owner.bio = StoredText("one", store=store)
            await session.flush()
            before = await store.names()
            async with session.begin_nested() as savepoint:
                await owner.picture.from_blob(CHELSEA)
                await owner.picture.generate_thumbnail(width=30)
                owner.bio = StoredText("two", store=store)
                await session.flush()
                await savepoint.rollback()
        await assert_consistent(sessions, models.base, store)
        assert await store.names() == before


async def test_a_copy_is_merged(models: Models, sessions: Sessions, store: CountingStore) -> None:
    """A merged copy, pending or committed, has the file and deletes it with the row."""
    with store_context(store):
        free = models.owner(id=1)
        await free.picture.from_blob(COFFEE)
        free.bio = StoredText("one", store=store)
        async with sessions() as session, session.begin():
            merged = await session.merge(free)
            assert merged.picture.require_original() is not free.picture.require_original()
        await assert_consistent(sessions, models.base, store)
        assert len(await store.names()) == 2
        async with sessions() as session, session.begin():
            copy = await session.merge(merged)
            await copy.picture.from_blob(CHELSEA)
            copy.bio = StoredText("two", store=store)
        await assert_consistent(sessions, models.base, store)
        assert len(await store.names()) == 2


async def test_values_of_many_rows(models: Models, sessions: Sessions, store: CountingStore) -> None:
    """The values of each row are separate: written, replaced, removed and deleted in the same flush."""
    with store_context(store):
        async with sessions() as session, session.begin():
            for identity in range(1, 7):
                session.add(owner := models.owner(id=identity))
                owner.bio = f"bio {identity}"
        async with sessions() as session, session.begin():
            owners = [await session.get_one(models.owner, identity) for identity in range(1, 7)]
            owners[0].bio = "changed"
            owners[1].bio = None
            owners[3].bio = "lost"
            await session.delete(owners[2])
            await session.delete(owners[3])
            session.add(models.owner(id=7))
    await assert_consistent(sessions, models.base, store)
    async with sessions() as session:
        owners = [await session.get_one(models.owner, identity) for identity in (1, 2, 5, 6, 7)]
        await load_stored(owners, models.owner.bio, store=store)
        values = [None if owner.bio is None else owner.bio.value for owner in owners]
    assert values == ["changed", None, "bio 5", "bio 6", None]
    assert len(await store.names()) == 3
