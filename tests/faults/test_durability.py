"""The system calls of a process in order, to determine what a power failure would leave."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.kill.parent import ROOT

PROGRAM = """
import asyncio, sys
from pathlib import Path
from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import async_sessionmaker
from aioimageattach.stores.fs import FileSystemStore
from tests.databases import Database
from tests.faults.models import Base, User

async def main(folder):
    database = Database("sqlite", "aiosqlite", make_url(f"sqlite+aiosqlite:///{folder}/rows.sqlite"))
    await database.create(Base.metadata)
    store = FileSystemStore(f"{folder}/files", "http://test/")
    for content in (b"old", b"new"):
        async with async_sessionmaker(database.engine())() as session:
            user = await session.get(User, 1) or User(id=1)
            session.add(user)
            Path(folder, "begin " + content.decode()).touch()
            await user.picture.from_raw_file(content, store, (3, 2), "image/png")
            await session.commit()
    await database.aclose()

asyncio.run(main(sys.argv[1]))
"""
CALLS = "fsync,fdatasync,linkat,openat,unlink,unlinkat,ftruncate"


def first(calls: list[str], pattern: str) -> int:
    """Return the index of the first call that matches."""
    return next(number for number, call in enumerate(calls) if re.search(pattern, call))


def test_everything_is_on_the_disk_before_the_commit(tmp_path: Path) -> None:
    """File, name and directory are synced before COMMIT; the old file is deleted only after that is durable."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    log = tmp_path / "calls"
    subprocess.run(
        [strace, "-f", "-y", "-s", "500", "-e", f"trace={CALLS}", "-o", log, sys.executable, "-c", PROGRAM, tmp_path],
        cwd=ROOT,
        check=True,
    )
    lines = log.read_text().splitlines()
    start = first(lines, "/begin new")
    calls = [line for line in lines[start:] if str(tmp_path) in line and "ENOENT" not in line]
    picture = first(calls, r"fsync\(\d+<[^>]*/files/[^>]*/#\d+>")  # the kernel's name for an unnamed file
    name = first(calls, r"linkat\(.*\.png")
    directory = first(calls[name:], r"fsync\(\d+<[^>]*/files/[^>]*>\)") + name
    rows = first(calls[name:], r"fdatasync\(\d+<[^>]*rows\.sqlite>") + name
    committed = first(calls, r"unlink\(.*rows\.sqlite-journal")
    old = first(calls, r"unlinkat\(.*\.png")
    assert picture < name < directory < rows < committed < old
