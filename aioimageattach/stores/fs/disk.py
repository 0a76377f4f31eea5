"""The door to aiofiles, and the one place where the disk's errors become ours."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, Final, ParamSpec, TypeVar

import aiofiles
import aiofiles.os

from ..._threads import finish, io_executor
from ...exc import (
    InvalidKeyError,
    StoreError,
    StoreFileExistsError,
    StoreFileNotFoundError,
    StorePermissionError,
    StoreUnavailableError,
)

__all__ = ["hop", "hop_until", "open_by", "translate", "translated"]

P = ParamSpec("P")
R = TypeVar("R")

_REFUSED: Final = {
    errno.EACCES: "give the process the right to it",
    errno.EPERM: "give the process the right to it",
    errno.EROFS: "mount the file system for writing",
}
_UNAVAILABLE: Final = {
    errno.EBUSY: "try again",
    errno.EDQUOT: "raise the quota, or delete files",
    errno.EFBIG: "raise the limit on the size of files",
    errno.EINTR: "try again",
    errno.EIO: "look at the disk and the kernel's log",
    errno.EMFILE: "raise the limit on open files of the process",
    errno.ENFILE: "raise the limit on open files of the machine",
    errno.ENOMEM: "free memory",
    errno.ENOSPC: "free space, or delete files",
    errno.ESTALE: "mount the file system again",
    errno.ETIMEDOUT: "look at the file server",
}


async def hop(call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run a blocking call in a thread, and wait for its end even when cancelled."""
    return await finish(aiofiles.os.wrap(call)(*args, executor=io_executor(), **kwargs))


async def hop_until(stop: Callable[[], object], call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """:func:`hop` of a long call, which ``stop`` tells to end early when the caller is cancelled."""
    return await finish(aiofiles.os.wrap(call)(*args, executor=io_executor(), **kwargs), stop=stop)


async def open_by(opener: Callable[[str, int], int]) -> Any:
    """Open an unbuffered aiofiles file by a function that returns its descriptor; closed again when cancelled."""

    async def opening() -> Any:
        return await aiofiles.open("", "rb", buffering=0, opener=opener, executor=io_executor())

    return await finish(opening(), undo=lambda file: file.close())


@contextmanager
def translated(store: object, root: str, name: str) -> Generator[None]:
    """Raise the errors of the operating system as errors of ours that name the file and the remedy."""
    try:
        yield
    except OSError as error:
        raise translate(error, repr(store), root, name) from error


def translate(error: OSError, store: str, root: str, name: str) -> StoreError:
    """Return the error of ours that an error of the operating system means."""
    code = error.errno
    what = f"{name!r} in {root!r}"
    if error.filename == root and code == errno.ENOTDIR:
        return StoreError(f"{root!r} is no directory; give the store another path", store=store, name=name)
    if error.filename == root and code == errno.ENOENT:
        return StoreFileNotFoundError(
            f"the store's directory {root!r} is missing; make it, or mount it", store=store, name=name
        )
    if code in (errno.ENOENT, errno.ELOOP):
        return StoreFileNotFoundError(f"there is no file {what}", store=store, name=name)
    if code == errno.EEXIST:
        return StoreFileExistsError(f"there is {what} already; a file is never overwritten", store=store, name=name)
    if code in (errno.ENOTDIR, errno.EISDIR):
        return StoreFileExistsError(
            f"{what} cannot be: a file or a link stands where a directory is needed", store=store, name=name
        )
    reason = f"{what}: {os.strerror(code) if code else error}"
    if code in (errno.ENAMETOOLONG, errno.EILSEQ):
        return InvalidKeyError(f"{reason}; choose a shorter name, of ASCII characters", store=store, name=name)
    if code in _REFUSED:
        return StorePermissionError(f"{reason}; {_REFUSED[code]}", store=store, name=name)
    if code in _UNAVAILABLE:
        return StoreUnavailableError(f"{reason}; {_UNAVAILABLE[code]}", store=store, name=name)
    return StoreError(reason, store=store, name=name)
