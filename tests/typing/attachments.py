"""Types of attachments, image sets and rows. Checked, never run."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar, assert_type

import aiohttp
import httpx
from sqlalchemy import ForeignKey, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import (
    DeclarativeBase,
    InstrumentedAttribute,
    Mapped,
    MappedAsDataclass,
    joinedload,
    mapped_column,
    selectinload,
)
from sqlmodel import Field, SQLModel
from starlette.datastructures import UploadFile

from aioimageattach import (
    Image,
    ImageKey,
    ImageSubset,
    KeyedStore,
    MultipleImageSet,
    Recipe,
    SingleImageSet,
    Store,
    bind_store,
    current_store,
    image_attachment,
    store_context,
)
from aioimageattach.entity import BaseImageSet
from aioimageattach.file import AsyncFile
from aioimageattach.stores import MemoryStore


class Base(DeclarativeBase):
    pass


class UserPicture(Base, Image):
    __tablename__ = "user_picture"
    user_id: Mapped[int] = mapped_column(ForeignKey("user.id"), primary_key=True)


class User(Base):
    __tablename__ = "user"
    id: Mapped[int] = mapped_column(primary_key=True)
    by_class = image_attachment(UserPicture)
    by_callable = image_attachment(lambda: UserPicture)
    by_name = image_attachment["UserPicture"]("UserPicture")
    by_annotation: ClassVar[image_attachment[UserPicture]] = image_attachment("UserPicture")
    untyped = image_attachment("UserPicture")
    ordered = image_attachment(UserPicture, lazy="raise", order_by="UserPicture.width")


class Post(Base):
    __tablename__ = "post"
    id: Mapped[int] = mapped_column(primary_key=True)
    by_class = image_attachment(lambda: PostPhoto, uselist=True)
    by_name = image_attachment["PostPhoto", MultipleImageSet["PostPhoto"]]("PostPhoto", uselist=True)
    by_short_name = image_attachment["PostPhoto"]("PostPhoto", uselist=True, max_pictures=3)
    by_annotation: ClassVar[image_attachment[PostPhoto, MultipleImageSet[PostPhoto]]] = image_attachment(
        "PostPhoto", uselist=True
    )


class PostPhoto(Base, Image):
    __tablename__ = "post_photo"
    post_id: Mapped[int] = mapped_column(ForeignKey("post.id"), primary_key=True)
    order_index: Mapped[int] = mapped_column(primary_key=True)


class DataclassBase(MappedAsDataclass, DeclarativeBase):
    pass


class DataclassPicture(DataclassBase, Image):
    __tablename__ = "dataclass_picture"
    owner_id: Mapped[int] = mapped_column(ForeignKey("dataclass_owner.id"), primary_key=True)


class DataclassOwner(DataclassBase):
    __tablename__ = "dataclass_owner"
    id: Mapped[int] = mapped_column(primary_key=True)
    picture = image_attachment(DataclassPicture)
    other: ClassVar[image_attachment[DataclassPicture]] = image_attachment("DataclassPicture")


class Hero(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    picture: ClassVar[image_attachment[UserPicture]] = image_attachment("UserPicture")


class Admin(User):
    pass


def sets(user: User, admin: Admin, post: Post) -> None:
    assert_type(user.by_class, SingleImageSet[UserPicture])
    assert_type(user.by_callable, SingleImageSet[UserPicture])
    assert_type(user.by_name, SingleImageSet[UserPicture])
    assert_type(user.by_annotation, SingleImageSet[UserPicture])
    assert_type(user.ordered, SingleImageSet[UserPicture])
    assert_type(user.untyped.locate(), str)
    assert_type(admin.by_class, SingleImageSet[UserPicture])
    assert_type(post.by_class, MultipleImageSet[PostPhoto])
    assert_type(post.by_name, MultipleImageSet[PostPhoto])
    assert_type(post.by_short_name, MultipleImageSet[PostPhoto])
    assert_type(post.by_short_name.cover, ImageSubset[PostPhoto] | None)
    assert_type(post.by_annotation, MultipleImageSet[PostPhoto])
    assert_type(DataclassOwner(id=1).picture, SingleImageSet[DataclassPicture])
    assert_type(DataclassOwner(id=1).other, SingleImageSet[DataclassPicture])
    assert_type(Hero(id=1).picture, SingleImageSet[UserPicture])


def classes() -> None:
    assert_type(User.by_class, InstrumentedAttribute[list[UserPicture]])
    assert_type(User.by_name, InstrumentedAttribute[list[UserPicture]])
    assert_type(Post.by_name, InstrumentedAttribute[list[PostPhoto]])
    query = select(User).join(User.by_class).where(User.by_class.any(UserPicture.width > 100))
    query.options(selectinload(User.by_class), joinedload(User.by_name), selectinload(Hero.picture))


def refused(user: User, post: Post) -> None:
    user.by_class = b""  # type: ignore[assignment]  # pyright: ignore[reportAttributeAccessIssue]
    repr(user.by_class.missing)  # type: ignore[attr-defined]  # pyright: ignore
    post.by_class.locate()  # type: ignore[attr-defined]  # pyright: ignore
    image_attachment(User)  # type: ignore[type-var]  # pyright: ignore
    wrong: image_attachment[UserPicture] = image_attachment("UserPicture", uselist=True)  # type: ignore[assignment]  # pyright: ignore
    image_attachment(UserPicture, max_pictures=2)  # rejected when it runs
    del wrong


async def sources(
    user: User, response: httpx.Response, answer: aiohttp.ClientResponse, part: aiohttp.BodyPartReader, form: UploadFile
) -> None:
    for source in (response, answer, answer.content, part, form, form.file, user.by_class.require_original()):
        await user.by_class.from_file(source)
    async with httpx.AsyncClient() as client, client.stream("GET", "https://example.org/") as stream:
        await user.by_class.from_file(stream)
    await user.by_class.from_file(response)
    await user.by_class.from_file(answer)
    await user.by_class.from_file(part)
    await user.by_class.from_file(form)


async def singles(user: User, store: Store) -> None:
    pictures = user.by_class
    base: BaseImageSet[UserPicture] = pictures
    assert_type(await pictures.from_file(b"", store, extra_kwargs={"a": 1}, strip_metadata=True), UserPicture)
    assert_type(await pictures.from_blob(b""), UserPicture)
    assert_type(await pictures.from_raw_file(b"", size=(1, 2), mimetype="image/png", original=False), UserPicture)
    assert_type(await pictures.generate_thumbnail(width=150), UserPicture)
    assert_type(await pictures.generate_thumbnail(width=150, height=100, fit="cover"), UserPicture)
    assert_type(await pictures.generate_thumbnails([150, Recipe(width=300)]), list[UserPicture])
    assert_type(await pictures.get_or_generate_thumbnail(150), UserPicture)
    assert_type(await pictures.get_or_generate_thumbnails([150]), list[UserPicture])
    assert_type(pictures.find_thumbnail(width=150), UserPicture)
    assert_type(pictures.find_thumbnail(width=150, default=None), UserPicture | None)
    assert_type(pictures.find_nearest_thumbnail(150), UserPicture)
    assert_type(pictures.find_nearest_thumbnail(150, default=pictures.original), UserPicture | None)
    assert_type(pictures.find_thumbnail(width=150).user_id, int)
    assert_type(pictures.original, UserPicture | None)
    assert_type(base.require_original(), UserPicture)
    assert_type(pictures.images, list[UserPicture])
    assert_type(list(pictures), list[UserPicture])
    assert_type(len(pictures), int)
    assert_type(pictures.size, tuple[int, int])
    assert_type(pictures.locate(), str)
    assert_type(await pictures.open_file(use_seek=True), AsyncFile)
    assert_type(await pictures.make_blob(), bytes)
    assert_type(await pictures.load(), None)
    assert_type(await pictures.delete(), None)
    await pictures.generate_thumbnail(width=1, fit="round")  # type: ignore[arg-type]  # pyright: ignore
    await pictures.from_file("path.jpg")  # type: ignore[arg-type]  # pyright: ignore


async def many(post: Post) -> None:
    photo = post.by_class.get_image_set(order_index=1)
    assert_type(photo, ImageSubset[PostPhoto])
    assert_type(post.by_class.image_sets, list[ImageSubset[PostPhoto]])
    assert_type(list(post.by_class), list[ImageSubset[PostPhoto]])
    assert_type(await photo.generate_thumbnail(width=150), PostPhoto)
    assert_type(photo.find_thumbnail(width=150).order_index, int)


def rows(image: UserPicture) -> None:
    assert_type(image.width, int)
    assert_type(image.variant, str)
    assert_type(image.revision, str | None)
    assert_type(image.byte_size, int | None)
    assert_type(image.created_at, datetime)
    assert_type(image.size, tuple[int, int])
    assert_type(image.key, ImageKey)
    assert_type(image.object_id, int)
    assert_type(image.identity_map, dict[str, Any])
    assert_type(UserPicture.width, InstrumentedAttribute[int])
    select(UserPicture.width, UserPicture.created_at).where(UserPicture.original, UserPicture.size == (1, 2))


@store_context(MemoryStore())
async def handler(number: int) -> str:
    return f"{number} {current_store!r}"


async def contexts(sessions: async_sessionmaker[AsyncSession]) -> None:
    assert_type(await handler(1), str)
    await handler("1")  # type: ignore[arg-type]  # pyright: ignore
    bind_store(sessions, MemoryStore())
    with store_context(MemoryStore()) as store:
        assert_type(store, Store)
    keyed: KeyedStore = MemoryStore()
    assert_type(keyed.make_revision(), str)
