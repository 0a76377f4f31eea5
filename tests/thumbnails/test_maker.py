"""``ThumbnailMaker``: making the missing files of an original, and marking its row."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import String, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from aioimageattach import FocalPoint, Image, ImageLimits, Recipe, Srcset, ThumbnailMarks
from aioimageattach._declared.framing import WHOLE, Framing
from aioimageattach._declared.maker import Original
from aioimageattach._declared.names import DerivedName
from aioimageattach._names import revision_of
from aioimageattach.entity._derived import declarations_of, is_marked
from aioimageattach.exc import ProcessingError, StoreUnavailableError, UnreadableImageError
from aioimageattach.imaging import render
from aioimageattach.store import KeyedStore, ObjectInfo
from aioimageattach.stores import MemoryStore
from aioimageattach.stores.fs import FileSystemStore
from aioimageattach.thumbnails import _maker as making
from aioimageattach.thumbnails._maker import Made, ThumbnailMaker
from aioimageattach.thumbnails._marks import write_results
from aioimageattach.thumbnails._turns import Priority, turns
from tests.databases import Database
from tests.entity.models import engine_of, started, statements
from tests.thumbnails.models import Photo, Plain, all_thumbnails, names, put, row, size_of
from tests.thumbnails.test_server import Site, Troubled


def original_of(store: KeyedStore, row: Any) -> Original:
    """Return the original of a row."""
    found = Original.parse(store.name_of(row.key))
    assert found is not None
    return found


async def made(maker: ThumbnailMaker, row: Any, point: tuple[float, float] | None = None) -> Made:
    """Make all declared files of a row's picture."""
    original = original_of(maker.store, row)
    return await maker.make_missing(original, all_thumbnails(maker, original, point), Priority.NEW)


def counted(monkeypatch: pytest.MonkeyPatch, store: KeyedStore) -> dict[str, int]:
    """Count the decodes, and the originals that are read."""
    counts = {"decodes": 0, "reads": 0}
    get = store.get_object

    def rendered(*args: Any) -> Any:
        counts["decodes"] += 1
        return render(*args)

    async def opened(name: str, **options: Any) -> Any:
        counts["reads"] += 1
        return await get(name, **options)

    monkeypatch.setattr(making, "render", rendered)
    monkeypatch.setattr(store, "get_object", opened)
    return counts


# --- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("point", [None, (0.9, 0.5)])
async def test_all_files_are_made_from_one_read(
    store: KeyedStore, monkeypatch: pytest.MonkeyPatch, point: tuple[float, float] | None
) -> None:
    """All files that the row has URLs for are made in their sizes; a second call makes none."""
    original = await put(Photo, store)
    original.focal_point = point
    maker = ThumbnailMaker(store, [Photo, Plain])
    counts = counted(monkeypatch, store)
    first = await made(maker, original, point)
    site = Site(store)
    urls = {url.removeprefix("/thumbnails/") for name in Photo.__thumbnails__ for url in site.urls(original, name)}
    assert {*await names(store, "photo.t/")} == urls == {*first.made}
    assert counts == {"decodes": 1, "reads": 1}
    for name, size in first.made.items():
        async with await store.get_object(name) as file:
            blob = await file.read()
        assert len(blob) == size
        assert size_of(blob) == tuple(map(int, name.rpartition("/")[2].split(".")[1].split("x")))
    assert len(first.complete) == 3
    assert (first.existing, first.failed, first.error, first.is_gone) == ([], {}, None, False)
    counts.update(decodes=0, reads=0)
    second = await made(maker, original, point)
    assert (second.made, {*second.existing}) == ({}, urls)
    assert len(second.complete) == 3
    assert counts == {"decodes": 0, "reads": 0}


async def test_only_missing_files_are_made(store: KeyedStore) -> None:
    """The caller can pass the names of existing files, for example from a listing."""
    original, maker = await put(Photo, store), ThumbnailMaker(store, [Photo])
    [missing, *others] = (await made(maker, original)).made
    await store.delete_object(missing)
    assert {*(await made(maker, original)).made} == {missing}
    await store.delete_object(missing)
    parsed = original_of(store, original)
    result = await maker.make_missing(parsed, all_thumbnails(maker, parsed), Priority.REST, existing=others)
    assert ({*result.made}, {*result.existing}) == ({missing}, {*others})


async def test_thumbnails_by_name(store: KeyedStore) -> None:
    """An outdated name is resolved to the current files, and other names are left out."""
    original, other = await put(Photo, store), await put(Photo, store)
    maker = ThumbnailMaker(store, [Photo])
    parsed = original_of(store, original)
    current = {one.declaration.name: one for one in all_thumbnails(maker, parsed, (0.2, 0.7))}
    stems = [one.stem for one in current.values()]
    assert maker.thumbnails(parsed, stems) == list(current.values())
    name = DerivedName.parse(current["card"].stem)
    assert name is not None
    outdated = current["card"].stem[:-7] + "0000000"
    assert maker.thumbnails(parsed, [outdated, current["card"].stem]) == [current["card"]]
    assert maker.thumbnails(original_of(store, other), stems) == []
    assert maker.thumbnails(parsed, ["no name", current["card"].stem.replace("-card-", "-none-")]) == []
    assert ThumbnailMaker(store, [Plain]).thumbnails(parsed, stems) == []


async def test_originals_by_name(store: KeyedStore) -> None:
    """Originals, including those of SQLAlchemy-ImageAttach, are found by the names of their thumbnails."""
    maker = ThumbnailMaker(store, [Photo])
    original, legacy = await put(Photo, store), await put(Photo, store, revision=None, id=7)
    site = Site(store)
    [url] = site.urls(legacy, "share")
    stem = revision_of(url.removeprefix("/thumbnails/"))
    assert stem is not None
    name = store.legacy_name(legacy.key)
    found = await maker.find_original(name, [stem])
    assert found is not None
    assert (found.name, found.width) == (name, 451)
    result = await maker.make_missing(found, maker.thumbnails(found, [stem]), Priority.NEW)
    assert [*result.made] == [url.removeprefix("/thumbnails/")]
    assert await maker.find_original(store.name_of(original.key), []) == original_of(store, original)
    assert await maker.find_original("photo/7/0/8.451x300.jpe", [stem]) is None
    assert await maker.find_original("photo/7/0/8.451x300.jpe", []) is None


async def test_classes_with_their_own_limits(store: KeyedStore) -> None:
    """If two classes share an object type, each renders with its own limits."""

    class Own(DeclarativeBase):
        """A separate registry."""

    class Small(Own, Image):
        """A class with lower limits."""

        __tablename__ = "photo"
        __image_limits__ = ImageLimits(max_pixels=1000)
        __thumbnails__ = {"card": Srcset([33], quality=30, fallback=None)}
        id: Mapped[int] = mapped_column(primary_key=True)

    original = await put(Photo, store)
    result = await made(ThumbnailMaker(store, [Small, Photo]), original)
    assert [name for name in result.failed if ".33x" in name] == [*result.failed]
    assert len(result.failed) == 1
    assert len(result.made) == 8


# --- failures --------------------------------------------------------------------------------------------------------


async def test_a_broken_original_fails_once(store: KeyedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """All files fail, and the error is remembered for a while, as in the server."""
    original, maker = await put(Photo, store, b"not a picture" * 99), ThumbnailMaker(store, [Photo])
    counts = counted(monkeypatch, store)
    for _ in range(2):
        result = await made(maker, original)
        assert len(result.failed) == 8
        assert isinstance(result.error, UnreadableImageError)
        assert (result.made, result.complete) == ({}, [])
    assert counts["reads"] == 1


def broken(picture: Any) -> Any:
    """Raise an error."""
    raise ZeroDivisionError


@pytest.mark.parametrize("alone", [False, True])
async def test_one_thumbnail_may_fail(store: KeyedStore, alone: bool) -> None:
    """If one thumbnail fails, the others are still made."""

    class Own(DeclarativeBase):
        """A separate registry."""

    class Bad(Own, Image):
        """A class with a thumbnail that cannot be made."""

        __tablename__ = "photo"
        __thumbnails__ = {
            "bad": Recipe(width=9, postprocess=broken, variant="broken"),
            **({} if alone else {"card": Srcset([60, 120])}),
        }
        id: Mapped[int] = mapped_column(primary_key=True)

    result = await made(ThumbnailMaker(store, [Bad]), await put(Bad, store))
    assert len(result.failed) == 1
    assert isinstance(result.error, ZeroDivisionError | ProcessingError)
    assert len(result.made) == (0 if alone else 3)
    assert [one.declaration.name for one in result.complete] == ([] if alone else ["card"])


@pytest.mark.parametrize("failing", ["get", "put", "head", "list"])
async def test_a_store_that_fails(failing: str) -> None:
    """Each missing file is reported with the error, and can be made later."""

    class Unlisted(Troubled):
        """A store whose listings fail, too."""

        async def list_objects(self, prefix: str = "", *, start_after: str = "") -> AsyncIterator[ObjectInfo]:
            self.check("list")
            async for info in super().list_objects(prefix, start_after=start_after):
                yield info

    store = Unlisted()
    original, maker = await put(Photo, store), ThumbnailMaker(store, [Photo])
    store.failing = failing
    result = await made(maker, original)
    assert isinstance(result.error, StoreUnavailableError)
    assert len(result.failed) == 8
    store.failing = ""
    result = await made(maker, original)
    assert len(result.complete) == 3


async def test_a_store_that_fails_between_thumbnails() -> None:
    """Files that were put are kept, and the others are reported."""

    class Own(DeclarativeBase):
        """A separate registry."""

    class Bad(Own, Image):
        """A class with a thumbnail that cannot be made."""

        __tablename__ = "photo"
        __thumbnails__ = {
            "card": Srcset([60], fallback=None),
            "bad": Recipe(width=9, postprocess=broken, variant="broken"),
            "other": Srcset([70], fallback=None),
        }
        id: Mapped[int] = mapped_column(primary_key=True)

    class Once(MemoryStore):
        """A store that puts only one thumbnail."""

        async def put_object(self, name: str, *args: Any, **options: Any) -> None:
            if name.startswith("photo.t/") and await names(self, "photo.t/"):
                raise StoreUnavailableError("out of order")
            await super().put_object(name, *args, **options)

    store = Once()
    result = await made(ThumbnailMaker(store, [Bad]), await put(Bad, store))
    assert len(result.made) == 1
    assert len(result.failed) == 2
    assert isinstance(result.error, StoreUnavailableError)


async def test_an_original_that_is_gone(store: KeyedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """No files are made, and none are left if the original is deleted in the meantime."""
    maker, loop = ThumbnailMaker(store, [Photo]), asyncio.get_running_loop()
    assert (await made(maker, row(Photo, store))).is_gone
    original = await put(Photo, store)

    def deleted(*args: Any) -> Any:
        asyncio.run_coroutine_threadsafe(store.discard(original.key), loop).result()
        return render(*args)

    monkeypatch.setattr(making, "render", deleted)
    assert (await made(maker, original)).is_gone
    assert await names(store) == []


async def test_places_are_shared_with_the_server(store: KeyedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work that no request waits for leaves a place to requests."""
    monkeypatch.setattr(making, "render", lambda *args: seen.append(turns_of.active) or render(*args))
    seen: list[int] = []
    turns_of = turns()
    maker, site = ThumbnailMaker(store, [Photo], concurrency=3), Site(store, concurrency=3)
    originals = [await put(Photo, store) for _ in range(6)]
    requests = [site.ask(site.urls(original, "share")[0]) for original in originals]
    results = await asyncio.gather(*(made(maker, original) for original in originals), *requests)
    assert {len(one.complete) for one in results if isinstance(one, Made)} == {3}
    assert max(seen) <= 3
    assert turns_of.active == 0
    assert ThumbnailMaker(store, [Photo], concurrency=1).background == 1
    with pytest.raises(ValueError, match="concurrency: expected at least 1"):
        ThumbnailMaker(store, [Photo], concurrency=0)


# --- marks -----------------------------------------------------------------------------------------------------------


class Base(DeclarativeBase):
    """The declarative base of the classes with marks."""


class Cover(Base, Image, FocalPoint, ThumbnailMarks):
    """A picture with marks."""

    __tablename__ = "cover"
    __thumbnails__ = {
        "icon": Srcset([24], aspect=(1, 1), fallback=None),
        "card": Srcset([60], fallback=None),
        "bad": Recipe(width=9, postprocess=broken, variant="broken"),
    }
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "cover"}
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(10))


class Back(Cover):
    """A class in the same table, with other thumbnails."""

    __thumbnails__ = {"icon": Srcset([32], aspect=(1, 1), quality=30, fallback=None)}
    __mapper_args__ = {"polymorphic_identity": "back"}


@pytest.fixture
async def sessions(database: Database) -> async_sessionmaker[AsyncSession]:
    """Sessions on each kind of database."""
    return await started(database, Base.metadata, expire_on_commit=False)


async def inserted(sessions: async_sessionmaker[AsyncSession], store: KeyedStore, cls: type[Any], number: int) -> Any:
    """Insert and return the row of a picture."""
    original = await put(cls, store)
    columns = {column.key: getattr(original, column.key) for column in cls.__table__.columns}
    columns |= {"id": number, "kind": cls.__mapper_args__["polymorphic_identity"], "variant": ""}
    async with sessions.begin() as session:
        await session.execute(cls.__table__.insert().values({**columns, "created_at": datetime.now(UTC)}))
        return await session.scalar(select(cls).where(cls.id == number))


async def test_complete_thumbnails_are_marked(sessions: async_sessionmaker[AsyncSession], tmp_path: Path) -> None:
    """One UPDATE per class marks the rows that still have this picture, if all thumbnails were considered."""
    store = FileSystemStore(tmp_path, "/", fsync=False)
    maker = ThumbnailMaker(store, [Cover, Photo])
    rows = [await inserted(sessions, store, Back if number == 2 else Cover, number) for number in (1, 2, 3, 4)]
    results = []
    for one in rows:
        original = original_of(store, one)
        thumbnails = [
            thumbnail
            for thumbnail in all_thumbnails(maker, original, (0.25, 0.5))
            if thumbnail.declaration in declarations_of(type(one)).values()
        ]
        results.append(await maker.make_missing(original, thumbnails[: 2 if one.id == 3 else 9], Priority.NEW))
    async with sessions.begin() as session:
        table = Cover.__table__
        await session.execute(table.update().where(table.c.id == 4).values(revision=store.make_revision()))
    with statements(sessions) as sent:
        for some in (results[:1], results[2:3], results):
            await write_results(sessions, maker.classes, store, some)
        await write_results(
            sessions, maker.classes, MemoryStore(), results
        )  # other processes would not recognise this store
    # a row that another transaction may have locked, such as the one that was replaced, is written separately
    assert len([one for one in sent if one.startswith("UPDATE")]) == (3 if engine_of(sessions).name == "sqlite" else 4)
    async with sessions() as session:
        found = {one.id: one for one in await session.scalars(select(Cover))}
    marked = [
        (number, name, framing.text)
        for number, one in found.items()
        for name, declaration in declarations_of(type(one)).items()
        for framing in (WHOLE, Framing(point=(25, 50)))
        if is_marked(one, declaration, framing, store, "cover")
    ]
    assert marked == [(1, "icon", "025050"), (1, "card", ""), (2, "icon", "025050")]
