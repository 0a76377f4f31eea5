"""What declared thumbnails cost: a page of 500 pictures, hits and misses.

Run it with ``python -m tests.bench.declared``. Times are processor time of this process, the best of several runs,
unless the line says otherwise.
"""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from PIL import Image as PillowImage
from sqlalchemy import ForeignKey, insert, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from aioimageattach import Image, Placeholder, Recipe, Srcset, bind_store, image_attachment, store_context
from aioimageattach.entity._image import utcnow
from aioimageattach.file import Spool
from aioimageattach.imaging import render
from aioimageattach.key import make_revision
from aioimageattach.schemas import PictureOut
from aioimageattach.stores.fs import FileSystemStore, StaticServer
from aioimageattach.thumbnails import ThumbnailServer
from tests.photos import large
from tests.servers.asking import Client

PRODUCTS, PICTURES = 50, 10
WIDTHS = [320, 640, 1280, 1920]


class Base(DeclarativeBase):
    """The base of the models here."""


class Product(Base):
    """Has ten pictures."""

    __tablename__ = "product"
    id: Mapped[int] = mapped_column(primary_key=True)
    photos = image_attachment["Photo"]("Photo", uselist=True)


class Photo(Base, Image, Placeholder):
    """Has twelve candidates."""

    __tablename__ = "product_photo"
    __thumbnails__ = {"card": Srcset(WIDTHS, formats=["avif", "webp", "jpeg"], sizes="100vw")}
    product_id: Mapped[int] = mapped_column(ForeignKey("product.id"), primary_key=True)
    order_index: Mapped[int] = mapped_column(primary_key=True)


def cpu(work: Callable[[], Any], runs: int = 15) -> float:
    """The best processor time of some runs, in milliseconds."""
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
    """Return what an API says of them."""
    return [PictureOut.model_validate(one) for product in products for one in product.photos]


async def page(sessions: async_sessionmaker[AsyncSession], root: Path) -> None:
    """Measure all ``<picture>`` elements of a page, and its JSON."""
    store = FileSystemStore(root, "/files/")
    for label, options in (("", {}), ("signed, ", {"url_secret": "a secret of the benchmarks"})):
        thumbnails = ThumbnailServer(store, [Photo], base_url="/thumbnails/", **options)
        bind_store(sessions, store, thumbnails=thumbnails)
        async with sessions() as session:
            products = (await session.scalars(select(Product))).all()
            sets = cpu(partial(show, products))
            print(f"  {label}500 <picture> elements of image sets: {sets:.1f} ms")
            json = cpu(partial(dump, products), 5)
            print(f"  {label}500 PictureOut: {json:.1f} ms")


async def serve(root: Path) -> None:
    """Measure hits beside the static server, and misses beside rendering and putting."""
    store = FileSystemStore(root, "/files/", fsync=False)
    thumbnails = ThumbnailServer(store, [Photo], base_url="/thumbnails/")
    blob = large()
    size = PillowImage.open(io.BytesIO(blob)).size

    async def original() -> Photo:
        row = Photo(width=size[0], height=size[1], mimetype="image/jpeg", original=True, revision=store.make_revision())
        await store.put(row.key, blob, reproducible=False)
        return row

    rows = [await original() for _ in range(12)]
    client, static = Client(thumbnails), Client(StaticServer(root))
    recipe = Recipe(width=640, format="webp")
    misses, plain = [], []
    for number, row in enumerate(rows):
        with store_context(store, thumbnails=thumbnails):
            [url] = [one.url for one in row.candidates("card") if ".640x480.webp" in one.url]
        if number % 2:
            before = time.perf_counter()
            assert (await client.ask(url.removeprefix("/thumbnails"))).status == 200
            misses.append(time.perf_counter() - before)
            await thumbnails.aclose()
        else:
            before = time.perf_counter()
            async with await store.get(row.key) as file:
                spool = await Spool.fill(file, fingerprint=False)
            [made] = await asyncio.to_thread(render, spool.view, [recipe])
            await store.put_object(f"elsewhere/{number}", made.blob)
            plain.append(time.perf_counter() - before)
    print(f"  miss: {median(misses) * 1000:.0f} ms; get, render() and put: {median(plain) * 1000:.0f} ms (wall clock)")
    path = url.removeprefix("/thumbnails")
    found = {}
    for name, asking in (("thumbnails", client), ("static", static)) * 2:
        before = time.process_time()
        for _ in range(3000):
            await asking.ask(path)
        found[name] = min(found.get(name, 9.0), (time.process_time() - before) / 3)
    print(f"  hit: {found['thumbnails']:.3f} s per 1,000; static server: {found['static']:.3f} s per 1,000")


async def main() -> None:
    """Run all of them."""
    engine = create_async_engine("sqlite+aiosqlite://")
    sessions = async_sessionmaker(engine, expire_on_commit=False)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        await connection.execute(insert(Product), [{"id": number} for number in range(PRODUCTS)])
        values: dict[str, Any] = {
            "width": 4000,
            "height": 3000,
            "variant": "",
            "mimetype": "image/jpeg",
            "original": True,
        }
        values["created_at"] = utcnow()
        await connection.execute(
            insert(Photo.__table__),
            [
                {**values, "product_id": product, "order_index": index, "revision": make_revision()}
                for product in range(PRODUCTS)
                for index in range(PICTURES)
            ],
        )
    with TemporaryDirectory() as folder:
        await page(sessions, Path(folder))
        await serve(Path(folder))
    await engine.dispose()


if __name__ == "__main__":
    asyncio.run(main())
