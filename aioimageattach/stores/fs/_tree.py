"""The directories of a store, opened segment by segment so that no symbolic link leads out of it. All calls block."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

from ._directory import Directory, root_directory
from ._support import Support

__all__ = ["TRIES", "Tree", "place_of"]

TRIES: Final = 100
"""How often a put makes its directories again, if deletes remove them at the same time, before it gives up."""


class Tree:
    """The directories below a root.

    A path here consists of segments joined by ``/`` that were checked before; ``""`` is the root itself. The root may
    be a symbolic link; no link below it is followed.

    Args:
        root: The absolute path of the root.
        dir_mode: The permissions of new directories, whatever the umask; ``None`` leaves them to the umask.

    Attributes:
        support: What the file system supports.
    """

    def __init__(self, root: str, *, dir_mode: int | None = None) -> None:
        self.root = root
        self.support: Support = Support(root)
        self._dir_mode = dir_mode
        self._unsynced: dict[str, object] = {}

    def open(self, path: str) -> Directory:
        """Open a directory; the caller closes it.

        Raises:
            FileNotFoundError: It does not exist.
            NotADirectoryError: It, or a directory above it, is a file or a link.
        """
        directory = root_directory(self.root)
        for segment in _segments(path):
            with directory:
                directory = directory.enter(segment)
        return directory

    @contextmanager
    def holding(self, name: str) -> Generator[tuple[Directory, str, os.stat_result]]:
        """Hold the directory of a regular file open for a block; yield it with the file's name in it and its status.

        Raises:
            FileNotFoundError: The file does not exist, or it is not a regular file.
        """
        parent, _, leaf = name.rpartition("/")
        try:
            with self.open(parent) as directory:
                status = directory.stat(leaf)
                if not stat.S_ISREG(status.st_mode):
                    raise _not_found(name)
                yield directory, leaf, status
        except NotADirectoryError as error:
            if error.filename == self.root:
                raise
            raise _not_found(name) from error

    def make(self, path: str) -> Directory:
        """Open a directory, and make those that are missing, the root included if its parent exists."""
        for _ in range(TRIES):
            try:
                return self._make(path)
            except FileNotFoundError as error:  # a delete has removed one of them meanwhile
                if error.filename == self.root:
                    raise
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), path)

    def sync_directories(self, path: str) -> None:
        """Make sure that the directories that this process made survive a power loss."""
        while True:
            above = path.rpartition("/")[0]
            token = self._unsynced.get(path)
            if token is not None:
                with self.open(above) if path else root_directory(os.path.dirname(self.root)) as directory:
                    self.support.fsync_directory(directory)
                if self._unsynced.get(path) is token:
                    del self._unsynced[path]
            if not path:
                return
            path = above

    def prune(self, path: str) -> None:
        """Remove a directory and those above it, as far as they are empty; never the root."""
        with contextlib.suppress(OSError):
            while path:
                above, _, leaf = path.rpartition("/")
                with self.open(above) as directory:
                    directory.remove(leaf)
                path = above

    def open_file(self, name: str) -> tuple[int, int]:
        """Open a regular file for reading; return its descriptor and its size.

        Raises:
            FileNotFoundError: The file does not exist, or it is not a regular file.
        """
        with self.holding(name) as (directory, leaf, seen):
            fd = directory.open(leaf)
        status = os.fstat(fd)
        if not os.path.samestat(status, seen):  # replaced since it was checked, perhaps by a link or a FIFO
            os.close(fd)
            raise _not_found(name)
        return fd, status.st_size

    def delete(self, name: str) -> None:
        """Delete a regular file, and the directories that become empty; do nothing if the file does not exist."""
        with contextlib.suppress(FileNotFoundError), self.holding(name) as (directory, leaf, _):
            directory.unlink(leaf)
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
                with self.make(parent) as target:
                    try:
                        self.support.rename(directory, old, target, leaf, self.support.fsync)
                        break
                    except FileNotFoundError:  # a delete removed the target directory, unless the file is gone
                        directory.stat(old)
            else:
                raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), new)
        self.prune(name.rpartition("/")[0])

    def _make(self, path: str) -> Directory:
        directory = self._make_root()
        done = ""
        for segment in _segments(path):
            done = f"{done}/{segment}" if done else segment
            with directory:
                directory = self._enter(directory, segment, done)
        return directory

    def _make_root(self) -> Directory:
        try:
            return root_directory(self.root)
        except FileNotFoundError:
            self._unsynced[""] = object()
        with contextlib.suppress(FileExistsError):
            os.mkdir(self.root, self._mkdir_mode)
        directory = root_directory(self.root)
        self._set_mode(directory)
        return directory

    def _enter(self, above: Directory, segment: str, path: str) -> Directory:
        """Open a directory; make it if it is missing."""
        try:
            return above.enter(segment)
        except FileNotFoundError:
            self._unsynced[path] = object()
        with contextlib.suppress(FileExistsError):
            above.make(segment, self._mkdir_mode)
        directory = above.enter(segment)
        try:
            self._set_mode(directory)
        except BaseException:
            directory.close()
            raise
        return directory

    @property
    def _mkdir_mode(self) -> int:
        return 0o777 if self._dir_mode is None else self._dir_mode

    def _set_mode(self, directory: Directory) -> None:
        """Give a new directory its owner and its permissions; the setgid bit is inherited."""
        try:
            fd = directory.fileno()
        except OSError:  # this system has neither
            return
        self.support.chown(fd)
        if self._dir_mode is not None:
            self.support.chmod(fd, self._dir_mode | os.fstat(fd).st_mode & stat.S_ISGID, "dir_mode")


def place_of(path: str) -> tuple[str | int, ...]:
    """Return device and inode of a directory; if it is missing, those of the nearest one above, and the rest."""
    missing: list[str] = []
    above = os.path.abspath(path)
    while True:
        with contextlib.suppress(OSError):
            status = os.stat(above)
            return ("directory", status.st_dev, status.st_ino, *missing)
        above, leaf = os.path.split(above)
        if not leaf:  # pragma: no cover - a drive of Windows that does not exist
            return ("directory", -1, -1, *missing)
        missing.insert(0, leaf)


def _not_found(name: str) -> FileNotFoundError:
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)


def _segments(path: str) -> list[str]:
    return path.split("/") if path else []
