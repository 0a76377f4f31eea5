"""Request bodies, which can be sent several times."""

from __future__ import annotations

import base64
import hashlib
import io
import zlib
from collections.abc import AsyncIterator

import pytest

from aioimageattach.file import Spool
from aioimageattach.file._spool import SPOOL_MEMORY
from aioimageattach.stores.s3._http.body import SLICE, Body, Slices, Watch

BLOB = bytes(range(256)) * 4 * 1024 + b"end"


async def pieces(blob: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(blob), 500_000):
        yield blob[start : start + 500_000]


async def collect(body: Body) -> list[bytes]:
    return [bytes(piece) async for piece in Slices(body, lambda: None, Watch())]


@pytest.mark.parametrize("blob", [b"", b"x", BLOB, BLOB * 5], ids=len)
async def test_a_body_is_the_same_each_time(blob: bytes) -> None:
    """A body in memory or on disk yields the same bytes each time, in slices of a limited size."""
    assert len(BLOB * 5) > SPOOL_MEMORY
    for source in (blob, io.BytesIO(blob), pieces(blob), (await Spool.fill(pieces(blob))).open()):
        body = await Body.of(source)
        assert body.size == len(blob)
        for _ in range(2):
            found = await collect(body)
            assert b"".join(found) == blob
            assert all(0 < len(piece) <= SLICE for piece in found)


async def test_parts_of_a_body() -> None:
    """Parts of a body equal slices of the bytes, also on disk."""
    for body in (Body(BLOB), await Body.of(pieces(BLOB * 5))):
        part = body.part(1000, 600_000)
        assert (part.size, part.on_disk) == (599_000, body.on_disk)
        assert b"".join(await collect(part)) == (BLOB * 5)[1000:600_000]
        assert body.part(body.size - 3, body.size + 100).view == b"end"


@pytest.mark.parametrize("blob", [b"", BLOB], ids=len)
async def test_sha256_and_checksums(blob: bytes) -> None:
    """The SHA-256, which is computed once, and the checksums are those of the bytes."""
    body = Body(blob)
    assert await body.sha256() == await body.sha256() == hashlib.sha256(blob).hexdigest()
    assert await body.checksum("crc32") == base64.b64encode(zlib.crc32(blob).to_bytes(4, "big")).decode()
    assert await body.checksum("sha1") == base64.b64encode(hashlib.sha1(blob).digest()).decode()


async def test_the_watch_records_the_last_slice() -> None:
    """Before the last slice, the server cannot have the whole body. Each slice counts as progress."""
    body = Body(bytes(2 * SLICE + 1))
    steps: list[int] = []
    watch = Watch()
    seen = [watch.all_sent]
    async for _ in Slices(body, lambda: steps.append(1), watch):
        seen.append(watch.all_sent)
    assert seen == [False, False, False, True]
    assert len(steps) == 3
