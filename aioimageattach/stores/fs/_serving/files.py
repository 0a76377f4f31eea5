"""Files that stay open between requests, with non-blocking reads from the page cache if the system supports them."""

from __future__ import annotations

import errno
import os
import time
from hashlib import blake2b
from typing import Final

from .._disk import read_into
from .._tree import Tree
from .names import ServableFile
from .responses import FileInfo

__all__ = ["RECHECK_AFTER", "OpenFile", "OpenFiles"]

RECHECK_AFTER: Final = 10.0
"""How long an open file is used before it is looked up by name again, in seconds."""

_NOWAIT: Final[int] = getattr(os, "RWF_NOWAIT", 0)
_OUT_OF_DESCRIPTORS: Final = (errno.EMFILE, errno.ENFILE)
_TIMESTAMPS_RELIABLE_AFTER: Final = 2.0


class OpenFile:
    """A regular file that stays open for reading until the last reference to it is dropped.

    Every reader holds a reference. So the descriptor is never closed, and its number never reused for another file,
    during a read: neither after a cancellation or an eviction from the cache, nor in another thread.

    Attributes:
        name: The file's name within the store.
        info: The file's size, validators and headers.
        nowait: ``True`` if the file system supports reading from the page cache without waiting for the disk.
        content: The content of a small file, once it has been read.
    """

    __slots__ = ("_fd", "content", "info", "name", "nowait", "opened_at")

    def __init__(self, fd: int, file: ServableFile) -> None:
        self._fd = fd
        self.name: str = file.name
        self.opened_at: float = time.monotonic()
        status = os.fstat(fd)
        now = time.time()
        self.info: FileInfo = FileInfo(file, status.st_size, _etag_of(status, now), min(int(status.st_mtime), int(now)))
        self.nowait: bool = _supports_nowait(fd)
        self.content: bytes | None = None

    def __del__(self) -> None:
        os.close(self._fd)

    def is_current(self) -> bool:
        """Return whether the file still has a name and the same size; if not, it was deleted or modified."""
        status = os.fstat(self._fd)
        return status.st_nlink > 0 and status.st_size == self.info.size

    def read_cached(self, into: memoryview, start: int) -> int:
        """Read from the page cache, up to the first byte that is not cached; never wait for the disk."""
        try:
            return os.preadv(self._fd, [into], start, _NOWAIT)
        except BlockingIOError:
            return 0

    def read(self, into: memoryview, start: int) -> int:
        """Read until the buffer is full or the file ends. Blocks."""
        done = 0
        while done < len(into) and (count := read_into(self._fd, into[done:], start + done)):
            done += count
        return done


class OpenFiles:
    """A cache of the most recently used files of a store, which stay open.

    Only files with a revision in their name stay open, because no other file can ever have that name. They must also
    support non-blocking reads, which excludes NFS and Windows: NFS renames a deleted file that is open, so that its
    directory cannot be removed, and Windows cannot delete an open file. All methods are thread-safe.

    Args:
        root: The store's directory, as an absolute path.
        limit: How many files may stay open, at least 1.
    """

    def __init__(self, root: str, limit: int) -> None:
        self._tree = Tree(root)
        self._limit = limit
        self._open: dict[str, OpenFile] = {}  # least recently used first; every operation on it is atomic

    def peek(self, name: str) -> OpenFile | None:
        """Return a file if it is open and supports non-blocking reads, or else ``None``. Does not block."""
        found = self._open.get(name)
        return found if found is not None and found.nowait and self._is_fresh(name, found) else None

    def get(self, file: ServableFile) -> OpenFile:
        """Return a file, opening it if necessary. Blocks.

        Raises:
            OSError: The file cannot be opened; ``FileNotFoundError`` means that it does not exist.
        """
        name = file.name
        found = self._open.get(name)
        if found is not None and self._is_fresh(name, found):
            return found
        try:
            fd = self._tree.open_file(name)[0]
        except OSError as error:
            if error.errno not in _OUT_OF_DESCRIPTORS:
                raise
            self._open = {}
            fd = self._tree.open_file(name)[0]
        opened = OpenFile(fd, file)
        if file.etag is not None and opened.nowait:
            kept = self._open
            kept[name] = opened
            for oldest in list(kept)[: max(0, len(kept) - self._limit)]:
                kept.pop(oldest, None)
        return opened

    def _is_fresh(self, name: str, file: OpenFile) -> bool:
        self._open.pop(name, None)
        if time.monotonic() - file.opened_at >= RECHECK_AFTER or not file.is_current():
            return False
        self._open[name] = file  # move it to the end, as the most recently used file
        return True


def _supports_nowait(fd: int) -> bool:
    if not _NOWAIT:
        return False
    try:
        os.preadv(fd, [bytearray(1)], 0, _NOWAIT)
    except BlockingIOError:
        return True
    except OSError:  # tmpfs, network file systems
        return False
    return True


def _etag_of(status: os.stat_result, now: float) -> str:
    """Return the entity tag of a file whose content can change.

    Two writes within one tick of the file system's clock have the same timestamps, so the tag of a recently changed
    file is weak.
    """
    traces = f"{status.st_ino} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"
    young = now - max(status.st_mtime, status.st_ctime) < _TIMESTAMPS_RELIABLE_AFTER
    return f'{"W/" if young else ""}"{blake2b(traces.encode(), digest_size=12).hexdigest()}"'
