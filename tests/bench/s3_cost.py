"""The cost of the S3 client compared with plain aiohttp, in one process: ``python -m tests.bench.s3_cost``.

Clients in separate processes differ by up to 30 % for unrelated reasons; in one process they share everything.
"""

from __future__ import annotations

import asyncio
import importlib
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

from .blackhole import running
from .s3_peers import BUCKET, PEERS

__all__ = ["main"]

KIB, MIB = 2**10, 2**20
CASES = (
    ("put", 4 * KIB, 1, 200),
    ("put", 4 * KIB, 16, 400),
    ("put", 4 * KIB, 64, 400),
    ("get", 4 * KIB, 1, 200),
    ("get", 4 * KIB, 16, 400),
    ("get", 4 * KIB, 64, 400),
    ("put", MIB, 16, 48),
    ("get", MIB, 16, 48),
)
NAMES = ("aiohttp", "aioimageattach")


async def _turn(call: Callable[[int], Awaitable[object]], count: int, concurrency: int) -> float:
    """Return the CPU time of one operation, in microseconds."""
    numbers = iter(range(count))

    async def work() -> None:
        for number in numbers:
            await call(number)

    start = time.process_time()
    await asyncio.gather(*(work() for _ in range(concurrency)))
    return (time.process_time() - start) / count * 1e6


async def _measure(url: str, rounds: int) -> None:
    async with AsyncExitStack() as stack:
        peers = {name: await stack.enter_async_context(PEERS[name][0](url)) for name in NAMES}
        print(f"{'':24}" + "".join(f"{name:>18}" for name in NAMES) + f"{'ratio':>10}")
        for operation, size, concurrency, count in CASES:
            body = bytes(size)

            def caller(name: str) -> Callable[[int], Awaitable[object]]:
                peer = peers[name]
                if operation == "put":  # noqa: B023
                    return lambda number: peer.put(f"some/name-{number}", body)  # noqa: B023
                return lambda number: peer.get(f"some/name-{number}/{size}")  # noqa: B023

            found: dict[str, list[float]] = {name: [] for name in NAMES}
            for turn in range(rounds + 1):
                for name in NAMES if turn % 2 else reversed(NAMES):
                    cost = await _turn(caller(name), count, concurrency)
                    if turn:
                        found[name].append(cost)
            ratios = [ours / theirs for theirs, ours in zip(*found.values(), strict=True)]
            label = f"{operation} {size // KIB:,} KiB, {concurrency}"
            costs = "".join(f"{statistics.median(found[name]):15.1f} us" for name in NAMES)
            print(f"{label:24}{costs}{statistics.median(ratios):10.2f}", flush=True)


def main(rounds: int) -> None:
    """Run the measurements, and print a table."""
    importlib.import_module(
        "aioimageattach.entity"
    )  # applications load it, and its objects cost time in garbage collections
    print(f"bucket {BUCKET}, {rounds} rounds", flush=True)
    with running() as url:
        asyncio.run(_measure(url, rounds))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 15)
