"""Disks that are really full, read-only or missing: the flush fails with a clear error, and nothing is lost."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from aioimageattach.context import bind_store
from aioimageattach.exc import StoreError, StorePermissionError, StoreUnavailableError
from aioimageattach.stores.fs import FileSystemStore
from tests.faults.rig import Rig, get
from tests.faults.stores import FaultyStore


def mount(*arguments: str | Path) -> None:
    """Mount a file system, or skip the test if that is not permitted."""
    done = subprocess.run(["mount", *map(str, arguments)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"mounting needs more rights: {done.stderr.strip()}")


@contextmanager
def mounted(place: Path, *arguments: str | Path) -> Iterator[None]:
    """Mount a file system for the duration of the block."""
    mount(*arguments, place)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


@contextmanager
def limited(kind: int, value: int) -> Iterator[None]:
    """Lower a limit of this process for the duration of the block."""
    soft, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (value, hard))
    try:
        yield
    finally:
        resource.setrlimit(kind, (soft, hard))


@pytest.fixture
def rig(sqlite_rig: Rig, tmp_path: Path) -> Rig:
    """SQLite and an existing directory."""
    (tmp_path / "disk").mkdir()
    sqlite_rig.store = FaultyStore(FileSystemStore(tmp_path / "disk" / "files", "http://test/"))
    return sqlite_rig


async def replace(rig: Rig, content: bytes) -> None:
    """Replace the image of a user."""
    async with rig.sessions() as session, session.begin():
        await rig.attach((await get(session)).picture, content)


def leftovers(rig: Rig) -> int:
    """Return the number of files in the directory, including those that no listing shows."""
    assert isinstance(rig.store.inner, FileSystemStore)
    return sum(len(files) for _, _, files in os.walk(rig.store.inner.path))


@pytest.mark.parametrize("option", ["size=256k", "nr_inodes=12"])
async def test_a_full_disk(rig: Rig, tmp_path: Path, option: str) -> None:
    """The second image raises StoreError and leaves nothing; the first is intact, and deleting it frees space."""
    old, new = bytes(150_000), b"1" + bytes(150_000)
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", option, "tmpfs"):
        await rig.user(1, old)
        if option.startswith("nr"):
            with pytest.raises(OSError, match="No space left"):
                for number in range(100):
                    (tmp_path / "disk" / str(number)).touch()
        with pytest.raises(StoreUnavailableError, match="No space left"):
            await replace(rig, new)
        await rig.check(old)
        assert leftovers(rig) == 1
        async with rig.sessions() as session, session.begin():
            bind_store(session, rig.store)
            await (await get(session)).picture.delete()
        await replace(rig, new)
        await rig.check(new)


async def test_a_read_only_disk(rig: Rig, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A put is refused with a clear error; a delete after the commit raises nothing and is logged."""
    await rig.user()
    with mounted(tmp_path / "disk", "--bind", tmp_path / "disk"):
        mount("-o", "remount,ro,bind", tmp_path / "disk")
        with pytest.raises(StorePermissionError, match="Read-only"):
            await replace(rig, b"new")
        await rig.check(b"old")
        async with rig.sessions() as session, session.begin():
            bind_store(session, rig.store)
            await (await get(session)).picture.delete()
    assert "could not delete" in caplog.text
    await rig.check(orphans=True)


async def test_a_file_larger_than_is_allowed(rig: Rig) -> None:
    """``RLIMIT_FSIZE`` acts like a quota: StoreError, and no partial file."""
    await rig.user()
    with limited(resource.RLIMIT_FSIZE, 1_000_000), pytest.raises(StoreError, match="too large"):
        await replace(rig, bytes(2_000_000))
    await rig.check(b"old")
    assert leftovers(rig) == 1
    await replace(rig, bytes(2_000_000))
    await rig.check(bytes(2_000_000))


async def test_no_file_can_be_opened(rig: Rig) -> None:
    """``RLIMIT_NOFILE`` raises a StoreError that says so; afterwards everything works again."""
    await rig.user()
    async with rig.sessions() as session, session.begin():
        user = await get(session)
        await rig.attach(user.picture, b"new")
        with limited(resource.RLIMIT_NOFILE, 1), pytest.raises(StoreError, match="Too many open files"):
            await session.flush()
        await rig.attach(user.picture, b"newer")
    await rig.check(b"newer")


async def test_a_root_that_is_gone(rig: Rig, tmp_path: Path) -> None:
    """If the disk is not mounted, a put raises an error and creates no directory in its place."""
    (tmp_path / "disk").rmdir()
    with pytest.raises(StoreError, match="does not exist; create it, or mount it"):
        await rig.user()
    assert not (tmp_path / "disk").exists()
    await rig.check()


async def test_a_root_that_is_a_file(rig: Rig, tmp_path: Path) -> None:
    """If the root is a file, a put raises an error and keeps the file."""
    (tmp_path / "disk" / "files").write_text("mine")
    with pytest.raises(StoreError, match="files"):
        await rig.user()
    assert (tmp_path / "disk" / "files").read_text() == "mine"
