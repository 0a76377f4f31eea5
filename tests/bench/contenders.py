"""Python libraries that make thumbnails, each in a separate process: ``python -m tests.bench.contenders NAME``.

Each line of JSON on standard input has the original, the width, the format and the path of the thumbnail; each line of
output contains the cost.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import io
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .measure import Timer

__all__ = ["PYTHON", "Task", "main"]


@dataclass(frozen=True, slots=True)
class Task:
    """The thumbnail to make, with a width in pixels, and the usual quality of its format."""

    blob: bytes
    width: int
    format: str


Make = Callable[[Task], Callable[[], bytes]]
"""Prepares a task; the returned function is measured."""

_QUALITY = {"jpeg": 80, "webp": 80, "avif": 60}


def _render() -> tuple[str, Make]:
    from aioimageattach import Recipe, __version__
    from aioimageattach.imaging import render

    def make(task: Task) -> Callable[[], bytes]:
        return lambda: render(task.blob, [Recipe(width=task.width, format=task.format)])[0].blob

    return f"aioimageattach {__version__}", make


def _attachment() -> tuple[str, Make]:
    """Run ``await user.picture.generate_thumbnail(width=…)``, with the original in a store in memory."""
    from sqlalchemy.ext.asyncio import AsyncSession

    from aioimageattach import __version__
    from aioimageattach.stores import MemoryStore

    from .models import Sessions, User, prepared, sqlite, stored

    runner = asyncio.Runner()
    held = contextlib.AsyncExitStack()
    atexit.register(lambda: runner.run(held.aclose()))
    store = MemoryStore()
    ids: dict[int, int] = {}

    async def begin() -> Sessions:
        return await held.enter_async_context(prepared(sqlite()))

    async def found(session: AsyncSession, task: Task) -> User:
        if id(task.blob) not in ids:
            ids[id(task.blob)] = await stored(sessions, store, task.blob)
        return await session.get_one(User, ids[id(task.blob)])

    async def generate(session: AsyncSession, user: User, task: Task) -> bytes:
        thumbnail = await user.picture.generate_thumbnail(width=task.width, format=task.format, store=store)
        return await thumbnail.make_blob(store)

    sessions = runner.run(begin())

    def make(task: Task) -> Callable[[], bytes]:
        session = sessions()
        user = runner.run(found(session, task))
        return lambda: runner.run(generate(session, user, task))

    return f"aioimageattach {__version__}", make


def _libvips_save(image: Any, file_format: str) -> bytes:
    quality = _QUALITY[file_format]
    if file_format == "jpeg":
        blob = image.jpegsave_buffer(Q=quality, optimize_coding=True, keep="none")
    elif file_format == "webp":
        blob = image.webpsave_buffer(Q=quality, effort=4, keep="none")
    else:
        blob = image.heifsave_buffer(Q=quality, compression="av1", effort=2, keep="none")
    return bytes(blob)


def _libvips_version() -> str:
    import pyvips

    return f"pyvips {pyvips.__version__}, libvips " + ".".join(str(pyvips.version(part)) for part in range(3))


def _libvips() -> tuple[str, Make]:
    """Run the one call of libvips that makes a thumbnail."""
    import pyvips

    def make(task: Task) -> Callable[[], bytes]:
        tagged = "icc-profile-data" in pyvips.Image.jpegload_buffer(task.blob).get_fields()
        profile = {"export_profile": "srgb"} if tagged else {}
        return lambda: _libvips_save(
            pyvips.Image.thumbnail_buffer(task.blob, task.width, height=100_000, **profile), task.format
        )

    return _libvips_version(), make


def _libvips_shrunk() -> tuple[str, Make]:
    """Run the minimum of calls of libvips that result in the same image: the decoder shrinks as much as here."""
    import pyvips

    def make(task: Task) -> Callable[[], bytes]:
        header = pyvips.Image.jpegload_buffer(task.blob)
        profile = {"export_profile": "srgb"} if "icc-profile-data" in header.get_fields() else {}
        shrink = next(shrink for shrink in (8, 4, 2, 1) if header.width >= 1.5 * shrink * task.width or shrink == 1)
        height = int(header.height * task.width / header.width + 0.5)

        def run() -> bytes:
            image = pyvips.Image.jpegload_buffer(task.blob, shrink=shrink, access="sequential", fail_on="truncated")
            image = image.thumbnail_image(task.width, height=height, size="force", **profile)
            return _libvips_save(image, task.format)

        return run

    return _libvips_version(), make


def _pillow() -> tuple[str, Make]:
    """Run the fastest calls of Pillow: the decoder shrinks, Lanczos resizes, and the profile and EXIF are applied."""
    from PIL import Image, ImageCms, ImageOps, __version__

    srgb = ImageCms.createProfile("sRGB")
    options: dict[str, dict[str, Any]] = {
        "jpeg": {"quality": _QUALITY["jpeg"], "optimize": True},
        "webp": {"quality": _QUALITY["webp"], "method": 4},
        "avif": {"quality": _QUALITY["avif"], "speed": 7},
    }

    def make(task: Task) -> Callable[[], bytes]:
        def run() -> bytes:
            with Image.open(io.BytesIO(task.blob)) as image:
                image.thumbnail((task.width, task.width), Image.Resampling.LANCZOS)
                profile = image.info.get("icc_profile")
                ImageOps.exif_transpose(image, in_place=True)
                picture: Any = image
                if profile:
                    picture = ImageCms.profileToProfile(image, io.BytesIO(profile), srgb, outputMode="RGB")
                    picture.info.clear()
                file = io.BytesIO()
                picture.save(file, task.format.upper(), exif=b"", icc_profile=None, **options[task.format])
                return file.getvalue()

        return run

    return f"Pillow {__version__}", make


def _wand() -> tuple[str, Make]:
    """Run Wand as SQLAlchemy-ImageAttach did: decode completely, resize, encode; the profile is kept in the file."""
    from wand.image import Image
    from wand.version import MAGICK_VERSION_NUMBER, VERSION

    def make(task: Task) -> Callable[[], bytes]:
        def run() -> bytes:
            with Image(blob=task.blob) as image:
                height = int(image.height * task.width / image.width + 0.5)
                image.resize(task.width, height, filter="undefined", blur=1)
                image.compression_quality = _QUALITY[task.format]
                return bytes(image.make_blob(task.format))

        return run

    number = ".".join(str(MAGICK_VERSION_NUMBER >> shift & 15) for shift in (8, 4, 0))
    return f"Wand {VERSION}, ImageMagick {number}", make


PYTHON: dict[str, Callable[[], tuple[str, Make]]] = {
    "generate_thumbnail": _attachment,
    "render": _render,
    "libvips": _libvips,
    "libvips, shrunk": _libvips_shrunk,
    "Pillow": _pillow,
    "Wand": _wand,
}
"""The contenders by name: this library and libvips in two ways each, and other libraries."""


def main(name: str) -> None:
    """Run the tasks requested on standard input."""
    try:
        version, make = PYTHON[name]()
    except (ImportError, OSError) as error:
        print(json.dumps({"missing": str(error).strip().splitlines()[0]}), flush=True)
        return
    print(json.dumps({"version": version}), flush=True)
    blobs: dict[str, bytes] = {}
    for line in sys.stdin:
        task = json.loads(line)
        path = task["original"]
        if path not in blobs:
            blobs[path] = Path(path).read_bytes()
        try:
            run = make(Task(blobs[path], task["width"], task["format"]))
            with Timer() as timer:
                thumbnail = run()
        except Exception as error:
            print(json.dumps({"error": f"{type(error).__name__}: {error}"}), flush=True)
            continue
        if task["output"]:
            Path(task["output"]).write_bytes(thumbnail)
        answer = {"cpu": timer.sample.cpu, "wall": timer.sample.wall, "size": len(thumbnail)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
