"""Four sizes of one image, from one decode and from four."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import pyvips

from aioimageattach import SingleImageSet
from aioimageattach.stores import MemoryStore

from . import originals
from .measure import Sample, Timer, interleaved, ratio, save, say, summary
from .models import Sessions, User, UserPicture, prepared, sqlite, stored

__all__ = ["run"]

SIZES = (1200, 600, 300, 150)
Pictures = SingleImageSet[UserPicture]


def run(rounds: int) -> None:
    """Run the measurements, and save the result as ``sizes``."""
    with asyncio.Runner() as runner:
        store = MemoryStore()

        async def together(picture: Pictures) -> None:
            await picture.generate_thumbnails(SIZES, store)

        async def one_by_one(picture: Pictures) -> None:
            for width in SIZES:
                await picture.generate_thumbnail(width=width, store=store)

        async def measured(
            sessions: Sessions, key: int, make: Callable[[Pictures], Coroutine[Any, Any, None]]
        ) -> Sample:
            async with sessions() as session:
                user = await session.get_one(User, key)
                with Timer() as timer:
                    await make(user.picture)
            return timer.sample

        manager = prepared(sqlite())
        sessions = runner.run(manager.__aenter__())
        tables = []
        for label, blob in originals.by_format().items():
            key = runner.run(stored(sessions, store, blob))
            contenders = {
                "four calls": partial(measured, sessions, key, one_by_one),
                "one decode": partial(measured, sessions, key, together),
            }
            timed = {name: partial(_run, runner, make) for name, make in contenders.items()}
            timed["four calls of libvips"] = partial(_libvips, blob)
            samples = interleaved(timed, rounds, lambda _: None)
            factor = ratio(samples["four calls"], samples["one decode"])
            table = {name: summary(found) for name, found in samples.items()}
            libvips = ratio(samples["four calls of libvips"], samples["one decode"])
            tables.append({"label": label, "contenders": table, "factor": factor, "libvips": libvips})
            costs = ", ".join(f"{row['cpu_ms']:.0f}" for row in table.values())
            say(f"  {label}: {costs} ms CPU: {factor:.2f} x and {libvips:.2f} x")
        runner.run(manager.__aexit__(None, None, None))
    save("sizes", {"sizes": SIZES, "tables": tables, "rounds": rounds})


def _libvips(blob: bytes) -> Sample:
    """Measure four calls of libvips, without a store and rows."""
    image = pyvips.Image.new_from_buffer(blob, "")
    save = {
        "jpegload_buffer": "jpegsave_buffer",
        "webpload_buffer": "webpsave_buffer",
        "pngload_buffer": "pngsave_buffer",
    }
    name = save[image.get("vips-loader")]
    options = {"pngsave_buffer": {"filter": "all"}, "webpsave_buffer": {"Q": 80, "effort": 4}}
    profile = {"export_profile": "srgb"} if "icc-profile-data" in image.get_fields() else {}
    with Timer() as timer:
        for width in SIZES:
            thumbnail = pyvips.Image.thumbnail_buffer(blob, width, height=100_000, **profile)
            getattr(thumbnail, name)(keep="none", **options.get(name, {"Q": 80, "optimize_coding": True}))
    return timer.sample


def _run(runner: asyncio.Runner, make: Callable[[], Coroutine[Any, Any, Sample]]) -> Sample:
    return runner.run(make())
