"""The owner of files and directories."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from aioimageattach.stores.fs import FileSystemStore

root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")


@root
async def test_files_of_root_get_the_owner_of_the_directory(tmp_path: Path) -> None:
    """Files and directories that root creates get the owner and group of the root directory."""
    (folder := tmp_path / "media").mkdir()
    os.chown(folder, 12345, 12346)
    store = FileSystemStore(folder, "/", fsync=False, file_mode=0o600)
    await store.put_object("a/b/file", b"x")
    await store.move_objects({"a/b/file": "c/d/file"})
    for path in ("c", "c/d", "c/d/file"):
        found = (folder / path).stat()
        assert (found.st_uid, found.st_gid) == (12345, 12346), path


async def test_lost_and_found(tmp_path: Path) -> None:
    """``lost+found`` at the root of a volume does not belong to the store."""
    store = FileSystemStore(tmp_path, "/", fsync=False)
    await store.put_object("a/file", b"x")
    (tmp_path / "lost+found").mkdir(mode=0)
    (tmp_path / "lost+found" / "#1234").write_bytes(b"x")
    assert [info.name async for info in store.list_objects()] == ["a/file"]
