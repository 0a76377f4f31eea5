"""Puts and gets of objects by all S3 clients, with an endpoint that stores nothing."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from .blackhole import running
from .measure import Sample, interleaved, ratio, save, say, summary
from .s3_peers import PEERS

__all__ = ["run"]

PEERS_PYTHON = Path(__file__).parent.parent.parent / ".venv-s3-peers" / "bin" / "python"
BASE = "aiohttp"
KIB, MIB = 2**10, 2**20
CONCURRENCY = (1, 16, 64)
# number of operations per turn, by size; at least one for each task
SMALL = {4 * KIB: 256, 100 * KIB: 192}
LARGE = {MIB: 48, 20 * MIB: 8}


# glibc may return large blocks to the system and soon allocate and clear them again, depending on chance, which costs
# four times the CPU time of the rest. Therefore this is disabled where CPU time is measured.
KEEPING = {"MALLOC_MMAP_THRESHOLD_": str(32 * MIB), "MALLOC_TRIM_THRESHOLD_": str(2**30)}


class _Peer:
    """The process of a client."""

    def __init__(self, name: str, url: str, environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [_python(), "-m", "tests.bench.s3_peers", name, url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parent.parent.parent,
            env={**os.environ, **environment},
        )
        self.about: dict[str, str] = self._hear()

    def _hear(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline() or '{"error": "it has ended"}')

    def ask(self, **task: Any) -> dict[str, float]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(task) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = self._hear()
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def _python() -> str:
    return str(PEERS_PYTHON) if PEERS_PYTHON.exists() else sys.executable


@contextmanager
def _all(url: str, names: list[str], environment: Mapping[str, str] = KEEPING) -> Iterator[dict[str, _Peer]]:
    """Start the installed clients, and print the names of the others."""
    with ExitStack() as stack:
        found = {}
        for name in names:
            peer = _Peer(name, url, environment)
            stack.callback(peer.close)
            if "version" in peer.about:
                found[name] = peer
            else:
                say(f"  missing: {name}: {peer.about}")
        yield found


def _turn(peer: _Peer, **task: Any) -> Callable[[], Sample]:
    def run_one() -> Sample:
        found = peer.ask(**task)
        return Sample(found["cpu"] / task["count"], found["wall"] / task["count"])

    return run_one


def _requests(section: str, sizes: Mapping[int, int], rounds: int) -> None:
    names = [name for name in PEERS if not name.endswith(("in parts", "public"))]
    tables = []
    with running() as url, _all(url, names) as peers:
        for size, count in sizes.items():
            # a large body takes so long that few rounds are sufficient
            turns = max(2, rounds if size < MIB else rounds // 2 if size == MIB else 2)
            for operation in ("put", "get"):
                for concurrency in CONCURRENCY:
                    if operation == "get" and concurrency * size > 2**30:
                        continue  # each client would hold more than a gigabyte
                    task = {"operation": operation, "size": size, "concurrency": concurrency}
                    takes_part = {
                        name: _turn(peer, count=max(count, concurrency), **task)
                        for name, peer in peers.items()
                        if operation == "put" or name != "aioimageattach, signed bodies"
                    }
                    tables.append({**task, "peers": _table(takes_part, turns)})
                    _tell(tables[-1])
        save(section, {"tables": tables, "rounds": rounds, "versions": _versions(peers)})


def _versions(peers: Mapping[str, _Peer]) -> dict[str, str]:
    return {name: peer.about["version"] for name, peer in peers.items()}


def _table(turns: Mapping[str, Callable[[], Sample]], rounds: int) -> dict[str, dict[str, float]]:
    samples = interleaved(turns, rounds, lambda _: None)
    return {
        name: {**summary(found), "ratio": ratio(found, samples[BASE]), "per_second": 1e3 / summary(found)["wall_ms"]}
        for name, found in samples.items()
    }


def _tell(table: dict[str, Any]) -> None:
    say(f"  {table['operation']} {table['size'] // KIB:,} KiB, {table['concurrency']} at once")
    for name, row in table["peers"].items():
        cpu, times, pace = row["cpu_ms"], row["ratio"], row["per_second"]
        say(f"    {name:30} {cpu:8.3f} ms CPU ({times:5.2f} x) {pace:9,.0f} a second")


def _memory(url: str, name: str, file: Path) -> dict[str, float]:
    """Return the peak memory while 16 bodies of 20 MiB are put concurrently, and the memory before."""
    found: dict[str, float] = {}
    for what, source in (("bytes", {}), ("file", {"file": str(file)})):
        with _all(url, [name], {}) as peers:
            for peer in peers.values():
                task: dict[str, Any] = {"operation": "put", "size": 20 * MIB, "count": 16, "concurrency": 16}
                answer = peer.ask(**task, **source)
                found |= {f"{what}_before": answer["before"], f"{what}_peak": answer["peak"]}
    return found


def _lag(peers: Mapping[str, _Peer], rounds: int) -> list[dict[str, Any]]:
    tables = []
    for size, count in {**SMALL, **LARGE}.items():
        for operation in ("put", "get"):
            task: dict[str, Any] = {"operation": operation, "size": size, "count": max(16, count), "concurrency": 16}
            found = {}
            for name, peer in peers.items():
                peer.ask(**task)
                found[name] = [peer.ask(**task, lag=True)["lag"] for _ in range(rounds)]
            tables.append({**task, "peers": {name: statistics.median(late) for name, late in found.items()}})
    return tables


def _urls(peers: Mapping[str, _Peer], rounds: int) -> dict[str, float]:
    found = {}
    for name in ("aioimageattach", "aioimageattach, public", "boto3"):
        if name in peers:
            task = {"operation": "url", "size": 0, "count": 2000, "concurrency": 1}
            peers[name].ask(**task)
            found[name] = 1e6 * min(peers[name].ask(**task)["cpu"] for _ in range(rounds)) / 2000
            say(f"  a URL by {name}: {found[name]:.1f} microseconds")
    return found


def _limits(section: str, rounds: int) -> None:
    memory = {}
    with running() as url, tempfile.TemporaryDirectory(dir=Path(__file__).parent) as folder:
        file = Path(folder) / "body"
        file.write_bytes(bytes(range(256)) * (20 * MIB // 256))
        for name in PEERS:
            if name != "aioimageattach, public":
                memory[name] = _memory(url, name, file)
                say(f"  {name:30} " + ", ".join(f"{what} {size:.0f} MB" for what, size in memory[name].items()))
        names = [name for name in PEERS if name not in ("aioimageattach, signed bodies", "aioimageattach, in parts")]
        with _all(url, names) as peers:
            urls = _urls(peers, rounds)
            peers.pop("aioimageattach, public", None)
            lags = _lag(peers, max(3, rounds // 3))
            for table in lags:
                rows = ", ".join(f"{name} {late:.1f}" for name, late in table["peers"].items())
                say(f"  lag in ms, {table['operation']} {table['size'] // KIB:,} KiB: {rows}")
    save(section, {"memory": memory, "urls": urls, "lag": lags, "rounds": rounds})


def run(rounds: int, part: str) -> None:
    """Measure one part, ``small``, ``large`` or ``limits``, and save the result as ``s3.PART``."""
    section = f"s3.{part}"
    if part == "limits":
        _limits(section, max(3, rounds // 3))
    else:
        _requests(section, SMALL if part == "small" else LARGE, max(2, rounds // 3))
