"""The delay of the event loop while thumbnails are made."""

from __future__ import annotations

import asyncio
import time

from aioimageattach.stores import MemoryStore

from . import originals
from .measure import percentile, save, say
from .models import Sessions, User, prepared, sqlite, stored

__all__ = ["run"]

COUNT = 200
AT_ONCE = 16
TICK = 0.001


async def _ticker(late: list[float]) -> None:
    while True:
        began = time.perf_counter()
        await asyncio.sleep(TICK)
        late.append(1e3 * (time.perf_counter() - began - TICK))


async def _thumbnails(sessions: Sessions, store: MemoryStore, key: int, widths: asyncio.Queue[int]) -> None:
    while not widths.empty():
        width = widths.get_nowait()
        async with sessions() as session:
            user = await session.get_one(User, key)
            await user.picture.generate_thumbnail(width=width, store=store)


async def _measure() -> None:
    store = MemoryStore()
    async with prepared(sqlite()) as sessions:
        key = await stored(sessions, store, originals.large())
        widths: asyncio.Queue[int] = asyncio.Queue()
        for number in range(COUNT):
            widths.put_nowait(200 + number)  # different widths, because equal ones would share the work
        idle: list[float] = []
        ticker = asyncio.create_task(_ticker(idle))
        await asyncio.sleep(2)
        ticker.cancel()
        late: list[float] = []
        ticker = asyncio.create_task(_ticker(late))
        began = time.perf_counter()
        await asyncio.gather(*(_thumbnails(sessions, store, key, widths) for _ in range(AT_ONCE)))
        passed = time.perf_counter() - began
        ticker.cancel()
    table = {
        name: {"p50": percentile(found, 0.5), "p99": percentile(found, 0.99), "max": max(found), "ticks": len(found)}
        for name, found in (("idle", idle), ("busy", late))
    }
    for name, row in table.items():
        say(f"  {name}: lag p50 {row['p50']:.2f} ms, p99 {row['p99']:.2f} ms, max {row['max']:.1f} ms")
    say(f"  {COUNT / passed:.1f} thumbnails/s, {AT_ONCE} at once")
    save("lag", {"lag": table, "busy": sorted(late), "per_second": COUNT / passed, "count": COUNT, "at_once": AT_ONCE})


def run(rounds: int) -> None:
    """Run the measurements, and save the result as ``lag``; once, regardless of ``rounds``."""
    asyncio.run(_measure())
