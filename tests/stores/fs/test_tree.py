"""Directories that are created and removed concurrently."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from aioimageattach.exc import StoreFileNotFoundError, StoreUnavailableError
from aioimageattach.stores.fs import FileSystemStore
from aioimageattach.stores.fs._tree import TRIES, Tree
from tests.descriptors import count_all


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "files"


def before(monkeypatch: pytest.MonkeyPatch, name: str, times: int, act: Callable[[], None]) -> list[int]:
    """Run an action before each of the first calls of ``os.NAME``; return a list with one entry for each time."""
    real = getattr(os, name)
    acted: list[int] = []

    def call(*args: object, **kwargs: object) -> object:
        if len(acted) < times:
            acted.append(1)
            act()
        return real(*args, **kwargs)

    monkeypatch.setattr(os, name, call)
    return acted


def remover(root: Path) -> Callable[[], None]:
    """Return an action that removes ``a/b``, as a deletion of the last file in it does."""
    rmdir = os.rmdir

    def act() -> None:
        for path in (root / "a/b", root / "a"):
            with contextlib.suppress(OSError):
                rmdir(path)

    return act


@pytest.mark.parametrize("call", ["mkdir", "link", "fchmod"])
async def test_directories_removed_before_a_step_of_a_put(
    root: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """A put creates directories again if they are removed before any of its steps."""
    store = FileSystemStore(root, "/")
    await store.put_object("other", b"0")
    acted = before(monkeypatch, call, 5, remover(root))
    await store.put_object("a/b/c", b"1")
    assert len(acted) >= 2 or call == "link"
    assert (root / "a/b/c").read_bytes() == b"1"


@pytest.mark.parametrize("call", ["mkdir", "link", "fchmod"])
async def test_directories_that_are_always_removed(root: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """After some attempts, a put raises an error that suggests trying again, and leaves nothing."""
    store = FileSystemStore(root, "/")
    await store.put_object("other", b"0")
    acted = before(monkeypatch, call, 10**6, remover(root))
    with pytest.raises(StoreUnavailableError, match="try again"):
        await store.put_object("a/b/c", b"1")
    assert len(acted) >= TRIES
    assert sorted(path.name for path in root.rglob("*")) == ["other"]


@pytest.mark.parametrize("times", [3, 10**6])
async def test_directories_removed_before_a_file_is_moved(
    root: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """A move creates directories again, or raises an error after some attempts; the file is never lost."""
    store = FileSystemStore(root, "/")
    await store.put_object("other", b"0")
    before(monkeypatch, "link", times, remover(root))
    failed = await store.move_objects({"other": "a/b/c"})
    assert list(failed) == ([] if times == 3 else ["other"])
    if failed:
        assert "try again" in str(failed["other"])
    name = "other" if failed else "a/b/c"
    assert [found.name async for found in store.list_objects()] == [name]


async def test_a_file_that_is_deleted_while_it_is_moved(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error states that the file does not exist."""
    store = FileSystemStore(root, "/")
    await store.put_object("other", b"0")
    before(monkeypatch, "link", 1, (root / "other").unlink)
    failed = await store.move_objects({"other": "a/b/c"})
    assert [type(error) for error in failed.values()] == [StoreFileNotFoundError]


async def test_a_directory_that_is_always_removed_before_the_write(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After some attempts, a put raises an error, and leaves nothing."""
    store = FileSystemStore(root, "/")
    await store.put_object("other", b"0")
    real, remove = os.open, remover(root)

    def call(path: str, flags: int, *args: object, **kwargs: object) -> int:
        if flags & os.O_WRONLY:
            remove()
        return real(path, flags, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", call)
    with pytest.raises(StoreUnavailableError, match="try again"):
        await store.put_object("a/b/c", b"1")
    assert sorted(path.name for path in root.rglob("*")) == ["other"]


async def test_a_file_deleted_before_its_directories_are_flushed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A put succeeds if another process deletes the file as soon as it has its name."""
    store = FileSystemStore(root, "/")
    await store.put_object("other", b"0")
    tree = Tree(str(root), dir_mode=0o755)
    settled = before(monkeypatch, "fsync", 2, lambda: tree.delete("a/b/c"))
    await store.put_object("a/b/c", b"1")
    assert settled
    assert sorted(path.name for path in root.rglob("*")) == ["other"]


def test_directories_of_a_concurrent_put_are_flushed_by_both(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A put also flushes directories that a concurrent put has just created."""
    tree = Tree(str(root), dir_mode=0o755)
    tree.make("a/b").close()
    flushed: list[str] = []
    real = os.fsync

    def fsync(fd: int) -> None:
        flushed.append(os.readlink(f"/proc/self/fd/{fd}"))
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    tree.sync_directories("a/b")
    assert flushed == [str(root / "a"), str(root), str(root.parent)]
    flushed.clear()
    tree.sync_directories("a/b")
    assert flushed == []
    tree.prune("a/b")
    tree.make("a/b").close()
    tree.sync_directories("a/b")
    assert flushed == [str(root / "a"), str(root)]


def test_a_directory_created_again_during_its_flush(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory that is created again during its flush is flushed again by the put that created it."""
    tree = Tree(str(root), dir_mode=0o755)
    tree.make("a").close()

    def remake() -> None:
        tree.prune("a")
        tree.make("a").close()

    before(monkeypatch, "fsync", 1, remake)
    tree.sync_directories("a")
    flushed: list[int] = []
    monkeypatch.setattr(os, "fsync", flushed.append)
    tree.sync_directories("a")
    assert len(flushed) == 1


def test_pruning_never_removes_the_root(root: Path) -> None:
    """Pruning never removes the root, and ignores directories that are not empty or do not exist."""
    tree = Tree(str(root), dir_mode=0o755)
    tree.make("a/b").close()
    (root / "a/file").touch()
    tree.prune("a/b")
    tree.prune("missing/too")
    assert sorted(path.name for path in root.rglob("*")) == ["a", "file"]
    (root / "a/file").unlink()
    tree.prune("a")
    assert list(root.iterdir()) == []


def test_no_descriptor_is_left(root: Path) -> None:
    """No descriptor stays open after successful and failed calls."""
    count = count_all()
    tree = Tree(str(root), dir_mode=0o755)
    tree.make("a/b").close()
    (root / "a/file").touch()
    for path in ("a/missing", "a/file/x"):
        with pytest.raises(OSError, match=r"No such file|Not a directory"):
            tree.open(path).close()
    with pytest.raises(NotADirectoryError):
        tree.make("a/file/x")
    with pytest.raises(FileNotFoundError), tree.holding("a/b"):
        pass
    assert count_all() == count
