"""Unflushed changes of the application: no call of the library overwrites them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import ForeignKey, String, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from aioimageattach.context import bind_store
from aioimageattach.entity import Image, image_attachment
from aioimageattach.offload import StoredText, stored_text
from tests import photos
from tests.databases import Database, Servers
from tests.faults.rig import check
from tests.faults.stores import FaultyStore

PHOTO = photos.saved(photos.opened("coffee", (60, 40)), "JPEG")
OTHER = photos.saved(photos.opened("chelsea", (60, 40)), "JPEG")
LARGER = photos.saved(photos.opened("rocket", (80, 60)), "JPEG")
STRATEGIES = ("joined", "selectin", "immediate", "subquery", "select")


def models(strategy: Any) -> tuple[type[DeclarativeBase], Any, Any]:
    """Return models whose image rows load their owner, and more, with a loader strategy."""

    class Base(DeclarativeBase):
        """Declarative base for one strategy."""

    class Owner(Base):
        """An owner of an image and a text."""

        __tablename__ = "owner"
        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str | None] = mapped_column(String(60))
        group_id: Mapped[int | None] = mapped_column(ForeignKey("team.id"))
        body: Mapped[StoredText | None] = stored_text()
        picture = image_attachment["Picture"]("Picture")
        group: Mapped[Any] = relationship("Team", lazy=strategy)

    class Team(Base):
        """The team of an owner: nullable, and therefore loaded with an outer join."""

        __tablename__ = "team"
        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str | None] = mapped_column(String(60))

    class Picture(Base, Image):
        """An image that loads its owner and its author eagerly."""

        __tablename__ = "picture"
        owner_id: Mapped[int] = mapped_column(ForeignKey("owner.id"), primary_key=True)
        author_id: Mapped[int | None] = mapped_column(ForeignKey("team.id"))
        caption: Mapped[str | None] = mapped_column(String(60))
        owner: Mapped[Any] = relationship("Owner", lazy=strategy, overlaps="__*")
        author: Mapped[Any] = relationship("Team", lazy=strategy)

    Base.registry.configure()  # while all classes exist
    return Base, Owner, Picture


MODELS = {strategy: models(strategy) for strategy in STRATEGIES}


class Setting:
    """A database with an owner, its image and a thumbnail."""

    def __init__(self, database: Database, strategy: str) -> None:
        self.database = database
        self.base, self.owner, self.picture = MODELS[strategy]
        self.store = FaultyStore()
        self.sessions = async_sessionmaker(database.engine(), expire_on_commit=False)
        bind_store(self.sessions, self.store)

    async def begin(self) -> None:
        await self.database.create(self.base.metadata)
        async with self.sessions() as session, session.begin():
            session.add(one := self.owner(id=1, name="first", body="text"))
            await one.picture.from_blob(PHOTO)
            await one.picture.generate_thumbnail(width=20)

    async def check(self) -> set[bytes]:
        return await check(self.database, self.store, self.base)


SETTINGS = [
    *(f"aiosqlite {strategy}" for strategy in STRATEGIES),
    *("asyncpg joined", "asyncpg selectin", "psycopg joined", "asyncmy joined"),
]


@pytest.fixture(params=SETTINGS)
async def setting(request: pytest.FixtureRequest, servers: Servers, tmp_path: Any) -> Any:
    """Each database with each strategy; only PostgreSQL refuses to lock outer joins."""
    driver, _, strategy = request.param.partition(" ")
    setting = Setting(servers.database(driver, tmp_path), strategy)
    await setting.begin()
    yield setting
    await setting.database.aclose()


Call = Callable[[AsyncSession, Any], Awaitable[object]]

CALLS: dict[str, Call] = {
    "replace": lambda session, one: one.picture.from_blob(OTHER),
    "replace by another size": lambda session, one: one.picture.from_blob(LARGER),
    "delete": lambda session, one: one.picture.delete(),
    "generate_thumbnail": lambda session, one: one.picture.generate_thumbnail(width=10),
    "get_or_generate_thumbnail": lambda session, one: one.picture.get_or_generate_thumbnail(width=10),
    "load": lambda session, one: one.picture.load(),
    "open_file": lambda session, one: one.picture.make_blob(),
}


@pytest.mark.parametrize("call", CALLS)
async def test_names_of_owners_and_captions_of_pictures(setting: Setting, call: str) -> None:
    """All changes made before a call of the library are committed with it."""
    async with setting.sessions() as session, session.begin():
        one = await session.get_one(setting.owner, 1)
        original = one.picture.require_original()
        one.name, one.body, original.caption = "changed", "changed text", "a caption"
        await CALLS[call](session, one)
        assert (one.name, original.caption) == ("changed", "a caption")
    async with setting.sessions() as session:
        one = await session.get_one(setting.owner, 1)
        assert one.name == "changed"
        assert one.body is not None
        assert await one.body.load() == "changed text"
        captions = set(await session.scalars(select(setting.picture.caption)))
        assert ("a caption" in captions) == (not call.startswith("delete"))  # a new image keeps the caption
    await setting.check()


async def test_a_changed_owner_in_a_batch(setting: Setting) -> None:
    """Two owners are changed, one of them gets an image, and then a new, third owner."""
    async with setting.sessions() as session, session.begin():
        one = await session.get_one(setting.owner, 1)
        two = setting.owner(id=2, name="second")
        session.add(two)
        await session.flush()
        one.name, two.name = "changed", "changed too"
        with session.no_autoflush:
            await two.picture.from_blob(OTHER)
            await one.picture.from_blob(LARGER)
    async with setting.sessions() as session:
        names = [one.name for one in await session.scalars(select(setting.owner).order_by(setting.owner.id))]
        assert names == ["changed", "changed too"]
    assert {OTHER, LARGER} <= await setting.check()


async def test_a_value_is_replaced(setting: Setting) -> None:
    """The owner has an eager relationship, and the flush contains no image."""
    async with setting.sessions() as session, session.begin():
        one = await session.get_one(setting.owner, 1)
        one.body = "another text"
        one.name = "changed"
    async with setting.sessions() as session, session.begin():
        one = await session.get_one(setting.owner, 1)
        assert one.name == "changed"
        await session.delete(one)
    assert await setting.check() == set()


async def test_a_deletion_that_was_not_flushed(setting: Setting) -> None:
    """A thumbnail deleted by the application stays deleted, although the set is loaded again."""
    async with setting.sessions() as session, session.begin():
        one = await session.get_one(setting.owner, 1)
        with session.no_autoflush:
            await session.delete(one.picture.find_thumbnail(width=20))
            await one.picture.load()
            assert len(one.picture) == 1
    assert await setting.check() == {PHOTO, b"text"}
