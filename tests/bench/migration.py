"""Migration from a directory to another, and to a bucket with 20 ms latency, compared with a simple loop."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import async_sessionmaker

from aioimageattach.migration import migrate
from aioimageattach.stores.fs import FileSystemStore
from aioimageattach.stores.s3 import S3Store
from tests.servers.ministack import Ministack

from .measure import save, say
from .memory import resident
from .models import Base, User, UserPicture, prepared, sqlite

__all__ = ["run"]

SIZE = 4096
EVERY = 250
DISTANCE = 0.020
ROWS = {"disk": 100_000, "s3": 20_000}
NAIVE = {"disk": 4000, "s3": 500}


def _destination(where: str) -> Any:
    """Return a store in a folder, or in a bucket on a server."""
    if not where.startswith("http"):
        return FileSystemStore(where, "/")
    url, bucket = where.rsplit("/", 1)
    return S3Store(bucket, "key", "secret", endpoint_url=url, region="us-east-1")


async def _prepare(folder: Path, count: int) -> None:
    """Create rows and files as fast as possible."""
    store = FileSystemStore(folder / "source", "/")
    now = datetime.now(UTC)

    def write(rows: list[dict[str, Any]], start: int) -> None:
        for number, row in enumerate(rows, start):
            blob = b"%08d" % number + bytes(SIZE - 8)
            row["sha256"] = sha256(blob).hexdigest()
            picture = UserPicture()
            for name in ("width", "height", "mimetype", "revision", "user_id"):
                setattr(picture, name, row[name])
            path = folder / "source" / store.name_of(picture.key)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(blob)

    async with prepared(sqlite(folder)) as sessions:
        for start in range(0, count, 1000):
            rows = [
                {
                    "user_id": number,
                    "width": 64,
                    "height": 64,
                    "variant": "",
                    "mimetype": "image/png",
                    "original": True,
                    "created_at": now,
                    "revision": store.make_revision(),
                    "byte_size": SIZE,
                }
                for number in range(start, start + 1000)
            ]
            await asyncio.to_thread(write, rows, start)
            async with sessions() as session, session.begin():
                await session.execute(insert(User), [{"id": row["user_id"]} for row in rows])
                await session.execute(insert(UserPicture.__table__), rows)


async def _naively(folder: Path, destination: Any, count: int) -> AsyncIterator[None]:
    """Run a simple loop: read a row, read its file, put the file."""
    source = FileSystemStore(folder / "source", "/")
    async with async_sessionmaker(sqlite(folder))() as session:
        for row in await session.scalars(select(UserPicture).limit(count)):
            async with await source.open(row) as file:
                await destination.store(row, file)
            yield


async def _work(folder: Path, where: str, naive: int) -> None:
    """Run a migration in this process, and print its progress, the time and the memory regularly."""
    destination = _destination(where)
    engine = sqlite(folder)
    plan = migrate(async_sessionmaker(engine), Base, FileSystemStore(folder / "source", "/"), destination)
    began, cpu = time.perf_counter(), time.process_time()
    number = 0
    async for _ in _naively(folder, destination, naive) if naive else plan:
        number += 1
        if number % EVERY == 0:
            print(
                json.dumps([number, plan.progress.counts["present"], time.perf_counter() - began, resident()]),
                flush=True,
            )
    print(json.dumps([number, plan.progress.counts["present"], time.perf_counter() - began, resident()]), flush=True)
    print(json.dumps(time.process_time() - cpu), flush=True)
    await engine.dispose()
    if isinstance(destination, S3Store):
        await destination.aclose()


def _child(folder: Path, where: str, *, naive: int = 0, kill_at: int | None = None) -> dict[str, Any]:
    """Run a migration in a separate process; kill it at a given progress, if requested."""
    command = [sys.executable, "-m", "tests.bench.migration", str(folder), where, str(naive)]
    series: list[list[float]] = []
    cpu = None
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            told = json.loads(line)
            if isinstance(told, float):
                cpu = told
                continue
            series.append(told)
            if kill_at is not None and told[0] >= kill_at:
                process.kill()
                break
    assert kill_at is not None or process.returncode == 0
    number, present, seconds, _ = series[-1]
    say(f"    {number:,} rows in {seconds:.1f} s, {number / seconds:,.0f}/s; {present:,} were there")
    return {"series": series, "rows": number, "present": present, "seconds": seconds, "cpu": cpu}


def _half(found: dict[str, Any]) -> tuple[float, float]:
    """Return the memory in the second and in the last quarter."""
    sizes = [size for *_, size in found["series"]]
    quarter = max(1, len(sizes) // 4)
    return max(sizes[quarter : 2 * quarter]), max(sizes[-quarter:])


async def _stored(where: str) -> int:
    store = _destination(where)
    count = 0
    async for info in store.list_objects():
        assert info.size == SIZE
        count += 1
    if isinstance(store, S3Store):
        await store.aclose()
    return count


def _measure(part: str, folder: Path, place: Callable[[str], str]) -> None:
    count = ROWS[part]
    say(f"  preparing {count:,} rows and files")
    asyncio.run(_prepare(folder, count))
    say("  a loop without thought")
    naive = _child(folder, place("naive"), naive=NAIVE[part])
    say("  migrate()")
    whole = _child(folder, place("whole"))
    assert asyncio.run(_stored(place("whole"))) == count
    say("  migrate(), killed half-way, and run again")
    killed = _child(folder, place("killed"), kill_at=count // 2 if part == "s3" else count // 5)
    left = asyncio.run(_stored(place("killed")))
    resumed = _child(folder, place("killed")) if part == "s3" else _child(folder, place("whole"))
    if part == "s3":
        assert asyncio.run(_stored(place("killed"))) == count
    faster = (whole["rows"] / whole["seconds"]) / (naive["rows"] / naive["seconds"])
    say(f"  {faster:.1f} times as fast; memory {_half(whole)[0]:.0f} MB, then {_half(whole)[1]:.0f} MB")
    save(
        f"migration.{part}",
        {
            "naive": naive,
            "whole": whole,
            "killed": killed,
            "left": left,
            "resumed": resumed,
            "faster": faster,
            "memory": _half(whole),
        },
    )


def run(rounds: int, part: str) -> None:
    """Measure one part, ``disk`` or ``s3``, once, and save the result as ``migration.PART``."""
    with ExitStack() as held:
        # not in a file system in memory, where fsync does nothing
        base = Path(held.enter_context(tempfile.TemporaryDirectory(dir=Path(__file__).parent)))
        if part == "disk":
            _measure(part, base, lambda name: str(base / name))
            return
        server = Ministack(base)
        held.callback(server.close)
        command = [sys.executable, "-m", "tests.bench.latency", str(server.port), str(DISTANCE)]
        proxy = held.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        held.callback(proxy.kill)
        assert proxy.stdout is not None
        url = f"http://127.0.0.1:{int(proxy.stdout.readline())}"
        for bucket in ("naive", "whole", "killed"):
            server.create_bucket(bucket, "us-east-1")
        _measure(part, base, lambda name: f"{url}/{name}")


if __name__ == "__main__":
    asyncio.run(_work(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
