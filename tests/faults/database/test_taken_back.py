"""Images that are expired, refreshed, expunged or deleted before their flush have no effect."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import CHAR, ForeignKey, Numeric, String, Uuid
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from aioimageattach.context import bind_store
from aioimageattach.entity import Image, image_attachment
from aioimageattach.exc import ImageAttachError
from aioimageattach.offload import StoredText, stored_text
from tests.databases import Database
from tests.faults.models import User
from tests.faults.rig import PNG, SIZE, Rig, check, get
from tests.faults.stores import FaultyStore

TakeBack = Callable[[AsyncSession, User], Awaitable[object]]


async def expire(session: AsyncSession, user: User) -> None:
    session.expire(user)


async def expire_all(session: AsyncSession, user: User) -> None:
    session.expire_all()


async def expire_the_attribute(session: AsyncSession, user: User) -> None:
    session.expire(user, ["picture_images", "body"])


async def refresh(session: AsyncSession, user: User) -> None:
    with session.no_autoflush:
        await session.refresh(user)


async def refresh_the_attribute(session: AsyncSession, user: User) -> None:
    with session.no_autoflush:
        await session.refresh(user, ["picture_images", "body"])


async def expunge_the_row(session: AsyncSession, user: User) -> None:
    for row in list(session.new):
        session.expunge(row)


TAKE_BACK: dict[str, TakeBack] = {
    function.__name__: function
    for function in (expire, expire_all, expire_the_attribute, refresh, refresh_the_attribute, expunge_the_row)
}


@pytest.mark.filterwarnings("ignore:Object of type <UserPicture> not in session")
@pytest.mark.parametrize(("how", "size"), [("expire", SIZE), ("refresh", (8, 8)), ("expunge_the_row", SIZE)])
async def test_an_attached_picture_is_taken_back(picture_rig: Rig, how: str, size: tuple[int, int]) -> None:
    """SQLAlchemy discards the pending row: the old image and thumbnail are kept, and nothing is uploaded."""
    rig = picture_rig
    await rig.user(thumbnail=b"small")
    puts = rig.store.counts["put"]
    async with rig.sessions() as session:
        user = await get(session)
        with session.no_autoflush:
            await rig.attach(user.picture, b"new", size)
            await TAKE_BACK[how](session, user)
        await session.commit()
        session.expunge_all()
        assert await rig.read(await get(session)) == b"old"
    assert rig.store.counts["put"] == puts
    await rig.check(b"old", b"small")


@pytest.mark.parametrize(
    ("how", "size"), [("expire_all", SIZE), ("expire_the_attribute", (8, 8)), ("refresh_the_attribute", SIZE)]
)
async def test_an_attached_picture_that_is_still_pending(picture_rig: Rig, how: str, size: tuple[int, int]) -> None:
    """SQLAlchemy keeps the pending row: one of the two images exists completely."""
    rig = picture_rig
    await rig.user(thumbnail=b"small")
    async with rig.sessions() as session:
        user = await get(session)
        with session.no_autoflush:
            await rig.attach(user.picture, b"new", size)
            await TAKE_BACK[how](session, user)
        await session.commit()
    assert await check(rig.database, rig.store) in ({b"old", b"small"}, {b"new"})


@pytest.mark.parametrize("how", ["expire", "expire_all", "refresh_the_attribute"])
async def test_an_assigned_value_is_taken_back(value_rig: Rig, how: str) -> None:
    """An assigned value is discarded in the same way."""
    rig = value_rig
    await rig.user()
    async with rig.sessions() as session:
        user = await get(session)
        with session.no_autoflush:
            await rig.replace(user, b"new")
            await TAKE_BACK[how](session, user)
        await session.commit()
    await rig.check(b"old")


@pytest.mark.parametrize("how", ["expire", "expire_all", "refresh_the_attribute"])
async def test_attached_again_after_it_was_taken_back(rig: Rig, how: str) -> None:
    """The session is fully usable."""
    await rig.user()
    async with rig.sessions() as session:
        user = await get(session)
        with session.no_autoflush:
            await rig.replace(user, b"new", (8, 8))
            await TAKE_BACK[how](session, user)
        await rig.replace(user, b"newer", (9, 9))
        await session.commit()
    await rig.check(b"newer")


async def test_the_first_picture_is_taken_back(picture_rig: Rig) -> None:
    """The owner had no image before, and has none afterwards."""
    rig = picture_rig
    await rig.user(1, None)
    async with rig.sessions() as session:
        user = await get(session)
        with session.no_autoflush:
            await rig.attach(user.picture, b"new")
        session.expire(user)
        await session.commit()
    await rig.check()


async def test_a_new_owner_is_expunged(rig: Rig) -> None:
    """The owner is expunged with everything attached to it."""
    async with rig.sessions() as session:
        user = User(id=1)
        session.add(user)
        await rig.replace(user, b"new")
        session.expunge(user)
        await session.commit()
    await rig.check()
    assert rig.store.counts["put"] == 0


async def test_an_owner_with_a_replaced_picture_is_expunged(rig: Rig) -> None:
    """Neither the new image nor the deletion of the old one is committed."""
    await rig.user()
    async with rig.sessions() as session:
        user = await get(session)
        with session.no_autoflush:
            await rig.replace(user, b"new", (8, 8))
            session.expunge(user)
        await session.commit()
    await rig.check(b"old")


# --- owners that are deleted in the same flush -----------------------------------------------------------------------


@pytest.mark.parametrize("content", [None, b"old"], ids=["first", "replaced"])
async def test_attached_to_an_owner_that_is_deleted(rig: Rig, content: bytes | None) -> None:
    """In one flush, neither a row nor a file remains."""
    await rig.user(1, content)
    async with rig.sessions() as session, session.begin():
        user = await get(session)
        with session.no_autoflush:
            await rig.replace(user, b"new", (8, 8))
            await session.delete(user)
    await rig.check()


@pytest.mark.parametrize(("flushed", "content"), [(False, None), (True, b"old")])
async def test_attached_to_a_deleted_owner(rig: Rig, flushed: bool, content: bytes | None) -> None:
    """The attachment is refused, or has no effect."""
    await rig.user(1, content)
    async with rig.sessions() as session:
        user = await get(session)
        await session.delete(user)
        if flushed:
            await session.flush()
        try:
            with session.no_autoflush:
                await rig.replace(user, b"new", (8, 8))
            await session.commit()
        except (ImageAttachError, IntegrityError):
            await session.rollback()
            await rig.check(*([] if content is None else [content]))
        else:
            await rig.check()


async def test_a_thumbnail_of_an_owner_that_is_deleted(picture_rig: Rig) -> None:
    """A thumbnail of an image that is deleted in the same flush leaves neither a row nor a file."""
    rig = picture_rig
    await rig.user()
    async with rig.sessions() as session, session.begin():
        user = await get(session)
        with session.no_autoflush:
            await rig.attach(user.picture, b"small", (3, 2), original=False)
            await session.delete(user)
    await rig.check()


async def test_a_new_owner_is_added_and_deleted(picture_rig: Rig) -> None:
    """A new owner is deleted after its flush, with an image attached in between."""
    rig = picture_rig
    async with rig.sessions() as session, session.begin():
        session.add(user := User(id=1))
        await session.flush()
        await rig.attach(user.picture, b"new")
        await session.delete(user)
    await rig.check()


# --- keys that the database returns in another form ------------------------------------------------------------------


class Base(DeclarativeBase):
    """Owners with keys of many types."""


def owner(name: str, kind: Any) -> Any:
    """Return an owner class with a key of that type and an image."""
    picture = type(
        f"{name}Picture",
        (Base, Image),
        {
            "__tablename__": f"{name.lower()}_picture",
            "owner_id": mapped_column(kind, ForeignKey(f"{name.lower()}.id"), primary_key=True),
            "object_id": property(lambda self: 1),
        },
    )
    return type(
        name,
        (Base,),
        {
            "__tablename__": name.lower(),
            "__annotations__": {"body": Mapped[StoredText | None]},
            "id": mapped_column(kind, primary_key=True, autoincrement=False),
            "body": stored_text(),
            "picture": image_attachment(picture),
        },
    )


NUMBER = uuid.UUID("7d444840-9dc0-41d1-b245-5ffdce74fad2")
OWNERS: dict[str, tuple[Any, Any]] = {
    "padded": (owner("Padded", CHAR(10)), "abc"),
    "uuid": (owner("Identified", Uuid(as_uuid=False)), str(NUMBER).upper()),
    "uuid without dashes": (owner("Dashed", Uuid(as_uuid=False)), NUMBER.hex),
    "decimal": (owner("Decimal", Numeric(10, 2)), Decimal("1.5")),
    "text": (owner("Named", String(20)), "Ärger"),
}


@pytest.mark.parametrize("kind", OWNERS)
async def test_keys_in_another_form(any_driver_database: Database, kind: str) -> None:
    """The image is replaced and deleted by the object with the original key, and by a loaded one."""
    database = any_driver_database
    if kind == "decimal" and database.name == "sqlite":
        pytest.skip("SQLite has no decimal numbers")
    if kind == "uuid" and database.name == "sqlite":
        pytest.skip("SQLAlchemy stores the text in upper case there, and returns a key in lower case that no row has")
    cls, key = OWNERS[kind]
    await database.create(Base.metadata)
    store = FaultyStore()
    sessions = async_sessionmaker(database.engine(), expire_on_commit=False)
    bind_store(sessions, store)
    async with sessions() as session:
        session.add(one := cls(id=key, body="first"))
        await one.picture.from_raw_file(b"one", None, SIZE, PNG)
        await session.commit()
        one.body = "second"
        await one.picture.from_raw_file(b"two", None, SIZE, PNG)
        await session.commit()
        assert await check(database, store, Base) == {b"second", b"two"}
        one.body = "third"
        await one.picture.from_raw_file(b"three", None, (8, 8), PNG)
        await session.commit()
        assert await check(database, store, Base) == {b"third", b"three"}
    async with sessions() as session:
        one = await session.get_one(cls, key)
        one.body = "fourth"
        await one.picture.from_raw_file(b"four", None, (8, 8), PNG)
        await session.commit()
        assert await check(database, store, Base) == {b"fourth", b"four"}
        await session.delete(one)
        await session.commit()
    assert await check(database, store, Base) == set()
