"""Disk errors that the kernel itself raises: system calls that fail, and another user.

They apply only to one thread, which is the only thread of a new pool for file I/O.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Final

import pytest

from aioimageattach import _threads

_CALLS: Final = {
    "x86_64": {
        "fchmod": 91,
        "fsync": 74,
        "getdents64": 217,
        "linkat": 265,
        "mkdirat": 258,
        "openat": 257,
        "pread64": 17,
        "preadv2": 327,
        "fchown": 93,
        "renameat": 264,
        "setresuid": 117,
        "unlinkat": 263,
        "write": 1,
    },
    "aarch64": {
        "fchmod": 52,
        "fsync": 82,
        "getdents64": 61,
        "linkat": 37,
        "mkdirat": 34,
        "openat": 56,
        "pread64": 67,
        "preadv2": 286,
        "fchown": 55,
        "renameat": 38,
        "setresuid": 147,
        "unlinkat": 35,
        "write": 64,
    },
}.get(platform.machine() if sys.platform == "linux" else "", {})
_libc: Final = ctypes.CDLL(None, use_errno=True)
_NOBODY: Final = 65534
O_TMPFILE_BIT: Final = 0o20000000


class _Instruction(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint16), ("yes", ctypes.c_uint8), ("no", ctypes.c_uint8), ("value", ctypes.c_uint32))


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint16), ("instructions", ctypes.POINTER(_Instruction)))


def _check(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


_FAIL: Final = 0x00050000
_DIE: Final = 0x80000000


def _filter(call: str, answer: int, flag: int = 0) -> None:
    """Install a seccomp filter with which one system call fails, optionally only if its third argument has a flag."""
    if not _CALLS:
        pytest.skip("only Linux refuses calls to a thread")
    load, equal, has, end = 0x20, 0x15, 0x45, 0x06
    rows = [(load, 0, 0, 0), (equal, 0, 3 if flag else 1, _CALLS[call])]
    if flag:
        rows += [(load, 0, 0, 32), (has, 0, 1, flag)]
    rows += [(end, 0, 0, answer), (end, 0, 0, 0x7FFF0000)]
    instructions = (_Instruction * len(rows))(*rows)
    _check(_libc.prctl(38, 1, 0, 0, 0))
    _check(_libc.prctl(22, 2, ctypes.byref(_Program(len(rows), instructions)), 0, 0))


def _become_nobody() -> None:
    if os.geteuid() == 0:
        if not _CALLS:
            pytest.skip("only Linux has threads of different users")
        _check(_libc.syscall(_CALLS["setresuid"], _NOBODY, _NOBODY, _NOBODY))


@contextmanager
def in_the_worker(*calls: Callable[[], None]) -> Generator[None]:
    """Replace the pool for file I/O by one new thread that has made these calls first."""
    _threads.set_workers(io=1)
    try:
        for call in calls:
            _threads.io_executor().submit(call).result()
        yield
    finally:
        _threads.set_workers(io=32)


def refused(call: str, error: int, flag: int = 0) -> Callable[[], None]:
    """Return a call for :func:`in_the_worker` after which the kernel answers a system call with an error."""
    return lambda: _filter(call, _FAIL | error, flag)


def fatal(call: str) -> Callable[[], None]:
    """Return a call for :func:`in_the_worker` after which a system call kills the process."""
    return lambda: _filter(call, _DIE)


def nobody() -> None:
    """Remove the privileges of the thread; a call for :func:`in_the_worker`."""
    _become_nobody()
