"""File descriptors of this process."""

from __future__ import annotations

import os
from pathlib import Path


def count_open(folder: Path) -> int:
    """Return the number of descriptors that refer to a folder or its contents, without those of other tests."""
    return sum(target(fd).startswith(str(folder)) for fd in os.listdir("/proc/self/fd"))


def target(fd: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:  # the descriptor of listdir() itself
        return ""
