"""Memory while two thousand thumbnails are made."""

from __future__ import annotations

import asyncio
import os
import statistics
from pathlib import Path

from aioimageattach.stores import MemoryStore
from tests import photos

from . import originals
from .measure import save, say
from .models import Sessions, User, prepared, sqlite, stored

__all__ = ["run"]

COUNT = 2000
EVERY = 20
LARGE_EVERY = 10
AT_ONCE = 4


def resident() -> float:
    """Return the resident memory of this process, in megabytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


async def _measure() -> None:
    store = MemoryStore()
    async with prepared(sqlite()) as sessions:
        large = await stored(sessions, store, originals.large())
        small = [await stored(sessions, store, photos.photo(name)) for name in photos.NAMES]
        photos.grained.cache_clear()
        numbers = iter(range(COUNT))
        series: list[tuple[int, float]] = []

        async def work(sessions: Sessions) -> None:
            for number in numbers:
                key = small[number % len(small)] if number % LARGE_EVERY else large
                async with sessions() as session:
                    user = await session.get_one(User, key)
                    await user.picture.generate_thumbnail(width=100 + number % 300, store=store)
                if number % EVERY == 0:
                    series.append((number, resident()))
                if number % 500 == 499:
                    say(f"  {number + 1} thumbnails: {resident():.0f} MB")

        await asyncio.gather(*(work(sessions) for _ in range(AT_ONCE)))
    quarter = len(series) // 4
    second, last = (
        statistics.median(size for _, size in part) for part in (series[quarter : 2 * quarter], series[-quarter:])
    )
    say(f"  second quarter {second:.0f} MB, last quarter {last:.0f} MB")
    save("memory", {"series": series, "second_quarter": second, "last_quarter": last, "at_once": AT_ONCE})


def run(rounds: int) -> None:
    """Run the measurements, and save the result as ``memory``; once, regardless of ``rounds``."""
    if not Path("/proc/self/statm").exists():
        say("  missing: /proc, where Linux tells how much memory a process holds")
        return
    asyncio.run(_measure())
