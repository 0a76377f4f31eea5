"""The thumbnail server on uvicorn: hits, misses, event loop delay, and memory.

If there are two cores, the server and the clients run on one each.
"""

from __future__ import annotations

import asyncio
import gc
import io
import json
import os
import re
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from PIL import Image as PillowImage

from aioimageattach import Recipe, store_context
from aioimageattach.file import Spool
from aioimageattach.imaging import render
from aioimageattach.stores.fs import FileSystemStore
from aioimageattach.thumbnails import ThumbnailServer
from tests import photos
from tests.servers.asking import Client

from .declared import WIDTHS, Photo
from .measure import Sample, Timer, ratio, save, say, summary
from .serving import CONNECTIONS, cpu_of, free_port, median_ratio, medians, running

__all__ = ["run"]

HITS = 4000
FLOOD = 40
REQUESTS = 20_000
LENGTH = re.compile(rb"(?i)content-length: (\d+)")


@contextmanager
def uvicorn(root: Path) -> Iterator[tuple[int, int]]:
    """Run the application on the last core, and this process on the others; yield its process and its port."""
    port = free_port()
    mine = os.sched_getaffinity(0)
    words = [sys.executable, "-m", "uvicorn", "--port", str(port), "--no-access-log", "--log-level", "error"]
    if len(mine) > 1:
        words = ["taskset", "-c", str(max(mine)), *words]
        os.sched_setaffinity(0, mine - {max(mine)})
    try:
        with running(([*words, "tests.bench.thumbserver_app:app"], {"BENCH_ROOT": str(root)}), port) as pid:
            yield pid, port
    finally:
        os.sched_setaffinity(0, mine)


async def get(port: int, paths: Sequence[str], connections: int = CONNECTIONS) -> list[float]:
    """Request each path once; return the duration of each request, in milliseconds."""
    waiting, took = iter(paths), []

    async def work() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
        for path in waiting:
            began = time.perf_counter()
            writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(f"{path}: {head.decode()}")
            length = LENGTH.search(head)
            assert length is not None
            await reader.readexactly(int(length[1]))
            took.append(1e3 * (time.perf_counter() - began))
        writer.close()

    await asyncio.gather(*(work() for _ in range(connections)))
    return took


async def lag(port: int) -> dict[str, float]:
    """Return the delays of the server's event loop since the last call, in milliseconds."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /lag HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    answer = await reader.read()
    writer.close()
    found: dict[str, float] = json.loads(answer.partition(b"\r\n\r\n")[2])
    return found


async def original(store: FileSystemStore, blob: bytes) -> Photo:
    """Put an original that belongs to no session."""
    size = PillowImage.open(io.BytesIO(blob)).size
    row = Photo(width=size[0], height=size[1], mimetype="image/jpeg", original=True, revision=store.make_revision())
    await store.put(row.key, blob, reproducible=False)
    return row


def urls(store: FileSystemStore, row: Photo, mimetype: str = "image/webp") -> list[str]:
    """Return the URLs of the files of one format."""
    with store_context(store, thumbnails=ThumbnailServer(store, [Photo], base_url="/thumbnails/")):
        return [one.url for one in row.candidates("card") if one.mimetype == mimetype]


def hits(root: Path, rounds: int) -> dict[str, Any]:
    """Request one file repeatedly, in turn from the thumbnail server and the static server."""
    store = FileSystemStore(root, "/files/", fsync=False)
    url = urls(store, asyncio.run(original(store, photos.photo("chelsea"))))[0]
    paths = {"thumbnails": url, "static": url.replace("/thumbnails/", "/files/")}
    samples: dict[str, list[dict[str, float]]] = {who: [] for who in paths}
    with uvicorn(root) as (pid, port):
        for path in paths.values():
            asyncio.run(get(port, [path] * 500))
        for number in range(rounds):
            for who in list(paths)[:: 1 if number % 2 else -1]:
                before, began = cpu_of(pid), time.perf_counter()
                took = asyncio.run(get(port, [paths[who]] * HITS))
                wall, cpu = time.perf_counter() - began, cpu_of(pid) - before
                p99 = statistics.quantiles(took, n=100)[-1]
                samples[who].append({"cpu": cpu / HITS * 1e3, "per_second": HITS / wall, "p99_ms": p99})
    found = {who: medians(values) for who, values in samples.items()}
    times = median_ratio(samples["thumbnails"], samples["static"], "cpu")
    for who, row in found.items():
        say(f"  hit, {who}: {row['cpu']:.3f} ms CPU, {row['per_second']:,.0f}/s, p99 {row['p99_ms']:.1f} ms")
    say(f"  {times:.3f} times the CPU of the static server")
    return {"servers": found, "times": times, "size": next(root.glob("*.t/**/*.webp")).stat().st_size}


async def misses(root: Path, rounds: int) -> dict[str, Any]:
    """Make a missing file, in turn with a request, and with get, ``render()`` and put."""
    store = FileSystemStore(root, "/files/", fsync=False)
    server = ThumbnailServer(store, [Photo], base_url="/thumbnails/")
    client = Client(server)
    recipe = Recipe(width=640, format="webp")
    samples: dict[str, list[Sample]] = {"request": [], "by hand": []}
    blob = photos.large()
    for number in range(rounds):
        rows = [await original(store, blob) for _ in samples]
        [url] = [one for one in urls(store, rows[0]) if ".640x" in one]
        for who in list(samples)[:: 1 if number % 2 else -1]:
            gc.collect()
            with Timer() as timer:
                if who == "request":
                    assert (await client.ask(url.removeprefix("/thumbnails"))).status == 200
                else:
                    async with await store.get(rows[1].key) as file:
                        spool = await Spool.fill(file, checksum=False)
                    [made] = await asyncio.to_thread(render, spool.view, [recipe])
                    await store.put_object(f"elsewhere/{number}", made.blob)
            samples[who].append(timer.sample)
            await server.aclose()  # stop making the other widths, of which only the first is in progress
    found = {who: summary(values[1:]) for who, values in samples.items()}
    pairs = list(zip(samples["request"], samples["by hand"], strict=True))[1:]
    wall = statistics.median(one.wall / other.wall for one, other in pairs)
    cpu = ratio(samples["request"][1:], samples["by hand"][1:])
    more = 1e3 * statistics.median(one.cpu - other.cpu for one, other in pairs)
    for who, row in found.items():
        say(f"  miss, {who}: {row['cpu_ms']:.1f} ms CPU, {row['wall_ms']:.1f} ms")
    say(f"  {cpu:.3f} times the CPU, {more:+.1f} ms; {wall:.3f} times the time")
    return {"ways": found, "times_cpu": cpu, "times_wall": wall, "more_ms": more}


async def busy(root: Path) -> dict[str, Any]:
    """Request many missing files and some existing ones concurrently, and measure the event loop."""
    store = FileSystemStore(root, "/files/", fsync=False)
    blob = photos.large()
    rows = [await original(store, blob) for _ in range(FLOOD)]
    hit = urls(store, await original(store, photos.photo("chelsea")))[0]
    with uvicorn(root) as (_, port):
        await get(port, [hit])
        await lag(port)
        await asyncio.sleep(2)
        idle = await lag(port)
        missing = [urls(store, row)[0] for row in rows]
        flood = asyncio.create_task(get(port, missing))
        took: list[float] = []
        while not flood.done():
            took += await get(port, [hit], 1)
            await asyncio.sleep(0.01)
        late = await lag(port)
        made = await flood
    found = {"idle": idle, "busy": late, "hit_ms": statistics.median(took), "miss_ms": statistics.median(made)}
    say(f"  lag: {found}")
    return found


def resident(pid: int) -> float:
    """Return the resident memory of a process, in megabytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


async def memory(root: Path) -> dict[str, Any]:
    """Request files 20,000 times, of which one in five is missing."""
    store = FileSystemStore(root, "/files/", fsync=False)
    count = REQUESTS // 5 // 2
    paths: list[str] = []
    names = [name for name in photos.NAMES if name != "hubble"]
    for number in range(count):
        row = await original(store, photos.photo(names[number % len(names)]))
        own = [urls(store, row)[0], urls(store, row, "image/jpeg")[0]]
        paths += own * 5
    series: list[tuple[int, float]] = []
    with uvicorn(root) as (pid, port):
        for begin in range(0, len(paths), 200):
            await get(port, paths[begin : begin + 200])
            series.append((begin + 200, resident(pid)))
            if begin % 4000 == 3800:
                say(f"  {begin + 200} requests: {series[-1][1]:.0f} MB")
    quarter = len(series) // 4
    second, last = (
        statistics.median(size for _, size in part) for part in (series[quarter : 2 * quarter], series[-quarter:])
    )
    say(f"  second quarter {second:.0f} MB, last quarter {last:.0f} MB")
    return {"series": series, "second_quarter": second, "last_quarter": last, "missing": 2 * count}


def run(rounds: int, part: str) -> None:
    """Measure one part, and save the result as ``thumbserver.PART``."""
    with TemporaryDirectory(dir=Path(__file__).parent) as folder:
        root = Path(folder)
        if part == "hits":
            found = hits(root, rounds)
        elif part == "misses":
            found = asyncio.run(misses(root, 2 * rounds))
        elif part == "lag":
            found = asyncio.run(busy(root))
        else:
            found = asyncio.run(memory(root))
    save(f"thumbserver.{part}", {**found, "rounds": rounds, "widths": WIDTHS})
