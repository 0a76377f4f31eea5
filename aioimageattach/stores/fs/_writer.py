"""A writer that writes a file in its final directory, then gives it its name. All calls block."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import threading
from collections.abc import Iterable

from ._directory import Directory
from ._disk import translated
from ._paths import side_name
from ._support import NO_LINKS, NO_UNNAMED, copy, write_all
from ._tree import TRIES, Tree

__all__ = ["Stopped", "Writer"]


class Stopped(Exception):
    """The put was cancelled."""


class Writer:
    """A writer that creates one file atomically.

    The file is written without a name if the file system supports that, so that even SIGKILL leaves nothing behind.
    Otherwise it is written under a temporary name that listings skip. If ``file_mode`` is given, only the owner can
    read the file until it is complete.

    Args:
        store: The store, for error messages.
        tree: The store's directories.
        name: The file's name, which must be valid.
        fsync: ``True`` if the file must survive a power loss once it has its name.
        file_mode: The permissions of the file, regardless of the umask; ``None`` leaves them to the umask.
    """

    def __init__(self, store: object, tree: Tree, name: str, *, fsync: bool, file_mode: int | None) -> None:
        self.stopped: threading.Event = threading.Event()
        self._tree = tree
        self._support = tree.support
        self._parent, _, self._leaf = name.rpartition("/")
        self._fsync = fsync
        self._mode = file_mode
        self._errors = functools.partial(translated, store, tree.root, name)
        self._side: str | None = None
        self._directory: Directory | None = None
        self._file: int | None = None
        self._published = False

    def write(self, blocks: Iterable[bytes | memoryview]) -> None:
        """Write some blocks; an error of their iterator is raised unchanged."""
        for block in blocks:
            self._check()
            with self._errors():
                write_all(self._opened(), block)

    def finish(self, blocks: Iterable[bytes | memoryview] = ()) -> None:
        """Write the last blocks and give the file its name.

        Raises:
            StoreFileExistsError: The name is taken.
        """
        self.write(blocks)
        self._check()
        with self._errors():
            self._seal(self._opened())
            directory = self._publish()
            self._published = True
            if self._fsync:
                self._support.fsync_directory(directory)
                with contextlib.suppress(FileNotFoundError):  # deleted already
                    self._tree.sync_directories(self._parent)
        self._close()

    def discard(self) -> None:
        """Remove everything that was created so far. Never raises."""
        self._close()
        for name in (self._side, self._leaf if self._published else None):
            if name is not None:
                with contextlib.suppress(OSError), self._tree.open(self._parent) as directory:
                    directory.unlink(name)
        self._tree.prune(self._parent)

    def _check(self) -> None:
        if self.stopped.is_set():
            raise Stopped

    def _opened(self) -> int:
        if self._file is not None:
            return self._file
        for _ in range(TRIES):
            directory = self._enter()
            with contextlib.suppress(FileNotFoundError):  # a concurrent delete removed the directory
                self._file = self._create(directory)
                return self._file
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), self._parent)

    def _enter(self) -> Directory:
        """Open the directory, or reopen it if it is open."""
        old, self._directory = self._directory, None
        if old is not None:
            old.close()
        self._directory = self._tree.make(self._parent)
        return self._directory

    @property
    def _create_mode(self) -> int:
        return 0o666 if self._mode is None else 0o600

    def _create(self, directory: Directory) -> int:
        if self._support.unnamed:
            try:
                return directory.create_unnamed(self._create_mode)
            except OSError as error:
                if error.errno not in NO_UNNAMED:
                    raise
                self._support.unnamed = False
        return self._create_side(directory)

    def _create_side(self, directory: Directory) -> int:
        side = side_name()
        file = directory.create(side, self._create_mode)
        self._side = side
        return file

    def _seal(self, file: int) -> None:
        """Set the owner and permissions of a complete file, and flush it."""
        self._support.chown(file)
        if self._mode is not None:
            self._support.chmod(file, self._mode, "file_mode")
        if self._fsync:
            self._support.fsync(file)

    def _publish(self) -> Directory:
        directory = self._directory
        for _ in range(TRIES):
            directory = self._enter() if directory is None else directory
            try:
                self._name(directory)
            except FileNotFoundError:  # a concurrent delete removed the directory
                directory = None
            else:
                return directory
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), self._parent)

    def _name(self, directory: Directory) -> None:
        if self._side is None:
            file = self._opened()
            try:
                directory.link_unnamed(file, self._leaf)
                return
            except OSError as error:
                if error.errno not in NO_LINKS:
                    raise
            # An unnamed file can be named only by linking it, so it is copied to a named one.
            self._support.unnamed = False
            with open(f"/proc/self/fd/{file}", "rb", buffering=0) as source:
                self._file = self._create_side(directory)
                os.close(file)
                copy(source, self._file)
            self._seal(self._file)
        self._close_file()  # Windows cannot rename a file that is open
        assert self._side is not None
        self._support.rename(directory, self._side, directory, self._leaf, self._seal)
        self._side = None

    def _close_file(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            os.close(file)

    def _close(self) -> None:
        self._close_file()
        directory, self._directory = self._directory, None
        if directory is not None:
            directory.close()
