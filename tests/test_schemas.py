"""Images in JSON."""

from __future__ import annotations

import io
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from PIL import Image as Picture
from pydantic import BaseModel, ConfigDict, ValidationError
from sqlalchemy import ForeignKey
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, lazyload, mapped_column

from aioimageattach.context import bind_store
from aioimageattach.entity import Image, image_attachment
from aioimageattach.exc import ContextError, NoOriginalError, NotLoadedError
from aioimageattach.schemas import ImageOut, ImageSetOut, PictureOut
from aioimageattach.store import Store
from aioimageattach.stores import MemoryStore
from tests.databases import Database
from tests.entity import test_markup as markup
from tests.entity.models import started

Sessions = async_sessionmaker[AsyncSession]


class Base(DeclarativeBase):
    """Declarative base of these models."""


class Shop(Base):
    __tablename__ = "shop"
    id: Mapped[int] = mapped_column(primary_key=True)
    sign = image_attachment["Sign"]("Sign")
    photos = image_attachment["ShopPhoto"]("ShopPhoto", uselist=True)


class Sign(Base, Image):
    __tablename__ = "sign"
    shop_id: Mapped[int] = mapped_column(ForeignKey("shop.id"), primary_key=True)


class ShopPhoto(Base, Image):
    __tablename__ = "shop_photo"
    shop_id: Mapped[int] = mapped_column(ForeignKey("shop.id"), primary_key=True)
    order_index: Mapped[int] = mapped_column(primary_key=True)
    caption: Mapped[str] = mapped_column(default="")

    @property
    def alt(self) -> str:
        return self.caption


class PhotoOut(ImageOut):
    caption: str
    order_index: int
    is_wide: bool

    @classmethod
    def values_of(cls, image: Image, store: Any) -> dict[str, Any]:
        return {**super().values_of(image, store), "is_wide": image.width > image.height}


class ShopOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)
    id: int
    sign: ImageSetOut
    photos: list[PhotoOut]


@pytest.fixture
async def sessions(sqlite_database: Database) -> Sessions:
    """Sessions with a bound store, and two shops, one of which has images."""
    sessions = await started(
        sqlite_database, Base.metadata, MemoryStore("https://example.com/"), expire_on_commit=False
    )
    async with sessions.begin() as session:
        session.add_all([shop := Shop(id=1), Shop(id=2)])
        await shop.sign.from_blob(png(30, 20))
        await shop.sign.generate_thumbnail(width=15)
        for number, caption in enumerate(["A <cat>", "A dog"]):
            picture = shop.photos.get_image_set(order_index=number)
            await picture.from_blob(png(40, 50), extra_kwargs={"caption": caption})
    return sessions


def png(width: int, height: int) -> bytes:
    file = io.BytesIO()
    Picture.new("RGB", (width, height)).save(file, "PNG")
    return file.getvalue()


async def shop(sessions: Sessions, number: int = 1, **kwargs: Any) -> Shop:
    async with sessions() as session:
        return await session.get_one(Shop, number, **kwargs)


def application(sessions: Sessions) -> FastAPI:
    app = FastAPI()

    @app.get("/shops/{number}", response_model=ShopOut)
    async def show(number: int) -> Shop:
        return await shop(sessions, number)

    @app.get("/shops/{number}/sign", response_model=ImageOut)
    async def sign(number: int) -> Any:
        return (await shop(sessions, number)).sign

    return app


async def test_a_response_has_the_pictures(sessions: Sessions) -> None:
    """An image set is serialised as its original, a gallery as a list, and an empty set as null."""
    found = await shop(sessions)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(application(sessions)), base_url="http://a") as client:
        full, empty, sign = [(await client.get(path)).json() for path in ("/shops/1", "/shops/2", "/shops/1/sign")]
    expected = {"url": found.sign.locate(), "width": 30, "height": 20, "mimetype": "image/png", "alt": ""}
    assert (full["sign"], sign) == (expected, expected)
    assert full["photos"] == [
        {
            "url": picture.locate(),
            "width": 40,
            "height": 50,
            "mimetype": "image/png",
            "alt": caption,
            "caption": caption,
            "order_index": number,
            "is_wide": False,
        }
        for number, (picture, caption) in enumerate(zip(found.photos, ["A <cat>", "A dog"], strict=True))
    ]
    assert empty == {"id": 2, "sign": None, "photos": []}


async def test_openapi_describes_the_response(sessions: Sessions) -> None:
    """All fields are required, only an image set can be null, and a subclass has its own schema."""
    schemas = application(sessions).openapi()["components"]["schemas"]
    assert schemas["ShopOut"]["properties"]["sign"]["anyOf"] == [
        {"$ref": "#/components/schemas/ImageOut"},
        {"type": "null"},
    ]
    assert schemas["ShopOut"]["properties"]["photos"]["items"] == {"$ref": "#/components/schemas/PhotoOut"}
    assert schemas["ShopOut"]["required"] == ["id", "sign", "photos"]
    assert schemas["ImageOut"]["required"] == ["url", "width", "height", "mimetype", "alt"]
    kinds = {name: field["type"] for name, field in schemas["ImageOut"]["properties"].items()}
    assert kinds == {"url": "string", "width": "integer", "height": "integer", "mimetype": "string", "alt": "string"}
    assert schemas["ImageOut"]["properties"]["url"]["format"] == "uri-reference"


async def test_rows_and_thumbnails(sessions: Sessions) -> None:
    """A row of any size is serialised as an image."""
    found = await shop(sessions)
    thumbnail = found.sign.find_thumbnail(width=15)
    assert ImageOut.model_validate(thumbnail).model_dump() == {
        "url": thumbnail.locate(),
        "width": 15,
        "height": 10,
        "mimetype": "image/png",
        "alt": "",
    }


async def test_a_store_in_the_validation_context(sessions: Sessions) -> None:
    """The validation context can contain the store; without any store, the error of this library is raised."""
    found = await shop(sessions)
    other = MemoryStore("https://other.example/")
    out = ShopOut.model_validate(found, context={"store": other})
    assert out.sign is not None
    assert {one.url[:22] for one in [out.sign, *out.photos]} == {"https://other.example/"}
    unbound = await shop(async_sessionmaker(sessions.kw["bind"]))
    with pytest.raises(ContextError):
        ShopOut.model_validate(unbound)


async def test_an_empty_set_in_a_required_field(sessions: Sessions) -> None:
    """The error for an empty set explains how to declare an optional field."""

    class Strict(BaseModel):
        sign: PhotoOut

    empty = await shop(sessions, 2)
    with pytest.raises(NoOriginalError, match=r"PhotoOut: the image set is empty; .* ImageSetOut\[PhotoOut\]"):
        Strict.model_validate(empty, from_attributes=True)


async def test_rows_that_are_not_loaded(sessions: Sessions) -> None:
    """Pydantic does not hide the error of this library, which states the remedy."""
    found = await shop(sessions, options=[lazyload("*")])
    with pytest.raises(NotLoadedError, match="selectinload"):
        ImageOut.model_validate(found.sign)


def test_other_values_are_validated() -> None:
    """Values that are not images, such as a response that a client reads, are validated as in any model."""
    fields = {"url": "/a.png", "width": 1, "height": 2, "mimetype": "image/png", "alt": ""}
    assert ImageOut.model_validate(fields).model_dump() == fields
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        ImageOut.model_validate({**fields, "width": 0})
    with pytest.raises(ValidationError):
        ImageOut.model_validate(3)


# --- declared thumbnails ---------------------------------------------------------------------------------------------


async def test_a_picture_contains_its_thumbnails(sqlite_database: Database) -> None:
    """The result has the URLs and sizes of the thumbnails and the colour, but no URL of the original."""
    store = MemoryStore()
    sessions = await started(sqlite_database, markup.Base.metadata, expire_on_commit=False)
    bind_store(sessions, store, thumbnails=markup.Links(store))
    product = await markup.attached(sessions)

    class ProductOut(BaseModel):
        model_config = ConfigDict(from_attributes=True)
        cover: ImageSetOut[PictureOut]
        photos: list[PictureOut]

    async with sessions() as session:
        product = await session.get_one(markup.Product, product.id)
        found = ProductOut.model_validate(product).model_dump()
        cover = product.cover.require_original()
        assert found["cover"].keys() == {"width", "height", "alt", "colour", "placeholder", "thumbnails"}
        assert (found["cover"]["colour"], found["cover"]["placeholder"]) == (cover.dominant_colour, cover.thumbhash)
        assert list(found["cover"]["thumbnails"]) == list(markup.Cover.__thumbnails__)
        icon = found["cover"]["thumbnails"]["icon"]
        assert icon == {"src": cover.url("icon"), "srcset": cover.srcset("icon"), "width": 96, "height": 96}
        assert str(cover.revision) not in str(found)
        assert [(one["colour"], list(one["thumbnails"])) for one in found["photos"]] == [(None, ["card"])] * 2
        assert PictureOut.model_validate(found["cover"]).width == 451

        class PhotoOut(PictureOut):
            order_index: int
            owner: str

            @classmethod
            def values_of(cls, image: Image, store: Store | None) -> dict[str, Any]:
                return super().values_of(image, store) | {"owner": type(image).__name__}

        shown = [PhotoOut.model_validate(photo) for photo in product.photos]
        assert [(one.order_index, one.owner, one.width) for one in shown] == [(0, "Photo", 600), (1, "Photo", 600)]
        assert PictureOut.model_validate(cover, context={"store": store}).thumbnails["icon"].src == cover.url("icon")
        cover.__dict__["height"] = 3_000_000
        assert "one" not in PictureOut.model_validate(product.cover).thumbnails
    empty = markup.Product()
    assert ProductOut.model_validate(empty).cover is None
    with pytest.raises(NoOriginalError, match=r"PictureOut: the image set is empty; .* ImageSetOut\[PictureOut\]"):
        PictureOut.model_validate(empty.cover)
