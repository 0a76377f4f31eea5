"""A sweep of 200,000 files and a verification of their rows, in a directory and PostgreSQL."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import insert, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from aioimageattach.key import ImageKey, make_revision
from aioimageattach.maintenance import Plan, sweep, verify
from aioimageattach.stores.fs import FileSystemStore
from tests.databases import Servers

from .measure import save, say
from .memory import resident
from .models import Base, User, UserPicture

__all__ = ["run"]

FILES = 200_000
ORPHAN_EVERY = 20
DAY = 24 * 3600


def _write(store: FileSystemStore, numbers: range, then: float) -> list[dict[str, Any]]:
    """Create files that are two days old, and the rows of most of them."""
    rows = []
    for number in numbers:
        revision = make_revision(then + number * DAY / FILES)
        key = ImageKey("user-picture", None, 64, 64, "image/png", revision)
        path = Path(store.path, store.name_of(key))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"%04d" % (number % 10_000))
        os.utime(path, (then, then))
        if number % ORPHAN_EVERY:
            row = {"user_id": number, "width": 64, "height": 64, "variant": "", "mimetype": "image/png"}
            rows.append(
                {**row, "original": True, "created_at": datetime.now(UTC), "revision": revision, "byte_size": 4}
            )
    return rows


async def _prepare(sessions: async_sessionmaker[AsyncSession], store: FileSystemStore) -> None:
    then = time.time() - 3 * DAY
    for start in range(0, FILES, 1000):
        rows = await asyncio.to_thread(_write, store, range(start, start + 1000), then)
        async with sessions() as session, session.begin():
            await session.execute(insert(User), [{"id": row["user_id"]} for row in rows])
            await session.execute(insert(UserPicture.__table__), rows)


async def _watched(plan: Plan[Any]) -> dict[str, Any]:
    """Run a plan; return its cost and the memory of the process."""
    began, cpu = time.perf_counter(), time.process_time()
    series: list[tuple[int, float, float]] = []
    running = True

    async def look() -> None:
        while running:
            series.append((plan.progress.done, time.perf_counter() - began, resident()))
            await asyncio.sleep(0.1)

    watcher = asyncio.create_task(look())
    await plan.execute()
    running = False
    await watcher
    count = plan.progress.done
    found = {"count": count, "cpu": time.process_time() - cpu, "wall": time.perf_counter() - began, "series": series}
    sizes = [size for *_, size in series]
    quarter = len(sizes) // 4
    found["memory"] = (max(sizes[quarter : 2 * quarter]), max(sizes[3 * quarter :]))
    say(f"  {plan.progress}\n  {found['wall']:.1f} s, CPU {found['cpu']:.1f} s, MB {found['memory']}")
    return found


async def _sweeps(sessions: async_sessionmaker[AsyncSession], store: FileSystemStore) -> dict[str, Any]:
    """Sweep three times; for the first sweep, half of the files are too young."""
    return {
        "dry run, half young": await _watched(sweep(sessions, Base, store, grace=timedelta(days=2.5))),
        "dry run": await _watched(sweep(sessions, Base, store)),
        "delete=True": await _watched(sweep(sessions, Base, store, delete=True)),
    }


async def _verifications(sessions: async_sessionmaker[AsyncSession], store: FileSystemStore) -> dict[str, Any]:
    return {
        "verify": await _watched(verify(sessions, Base, store)),
        "deep=True": await _watched(verify(sessions, Base, store, deep=True)),
    }


async def _measure(folder: Path, part: str) -> None:
    servers = Servers()
    database = servers.database("asyncpg", folder)
    await database.create(Base.metadata)
    engine = database.engine()
    sessions = async_sessionmaker(engine)
    store = FileSystemStore(folder / "media", "/", fsync=False)
    began = time.perf_counter()
    await _prepare(sessions, store)
    async with engine.begin() as connection:
        await connection.execute(text("ANALYZE"))
    say(f"  {FILES:,} files and their rows are there after {time.perf_counter() - began:.0f} s")
    works = await (_sweeps if part == "sweep" else _verifications)(sessions, store)
    save(f"maintenance.{part}", {"works": works, "files": FILES, "orphans": FILES // ORPHAN_EVERY})
    await database.aclose()
    servers.close()


def run(rounds: int, part: str) -> None:
    """Run the measurements once, because they take minutes."""
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_measure(Path(folder), part))
