"""Focal points and placeholders of originals, and settings of image classes."""

from __future__ import annotations

import asyncio
import base64
import io
from typing import Any, ClassVar

import pytest
from PIL import Image as Pillow
from sqlalchemy import ForeignKey, select, update
from sqlalchemy.exc import NoResultFound
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedAsDataclass, defer, mapped_column, selectinload
from sqlmodel import Field, SQLModel

from aioimageattach import CropBox, FocalPoint, Image, ImageLimits, Placeholder, Recipe, image_attachment
from aioimageattach.exc import (
    DeclarationError,
    ImageProportionsError,
    ImageTooSmallError,
    NotLoadedError,
    UnreadableImageError,
)
from aioimageattach.imaging._render import render_with_preview
from aioimageattach.thumbnails import generate
from tests import photos
from tests.databases import Database
from tests.entity.models import CountingStore, engine_of, key_with_photo, started, statements

BLOB = photos.photo("chelsea")
Sessions = async_sessionmaker[AsyncSession]


class Base(DeclarativeBase):
    pass


class Product(Base):
    __tablename__ = "product"
    id: Mapped[int] = mapped_column(primary_key=True)
    photo = image_attachment["ProductPhoto"]("ProductPhoto")
    eager = image_attachment["EagerPhoto"]("EagerPhoto")
    plain = image_attachment["PlainPhoto"]("PlainPhoto")


class ProductPhoto(Base, Image, FocalPoint, Placeholder):
    __tablename__ = "product_photo"
    product_id: Mapped[int] = mapped_column(ForeignKey(Product.id), primary_key=True)


class EagerPhoto(Base, Image, Placeholder):
    __tablename__ = "eager_photo"
    __placeholder_on_attach__ = True
    __strip_metadata__ = True
    __image_limits__ = ImageLimits(min_width=100, max_aspect=3, reduce_to=400).allow("image/tiff")
    product_id: Mapped[int] = mapped_column(ForeignKey(Product.id), primary_key=True)


class PlainPhoto(Base, Image):
    __tablename__ = "plain_photo"
    __image_limits__ = ImageLimits(reduce_to=400)
    product_id: Mapped[int] = mapped_column(ForeignKey(Product.id), primary_key=True)


@pytest.fixture
async def sessions(database: Database, store: CountingStore) -> Sessions:
    return await started(database, Base.metadata, store, expire_on_commit=False)


# --- focal points ----------------------------------------------------------------------------------------------------


async def test_crops_follow_the_focal_point_of_the_original(sessions: Sessions) -> None:
    """A crop is made and found by focal point, and made again when the point changes; other thumbnails stay."""
    async with sessions.begin() as session:
        product = await session.get_one(Product, await key_with_photo(sessions, Product()))
        recipes = [Recipe(width=100, height=100), Recipe(width=100, height=100, gravity="north"), Recipe(width=100)]
        centre, north, plain = await product.photo.generate_thumbnails(recipes)
        assert (centre.variant, north.variant, plain.variant) == ("cover", "cover.north", "")
        product.photo.require_original().focal_point = 0.8, 0.30
        with pytest.raises(NoResultFound):
            product.photo.find_thumbnail(100, 100, fit="cover")
        focused, same, still = await product.photo.generate_thumbnails(recipes)
        assert (focused.variant, focused, still) == ("cover.at80-30", same, plain)
        assert product.photo.find_thumbnail(100, 100, gravity="north") is focused
        assert await product.photo.get_or_generate_thumbnail(100, 100) is focused
        expected = photos.opened("chelsea").crop((151, 0, 451, 300)).resize((100, 100))
        seen = Pillow.open(io.BytesIO(await focused.make_blob()))
        for x, y in ((10, 10), (90, 50), (50, 90)):
            assert all(abs(a - b) < 40 for a, b in zip(expected.getpixel((x, y)), seen.getpixel((x, y)), strict=True))
    async with sessions.begin() as session:
        product = await session.get_one(Product, product.id)
        original = product.photo.require_original()
        assert original.focal_point == (pytest.approx(0.8), pytest.approx(0.3))
        assert product.photo.find_thumbnail(100, 100).focal_point is None
        original.focal_point = None
        assert (original.focal_x, original.focal_y) == (None, None)
        assert product.photo.find_thumbnail(100, 100).variant == "cover"


@pytest.mark.parametrize("point", [(0.5, 1.2), (-0.1, 0.5), ("1", 0), (0.5,), 0.5, (None, 0.5)])
def test_points_outside_of_the_picture_are_rejected(point: Any) -> None:
    """Invalid points are rejected by both setters, and the row keeps its point."""
    row = ProductPhoto(focal_x=0.25, focal_y=1)
    with pytest.raises((ValueError, DeclarationError), match="focal point: expected 2 numbers from 0 to 1"):
        row.focal_point = point
    for value in (1.2, "1"):
        with pytest.raises((ValueError, DeclarationError), match="focal_x: expected a number from 0 to 1"):
            row.focal_x = value  # type: ignore[assignment]
    assert row.focal_point == (0.25, 1.0)
    row.focal_y = None
    assert row.focal_point is None


async def test_a_deferred_point(sessions: Sessions) -> None:
    """A deferred focal point does not cause a query in a synchronous call."""
    number = await key_with_photo(sessions, Product())
    async with sessions() as session:
        options = selectinload(Product.photo).options(defer(ProductPhoto.focal_x))
        product = (await session.scalars(select(Product).options(options).where(Product.id == number))).one()
        with pytest.raises(NotLoadedError, match=r"session\.refresh"):
            product.photo.find_thumbnail(100, 100)


# --- placeholders ----------------------------------------------------------------------------------------------------


async def test_the_first_thumbnail_sets_the_placeholder(sessions: Sessions, store: CountingStore) -> None:
    """One read of the original serves both; more thumbnails do not change the columns; a new original resets them."""
    _, expected = await asyncio.to_thread(render_with_preview, BLOB, [])
    number = await key_with_photo(sessions, Product())
    async with sessions() as session:
        product = await session.get_one(Product, number)
        original = product.photo.require_original()
        assert (original.thumbhash, original.dominant_colour) == (None, None)
        store.calls.clear()
        await product.photo.get_or_generate_thumbnail(width=100)
        assert [call.partition(" ")[0] for call in store.calls] == ["get", "put"]
        await session.commit()
    async with sessions() as session:
        product = await session.get_one(Product, number)
        original = product.photo.require_original()
        assert len(base64.b64decode(original.thumbhash or "")) == len(base64.b64decode(expected.thumbhash))
        assert original.dominant_colour == expected.colour
        assert product.photo.find_thumbnail(width=100).thumbhash is None
        with statements(sessions) as seen:
            await product.photo.generate_thumbnail(width=50)
            await session.commit()
        assert not [one for one in seen if one.startswith("UPDATE")]
        await product.photo.from_blob(photos.photo("coffee"))
        await session.commit()
        assert product.photo.require_original().thumbhash is None


async def test_an_upload_and_its_thumbnails_are_one_insert(sessions: Sessions) -> None:
    """In the transaction of the upload, the columns are written with the INSERT."""
    async with sessions() as session:
        session.add(product := Product())
        original = await product.photo.from_blob(BLOB)
        await product.photo.generate_thumbnails([100, 50])
        assert original.thumbhash
        with statements(sessions) as seen:
            await session.commit()
        assert not [one for one in seen if one.startswith("UPDATE")]


async def test_workers_on_one_picture_take_turns(sessions: Sessions) -> None:
    """Each worker writes the columns with its own thumbnail, and no worker waits forever."""
    number = await key_with_photo(sessions, Product())
    ready = 0
    all_ready = asyncio.Event()

    async def work(width: int, *, together: bool) -> None:
        nonlocal ready
        async with sessions.begin() as session:
            product = await session.get_one(Product, number)
            assert product.photo.require_original().thumbhash is None or not together
            ready += 1
            if ready == 4 or not together:
                all_ready.set()
            await all_ready.wait()
            await product.photo.get_or_generate_thumbnail(width=width)

    if engine_of(sessions).dialect.name == "sqlite":  # SQLite has one writer
        for width in (50, 60, 70, 80):
            await work(width, together=False)
    else:
        await asyncio.gather(*(work(width, together=True) for width in (50, 60, 70, 80)))
    async with sessions() as session:
        product = await session.get_one(Product, number)
        assert {row.width for row in product.photo} == {50, 60, 70, 80, 451}
        assert product.photo.require_original().thumbhash


async def test_existing_pictures_get_placeholders(sessions: Sessions) -> None:
    """After the mixin is added, any call that makes thumbnails fills the columns, even if none is missing."""
    number = await key_with_photo(sessions, Product())
    async with sessions.begin() as session:
        product = await session.get_one(Product, number)
        await product.photo.generate_thumbnail(width=100)
        await session.flush()
        await session.execute(update(ProductPhoto).values(thumbhash=None, dominant_colour=None))
    await generate(sessions, Product.photo, [100]).execute()
    async with sessions() as session:
        rows = (await session.scalars(select(ProductPhoto).order_by(ProductPhoto.width))).all()
        assert [bool(row.thumbhash) for row in rows] == [False, True]


async def test_a_deferred_placeholder_is_not_changed(sessions: Sessions, store: CountingStore) -> None:
    """A deferred column is neither loaded nor overwritten."""
    number = await key_with_photo(sessions, Product())
    async with sessions.begin() as session:
        await (await session.get_one(Product, number)).photo.generate_thumbnail(width=100)
        await session.flush()
        await session.execute(update(ProductPhoto).values(thumbhash=None))
    async with sessions.begin() as session:
        options = selectinload(Product.photo).options(defer(ProductPhoto.thumbhash))
        product = (await session.scalars(select(Product).options(options).where(Product.id == number))).one()
        store.calls.clear()
        assert (await product.photo.generate_thumbnail(width=100)).size == (100, 67)
        assert store.calls == []


async def test_existing_thumbnails_of_a_detached_owner(sessions: Sessions, store: CountingStore) -> None:
    """Existing thumbnails are returned without a session, and nothing is read for a placeholder."""
    number = await key_with_photo(sessions, Product())
    async with sessions() as session:
        product = await session.get_one(Product, number)
        made = await product.photo.generate_thumbnail(width=100)
        await session.commit()
        await session.execute(update(ProductPhoto).values(thumbhash=None))
        await session.commit()
    async with sessions() as session:
        product = await session.get_one(Product, number)
        session.expunge_all()
    again = await product.photo.generate_thumbnail(width=100, store=store)
    assert again.key == made.key
    assert product.photo.require_original().thumbhash is None


# --- settings of the class -------------------------------------------------------------------------------------------


async def test_a_class_can_require_placeholders_and_stripping(sessions: Sessions) -> None:
    """Both are done when an image is attached; the argument ``strip_metadata`` overrides the setting of the class."""
    small = photos.saved(photos.opened("chelsea", (390, 260)), "JPEG", exif=photos.exif())
    async with sessions.begin() as session:
        session.add(product := Product())
        image = await product.eager.from_blob(small)
        assert (image.size, image.mimetype) == ((390, 260), "image/jpeg")
        assert len(base64.b64decode(image.thumbhash or "")) > 10
        assert photos.GPS[0] not in await image.make_blob()
        image = await product.eager.from_blob(small, strip_metadata=False)
        assert await image.make_blob() == small
        image = await product.plain.from_blob(small)
        assert await image.make_blob() == small
        image = await product.plain.from_blob(small, strip_metadata=True)
        assert photos.GPS[0] not in await image.make_blob()


@pytest.mark.parametrize(
    ("make", "size", "mimetype"),
    [
        (photos.large, (400, 300), "image/jpeg"),
        (lambda: photos.large(6), (300, 400), "image/jpeg"),
        (photos.transparent_png, (400, 266), "image/png"),
        (photos.tiff, (400, 266), "image/png"),
    ],
)
async def test_large_originals_are_reduced(make: Any, size: tuple[int, int], mimetype: str, sessions: Sessions) -> None:
    """Row and file are those of the reduced image, which has no metadata."""
    async with sessions.begin() as session:
        session.add(product := Product())
        image = await product.eager.from_blob(make())
        assert (image.size, image.mimetype, image.original, image.variant) == (size, mimetype, True, "")
        blob = await image.make_blob()
        assert image.byte_size == len(blob)
        seen = Pillow.open(io.BytesIO(blob))
        assert (seen.size, Pillow.MIME[seen.format or ""]) == (size, mimetype)
        assert not seen.getexif()
        assert image.thumbhash
    async with sessions.begin() as session:
        session.add(product := Product())
        assert (await product.plain.from_blob(photos.large())).size == (400, 300)


async def test_rejected_originals_change_nothing(sessions: Sessions) -> None:
    """An image that is too small, too wide or damaged leaves the current image unchanged."""
    async with sessions() as session:
        session.add(product := Product())
        image = await product.eager.from_blob(BLOB)
        for blob, error in (
            (photos.saved(Pillow.new("RGB", (99, 99)), "PNG"), ImageTooSmallError),
            (photos.saved(Pillow.new("RGB", (301, 100)), "PNG"), ImageProportionsError),
            (photos.webp()[:-1000], UnreadableImageError),
        ):
            with pytest.raises(error):
                await product.eager.from_blob(blob)
            assert product.eager.original is image


# --- other kinds of classes ------------------------------------------------------------------------------------------


class DataBase(MappedAsDataclass, DeclarativeBase):
    pass


class Author(DataBase):
    __tablename__ = "author"
    id: Mapped[int] = mapped_column(primary_key=True, init=False)
    picture: ClassVar[image_attachment[AuthorPicture]] = image_attachment("AuthorPicture")


class AuthorPicture(DataBase, Image, FocalPoint, CropBox, Placeholder):
    __tablename__ = "author_picture"
    author_id: Mapped[int] = mapped_column(ForeignKey("author.id"), primary_key=True, init=False)


class Villain(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    picture: ClassVar[image_attachment[VillainPicture]] = image_attachment("VillainPicture")


class VillainPicture(SQLModel, Image, FocalPoint, CropBox, Placeholder, table=True):
    villain_id: int | None = Field(default=None, foreign_key="villain.id", primary_key=True)


@pytest.mark.parametrize(("owner_class", "metadata"), [(Author, DataBase.metadata), (Villain, SQLModel.metadata)])
async def test_mixins_work_with_dataclasses_and_sqlmodel(
    owner_class: Any, metadata: Any, sqlite_database: Database, store: CountingStore
) -> None:
    """The columns are mapped, and are not arguments of a constructor."""
    sessions = await started(sqlite_database, metadata, store, expire_on_commit=False)
    async with sessions.begin() as session:
        session.add(owner := owner_class())
        original = await owner.picture.from_blob(BLOB)
        original.focal_point = 0, 0.5
        made = await owner.picture.generate_thumbnail(width=30, height=30)
        assert made.variant == "cover.west"
        original.crop_box = 0.25, 0.1, 0.5, 0.8
    async with sessions.begin() as session:
        owner = (await session.scalars(select(owner_class))).one()
        original = owner.picture.require_original()
        assert (original.focal_point, bool(original.thumbhash)) == ((0.0, 0.5), True)
        assert original.crop_box == (0.25, 0.1, 0.5, 0.8)
        assert (original.dominant_colour or "")[0] == "#"
