"""File systems and operating systems without some features that a directory store uses."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from aioimageattach.exc import StoreError, StoreFileExistsError, StoreUnavailableError
from aioimageattach.key import ImageKey, make_revision
from aioimageattach.stores.fs import FileSystemStore, StaticServer
from aioimageattach.stores.fs._tree import Tree
from aioimageattach.testing import StoreContract
from tests.descriptors import count_open, falls_to
from tests.servers.asking import Client
from tests.stores import kernel

WITHOUT_UNNAMED = kernel.refused("openat", errno.EOPNOTSUPP, kernel.O_TMPFILE_BIT)
WITHOUT_LINKS = kernel.refused("linkat", errno.EPERM)
WITHOUT_RENAME = kernel.refused("renameat", errno.ENOSYS)
WITHOUT_CHMOD = kernel.refused("fchmod", errno.EPERM)
WITHOUT_FSYNC = kernel.refused("fsync", errno.EINVAL)
LACKING = {
    "links": [WITHOUT_LINKS],
    "unnamed files and links": [WITHOUT_UNNAMED, WITHOUT_LINKS],
    "unnamed files, links and renaming": [WITHOUT_UNNAMED, WITHOUT_LINKS, WITHOUT_RENAME],
    "changing permissions": [WITHOUT_CHMOD],
    "flushing": [WITHOUT_FSYNC],
}


class TestLackingFileSystems(StoreContract):
    """A store on a file system without these features passes the conformance suite."""

    @pytest.fixture(params=LACKING)
    def store(self, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[FileSystemStore]:
        with kernel.in_the_worker(*LACKING[request.param]):
            yield FileSystemStore(tmp_path / "files", "/files/")


@pytest.fixture
def portable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Remove everything that only POSIX systems have, so that the system looks like Windows."""
    real = os.open

    def opened(path: str, flags: int, mode: int = 0o777) -> int:
        ours = str(path).startswith(str(tmp_path))
        assert not (ours and os.path.isdir(path)), "Windows cannot open a directory"
        return real(path, flags, mode)

    monkeypatch.setattr(os, "open", opened)
    for name in ("O_DIRECTORY", "fchmod", "fchown", "pread", "preadv"):
        monkeypatch.delattr(os, name)
    monkeypatch.setattr("aioimageattach.stores.fs._support._UNNAMED", False)
    monkeypatch.setattr("aioimageattach.stores.fs._serving.files._NOWAIT", 0)


@pytest.mark.usefixtures("portable")
class TestOtherOperatingSystems(StoreContract):
    """A store passes the conformance suite on a system that cannot open files relative to a directory."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> FileSystemStore:
        return FileSystemStore(tmp_path / "files", "/files/")


def everything(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name.startswith("aioimageattach")]


@pytest.mark.parametrize(
    ("lacking", "expected"),
    [
        ("links", []),
        ("unnamed files and links", []),
        ("unnamed files, links and renaming", ["a killed process may leave an incomplete file"]),
        ("changing permissions", ["dir_mode=None disables this warning"]),
        ("flushing", ["files of committed rows may be lost", "files of committed rows may be missing"]),
    ],
)
async def test_missing_features_are_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, lacking: str, expected: list[str]
) -> None:
    """Each missing feature is logged once per store, with its consequence, and puts succeed."""
    store = FileSystemStore(tmp_path / "files", "/")
    blob = os.urandom(3_000_000)
    with kernel.in_the_worker(*LACKING[lacking]):
        for name in ("a/b", "a/c", "d"):
            await store.put_object(name, blob)
    found = messages(caplog)
    assert len(found) == len(expected)
    for message, words in zip(found, expected, strict=True):
        assert words in message
        assert str(tmp_path / "files") in message
    assert everything(tmp_path / "files") == ["a", "a/b", "a/c", "d"]
    assert all((tmp_path / "files" / name).read_bytes() == blob for name in ("a/b", "a/c", "d"))


async def test_directories_that_cannot_be_flushed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On file systems that cannot flush directories, such as some FUSE ones, files are still flushed."""
    real = os.fsync
    flushed: list[int] = []

    def fsync(fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        flushed.append(fd)
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    await FileSystemStore(tmp_path / "files", "/").put_object("a/b", b"1")
    assert len(flushed) == 1
    assert ["flushing directories" in message for message in messages(caplog)] == [True]


@pytest.mark.parametrize(
    ("call", "error"), [("fchmod", errno.EIO), ("fsync", errno.EIO), ("linkat", errno.EIO), ("renameat", errno.EIO)]
)
async def test_a_failure_is_not_taken_for_a_missing_feature(tmp_path: Path, call: str, error: int) -> None:
    """If a put cannot be durable because of another error, it fails and leaves nothing."""
    (tmp_path / "files").mkdir()
    store = FileSystemStore(tmp_path / "files", "/")
    lacking = [WITHOUT_UNNAMED, WITHOUT_LINKS] if call == "renameat" else []
    with kernel.in_the_worker(*lacking, kernel.refused(call, error)), pytest.raises(StoreUnavailableError):
        await store.put_object("a/b", b"1")
    assert everything(tmp_path / "files") == []


async def test_a_directory_that_cannot_be_flushed_for_another_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the disk fails to flush the directory, the put fails and leaves nothing."""
    real = os.fsync

    def fsync(fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(fd)

    (tmp_path / "files").mkdir()
    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(StoreUnavailableError):
        await FileSystemStore(tmp_path / "files", "/").put_object("a/b", b"1")
    assert everything(tmp_path / "files") == []


async def test_a_put_is_cancelled_while_its_file_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the unnamed file nor its copy is left."""
    (tmp_path / "files").mkdir()
    store = FileSystemStore(tmp_path / "files", "/")
    loop = asyncio.get_running_loop()
    real = os.fsync

    def fsync(fd: int) -> None:
        loop.call_soon_threadsafe(task.cancel)
        while not task.cancelling():
            pass
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    with kernel.in_the_worker(WITHOUT_LINKS):
        task = asyncio.create_task(store.put_object("a/b", os.urandom(3_000_000)))
        with pytest.raises(asyncio.CancelledError):
            await task
    assert everything(tmp_path / "files") == []
    assert await falls_to(0, lambda: count_open(tmp_path))


# Permissions and owners


@pytest.mark.parametrize("worker", [[], [WITHOUT_UNNAMED]], ids=["without a name", "with a name"])
async def test_permissions_that_are_left_to_the_umask(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, worker: list[kernel.Callable[[], None]]
) -> None:
    """With ``None``, permissions are never changed, not even on file systems that could not change them."""
    before = os.umask(0o027)
    try:
        with kernel.in_the_worker(*worker, WITHOUT_CHMOD):
            await FileSystemStore(tmp_path / "files", "/", file_mode=None, dir_mode=None).put_object("a/b", b"1")
    finally:
        os.umask(before)
    modes = {name: stat.S_IMODE((tmp_path / "files" / name).stat().st_mode) for name in ("", "a", "a/b")}
    assert modes == {"": 0o750, "a": 0o750, "a/b": 0o640}
    assert messages(caplog) == []


@pytest.fixture
def owned() -> Iterator[Path]:
    """A directory of another user."""
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    with tempfile.TemporaryDirectory() as path:
        os.chmod(path, 0o755)
        (root := Path(path) / "files").mkdir()
        os.chown(root, 1234, 4321)
        yield root


async def test_files_belong_to_the_owner_of_the_directory(owned: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A process of root creates only files that the application's user can write to."""
    await FileSystemStore(owned, "/").put_object("a/b/c", b"1")
    owners = {(path.stat().st_uid, path.stat().st_gid) for path in owned.rglob("*")}
    assert owners == {(1234, 4321)}
    assert messages(caplog) == []


async def test_an_owner_that_this_user_cannot_give_files_to(owned: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The put succeeds, and the log states once which user will be unable to write."""
    owned.chmod(0o777)
    with kernel.in_the_worker(kernel.nobody):
        for name in ("a/b", "a/c"):
            await FileSystemStore(owned, "/").put_object(name, b"1")
        caplog.clear()
        store = FileSystemStore(owned, "/")
        for name in ("x/b", "x/c"):
            await store.put_object(name, b"1")
    assert len(messages(caplog)) == 1
    assert "user 1234 may be unable to write" in messages(caplog)[0]


async def test_a_directory_of_root_that_others_may_write_to(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is logged for a directory of root that others may write to, such as a volume of a container."""
    with tempfile.TemporaryDirectory() as path:
        os.chmod(path, 0o777)
        with kernel.in_the_worker(kernel.nobody):
            await FileSystemStore(path, "/").put_object("a/b", b"1")
    assert messages(caplog) == []


async def test_a_disk_that_fails_while_an_owner_is_set(owned: Path) -> None:
    """If the disk fails while the owner is set, the put fails."""
    with kernel.in_the_worker(kernel.refused("fchown", errno.EIO)), pytest.raises(StoreUnavailableError):
        await FileSystemStore(owned, "/").put_object("a/b", b"1")
    assert everything(owned) == []


# Directories that do not belong to the store


async def test_lost_and_found_is_skipped(tmp_path: Path) -> None:
    """``lost+found``, which only root can read, is neither listed, searched for unfinished files, nor written to."""
    with tempfile.TemporaryDirectory() as path:
        os.chmod(path, 0o777)
        (lost := Path(path) / "lost+found").mkdir(mode=0o700)
        (lost / "file").write_bytes(b"1")
        store = FileSystemStore(path, "/")
        with kernel.in_the_worker(kernel.nobody):
            await store.put_object("a/b", b"1")
            assert [found.name async for found in store.list_objects()] == ["a/b"]
            assert await store.discard_unfinished((await store.head_object("a/b")).modified_at) == 0
        with pytest.raises(StoreError, match="expected no system directory"):
            await store.put_object("lost+found/a", b"1")


async def test_a_relative_path_is_resolved_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change of the working directory affects neither the store nor the server."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    store, server = FileSystemStore("files", "/"), StaticServer("files")
    monkeypatch.chdir(tmp_path / "elsewhere")
    key = ImageKey("photo", None, 3, 2, "image/png", make_revision())
    await store.put(key, b"1", reproducible=False)
    assert everything(tmp_path / "elsewhere") == []
    assert (await Client(server).ask(f"/{store.name_of(key)}")).body == b"1"
    with pytest.raises(ValueError, match="expected a directory"):
        FileSystemStore("", "/")


# Other operating systems


@pytest.mark.usefixtures("portable")
async def test_serving_on_other_operating_systems(tmp_path: Path) -> None:
    """Files and ranges are served, and deleted files are missing."""
    store = FileSystemStore(tmp_path / "files", "/")
    http = Client(StaticServer(tmp_path / "files", block_size=4096))
    blob = os.urandom(20_000)
    key = ImageKey("photo", None, 3, 2, "image/png", make_revision())
    await store.put(key, blob, reproducible=False)
    path = f"/{store.name_of(key)}"
    for _ in range(2):
        assert (await http.ask(path)).body == blob
    assert (await http.ask(path, ("Range", "bytes=5000-9000"))).body == blob[5000:9001]
    await store.discard(key)
    assert (await http.ask(path)).status == 404


@pytest.mark.usefixtures("portable")
async def test_links_on_other_operating_systems(tmp_path: Path) -> None:
    """Symbolic links are not followed, except for the root itself."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").write_bytes(b"secret")
    (tmp_path / "real").mkdir()
    (root := tmp_path / "files").symlink_to("real")
    (root / "directory").symlink_to(tmp_path / "outside")
    (root / "file").symlink_to(tmp_path / "outside/secret")
    (root / "plain").write_bytes(b"1")
    store = FileSystemStore(root, "/")
    for name in ("directory/secret", "file"):
        with pytest.raises(FileNotFoundError):
            await store.get_object(name)
    for name in ("directory/new", "plain/new"):
        with pytest.raises(StoreFileExistsError):
            await store.put_object(name, b"1")
    assert [found.name async for found in store.list_objects()] == ["plain"]
    with pytest.raises(StoreError, match="expected a directory, got the file"):
        await FileSystemStore(root / "plain", "/").get_object("a")
    assert await store.move_objects({"plain": "a/moved"}) == {}
    assert [found.name async for found in store.list_objects()] == ["a/moved"]


async def test_a_copy_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If files can only be copied, a full disk leaves no partial file under the final name."""
    (tmp_path / "files").mkdir()
    store = FileSystemStore(tmp_path / "files", "/", fsync=False)
    real = os.write
    written: list[int] = []

    def full_at_last(fd: int, data: bytes) -> int:
        written.append(fd)
        if len(written) > 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(fd, data)

    monkeypatch.setattr(os, "write", full_at_last)
    with kernel.in_the_worker(*LACKING["unnamed files, links and renaming"]), pytest.raises(StoreUnavailableError):
        await store.put_object("a/b", b"whole")
    assert len(written) == 2
    assert everything(tmp_path / "files") == []


def test_a_file_that_is_replaced_while_it_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the file that was checked is read."""
    tree = Tree(str(tmp_path))
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "b").write_bytes(b"2")
    real = os.open

    def opened(path: str, *args: object, **kwargs: object) -> int:
        if path == "a":
            os.replace(tmp_path / "b", tmp_path / "a")
        return real(path, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", opened)
    with pytest.raises(FileNotFoundError):
        tree.open_file("a")


async def test_a_full_flush_where_fsync_is_not_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On macOS, only ``F_FULLFSYNC`` reaches the disk."""
    calls: list[int] = []
    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", lambda fd, command: calls.append(command))
    await FileSystemStore(tmp_path, "/").put_object("a", b"1")
    assert calls == [51]
    assert (tmp_path / "a").read_bytes() == b"1"


@pytest.mark.usefixtures("portable")
async def test_other_operating_systems_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without links, as on Windows with FAT, files are renamed and never replace other files."""

    def refuse(*args: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    store = FileSystemStore(tmp_path / "files", "/")
    await store.put_object("a/b", b"1")
    with pytest.raises(StoreFileExistsError):
        await store.put_object("a/b", b"2")
    assert everything(tmp_path / "files") == ["a", "a/b"]
    assert (tmp_path / "files/a/b").read_bytes() == b"1"
