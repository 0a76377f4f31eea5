"""Finding thumbnails: defaults, the nearest thumbnail, and thumbnails made elsewhere or by the predecessor."""

from __future__ import annotations

import io
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import ForeignKey, insert
from sqlalchemy.exc import NoResultFound
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from aioimageattach import ImageLimits, Recipe, bind_store
from aioimageattach.entity import Image, image_attachment
from aioimageattach.exc import NoOriginalError, NotLoadedError, UnsupportedImageError
from tests import photos
from tests.databases import Database
from tests.entity.models import Base as Models
from tests.entity.models import CountingStore, User, engine_of, started

Sessions = async_sessionmaker[AsyncSession]
BLOB = photos.photo("chelsea")
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="450" height="300"><circle cx="9" cy="9" r="9"/></svg>'


class Base(DeclarativeBase):
    """Declarative base of these models."""


class Company(Base):
    """An owner of a logo, which may be a vector image."""

    __tablename__ = "company"
    id: Mapped[int] = mapped_column(primary_key=True)
    logo = image_attachment["Logo"]("Logo")


class Logo(Base, Image):
    """The logo."""

    __tablename__ = "logo"
    __image_limits__ = ImageLimits().allow("image/svg+xml")
    company_id: Mapped[int] = mapped_column(ForeignKey("company.id"), primary_key=True)


async def test_default(store: CountingStore) -> None:
    """If no thumbnail matches, the default is returned, even if it is ``None``."""
    user = User()
    assert user.picture.find_thumbnail(width=50, default=None) is None
    original = await user.picture.from_blob(BLOB, store)
    assert user.picture.find_thumbnail(width=50, default=original) is original
    thumbnail = await user.picture.generate_thumbnail(width=50, store=store)
    assert user.picture.find_thumbnail(width=50, default=None) is thumbnail


async def test_default_of_rows_that_are_not_loaded(expiring: Sessions) -> None:
    """A default does not hide that the rows are not loaded."""
    async with expiring() as session:
        session.add(user := User())
        await session.commit()
        with pytest.raises(NotLoadedError):
            user.picture.find_thumbnail(width=50, default=None)


async def test_nearest(store: CountingStore) -> None:
    """The smallest thumbnail of the whole image that is large enough is found; other looks only by name."""
    user = User()
    original = await user.picture.from_blob(BLOB, store)
    await user.picture.generate_thumbnails(
        [
            50,
            100,
            451,
            Recipe(width=60, format="webp"),
            Recipe(width=70, height=70),
        ],
        store,
    )
    find = user.picture.find_nearest_thumbnail
    assert [find(width=width).width for width in (1, 50, 51, 101)] == [50, 50, 100, 451]
    assert find(height=60).size == (100, 67)
    assert find().width == 50
    assert find(width=10, format="webp").width == 60
    assert find(width=10, variant="cover").size == (70, 70)
    assert find(width=500, default=original) is original
    with pytest.raises(
        NoResultFound, match=r"has no thumbnail with width>=500, height>=7; create it with generate_thumbnail\(\)"
    ):
        find(width=500, height=7)
    with pytest.raises(NoResultFound, match="has no thumbnail with this look"):
        find(variant="unknown")
    assert User().picture.find_nearest_thumbnail(width=1, default=None) is None


@pytest.mark.parametrize(
    ("mimetype", "variant", "look"),
    [
        ("image/png", "png", {}),
        ("image/webp", "webp", {"format": "webp"}),
        ("image/svg+xml", "png", {}),
        ("image/x-unknown", "", None),
    ],
)
async def test_made_elsewhere(mimetype: str, variant: str, look: dict[str, Any] | None, store: CountingStore) -> None:
    """A thumbnail made by other software has the variant of its type, and is found like any other."""
    company = Company()
    await company.logo.from_blob(SVG, store)
    row = await company.logo.from_raw_file(io.BytesIO(b"made elsewhere"), store, (150, 100), mimetype, original=False)
    assert row.variant == variant
    if look is not None:
        for size in ({"width": 150}, {"height": 100}, {"width": 150, "height": 100}):
            assert company.logo.find_thumbnail(**size, **look) is row
        assert await company.logo.generate_thumbnail(width=150, store=store, **look) is row
        assert company.logo.find_nearest_thumbnail(width=20, **look) is row
    full = await company.logo.from_raw_file(b"full", store, (450, 300), "image/png", original=False)
    assert company.logo.find_thumbnail(width=450) is full


async def test_made_elsewhere_without_an_original(store: CountingStore) -> None:
    """Without an original, the look of a thumbnail is unknown."""
    row = await User().picture.from_raw_file(b"x", store, (150, 100), "image/png", original=False)
    assert row.variant == ""


@pytest.mark.parametrize(
    ("mimetype", "thumbnail", "allowed"),
    [
        ("image/svg+xml", "image/png", True),
        ("application/pdf", "image/png", False),
        ("image/tiff", "image/tiff", False),
        ("image/bmp", "image/bmp", False),
        ("image/jpeg", "image/jpeg", True),
        ("image/gif", "image/gif", True),
    ],
)
async def test_old_thumbnails(
    mimetype: str, thumbnail: str, allowed: bool, sqlite_database: Database, store: CountingStore
) -> None:
    """Thumbnails of SQLAlchemy-ImageAttach, without a variant, are found regardless of the allowed types."""
    sessions = await started(sqlite_database, Base.metadata, store)
    now = datetime(2015, 6, 1, tzinfo=UTC)
    async with sessions.begin() as session:
        session.add(Company(id=1))
        await session.flush()
        for size, kind, original in (((450, 300), mimetype, True), ((150, 100), thumbnail, False)):
            values = {"width": size[0], "height": size[1], "mimetype": kind, "original": original, "created_at": now}
            await session.execute(insert(Logo.__table__).values(company_id=1, variant="", **values))  # type: ignore[arg-type]
    async with sessions() as session:
        logo = (await session.get_one(Company, 1)).logo
        old = logo.find_thumbnail(width=150)
        assert old.revision is None
        assert logo.find_thumbnail(height=100) is logo.find_thumbnail(width=150, height=100) is old
        assert logo.find_nearest_thumbnail(width=100) is old
        assert await logo.generate_thumbnail(width=150) is old
        assert await logo.get_or_generate_thumbnail(width=150) is old
        assert await logo.get_or_generate_thumbnails([150, 150]) == [old, old]
        with pytest.raises(NoResultFound):
            logo.find_thumbnail(width=150, format="avif")
        if not allowed:
            old_name = store.names
            assert await old_name() == []
            with pytest.raises((UnsupportedImageError, FileNotFoundError)):
                await logo.generate_thumbnail(width=200)


async def test_several_at_once(sessions: Sessions, store: CountingStore) -> None:
    """All thumbnails are in the database when the call returns, once each, in the order of the recipes."""
    bind_store(sessions, store)
    async with sessions.begin() as session:
        session.add(user := User())
        await user.picture.from_blob(BLOB)
        rows = await user.picture.get_or_generate_thumbnails([50, Recipe(width=20), 50, 600], enlarge=False)
        assert [row.width for row in rows] == [50, 20, 50, 451]
        assert all(not row._sa_instance_state.pending for row in rows)
        assert await user.picture.get_or_generate_thumbnails([20, 50]) == [rows[1], rows[0]]
        assert await user.picture.get_or_generate_thumbnails([]) == []
    async with sessions() as session:
        assert len((await session.get_one(User, user.id)).picture) == 4


class MeanwhileStore(CountingStore):
    """A source that runs a callback when it is first read."""

    meanwhile: Callable[[], Awaitable[None]] | None = None

    async def get_object(self, *args: Any, **options: Any) -> Any:
        if (happen := self.meanwhile) is not None:
            self.meanwhile = None
            await happen()
        return await super().get_object(*args, **options)


async def test_several_while_others_are_inserted(database: Database) -> None:
    """Thumbnails that another transaction inserts meanwhile are found, and the others are inserted."""
    sessions = await started(database, Models.metadata, expire_on_commit=False)
    if engine_of(sessions).dialect.name == "sqlite":
        pytest.skip("on SQLite whole transactions take turns")
    store = MeanwhileStore()
    bind_store(sessions, store)
    async with sessions.begin() as session:
        session.add(user := User())
        await user.picture.from_blob(BLOB)

    async def meanwhile() -> None:
        async with sessions.begin() as other:
            await (await other.get_one(User, user.id)).picture.generate_thumbnail(width=20)

    async with sessions.begin() as session:
        user = await session.get_one(User, user.id)
        store.meanwhile = meanwhile
        rows = await user.picture.get_or_generate_thumbnails([10, 20, 30])
        assert [row.width for row in rows] == [10, 20, 30]
    async with sessions() as session:
        assert len((await session.get_one(User, user.id)).picture) == 4
    assert len(await store.names()) == 4


async def test_several_without_a_session(store: CountingStore) -> None:
    """For an owner without a session, the thumbnails are made and pending."""
    user = User()
    await user.picture.from_blob(BLOB, store)
    assert [row.width for row in await user.picture.get_or_generate_thumbnails([50, 20], store)] == [50, 20]


async def test_copy_to_another_owner(sessions: Sessions, store: CountingStore) -> None:
    """An image is a valid source: it is copied to another owner, as a separate file."""
    bind_store(sessions, store)
    async with sessions.begin() as session:
        session.add_all([one := User(), other := User(), third := User()])
        original = await one.picture.from_blob(BLOB)
        await other.picture.from_file(original)
        await session.flush()
        copy = await third.picture.from_raw_file(original)
        assert (copy.sha256, copy.size) == (original.sha256, original.size)
        assert copy.revision != original.revision
    assert len(await store.names()) == 3
    async with sessions.begin() as session:
        await session.delete(await session.get_one(User, one.id))
    async with sessions() as session:
        assert await (await session.get_one(User, other.id)).picture.make_blob() == BLOB


async def test_copy_of_nothing(sessions: Sessions, store: CountingStore) -> None:
    """An empty set has no image to copy."""
    with pytest.raises(NoOriginalError):
        await User().picture.from_file(User().picture.require_original(), store)
