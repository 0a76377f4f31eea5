"""Four sizes of one picture: from one decode, and from four."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from aioimageattach import SingleImageSet
from aioimageattach.stores.memory import MemoryStore

from . import originals
from .measure import Sample, Timer, interleaved, ratio, save, say, summary
from .models import Sessions, User, UserPicture, prepared, sqlite, stored

__all__ = ["run"]

SIZES = (1200, 600, 300, 150)
Pictures = SingleImageSet[UserPicture]


def run(rounds: int) -> None:
    """Measure, and keep the result as ``sizes``."""
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
        key = runner.run(stored(sessions, store, originals.large()))
        samples = interleaved(
            {
                "four calls": lambda: runner.run(measured(sessions, key, one_by_one)),
                "one decode": lambda: runner.run(measured(sessions, key, together)),
            },
            rounds,
            lambda _: None,
        )
        runner.run(manager.__aexit__(None, None, None))
    factor = ratio(samples["four calls"], samples["one decode"])
    table = {name: summary(found) for name, found in samples.items()}
    for name, row in table.items():
        say(f"  {name}: {row['cpu_ms']:.0f} ms CPU, {row['wall_ms']:.0f} ms")
    say(f"  four calls take {factor:.2f} times the CPU of one decode")
    save("sizes", {"sizes": SIZES, "contenders": table, "factor": factor, "rounds": rounds})
