"""Columns of the application: thumbnails copy them from their original, and a replaced image keeps them."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

import pytest
from sqlalchemy import JSON, Computed, ForeignKey, Index, String, func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.ext.mutable import MutableDict
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    MappedAsDataclass,
    column_property,
    deferred,
    mapped_column,
    orm_insert_sentinel,
    relationship,
)

from aioimageattach.entity import FocalPoint, Image, Placeholder, image_attachment
from aioimageattach.exc import NoOriginalError
from aioimageattach.offload import StoredText, stored_text
from tests import photos
from tests.databases import Database
from tests.entity.models import CountingStore, started

Sessions = async_sessionmaker[AsyncSession]
BLOB, OTHER = photos.photo("chelsea"), photos.photo("coffee")


class Base(DeclarativeBase):
    """Declarative base of these models."""


class Person(Base):
    """An owner of a portrait, who may also be the photographer of others."""

    __tablename__ = "person"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(default="Mia")
    portrait: Any = image_attachment("Portrait", foreign_keys="Portrait.person_id")


class Portrait(Base, Image, FocalPoint, Placeholder):
    """An image with columns of all kinds."""

    __tablename__ = "portrait"
    __table_args__ = (Index("slug_of_portrait", "slug", unique=True),)
    person_id: Mapped[int] = mapped_column(ForeignKey("person.id"), primary_key=True)
    person: Mapped[Person] = relationship(Person, foreign_keys=[person_id])
    caption: Mapped[str] = mapped_column()
    tags: Mapped[dict[str, Any] | None] = mapped_column(MutableDict.as_mutable(JSON))
    taken_at: Mapped[datetime | None] = mapped_column(server_default=func.current_timestamp())
    notes: Mapped[str | None] = deferred(mapped_column(String(50)))
    photographer_id: Mapped[int | None] = mapped_column(ForeignKey("person.id"))
    photographer: Mapped[Person | None] = relationship(Person, foreign_keys=[photographer_id])
    slug: Mapped[str | None]
    token: Mapped[uuid.UUID] = mapped_column(unique=True, default=uuid.uuid4)
    version: Mapped[int] = mapped_column()
    area: Mapped[int] = mapped_column(Computed("width * height"))
    exif: Mapped[StoredText | None] = stored_text()
    sentinel: Mapped[int] = orm_insert_sentinel()
    shout: Mapped[str] = column_property(func.upper(caption))
    __mapper_args__ = {"version_id_col": version}

    @property
    def alt(self) -> str:
        return f"{self.caption}, by {self.photographer.name if self.photographer else ''}, of {self.person.name}"


@pytest.fixture
async def people(sqlite_database: Database, store: CountingStore) -> Sessions:
    """Sessions, and a person without a portrait."""
    sessions = await started(sqlite_database, Base.metadata, store, expire_on_commit=False)
    async with sessions.begin() as session:
        session.add(Person(id=1))
    return sessions


async def person_of(session: AsyncSession) -> Any:
    """Return the person as stored in the database."""
    return await session.get_one(Person, 1)


FULL: dict[str, Any] = {"caption": "In the garden", "tags": {"a": 1}, "notes": "n", "slug": "s", "exif": "e"}


async def test_thumbnails_have_the_columns_of_their_original(people: Sessions) -> None:
    """Every way to make a thumbnail copies all columns, including deferred and expired ones, unless they are unique."""
    async with people.begin() as session:
        person = await person_of(session)
        original = await person.portrait.from_blob(BLOB, extra_kwargs={**FULL, "photographer_id": 1})
        original.focal_point = 0.5, 0.5
        pending = await person.portrait.generate_thumbnail(width=10)
        assert (pending.caption, pending.tags, pending.notes) == ("In the garden", {"a": 1}, "n")
        pending.tags["b"] = 2
        assert original.tags == {"a": 1}
    async with people.begin() as session:
        person = await person_of(session)
        await person.portrait.generate_thumbnails([20, 30])
        await person.portrait.get_or_generate_thumbnail(width=40)
        await person.portrait.get_or_generate_thumbnails([40, 50, 60])
        await person.portrait.from_raw_file(BLOB, size=(70, 70), mimetype="image/jpeg", original=False)
    async with people() as session:
        names = ("caption", "taken_at", "notes", "photographer_id")
        columns = [getattr(Portrait, name) for name in names]
        assert len({tuple(row) for row in await session.execute(select(*columns))}) == 1
        query = select(Portrait).where(~Portrait.original).order_by(Portrait.width)
        thumbnails = (await session.scalars(query)).all()
        assert [row.width for row in thumbnails] == [10, 20, 30, 40, 50, 60, 70]
        assert [row.tags for row in thumbnails] == [{"a": 1, "b": 2}, *[{"a": 1}] * 6]
        assert {(row.slug, row.focal_x, row.thumbhash, row.version) for row in thumbnails} == {(None, None, None, 1)}
        assert {row.exif for row in thumbnails} == {None}
        assert len({row.token for row in thumbnails}) == 7


async def test_extra_kwargs_of_thumbnails(people: Sessions) -> None:
    """``extra_kwargs`` is accepted by every method that makes a thumbnail, and takes precedence."""
    async with people.begin() as session:
        person = await person_of(session)
        await person.portrait.from_blob(BLOB, extra_kwargs={**FULL, "photographer_id": 1})
        await session.flush()
        extra = {"caption": "small", "photographer": None}
        made = [
            await person.portrait.generate_thumbnail(width=10, extra_kwargs=extra),
            *await person.portrait.generate_thumbnails([20], extra_kwargs=extra),
            await person.portrait.get_or_generate_thumbnail(width=30, extra_kwargs=extra),
            *await person.portrait.get_or_generate_thumbnails([40], extra_kwargs=extra),
        ]
        await session.flush()
        assert {(row.caption, row.notes, row.photographer_id) for row in made} == {("small", "n", None)}


async def test_alt_of_a_pending_thumbnail(people: Sessions) -> None:
    """``alt`` may use columns, the owner and other objects of a thumbnail that is not flushed yet."""
    async with people.begin() as session:
        person = await person_of(session)
        taken_by = Person(id=2, name="Kim")
        extra = {"caption": "Cat", "photographer": taken_by}
        original = await person.portrait.from_blob(BLOB, extra_kwargs=extra)
        thumbnail = await person.portrait.generate_thumbnail(width=10)
        assert [original.alt, thumbnail.alt] == ["Cat, by Kim, of Mia"] * 2
        assert 'alt="Cat, by Kim, of Mia"' in thumbnail.__html__()
        await session.flush()
        inserted = await person.portrait.get_or_generate_thumbnail(width=20)
        assert inserted.person is person
        assert thumbnail.photographer_id == 2


async def test_alt_without_a_session(store: CountingStore) -> None:
    """``alt`` may use them also if the owner has not been added to a session."""
    person = Person(name="Zoe")
    await person.portrait.from_blob(BLOB, store, extra_kwargs={"caption": "Cat"})
    assert (await person.portrait.generate_thumbnail(width=10, store=store)).alt == "Cat, by , of Zoe"


@pytest.mark.parametrize("flushed", [False, True])
async def test_a_replaced_picture_keeps_its_columns(people: Sessions, flushed: bool) -> None:
    """A replacement keeps position and unique values, but not columns that describe the content."""
    async with people.begin() as session:
        person = await person_of(session)
        original = await person.portrait.from_blob(BLOB, extra_kwargs=FULL)
        original.focal_point = 0.5, 0.5
        if flushed:
            await session.flush()
            session.expire(original, ["caption"])
        new = await person.portrait.from_blob(OTHER, extra_kwargs={"notes": "new"})
    async with people() as session:
        [row] = (await person_of(session)).portrait
        await session.refresh(row, ["notes"])
        assert (row.caption, row.tags, row.notes, row.slug) == ("In the garden", {"a": 1}, "new", "s")
        assert (row.size, row.focal_point, row.exif) == ((600, 400), None, None)
        assert row.token == new.token != original.token
    assert original is not new


async def test_an_adopted_picture_keeps_its_columns(people: Sessions, store: CountingStore) -> None:
    """Adopting a file replaces an image in the same way as attaching one."""
    async with people.begin() as session:
        person = await person_of(session)
        await person.portrait.from_blob(BLOB, extra_kwargs={"caption": "c"})
    name = "portrait/01j5x/00/01j5x00000000000000000000a.600x400.jpg"
    await store.put_object(name, OTHER)
    async with people.begin() as session:
        assert (await (await person_of(session)).portrait.adopt(name)).caption == "c"


async def test_a_deleted_original(people: Sessions) -> None:
    """If another transaction has deleted the original, its deferred columns cannot be copied: the error says so."""
    async with people.begin() as session:
        await (await person_of(session)).portrait.from_blob(BLOB, extra_kwargs=FULL)
    async with people() as session:
        person = await person_of(session)
        blob = await person.portrait.make_blob()
        assert blob == BLOB
        await session.execute(update(Portrait.__table__).values(height=1))  # type: ignore[arg-type]
        with pytest.raises(NoOriginalError, match="another transaction has deleted or replaced the Portrait"):
            await person.portrait.from_blob(OTHER)


async def test_constructors_of_the_application(sqlite_database: Database, store: CountingStore) -> None:
    """Values computed by a constructor are kept, and defaults of a dataclass do not prevent copying."""

    class Data(MappedAsDataclass, DeclarativeBase):
        pass

    class Owner(Data):
        __tablename__ = "owner"
        id: Mapped[int] = mapped_column(primary_key=True)
        picture = image_attachment("Picture")

    class Picture(Data, Image):
        __tablename__ = "picture"
        owner_id: Mapped[int] = mapped_column(ForeignKey("owner.id"), primary_key=True, init=False)
        caption: Mapped[str | None] = mapped_column(default=None)
        credit: Mapped[str | None] = mapped_column(default=None)

    class Plain(DeclarativeBase):
        pass

    class Author(Plain):
        __tablename__ = "author"
        id: Mapped[int] = mapped_column(primary_key=True)
        picture: Any = image_attachment("AuthorPicture")

    class AuthorPicture(Plain, Image):
        __tablename__ = "author_picture"
        author_id: Mapped[int] = mapped_column(ForeignKey("author.id"), primary_key=True)
        caption: Mapped[str | None]
        credit: Mapped[str | None]

        def __init__(self, words: str) -> None:
            self.caption = words.title()

    assert Picture.__mapper__ is not AuthorPicture.__mapper__
    owner = Owner(id=1)
    await owner.picture.from_blob(BLOB, store, extra_kwargs={"caption": "c", "credit": "d"})
    thumbnail: Any = await owner.picture.generate_thumbnail(width=10, store=store, extra_kwargs={"caption": "e"})
    assert (thumbnail.caption, thumbnail.credit) == ("e", "d")
    author = Author(id=1)
    (await author.picture.from_blob(BLOB, store, ["one"])).credit = "f"
    thumbnail = await author.picture.generate_thumbnail(width=10, store=store, extra_kwargs={"words": "two"})
    assert (thumbnail.caption, thumbnail.credit) == ("Two", "f")


async def test_a_not_null_unique_column(sqlite_database: Database, store: CountingStore) -> None:
    """A unique column that is NOT NULL is copied, so that the error of the database names it."""

    class Own(DeclarativeBase):
        pass

    class Owner(Own):
        __tablename__ = "owner"
        id: Mapped[int] = mapped_column(primary_key=True)
        picture: Any = image_attachment("Picture")

    class Picture(Own, Image):
        __tablename__ = "picture"
        owner_id: Mapped[int] = mapped_column(ForeignKey("owner.id"), primary_key=True)
        code: Mapped[str] = mapped_column(unique=True)

    assert Picture.__mapper__
    sessions = await started(sqlite_database, Own.metadata, store)
    async with sessions() as session:
        session.add(owner := Owner(id=1))
        await owner.picture.from_blob(BLOB, extra_kwargs={"code": "x"})
        await owner.picture.generate_thumbnail(width=10)
        with pytest.raises(IntegrityError, match=r"picture\.code"):
            await session.flush()
