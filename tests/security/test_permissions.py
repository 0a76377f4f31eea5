"""Temporary files cannot be found or read by other users."""

from __future__ import annotations

import asyncio
import os
import stat
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from aioimageattach.file import Spool
from aioimageattach.file._spool import SPOOL_MEMORY


@pytest.mark.parametrize("umask", [0, 0o077])
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files are listed on Linux")
async def test_only_the_owner_can_read_a_spool(umask: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even in a shared directory full of planted links, an upload has no name, and only its owner can read it."""
    outside = tmp_path / "outside"
    outside.write_bytes(b"mine")
    shared = tmp_path / "shared"
    shared.mkdir()
    for name in ("tmp", "spool", "upload", *(f"tmp{number:08d}" for number in range(50))):
        (shared / name).symlink_to(outside)
    planted = sorted(os.listdir(shared))
    monkeypatch.setattr(tempfile, "tempdir", str(shared))
    seen: list[os.stat_result] = []

    def look() -> None:
        assert sorted(os.listdir(shared)) == planted
        for number in os.listdir("/proc/self/fd"):
            path = Path("/proc/self/fd", number)
            if path.is_symlink() and os.readlink(path).startswith(f"{shared}/"):
                seen.append(path.stat())

    async def body() -> AsyncIterator[bytes]:
        for _ in range(2 + SPOOL_MEMORY // 1_000_000):
            yield bytes(1_000_000)
        await asyncio.to_thread(look)

    before = os.umask(umask)
    try:
        spool = await Spool.fill(body())
    finally:
        os.umask(before)
    assert spool.on_disk
    assert [stat.S_IMODE(found.st_mode) & 0o077 for found in seen] == [0]
    assert outside.read_bytes() == b"mine"
