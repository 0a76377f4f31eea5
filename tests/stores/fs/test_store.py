"""``FileSystemStore``."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import anyio
import pytest

from aioimageattach import _threads
from aioimageattach.exc import (
    InvalidKeyError,
    StoreError,
    StoreFileExistsError,
    StoreFileNotFoundError,
    StorePermissionError,
    StoreUnavailableError,
)
from aioimageattach.file import Source, Spool
from aioimageattach.key import ImageKey
from aioimageattach.stores.fs import FileSystemStore
from aioimageattach.stores.fs._paths import SIDE_PREFIX
from aioimageattach.testing import StoreContract
from tests.descriptors import count_open, falls_to
from tests.stores import kernel

WITHOUT_UNNAMED = kernel.refused("openat", errno.EOPNOTSUPP, kernel.O_TMPFILE_BIT)


class TestFileSystemStore(StoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> FileSystemStore:
        return FileSystemStore(tmp_path / "files", "https://example.com/files")


class TestWithoutUnnamedFiles(StoreContract):
    """The store passes the conformance suite on a file system without unnamed files."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[FileSystemStore]:
        with kernel.in_the_worker(WITHOUT_UNNAMED):
            yield FileSystemStore(tmp_path / "files", "/files/")


class TestWithoutLinks(StoreContract):
    """The store passes the conformance suite on a file system without unnamed files and hard links."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[FileSystemStore]:
        with kernel.in_the_worker(WITHOUT_UNNAMED, kernel.refused("linkat", errno.EPERM)):
            yield FileSystemStore(tmp_path / "files", "/files/")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "files"


@pytest.fixture
def store(root: Path) -> FileSystemStore:
    return FileSystemStore(root, "https://example.com/files")


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that all users may enter."""
    with tempfile.TemporaryDirectory() as path:
        os.chmod(path, 0o755)
        yield Path(path)


def everything(root: Path) -> list[str]:
    """Return all files and directories below a directory, including unfinished files and empty directories."""
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


async def names(store: FileSystemStore, prefix: str = "") -> list[str]:
    return [found.name async for found in store.list_objects(prefix)]


async def read(store: FileSystemStore, name: str) -> bytes:
    async with await store.get_object(name) as file:
        return await file.read()


async def pieces(blob: bytes, size: int = 100_000) -> AsyncIterator[bytes]:
    for start in range(0, len(blob), size):
        yield blob[start : start + size]


# Names and URLs


@pytest.mark.parametrize("base_url", ["https://example.com/files", "https://example.com/files/"])
async def test_the_name_consists_of_the_revision(root: Path, base_url: str) -> None:
    """Neither the ``object_id`` nor another value that can change or repeat is part of the path or the URL."""
    store = FileSystemStore(root, base_url)
    key = ImageKey("user-picture", 4321, 30, 20, "image/jpeg", "01m7xvw392my0qm9gn0r3dt55c")
    await store.put(key, b"picture", reproducible=False)
    name = "user-picture/01m7x/vw/01m7xvw392my0qm9gn0r3dt55c.30x20.jpg"
    assert (root / name).read_bytes() == b"picture"
    assert store.get_url("user-picture", 4321, 30, 20, "image/jpeg", revision=key.revision) == (
        f"https://example.com/files/{name}"
    )


async def test_files_of_the_predecessor(store: FileSystemStore, root: Path) -> None:
    """A key without a revision finds the file of SQLAlchemy-ImageAttach, and a put never overwrites it."""
    old = root / "user-picture/567/1234/1234567.30x20.jpe"
    old.parent.mkdir(parents=True)
    old.write_bytes(b"old picture")
    key = ImageKey("user-picture", 1234567, 30, 20, "image/jpeg")
    async with await store.get_file("user-picture", 1234567, 30, 20, "image/jpeg") as file:
        assert await file.read() == b"old picture"
    assert store.get_url("user-picture", 1234567, 30, 20, "image/jpeg") == (
        "https://example.com/files/user-picture/567/1234/1234567.30x20.jpe"
    )
    with pytest.raises(StoreFileExistsError):
        await store.put(key, b"new picture", reproducible=False)
    assert old.read_bytes() == b"old picture"
    await store.discard(key)
    assert everything(root) == []


def test_the_repr(store: FileSystemStore, root: Path) -> None:
    """The repr contains the directory and the URL."""
    assert repr(store) == f"FileSystemStore({str(root)!r}, 'https://example.com/files/')"


# The root


async def test_the_root_is_created_by_the_first_put(store: FileSystemStore, root: Path) -> None:
    """Before the first put the directory does not exist, and no file is found; the next put uses the same directory."""
    assert await names(store) == []
    await store.delete_object("a")
    for call in (store.get_object("a"), store.head_object("a")):
        with pytest.raises(StoreFileNotFoundError):
            await call
    assert not root.exists()
    await store.put_object("a", b"1")
    await store.put_object("b/c", b"2")
    assert everything(root) == ["a", "b", "b/c"]


async def test_a_root_in_a_missing_directory(tmp_path: Path) -> None:
    """A put raises an error that names the directory, and creates nothing."""
    store = FileSystemStore(tmp_path / "missing" / "files", "/")
    with pytest.raises(StoreFileNotFoundError, match="missing/files' does not exist; create it, or mount it"):
        await store.put_object("a", b"1")
    assert everything(tmp_path) == []


async def test_a_root_that_is_a_file(tmp_path: Path) -> None:
    """Every call raises an error that states this."""
    (tmp_path / "file").write_bytes(b"")
    store = FileSystemStore(tmp_path / "file", "/")
    for call in (
        store.put_object("a", b"1"),
        store.get_object("a"),
        store.head_object("a"),
        store.delete_object("a"),
        names(store),
    ):
        with pytest.raises(StoreError, match="file'; pass another path to the store"):
            await call


async def test_a_root_that_is_a_link(tmp_path: Path) -> None:
    """The root itself may be a symbolic link, with or without a slash at its end."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    store = FileSystemStore(f"{tmp_path}/link/", "/")
    await store.put_object("a", b"1")
    assert (tmp_path / "real" / "a").read_bytes() == b"1"


async def test_a_relative_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The root may be a relative path, and is created in the working directory."""
    monkeypatch.chdir(tmp_path)
    await FileSystemStore("files", "/").put_object("a", b"1")
    assert (tmp_path / "files" / "a").read_bytes() == b"1"


# Permissions


@pytest.mark.parametrize("umask", [0, 0o022, 0o077])
async def test_permissions_do_not_depend_on_the_umask(tmp_path: Path, umask: int) -> None:
    """Files and directories have the documented or configured modes, regardless of the umask."""
    before = os.umask(umask)
    try:
        await FileSystemStore(tmp_path / "usual", "/").put_object("a/b", b"1")
        await FileSystemStore(tmp_path / "closed", "/", file_mode=0o600, dir_mode=0o700).put_object("a/b", b"1")
    finally:
        os.umask(before)
    modes = {
        path: stat.S_IMODE((tmp_path / path).stat().st_mode)
        for path in ("usual", "usual/a", "usual/a/b", "closed", "closed/a", "closed/a/b")
    }
    assert modes == {
        "usual": 0o755,
        "usual/a": 0o755,
        "usual/a/b": 0o644,
        "closed": 0o700,
        "closed/a": 0o700,
        "closed/a/b": 0o600,
    }


async def test_the_group_of_the_root_is_inherited(store: FileSystemStore, root: Path) -> None:
    """If the root has the setgid bit, directories created in it inherit the bit and the group."""
    root.mkdir()
    root.chmod(0o2755)
    await store.put_object("a/b/c", b"1")
    assert stat.S_IMODE((root / "a/b").stat().st_mode) == 0o2755


@pytest.mark.parametrize("worker", [[], [WITHOUT_UNNAMED]], ids=["without a name", "with a name"])
async def test_only_the_owner_can_read_an_unfinished_file(
    store: FileSystemStore, root: Path, worker: list[kernel.Callable[[], None]]
) -> None:
    """An unfinished file is not listed, and only its owner can read it, regardless of the umask."""
    seen: list[tuple[str, int]] = []

    async def watched() -> AsyncIterator[bytes]:
        yield bytes(2_000_000)
        for path in await asyncio.to_thread(lambda: list(root.iterdir())):
            seen.append((path.name, stat.S_IMODE((await asyncio.to_thread(path.stat)).st_mode)))
        assert await names(store) == []
        yield b"end"

    before = os.umask(0)
    try:
        with kernel.in_the_worker(*worker):
            await store.put_object("a", watched())
    finally:
        os.umask(before)
    assert [(name.startswith(SIDE_PREFIX), mode) for name, mode in seen] == [(True, 0o600)] * len(worker)
    assert everything(root) == ["a"]


@pytest.mark.parametrize("mode", [0o000, 0o555])
async def test_a_directory_without_permission(open_directory: Path, mode: int) -> None:
    """A put raises StorePermissionError with the file and the remedy, and leaves nothing."""
    root = open_directory / "files"
    root.mkdir(mode=0o700)
    root.chmod(mode)
    store = FileSystemStore(root, "/")
    with kernel.in_the_worker(kernel.nobody):
        for name in ("a", "deep/a"):
            with pytest.raises(StorePermissionError, match=r"files'.*Permission denied; grant the process access"):
                await store.put_object(name, b"1")
    root.chmod(0o700)
    assert everything(root) == []


async def test_a_file_without_permission(open_directory: Path) -> None:
    """Reading and deleting raise StorePermissionError; reading the size requires no permission."""
    store = FileSystemStore(open_directory, "/", file_mode=0o600)
    if os.geteuid() != 0:
        pytest.skip("only root can put files that the other user may not read")
    await store.put_object("a/b", b"1")
    with kernel.in_the_worker(kernel.nobody):
        for call in (store.get_object("a/b"), store.delete_object("a/b")):
            with pytest.raises(StorePermissionError) as caught:
                await call
            assert caught.value.name == "a/b"
            assert caught.value.store == repr(store)
        assert set(await store.delete_objects(["a/b", "a/c"])) == {"a/b"}
        assert (await store.head_object("a/b")).size == 1
    assert await read(store, "a/b") == b"1"


# The disk's errors

UNAVAILABLE, REFUSED = StoreUnavailableError, StorePermissionError


@pytest.mark.parametrize(
    ("call", "code", "expected", "remedy"),
    [
        ("write", errno.ENOSPC, UNAVAILABLE, "free space"),
        ("write", errno.EDQUOT, UNAVAILABLE, "raise the quota"),
        ("write", errno.EIO, UNAVAILABLE, "check the disk"),
        ("fsync", errno.EIO, UNAVAILABLE, "check the disk"),
        ("fsync", errno.ENOSPC, UNAVAILABLE, "free space"),
        ("linkat", errno.ENOSPC, UNAVAILABLE, "free space"),
        ("linkat", errno.EROFS, REFUSED, "mount the file system for writing"),
        ("mkdirat", errno.EROFS, REFUSED, "mount the file system for writing"),
        ("mkdirat", errno.ENAMETOOLONG, InvalidKeyError, "use a shorter name"),
        ("openat", errno.EMFILE, UNAVAILABLE, "raise the process's limit on open files"),
        ("openat", errno.ENFILE, UNAVAILABLE, "raise the system's limit on open files"),
        ("openat", errno.ENOTSOCK, StoreError, "Socket operation"),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("worker", [[], [WITHOUT_UNNAMED]], ids=["without a name", "with a name"])
async def test_a_put_on_a_failing_disk(
    store: FileSystemStore,
    root: Path,
    call: str,
    code: int,
    expected: type[StoreError],
    remedy: str,
    streamed: bool,
    worker: list[kernel.Callable[[], None]],
) -> None:
    """The error names the file and the remedy, nothing is left, and the next put succeeds."""
    root.mkdir()
    blob = bytes(2_500_000)
    with (
        kernel.in_the_worker(*worker, kernel.refused(call, code)),
        pytest.raises(expected, match=rf"'deep/er/a' in .*{remedy}") as caught,
    ):
        await store.put_object("deep/er/a", pieces(blob) if streamed else blob)
    assert caught.value.name == "deep/er/a"
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == code
    assert everything(root) == []
    await store.put_object("deep/er/a", blob)
    assert await read(store, "deep/er/a") == blob


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("worker", [[], [WITHOUT_UNNAMED]], ids=["without a name", "with a name"])
async def test_a_partially_written_file_is_removed(
    store: FileSystemStore, root: Path, streamed: bool, worker: list[kernel.Callable[[], None]]
) -> None:
    """If the disk fails after a part was written, this part is removed."""
    root.mkdir()
    blob = bytes(2_500_000)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_700_000, hard))
    try:
        with kernel.in_the_worker(*worker), pytest.raises(StoreUnavailableError, match="limit on file sizes"):
            await store.put_object("deep/a", pieces(blob) if streamed else blob)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert everything(root) == []


@pytest.mark.parametrize(("call", "code"), [("openat", errno.EMFILE), ("getdents64", errno.EIO)])
async def test_a_listing_on_a_failing_disk(store: FileSystemStore, call: str, code: int) -> None:
    """A listing raises an error instead of ending as if there were no more files."""
    await store.put_object("a/b", b"1")
    with kernel.in_the_worker(kernel.refused(call, code)), pytest.raises(StoreUnavailableError):
        await names(store)


async def test_a_read_on_a_failing_disk(store: FileSystemStore) -> None:
    """A read raises StoreUnavailableError with the name of the file."""
    await store.put_object("a/b", b"1")
    with kernel.in_the_worker(kernel.refused("pread64", errno.EIO)):
        async with await store.get_object("a/b") as file:
            with pytest.raises(StoreUnavailableError, match=r"'a/b' in .*check the disk") as caught:
                await file.read()
    assert caught.value.name == "a/b"


@pytest.mark.parametrize("worker", [[], [WITHOUT_UNNAMED]], ids=["without a name", "with a name"])
async def test_an_oserror_of_the_source(
    store: FileSystemStore, root: Path, worker: list[kernel.Callable[[], None]]
) -> None:
    """An ``OSError`` of the source propagates, and is not taken for an error of the store."""
    root.mkdir()

    class Broken:
        given = False

        def read(self, size: int = -1, /) -> bytes:
            if self.given:
                raise OSError(errno.EIO, "the source's disk")
            self.given = True
            return bytes(10)

    with kernel.in_the_worker(*worker), pytest.raises(OSError, match="the source's disk") as caught:
        await store.put_object("deep/a", Broken())
    assert not isinstance(caught.value, StoreError)
    assert everything(root) == []


# Links and other files that are not regular


async def test_symbolic_links_are_not_followed(store: FileSystemStore, root: Path, tmp_path: Path) -> None:
    """No file outside of the root is read, written, deleted or listed through a link to a file or a directory."""
    secret = tmp_path / "files-secret"
    secret.mkdir()
    (secret / "key").write_bytes(b"secret")
    root.mkdir()
    (root / "directory").symlink_to(secret)
    (root / "file").symlink_to(secret / "key")
    (root / "loop").symlink_to("loop")
    (root / "dangling").symlink_to("nowhere")
    for name in ("directory/key", "file", "loop", "loop/a", "dangling"):
        for call in (store.get_object(name), store.head_object(name)):
            with pytest.raises(StoreFileNotFoundError):
                await call
        with pytest.raises(StoreFileExistsError):
            await store.put_object(name, b"overwritten")
        await store.delete_object(name)
    with pytest.raises(StoreFileExistsError, match="found a file or a link"):
        await store.put_object("directory/new", b"put")
    assert await names(store) == []
    assert await names(store, "directory/") == []
    assert everything(root) == ["dangling", "directory", "file", "loop"]
    assert everything(secret) == ["key"]
    assert (secret / "key").read_bytes() == b"secret"


async def test_a_directory_replaced_by_a_link_during_a_put(store: FileSystemStore, root: Path, tmp_path: Path) -> None:
    """The file is written to the directory that was opened, never to the target of the link."""
    outside = tmp_path / "outside"
    outside.mkdir()

    async def swapping() -> AsyncIterator[bytes]:
        yield bytes(2_000_000)
        await asyncio.to_thread((root / "a").rename, root / "moved")
        await asyncio.to_thread((root / "a").symlink_to, outside)
        yield b"end"

    await store.put_object("a/b", swapping())
    assert everything(outside) == []
    assert (root / "moved" / "b").stat().st_size == 2_000_003


async def test_only_regular_files_are_files(store: FileSystemStore, root: Path) -> None:
    """A FIFO, a device or a directory is not found, deleted, listed or replaced, and opening it never blocks."""
    root.mkdir()
    os.mkfifo(root / "fifo")
    (root / "directory").mkdir()
    others = ["fifo", "directory"]
    if os.geteuid() == 0:
        os.mknod(root / "device", stat.S_IFCHR | 0o666, os.makedev(1, 5))
        others.append("device")
    async with asyncio.timeout(60):
        for name in others:
            for call in (store.get_object(name), store.head_object(name)):
                with pytest.raises(StoreFileNotFoundError):
                    await call
            await store.delete_object(name)
            with pytest.raises(StoreFileExistsError):
                await store.put_object(name, b"1")
            with pytest.raises(StoreFileNotFoundError):
                await store.get_object("fifo/a")
        assert await names(store) == []
    assert everything(root) == sorted(others)


async def test_a_file_where_a_directory_is_needed(store: FileSystemStore) -> None:
    """The put is rejected because the name is taken, and so is a file in the place of a directory."""
    await store.put_object("a", b"1")
    await store.put_object("b/c", b"1")
    for name in ("a/b", "a/b/c", "b"):
        with pytest.raises(StoreFileExistsError):
            await store.put_object(name, b"2")
    assert await names(store) == ["a", "b/c"]


# Cancellation


@pytest.mark.parametrize("worker", [[], [WITHOUT_UNNAMED]], ids=["without a name", "with a name"])
@pytest.mark.parametrize("streamed", [False, True])
async def test_a_put_is_cancelled_while_a_thread_writes(
    store: FileSystemStore, root: Path, streamed: bool, worker: list[kernel.Callable[[], None]]
) -> None:
    """A put of 16 MiB that is cancelled at any time, once or twice, leaves nothing when the call has ended."""
    root.mkdir()
    blob = bytes(16 * 1024 * 1024)
    cancelled = 0
    with kernel.in_the_worker(*worker):
        for n in range(12):
            data = pieces(blob, 1024 * 1024) if streamed else blob
            task = asyncio.create_task(store.put_object("deep/a", data))
            await asyncio.sleep(n * 0.0007)
            task.cancel()
            await asyncio.sleep(0.0005)
            task.cancel()
            try:
                await task
            except asyncio.CancelledError:
                cancelled += 1
                assert everything(root) == []
            else:
                await store.delete_object("deep/a")
    assert cancelled
    await asyncio.sleep(0.02)
    assert everything(root) == []


async def test_a_put_is_cancelled_by_scopes_and_timeouts(store: FileSystemStore, root: Path) -> None:
    """A timeout of asyncio, a cancel scope of anyio, and a failed task of a group leave nothing."""
    root.mkdir()

    async def hanging() -> AsyncIterator[bytes]:
        yield bytes(2_000_000)
        await asyncio.Event().wait()

    async def failing() -> None:
        await asyncio.sleep(0.02)
        raise ZeroDivisionError

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await store.put_object("deep/a", hanging())
    assert everything(root) == []
    with anyio.move_on_after(0.02) as scope:
        await store.put_object("deep/a", hanging())
    assert scope.cancelled_caught
    assert everything(root) == []
    with pytest.raises(ExceptionGroup):
        async with asyncio.TaskGroup() as group:
            group.create_task(store.put_object("deep/a", hanging()))
            group.create_task(failing())
    assert everything(root) == []


async def test_a_put_is_cancelled_while_it_is_queued(store: FileSystemStore, root: Path) -> None:
    """If all threads are busy, a cancelled put ends without accessing the disk."""
    with kernel.in_the_worker():
        busy = _threads.io_executor().submit(time.sleep, 0.05)
        tasks = [asyncio.create_task(store.put_object(f"{n}", data)) for n, data in enumerate((b"1", b""))]
        await asyncio.sleep(0.01)
        for task in tasks:
            task.cancel()
        assert await asyncio.gather(*tasks, return_exceptions=True) != [None, None]
        assert busy.done()
    assert not root.exists()


async def test_an_open_file_is_closed_when_opening_is_cancelled(store: FileSystemStore, tmp_path: Path) -> None:
    """At any time of the cancellation, no descriptor and no warning about one is left."""
    await store.put_object("a", b"1")
    for steps in range(1, 10):
        task = asyncio.create_task(store.get_object("a"))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        try:
            await (await task).aclose()
        except asyncio.CancelledError:
            pass
    assert await falls_to(0, lambda: count_open(tmp_path))


_KILLED = """
import asyncio, sys
from aioimageattach.stores.fs import FileSystemStore

async def main():
    async def hanging():
        yield bytes(3_000_000)
        print("written", flush=True)
        await asyncio.Event().wait()
    await FileSystemStore(sys.argv[1], "/").put_object("deep/a", hanging())

asyncio.run(main())
"""


def test_a_killed_process_leaves_no_file(root: Path) -> None:
    """SIGKILL during a put leaves at most empty directories."""
    with subprocess.Popen([sys.executable, "-c", _KILLED, str(root)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"written\n"
        process.send_signal(signal.SIGKILL)
    assert [path for path in root.rglob("*") if not path.is_dir()] == []


# Concurrent deletes and puts


async def test_directories_are_removed_with_their_last_file(store: FileSystemStore, root: Path) -> None:
    """Directories that become empty are removed, but not other ones, and never the root."""
    for name in ("a/b/c", "a/b/d", "a/e"):
        await store.put_object(name, b"1")
    await store.delete_object("a/b/c")
    assert everything(root) == ["a", "a/b", "a/b/d", "a/e"]
    await store.delete_object("a/b/d")
    assert everything(root) == ["a", "a/e"]
    await store.delete_object("a/e")
    assert everything(root) == []
    assert root.is_dir()


@pytest.mark.parametrize("fsync", [True, False])
async def test_new_directories_are_remembered_only_until_they_are_flushed(tmp_path: Path, fsync: bool) -> None:
    """Memory does not grow with the number of directories: none is remembered after its flush, or without fsync."""
    store = FileSystemStore(tmp_path / "new", "/", fsync=fsync)
    for number in range(3):
        await store.put_object(f"a/{number}/b", b"x")
    assert store._tree._unsynced == {}


@pytest.mark.parametrize("worker", [None, [WITHOUT_UNNAMED]], ids=["without a name", "with a name"])
async def test_puts_and_deletes_in_one_directory(
    store: FileSystemStore, worker: list[kernel.Callable[[], None]] | None
) -> None:
    """A put whose directory is removed by a concurrent delete creates it again; no put fails and no file is lost."""

    async def work(n: int) -> None:
        for turn in range(15):
            name = f"shard/deep/{n}-{turn}"
            await store.put_object(name, b"%d" % turn)
            assert await read(store, name) == b"%d" % turn
            await store.delete_object(name)

    if worker is None:
        await asyncio.gather(*(work(n) for n in range(8)))
    else:
        with kernel.in_the_worker(*worker):
            await asyncio.gather(*(work(n) for n in range(3)))
    assert await names(store) == []


async def test_a_thousand_deletes_in_few_calls(store: FileSystemStore) -> None:
    """``delete_objects`` accepts any iterable of names, and uses few calls in a thread."""
    for n in range(5):
        await store.put_object(f"{n}", b"1")
    assert await store.delete_objects(f"{n}" for n in range(2500)) == {}
    assert await names(store) == []


# Order and cost


@pytest.mark.parametrize(
    ("fsync", "expected"),
    [
        (True, ["mkdir", "mkdir", "mkdir", "write", "fsync", "link", "fsync", "fsync", "fsync", "fsync"]),
        (False, ["mkdir", "mkdir", "mkdir", "write", "link"]),
    ],
)
async def test_the_order_of_disk_operations(
    root: Path, monkeypatch: pytest.MonkeyPatch, fsync: bool, expected: list[str]
) -> None:
    """The file is flushed before it gets its name, then its directory, then the new directories above it."""
    calls: list[str] = []

    def recorded(name: str) -> kernel.Callable[..., object]:
        real = getattr(os, name)

        def call(*args: object, **kwargs: object) -> object:
            calls.append(name)
            return real(*args, **kwargs)

        return call

    for name in ("mkdir", "write", "fsync", "link"):
        monkeypatch.setattr(os, name, recorded(name))
    store = FileSystemStore(root, "/", fsync=fsync)
    await store.put_object("a/b/c", b"1")
    first = list(calls)
    calls.clear()
    await store.put_object("a/b/d", b"1")
    assert first == expected
    assert calls == [call for call in expected if call != "mkdir"][: 4 if fsync else 2]


@pytest.mark.parametrize("kind", ["bytes", "spool", "spool on disk", "file", "small stream"])
async def test_a_put_is_one_call_in_a_thread(store: FileSystemStore, tmp_path: Path, kind: str) -> None:
    """Bytes, spools, files and up to 1 MiB of other sources are written in one call in a thread."""
    (tmp_path / "source").write_bytes(bytes(3_000_000))
    large = await Spool.fill(bytearray(5_000_000))
    assert large.on_disk
    with open(tmp_path / "source", "rb") as file:
        sources: dict[str, Source] = {
            "bytes": bytes(3_000_000),
            "spool": (await Spool.fill(bytes(3_000_000))).open(),
            "spool on disk": large.open(),
            "file": file,
            "small stream": pieces(bytes(500_000)),
        }
        with kernel.in_the_worker():
            submitted = _count_submissions(_threads.io_executor())
            await store.put_object("a", sources[kind])
    assert len(submitted) == 1
    assert (await store.head_object("a")).size == {"spool on disk": 5_000_000, "small stream": 500_000}.get(
        kind, 3_000_000
    )


def _count_submissions(executor: object) -> list[object]:
    submitted: list[object] = []
    submit = executor.submit  # type: ignore[attr-defined]

    def counting(call: object, /, *args: object, **kwargs: object) -> object:
        submitted.append(call)
        return submit(call, *args, **kwargs)

    executor.submit = counting  # type: ignore[attr-defined]
    return submitted


async def test_positions_in_a_range(store: FileSystemStore) -> None:
    """Positions count from the start of the range, and nothing beyond its end can be read."""
    await store.put_object("a", bytes(range(100)))
    async with await store.get_object("a", start=10, end=20) as file:
        assert file.size == 10
        assert await file.seek(-3, os.SEEK_END) == 7
        assert await file.read() == bytes([17, 18, 19])
        assert await file.seek(2) == 2
        assert await file.seek(1, os.SEEK_CUR) == 3
        assert await file.read(2) == bytes([13, 14])
        assert await file.tell() == 5
        assert await file.seek(50) == 50
        assert await file.read() == b""
        for offset, whence in ((-1, os.SEEK_SET), (0, 9)):
            with pytest.raises(ValueError, match="expected"):
                await file.seek(offset, whence)


async def test_a_closed_file_cannot_be_read(store: FileSystemStore) -> None:
    """Closing a file twice has no effect, and reading a closed one raises ValueError."""
    await store.put_object("a", b"1")
    file = await store.get_object("a")
    await file.aclose()
    await file.aclose()
    with pytest.raises(ValueError, match="closed"):
        await file.read()
