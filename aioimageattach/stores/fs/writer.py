"""One file on its way to the disk: written beside its place, then given its name. All of it blocks."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import threading
from collections.abc import Iterable
from typing import Final

from .disk import translated
from .paths import side_name
from .tree import NO_LINKS, TRIES, UNNAMED, Tree

__all__ = ["Stopped", "Writer"]

_NO_UNNAMED: Final = frozenset({errno.EINVAL, errno.EISDIR, errno.EOPNOTSUPP})


class Stopped(Exception):
    """The put was cancelled."""


class Writer:
    """Puts one file in its place, whole or not at all.

    It is written without a name where the file system can do that, so that not even SIGKILL leaves anything; elsewhere
    under a name that no listing shows. Until it is whole only its owner may read it.

    Args:
        store: Whose errors it raises.
        tree: Where.
        name: The file's name, checked before.
        fsync: Whether the file has to survive a power loss once it has its name.
        file_mode: Its permissions, whatever the umask.
    """

    def __init__(self, store: object, tree: Tree, name: str, *, fsync: bool, file_mode: int) -> None:
        self.stopped: threading.Event = threading.Event()
        self._tree = tree
        self._parent, _, self._leaf = name.rpartition("/")
        self._fsync = fsync
        self._mode = file_mode
        self._errors = functools.partial(translated, store, tree.root, name)
        self._side: str | None = None
        self._directory: int | None = None
        self._file: int | None = None
        self._published = False

    def write(self, blocks: Iterable[bytes | memoryview]) -> None:
        """Write some blocks; an error of their iterator is raised as it is."""
        for block in blocks:
            self._check()
            rest = memoryview(block)
            with self._errors():
                file = self._opened()
                while rest:
                    rest = rest[os.write(file, rest) :]

    def finish(self, blocks: Iterable[bytes | memoryview] = ()) -> None:
        """Write the last blocks and give the file its name.

        Raises:
            StoreFileExistsError: The name is taken.
        """
        self.write(blocks)
        self._check()
        with self._errors():
            file = self._opened()
            os.fchmod(file, self._mode)
            if self._fsync:
                os.fsync(file)
            directory = self._publish(file)
            self._published = True
            if self._fsync:
                os.fsync(directory)
                with contextlib.suppress(FileNotFoundError):  # deleted already
                    self._tree.settle(self._parent)
        self._close()

    def discard(self) -> None:
        """Leave nothing behind, whatever was reached; raises nothing."""
        for name in (self._side, self._leaf if self._published else None):
            if name is not None:
                with contextlib.suppress(OSError), self._tree.at(self._parent) as directory:
                    os.unlink(name, dir_fd=directory)
        self._close()
        self._tree.prune(self._parent)

    def _check(self) -> None:
        if self.stopped.is_set():
            raise Stopped

    def _opened(self) -> int:
        if self._file is not None:
            return self._file
        for _ in range(TRIES):
            directory = self._enter()
            with contextlib.suppress(FileNotFoundError):  # removed by a delete meanwhile
                self._file = self._create(directory)
                return self._file
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), self._parent)

    def _enter(self) -> int:
        """Open the directory, again if it is open."""
        old, self._directory = self._directory, None
        if old is not None:
            os.close(old)
        self._directory = self._tree.make(self._parent)
        return self._directory

    def _create(self, directory: int) -> int:
        if self._tree.unnamed:
            try:
                return os.open(".", os.O_WRONLY | UNNAMED, 0o600, dir_fd=directory)
            except OSError as error:
                if os.fstat(directory).st_nlink == 0:  # ext4 says EPERM
                    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self._parent) from error
                if error.errno not in _NO_UNNAMED:
                    raise
                self._tree.unnamed = False
        side = side_name()
        file = os.open(side, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=directory)
        self._side = side
        return file

    def _publish(self, file: int) -> int:
        directory = self._directory
        for _ in range(TRIES):
            directory = self._enter() if directory is None else directory
            try:
                self._name(file, directory)
            except FileNotFoundError:  # the directory was removed by a delete meanwhile
                directory = None
            else:
                return directory
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), self._parent)

    def _name(self, file: int, directory: int) -> None:
        if self._side is None:
            os.link(f"/proc/self/fd/{file}", self._leaf, dst_dir_fd=directory, follow_symlinks=True)
            return
        try:
            os.link(self._side, self._leaf, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=False)
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            self._rename(self._side, directory)
        else:
            os.unlink(self._side, dir_fd=directory)
        self._side = None

    def _rename(self, side: str, directory: int) -> None:
        """Give the file its name where there are no links: the name is taken first, so that nothing is replaced."""
        os.close(os.open(self._leaf, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=directory))
        self._published = True
        os.rename(side, self._leaf, src_dir_fd=directory, dst_dir_fd=directory)

    def _close(self) -> None:
        for fd in (self._file, self._directory):
            if fd is not None:
                os.close(fd)
        self._file = self._directory = None
