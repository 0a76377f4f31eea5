"""An open file on disk, or a range of one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, TypeAlias

from ..._tasks import finish
from ...file import SeekableFileProxy
from ...file._proxy import Cursor
from ...file._source import CHUNK
from ._disk import read_at, run_in_thread

__all__ = ["DiskFile"]

Errors: TypeAlias = Callable[[], AbstractContextManager[None]]


class _Window(Cursor):
    """The bytes of an open file from ``start`` to ``end``. Each read is one call in a worker thread; a seek is not."""

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
            found = await run_in_thread(read_at, self._file.fileno(), size, self._start + self.position)
        self.position += len(found)
        return found

    async def aclose(self) -> None:
        await finish(self._file.close())


class DiskFile(SeekableFileProxy):
    """An asynchronous file on disk.

    Attributes:
        size: The size of the file, in bytes.
    """

    def __init__(self, file: Any, start: int, end: int, errors: Errors) -> None:
        super().__init__(_Window(file, start, end, errors))
        self.size: int = end - start
