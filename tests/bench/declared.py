"""The cost of declared thumbnails: a page of 500 images, and the deletion of images from a bucket.

For the page, the CPU time of this process is measured, as the best of several runs.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from sqlalchemy import ForeignKey, insert, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.orm.attributes import set_committed_value

from aioimageattach import Image, Placeholder, Srcset, ThumbnailMarks, bind_store, image_attachment
from aioimageattach._declared.srcset import declarations
from aioimageattach.entity import _derived
from aioimageattach.entity._derived import declared_files, marks_of
from aioimageattach.entity._image import utcnow
from aioimageattach.key import make_revision
from aioimageattach.schemas import PictureOut
from aioimageattach.stores.fs import FileSystemStore
from aioimageattach.stores.s3 import S3Store
from aioimageattach.thumbnails import ThumbnailServer
from tests.servers.gate import ACCESS_KEY, SECRET_KEY
from tests.servers.ministack import BIND, Ministack

from .measure import Sample, Timer, save, say, summary

PRODUCTS, PICTURES = 50, 10
WIDTHS = [320, 640, 1280, 1920]
DELETED = 300
DISTANCE = 0.02
"""Latency of each response of the bucket, in seconds."""


class Base(DeclarativeBase):
    """The declarative base."""


class Product(Base):
    """A product with ten images."""

    __tablename__ = "product"
    id: Mapped[int] = mapped_column(primary_key=True)
    photos = image_attachment["Photo"]("Photo", uselist=True)
    cover = image_attachment["Cover"]("Cover")


class Photo(Base, Image, Placeholder, ThumbnailMarks):
    """A photo with twelve candidates."""

    __tablename__ = "product_photo"
    __thumbnails__ = {"card": Srcset(WIDTHS, formats=["avif", "webp", "jpeg"], sizes="100vw")}
    product_id: Mapped[int] = mapped_column(ForeignKey("product.id"), primary_key=True)
    order_index: Mapped[int] = mapped_column(primary_key=True)


class Cover(Base, Image):
    """A cover with nine thumbnail files."""

    __tablename__ = "product_cover"
    __thumbnails__ = {"card": Srcset(WIDTHS[:3], formats=["avif", "webp", "jpeg"], sizes="100vw")}
    product_id: Mapped[int] = mapped_column(ForeignKey("product.id"), primary_key=True)


def cpu(work: Callable[[], Any], runs: int = 15) -> float:
    """Return the best CPU time of some runs, in milliseconds."""
    found = []
    for _ in range(runs):
        before = time.thread_time()
        work()
        found.append(time.thread_time() - before)
    return min(found) * 1000


def show(products: Sequence[Product]) -> list[str]:
    """Return the elements of a page."""
    return [one.picture("card", alt="x") for product in products for one in product.photos]


def dump(products: Sequence[Product]) -> list[PictureOut]:
    """Return the JSON of an API."""
    return [PictureOut.model_validate(one) for product in products for one in product.photos]


async def page(sessions: async_sessionmaker[AsyncSession], root: Path) -> dict[str, float]:
    """Measure all ``<picture>`` elements of a page, and its JSON."""
    store = FileSystemStore(root, "/files/")
    found = {}
    for label, options in (("", {}), ("signed, ", {"url_secret": "a secret of the benchmarks"})):
        thumbnails = ThumbnailServer(store, [Photo], base_url="/thumbnails/", **options)
        bind_store(sessions, store, thumbnails=thumbnails)
        async with sessions() as session:
            products = (await session.scalars(select(Product))).all()
            sets = found[f"{label}sets"] = cpu(partial(show, products))
            say(f"  {label}500 <picture> elements of image sets: {sets:.1f} ms")
            json = found[f"{label}json"] = cpu(partial(dump, products), 5)
            say(f"  {label}500 PictureOut: {json:.1f} ms")
    return found


async def presigned(sessions: async_sessionmaker[AsyncSession]) -> dict[str, float]:
    """Measure the same page with all thumbnails marked, so that the URLs are those of a bucket."""
    found = {}
    for label, options in (("public", {}), ("presigned", {"url_expires_in": 3600})):
        store = S3Store("pictures", ACCESS_KEY, SECRET_KEY, region="eu-central-1", **options)
        thumbnails = ThumbnailServer(store, [Photo], base_url="/thumbnails/")
        bind_store(sessions, store, thumbnails=thumbnails)
        async with sessions() as session:
            products = (await session.scalars(select(Product))).all()
            rows = [one for product in products for one in product.photos]
            marks = marks_of(declared_files(rows[0].original), store, rows[0].original.object_type)
            for one in rows:
                set_committed_value(one.original, "thumbnail_marks", marks)
            assert ".amazonaws.com" in show(products)[0]
            found[label] = cpu(partial(show, products), 5)
            say(f"  500 <picture> elements with 6,000 {label} URLs of a bucket: {found[label]:.1f} ms")
        await store.aclose()
    return found


async def fill(sessions: async_sessionmaker[AsyncSession], store: S3Store, *, derived: bool) -> list[int]:
    """Put products with one cover each, and the files of all declared thumbnails; return the primary keys."""
    async with sessions.begin() as session:
        products = [Product() for _ in range(DELETED)]
        session.add_all(products)
        for product in products:
            await product.cover.from_raw_file(b"original", store, (4000, 3000), "image/jpeg")
    rows = [product.cover.require_original() for product in products]
    names = [store.name_of(one.key_for(row)) for row in rows for one in declared_files(row)]
    assert len(names) == 9 * DELETED
    turn = asyncio.Semaphore(16)

    async def put(name: str) -> None:
        async with turn:
            await store.put_object(name, b"thumbnail", reproducible=True)

    await asyncio.gather(*map(put, names if derived else ()))
    return [product.id for product in products]


async def deletion(rounds: int) -> dict[str, Any]:
    """Delete products, in turns with declared thumbnails and with a class that declares none."""
    samples: dict[str, list[Sample]] = {"with thumbnails": [], "originals alone": []}
    with TemporaryDirectory() as folder:
        server = Ministack(Path(folder))
        server.create_bucket("pictures", "eu-central-1")
        command = [sys.executable, "-m", "tests.bench.latency", str(server.port), str(DISTANCE)]
        proxy = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        assert proxy.stdout is not None
        url = f"http://{BIND}:{int(await proxy.stdout.readline())}"
        try:
            bucket = partial(S3Store, "pictures", ACCESS_KEY, SECRET_KEY, region="eu-central-1")
            near = f"http://{BIND}:{server.port}"
            async with bucket(endpoint_url=url) as store, bucket(endpoint_url=near) as direct, started() as sessions:
                bind_store(sessions, store, thumbnails=ThumbnailServer(store, [Cover], base_url="/thumbnails/"))
                for number in range(rounds + 1):
                    for who in list(samples)[:: 1 if number % 2 else -1]:
                        derived = who == "with thumbnails"
                        # without declarations, the names are not even calculated
                        _derived._memo[Cover] = declarations(Cover.__thumbnails__, "Cover", Cover.__image_limits__)
                        keys = await fill(sessions, direct, derived=derived)
                        if not derived:
                            _derived._memo[Cover] = declarations({}, "Cover", Cover.__image_limits__)
                        async with sessions() as session:
                            products = (await session.scalars(select(Product).where(Product.id.in_(keys)))).all()
                            with Timer() as timer:
                                for product in products:
                                    await session.delete(product)
                                await session.commit()
                        samples[who].append(timer.sample)
                        assert [one async for one in store.list_objects()] == []
        finally:
            proxy.kill()
            await proxy.wait()
            server.close()
    found = {who: summary(values[1:]) for who, values in samples.items()}
    pairs = list(zip(samples["with thumbnails"], samples["originals alone"], strict=True))[1:]
    times = median(one.wall / other.wall for one, other in pairs)
    for who, row in found.items():
        say(f"  {who}: {row['wall_ms']:.0f} ms, {row['cpu_ms']:.0f} ms CPU")
    say(f"  {times:.2f} times the time for the originals alone")
    return {"ways": found, "times": times, "pictures": DELETED}


@asynccontextmanager
async def started() -> AsyncIterator[async_sessionmaker[AsyncSession]]:
    """Yield sessions on a new database."""
    engine = create_async_engine("sqlite+aiosqlite://")
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    yield async_sessionmaker(engine, expire_on_commit=False)
    await engine.dispose()


async def pages() -> dict[str, Any]:
    """Fill a database with products, and measure their page."""
    async with started() as sessions:
        async with sessions.begin() as session:
            await session.execute(insert(Product), [{"id": number} for number in range(PRODUCTS)])
            values: dict[str, Any] = {"width": 4000, "height": 3000, "variant": "", "mimetype": "image/jpeg"}
            values |= {"original": True, "created_at": utcnow()}
            await session.execute(
                insert(Photo.__table__),
                [
                    {**values, "product_id": product, "order_index": index, "revision": make_revision()}
                    for product in range(PRODUCTS)
                    for index in range(PICTURES)
                ],
            )
        with TemporaryDirectory() as folder:
            found = await page(sessions, Path(folder))
        return {**found, **await presigned(sessions)}


def run(rounds: int, part: str) -> None:
    """Measure one part, ``page`` or ``deletion``, and save the result as ``declared.PART``."""
    found = asyncio.run(pages() if part == "page" else deletion(rounds))
    save(f"declared.{part}", {**found, "rounds": rounds})
