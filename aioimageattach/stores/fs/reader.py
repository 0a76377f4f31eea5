"""An open file of the disk, or a range of one."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, TypeAlias

from ..._threads import finish
from ...file import CHUNK, Cursor, SeekableFileProxy
from .disk import hop

__all__ = ["DiskFile"]

Errors: TypeAlias = Callable[[], AbstractContextManager[None]]


class _Window(Cursor):
    """The bytes of an open file from ``start`` to ``end``, read by position: one hop a read, none to seek."""

    def __init__(self, file: Any, start: int, end: int, errors: Errors) -> None:
        super().__init__(end - start)
        self._file = file
        self._start = start
        self._errors = errors

    async def read(self, size: int = CHUNK, /) -> bytes:
        size = min(size, self.size - self.position)
        if size <= 0:
            return b""
        with self._errors():
            found = await hop(os.pread, self._file.fileno(), size, self._start + self.position)
        self.position += len(found)
        return found

    async def aclose(self) -> None:
        await finish(self._file.close())


class DiskFile(SeekableFileProxy):
    """An async file of the disk, with ``size`` in bytes."""

    def __init__(self, file: Any, start: int, end: int, errors: Errors) -> None:
        super().__init__(_Window(file, start, end, errors))
        self.size: int = end - start
