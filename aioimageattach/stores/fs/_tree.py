"""The directories of a store, opened segment by segment so that no symbolic link is followed. All calls block."""

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
"""How often a put tries to create its directories if concurrent deletes keep removing them."""


class Tree:
    """The directories below a root.

    Paths are relative to the root, consist of validated segments joined by ``/``, and are ``""`` for the root itself.
    The root may be a symbolic link; no link below it is followed.

    Args:
        root: The absolute path of the root.
        dir_mode: The permissions of new directories, regardless of the umask; ``None`` leaves them to the umask.
        fsync: ``True`` to remember new directories, so that they can be flushed to disk.

    Attributes:
        support: The optional features of the file system.
    """

    def __init__(self, root: str, *, dir_mode: int | None = None, fsync: bool = True) -> None:
        self.root = root
        self.support: Support = Support(root)
        self._dir_mode = dir_mode
        self._fsync = fsync
        self._unsynced: dict[str, object] = {}

    def open(self, path: str) -> Directory:
        """Open a directory; the caller closes it.

        Raises:
            FileNotFoundError: The directory does not exist.
            NotADirectoryError: The path, or one of its ancestors, is a file or a symbolic link.
        """
        directory = root_directory(self.root)
        for segment in _segments(path):
            with directory:
                directory = directory.enter(segment)
        return directory

    @contextmanager
    def holding(self, name: str) -> Generator[tuple[Directory, str, os.stat_result]]:
        """Keep the directory of a regular file open for a block; yield the directory, the file's name, and its status.

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
        """Open a directory; create it and its missing ancestors, including the root if the root's parent exists."""
        for _ in range(TRIES):
            try:
                return self._make(path)
            except FileNotFoundError as error:  # a concurrent delete removed one of them
                if error.filename == self.root:
                    raise
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), path)

    def sync_directories(self, path: str) -> None:
        """Flush a directory and its ancestors to disk, as far as this process created them and has not flushed them."""
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
        """Remove a directory and its ancestors as long as they are empty; never remove the root."""
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
        if not os.path.samestat(status, seen):  # replaced after the check, perhaps by a symbolic link or a FIFO
            os.close(fd)
            raise _not_found(name)
        return fd, status.st_size

    def delete(self, name: str) -> None:
        """Delete a regular file and the directories that become empty; do nothing if the file does not exist."""
        with contextlib.suppress(FileNotFoundError), self.holding(name) as (directory, leaf, _):
            directory.unlink(leaf)
        self.prune(name.rpartition("/")[0])

    def move(self, name: str, new: str) -> None:
        """Rename a regular file without replacing another one; remove the directories that become empty.

        Raises:
            FileExistsError: The new name is taken.
            FileNotFoundError: The file does not exist.
        """
        parent, _, leaf = new.rpartition("/")
        with self.holding(name) as (directory, old, _):
            for _ in range(TRIES):
                with self.make(parent) as target:
                    try:
                        self.support.rename(directory, old, target, leaf, self.support.fsync)
                        break
                    except (
                        FileNotFoundError
                    ):  # either a concurrent delete removed the target directory, or the file is gone
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
            self._remember("")
        with contextlib.suppress(FileExistsError):
            os.mkdir(self.root, self._mkdir_mode)
        directory = root_directory(self.root)
        self._set_mode(directory)
        return directory

    def _enter(self, above: Directory, segment: str, path: str) -> Directory:
        """Open a subdirectory; create it if it is missing."""
        try:
            return above.enter(segment)
        except FileNotFoundError:
            self._remember(path)
        with contextlib.suppress(FileExistsError):
            above.make(segment, self._mkdir_mode)
        directory = above.enter(segment)
        try:
            self._set_mode(directory)
        except BaseException:
            directory.close()
            raise
        return directory

    def _remember(self, path: str) -> None:
        """Remember to flush a new directory to disk."""
        if self._fsync:
            self._unsynced[path] = object()

    @property
    def _mkdir_mode(self) -> int:
        return 0o777 if self._dir_mode is None else self._dir_mode

    def _set_mode(self, directory: Directory) -> None:
        """Set the owner and the permissions of a new directory; keep an inherited setgid bit."""
        try:
            fd = directory.fileno()
        except OSError:  # this system supports neither
            return
        self.support.chown(fd)
        if self._dir_mode is not None:
            self.support.chmod(fd, self._dir_mode | os.fstat(fd).st_mode & stat.S_ISGID, "dir_mode")


def place_of(path: str) -> tuple[str | int, ...]:
    """Return the device and inode of a directory, or of its nearest existing ancestor and the missing segments."""
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
