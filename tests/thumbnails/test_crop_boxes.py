"""Declared thumbnails of originals with a crop box: on pages, from the server, and made ahead."""

from __future__ import annotations

import asyncio
import io
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow
from sqlalchemy import ForeignKey, select, update
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from taskiq import InMemoryBroker

from aioimageattach import (
    CropBox,
    FocalPoint,
    Image,
    Placeholder,
    Recipe,
    Srcset,
    ThumbnailMarks,
    ThumbnailServer,
    ThumbnailWorker,
    bind_store,
    image_attachment,
)
from aioimageattach._declared.framing import COLUMNS, Framing
from aioimageattach._declared.maker import Original, thumbnail_of
from aioimageattach._declared.names import DerivedName, stem_of
from aioimageattach._declared.srcset import declarations
from aioimageattach.entity._derived import declared_files
from aioimageattach.imaging import render
from aioimageattach.imaging._limits import DEFAULT_LIMITS
from aioimageattach.maintenance import sweep, verify
from aioimageattach.schemas import PictureOut
from aioimageattach.store import KeyedStore
from aioimageattach.stores import MemoryStore, OverlayStore, SplitStore
from aioimageattach.stores.fs import FileSystemStore
from aioimageattach.taskiq import ThumbnailTasks
from aioimageattach.thumbnails import _server as server
from aioimageattach.thumbnails import backfill
from tests import photos
from tests.databases import Database
from tests.entity.models import started
from tests.entity.test_crop_boxes import BOX, PIXELS, difference
from tests.maintenance.test_derived import Aged
from tests.thumbnails.models import declared, names, put, row, size_of
from tests.thumbnails.test_server import BASE, Gate, Site, is_refused

LIMITS = DEFAULT_LIMITS.allow("image/svg+xml", "application/pdf")

Sessions = async_sessionmaker[AsyncSession]


class Base(DeclarativeBase):
    """Declarative base of these models."""


class Product(Base):
    """Has a cover."""

    __tablename__ = "product"
    id: Mapped[int] = mapped_column(primary_key=True)
    cover = image_attachment["Cover"]("Cover")
    clip = image_attachment["Clip"]("Clip")


class Cover(Base, Image, FocalPoint, CropBox, Placeholder, ThumbnailMarks):
    """Has thumbnails of every kind, without loss, so that their pixels can be compared."""

    __tablename__ = "cover"
    __image_limits__ = LIMITS
    __thumbnails__ = {
        "icon": Srcset([24, 48], aspect=(1, 1), sizes="24px", formats=["png"], fallback=None),
        "card": Srcset([60, 120, 300], sizes="100vw", formats=["png"], fallback=None),
        "right": Srcset([50], crop=(0.5, 0, 0.5, 1), formats=["png"], fallback=None),
        "share": Recipe(width=120, height=63, format="png"),
    }
    product_id: Mapped[int] = mapped_column(ForeignKey(Product.id), primary_key=True)


class Clip(Base, Image, FocalPoint, ThumbnailMarks):
    """Has columns with the names of a crop box and another meaning, and no crop box."""

    __tablename__ = "clip"
    __thumbnails__ = {"icon": Srcset([24], aspect=(1, 1), fallback=None), "card": Srcset([60], fallback=None)}
    product_id: Mapped[int] = mapped_column(ForeignKey(Product.id), primary_key=True)
    crop_left: Mapped[int | None]
    crop_top: Mapped[int | None]
    crop_width: Mapped[int | None]
    crop_height: Mapped[int | None]


class Moving(Base, Image, CropBox):
    """Keeps animations."""

    __tablename__ = "moving"
    __thumbnails__ = {"card": Srcset([60, 400], animated=True, fallback=None, sizes="100vw")}
    id: Mapped[int] = mapped_column(primary_key=True)


class Longest(Base, Image, FocalPoint, CropBox):
    """Has a thumbnail with the longest possible name."""

    __tablename__ = "longest"
    __thumbnails__ = {"a_sixteen_letter": Srcset([24], aspect=(1, 1), fallback=None)}
    id: Mapped[int] = mapped_column(primary_key=True)


@pytest.fixture
def store(tmp_path: Path) -> FileSystemStore:
    """A store in a directory."""
    (tmp_path / "files").mkdir()
    return FileSystemStore(tmp_path / "files", "/files/", fsync=False)


@pytest.fixture
async def sessions(database: Database, store: FileSystemStore) -> Sessions:
    """Sessions on each of the databases."""
    made = await started(database, Base.metadata, expire_on_commit=False)
    bind_store(made, store, thumbnails=ThumbnailServer(store, [Cover, Clip], base_url=BASE))
    return made


async def attached(sessions: Sessions, *, ahead: bool = False, **values: Any) -> Cover:
    """Return the row of a new cover, with the given attributes."""
    async with sessions.begin() as session:
        session.add(product := Product())
        original = await product.cover.from_blob(photos.photo("chelsea"))
        for name, value in values.items():
            setattr(original, name, value)
        if ahead:
            await product.cover.generate_thumbnails()
    return original


def width_of(url: str) -> int:
    """Return the width in a URL."""
    return int(url.rpartition("/")[2].split(".")[1].partition("x")[0])


# --- pixels ----------------------------------------------------------------------------------------------------------


async def expected(recipe: Recipe, pixels: tuple[int, int, int, int] = PIXELS) -> bytes:
    """Return a rendering of the photograph that was cropped beforehand, without the library."""
    blob = photos.saved(photos.opened("chelsea").crop(pixels), "PNG")
    return (await asyncio.to_thread(render, blob, [recipe]))[0].blob


@pytest.mark.parametrize("orientation", range(9))
async def test_thumbnails_show_the_box(store: KeyedStore, orientation: int) -> None:
    """Thumbnails look like those of a picture that was cropped beforehand, whatever the orientation in the file."""
    blob = photos.oriented(orientation, "PNG") if orientation else photos.photo("chelsea")
    mimetype = "image/png" if orientation else "image/jpeg"
    site, original = Site(store, Cover), await put(Cover, store, blob, mimetype=mimetype)
    original.crop_box = BOX
    found = {url: (await site.ask(url)).body for name in Cover.__thumbnails__ for url in site.urls(original, name)}
    recipes = {
        "-icon-": [Recipe(width=24, height=24), Recipe(width=48, height=48)],
        "-card-": [Recipe(width=60), Recipe(width=120), Recipe(width=225)],
        "-right-": [Recipe(width=50)],
        "-share-": [Recipe(width=120, height=63)],
    }
    for name, some in recipes.items():
        bodies = [body for url, body in found.items() if name in url]
        for body, recipe in zip(bodies, some, strict=True):
            pixels = (226, 30, 338, 270) if name == "-right-" else PIXELS
            # a JPEG is decoded at a fraction of its size, and the box is rounded to the pixels of the decoded picture
            assert difference(body, await expected(recipe, pixels)) < (1.5 if orientation else 7), (name, recipe)


async def test_the_focal_point_applies_inside_of_the_box(store: KeyedStore) -> None:
    """It is that of the whole picture; thumbnails that are not cropped to a ratio do not depend on it."""
    site, original = Site(store, Cover), await put(Cover, store)
    original.crop_box = BOX
    [card, *_] = site.urls(original, "card")
    original.focal_point = 0.375, 0.82
    assert site.urls(original, "card")[0] == card
    [share] = site.urls(original, "share")
    assert "-share-25107489038082-" in share
    assert "-card-25107489-" in card
    recipe = Recipe(width=120, height=63, gravity=(0.25, 0.9))
    assert difference((await site.ask(share)).body, await expected(recipe)) < 1.5


@pytest.mark.parametrize(
    ("blob", "mimetype", "size", "widths"),
    [
        (photos.SVG, "image/svg+xml", (240, 120), [60, 120, 300]),
        (photos.pdf(), "application/pdf", (300, 200), [60, 120, 300]),
        (photos.transparent_png(), "image/png", (451, 300), [60, 120, 225]),
        (photos.animated_gif(), "image/gif", (320, 214), [60, 120, 160]),
    ],
)
async def test_other_kinds_of_originals(
    store: KeyedStore, blob: bytes, mimetype: str, size: tuple[int, int], widths: list[int]
) -> None:
    """Vector images have all widths, and other pictures at most the width of the box."""
    site = Site(store, Cover)
    original = await put(Cover, store, blob, mimetype=mimetype, width=size[0], height=size[1])
    [whole] = await asyncio.to_thread(render, blob, [Recipe(width=2 * size[0], format="png")], LIMITS)
    original.crop_box = BOX
    urls = site.urls(original, "card")
    assert [width_of(url) for url in urls] == widths
    picture = Pillow.open(io.BytesIO(whole.blob)).convert("RGBA")
    left, top, width, height = BOX
    edges = left, top, left + width, top + height
    pixels = [round(edge * side) for edge, side in zip(edges, picture.size * 2, strict=True)]
    for url in urls:
        body = (await site.ask(url)).body
        shown = picture.crop((pixels[0], pixels[1], pixels[2], pixels[3])).resize(size_of(body))
        assert difference(body, photos.saved(shown, "PNG")) < 5


@pytest.mark.parametrize(
    ("blob", "mimetype"), [(photos.animated_gif, "image/gif"), (photos.animated_webp, "image/webp")]
)
async def test_every_frame_of_an_animation_is_cropped(store: KeyedStore, blob: Any, mimetype: str) -> None:
    """The frames show the box, and are not larger."""
    site = Site(store, Moving)
    original = await put(Moving, store, blob(), mimetype=mimetype, width=320, height=214)
    original.crop_box = BOX
    urls = site.urls(original, "card")
    assert [width_of(url) for url in urls] == [60, 160]
    source, made = Pillow.open(io.BytesIO(blob())), Pillow.open(io.BytesIO((await site.ask(urls[1])).body))
    assert (made.n_frames, made.size) == (5, (160, 172))  # type: ignore[attr-defined]
    for frame in range(5):
        source.seek(frame)
        made.seek(frame)
        shown = source.convert("RGB").crop((80, 21, 240, 193))
        assert difference(photos.saved(made.convert("RGB"), "PNG"), photos.saved(shown, "PNG")) < 8


# --- sizes -----------------------------------------------------------------------------------------------------------

SIDES = st.floats(0, 1)


@given(
    size=st.tuples(st.integers(1, 5000), st.integers(1, 5000)),
    values=st.fixed_dictionaries({name: st.none() | SIDES for name in COLUMNS})
    | st.fixed_dictionaries(dict.fromkeys(COLUMNS, SIDES)),
    widths=st.lists(st.integers(1, 5000), min_size=1, max_size=4, unique=True),
    aspect=st.none() | st.tuples(st.integers(1, 20), st.integers(1, 20)),
    crop=st.none() | st.just((0.25, 0.1, 0.5, 0.3)),
    mimetype=st.sampled_from(["image/jpeg", "image/gif", "image/svg+xml"]),
)
def test_pages_and_the_server_calculate_the_same_files(
    size: tuple[int, int],
    values: dict[str, float | None],
    widths: list[int],
    aspect: tuple[int, int] | None,
    crop: tuple[float, float, float, float] | None,
    mimetype: str,
) -> None:
    """The server knows only the name of the original and that of one file; no file is larger than the part shown."""
    some = {
        "one": Srcset(widths, aspect=aspect, crop=crop, animated=True),
        "two": Recipe(width=widths[0], height=widths[-1], fit="contain", crop=crop),
    }
    all_declared = declarations(some, "Photo", DEFAULT_LIMITS)
    original = Original("photo/x", "photo", "01m8mvtw392my0qm9gn0r3dt55cabcde", *size, mimetype)
    for name, declaration in all_declared.items():
        framing = declaration.relevant(Framing.of(values))
        page = declaration.ladder(*size, mimetype, framing)
        stem = stem_of(original.revision, name, declaration.look, framing)
        parsed = DerivedName.parse(stem)
        assert parsed is not None
        found = thumbnail_of(original, parsed, [declarations(some, "Photo", DEFAULT_LIMITS)])
        assert found is not None
        assert (found.stem, found.framing) == (stem, framing)
        assert [step.tail for step in found.ladder.steps] == [step.tail for step in page.steps]
        part = framing.boxed(some[name] if isinstance(some[name], Recipe) else some[name].recipe).part(size)
        for step in page.steps:
            recipe = found.recipe_of(step)
            assert recipe.target(size, original=mimetype) == (step.width, step.height)
            assert recipe.part(size) == part
            if mimetype != "image/svg+xml" and name == "one":
                assert (step.width <= part.width, step.height <= part.height) == (True, True)


async def test_pages_show_the_box(sessions: Sessions, store: KeyedStore) -> None:
    """The widths end with that of the box; elements and JSON have the proportions of the box."""
    original = await attached(sessions, crop_box=BOX)
    async with sessions() as session:
        product = await session.get_one(Product, original.product_id)
        cover = product.cover
        assert [(one.width, one.height) for one in cover.candidates("card")] == [(60, 64), (120, 128), (225, 240)]
        assert [url.rpartition(" ")[2] for url in cover.srcset("card").split(", ")] == ["60w", "120w", "225w"]
        assert cover.thumbnail_size("icon") == (48, 48)
        assert cover.thumbnail_size("share") == (120, 63)
        html = cover.picture("card")
        assert 'width="120" height="128"' in html
        assert html.count("-card-25107489-") == 4
        out = PictureOut.model_validate(cover)
        assert (out.width, out.height) == (451, 300)
        assert (out.thumbnails["card"].width, out.thumbnails["card"].height) == (120, 128)
        assert "-card-25107489-" in out.thumbnails["card"].srcset


# --- changes ---------------------------------------------------------------------------------------------------------


async def test_a_changed_box_is_another_picture(sessions: Sessions, store: KeyedStore) -> None:
    """Its URLs are new, marks of the old box are not valid, and old URLs still show the old box."""
    original = await attached(sessions, ahead=True)
    site = Site(store, Cover)

    async def urls() -> list[str]:
        async with sessions() as session:
            cover = (await session.get_one(Product, original.product_id)).cover
            return [url.url for name in Cover.__thumbnails__ for url in cover.candidates(name)]

    before = await urls()
    assert all(url.startswith("/files/cover.t/") for url in before)
    async with sessions.begin() as session:
        (await session.get_one(Product, original.product_id)).cover.require_original().crop_box = BOX
    after = await urls()
    assert all(url.startswith(f"{BASE}cover.t/") for url in after)
    shown = {url: (await site.ask(url)).body for url in after}
    for url in before:
        told = await site.ask(BASE + url.removeprefix("/files/"))
        assert (told.status, told.body in shown.values()) == (200, False)
    async with sessions.begin() as session:
        await (await session.get_one(Product, original.product_id)).cover.generate_thumbnails()
    assert await urls() == ["/files/" + url.removeprefix(BASE) for url in after]
    async with sessions.begin() as session:
        (await session.get_one(Product, original.product_id)).cover.require_original().crop_box = 0, 0, 0.5, 0.5
    assert not {*await urls()} & {*before, *after}


async def test_old_urls_of_a_changed_recipe_lead_to_the_same_part(store: KeyedStore) -> None:
    """Each redirects to the present file of the nearest width, with the box in the name."""

    class Own(DeclarativeBase):
        """A separate registry."""

    class Old(Own, Image, FocalPoint, CropBox):
        """Another version."""

        __tablename__ = "cover"
        __thumbnails__ = {"card": Srcset([70, 200], quality=30), "right": Srcset([40], aspect=(1, 2))}
        id: Mapped[int] = mapped_column(primary_key=True)

    site, original = Site(store, Cover), await put(Cover, store)
    old = row(Old, store, revision=original.revision)
    for one in (original, old):
        one.crop_box, one.focal_point = BOX, (0.3, 0.3)
    now = site.urls(original, "card")
    told = [await site.ask(url) for url in Site(store, Old).urls(old, "card")]
    assert [(one.status, one.headers["location"]) for one in told] == [(302, now[0]), (302, now[2]), (302, now[2])]
    [right] = site.urls(original, "right")
    for url in Site(store, Old).urls(old, "right"):
        assert (await site.ask(url)).headers["location"] == right
    outdated = {info.name async for info in site.server.prune(grace=timedelta(0))}
    assert outdated == set()
    async for info in Site(store, Old).server.prune(grace=timedelta(0), delete=True):
        outdated.add(info.name)
    assert {BASE + name for name in outdated} >= {now[0], now[2], right}


async def test_thumbnails_are_deleted_with_their_original(sessions: Sessions, store: KeyedStore) -> None:
    """Files of the box and of the whole picture are deleted, also if one of the same size replaces it."""
    for replaced in (False, True):
        original = await attached(sessions, ahead=True)
        async with sessions.begin() as session:
            cover = (await session.get_one(Product, original.product_id)).cover
            cover.require_original().crop_box = BOX
            cover.require_original().focal_point = 0.2, 0.2
            await session.flush()
            await cover.generate_thumbnails()
        before = await names(store, "cover.t/")
        assert len(before) == 14
        async with sessions.begin() as session:
            product = await session.get_one(Product, original.product_id)
            if replaced:
                await product.cover.from_blob(photos.saved(photos.opened("coffee", (451, 300)), "JPEG"))
            else:
                await product.cover.delete()
        assert await names(store, "cover.t/") == []


async def test_files_of_a_box_and_of_a_point_are_deleted(sessions: Sessions, store: KeyedStore) -> None:
    """Pages may have shown the picture when only one of them was set."""
    original = await attached(sessions)
    for changes in ({}, {"crop_box": BOX}, {"crop_box": None, "focal_point": (0.1, 0.1)}, {"crop_box": BOX}):
        async with sessions.begin() as session:
            cover = (await session.get_one(Product, original.product_id)).cover
            for name, value in changes.items():
                setattr(cover.require_original(), name, value)
            await session.flush()
            await cover.generate_thumbnails()
    assert len(await names(store, "cover.t/")) == 2 * 7 + 2 * 3
    async with sessions.begin() as session:
        await (await session.get_one(Product, original.product_id)).cover.delete()
    assert await names(store, "cover.t/") == []


async def test_columns_of_the_same_names(sessions: Sessions, store: FileSystemStore) -> None:
    """Without the mixin, an application's columns are copied to thumbnails, and are not read as a crop box."""
    columns = {"crop_left": 100, "crop_top": 50, "crop_width": 20, "crop_height": 10}
    async with sessions.begin() as session:
        session.add(product := Product())
        original = await product.clip.from_blob(photos.photo("chelsea"), extra_kwargs=columns)
        original.focal_point = 0.2, 0.2
        thumbnail = await product.clip.generate_thumbnail(width=50)
        assert {name: getattr(thumbnail, name) for name in columns} == columns
        assert thumbnail.size == (50, 33)
    await (plan := backfill(sessions, Clip)).execute()
    assert (plan.progress.counts["made"], plan.progress.counts["marked"]) == (2, 1)
    assert await names(store, "clip.t/") == declared(original, store)
    assert [one async for one in verify(sessions, Base, store=store)] == []
    async with sessions.begin() as session:
        clip = (await session.get_one(Product, product.id)).clip
        assert str(clip.url("icon")).startswith("/files/clip.t/")
        await clip.delete()
    assert await names(store, "clip.t/") == []


async def test_the_placeholder_is_that_of_the_whole_picture(sessions: Sessions, store: KeyedStore) -> None:
    """A box does not change the placeholder."""
    [plain, boxed] = [await attached(sessions, ahead=True, crop_box=box) for box in (None, BOX)]
    assert (boxed.thumbhash, boxed.dominant_colour) == (plain.thumbhash, plain.dominant_colour)


# --- made ahead, and maintained --------------------------------------------------------------------------------------


async def test_workers_make_the_box_of_the_commit(sessions: Sessions, store: FileSystemStore) -> None:
    """A worker in the process and tasks make the files of the box, and mark the row."""
    async with ThumbnailWorker(store, [Cover], sessions=sessions) as worker:
        original = await attached(sessions, crop_box=BOX)
        await worker.join()
    assert await names(store, "cover.t/") == declared(original, store)
    async with ThumbnailTasks(InMemoryBroker(await_inplace=True), store, [Cover], sessions=sessions) as tasks:
        other = await attached(sessions, crop_box=(0, 0, 0.5, 0.5))
        stems = [one.key_for(other).revision or "" for one in declared_files(other)]
        await tasks.enqueue(store.name_of(other.key), list(dict.fromkeys(stems)))
    assert await names(store, "cover.t/") == sorted(declared(original, store) + declared(other, store))
    async with sessions() as session:
        for cover in await session.scalars(select(Cover)):
            assert str(cover.url("card")).startswith("/files/cover.t/")


@pytest.mark.parametrize("changed", [{"crop_box": BOX}, {"focal_point": (0.1, 0.1)}])
async def test_a_box_that_is_set_after_the_thumbnails_were_made(
    sessions: Sessions, store: FileSystemStore, changed: dict[str, Any]
) -> None:
    """No mark leads to a missing file, and a worker gets the names with the box that was committed."""
    async with ThumbnailWorker(store, [Cover]) as worker:
        async with sessions.begin() as session:
            session.add(product := Product())
            original = await product.cover.from_blob(photos.photo("chelsea"))
            await product.cover.generate_thumbnails()
            for name, value in changed.items():
                setattr(original, name, value)
        async with sessions() as session:
            cover = (await session.get_one(Product, original.product_id)).cover
            urls = [one.url for name in Cover.__thumbnails__ for one in cover.candidates(name)]
        for url in urls:
            assert url.startswith(BASE) or (Path(store.path) / url.removeprefix("/files/")).exists()
        await worker.join()
    assert {*declared(original, store)} <= {*await names(store, "cover.t/")}
    async with sessions.begin() as session:
        product = await session.get_one(Product, original.product_id)
        await product.cover.delete()
    assert [name for name in await names(store, "cover.t/") if name in declared(original, store)] == []


async def test_backfills_make_the_boxes_of_the_rows(sessions: Sessions, store: FileSystemStore) -> None:
    """A backfill makes and marks the files of boxes that an UPDATE has written, and ``verify`` checks them."""
    originals = [await attached(sessions, ahead=True) for _ in range(3)]
    values = dict(zip(("crop_left", "crop_top", "crop_width", "crop_height"), (0.333, 0.1, 0.5, 0.8), strict=True))
    async with sessions.begin() as session:
        await session.execute(update(Cover).values(values).where(Cover.product_id != originals[0].product_id))
    plan = backfill(sessions, Cover)
    await plan.execute()
    assert (plan.progress.counts["made"], plan.progress.counts["marked"]) == (14, 2)
    await (again := backfill(sessions, Cover)).execute()
    assert (again.progress.counts["made"], again.progress.counts["marked"]) == (0, 0)
    async with sessions() as session:
        rows = [*await session.scalars(select(Cover).order_by(Cover.product_id))]
    assert [one.crop_box for one in rows] == [None, *[(0.34, 0.1, 0.49, 0.8)] * 2]
    [path] = [name for name in declared(rows[2], store) if "-share-" in name]
    assert "-share-34108289-" in path
    await store.delete_object(path)
    found = [one async for one in verify(sessions, Base, store=store)]
    assert [(one.problem, one.expected, one.actual) for one in found] == [("thumbnails", 7, 6)]


async def test_sweeps_know_the_files_of_a_box(sessions: Sessions) -> None:
    """Files are kept as long as the row of the original exists, whatever box it has now."""
    store = Aged()
    bind_store(sessions, store, thumbnails=ThumbnailServer(store, [Cover], base_url=BASE))
    originals = [await attached(sessions, ahead=True, crop_box=BOX, focal_point=(0.2, 0.2)) for _ in range(2)]
    gone = declared(originals[1], store)
    async with sessions.begin() as session:
        (await session.get_one(Product, originals[0].product_id)).cover.require_original().crop_box = None
        await session.execute(Cover.__table__.delete().where(Cover.product_id == originals[1].product_id))
    store.age()
    orphans = {orphan.name async for orphan in sweep(sessions, Base, store=store, max_share=1)}
    assert orphans == {*gone, store.name_of(originals[1].key)}


# --- the server ------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["overlay", "split"])
def combined(request: pytest.FixtureRequest, store: FileSystemStore) -> KeyedStore:
    """Stores that look at names."""
    other = MemoryStore("other:/")
    return OverlayStore(store, other) if request.param == "overlay" else SplitStore(other, store)


async def test_stores_that_look_at_names(combined: KeyedStore, store: FileSystemStore) -> None:
    """An overlay and a split store recognise the longest names with a box and a point."""
    original = await put(Longest, combined)
    for box, point in ((BOX, None), (None, (0.1, 0.1)), (BOX, (0.1, 0.1))):
        original.crop_box, original.focal_point = box, point
        site = Site(combined, Longest)
        [url] = site.urls(original, "a_sixteen_letter")
        told = await site.ask(url)
        assert (told.status, size_of(told.body)) == (200, (24, 24))
        assert (Path(store.path) / url.removeprefix(BASE)).read_bytes() == told.body


async def test_a_busy_server_shows_no_other_part(store: KeyedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """It redirects only to files with the same box, and otherwise asks the browser to try again."""
    site, original = Site(store, Cover, max_wait=0.01, concurrency=1), await put(Cover, store)
    for url in site.urls(original, "card"):
        await site.ask(url)
    await site.settle()
    original.crop_box = BOX
    urls = site.urls(original, "card")
    gate = Gate(monkeypatch)
    other = await put(Cover, store)
    holding = asyncio.create_task(site.ask(site.urls(other, "card")[0]))
    await gate.entered.wait()
    told = await site.ask(urls[0])
    assert told.status == 503
    gate.opened.set()
    await holding
    await site.settle()
    assert (await site.ask(urls[0])).status == 200


async def test_boxes_cannot_fill_the_disk(store: KeyedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that knows the original's URL can calculate names for all boxes, but only some files are made."""
    monkeypatch.setattr(server, "_MAX_FRAMINGS", 2)
    site, original = Site(store, Cover), await put(Cover, store)
    for number in range(4):
        original.crop_box = number / 10, 0, 0.5, 0.5
        told = await site.ask(site.urls(original, "right")[0])
        assert told.status == (200 if number < 2 else 503)
        await site.settle()
    assert len(await names(store, "cover.t/")) == 2


async def test_points_do_not_use_up_the_boxes(store: KeyedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client can request all points of a box, and a box that an editor chooses afterwards is shown nevertheless."""
    monkeypatch.setattr(server, "_MAX_FRAMINGS", 3)
    site, original = Site(store, Cover), await put(Cover, store)
    statuses = []
    for box, points in (((0, 0, 0.5, 0.5), 4), (BOX, 2), ((0, 0, 0.4, 0.5), 2), ((0, 0, 0.3, 0.5), 2)):
        original.crop_box = box
        for number in range(points):
            original.focal_point = number / 10, 0.5
            statuses.append((await site.ask(site.urls(original, "icon")[0])).status)
            await site.settle()
    assert statuses == [200, 200, 200, 302, 200, 302, 200, 302, 503, 503]


async def test_forged_boxes_are_refused(store: KeyedStore) -> None:
    """Names with a changed, removed or added box, a box in place of a point, or an impossible box are not found."""
    site, original = Site(store, Cover), await put(Cover, store)
    plain = site.urls(original, "share")
    original.focal_point = 0.2, 0.2
    pointed = site.urls(original, "share")
    original.crop_box = BOX
    both = site.urls(original, "share")
    original.focal_point = None
    boxed = site.urls(original, "share")
    forged = [
        *[plain[0].replace("-share-", f"-share-{text}-") for text in ("25107489", "00009899", "00009999")],
        *[pointed[0].replace("-020020-", f"-{text}-") for text in ("25107489", "25107489020020", "9900989")],
        *[both[0].replace("25107489", text) for text in ("25107490", "24107489", "", "99107489", "00009999")],
        *[boxed[0].replace("25107489", text) for text in ("25107490", "020020", "74108925", "25107489101000")],
        boxed[0].replace("-25107489-", "-"),
    ]
    for url in forged:
        assert is_refused(await site.ask(url)), url
    assert await names(store, "cover.t/") == []
    for url in (*plain, *pointed, *both, *boxed):
        assert (await site.ask(url)).status == 200
