"""Placeholders that are filled in when thumbnails are made without a session: by workers and by backfills."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import (
    ForeignKey,
    ForeignKeyConstraint,
    String,
    Update,
    create_engine,
    insert,
    inspect,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.ext.declarative import ConcreteBase
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, selectin_polymorphic

from aioimageattach import (
    CropBox,
    FocalPoint,
    Image,
    ImageLimits,
    Placeholder,
    Recipe,
    ThumbnailMarks,
    ThumbnailWorker,
    image_attachment,
)
from aioimageattach._threads import run_pixels
from aioimageattach.context import bind_store
from aioimageattach.entity._derived import declared_files
from aioimageattach.exc import ImageTooLargeError, StoreUnavailableError, UnreadableImageError
from aioimageattach.imaging import probe
from aioimageattach.key import ImageKey, make_revision
from aioimageattach.store import KeyedStore
from aioimageattach.stores import MemoryStore
from aioimageattach.thumbnails import backfill
from aioimageattach.thumbnails._dispatch import Job, JobRunner
from aioimageattach.thumbnails._turns import Priority
from tests.databases import Database
from tests.entity.models import engine_of, started, statements
from tests.photos import opened, photo, saved
from tests.thumbnails.backfilling import BEGIN, SMALL, STEP, CountingStore, values

Sessions = async_sessionmaker[AsyncSession]


class Base(DeclarativeBase):
    """The declarative base."""


class Cover(Base, Image, Placeholder, ThumbnailMarks):
    """An image with a placeholder and marks."""

    __tablename__ = "cover"
    __thumbnails__ = {"card": Recipe(width=20), "icon": Recipe(width=10, height=10)}
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)


class Plain(Base, Image, Placeholder):
    """An image with a placeholder only."""

    __tablename__ = "plain"
    __thumbnails__ = {"card": Recipe(width=20)}
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)


class Large(Base, Image):
    """An image in two tables; the second one has the placeholder."""

    __tablename__ = "large"
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "large"}
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    kind: Mapped[str] = mapped_column(String(20))


class Joined(Large, Placeholder):
    """The second table."""

    __tablename__ = "joined"
    __thumbnails__ = {"card": Recipe(width=20)}
    __mapper_args__ = {"polymorphic_identity": "joined"}
    id: Mapped[int] = mapped_column(primary_key=True)
    width: Mapped[int] = mapped_column(primary_key=True)
    height: Mapped[int] = mapped_column(primary_key=True)
    variant: Mapped[str] = mapped_column(String(32), primary_key=True)
    __table_args__ = (ForeignKeyConstraint(("id", "width", "height", "variant"), Large.__table__.primary_key.columns),)


class Page(Base, Image):
    """An image whose subclasses have further columns."""

    __tablename__ = "page"
    __thumbnails__ = {"card": Recipe(width=20), "icon": Recipe(width=10, height=10)}
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "page"}
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    kind: Mapped[str] = mapped_column(String(20))


class Scan(Page, Placeholder, ThumbnailMarks, CropBox):
    """Rows in the same table."""

    __mapper_args__ = {"polymorphic_identity": "scan"}


class Map(Page, FocalPoint):
    """Rows in two tables."""

    __tablename__ = "map"
    __mapper_args__ = {"polymorphic_identity": "map"}
    id: Mapped[int] = mapped_column(primary_key=True)
    width: Mapped[int] = mapped_column(primary_key=True)
    height: Mapped[int] = mapped_column(primary_key=True)
    variant: Mapped[str] = mapped_column(String(32), primary_key=True)
    __table_args__ = (ForeignKeyConstraint(("id", "width", "height", "variant"), Page.__table__.primary_key.columns),)


class OwnerBase(DeclarativeBase):
    """A base with an owner."""


class Product(OwnerBase):
    """A product with a photo and a cover."""

    __tablename__ = "product"
    id: Mapped[int] = mapped_column(primary_key=True)
    photo = image_attachment["ProductPhoto"]("ProductPhoto")
    cover = image_attachment["ProductCover"]("ProductCover")


class ProductPhoto(OwnerBase, Image, Placeholder):
    """A photo as in the guide."""

    __tablename__ = "product_photo"
    __thumbnails__ = {"card": Recipe(width=20)}
    product_id: Mapped[int] = mapped_column(ForeignKey(Product.id), primary_key=True)


class ProductCover(OwnerBase, Image, Placeholder):
    """An image whose placeholder is filled in when it is attached."""

    __tablename__ = "product_cover"
    __placeholder_on_attach__ = True
    product_id: Mapped[int] = mapped_column(ForeignKey(Product.id), primary_key=True)


@pytest.fixture
async def sessions(database: Database) -> Sessions:
    """Sessions on each kind of database."""
    return await started(database, Base.metadata, expire_on_commit=False)


@pytest.fixture
async def sqlite(sqlite_database: Database) -> Sessions:
    """Sessions on SQLite."""
    return await started(sqlite_database, Base.metadata, expire_on_commit=False)


@pytest.fixture
def store(tmp_path: Path) -> CountingStore:
    """A store in a directory."""
    return CountingStore(tmp_path / "files")


async def fill(
    sessions: Sessions, store: KeyedStore, cls: type[Any], *blobs: bytes, first: int = 0, **columns: Any
) -> list[ImageKey]:
    """Insert rows with the given originals, as an application did before its class had the mixin."""
    keys = []
    for number, blob in enumerate(blobs, first):
        found = await run_pixels(probe, blob)
        row = values(
            number,
            revision=make_revision(BEGIN + STEP * number),
            width=found.width,
            height=found.height,
            mimetype=found.mimetype,
            **columns,
        )
        async with sessions.begin() as session:
            mapper = inspect(cls)
            for table in [mapper.local_table] if mapper.concrete else mapper.tables:
                own = {name: value for name, value in row.items() if name in table.columns}
                await session.execute(insert(table), [own])
        keys.append(cls(**row).key)
        await store.put(keys[-1], blob, reproducible=False)
    return keys


class Jobs(list[Job]):
    """The jobs that a backfill has enqueued."""

    async def enqueue(self, name: str, stems: Sequence[str]) -> None:
        """Add a job."""
        self.append(Job(name, stems))


async def placeholders(sessions: Sessions, cls: type[Any]) -> list[tuple[str | None, str | None]]:
    """Return the columns of all rows."""
    async with sessions() as session:
        rows = await session.scalars(select(cls).order_by(cls.id))
        return [(row.thumbhash, row.dominant_colour) for row in rows]


async def expected(blob: bytes) -> tuple[str | None, str | None]:
    """Return the placeholder that an upload of these bytes has."""
    cover = await Product().cover.from_blob(blob, MemoryStore())
    return cover.thumbhash, cover.dominant_colour


CAT, CUP = SMALL, saved(opened("coffee", (50, 40)), "PNG")


# --- backfills -------------------------------------------------------------------------------------------------------


async def test_a_backfill_fills_in_what_is_missing(sessions: Sessions, store: CountingStore) -> None:
    """The values equal those of an upload, from the same read as the thumbnails; present values are kept."""
    await fill(sessions, store, Cover, CAT, CUP, CAT)
    async with sessions.begin() as session:
        await session.execute(update(Cover).where(Cover.id == 2).values(thumbhash="kept", dominant_colour="#000000"))
    plan = backfill(sessions, Cover, store=store)
    progress = await plan.execute()
    assert (progress.counts["made"], progress.counts["marked"], progress.counts["placeholders"]) == (6, 3, 2)
    assert await placeholders(sessions, Cover) == [
        await expected(CAT),
        await expected(CUP),
        ("kept", "#000000"),
    ]
    assert store.reads == 3
    with statements(sessions) as sent:
        progress = await plan.execute()
    assert (progress.done, progress.counts["marked"], progress.counts["placeholders"], store.reads) == (3, 0, 0, 3)
    assert not [one for one in sent if one.startswith("UPDATE")]


@pytest.mark.parametrize("cls", [Cover, Plain])
async def test_no_thumbnail_is_missing(sqlite: Sessions, store: CountingStore, cls: type[Any]) -> None:
    """Images that were complete before their class had the mixin are read once more; marks are kept."""
    await fill(sqlite, store, cls, CAT, CUP)
    await backfill(sqlite, cls, store=store).execute()
    async with sqlite.begin() as session:
        await session.execute(update(cls).values(thumbhash=None, dominant_colour=None))
        marks = [*await session.scalars(select(cls.thumbnail_marks))] if cls is Cover else []
    progress = await backfill(sqlite, cls, store=store).execute()
    assert (progress.counts["made"], progress.counts["marked"], progress.counts["placeholders"]) == (0, 0, 2)
    assert await placeholders(sqlite, cls) == [await expected(CAT), await expected(CUP)]
    if cls is Cover:
        async with sqlite() as session:
            assert [*await session.scalars(select(Cover.thumbnail_marks))] == marks != [None, None]


async def test_a_transparent_image_has_no_colour(sqlite: Sessions, store: CountingStore) -> None:
    """It has a ThumbHash, so that the next backfill leaves it alone."""
    image = opened("coffee", (40, 30)).convert("RGBA")
    image.putalpha(0)
    await fill(sqlite, store, Plain, saved(image, "PNG"))
    assert (await backfill(sqlite, Plain, store=store).execute()).counts["placeholders"] == 1
    [(thumbhash, colour)] = await placeholders(sqlite, Plain)
    assert thumbhash
    assert colour is None
    assert (await backfill(sqlite, Plain, store=store).execute()).counts["placeholders"] == 0
    assert store.reads == 1


async def test_a_broken_image_is_a_failure(sqlite: Sessions, store: CountingStore) -> None:
    """The error is that of the image, even if only its placeholder is missing; others are filled in."""
    keys = await fill(sqlite, store, Plain, CAT, CUP)
    await backfill(sqlite, Plain, store=store).execute()
    async with sqlite.begin() as session:
        await session.execute(update(Plain).values(thumbhash=None))
    await store.discard(keys[0])
    await store.put(keys[0], b"\xff\xd8\xff broken", reproducible=False)
    plan = backfill(sqlite, Plain, store=store)
    progress = await plan.execute()
    assert (progress.failed, progress.counts["placeholders"]) == (1, 1)
    [failure] = plan.failures
    assert isinstance(failure.error, UnreadableImageError)
    assert (await placeholders(sqlite, Plain))[0][0] is None


@pytest.mark.parametrize("others", [{"card": Recipe(width=20)}, {}])
async def test_a_recipe_that_fails(sqlite: Sessions, store: CountingStore, others: dict[str, Recipe]) -> None:
    """The other thumbnails are made, if there are any, and the placeholder is filled in."""

    class OtherBase(DeclarativeBase):
        pass

    def fail(image: Any) -> Any:
        raise ZeroDivisionError

    class Odd(OtherBase, Image, Placeholder):
        __tablename__ = "plain"
        __thumbnails__ = {**others, "odd": Recipe(width=20, postprocess=fail, variant="odd")}
        id: Mapped[int] = mapped_column(primary_key=True)

    await fill(sqlite, store, Plain, CAT)
    progress = await backfill(sqlite, Odd, store=store).execute()
    assert (progress.failed, progress.counts["made"], progress.counts["placeholders"]) == (1, len(others), 1)
    assert await placeholders(sqlite, Plain) == [await expected(CAT)]


async def test_the_limits_of_the_class_hold(sqlite: Sessions) -> None:
    """An original with more pixels than allowed is a failure."""
    store = MemoryStore()
    await fill(sqlite, store, Plain, CAT)
    await backfill(sqlite, Plain, store=store).execute()

    class OtherBase(DeclarativeBase):
        pass

    class Strict(OtherBase, Image, Placeholder):
        __tablename__ = "plain"
        __thumbnails__ = {"card": Recipe(width=20)}
        __image_limits__ = ImageLimits(max_pixels=1000)
        id: Mapped[int] = mapped_column(primary_key=True)

    async with sqlite.begin() as session:
        await session.execute(update(Plain).values(thumbhash=None))
    plan = backfill(sqlite, Strict, store=store)
    assert (await plan.execute()).counts["made"] == 0
    assert isinstance(plan.failures[0].error, ImageTooLargeError)


class Away(MemoryStore):
    """A store that does not respond to some reads: those for which ``away`` returns true, by their number."""

    away: Callable[[int], bool] | None = None
    reads = 0

    async def get_object(self, name: str, *, start: int = 0, end: int | None = None) -> Any:
        """Count the call, and fail if the store is away."""
        self.reads += 1
        if self.away is not None and self.away(self.reads):
            raise StoreUnavailableError("away", attempts=1)
        return await super().get_object(name, start=start, end=end)


async def without_placeholders(sessions: Sessions, count: int) -> Away:
    """Return a store with images that lack only their placeholders."""
    store = Away()
    await fill(sessions, store, Plain, *[CAT] * count)
    await backfill(sessions, Plain, store=store).execute()
    async with sessions.begin() as session:
        await session.execute(update(Plain).values(thumbhash=None))
    return store


async def test_the_store_does_not_respond(sqlite: Sessions) -> None:
    """An outage is reported, even if no thumbnail is missing."""
    store = await without_placeholders(sqlite, 19)
    store.away = lambda _: True
    with pytest.raises(StoreUnavailableError, match="consecutive files"):
        await backfill(sqlite, Plain, store=store, concurrency=1).execute()


async def test_the_store_responds_now_and_then(sqlite: Sessions) -> None:
    """Failures that alternate with successes are not an outage, even if no thumbnail is missing."""
    store = await without_placeholders(sqlite, 40)
    store.away = lambda number: number % 2 == 0
    progress = await backfill(sqlite, Plain, store=store, concurrency=1).execute()
    assert (progress.failed, progress.counts["placeholders"]) == (20, 20)


async def test_a_row_of_the_predecessor_is_left_alone(sqlite: Sessions, store: CountingStore) -> None:
    """It has no revision by which its row could be found."""
    async with sqlite.begin() as session:
        await session.execute(insert(Plain.__table__), [values(1, revision=None)])
    await store.put(ImageKey("plain", 1, 60, 40, "image/jpeg", None), CAT, reproducible=False)
    progress = await backfill(sqlite, Plain, store=store).execute()
    assert (progress.counts["made"], progress.counts["placeholders"]) == (1, 0)
    assert await placeholders(sqlite, Plain) == [(None, None)]
    await backfill(sqlite, Plain, store=store).execute()
    assert store.reads == 1


async def test_columns_of_another_table(sqlite: Sessions, store: CountingStore) -> None:
    """They are not filled in, and no placeholder is computed for them."""
    await fill(sqlite, store, Joined, CAT, kind="joined")
    progress = await backfill(sqlite, Joined, store=store).execute()
    assert (progress.counts["made"], progress.counts["placeholders"]) == (1, 0)
    await backfill(sqlite, Joined, store=store).execute()
    assert store.reads == 1


@pytest.mark.parametrize("locked", [(1,), (0, 1, 2)])
async def test_a_deadlock_is_impossible(sessions: Sessions, store: CountingStore, locked: tuple[int, ...]) -> None:
    """A backfill locks no row while it waits for another row, so the application can lock them in any order."""
    await fill(sessions, store, Plain, CAT, CUP, CAT)
    async with sessions() as session:
        await session.execute(update(Plain).where(Plain.id.in_(locked)).values(dominant_colour="#000000"))
        run = asyncio.create_task(backfill(sessions, Plain, store=store).execute())
        await asyncio.wait({run}, timeout=1)
        assert not run.done()
        await session.execute(update(Plain).where(Plain.id == 0).values(dominant_colour="#ffffff"))
        await session.commit()
    assert (await run).counts["placeholders"] == 3
    found = await placeholders(sessions, Plain)
    assert None not in [thumbhash for thumbhash, _ in found]
    assert found[1][1] == "#000000"


async def test_replicas(sqlite: Sessions, store: CountingStore) -> None:
    """Rows are written to the primary database."""
    await fill(sqlite, store, Cover, CAT, CUP)
    replica = create_engine("sqlite://")

    class Routing(Session):
        def get_bind(self, mapper: Any = None, *, clause: Any = None, **more: Any) -> Any:
            return super().get_bind(mapper, clause=clause, **more) if isinstance(clause, Update) else replica

    routed = async_sessionmaker(engine_of(sqlite), sync_session_class=Routing)
    progress = await backfill(routed, Cover, store=store).execute()
    assert (progress.counts["marked"], progress.counts["placeholders"]) == (2, 2)
    assert await placeholders(sqlite, Cover) == [await expected(CAT), await expected(CUP)]


async def test_columns_of_subclasses(sessions: Sessions, store: CountingStore) -> None:
    """A backfill of the base class reads and writes them, so that the files are those to which pages link."""
    box = {"crop_left": 0.5, "crop_top": 0.0, "crop_width": 0.5, "crop_height": 1.0}
    for number, (cls, columns) in enumerate([(Page, {}), (Scan, box), (Map, {"focal_x": 0.25, "focal_y": 0.5})]):
        await fill(sessions, store, cls, CAT, first=number, kind=cls.__name__.lower(), **columns)
    progress = await backfill(sessions, Page, store=store).execute()
    assert (progress.counts["made"], progress.counts["marked"], progress.counts["placeholders"]) == (6, 1, 1)
    async with sessions() as session:
        rows = [*await session.scalars(select(Page).order_by(Page.id).options(selectin_polymorphic(Page, [Scan, Map])))]
    wanted = {store.name_of(one.key_for(row)) for row in rows for one in declared_files(row)}
    assert {info.name async for info in store.list_objects() if ".t/" in info.name} == wanted
    assert (rows[1].thumbhash, rows[1].dominant_colour) == await expected(CAT)
    assert rows[1].thumbnail_marks
    progress = await backfill(sessions, Page, store=store).execute()
    assert (progress.counts["made"], progress.counts["marked"], store.reads) == (0, 0, 3)


class Concrete(DeclarativeBase):
    """The declarative base of images with concrete-table inheritance."""


class Plate(ConcreteBase, Concrete, Image, FocalPoint, Placeholder, ThumbnailMarks):
    """The root of the hierarchy."""

    __tablename__ = "plate"
    __thumbnails__ = {"icon": Recipe(width=10, height=10)}
    __mapper_args__ = {"polymorphic_identity": "plate", "concrete": True}
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)


class ColourPlate(Plate):
    """A concrete subclass."""

    __table__ = Plate.__table__.to_metadata(Concrete.metadata, name="colour_plate")  # type: ignore[attr-defined]
    __mapper_args__ = {"polymorphic_identity": "colour", "concrete": True}


async def test_concrete_inheritance(sqlite_database: Database, store: CountingStore) -> None:
    """Each class is read from its own table, with its focal point."""
    sessions = await started(sqlite_database, Concrete.metadata, expire_on_commit=False)
    for cls in (Plate, ColourPlate):
        await fill(sessions, store, cls, CAT, focal_x=0.25, focal_y=0.5)
        progress = await backfill(sessions, cls, store=store).execute()
        assert (progress.counts["made"], progress.counts["marked"], progress.counts["placeholders"]) == (1, 1, 1)
        assert await placeholders(sessions, cls) == [await expected(CAT)]
        progress = await backfill(sessions, cls, store=store).execute()
        assert (progress.done, progress.counts["made"], progress.counts["marked"]) == (1, 0, 0)


# --- workers ---------------------------------------------------------------------------------------------------------


async def test_a_backfill_hands_images_to_workers(sqlite: Sessions, store: CountingStore) -> None:
    """Images that lack only their placeholder are handed over, and a worker with sessions fills it in."""
    await fill(sqlite, store, Plain, CAT, CUP)
    await backfill(sqlite, Plain, store=store).execute()
    async with sqlite.begin() as session:
        await session.execute(update(Plain).where(Plain.id == 1).values(thumbhash=None, dominant_colour=None))
    jobs = Jobs()
    progress = await backfill(sqlite, Plain, store=store, enqueue=jobs.enqueue).execute()
    assert (progress.counts["enqueued"], progress.counts["placeholders"]) == (1, 0)
    assert await JobRunner(store, [Plain], None, None).run(jobs[0], Priority.NEW) is None
    assert (await placeholders(sqlite, Plain))[1] == (None, None)
    assert await JobRunner(store, [Plain], sqlite, None).run(jobs[0], Priority.NEW) is None
    assert (await placeholders(sqlite, Plain))[1] == await expected(CUP)


async def test_an_image_that_is_replaced_meanwhile(sqlite: Sessions, store: CountingStore) -> None:
    """The placeholder of the old image is not written to the row of the new one."""
    keys = await fill(sqlite, store, Plain, CAT)
    jobs = Jobs()
    await backfill(sqlite, Plain, store=store, enqueue=jobs.enqueue).execute()
    async with sqlite.begin() as session:
        await session.execute(update(Plain.__table__).values(revision=make_revision()))
    assert await JobRunner(store, [Plain], sqlite, None).run(jobs[0], Priority.NEW) is None
    assert await placeholders(sqlite, Plain) == [(None, None)]
    assert jobs[0].original == store.name_of(keys[0])


async def test_a_worker_fills_in_new_images(database: Database) -> None:
    """After the commit, the row has the placeholder, and the element its colour."""
    sessions = await started(database, OwnerBase.metadata, expire_on_commit=False)
    store = MemoryStore("https://example.com/")
    bind_store(sessions, store)
    async with ThumbnailWorker(store, [ProductPhoto], sessions=sessions) as worker:
        async with sessions.begin() as session:
            session.add(product := Product(id=1))
            await product.photo.from_blob(photo("coffee"))
            assert product.photo.require_original().dominant_colour is None
        await worker.join()
    async with sessions() as session:
        row = (await session.scalars(select(ProductPhoto))).one()
        assert (row.thumbhash, row.dominant_colour) == await expected(photo("coffee"))


# --- sessions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipes", [(), ([10],)], ids=["declared", "with rows"])
async def test_an_image_is_replaced_by_another_session(database: Database, recipes: tuple[list[int], ...]) -> None:
    """A session that has computed the placeholder does not write it to a new image of the same size."""
    if database.name == "sqlite":
        pytest.skip("SQLite has one writer at a time")
    sessions = await started(database, OwnerBase.metadata, expire_on_commit=False)
    bind_store(sessions, MemoryStore("https://example.com/"))
    new = saved(opened("coffee", (60, 40)), "JPEG")
    async with sessions.begin() as session:
        session.add(product := Product(id=1))
        await product.photo.from_blob(CAT)
        await product.photo.generate_thumbnails(*recipes)
    async with sessions.begin() as session:
        await session.execute(update(ProductPhoto.__table__).values(thumbhash=None, dominant_colour=None))

    async def replace() -> None:
        async with sessions.begin() as session:
            await (await session.get_one(Product, 1)).photo.from_blob(new)

    async with sessions() as session:
        await (await session.get_one(Product, 1)).photo.generate_thumbnails(*recipes)
        replacing = asyncio.create_task(replace())
        await asyncio.wait([replacing], timeout=1)  # it waits for the row, unless nothing was written
        await session.commit()
        await replacing
    async with sessions() as session:
        row = (await session.scalars(select(ProductPhoto).where(ProductPhoto.original))).one()
        assert row.byte_size == len(new)
        assert (row.thumbhash, row.dominant_colour) == (None, None)
