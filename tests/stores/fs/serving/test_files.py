"""Files that stay open between requests, and non-blocking reads."""

from __future__ import annotations

import errno
import os
import resource
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from aioimageattach.stores.fs._serving import files
from aioimageattach.stores.fs._serving.files import OpenFile, OpenFiles
from aioimageattach.stores.fs._serving.names import ServableFile, parse_path
from tests.descriptors import count_all, count_open

REVISION = "01jd00000000000000000000"
OLD = "photo/7/0/7.1x1.png"


def name_of(number: int) -> str:
    return f"photo/01jd0/00/{REVISION}{number:02}.1x1.png"


def put(root: Path, name: str, data: bytes) -> ServableFile:
    """Write a file at the path that the store would use."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    found = parse_path(name)
    assert found is not None
    return found


def content(file: OpenFile) -> bytes:
    buffer = memoryview(bytearray(file.info.size + 10))
    return bytes(buffer[: file.read(buffer, 0)])


def test_a_file_stays_open(tmp_path: Path) -> None:
    """A file with a revision is opened once; a legacy file is opened for each request."""
    kept = OpenFiles(str(tmp_path), 10)
    new, old = put(tmp_path, name_of(0), b"new"), put(tmp_path, OLD, b"old")
    assert kept.peek(new.name) is None
    first = kept.get(new)
    assert kept.get(new) is first
    assert kept.peek(new.name) is (first if first.nowait else None)
    assert kept.get(old) is not kept.get(old)
    assert kept.peek(old.name) is None
    assert (content(first), content(kept.get(old))) == (b"new", b"old")


def test_the_least_recently_used_file_is_closed(tmp_path: Path) -> None:
    """At most ``limit`` files stay open, and readers of a file that is dropped can continue."""
    kept = OpenFiles(str(tmp_path), 2)
    shown_files = [put(tmp_path, name_of(number), b"%d" % number) for number in range(3)]
    first, second = (kept.get(file) for file in shown_files[:2])
    assert kept.get(shown_files[0]) is first
    kept.get(shown_files[2])
    assert count_open(tmp_path) == 3
    assert content(second) == b"1"
    del second
    assert count_open(tmp_path) == 2
    assert kept.get(shown_files[0]) is first
    del kept, first
    assert count_open(tmp_path) == 0


def deleted(path: Path) -> None:
    path.unlink()


def grown(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


@pytest.mark.parametrize("change", [deleted, grown])
def test_a_changed_file_is_opened_again(tmp_path: Path, change: object) -> None:
    """A file that was deleted or changed is looked up again immediately."""
    kept = OpenFiles(str(tmp_path), 10)
    file = put(tmp_path, name_of(0), b"data")
    kept.get(file)
    change(tmp_path / file.name)  # type: ignore[operator]
    assert kept.peek(file.name) is None
    if change is deleted:
        with pytest.raises(FileNotFoundError):
            kept.get(file)
    else:
        assert kept.get(file).info.size == 8


def test_a_renamed_file_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that was renamed is looked up again within seconds."""
    kept = OpenFiles(str(tmp_path), 10)
    file = put(tmp_path, name_of(0), b"data")
    opened = kept.get(file)
    (tmp_path / file.name).rename(tmp_path / "trash")
    assert kept.get(file) is opened
    now = files.time.monotonic()
    monkeypatch.setattr(files.time, "monotonic", lambda: now + files.RECHECK_AFTER)
    with pytest.raises(FileNotFoundError):
        kept.get(file)


@pytest.fixture
def few_descriptors() -> Iterator[None]:
    """Limit the descriptors of the process so that hardly any more files can be opened."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (count_all() + 5, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_kept_files_are_closed_when_descriptors_run_out(tmp_path: Path, few_descriptors: None) -> None:
    """If the process runs out of descriptors, kept files are closed, so that every file can still be opened."""
    kept = OpenFiles(str(tmp_path), 100)
    for number in range(20):
        assert content(kept.get(put(tmp_path, name_of(number), b"%d" % number))) == b"%d" % number


def test_no_descriptors_at_all(tmp_path: Path, few_descriptors: None) -> None:
    """If other code uses all descriptors, the error states this."""
    file = put(tmp_path, name_of(0), b"data")
    others: list[int] = []
    try:
        with pytest.raises(OSError, match="Too many open files") as caught:
            while True:
                others.append(os.open(tmp_path, os.O_RDONLY))
        with pytest.raises(OSError, match="Too many open files") as caught:
            OpenFiles(str(tmp_path), 10).get(file)
    finally:
        for fd in others:
            os.close(fd)
    assert caught.value.errno == errno.EMFILE


def test_a_read_stops_before_uncached_bytes(tmp_path: Path) -> None:
    """A non-blocking read returns the bytes up to the first one that is not cached, if the file system supports it."""
    size = 4 << 20
    file = put(tmp_path, name_of(0), os.urandom(size))
    opened = OpenFiles(str(tmp_path), 10).get(file)
    if not opened.nowait:
        pytest.skip("this file system cannot tell what is in memory")
    os.fsync(opened._fd)
    os.posix_fadvise(opened._fd, 0, 0, os.POSIX_FADV_RANDOM)  # so that the kernel does not read ahead
    buffer = memoryview(bytearray(size))
    for _ in range(1000):  # it may first keep pages that have just been written
        os.posix_fadvise(opened._fd, 0, 0, os.POSIX_FADV_DONTNEED)
        assert OpenFiles(str(tmp_path), 10).get(file).nowait  # detecting the support does not wait, either
        if opened.read_cached(buffer[:1], size // 2) == 0:
            break
    else:
        pytest.skip("the system does not drop the file from its memory")
    assert opened.read_cached(buffer, size // 2) < size // 2
    assert opened.read(buffer[: size // 4], 0) == size // 4
    assert opened.read_cached(buffer, 0) >= size // 4
    assert opened.read(buffer, 0) == size
    assert opened.read_cached(buffer, 0) == size


@pytest.mark.parametrize("folder", ["/dev/shm", None])
def test_support_by_file_systems(tmp_path: Path, folder: str | None) -> None:
    """File systems in memory do not support non-blocking reads, so their files are read in a thread."""
    root = Path(folder) / f"aioimageattach-{os.getpid()}" if folder else tmp_path
    if folder and not os.path.isdir(folder):
        pytest.skip("no file system in memory")
    try:
        opened = OpenFiles(str(root), 10).get(put(root, name_of(0), b"data"))
        assert opened.nowait in ({False} if folder else {True, False})
        assert content(opened) == b"data"
    finally:
        if folder:
            for path in sorted(root.rglob("*"), reverse=True):
                path.unlink() if path.is_file() else path.rmdir()
            root.rmdir()


def test_a_system_without_the_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the system call, as on macOS, each file is read in a thread."""
    monkeypatch.setattr(files, "_NOWAIT", 0)
    assert not OpenFiles(str(tmp_path), 10).get(put(tmp_path, name_of(0), b"data")).nowait


def test_a_recent_legacy_file_has_a_weak_tag(tmp_path: Path) -> None:
    """Two writes within a clock tick have the same time, so the tag is weak at first and strong later."""
    file = put(tmp_path, OLD, b"data")
    kept = OpenFiles(str(tmp_path), 10)
    young = kept.get(file).info.version.etag
    assert young.startswith('W/"')
    path = tmp_path / OLD
    status = path.stat()
    soon = status.st_ctime - 100
    assert files._etag_of(status, soon + 200) == young.removeprefix("W/")
    path.write_bytes(b"other")
    assert kept.get(file).info.version.etag != young


def test_a_file_of_the_future(tmp_path: Path) -> None:
    """A modification time in the future is limited to the present."""
    file = put(tmp_path, OLD, b"data")
    os.utime(tmp_path / OLD, (2**33, 2**33))
    assert OpenFiles(str(tmp_path), 10).get(file).info.version.modified < 2**32


def test_many_threads_share_the_files(tmp_path: Path) -> None:
    """Threads that use more files than may stay open always read the right file."""
    kept = OpenFiles(str(tmp_path), 3)
    shown_files = [put(tmp_path, name_of(number), b"%d" % number * 100) for number in range(8)]
    wrong: list[object] = []

    def work(step: int) -> None:
        buffer = memoryview(bytearray(200))
        for turn in range(300):
            number = turn * step % 8
            opened = kept.get(shown_files[number])
            if bytes(buffer[: opened.read(buffer, 0)]) != b"%d" % number * 100:
                wrong.append((step, turn))

    before = count_all()
    threads = [threading.Thread(target=work, args=(step,)) for step in (1, 3, 5, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert count_all() <= before + 4
