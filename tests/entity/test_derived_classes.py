"""Declared thumbnails of classes and rows that are not the usual ones, from the commit to the sweep."""

from __future__ import annotations

import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import ForeignKey, String, Uuid, delete, inspect, update
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from aioimageattach import Image, Srcset, ThumbnailMarks, bind_store, image_attachment
from aioimageattach.exc import UsageError
from aioimageattach.key import ImageKey
from aioimageattach.maintenance import sweep, verify
from aioimageattach.store import KeyedStore
from aioimageattach.stores import MemoryStore, OverlayStore
from aioimageattach.stores.fs import FileSystemStore
from tests.databases import Database
from tests.entity.models import started
from tests.photos import photo
from tests.thumbnails.models import names
from tests.thumbnails.test_server import BASE, Site, is_refused

Sessions = async_sessionmaker[AsyncSession]


class Base(DeclarativeBase):
    """The declarative base."""


class Owner(Base):
    """An owner of images of all kinds."""

    __tablename__ = "owner"
    id: Mapped[uuid.UUID] = mapped_column(Uuid, primary_key=True, default=uuid.uuid4)
    front = image_attachment["Front"]("Front")
    back = image_attachment["Back"]("Back")
    animal = image_attachment["Animal"]("Animal")
    cat = image_attachment["Cat"]("Cat")
    tenant = image_attachment["Tenant"]("Tenant")


class Front(Base, Image, ThumbnailMarks):
    """One of two classes with the same object type, which declare a thumbnail of the same name differently."""

    __tablename__ = "front"
    __thumbnails__ = {"card": Srcset([60, 120], fallback=None, sizes="9px")}
    object_type = "cover"
    owner_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("owner.id"), primary_key=True)


class Back(Base, Image):
    """The other class with this object type."""

    __tablename__ = "back"
    __thumbnails__ = {"card": Srcset([40], aspect=(1, 1), fallback=None)}
    object_type = "cover"
    owner_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("owner.id"), primary_key=True)


class Animal(Base, Image):
    """The base class of single-table inheritance."""

    __tablename__ = "animal"
    __thumbnails__ = {"card": Srcset([60], fallback=None)}
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "animal"}
    owner_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("owner.id"), primary_key=True)
    kind: Mapped[str] = mapped_column(String(20))


class Cat(Animal):
    """A subclass, with its own declarations."""

    __thumbnails__ = {"card": Srcset([60, 90], fallback=None, quality=30, sizes="9px"), "own": Srcset([20])}
    __mapper_args__ = {"polymorphic_identity": "cat"}


class Tenant(Base, Image):
    """A class whose object type depends on the row."""

    __tablename__ = "tenant_picture"
    __thumbnails__ = {"card": Srcset([60], fallback=None)}
    owner_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("owner.id"), primary_key=True)
    tenant: Mapped[str] = mapped_column(String(20), default="none")

    @property
    def object_type(self) -> str:
        """Separate the tenants."""
        return f"tenant-{self.tenant}"


CLASSES = (Front, Back, Animal, Cat, Tenant)
KINDS = {
    "one object type": (("front", {}), ("back", {})),
    "inheritance": (("animal", {}), ("cat", {})),
    "tenants": (("tenant", {"tenant": "a"}), ("tenant", {"tenant": "b"})),
    "overlay": (("front", {}), ("front", {})),
}


@pytest.fixture
async def sessions(sqlite_database: Database) -> Sessions:
    """Sessions on SQLite."""
    return await started(sqlite_database, Base.metadata, expire_on_commit=False)


async def attach(sessions: Sessions, kind: str, **values: Any) -> Any:
    """Commit an owner with an image; return the row of the original."""
    async with sessions.begin() as session:
        session.add(owner := Owner())
        row = await getattr(owner, kind).from_blob(photo("chelsea"), extra_kwargs=values)
    return row


def urls(site: Site, row: Any) -> list[str]:
    """Return the URLs of all thumbnails of a row."""
    return [url for name in type(row).__thumbnails__ for url in site.urls(row, name)]


async def orphans(sessions: Sessions, *object_types: str) -> set[str]:
    """Return the names of the orphaned files."""
    plan = sweep(sessions, Base, object_types=object_types, grace=timedelta(0), max_share=1, force=True)
    return {one.name async for one in plan}


@pytest.mark.parametrize("kind", KINDS)
async def test_from_the_commit_to_the_sweep(sessions: Sessions, tmp_path: Path, kind: str) -> None:
    """Each image has its own thumbnails, which are served, deleted and swept without affecting the other's."""
    (tmp_path / "files").mkdir()
    store: KeyedStore = FileSystemStore(tmp_path / "files", "/files/", fsync=False)
    if kind == "overlay":
        store = OverlayStore(store, MemoryStore("below:/"))
    site = Site(store, *CLASSES)
    bind_store(sessions, store, thumbnails=site.server)
    first, second = [await attach(sessions, name, **values) for name, values in KINDS[kind]]
    files: dict[Any, set[str]] = {first: set(), second: set()}
    for row, found in files.items():
        for url in urls(site, row):
            assert (await site.ask(url)).status == 200
            found.add(url.removeprefix(BASE))
        await site.settle()
    assert set(await names(store)) == files[first] | files[second] | {store.name_of(row.key) for row in files}
    assert all(("-sandbox." in name) == (kind == "overlay") for name in files[first])
    types = {row.object_type for row in files}
    assert await orphans(sessions, *types) == set()
    assert [one async for one in verify(sessions, Base)] == []

    # The name of a thumbnail of one image leads to no file of the other.
    first_url, second_url = (urls(site, row)[0] for row in files)
    mixed = second_url.replace(str(second.revision)[:18], str(first.revision)[:18])
    assert is_refused(await site.ask(mixed.replace(second.object_type, first.object_type)))

    async with sessions.begin() as session:
        await session.delete(await session.get_one(type(first), inspect(first).identity))
    assert is_refused(await site.ask(first_url))
    assert set(await names(store)) == files[second] | {store.name_of(second.key)}

    async with sessions.begin() as session:
        await session.execute(delete(type(second).__table__).where(type(second).revision == second.revision))
    assert await orphans(sessions, *types) == files[second] | {store.name_of(second.key)}


async def outdate(sessions: Sessions, store: KeyedStore, row: Front) -> str:
    """Turn a row into one that SQLAlchemy-ImageAttach wrote; return the name of its file."""
    key = row.key
    name = store.legacy_name(ImageKey(key.object_type, row.object_id, key.width, key.height, key.mimetype))
    await store.put_object(name, photo("chelsea"))
    await store.discard(key)
    async with sessions.begin() as session:
        statement = update(Front.__table__).where(Front.revision == row.revision)
        await session.execute(statement.values(revision=None, byte_size=None, sha256=None))
    return name


async def test_old_rows_of_owners_with_uuids(sessions: Sessions, tmp_path: Path) -> None:
    """The number in the file name of such a row is too large: an error says so, and suggests an alternative."""
    store = FileSystemStore(tmp_path / "files", "/files/", fsync=False)
    site = Site(store, *CLASSES)
    bind_store(sessions, store, thumbnails=site.server)
    first, second = [await attach(sessions, "front") for _ in range(2)]
    old = [await outdate(sessions, store, row) for row in (first, second)]
    assert sorted(await names(store)) == sorted(old)
    assert [one async for one in verify(sessions, Base)] == []
    assert await orphans(sessions, "cover") == set()

    async with sessions.begin() as session:
        owner = await session.get_one(Owner, first.owner_id)
        for call in (owner.front.img, owner.front.candidates, owner.front.url):
            with pytest.raises(UsageError, match=r"an object_id below .* attach the image again"):
                call("card")
        with pytest.raises(UsageError, match="use thumbnails with rows"):
            await owner.front.generate_thumbnails()
        thumbnail = await owner.front.generate_thumbnail(width=30)
        assert await thumbnail.make_blob()
        assert owner.front.locate().partition("?")[0] == f"/files/{old[0]}"
        await owner.front.from_blob(photo("coffee"))
    for url in urls(site, owner.front.require_original()):
        assert (await site.ask(url)).status == 200
    async with sessions.begin() as session:
        await (await session.get_one(Owner, second.owner_id)).front.delete()
    await site.settle()
    assert {name.split("/")[0] for name in await names(store)} == {"cover", "cover.t"}
    assert not set(old) & set(await names(store))
    assert await orphans(sessions, "cover") == set()
