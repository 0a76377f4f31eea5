"""Verification: it reports missing and altered files, and repairs thumbnails."""

from __future__ import annotations

import asyncio
import hashlib
import io
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

import PIL.Image
import pytest
from sqlalchemy import ForeignKey, String, delete, event, insert, select, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from aioimageattach._inventory import FileReference, kinds
from aioimageattach.entity import Image
from aioimageattach.entity._image import utcnow
from aioimageattach.exc import (
    ContextError,
    DeclarationError,
    NoOriginalError,
    RefusedError,
    StoreFileNotFoundError,
    StoreMissingError,
    StoreUnavailableError,
    UnreadableImageError,
)
from aioimageattach.imaging import Recipe
from aioimageattach.maintenance import Mismatch, own, sweep, verify
from aioimageattach.maintenance._rebuild import rebuild
from aioimageattach.stores import MemoryStore
from aioimageattach.testing import FaultyStore
from tests import photos
from tests.maintenance.conftest import Place
from tests.maintenance.models import Base, Post, PostPhoto, User, UserPicture
from tests.stores.plain import PlainStore

BLOB = b"blob"
DIGEST = hashlib.sha256(BLOB).hexdigest()


async def add_files(place: Place, count: int) -> list[str]:
    """Commit rows with sizes and checksums, and their files; return the names of the files."""
    names = []
    for _ in range(count):
        key = await place.file()
        await place.row(key, byte_size=len(BLOB), sha256=DIGEST)
        names.append(place.store.name_of(key))
    return names


async def mismatches(place: Place, **options: Any) -> dict[str, Mismatch]:
    """Return the mismatches, by the name of the file."""
    return {
        mismatch.reference.name_in(place.store): mismatch async for mismatch in verify(place.sessions, Base, **options)
    }


def alter(place: Place, name: str, blob: bytes | None) -> None:
    """Delete or replace a file without the library's knowledge."""
    path = Path(place.store.path, name)
    if blob is None:
        path.unlink()
    else:
        path.write_bytes(blob)


async def test_missing_and_altered_files_are_reported(any_place: Place) -> None:
    """Missing files and wrong sizes are always reported, wrong checksums only if the files are read."""
    place = any_place
    names = await add_files(place, 12)
    assert await mismatches(place) == await mismatches(place, deep=True) == {}
    alter(place, names[3], None)
    alter(place, names[5], b"longer")
    alter(place, names[7], b"flip")
    found = await mismatches(place)
    assert {name: (mismatch.problem, mismatch.expected, mismatch.actual) for name, mismatch in found.items()} == {
        names[3]: ("missing", None, None),
        names[5]: ("size", 4, 6),
    }
    assert isinstance(found[names[3]].error, StoreFileNotFoundError)
    found = await mismatches(place, deep=True)
    assert {name: mismatch.problem for name, mismatch in found.items()} == {
        names[3]: "missing",
        names[5]: "size",
        names[7]: "checksum",
    }
    assert (found[names[7]].expected, found[names[7]].actual) == (DIGEST, hashlib.sha256(b"flip").hexdigest())
    assert found[names[7]].reference.identity == (8, 30, 20, "")


async def test_progress(place: Place) -> None:
    """The progress counts rows, their results, and the bytes that were read."""
    names = await add_files(place, 5)
    alter(place, names[0], None)
    plan = verify(place.sessions, Base, deep=True)
    assert plan.progress.total is None
    seen: list[Mismatch] = []
    progress = await plan.execute(seen.append)
    assert (progress.total, progress.done, progress.counts["sound"], progress.counts["mismatched"], progress.bytes) == (
        5,
        5,
        4,
        1,
        16,
    )

    async def note(mismatch: Mismatch) -> None:
        seen.append(mismatch)

    await plan.execute(note)
    assert [mismatch.problem for mismatch in seen] == ["missing", "missing"]
    assert repr(plan).startswith("<Plan to verify PostPhoto, UserPicture in FileSystemStore(")


async def test_rows_without_size_and_checksum(place: Place) -> None:
    """For rows of SQLAlchemy-ImageAttach, only a missing file is detected."""
    name = await place.name("user-picture/1/0/1.30x20.jpe", blob=b"anything")
    await place.row(await place.file(), byte_size=None, sha256=None)
    async with place.sessions.begin() as session:
        await session.execute(update(UserPicture.__table__).values(revision=None))
    assert await mismatches(place, deep=True) == {}
    alter(place, name, None)
    assert [mismatch.problem for mismatch in (await mismatches(place)).values()] == ["missing"]


@pytest.mark.parametrize("error", [None, OSError(5, "broken"), ZeroDivisionError("in a third-party store")])
async def test_a_store_that_fails(place: Place, error: Any) -> None:
    """A file that cannot be read is reported, and nothing is raised."""
    names = await add_files(place, 3)
    store = FaultyStore(place.store)
    store.fail("get", error, at=2)
    [mismatch] = [one async for one in verify(place.sessions, Base, store, deep=True, concurrency=1, repair=True)]
    assert mismatch.problem == "unreadable"
    assert mismatch.reference.name_in(store) in names
    assert mismatch.error is error or isinstance(mismatch.error, StoreUnavailableError)


async def test_a_missing_file_in_a_third_party_store(place: Place) -> None:
    """A builtin ``FileNotFoundError`` means that the file is missing."""
    await add_files(place, 3)
    store = FaultyStore(place.store)
    store.fail("head", FileNotFoundError(2, "no such file"), at=2)
    [mismatch] = [one async for one in verify(place.sessions, Base, store)]
    assert mismatch.problem == "missing"


@pytest.mark.parametrize("error", [None, TimeoutError("no answer")])
async def test_an_outage_ends_the_run(place: Place, error: Any) -> None:
    """The run ends if the store does not respond for many consecutive files; one response resets the count."""
    await add_files(place, 40)
    store = FaultyStore(place.store)
    for number in range(1, 41):
        if number != 15:
            store.fail("head", error, at=number)
    plan = verify(place.sessions, Base, store, concurrency=1)
    with pytest.raises(StoreUnavailableError, match="did not respond for 18 consecutive files, so the run was stopped"):
        await plan.execute()
    assert (plan.progress.counts["sound"], plan.progress.counts["mismatched"]) == (1, 14 + 17)
    store.heal()
    assert (await plan.execute()).counts["sound"] == 40


async def test_a_bucket_that_does_not_exist(place: Place) -> None:
    """A missing bucket is reported once, not for each file."""
    await add_files(place, 3)
    store = FaultyStore(place.store)
    store.fail("head", StoreMissingError("there is no such bucket"))
    with pytest.raises(StoreMissingError):
        await verify(place.sessions, Base, store).execute()


async def test_a_large_file_is_hashed(place: Place) -> None:
    """A large file is read in blocks, outside of the event loop."""
    blob = bytes(3_000_000)
    await place.row(await place.file(blob=blob), byte_size=len(blob), sha256=hashlib.sha256(blob).hexdigest())
    assert await mismatches(place, deep=True) == {}


async def test_a_store_without_names(place: Place) -> None:
    """Files in a store that is not a ``KeyedStore`` are read, because it reports no sizes."""
    store = PlainStore()
    key = await place.file()
    await place.row(key, byte_size=len(BLOB), sha256=DIGEST)
    [mismatch] = [one async for one in verify(place.sessions, Base, store)]
    assert mismatch.problem == "missing"
    assert mismatch.reference.key is not None
    await store.put(mismatch.reference.key, b"flip", reproducible=False)
    [mismatch] = [one async for one in verify(place.sessions, Base, store)]
    assert mismatch.problem == "checksum"


async def test_rows_that_change_during_the_verification(place: Place) -> None:
    """A file whose row was deleted or replaced is not a mismatch."""
    names = await add_files(place, 3)
    for name in names:
        alter(place, name, None)
    plan = verify(place.sessions, Base, concurrency=1)
    told = []
    async for mismatch in plan:
        told.append(mismatch)
        async with place.sessions.begin() as session:
            await session.execute(delete(UserPicture).where(UserPicture.user_id == 2))
            await session.execute(
                update(UserPicture.__table__).where(UserPicture.__table__.c.user_id == 3).values(revision="0" * 26)
            )
    assert len(told) == 1
    assert (plan.progress.counts["mismatched"], plan.progress.counts["gone"], plan.progress.done) == (1, 2, 3)


async def test_leaving_the_loop_stops_the_verification(place: Place) -> None:
    """After the loop is left, no task is running and no file is open."""
    for name in await add_files(place, 40):
        alter(place, name, b"longer")
    before = asyncio.all_tasks()
    listing = aiter(verify(place.sessions, Base, deep=True))
    await anext(listing)
    await listing.aclose()  # type: ignore[attr-defined]
    assert asyncio.all_tasks() == before


@pytest.mark.parametrize("steps", range(2, 40, 4))
async def test_a_verification_is_cancelled(place: Place, steps: int) -> None:
    """A verification that is cancelled at any step ends and leaves no task running."""
    for name in await add_files(place, 5):
        alter(place, name, None)
    before = asyncio.all_tasks()
    task = asyncio.create_task(verify(place.sessions, Base, repair=True).execute())
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert asyncio.all_tasks() == before


def test_arguments() -> None:
    """Values that are out of range are refused immediately."""
    with pytest.raises(ValueError, match="concurrency: expected at least 1, got 0"):
        verify(None, Base, MemoryStore(), concurrency=0)  # type: ignore[arg-type]
    with pytest.raises(DeclarationError, match="expected a declarative base"):
        verify(None, int, MemoryStore())  # type: ignore[arg-type]
    with pytest.raises(ContextError):
        verify(None, Base)  # type: ignore[arg-type]


# --- repair ----------------------------------------------------------------------------------------------------------

LOOKS: tuple[Recipe, ...] = (
    Recipe(width=30),
    Recipe(height=30),
    Recipe(ratio=0.3),
    Recipe(width=20, height=20),
    Recipe(width=20, height=10, fit="fill"),
    Recipe(width=25, height=25, fit="inside"),
    Recipe(width=24, height=24, fit="contain", background=(1, 2, 3)),
    Recipe(width=28, format="webp", quality=50),
    Recipe(width=26, format="png", filter="mitchell"),
)


async def picture(place: Place, recipes: Sequence[Recipe] = LOOKS, blob: bytes | None = None) -> dict[str, str]:
    """Commit a user with a picture and thumbnails; return the looks by the names of the files, original first."""
    blob = photos.saved(photos.opened("coffee", (61, 43)), "JPEG") if blob is None else blob
    async with place.sessions() as session:
        user = User(name="somebody")
        session.add(user)
        await user.picture.from_blob(blob)
        await user.picture.generate_thumbnails(recipes)
        await session.commit()
        rows = sorted(user.picture, key=lambda row: not row.original)
        return {place.store.name_of(row.key): row.variant for row in rows}


async def test_thumbnails_are_repaired(any_place: Place) -> None:
    """A repaired thumbnail has its size and look, a missing one also its old name; no other files are left."""
    place = any_place
    names = await picture(place)
    thumbnails = list(names)[1:]
    for number, name in enumerate(thumbnails):
        alter(place, name, None if number % 2 else b"broken")
    assert set(await mismatches(place)) == set(thumbnails)
    plan = verify(place.sessions, Base, repair=True)
    assert [mismatch.repaired async for mismatch in plan] == [True] * len(thumbnails)
    assert (plan.progress.counts["repaired"], plan.progress.counts["mismatched"]) == (len(thumbnails),) * 2
    assert await mismatches(place, deep=True) == {}
    missing = {name for number, name in enumerate(thumbnails) if number % 2}
    assert await place.names() & set(thumbnails) <= missing  # which were rendered identically
    assert len(await place.names()) == len(names)
    assert await sweep(place.sessions, Base, grace=timedelta(0), delete=True, force=True).execute(pytest.fail)
    async with place.sessions() as session:
        for row in await session.scalars(select(UserPicture)):
            blob = await row.make_blob()
            with PIL.Image.open(io.BytesIO(blob)) as opened:
                assert (opened.size, PIL.Image.MIME[opened.format or ""]) == (row.size, row.mimetype)


@pytest.mark.parametrize(
    ("recipe", "blob"),
    [
        (Recipe(width=20, animated=True), photos.animated_gif),
        (Recipe(width=20), photos.transparent_png),
        (Recipe(width=20, format="jpeg", background=(9, 8, 7)), photos.transparent_png),
    ],
)
async def test_thumbnails_of_other_formats_are_repaired(place: Place, recipe: Recipe, blob: Any) -> None:
    """Thumbnails of animations and of transparent images are repaired."""
    names = list(await picture(place, [recipe], blob()))
    alter(place, names[1], None)
    assert [mismatch.repaired for mismatch in (await mismatches(place, repair=True)).values()] == [True]
    assert await mismatches(place, deep=True) == {}


async def test_an_original_cannot_be_repaired(place: Place) -> None:
    """A missing original and its thumbnails are reported and not repaired."""
    names = list(await picture(place, LOOKS[:1]))
    for name in names:
        alter(place, name, None)
    found = await mismatches(place, repair=True)
    assert {name: mismatch.repaired for name, mismatch in found.items()} == dict.fromkeys(names, False)
    assert isinstance(found[names[1]].error, StoreFileNotFoundError)


async def test_a_broken_original(place: Place) -> None:
    """Thumbnails of a damaged original are not repaired, and the error states the reason."""
    names = list(await picture(place, LOOKS[:1]))
    alter(place, names[0], b"no picture")
    alter(place, names[1], None)
    assert isinstance((await mismatches(place, repair=True))[names[1]].error, UnreadableImageError)


async def test_a_thumbnail_without_an_original(place: Place) -> None:
    """A thumbnail whose original has no row is not repaired."""
    names = list(await picture(place, LOOKS[:1]))
    async with place.sessions.begin() as session:
        await session.execute(delete(UserPicture).where(UserPicture.original))
    alter(place, names[1], None)
    assert isinstance((await mismatches(place, repair=True))[names[1]].error, NoOriginalError)


@pytest.mark.parametrize("variant", ["mine", "custom", "cover-0123456789abcdef", "cover.custom", "q999"])
async def test_looks_without_a_recipe(place: Place, variant: str) -> None:
    """Thumbnails whose look does not determine a recipe are reported and not repaired."""
    names = list(await picture(place, LOOKS[:1]))
    async with place.sessions.begin() as session:
        await session.execute(
            update(UserPicture.__table__).where(UserPicture.__table__.c.original.is_(False)).values(variant=variant)
        )
    alter(place, names[1], None)
    [mismatch] = (await mismatches(place, repair=True)).values()
    assert (mismatch.repaired, mismatch.error and type(mismatch.error)) == (False, StoreFileNotFoundError)


class Assets(DeclarativeBase):
    """A base whose images have a single integer as primary key."""


class Asset(Assets):
    """An asset of any kind."""

    __tablename__ = "asset"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(9), default="asset")
    __mapper_args__: ClassVar[dict[str, Any]] = {"polymorphic_on": "kind", "polymorphic_identity": "asset"}


class Photo(Asset, Image):
    """An image in a separate table, by joined inheritance."""

    __tablename__ = "photo"
    id: Mapped[int] = mapped_column(ForeignKey("asset.id"), primary_key=True)
    __mapper_args__: ClassVar[dict[str, Any]] = {"polymorphic_identity": "photo"}


async def test_images_without_a_set(place: Place) -> None:
    """Thumbnails whose row does not determine the original are reported, and no row is changed."""
    await place.database.create(Assets.metadata)
    common = {"width": 30, "height": 20, "variant": "", "mimetype": "image/jpeg", "original": False}
    async with place.sessions.begin() as session:
        for number in (1, 2):
            await session.execute(insert(Asset.__table__), [{"id": number, "kind": "photo"}])
            await session.execute(insert(Photo.__table__), [{**common, "id": number, "created_at": utcnow()}])
    found = [mismatch async for mismatch in verify(place.sessions, Assets, repair=True)]
    assert [(mismatch.problem, mismatch.repaired, type(mismatch.error)) for mismatch in found] == [
        ("missing", False, NoOriginalError)
    ] * 2


async def test_thumbnails_of_several_pictures(place: Place) -> None:
    """Each thumbnail is rendered from the original of its own set."""
    async with place.sessions() as session:
        session.add(post := Post(id=1))
        for number, name in enumerate(("coffee", "chelsea")):
            photo = post.photos.get_image_set(place=number)
            await photo.from_blob(photos.saved(photos.opened(name, (60, 40)), "PNG"))
            await photo.generate_thumbnail(width=30)
        await session.commit()
        keys = {row.place: row.key for photo in post.photos for row in photo if not row.original}
    before: dict[int, bytes] = {}
    for number, key in keys.items():
        path = Path(place.store.path, place.store.name_of(key))
        before[number] = path.read_bytes()
        path.unlink()
    assert len(await mismatches(place, repair=True)) == 2
    async with place.sessions() as session:
        rows = await session.scalars(select(PostPhoto).where(PostPhoto.original.is_(False)))
        assert {row.place: await row.make_blob() for row in rows} == before


async def test_a_row_that_is_replaced_during_the_repair(place: Place) -> None:
    """A row that is replaced during the repair keeps its file, and the newly rendered file is deleted."""
    names = list(await picture(place, LOOKS[:1]))
    alter(place, names[1], b"broken")
    store = FaultyStore(place.store)

    async def replace(name: str) -> None:
        async with place.sessions.begin() as session:
            await session.execute(
                update(UserPicture.__table__)
                .where(UserPicture.__table__.c.original.is_(False))
                .values(revision="0" * 26)
            )

    store.on("put", replace, after=True)
    [mismatch] = [one async for one in verify(place.sessions, Base, store, repair=True)]
    assert not mismatch.repaired
    assert await place.names() == {*names}


async def test_a_repair_that_the_database_refuses(place: Place) -> None:
    """The error of the database is raised, and the newly rendered file is deleted."""
    names = list(await picture(place, LOOKS[:1]))
    alter(place, names[1], b"broken")
    refuse_updates(place, OperationalError("UPDATE", {}, Exception("read-only")))
    with pytest.raises(OperationalError):
        await mismatches(place, repair=True)
    assert await place.names() == {*names}


async def test_a_repair_in_which_a_callback_fails(place: Place) -> None:
    """The error of a callback is reported for the row, and the newly rendered file is deleted."""
    names = list(await picture(place, LOOKS[:1]))
    alter(place, names[1], b"broken")
    refuse_updates(place, ZeroDivisionError())
    [mismatch] = (await mismatches(place, repair=True)).values()
    assert (mismatch.repaired, type(mismatch.error)) == (False, ZeroDivisionError)
    assert await place.names() == {*names}


def refuse_updates(place: Place, error: Exception) -> None:
    """Raise an error in an event handler of the application, before an UPDATE."""

    @event.listens_for(place.engine.sync_engine, "before_cursor_execute")
    def refuse(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("UPDATE"):
            raise error


async def test_a_repair_during_a_move(place: Place) -> None:
    """A thumbnail that only the old store has gets the same name in the new store, so that both URLs work."""
    names = list(await picture(place, LOOKS[:1]))
    new = FaultyStore()
    async with await place.store.get_object(names[0]) as file:
        await new.inner.put_object(names[0], await file.read())

    async def migrated(name: str) -> None:  # by a concurrent migration
        async with await place.store.get_object(names[1]) as file:
            await new.inner.put_object(names[1], await file.read())

    sessions = async_sessionmaker(place.engine)
    for action in (None, migrated):
        if action is not None:
            await new.inner.delete_object(names[1])
            new.on("put", action)
        [mismatch] = [one async for one in verify(sessions, Base, new, repair=True)]
        assert (mismatch.problem, mismatch.repaired) == ("missing", True)
        assert await new.names() == await place.names() == {*names}
        assert await mismatches(place, deep=True) == {}


async def test_repairs_in_other_stores_are_refused(place: Place) -> None:
    """A repair in another store is refused, because rows would name files that the application's store lacks."""
    await picture(place, LOOKS[:1])
    other = MemoryStore()
    with pytest.raises(ValueError, match="repair: expected FileSystemStore"):
        verify(place.sessions, Base, other, repair=True)
    await own(place.sessions, Base)
    assert (await verify(place.sessions, Base, repair=True).execute()).counts["sound"] == 2
    plan = verify(async_sessionmaker(place.engine), Base, other, repair=True)
    with pytest.raises(RefusedError, match="nothing was repaired: post-photo/ in <MemoryStore of 0 files>: no owner"):
        await plan.execute()


async def test_an_old_file_that_cannot_be_deleted(place: Place) -> None:
    """The repair succeeds, and a sweep finds the old file."""
    names = list(await picture(place, LOOKS[:1]))
    alter(place, names[1], b"broken")
    store = FaultyStore(place.store)
    store.fail("delete")
    [mismatch] = [one async for one in verify(place.sessions, Base, store, repair=True)]
    assert mismatch.repaired
    assert len(await place.names()) == 3
    assert await mismatches(place, deep=True) == {}


async def test_offloaded_values_are_not_repaired(place: Place) -> None:
    """Files that are not images are never rendered."""
    [kind] = kinds(UserPicture)
    reference = FileReference(User, (1,), "user.bio", None, "user.bio/x", "text/plain", 1, None, True, None)
    assert not await rebuild(place.sessions, kind, reference, place.store)
