"""Crop boxes of originals: the column values, and thumbnails with rows."""

from __future__ import annotations

import asyncio
import io
import math
from decimal import Decimal
from typing import Any

import pytest
from PIL import Image as Pillow
from PIL import ImageChops, ImageStat
from sqlalchemy import ForeignKey, select, text, update
from sqlalchemy.exc import NoResultFound
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, defer, mapped_column, selectinload
from sqlalchemy.orm.attributes import set_committed_value

from aioimageattach import CropBox, FocalPoint, Image, MultipleImageSet, Recipe, image_attachment
from aioimageattach.entity._mixins import focal_point_of
from aioimageattach.exc import DeclarationError, NotLoadedError
from aioimageattach.imaging import render
from aioimageattach.thumbnails import generate
from tests import photos
from tests.databases import Database
from tests.entity.models import CountingStore, key_with_photo, started, statements

BLOB = photos.photo("chelsea")
BOX = (0.25, 0.1, 0.5, 0.8)
PIXELS = (113, 30, 338, 270)
"""The same box in pixels of the photograph: left, top, right, bottom."""
Sessions = async_sessionmaker[AsyncSession]


class Base(DeclarativeBase):
    """Declarative base of these models."""


class Product(Base):
    """Has one photo, and any number of others."""

    __tablename__ = "product"
    id: Mapped[int] = mapped_column(primary_key=True)
    photo = image_attachment["ProductPhoto"]("ProductPhoto")
    views = image_attachment["View", MultipleImageSet["View"]]("View", uselist=True)


class ProductPhoto(Base, Image, FocalPoint, CropBox):
    """Has a crop box and a focal point."""

    __tablename__ = "product_photo"
    product_id: Mapped[int] = mapped_column(ForeignKey(Product.id), primary_key=True)


class View(Base, Image, CropBox):
    """Has a crop box only."""

    __tablename__ = "view"
    product_id: Mapped[int] = mapped_column(ForeignKey(Product.id), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)


@pytest.fixture
async def sessions(database: Database, store: CountingStore) -> Sessions:
    """Sessions on each of the databases."""
    return await started(database, Base.metadata, store, expire_on_commit=False)


def difference(one: bytes, other: bytes) -> float:
    """Return the mean difference of two images of the same size, on white, per channel from 0 to 255."""
    pictures = []
    for blob in (one, other):
        picture = Pillow.open(io.BytesIO(blob)).convert("RGBA")
        pictures.append(Pillow.alpha_composite(Pillow.new("RGBA", picture.size, "white"), picture).convert("RGB"))
    assert pictures[0].size == pictures[1].size
    return sum(ImageStat.Stat(ImageChops.difference(*pictures)).mean) / 3


async def cropped(recipe: Recipe, pixels: tuple[int, int, int, int] = PIXELS, name: str = "chelsea") -> bytes:
    """Return a rendering of a photograph that has been cropped beforehand, without the library."""
    [made] = await asyncio.to_thread(render, photos.saved(photos.opened(name).crop(pixels), "PNG"), [recipe])
    return made.blob


# --- the columns -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((0.25, 0, 0.5, 1), (0.25, 0.0, 0.5, 1.0)),
        ([0.104, 0.333, 0.5, 0.5], (0.11, 0.34, 0.49, 0.49)),
        ((Decimal("0.1"), Decimal(0), Decimal("0.5"), 1), (0.1, 0.0, 0.5, 1.0)),
        ((0.1 + 0.2, 0, 0.7, 0.57), (0.3, 0.0, 0.7, 0.57)),
        ((0.5, 0.5, 1e-9, 1e-9), (0.5, 0.5, 0.01, 0.01)),
        ((0, 0, 1, 1), None),
        (None, None),
    ],
)
async def test_a_box_is_stored_as_thumbnails_show_it(sessions: Sessions, box: Any, expected: Any) -> None:
    """The row has the rounded box at once and after it was loaded, whatever precision the database has."""
    number = await key_with_photo(sessions, Product())
    async with sessions.begin() as session:
        original = (await session.get_one(Product, number)).photo.require_original()
        original.crop_box = 0.9, 0.9, 0.1, 0.1
        original.crop_box = box
        assert original.crop_box == expected
        columns = original.crop_left, original.crop_top, original.crop_width, original.crop_height
        assert columns == (expected or (None,) * 4)
    async with sessions() as session:
        original = (await session.get_one(Product, number)).photo.require_original()
        assert original.crop_box == expected
        again = original.crop_box
        original.crop_box = again
        assert original.crop_box == expected


@pytest.mark.parametrize(
    "box",
    [
        (0.5, 0, 0.6, 1),
        (-0.1, 0, 0.5, 1),
        (0, 0, 0, 1),
        (0, 0.5, 1, 0),
        (0, 0, 2, 1),
        ("0", 0, 1, 1),
        (Decimal("nan"), 0, 1, 1),
        (0, 0, 1),
        0.5,
    ],
)
def test_boxes_outside_of_the_picture_are_refused(box: Any) -> None:
    """Invalid boxes are rejected by both setters, and the row keeps its box."""
    row = ProductPhoto(crop_left=0.25, crop_top=0, crop_width=0.5, crop_height=1)
    with pytest.raises((ValueError, DeclarationError), match="crop box: expected"):
        row.crop_box = box
    for value in (1.2, "1"):
        with pytest.raises((ValueError, DeclarationError), match="crop_left: expected a number from 0 to 1"):
            row.crop_left = value  # type: ignore[assignment]
    assert row.crop_box == (0.25, 0.0, 0.5, 1.0)
    row.crop_height = None
    assert row.crop_box is None


async def test_boxes_that_other_programs_have_written(sessions: Sessions) -> None:
    """Such a box is limited to the image, and thumbnails can be made."""
    number = await key_with_photo(sessions, Product())
    async with sessions.begin() as session:
        values = {"crop_left": 0.504, "crop_top": 0.2, "crop_width": 3, "crop_height": 0}
        await session.execute(update(ProductPhoto).values(values))
    async with sessions.begin() as session:
        product = await session.get_one(Product, number)
        assert product.photo.require_original().crop_box == (0.51, 0.2, 0.49, 0.01)
        assert (await product.photo.generate_thumbnail(ratio=1)).size == (221, 3)


async def test_points_that_other_programs_have_written(sessions: Sessions) -> None:
    """A point outside of the image is limited to it."""
    number = await key_with_photo(sessions, Product())
    async with sessions.begin() as session:
        await session.execute(update(ProductPhoto).values({"focal_x": 1.5, "focal_y": 0.25}))
    async with sessions.begin() as session:
        product = await session.get_one(Product, number)
        assert (await product.photo.generate_thumbnail(width=50, height=50)).variant == "cover.at100-25"


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_points_that_are_not_finite_count_as_none(number: float) -> None:
    """PostgreSQL can store such numbers."""
    row = ProductPhoto()
    set_committed_value(row, "focal_x", number)
    set_committed_value(row, "focal_y", 0.5)
    assert focal_point_of(row) is None


async def test_a_box_that_is_not_loaded_is_asked_for(sessions: Sessions) -> None:
    """A deferred or expired crop box does not cause a query in a synchronous call."""
    number = await key_with_photo(sessions, Product())
    async with sessions() as session:
        options = selectinload(Product.photo).options(defer(ProductPhoto.crop_width))
        product = (await session.scalars(select(Product).options(options).where(Product.id == number))).one()
        original = product.photo.require_original()
        await session.refresh(original)  # does not load a deferred column
        with pytest.raises(NotLoadedError, match=r"not loaded: crop_width;.*refresh\(image, \['crop_width'\]\)"):
            product.photo.find_thumbnail(100)
        await session.refresh(original, ["crop_width"])
        assert original.crop_box is None
        session.expire(original)
        with pytest.raises(NotLoadedError, match=r"are expired.*session\.refresh\(image\)"):
            _ = original.crop_box


async def test_a_picture_of_the_same_size_has_no_box(sessions: Sessions) -> None:
    """A box belongs to one image, also if SQLAlchemy updates its row for another, or the image is moved."""
    number = await key_with_photo(sessions, Product())
    async with sessions.begin() as session:
        (await session.get_one(Product, number)).photo.require_original().crop_box = BOX
    async with sessions.begin() as session:
        product = await session.get_one(Product, number)
        await product.photo.from_blob(photos.saved(photos.opened("coffee", (451, 300)), "JPEG"))
    async with sessions() as session:
        columns = "crop_left, crop_top, crop_width, crop_height"
        assert (await session.execute(text(f"SELECT {columns} FROM product_photo"))).all() == [(None,) * 4]


async def test_two_editors(sessions: Sessions) -> None:
    """The row has the box and the point of the last one, not a mixture; setting present values changes nothing."""
    number = await key_with_photo(sessions, Product())
    async with sessions.begin() as session:
        original = (await session.get_one(Product, number)).photo.require_original()
        original.crop_box, original.focal_point = (0.0, 0.0, 0.5, 0.5), (0.25, 0.25)
    async with sessions() as one, sessions() as other:
        first = (await one.get_one(Product, number)).photo.require_original()
        await one.commit()
        last = (await other.get_one(Product, number)).photo.require_original()
        await other.commit()
        first.crop_box, first.focal_point = (0.0, 0.0, 0.75, 0.5), (0.25, 0.75)
        await one.commit()
        last.crop_box, last.focal_point = (0.5, 0.0, 0.5, 0.5), (0.75, 0.25)
        await other.commit()
        with statements(sessions) as sent:
            last.crop_box, last.focal_point = last.crop_box, last.focal_point
            await other.commit()
        assert not [one for one in sent if one.startswith("UPDATE")]
    async with sessions() as session:
        columns = "crop_left, crop_top, crop_width, crop_height, focal_x, focal_y"
        row = (await session.execute(text(f"SELECT {columns} FROM product_photo"))).one()
        assert tuple(row) == (0.5, 0.0, 0.5, 0.5, 0.75, 0.25)


# --- thumbnails with rows --------------------------------------------------------------------------------------------


async def test_thumbnails_show_the_box_of_the_original(sessions: Sessions) -> None:
    """A thumbnail is made and found by box, and made again when the box changes, as with the crop of a recipe."""
    async with sessions.begin() as session:
        product = await session.get_one(Product, await key_with_photo(sessions, Product()))
        boxes: list[dict[str, Any]] = [{"width": 100}, {"width": 80, "height": 80}, {"ratio": 0.5}]
        recipes = [Recipe(**box, format="png") for box in (*boxes, {"width": 999, "enlarge": False})]
        whole = await product.photo.generate_thumbnails(recipes)
        product.photo.require_original().crop_box = BOX
        with pytest.raises(NoResultFound):
            product.photo.find_thumbnail(100, format="png")
        made = await product.photo.generate_thumbnails(recipes)
        assert not {*made} & {*whole}
        assert [row.size for row in made] == [(100, 107), (80, 80), (113, 120), (225, 240)]
        for row, recipe in zip(made, recipes, strict=True):
            assert difference(await row.make_blob(), await cropped(recipe)) < 1
            assert row.crop_box is None
        assert product.photo.find_thumbnail(100, format="png") is made[0]
        assert product.photo.find_thumbnail(80, 80, format="png") is made[1]
        assert product.photo.find_thumbnail(100, 107, format="png") is made[0]
        assert product.photo.find_thumbnail(100, crop=(0, 0, 1, 1), format="png") is made[0]
        assert product.photo.find_nearest_thumbnail(90, format="png") is made[0]
        assert await product.photo.get_or_generate_thumbnail(100, format="png") is made[0]
        assert await product.photo.generate_thumbnail(width=100, format="png") is made[0]
        product.photo.require_original().crop_box = None
        assert product.photo.find_thumbnail(100, format="png") is whole[0]
        assert product.photo.find_nearest_thumbnail(90, format="png") is whole[0]
        assert product.photo.find_thumbnail(100, crop=BOX, format="png") is made[0]


async def test_a_recipes_crop_is_a_part_of_the_box(sessions: Sessions) -> None:
    """The right half of the box is that of the box, not of the image; so are sizes."""
    async with sessions.begin() as session:
        product = await session.get_one(Product, await key_with_photo(sessions, Product()))
        product.photo.require_original().crop_box = BOX
        right = await product.photo.generate_thumbnail(width=60, crop=(0.5, 0, 0.5, 1), format="png")
        assert difference(await right.make_blob(), await cropped(Recipe(width=60), (226, 30, 338, 270))) < 1
        assert product.photo.find_thumbnail(60, crop=(0.5, 0, 0.5, 1), format="png") is right


@pytest.mark.parametrize(("point", "gravity"), [((0.3, 0.5), (0.1, 0.5)), ((0.9, 0.9), "southeast")])
async def test_the_focal_point_is_that_of_the_whole_picture(sessions: Sessions, point: Any, gravity: Any) -> None:
    """It applies inside of the box; outside of it, the nearest edge is kept."""
    async with sessions.begin() as session:
        product = await session.get_one(Product, await key_with_photo(sessions, Product()))
        original = product.photo.require_original()
        original.crop_box, original.focal_point = BOX, point
        made = await product.photo.generate_thumbnail(width=30, height=90, format="png")
        assert difference(await made.make_blob(), await cropped(Recipe(width=30, height=90, gravity=gravity))) < 1
        original.crop_box = None
        assert product.photo.find_thumbnail(30, 90, format="png", default=None) is None


async def test_each_picture_has_its_own_box(sessions: Sessions) -> None:
    """In an image set of several images, and in plans over all of them."""
    async with sessions.begin() as session:
        session.add(product := Product())
        for number, box in enumerate([None, BOX, (0, 0, 0.5, 1)]):
            original = await product.views.get_image_set(number=number).from_blob(BLOB)
            original.crop_box = box
    plan = generate(sessions, Product.views, [50])
    assert sum([len(made.keys) async for made in plan]) == 3
    assert [made async for made in generate(sessions, Product.views, [50])] == []
    async with sessions() as session:
        rows = await session.scalars(select(View).where(~View.original).order_by(View.number))
        assert [(row.size, row.crop_box) for row in rows] == [((50, 33), None), ((50, 53), None), ((50, 66), None)]
