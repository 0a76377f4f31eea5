"""Whose the files and directories of a store are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from aioimageattach.stores.fs import FileSystemStore

root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")


@root
async def test_another_user_makes_no_directory_of_its_own(tmp_path: Path) -> None:
    """A job that runs as root gives what it makes to the owner and the group of the store's root."""
    (folder := tmp_path / "media").mkdir()
    os.chown(folder, 12345, 12346)
    store = FileSystemStore(folder, "/", fsync=False, file_mode=0o600)
    await store.put_object("a/b/file", b"x")
    await store.move_objects({"a/b/file": "c/d/file"})
    for path in ("c", "c/d", "c/d/file"):
        found = (folder / path).stat()
        assert (found.st_uid, found.st_gid) == (12345, 12346), path


async def test_lost_and_found(tmp_path: Path) -> None:
    """The directory of a file system at the root of a volume is none of the store's."""
    store = FileSystemStore(tmp_path, "/", fsync=False)
    await store.put_object("a/file", b"x")
    (tmp_path / "lost+found").mkdir(mode=0)
    (tmp_path / "lost+found" / "#1234").write_bytes(b"x")
    assert [info.name async for info in store.list_objects()] == ["a/file"]
