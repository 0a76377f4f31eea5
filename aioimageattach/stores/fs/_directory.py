"""An open directory, whose methods take single path segments as names. All calls block."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Final, Self

__all__ = ["Directory", "PathDirectory", "root_directory"]

# Windows lacks all of these flags except O_BINARY, which only Windows needs.
_BINARY: Final[int] = getattr(os, "O_BINARY", 0)
_DIRECTORY: Final[int] = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0)
_NOFOLLOW: Final[int] = getattr(os, "O_NOFOLLOW", 0)
_NONBLOCK: Final[int] = getattr(os, "O_NONBLOCK", 0)
_TMPFILE: Final[int] = getattr(os, "O_TMPFILE", 0)
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL


def root_directory(path: str) -> Directory:
    """Open a directory by its path, which may contain symbolic links.

    Raises:
        FileNotFoundError: The directory does not exist.
        NotADirectoryError: The path is not a directory.
    """
    if hasattr(os, "O_DIRECTORY"):
        return Directory.open_root(path)
    return PathDirectory.open_root(path)


class Directory:
    """A directory that a descriptor keeps open. Symbolic links in it are not followed."""

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    @classmethod
    def open_root(cls, path: str) -> Directory:
        """Open a directory by its path."""
        return cls(os.open(path, _DIRECTORY))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the descriptor."""
        os.close(self._fd)

    def enter(self, name: str) -> Directory:
        """Open a subdirectory.

        Raises:
            FileNotFoundError: The subdirectory does not exist.
            NotADirectoryError: The name is that of a file or a symbolic link.
        """
        return Directory(os.open(name, _DIRECTORY | _NOFOLLOW, dir_fd=self._fd))

    def make(self, name: str, mode: int) -> None:
        """Create a subdirectory."""
        os.mkdir(name, mode, dir_fd=self._fd)

    def remove(self, name: str) -> None:
        """Remove an empty subdirectory."""
        os.rmdir(name, dir_fd=self._fd)

    def stat(self, name: str) -> os.stat_result:
        """Return the status of a file, or of the symbolic link itself."""
        return os.stat(name, dir_fd=self._fd, follow_symlinks=False)

    def open(self, name: str) -> int:
        """Open a file for reading; return its descriptor. A FIFO is opened without waiting for a writer."""
        return os.open(name, os.O_RDONLY | _NOFOLLOW | _NONBLOCK, dir_fd=self._fd)

    def create(self, name: str, mode: int) -> int:
        """Create a file for writing; return its descriptor.

        Raises:
            FileExistsError: The name is taken.
        """
        return os.open(name, _CREATE | _NOFOLLOW, mode, dir_fd=self._fd)

    def create_unnamed(self, mode: int) -> int:
        """Create a file without a name for writing; return its descriptor. Linux only.

        Raises:
            FileNotFoundError: The directory has been removed.
        """
        try:
            return os.open(".", os.O_WRONLY | _TMPFILE, mode, dir_fd=self._fd)
        except OSError as error:
            if os.fstat(self._fd).st_nlink == 0:  # ext4 reports EPERM for a removed directory
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)) from error
            raise

    def link_unnamed(self, fd: int, name: str) -> None:
        """Give a name to a file that was created without one."""
        os.link(f"/proc/self/fd/{fd}", name, dst_dir_fd=self._fd, follow_symlinks=True)

    def link(self, name: str, target: Directory, new: str) -> None:
        """Give a file a second name, which must be free."""
        os.link(name, new, src_dir_fd=self._fd, dst_dir_fd=target._fd, follow_symlinks=False)

    def replace(self, name: str, target: Directory, new: str) -> None:
        """Rename a file, replacing any existing file with the new name."""
        os.replace(name, new, src_dir_fd=self._fd, dst_dir_fd=target._fd)

    def unlink(self, name: str) -> None:
        """Delete a file."""
        os.unlink(name, dir_fd=self._fd)

    def scan(self) -> AbstractContextManager[Iterator[os.DirEntry[str]]]:
        """Iterate over the entries."""
        return os.scandir(self._fd)

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._fd


class PathDirectory(Directory):
    """A directory on systems that cannot open files relative to a descriptor, such as Windows.

    Symbolic links are not followed either, but there is a race: a process that can write to the directory may create
    one between the check and the call.
    """

    __slots__ = ("_path",)

    def __init__(self, path: str) -> None:
        self._path = path

    @classmethod
    def open_root(cls, path: str) -> Directory:
        """Check that a path is a directory."""
        _require_directory(os.stat(path), path)
        return cls(path)

    def close(self) -> None:
        """Do nothing; there is no descriptor to release."""

    def enter(self, name: str) -> Directory:
        """See :class:`Directory`."""
        path = self._join(name)
        _require_directory(os.lstat(path), name)
        return PathDirectory(path)

    def make(self, name: str, mode: int) -> None:
        """See :class:`Directory`."""
        os.mkdir(self._join(name), mode)

    def remove(self, name: str) -> None:
        """See :class:`Directory`."""
        os.rmdir(self._join(name))

    def stat(self, name: str) -> os.stat_result:
        """See :class:`Directory`."""
        return os.lstat(self._join(name))

    def open(self, name: str) -> int:
        """See :class:`Directory`."""
        return os.open(self._join(name), os.O_RDONLY | _BINARY)

    def create(self, name: str, mode: int) -> int:
        """See :class:`Directory`."""
        return os.open(self._join(name), _CREATE | _BINARY, mode)

    def link(self, name: str, target: Directory, new: str) -> None:
        """See :class:`Directory`."""
        assert isinstance(target, PathDirectory)
        os.link(self._join(name), target._join(new))

    def replace(self, name: str, target: Directory, new: str) -> None:
        """See :class:`Directory`."""
        assert isinstance(target, PathDirectory)
        os.replace(self._join(name), target._join(new))

    def unlink(self, name: str) -> None:
        """See :class:`Directory`."""
        os.unlink(self._join(name))

    def scan(self) -> AbstractContextManager[Iterator[os.DirEntry[str]]]:
        """See :class:`Directory`."""
        return os.scandir(self._path)

    def fileno(self) -> int:
        """Raise ``OSError``, because there is no descriptor."""
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP), self._path)

    def _join(self, name: str) -> str:
        return os.path.join(self._path, name)


def _require_directory(status: os.stat_result, path: str) -> None:
    if not stat.S_ISDIR(status.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
