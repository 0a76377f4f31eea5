"""Directories beneath one root, opened step by step so that no link leads out of it. All of it blocks."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

__all__ = ["NO_LINKS", "TRIES", "UNNAMED", "Tree", "place_of"]

TRIES: Final = 100
"""How often a put makes its directories again that deletes remove at the same time, before it gives up."""

UNNAMED: Final[int] = getattr(os, "O_TMPFILE", 0) if os.path.isdir("/proc/self/fd") else 0
"""The flag that opens a file without a name, 0 where there is none."""

NO_LINKS: Final = frozenset({errno.EMLINK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM})
"""The errors of a file system that has no hard links."""

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY
_BENEATH: Final = _DIRECTORY | os.O_NOFOLLOW


class Tree:
    """The directories beneath a root.

    A path here is segments joined by ``/``, checked before, and ``""`` for the root itself. The root may be a link, as
    its owner likes; nothing beneath it is followed.

    Args:
        root: Its path.
        dir_mode: The permissions of directories it makes, whatever the umask.

    Attributes:
        unnamed: Whether files without a name work here, as far as known.
    """

    def __init__(self, root: str, *, dir_mode: int) -> None:
        self.root = root
        self.unnamed: bool = bool(UNNAMED)
        self._dir_mode = dir_mode
        self._unsettled: dict[str, object] = {}

    def open(self, path: str) -> int:
        """Return a descriptor of a directory, for the caller to close.

        Raises:
            FileNotFoundError: It is not there.
            NotADirectoryError: A file or a link stands in the way.
        """
        fd = os.open(self.root, _DIRECTORY)
        for segment in _segments(path):
            try:
                deeper = os.open(segment, _BENEATH, dir_fd=fd)
            finally:
                os.close(fd)
            fd = deeper
        return fd

    @contextmanager
    def at(self, path: str) -> Generator[int]:
        """Hold a directory open for a block."""
        fd = self.open(path)
        try:
            yield fd
        finally:
            os.close(fd)

    @contextmanager
    def holding(self, name: str) -> Generator[tuple[int, str, os.stat_result]]:
        """Hold the directory of a regular file open for a block, with the file's name in it and its status.

        Raises:
            FileNotFoundError: There is none, or something else stands there.
        """
        parent, _, leaf = name.rpartition("/")
        try:
            with self.at(parent) as directory:
                status = os.stat(leaf, dir_fd=directory, follow_symlinks=False)
                if not stat.S_ISREG(status.st_mode):
                    raise _not_found(name)
                yield directory, leaf, status
        except NotADirectoryError as error:
            if error.filename == self.root:
                raise
            raise _not_found(name) from error

    def make(self, path: str) -> int:
        """:meth:`open` that makes what is missing, the root included if its parent is there."""
        for _ in range(TRIES):
            try:
                return self._make(path)
            except FileNotFoundError as error:  # removed by a delete meanwhile
                if error.filename == self.root:
                    raise
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), path)

    def settle(self, path: str) -> None:
        """Make sure that a power loss leaves the directories where they are, as far as this process made them."""
        while True:
            above = path.rpartition("/")[0]
            token = self._unsettled.get(path)
            if token is not None:
                self._sync(self.open(above) if path else os.open(os.path.dirname(self.root) or ".", _DIRECTORY))
                if self._unsettled.get(path) is token:
                    del self._unsettled[path]
            if not path:
                return
            path = above

    def prune(self, path: str) -> None:
        """Remove a directory and those above it, as far as they are empty; never the root."""
        with contextlib.suppress(OSError):
            while path:
                above, _, leaf = path.rpartition("/")
                with self.at(above) as fd:
                    os.rmdir(leaf, dir_fd=fd)
                path = above

    def open_file(self, name: str) -> tuple[int, int]:
        """Open a regular file for reading; return its descriptor and its size."""
        with self.holding(name) as (directory, leaf, _):
            fd = os.open(leaf, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory)
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):  # pragma: no cover - put in its place since it was looked at
            os.close(fd)
            raise _not_found(name)
        return fd, status.st_size

    def delete(self, name: str) -> None:
        """Delete a regular file, and the directories that become empty; a missing one is no error."""
        with contextlib.suppress(FileNotFoundError), self.holding(name) as (directory, leaf, _):
            os.unlink(leaf, dir_fd=directory)
        self.prune(name.rpartition("/")[0])

    def move(self, name: str, new: str) -> None:
        """Give a regular file a new name, which no file has yet; remove the directories that become empty.

        Raises:
            FileExistsError: The new name is taken.
            FileNotFoundError: There is no such file.
        """
        parent, _, leaf = new.rpartition("/")
        with self.holding(name) as (directory, old, _):
            for _ in range(TRIES):
                target = self.make(parent)
                try:
                    _rename(directory, old, target, leaf)
                    break
                except FileNotFoundError:  # a delete removed the target directory meanwhile, unless the file is gone
                    os.stat(old, dir_fd=directory, follow_symlinks=False)
                finally:
                    os.close(target)
        self.prune(name.rpartition("/")[0])

    def _make(self, path: str) -> int:
        fd = self._enter(self.root, "", None)
        done = ""
        for segment in _segments(path):
            done = f"{done}/{segment}" if done else segment
            try:
                deeper = self._enter(segment, done, fd)
            finally:
                os.close(fd)
            fd = deeper
        return fd

    def _enter(self, step: str, path: str, above: int | None) -> int:
        """Open a directory, made if it is missing."""
        flags = _DIRECTORY if above is None else _BENEATH
        try:
            return os.open(step, flags, dir_fd=above)
        except FileNotFoundError:
            self._unsettled[path] = object()
        with contextlib.suppress(FileExistsError):
            os.mkdir(step, self._dir_mode, dir_fd=above)
        fd = os.open(step, flags, dir_fd=above)
        os.fchmod(fd, self._dir_mode | os.fstat(fd).st_mode & stat.S_ISGID)
        return fd

    def _sync(self, fd: int) -> None:
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def place_of(path: str) -> tuple[str | int, ...]:
    """Return device and inode of a directory; if it is missing, those of the nearest one above, and the rest."""
    missing: list[str] = []
    above = os.path.abspath(path)
    while True:
        with contextlib.suppress(OSError):
            status = os.stat(above)
            return ("directory", status.st_dev, status.st_ino, *missing)
        above, leaf = os.path.split(above)
        if not leaf:
            return ("directory", -1, -1, *missing)
        missing.insert(0, leaf)


def _rename(directory: int, old: str, target: int, new: str) -> None:
    """Rename a file without replacing another one."""
    try:
        os.link(old, new, src_dir_fd=directory, dst_dir_fd=target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        os.close(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=target))
        os.rename(old, new, src_dir_fd=directory, dst_dir_fd=target)
    else:
        os.unlink(old, dir_fd=directory)


def _not_found(name: str) -> FileNotFoundError:
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)


def _segments(path: str) -> list[str]:
    return path.split("/") if path else []
