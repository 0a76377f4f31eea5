"""Reading images in a worker process, compared with a thread."""

from __future__ import annotations

import os
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from aioimageattach.imaging import Recipe, probe, render
from aioimageattach.imaging._limits import DEFAULT_LIMITS
from tests import photos

from .measure import save, say

__all__ = ["run"]

LIMITS = {"thread": DEFAULT_LIMITS, "process": replace(DEFAULT_LIMITS, isolated=True)}


def _workers() -> list[int]:
    return [int(pid) for path in Path("/proc/self/task").glob("*/children") for pid in path.read_text().split()]


def _cpu() -> float:
    """Return the CPU time of this process and its children, in seconds."""
    passed = time.process_time()
    for pid in _workers():
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        passed += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return passed


def _measured(data: bytes, recipe: Recipe | None, where: str, times: int) -> dict[str, float]:
    limits, walls = LIMITS[where], []
    began = 0.0
    for number in range(times + 1):
        if number == 1:  # the first run warms up
            began = _cpu()
        start = time.perf_counter()
        _ = probe(data, limits) if recipe is None else render(data, [recipe], limits)
        walls.append(time.perf_counter() - start)
    return {"cpu_ms": 1000 * (_cpu() - began) / times, "wall_ms": 1000 * statistics.median(walls[1:])}


def run(rounds: int) -> None:
    """Run the measurements, and save the result as ``isolation``."""
    began = time.perf_counter()
    probe(photos.png(), LIMITS["process"])
    start = 1000 * (time.perf_counter() - began)
    status = Path(f"/proc/{_workers()[0]}/status").read_text().splitlines()
    own = next(int(line.split()[1]) for line in status if line.startswith("RssAnon")) / 1000
    tasks: dict[str, tuple[bytes, Recipe | None, int]] = {
        "header, 71 kB": (photos.photo("coffee"), None, 40 * rounds),
        "header, 3.9 MB": (photos.large(), None, 20 * rounds),
        "71 kB to 150 px": (photos.photo("coffee"), Recipe(width=150), 10 * rounds),
        "12 megapixels to 300 px": (photos.large(), Recipe(width=300), 3 * rounds),
        "12 megapixels to 1200 px": (photos.large(), Recipe(width=1200), 2 * rounds),
    }
    work: dict[str, Any] = {}
    for name, (data, recipe, times) in tasks.items():
        work[name] = {where: _measured(data, recipe, where, times) for where in LIMITS}
        say(f"  {name:26} {work[name]}")
    at_once = {}
    for where, limits in LIMITS.items():
        with ThreadPoolExecutor(3) as pool:
            began = time.perf_counter()
            jobs = [pool.submit(render, photos.large(), [Recipe(width=300)], limits) for _ in range(6 * rounds)]
            _ = [job.result() for job in jobs]
            at_once[where] = len(jobs) / (time.perf_counter() - began)
    say(f"  three at once: {at_once}; start {start:.0f} ms, {own:.0f} MB")
    save("isolation", {"work": work, "at_once": at_once, "start_ms": start, "own_mb": own})
