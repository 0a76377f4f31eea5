"""Sweeps of the files of declared thumbnails."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import ForeignKey, delete, inspect
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from aioimageattach import FocalPoint, Image, Srcset, bind_store, image_attachment
from aioimageattach._declared.names import derived_type
from aioimageattach._inventory import run_with_reader
from aioimageattach._inventory.derived import DerivedKind
from aioimageattach.entity._derived import declared_files
from aioimageattach.exc import RefusedError
from aioimageattach.key import make_revision
from aioimageattach.maintenance import sweep, undo, verify
from aioimageattach.migration import migrate
from aioimageattach.stores import MemoryStore, OverlayStore
from tests.databases import Database
from tests.photos import photo
from tests.thumbnails.models import Tenant, names


class Base(DeclarativeBase):
    """The declarative base."""


class User(Base):
    """A user with two attachments; the class of one of them declares no thumbnails."""

    __tablename__ = "user"
    id: Mapped[int] = mapped_column(primary_key=True)
    picture = image_attachment["Picture"]("Picture")
    plain = image_attachment["Plain"]("Plain")


class Picture(Base, Image, FocalPoint):
    """A picture with two declared thumbnails."""

    __tablename__ = "picture"
    __thumbnails__ = {"icon": Srcset([24], aspect=(1, 1)), "card": Srcset([60, 120])}
    user_id: Mapped[int] = mapped_column(ForeignKey("user.id"), primary_key=True)


class Plain(Base, Image):
    """A picture without declared thumbnails."""

    __tablename__ = "plain"
    user_id: Mapped[int] = mapped_column(ForeignKey("user.id"), primary_key=True)


class Aged(MemoryStore):
    """A store whose files are three days old, also according to their names."""

    def make_revision(self) -> str:
        """Return a revision made three days ago."""
        return make_revision(time.time() - 3 * 86400)

    def age(self) -> None:
        """Make all files three days old."""
        self._files = {name: (blob, datetime.now(UTC) - timedelta(days=3)) for name, (blob, _) in self._files.items()}


class Place:
    """A database and a store."""

    def __init__(self, database: Database) -> None:
        self.store = Aged()
        self.sessions: async_sessionmaker[AsyncSession] = async_sessionmaker(database.engine(), expire_on_commit=False)
        bind_store(self.sessions, self.store)

    async def fill(self, count: int) -> list[Picture]:
        """Commit pictures with their thumbnails; their files are three days old."""
        rows = []
        for _ in range(count):
            async with self.sessions.begin() as session:
                session.add(user := User())
                rows.append(await user.picture.from_blob(photo("chelsea")))
                await user.picture.generate_thumbnails()
        self.store.age()
        return rows

    async def forget(self, *rows: Picture) -> set[str]:
        """Delete rows without the library's knowledge; return the names of their files."""
        found = {self.store.name_of(row.key) for row in rows}
        found |= {self.store.name_of(one.key_for(row)) for row in rows for one in declared_files(row)}
        async with self.sessions.begin() as session:
            await session.execute(delete(Picture.__table__).where(Picture.revision.in_([row.revision for row in rows])))
        return found

    async def swept(self, **options: Any) -> set[str]:
        """Sweep; return the names of the orphans."""
        return {orphan.name async for orphan in sweep(self.sessions, Base, **{"max_share": 1, **options})}

    async def names(self) -> list[str]:
        """Return the names of all files, except quarantined ones and records of ownership."""
        return [name for name in await names(self.store) if not name.startswith(".")]


@pytest.fixture
async def place(database: Database) -> Place:
    """A database of each kind, with an empty store."""
    await database.create(Base.metadata)
    return Place(database)


async def test_thumbnails_without_an_original_are_removed(place: Place) -> None:
    """Thumbnails without an original are removed, but no other thumbnails, and no files with other names."""
    _, gone, _ = await place.fill(3)
    for name in ("picture.t/notes.txt", "picture.t/01234/56/0123456789.30x20.webp"):
        await place.store.put_object(name, b"")
    place.store.age()
    before = set(await place.names())
    orphans = await place.forget(gone)
    assert len(orphans) == 6
    assert await place.swept() == orphans
    assert await place.swept(delete=True) == orphans
    assert set(await place.names()) == before - orphans
    assert await place.swept(delete=True) == set()


async def test_a_sweep_can_be_undone(place: Place) -> None:
    """Originals are restored together with their thumbnails, to which URLs may point directly."""
    rows = await place.fill(2)
    before = await place.names()
    await place.forget(rows[0])
    plan = sweep(place.sessions, Base, max_share=1, delete=True)
    await plan.execute()
    assert plan.id is not None
    assert await place.names() != before
    await undo(Base, place.store, sweep=plan.id).execute()
    assert await place.names() == before


async def test_outdated_thumbnails_are_kept(place: Place) -> None:
    """Outdated thumbnails are kept for cached pages as long as their original exists."""
    [row] = await place.fill(1)
    name = place.store.name_of(declared_files(row)[0].key_for(row))
    stem = name.rpartition("/")[2].partition(".")[0]
    outdated = name.replace(stem, stem[:-3] + "000")
    foreign = name.replace(stem, stem[:-12] + "000000000000")
    for one in (outdated, foreign):
        await place.store.put_object(one, b"")
    place.store.age()
    assert await place.swept() == {foreign}


async def test_thumbnails_of_legacy_originals_are_kept(place: Place) -> None:
    """Thumbnails whose original has no revision are kept, because the original cannot be looked up."""
    [row] = await place.fill(1)
    row.__dict__["revision"] = None
    name = place.store.name_of(declared_files(row)[0].key_for(row))
    await place.store.put_object(name, b"")
    place.store.age()
    assert await place.swept() == set()


async def test_young_thumbnails_are_kept(place: Place) -> None:
    """Young thumbnails are kept, because their transaction may not be committed yet."""
    [row] = await place.fill(1)
    thumbnail = place.store.name_of(declared_files(row)[0].key_for(row))
    await place.store.delete_object(thumbnail)
    await place.store.put_object(thumbnail, b"")
    orphans = await place.forget(row)
    assert await place.swept() == orphans - {thumbnail}


async def test_thumbnails_of_a_picture_count_once(place: Place) -> None:
    """All files of a picture count as one of the hundred consecutive orphans that are an objection."""
    rows = await place.fill(22)
    await place.forget(*rows[1:-1])
    assert len(await place.swept(delete=True)) == 120


async def test_too_large_a_share_is_refused(place: Place) -> None:
    """The maximum share applies to thumbnails as it does to originals."""
    rows = await place.fill(12)
    await place.forget(*rows[1:])
    with pytest.raises(RefusedError, match=r"picture\.t/: "):
        await place.swept(delete=True, max_share=0.1)


async def test_object_types_can_be_chosen(place: Place) -> None:
    """The object types may be those of thumbnails only, or those of originals including their thumbnails."""
    _, second = await place.fill(2)
    orphans = await place.forget(second)
    thumbnails = {name for name in orphans if name.startswith("picture.t/")}
    assert await place.swept(object_types=[derived_type("picture")]) == thumbnails
    assert await place.swept(object_types=["picture"]) == orphans
    assert await place.swept(object_types=["plain"]) == set()
    assert await place.swept(object_types=["plain.t"]) == set()


async def test_names_of_other_kinds(place: Place) -> None:
    """Other names are not treated as thumbnails and cause no query."""
    kind = DerivedKind(inspect(Picture))
    assert kind.object_types == {"picture.t"}
    assert DerivedKind(inspect(Tenant)).object_types is None
    assert (
        await run_with_reader(place.sessions, kind.mapper, lambda reader: kind.named(reader, ["x"], place.store))
        == set()
    )


async def test_an_overlay(place: Place) -> None:
    """Files in the store below an overlay are not removed."""
    store = OverlayStore(place.store, MemoryStore("below:/"))
    bind_store(place.sessions, store)
    async with place.sessions.begin() as session:
        session.add(user := User())
        await user.picture.from_blob(photo("chelsea"))
        await user.picture.generate_thumbnails()
    place.store.age()
    row = user.picture.require_original()
    assert await place.swept(grace=timedelta(0)) == set()
    assert await place.forget(row) == await place.swept(grace=timedelta(0))


async def test_verify_and_migrate_ignore_thumbnails(place: Place) -> None:
    """Verification and migration ignore declared thumbnails, which can be rendered again."""
    await place.fill(2)
    other = MemoryStore()
    assert [one async for one in verify(place.sessions, Base)] == []
    await migrate(place.sessions, Base, place.store, other).execute()
    assert [name for name in await names(other) if not name.startswith(("picture/", "."))] == []
