"""Directories beneath a root, and what happens when others remove them at the wrong moment."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from aioimageattach.exc import StoreFileNotFoundError, StoreUnavailableError
from aioimageattach.stores.fs import FileSystemStore
from aioimageattach.stores.fs._tree import TRIES, Tree


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "files"


def before(monkeypatch: pytest.MonkeyPatch, name: str, times: int, act: Callable[[], None]) -> list[int]:
    """Let another party do something right before each of the first calls of ``os.NAME``; return whether it did."""
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
    """As a delete of the last file in ``a/b`` does."""
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
    """Whichever step comes too late, the put makes the directories again and succeeds."""
    store = FileSystemStore(root, "/")
    await store.put_object("other", b"0")
    acted = before(monkeypatch, call, 5, remover(root))
    await store.put_object("a/b/c", b"1")
    assert len(acted) >= 2 or call == "link"
    assert (root / "a/b/c").read_bytes() == b"1"


@pytest.mark.parametrize("call", ["mkdir", "link", "fchmod"])
async def test_directories_removed_for_ever(root: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """A put gives up after some tries, says that it may be tried again, and leaves nothing."""
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
    """A move makes them again, and after some tries it says that it may be tried again; the file is never lost."""
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
    """The error says that it does not exist."""
    store = FileSystemStore(root, "/")
    await store.put_object("other", b"0")
    before(monkeypatch, "link", 1, (root / "other").unlink)
    failed = await store.move_objects({"other": "a/b/c"})
    assert [type(error) for error in failed.values()] == [StoreFileNotFoundError]


async def test_a_directory_removed_for_ever_before_it_is_written_in(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A put gives up here too."""
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


async def test_a_file_deleted_before_its_directories_are_settled(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody may delete the file as soon as it has its name; the put has succeeded then."""
    store = FileSystemStore(root, "/")
    await store.put_object("other", b"0")
    tree = Tree(str(root), dir_mode=0o755)
    settled = before(monkeypatch, "fsync", 2, lambda: tree.delete("a/b/c"))
    await store.put_object("a/b/c", b"1")
    assert settled
    assert sorted(path.name for path in root.rglob("*")) == ["other"]


def test_directories_made_by_another_put_are_settled_by_both(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A put that finds a directory which another one has just made does not rely on that one to flush it."""
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


def test_a_directory_made_again_while_it_is_settled(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It stays to be settled by whoever made it again."""
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
    """Nor anything that is not empty or not there."""
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
    """Neither after what works nor after what fails."""
    count = len(os.listdir("/proc/self/fd"))
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
    assert len(os.listdir("/proc/self/fd")) == count
