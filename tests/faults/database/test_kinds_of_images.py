"""Unusual image classes: without an owner, sharing a table, or with other join conditions."""

from __future__ import annotations

import pytest
from sqlalchemy import ForeignKey, String, and_, text, true
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, foreign, mapped_column

from aioimageattach.entity import Image, image_attachment
from tests.databases import Database
from tests.entity.models import started
from tests.faults.rig import PNG, check
from tests.faults.stores import FaultyStore


class Base(DeclarativeBase):
    """Declarative base of these models."""


class Logo(Base, Image):
    """An image without an owner, with files in the old layout, which have no revision."""

    __tablename__ = "logo"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)


class Shop(Base):
    """An owner of a sign and a map, whose rows share a table."""

    __tablename__ = "shop"
    id: Mapped[int] = mapped_column(primary_key=True)
    sign = image_attachment["Sign"]("Sign", overlaps="*")
    plan = image_attachment["Plan"]("Plan", overlaps="*")
    banner = image_attachment["Banner"](
        "Banner",
        primaryjoin=lambda: and_(Shop.id == foreign(Banner.shop_id), (Banner.shown == true()).self_group(), true()),
    )


class ShopImage(Base, Image):
    """The images of a shop."""

    __tablename__ = "shop_image"
    shop_id: Mapped[int] = mapped_column(ForeignKey(Shop.id), primary_key=True)
    kind: Mapped[str] = mapped_column(String(10))
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "image"}


class Sign(ShopImage):
    """The sign of a shop."""

    __mapper_args__ = {"polymorphic_identity": "sign"}


class Plan(ShopImage):
    """The map of a shop."""

    __mapper_args__ = {"polymorphic_identity": "plan"}


class Banner(Base, Image):
    """An owner of a visible and a hidden banner."""

    __tablename__ = "banner"
    shop_id: Mapped[int] = mapped_column(ForeignKey(Shop.id), primary_key=True)
    shown: Mapped[bool]


Sessions = async_sessionmaker[AsyncSession]


@pytest.fixture
def store() -> FaultyStore:
    """An empty store."""
    return FaultyStore()


@pytest.fixture
async def sessions(database: Database, store: FaultyStore) -> Sessions:
    """Sessions on each of three databases."""
    return await started(database, Base.metadata, store, expire_on_commit=False)


def logo(number: int) -> Logo:
    values = {"id": number, "width": 3, "height": 2, "variant": "", "mimetype": PNG, "original": True, "revision": None}
    return Logo(**values)


async def logos(sessions: Sessions, store: FaultyStore) -> list[Logo]:
    """Commit two logos with their files, as another program left them."""
    async with sessions() as session, session.begin():
        rows = [logo(1), logo(2)]
        session.add_all(rows)
    for row in rows:
        await store.put(row.key, b"logo %d" % row.id, reproducible=False)
    return rows


async def test_an_image_without_an_owner_is_deleted(sessions: Sessions, store: FaultyStore) -> None:
    """The file of the image is deleted, and that of another image is kept."""
    one, other = await logos(sessions, store)
    async with sessions() as session, session.begin():
        await session.delete(await session.get_one(Logo, (1, 3, 2, "")))
    assert await store.names() == {store.name_of(other.key)}
    assert store.name_of(one.key) != store.name_of(other.key)


async def test_an_image_without_an_owner_is_deleted_twice(sessions: Sessions, store: FaultyStore) -> None:
    """If another transaction has already deleted it, nothing is deleted and no warning is emitted."""
    one, other = await logos(sessions, store)
    async with sessions() as session:
        row = await session.get_one(Logo, (1, 3, 2, ""))
        await session.commit()
        async with sessions() as second, second.begin():
            await second.execute(text("DELETE FROM logo WHERE id = 1"))
        await session.delete(row)
        await session.commit()
    assert await store.names() == {store.name_of(one.key), store.name_of(other.key)}


async def test_images_of_two_classes_in_one_table(database: Database, sessions: Sessions, store: FaultyStore) -> None:
    """Replacing one image does not affect the other."""
    async with sessions() as session, session.begin():
        session.add(shop := Shop(id=1))
        await shop.sign.from_raw_file(b"sign", None, (3, 2), PNG)
        await shop.plan.from_raw_file(b"plan", None, (5, 4), PNG)
    async with sessions() as session, session.begin():
        shop = await session.get_one(Shop, 1)
        await shop.sign.from_raw_file(b"new sign", None, (7, 6), PNG)
    assert await check(database, store, Base) == {b"new sign", b"plan"}


async def test_a_condition_with_a_truth_value(database: Database, sessions: Sessions, store: FaultyStore) -> None:
    """A new row satisfies the condition; rows that do not are not replaced."""
    async with sessions() as session, session.begin():
        session.add(shop := Shop(id=1))
        row = await shop.banner.from_raw_file(b"kept", None, (3, 2), PNG)
        assert row.shown is True
        await session.flush()
        row.shown = False
    async with sessions() as session, session.begin():
        shop = await session.get_one(Shop, 1)
        assert not shop.banner
        await shop.banner.from_raw_file(b"shown", None, (5, 4), PNG)
    assert await check(database, store, Base) == {b"kept", b"shown"}
