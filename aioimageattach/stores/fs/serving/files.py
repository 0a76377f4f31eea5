"""Open files, kept for the next request, and reading them without blocking where the system can tell."""

from __future__ import annotations

import errno
import os
import time
from hashlib import blake2b
from typing import Final

from ...._http.conditions import Version
from ..tree import Tree
from .headers import Headers, file_headers
from .names import Shown

__all__ = ["VALID", "Buffers", "Files", "OpenFile"]

VALID: Final = 10.0
"""Seconds after which an open file is looked up by its name again."""

_NOWAIT: Final[int] = getattr(os, "RWF_NOWAIT", 0)
_FULL: Final = (errno.EMFILE, errno.ENFILE)
_SETTLED: Final = 2.0


class OpenFile:
    """A regular file that is open for reading, until nobody refers to it any more.

    Whoever reads holds a reference, so that its descriptor is never another file's, whatever is cancelled or thrown
    out of the cache meanwhile, and in whichever thread.

    Attributes:
        size: In bytes.
        version: Which version it is.
        headers: Those of the file, whatever is sent of it.
        whole: Those of an answer with the whole file.
        nowait: Whether its file system can be asked for what is in memory, without waiting for what is not.
    """

    __slots__ = ("_fd", "headers", "nowait", "opened_at", "size", "version", "whole")

    def __init__(self, fd: int, file: Shown) -> None:
        self._fd = fd
        self.opened_at: float = time.monotonic()
        status = os.fstat(fd)
        now = time.time()
        self.size: int = status.st_size
        modified = min(int(status.st_mtime), int(now))
        self.version: Version = Version(file.tag or _tag_of(status, now), modified)
        self.headers: Headers = file_headers(file, self.version.tag, modified)
        self.whole: Headers = [*self.headers, (b"content-length", str(self.size).encode())]
        self.nowait: bool = _can_refuse_to_wait(fd)

    def __del__(self) -> None:
        os.close(self._fd)

    def is_current(self) -> bool:
        """Whether it is still the file that it was; one that was deleted or written to is not."""
        status = os.fstat(self._fd)
        return status.st_nlink > 0 and status.st_size == self.size

    def read_now(self, into: memoryview, start: int) -> int:
        """Read what the page cache has of it, up to the first byte that it has not; it never waits for the disk."""
        try:
            return os.preadv(self._fd, [into], start, _NOWAIT)
        except BlockingIOError:
            return 0

    def read(self, into: memoryview, start: int) -> int:
        """Read until the buffer is full or the file ends; it waits."""
        done = 0
        while done < len(into) and (count := os.preadv(self._fd, [into[done:]], start + done)):
            done += count
        return done


class Files:
    """The files of a store, of which those that were asked for last stay open.

    Only files whose name has a revision do: nothing else may ever stand under such a name. Its methods may be called
    in any thread.

    Args:
        root: The directory.
        limit: How many stay open, at least 1.
    """

    def __init__(self, root: str, limit: int) -> None:
        self._tree = Tree(root, dir_mode=0o755)
        self._limit = limit
        self._open: dict[str, OpenFile] = {}  # in order of use; each step on it is one that no thread can divide

    def at_hand(self, file: Shown) -> OpenFile | None:
        """Return a file that is open and can be read without waiting; it never waits itself."""
        found = self._open.get(file.name)
        return found if found is not None and found.nowait and self._holds(file.name, found) else None

    def get(self, file: Shown) -> OpenFile:
        """Return a file, opened if it is not; it waits.

        Raises:
            OSError: It cannot be opened; ``FileNotFoundError`` and ``NotADirectoryError`` mean that it is not there.
        """
        name = file.name
        found = self._open.get(name)
        if found is not None and self._holds(name, found):
            return found
        try:
            fd = self._tree.open_file(name)[0]
        except OSError as error:
            if error.errno not in _FULL:
                raise
            self._open = {}
            fd = self._tree.open_file(name)[0]
        opened = OpenFile(fd, file)
        if file.tag is not None:
            kept = self._open
            kept[name] = opened
            for oldest in list(kept)[: max(0, len(kept) - self._limit)]:
                kept.pop(oldest, None)
        return opened

    def _holds(self, name: str, file: OpenFile) -> bool:
        self._open.pop(name, None)
        if time.monotonic() - file.opened_at >= VALID or not file.is_current():
            return False
        self._open[name] = file  # the last one to be thrown out now
        return True


class Buffers:
    """Memory to read into, used again and again: new memory for each read would cost more than the read.

    Args:
        size: Of each, in bytes.
        keep: How many are kept.
    """

    def __init__(self, size: int, keep: int = 16) -> None:
        self.size = size
        self._keep = keep
        self._free: list[memoryview] = []

    def take(self) -> memoryview:
        """Return one that nobody else has."""
        try:
            return self._free.pop()
        except IndexError:
            return memoryview(bytearray(self.size))

    def give_back(self, buffer: memoryview) -> None:
        """Let somebody else have it; one that is never given back is simply lost."""
        if len(self._free) < self._keep:
            self._free.append(buffer)


def _can_refuse_to_wait(fd: int) -> bool:
    if not _NOWAIT:
        return False
    try:
        os.preadv(fd, [bytearray(1)], 0, _NOWAIT)
    except BlockingIOError:
        return True
    except OSError:  # tmpfs, network file systems
        return False
    return True


def _tag_of(status: os.stat_result, now: float) -> str:
    """Make the tag of a file that may change under its name.

    Two writes within one tick of the clock leave the same traces. So the tag is weak while the file is that young.
    """
    traces = f"{status.st_ino} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"
    young = now - max(status.st_mtime, status.st_ctime) < _SETTLED
    return f'{"W/" if young else ""}"{blake2b(traces.encode(), digest_size=12).hexdigest()}"'
