"""File descriptors of this process."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import Callable
from pathlib import Path


def count_all() -> int:
    """Return the number of open descriptors, without those of objects that are garbage."""
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def count_open(folder: Path) -> int:
    """Return the number of descriptors that refer to a folder or its contents, without those of other tests."""
    return sum(path.startswith(str(folder)) for path in targets())


def targets() -> list[str]:
    """Return what each open descriptor refers to."""
    return [target(fd) for fd in os.listdir("/proc/self/fd")]


def target(fd: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:  # the descriptor of listdir() itself
        return ""


async def falls_to(most: int, count: Callable[[], int] = count_all) -> bool:
    """Return whether the count, by default of open descriptors, is at most this one, perhaps after a moment.

    A thread that has given its result to the event loop still refers to its last call, and so to an open file.
    """
    for _ in range(500):
        if count() <= most:
            return True
        await asyncio.sleep(0.01)
    return False
