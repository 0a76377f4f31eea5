"""The thumbnail server compared with ipx and thumbor: hits, misses, and bytes at equal perceived quality."""

from __future__ import annotations

import asyncio
import io
import os
import shutil
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.request import urlopen

import pyvips

from aioimageattach import Recipe
from aioimageattach.imaging import render
from aioimageattach.stores.fs import FileSystemStore
from tests import photos

from . import originals
from .looks import _png, _reference
from .measure import save, say
from .serving import Command, cpu_of, free_port, median_ratio, medians, running
from .thumbserver import get, original, urls, uvicorn

__all__ = ["run"]

HERE = Path(__file__).parent
THUMBOR = HERE.parent.parent / ".venv-thumbor" / "bin" / "thumbor"
HITS = 200
WIDTH = 640
SCORES = (60, 70, 80)
"""SSIMULACRA 2 scores. 70 is high quality: people see little difference from the original."""


@dataclass
class Peer:
    """Another server.

    Attributes:
        pid: The process id.
        port: The port.
        path: Returns the path of a WebP of a width and quality.
        keeps: ``True`` if the server stores the files that it has made.
    """

    pid: int
    port: int
    path: Callable[[str, int, int], str]
    keeps: bool


def ipx(folder: Path, port: int) -> Command | None:
    """Return the command that starts ipx; ``None`` if it is not installed."""
    node = shutil.which("node")
    if node is None or not (HERE / "node_modules" / "ipx").exists():
        say("  missing: ipx; npm install --prefix tests/bench --no-save ipx")
        return None
    return [node, str(HERE / "ipx.mjs"), str(folder), str(port)], {}


def thumbor(folder: Path, port: int) -> Command | None:
    """Return the command that starts thumbor; ``None`` if it is not installed."""
    if not THUMBOR.exists():
        say("  missing: thumbor; python3 -m venv .venv-thumbor; .venv-thumbor/bin/pip install thumbor")
        return None
    (folder / "thumbor.conf").write_text(
        f"LOADER = 'thumbor.loaders.file_loader'\nFILE_LOADER_ROOT_PATH = {str(folder)!r}\n"
        "STORAGE = 'thumbor.storages.no_storage'\n"
        "RESULT_STORAGE = 'thumbor.result_storages.file_storage'\n"
        f"RESULT_STORAGE_FILE_STORAGE_ROOT_PATH = {str(folder / 'results')!r}\n"
        "RESULT_STORAGE_STORES_UNSAFE = True\nALLOW_UNSAFE_URL = True\n"
    )
    return [str(THUMBOR), "--port", str(port), "--conf", str(folder / "thumbor.conf"), "--log-level", "error"], {}


def ipx_path(name: str, width: int, quality: int) -> str:
    """Return the path of a thumbnail on ipx."""
    return f"/w_{width},f_webp,q_{quality}/{name}"


def thumbor_path(name: str, width: int, quality: int) -> str:
    """Return the path of a thumbnail on thumbor."""
    return f"/unsafe/{width}x0/filters:format(webp):quality({quality})/{name}"


def pinned(command: Command) -> Command:
    """Run a server on the last core, like the thumbnail server of this library."""
    words, environment = command
    return (["taskset", "-c", str(max(os.sched_getaffinity(0))), *words], environment)


def turn(pid: int, port: int, paths: list[str], connections: int) -> dict[str, float]:
    """Request paths; return the elapsed time and CPU time of each request, in milliseconds."""
    before = cpu_of(pid)
    took = asyncio.run(get(port, paths, connections))
    return {"ms": statistics.median(took), "cpu": 1e3 * (cpu_of(pid) - before) / len(paths)}


def speed(folder: Path, rounds: int) -> dict[str, Any]:
    """Request missing files one at a time, and one existing file repeatedly, from all servers in turn."""
    blob = photos.large()
    store = FileSystemStore(folder / "store", "/files/", fsync=False)
    found: dict[str, Any] = {}
    with ExitStack() as held:
        peers: dict[str, Peer] = {}
        for name, start, path, keeps in (("ipx", ipx, ipx_path, False), ("thumbor", thumbor, thumbor_path, True)):
            port = free_port()
            command = start(folder, port)
            if command is not None:
                peers[name] = Peer(held.enter_context(running(pinned(command), port)), port, path, keeps)
        (folder / "store").mkdir()
        pid, port = held.enter_context(uvicorn(folder / "store"))
        misses: dict[str, list[dict[str, float]]] = {name: [] for name in ("ours", *peers)}
        hits: dict[str, list[dict[str, float]]] = {name: [] for name in misses}
        for number in range(rounds + 1):
            (folder / f"{number}.jpg").write_bytes(blob)
            row = asyncio.run(original(store, blob))
            mine = next(url for url in urls(store, row) if f".{WIDTH}x" in url)
            for name in [*misses][:: 1 if number % 2 else -1]:
                where = (pid, port) if name == "ours" else (peers[name].pid, peers[name].port)
                path = mine if name == "ours" else peers[name].path(f"{number}.jpg", WIDTH, 80)
                misses[name].append(turn(*where, [path], 1))
                while name == "ours" and len([*(folder / "store").glob("*.t/**/*.webp")]) < 4 * (number + 1):
                    time.sleep(0.1)  # the other widths are made after the response
                if name == "ours" or peers[name].keeps:
                    hits[name].append(turn(*where, [path] * HITS, 1))
    for name, samples in misses.items():
        found[name] = {"miss": medians(samples[1:])}
        found[name]["miss"]["times"] = median_ratio(samples[1:], misses["ours"][1:], "ms")
        if hits[name]:
            found[name]["hit"] = medians(hits[name][1:])
        say(f"  {name}: {found[name]}")
    return found


def quality(folder: Path) -> dict[str, Any]:
    """Search the quality with which each server reaches a score, and return the number of bytes."""
    from ssimulacra2 import compute_ssimulacra2

    blob = originals.written("mosaic", folder).read_bytes()
    (folder / "mosaic.jpg").write_bytes(blob)
    reference = _png(_reference(blob, WIDTH, linear=False)).getvalue()

    def score(made: bytes) -> float:
        return float(compute_ssimulacra2(io.BytesIO(reference), _png(pyvips.Image.new_from_buffer(made, ""))))

    makers: dict[str, Callable[[int], bytes]] = {
        "ours": lambda number: render(blob, [Recipe(width=WIDTH, format="webp", quality=number)])[0].blob
    }
    found: dict[str, Any] = {}
    with ExitStack() as held:
        for name, start, path in (("ipx", ipx, ipx_path), ("thumbor", thumbor, thumbor_path)):
            port = free_port()
            command = start(folder, port)
            if command is not None:
                held.enter_context(running(command, port))

                def fetch(number: int, port: int = port, path: Any = path) -> bytes:
                    with urlopen(f"http://127.0.0.1:{port}{path('mosaic.jpg', WIDTH, number)}") as answer:
                        return bytes(answer.read())

                makers[name] = fetch
        for name, make in makers.items():
            rows: dict[int, tuple[float, int]] = {}
            for wanted in SCORES:
                least, most = 1, 100
                while least < most:
                    middle = (least + most) // 2
                    if middle not in rows:
                        rows[middle] = score(made := make(middle)), len(made)
                    least, most = (least, middle) if rows[middle][0] >= wanted else (middle + 1, most)
                if least not in rows:
                    rows[least] = score(made := make(least)), len(made)
                reached, size = rows[least]
                found.setdefault(name, {})[str(wanted)] = {"quality": least, "score": reached, "bytes": size}
            usual = make(80)
            found[name]["usual"] = {"quality": 80, "score": score(usual), "bytes": len(usual)}
            say(f"  {name}: {found[name]}")
    return found


def run(rounds: int) -> None:
    """Run the measurements, and save the result as ``thumbpeers``."""
    with TemporaryDirectory(dir=HERE) as folder, TemporaryDirectory(dir=HERE) as other:
        save("thumbpeers", {"speed": speed(Path(folder), rounds), "quality": quality(Path(other)), "rounds": rounds})
