"""Optional features of file systems, and the fallbacks for those that lack them. All calls block."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat
from collections.abc import Callable
from io import FileIO
from typing import Final

from ..._telemetry import log_fields
from ._directory import Directory

__all__ = ["NO_LINKS", "NO_UNNAMED", "Support", "copy", "write_all"]

NO_UNNAMED: Final = frozenset({errno.EINVAL, errno.EISDIR, errno.ENOSYS, errno.EOPNOTSUPP})
NO_LINKS: Final = frozenset(
    {errno.EACCES, errno.EINVAL, errno.EMLINK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.EXDEV}
)
_NO_RENAME: Final = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM})
_UNNAMED: Final = hasattr(os, "O_TMPFILE") and os.path.isdir("/proc/self/fd")
_NO_CHMOD: Final = frozenset({errno.EACCES, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM})
_NO_FSYNC: Final = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP})
_NO_DIRECTORY_FSYNC: Final = _NO_FSYNC | {errno.EACCES, errno.EBADF, errno.EISDIR, errno.EPERM}

_COPY_SIZE: Final = 1024 * 1024

_log = logging.getLogger("aioimageattach.stores.fs")


class Support:
    """The operations that a file system may not support; each missing feature is logged once.

    Args:
        root: The path of the store's directory.

    Attributes:
        unnamed: ``True`` if unnamed files are supported, as far as known. They are created with ``O_TMPFILE`` and named
            through ``/proc``.
    """

    def __init__(self, root: str) -> None:
        self.unnamed: bool = _UNNAMED
        self._root = root
        self._reported: set[str] = set()
        self._owner: tuple[int, int] | None = None

    def report(self, feature: str, error: OSError | None, consequence: str) -> None:
        """Log a missing feature, once.

        Args:
            feature: The feature, such as ``"hard links"``.
            error: The error of the operating system.
            consequence: The consequence for the store's files.
        """
        if feature not in self._reported:
            self._reported.add(feature)
            reason = "" if error is None else f" ({error.strerror})"
            extra = log_fields("store.unsupported", feature=feature)
            _log.warning(
                "%r: the file system does not support %s%s; %s", self._root, feature, reason, consequence, extra=extra
            )

    def chmod(self, fd: int, mode: int, option: str) -> None:
        """Set the permissions of an open file or directory.

        Args:
            fd: The descriptor.
            mode: The permissions.
            option: The name of the store's option that sets them, for the log.
        """
        if not hasattr(os, "fchmod"):
            return
        try:
            os.fchmod(fd, mode)
        except OSError as error:
            if error.errno not in _NO_CHMOD:
                raise
            self.report(
                "changing permissions", error, f"files get its default permissions; {option}=None disables this warning"
            )

    def chown(self, fd: int) -> None:
        """Give a new file or directory the owner and group of the store's directory, if the process is permitted to.

        Without this, a maintenance command run as another user would leave directories that the application cannot
        write to.
        """
        if not hasattr(os, "fchown"):
            return
        if self._owner is None:
            status = os.stat(self._root)
            self._owner = status.st_uid, status.st_gid
        user, group = self._owner
        status = os.fstat(fd)
        if (status.st_uid, status.st_gid) == (user, group):
            return
        try:
            os.fchown(fd, user, group)
        except OSError as error:
            if error.errno not in _NO_CHMOD:
                raise
            if status.st_uid != user and user != 0:
                self.report(
                    f"changing the owner of files from user {status.st_uid} to {user}, who owns the store's directory",
                    error,
                    f"user {user} may be unable to write to the directories that this process creates; run it as "
                    f"user {user}",
                )

    def fsync(self, fd: int) -> None:
        """Flush a file to disk."""
        try:
            _flush(fd)
        except OSError as error:
            if error.errno not in _NO_FSYNC:
                raise
            self.report("flushing files", error, "files of committed rows may be lost or incomplete after a power loss")

    def fsync_directory(self, directory: Directory) -> None:
        """Flush the entries of a directory to disk."""
        try:
            os.fsync(directory.fileno())
        except OSError as error:
            if error.errno not in _NO_DIRECTORY_FSYNC:
                raise
            self.report("flushing directories", error, "files of committed rows may be missing after a power loss")

    def rename(self, directory: Directory, name: str, target: Directory, new: str, seal: Callable[[int], None]) -> None:
        """Rename a file without replacing another one.

        Args:
            directory: The directory of the file.
            name: The name of the file in it.
            target: The directory of the new name.
            new: The new name.
            seal: Called with the descriptor of the copy, if the file must be copied.

        Raises:
            FileExistsError: The new name is taken.

        Effects: On error, the file has only its old name.
        """
        try:
            directory.link(name, target, new)
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            self._rename_without_links(directory, name, target, new, seal)
        else:
            directory.unlink(name)

    def _rename_without_links(
        self, directory: Directory, name: str, target: Directory, new: str, seal: Callable[[int], None]
    ) -> None:
        os.close(target.create(new, 0o600))  # reserve the name
        try:
            directory.replace(name, target, new)
        except OSError as error:
            target.unlink(new)
            if error.errno not in _NO_RENAME:
                raise
            self.report("renaming files", error, "a killed process may leave an incomplete file")
            with open(directory.open(name), "rb", buffering=0) as source:
                mode = stat.S_IMODE(os.fstat(source.fileno()).st_mode)
                file = target.create(new, mode)
                try:
                    copy(source, file)
                    seal(file)
                except BaseException:
                    with contextlib.suppress(OSError):
                        target.unlink(new)
                    raise
                finally:
                    os.close(file)
            directory.unlink(name)


def copy(source: FileIO, target: int) -> None:
    """Copy the rest of an open file to another one."""
    while block := source.read(_COPY_SIZE):
        write_all(target, block)


def write_all(fd: int, block: bytes | memoryview) -> None:
    """Write a block to an open file, in as many calls as necessary."""
    rest = memoryview(block)
    while rest:
        rest = rest[os.write(fd, rest) :]


def _flush(fd: int) -> None:
    """Flush a file. On macOS, only ``F_FULLFSYNC`` also flushes the cache of the drive; ``fsync`` does not."""
    try:
        import fcntl

        full: int = fcntl.F_FULLFSYNC  # type: ignore[attr-defined, unused-ignore]
    except (ImportError, AttributeError):
        os.fsync(fd)
    else:
        fcntl.fcntl(fd, full)
