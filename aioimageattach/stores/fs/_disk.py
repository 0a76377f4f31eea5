"""Access to aiofiles, positional reads, and the translation of system errors. No other module uses aiofiles."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, Final, ParamSpec, TypeVar

import aiofiles
import aiofiles.os

from ..._tasks import finish
from ..._threads import io_executor
from ...exc import (
    InvalidKeyError,
    StoreError,
    StoreFileExistsError,
    StoreFileNotFoundError,
    StorePermissionError,
    StoreUnavailableError,
)

__all__ = ["open_by", "read_at", "read_into", "run_in_thread", "run_in_thread_until", "translate", "translated"]

_seeking: Final = threading.Lock()

P = ParamSpec("P")
R = TypeVar("R")

_REFUSED: Final = {
    errno.EACCES: "grant the process access",
    errno.EPERM: "grant the process access",
    errno.EROFS: "mount the file system for writing",
}
_UNAVAILABLE: Final = {
    errno.EBUSY: "try again",
    errno.EDQUOT: "raise the quota, or delete files",
    errno.EFBIG: "raise the limit on file sizes",
    errno.EINTR: "try again",
    errno.EIO: "check the disk and the kernel's log",
    errno.EMFILE: "raise the process's limit on open files",
    errno.ENFILE: "raise the system's limit on open files",
    errno.ENOMEM: "free memory",
    errno.ENOSPC: "free space, or delete files",
    errno.ESTALE: "mount the file system again",
    errno.ETIMEDOUT: "check the file server",
}


async def run_in_thread(call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run a blocking call in a worker thread; wait until it ends, even after a cancellation."""
    return await finish(aiofiles.os.wrap(call)(*args, executor=io_executor(), **kwargs))


async def run_in_thread_until(stop: Callable[[], object], call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Like :func:`run_in_thread`, but call ``stop()`` on cancellation to make the call end early."""
    return await finish(aiofiles.os.wrap(call)(*args, executor=io_executor(), **kwargs), stop=stop)


async def open_by(opener: Callable[[str, int], int]) -> Any:
    """Open an unbuffered aiofiles file with an opener that returns its descriptor; close it after a cancellation."""

    async def opening() -> Any:
        return await aiofiles.open("", "rb", buffering=0, opener=opener, executor=io_executor())

    return await finish(opening(), undo=lambda file: file.close())


def read_at(fd: int, size: int, offset: int) -> bytes:
    """Read up to ``size`` bytes of an open file, starting at an offset. Blocks.

    On systems without ``pread``, such as Windows, only one reader may use the descriptor at a time.
    """
    if hasattr(os, "pread"):
        return os.pread(fd, size, offset)
    os.lseek(fd, offset, os.SEEK_SET)
    return os.read(fd, size)


def read_into(fd: int, into: memoryview, offset: int) -> int:
    """Read an open file into a buffer, starting at an offset; return the number of bytes. Thread-safe. Blocks."""
    if hasattr(os, "preadv"):
        return os.preadv(fd, [into], offset)
    with _seeking:
        data = read_at(fd, len(into), offset)
    into[: len(data)] = data
    return len(data)


@contextmanager
def translated(store: object, root: str, name: str) -> Generator[None]:
    """Translate an ``OSError`` into a :class:`StoreError` that names the file and the remedy."""
    try:
        yield
    except OSError as error:
        raise translate(error, repr(store), root, name) from error


def translate(error: OSError, store: str, root: str, name: str) -> StoreError:
    """Return the :class:`StoreError` that corresponds to an ``OSError``."""
    code = error.errno
    what = f"{name!r} in {root!r}"
    if error.filename == root and code == errno.ENOTDIR:
        return StoreError(
            f"expected a directory, got the file {root!r}; pass another path to the store", store=store, name=name
        )
    if error.filename == root and code == errno.ENOENT:
        return StoreFileNotFoundError(
            f"the store's directory {root!r} does not exist; create it, or mount it", store=store, name=name
        )
    if code in (errno.ENOENT, errno.ELOOP):
        return StoreFileNotFoundError(f"the file {name!r} does not exist in {root!r}", store=store, name=name)
    if code == errno.EEXIST:
        return StoreFileExistsError(f"{what} already exists; a file is never overwritten", store=store, name=name)
    if code in (errno.ENOTDIR, errno.EISDIR):
        return StoreFileExistsError(
            f"{what}: expected directories on its path, found a file or a link", store=store, name=name
        )
    reason = f"{what}: {os.strerror(code) if code else error}"
    if code in (errno.ENAMETOOLONG, errno.EILSEQ):
        return InvalidKeyError(f"{reason}; use a shorter name of ASCII characters", store=store, name=name)
    if code in _REFUSED:
        return StorePermissionError(f"{reason}; {_REFUSED[code]}", store=store, name=name)
    if code in _UNAVAILABLE:
        return StoreUnavailableError(f"{reason}; {_UNAVAILABLE[code]}", store=store, name=name)
    return StoreError(reason, store=store, name=name)
