"""Listings of the files in a directory, in order of name."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from aioimageattach.stores.fs import FileSystemStore
from aioimageattach.stores.fs._listing import walk
from aioimageattach.stores.fs._paths import SIDE_PREFIX
from aioimageattach.stores.fs._tree import Tree
from tests.descriptors import count_open


def put(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"1")


def listed(root: Path, prefix: str = "", start_after: str = "") -> list[str]:
    return [found.name for found in walk(Tree(str(root), dir_mode=0o755), prefix, start_after)]


def test_other_files_are_skipped(tmp_path: Path) -> None:
    """Unfinished files, invalid names, links and empty directories are not listed."""
    put(
        tmp_path, "a", f"{SIDE_PREFIX}1", f"b/{SIDE_PREFIX}2", "back\\slash", "line\nfeed", "bad\\directory/file", "b/c"
    )
    (tmp_path / os.fsdecode(b"\xff")).write_bytes(b"1")
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("a")
    (tmp_path / "up").symlink_to("..")
    assert listed(tmp_path) == ["a", "b/c"]


@pytest.mark.parametrize("prefix", ["/", "../", "a//b", "a/../b", "\0/x", "nothing/at/all", "\ud800/x"])
def test_invalid_prefixes(tmp_path: Path, prefix: str) -> None:
    """An invalid prefix lists nothing, inside or outside of the directory."""
    put(tmp_path, "files/a/b", "outside")
    assert listed(tmp_path / "files", prefix) == []


def test_directories_without_matching_names_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Directories before ``start_after`` or outside of the prefix are not read."""
    put(tmp_path, *(f"type/{n:02}/{m}" for n in range(20) for m in range(2)), "other/1", "typewriter/1")
    real = os.scandir
    read: list[str] = []

    def scandir(fd: int) -> object:
        read.append(os.readlink(f"/proc/self/fd/{fd}").removeprefix(str(tmp_path)))
        return real(fd)

    monkeypatch.setattr(os, "scandir", scandir)
    assert listed(tmp_path, "type/", "type/18/0") == ["type/18/1", "type/19/0", "type/19/1"]
    assert read == ["/type", "/type/18", "/type/19"]
    read.clear()
    assert listed(tmp_path, "type/0", "type/09") == ["type/09/0", "type/09/1"]
    assert read == ["/type", "/type/09"]


def test_files_deleted_during_a_listing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files and directories that are deleted during the listing are left out, and the listing continues."""
    put(tmp_path, "a/1", "b/1", "c/1", "d")
    found = walk(Tree(str(tmp_path), dir_mode=0o755), "", "")
    assert next(found).name == "a/1"
    (tmp_path / "b/1").unlink()
    (tmp_path / "b").rmdir()
    real = os.scandir

    class Deleting:
        def __init__(self, fd: int) -> None:
            self.entries = real(fd)

        def __enter__(self) -> list[os.DirEntry[str]]:
            entries = list(self.entries)
            for entry in entries:
                (tmp_path / "c" / entry.name).unlink()
            return entries

        def __exit__(self, *error: object) -> None:
            self.entries.close()

    monkeypatch.setattr(os, "scandir", Deleting)
    assert [one.name for one in found] == ["d"]


def test_a_deep_tree(tmp_path: Path) -> None:
    """Only the length of names limits the depth of a tree."""
    name = "/".join("a" * 120)
    put(tmp_path, name)
    assert listed(tmp_path) == [name]


def test_directories_are_read_lazily(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A listing keeps one directory per level in memory, and no open descriptor between two files."""
    put(tmp_path, *(f"{n:02}/{m}/file" for n in range(5) for m in range(3)))
    real = os.scandir
    read: list[str] = []

    def scandir(fd: int) -> object:
        read.append(os.readlink(f"/proc/self/fd/{fd}").removeprefix(str(tmp_path)))
        return real(fd)

    monkeypatch.setattr(os, "scandir", scandir)
    found = walk(Tree(str(tmp_path), dir_mode=0o755), "", "")
    assert next(found).name == "00/0/file"
    assert read == ["", "/00", "/00/0"]
    assert count_open(tmp_path) == 0
    assert next(found).name == "00/1/file"
    assert read == ["", "/00", "/00/0", "/00/1"]
    found.close()  # type: ignore[attr-defined]


async def test_many_files_come_in_batches(tmp_path: Path) -> None:
    """More than one batch of files is listed completely and in order."""
    names = [f"{n % 7}/{n:04}" for n in range(1203)]
    put(tmp_path, *names)
    store = FileSystemStore(tmp_path, "/")
    assert [found.name async for found in store.list_objects()] == sorted(names)


async def test_unfinished_files_are_removed(tmp_path: Path) -> None:
    """Exactly the unfinished files below the prefix that were last written before the time are removed."""
    old = [f"{SIDE_PREFIX}1", f"photo/{SIDE_PREFIX}2", f"photo/deep/{SIDE_PREFIX}3", f"other/{SIDE_PREFIX}4"]
    put(tmp_path, *old, f"photo/{SIDE_PREFIX}5", "photo/file")
    for name in [*old, "photo/file"]:
        os.utime(tmp_path / name, (0, 0))
    store = FileSystemStore(tmp_path, "/")
    before = datetime.now(UTC) - timedelta(hours=1)
    assert await store.discard_unfinished(before, "pho") == 2
    assert await store.discard_unfinished(before, "photo/") == 0
    assert await store.discard_unfinished(before) == 2
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert left == [f"photo/{SIDE_PREFIX}5", "photo/file"]


def test_two_stores_of_one_directory(tmp_path: Path) -> None:
    """Stores of one directory have the same location for any path, also before the directory exists."""
    (tmp_path / "link").symlink_to(tmp_path)
    stores = [FileSystemStore(tmp_path / path, "/") for path in ("a/files", "link/a/files", "a/others")]
    for _ in range(2):
        assert stores[0].location == stores[1].location
        assert not stores[0].location & stores[2].location
        (tmp_path / "a/files").mkdir(parents=True, exist_ok=True)
        (tmp_path / "a/others").mkdir(exist_ok=True)
