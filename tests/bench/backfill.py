"""The declared thumbnails of 100,000 existing images, killed and continued; and the cost of a real image."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from PIL import Image as PillowImage
from sqlalchemy import insert, text
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from aioimageattach import Image, Recipe, Srcset, ThumbnailMarks
from aioimageattach._declared.maker import Original
from aioimageattach.entity._image import utcnow
from aioimageattach.key import ImageKey, make_revision
from aioimageattach.stores.fs import FileSystemStore
from aioimageattach.thumbnails import backfill
from aioimageattach.thumbnails._maker import ThumbnailMaker
from aioimageattach.thumbnails._turns import Priority
from tests.databases import Servers
from tests.thumbnails.models import all_thumbnails

from . import originals
from .measure import save, say
from .memory import resident

__all__ = ["run"]

COUNT = int(os.environ.get("BACKFILL_COUNT", "100000"))
YEAR = 365 * 24 * 3600
KILLED_AT = 0.4
REAL = 12
"""Number of large images that are measured."""


class Base(DeclarativeBase):
    """The declarative base."""


class Small(Base, Image, ThumbnailMarks):
    """An image with a tiny original, to measure everything except the processing of pixels."""

    __tablename__ = "small"
    __thumbnails__ = {"icon": Recipe(width=8, format="jpeg")}
    id: Mapped[int] = mapped_column(primary_key=True)


class Real(Base, Image, ThumbnailMarks):
    """An image with nine files, for photographs of 12 megapixels."""

    __tablename__ = "real"
    __thumbnails__ = {
        "card": Srcset([320, 640, 1280], formats=["avif", "webp"], sizes="100vw"),
        "icon": Srcset([48, 96], aspect=(1, 1), fallback=None),
    }
    id: Mapped[int] = mapped_column(primary_key=True)


def _blob() -> bytes:
    file = io.BytesIO()
    PillowImage.new("RGB", (16, 12), (90, 60, 30)).save(file, "JPEG")
    return file.getvalue()


def _write(store: FileSystemStore, numbers: range, then: float) -> list[dict[str, Any]]:
    """Write originals of the last year, and return their rows."""
    rows, blob = [], _blob()
    for number in numbers:
        revision = make_revision(then + number * YEAR / COUNT)
        path = Path(store.path, store.name_of(ImageKey("small", None, 16, 12, "image/jpeg", revision)))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(blob)
        row = {"id": number, "width": 16, "height": 12, "variant": "", "mimetype": "image/jpeg"}
        rows.append({**row, "original": True, "created_at": utcnow(), "revision": revision, "byte_size": len(blob)})
    return rows


# --- one run, in a separate process ----------------------------------------------------------------------------------


async def _run(url: str, folder: str) -> None:
    """Run a backfill; print a line with its progress every half second, and at the end."""
    engine = create_async_engine(url)
    plan = backfill(async_sessionmaker(engine), Small, store=FileSystemStore(folder, "/", fsync=False))
    began = time.perf_counter()

    def look() -> None:
        progress = plan.progress
        line = [progress.done, progress.counts["made"], time.perf_counter() - began, time.process_time(), resident()]
        print(json.dumps(line), flush=True)

    async def watch() -> None:
        while True:
            await asyncio.sleep(0.5)
            look()

    watcher = asyncio.create_task(watch())
    await plan.execute()
    watcher.cancel()
    look()
    await engine.dispose()


def _process(url: str, folder: str, kill_at: int | None = None) -> list[list[float]]:
    """Run a process, and kill it after a number of files; return its lines."""
    command = [sys.executable, "-m", "tests.bench.backfill", url, folder]
    series: list[list[float]] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            series.append(json.loads(line))
            if kill_at is not None and series[-1][1] >= kill_at:
                process.send_signal(signal.SIGKILL)
    assert process.returncode == (0 if kill_at is None else -signal.SIGKILL)
    return series


def _cost(series: list[list[float]]) -> dict[str, Any]:
    """Return the CPU time per original in each half, and the memory in each quarter, while files are made."""
    made = series[-1][1]
    series = [line for line in series if line[1] or not made]
    begin, end = series[0][0], series[-1][0]
    first, whole = series[0], end
    halfway = next(line for line in series if line[0] >= (begin + end) / 2)
    quarters: list[list[float]] = [[], [], [], []]
    for line in series:
        quarters[min(3, int(4 * (line[0] - begin) / (end - begin + 1)))].append(line[4])
    return {
        "done": whole,
        "made": series[-1][1],
        "wall": series[-1][2],
        "cpu": series[-1][3],
        "halves": [
            (halfway[3] - first[3]) / max(1, halfway[0] - first[0]),
            (series[-1][3] - halfway[3]) / max(1, whole - halfway[0]),
        ],
        "memory": [max(quarter, default=0.0) for quarter in quarters],
    }


# --- all runs --------------------------------------------------------------------------------------------------------


async def _real(folder: Path) -> dict[str, float]:
    """Make the nine files of some photographs of 12 megapixels one by one; return the CPU time of one photograph."""
    store = FileSystemStore(folder / "real", "/", fsync=False)
    maker, blob = ThumbnailMaker(store, [Real], 2), originals.large()
    with PillowImage.open(io.BytesIO(blob)) as picture:
        size = picture.size
    found: list[Original] = []
    for _ in range(REAL + 1):
        key = ImageKey("real", None, *size, "image/jpeg", make_revision())
        await store.put(key, blob, reproducible=False)
        original = Original.parse(store.name_of(key))
        assert original is not None
        found.append(original)
    files = (await maker.make_missing(found[0], all_thumbnails(maker, found[0]), Priority.REST)).made
    began, wall = time.process_time(), time.perf_counter()
    for original in found[1:]:
        await maker.make_missing(original, all_thumbnails(maker, original), Priority.REST)
    return {
        "files": len(files),
        "bytes": sum(files.values()),
        "cpu": (time.process_time() - began) / REAL,
        "wall": (time.perf_counter() - wall) / REAL,
    }


async def _measure(folder: Path) -> None:
    servers = Servers()
    database = servers.database("asyncpg", folder)
    await database.create(Base.metadata)
    url = database.url.render_as_string(hide_password=False)
    store = FileSystemStore(folder / "media", "/", fsync=False)
    then = time.time() - YEAR
    for start in range(0, COUNT, 1000):
        rows = await asyncio.to_thread(_write, store, range(start, min(COUNT, start + 1000)), then)
        async with database.reader.begin() as connection:
            await connection.execute(insert(Small.__table__), rows)
    async with database.reader.begin() as connection:
        await connection.execute(text("ANALYZE"))
    say(f"  {COUNT:,} originals and their rows are there")

    def files() -> int:
        return sum(len(names) for _, _, names in os.walk(folder / "media" / "small.t"))

    killed = await asyncio.to_thread(_process, url, store.path, int(KILLED_AT * COUNT))
    existing = files()
    say(f"  killed after {killed[-1][2]:.0f} s: {existing:,} files exist")
    works = {"continued": _cost(await asyncio.to_thread(_process, url, store.path))}
    assert works["continued"]["made"] == COUNT - existing, "something was made twice, or not at all"
    assert files() == COUNT
    works["nothing to do"] = _cost(await asyncio.to_thread(_process, url, store.path))
    assert works["nothing to do"]["made"] == 0
    for name, cost in works.items():
        say(f"  {name}: {cost}")
    async with database.reader.connect() as connection:
        marked = await connection.scalar(text("SELECT count(*) FROM small WHERE thumbnail_marks IS NOT NULL"))
    assert marked == COUNT
    real = await _real(folder)
    say(f"  a picture of 12 megapixels: {real}")
    save("backfill", {"count": COUNT, "existing": existing, "killed": _cost(killed), "works": works, "real": real})
    await database.aclose()
    servers.close()


def run(rounds: int) -> None:
    """Run the measurements once, because they take minutes."""
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_measure(Path(folder)))


if __name__ == "__main__":
    asyncio.run(_run(*sys.argv[1:]))
