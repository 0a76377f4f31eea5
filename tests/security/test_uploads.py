"""Endless, slow and numerous uploads: memory is bounded, and no upload blocks another."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator

import pytest

from aioimageattach.exc import ImageTooLargeError
from aioimageattach.file import Spool
from aioimageattach.file._spool import SPOOL_MEMORY, SPOOLS_MEMORY

MEBIBYTE = 1024 * 1024


async def body(size: int, piece: int = 64 * 1024) -> AsyncIterator[bytes]:
    """Yield a number of bytes in pieces, as they arrive from a network."""
    for at in range(0, size, piece):
        await asyncio.sleep(0)
        yield bytes(min(piece, size - at))


async def test_an_endless_body_is_read_up_to_the_limit() -> None:
    """At most one piece beyond the limit is read, whatever length was announced."""
    asked = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal asked
        while True:
            asked += 1
            yield bytes(100_000)

    with pytest.raises(ImageTooLargeError, match="1,000,000 bytes"):
        await Spool.fill(endless(), limit=1_000_000)
    assert asked == 11


async def test_slow_bodies_hold_no_thread() -> None:
    """A thousand clients that send a byte now and then do not delay a client that sends quickly."""
    asked = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"x"
        await asked.wait()

    waiting = [asyncio.create_task(Spool.fill(slow())) for _ in range(1000)]
    await asyncio.sleep(0)
    spool = await asyncio.wait_for(Spool.fill(body(5 * MEBIBYTE)), 20)
    assert spool.on_disk
    asked.set()
    assert {found.size for found in await asyncio.gather(*waiting)} == {1}


async def test_all_uploads_together_have_a_memory_limit() -> None:
    """Uploads beyond the shared limit use temporary files, and the memory is available again afterwards."""
    gc.collect()
    size = SPOOL_MEMORY - 1
    spools = [await Spool.fill(body(size), checksum=False) for _ in range(SPOOLS_MEMORY // size + 20)]
    kept = [spool for spool in spools if not spool.on_disk]
    assert sum(spool.size for spool in kept) <= SPOOLS_MEMORY
    assert len(spools) - len(kept) in range(19, 24)
    assert {len(spool.view) for spool in spools} == {size}
    del spools, kept
    assert not (await Spool.fill(body(size), checksum=False)).on_disk


MEASURE = """
import asyncio, json, resource
from aioimageattach.file import Spool
from tests.security.test_uploads import MEBIBYTE, body

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

async def main():
    await Spool.fill(body(5 * MEBIBYTE), checksum=False)
    before = peak()
    spools = await asyncio.gather(*(Spool.fill(body(MEBIBYTE), checksum=False) for _ in range(1000)))
    print(json.dumps([len(spools), peak() - before]))

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="what a process had at most is told in other units elsewhere")
def test_a_thousand_concurrent_uploads_take_constant_memory() -> None:
    """A thousand concurrent uploads of 1 MB take a fraction of that memory, whatever the allocator keeps."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True, env=environment)
    count, grown = json.loads(done.stdout)
    assert count == 1000
    assert grown < 4 * SPOOLS_MEMORY / MEBIBYTE
