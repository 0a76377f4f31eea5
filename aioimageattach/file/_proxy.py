"""Async wrappers for objects from which bytes can be read."""

from __future__ import annotations

import inspect
import io
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Any, Final, Protocol, Self

from .._threads import run_io
from ._source import CHUNK, Read, Source, as_reader, readable_stream

__all__ = ["AsyncFile", "Cursor", "FileProxy", "ReusableFileProxy", "SeekableFileProxy"]


_INLINE_JOIN: Final = 4 * CHUNK
"""Largest number of bytes joined in the event loop; joining takes up to a millisecond per MiB."""


class AsyncFile(Protocol):
    """The result of :meth:`Store.open() <aioimageattach.store.Store.open>`: an async file and context manager."""

    async def read(self, size: int = -1, /) -> bytes:
        """Return at most ``size`` bytes, or all bytes to the end if it is negative; ``b""`` at the end."""
        ...

    async def readline(self, size: int = -1, /) -> bytes:
        """Return the next line with its line feed, or at most ``size`` bytes of it if ``size`` is not negative."""
        ...

    async def readlines(self, hint: int = -1, /) -> list[bytes]:
        """Return the remaining lines; if ``hint`` is positive, stop after the line that completes ``hint`` bytes."""
        ...

    def __aiter__(self) -> AsyncIterator[bytes]: ...
    async def __anext__(self) -> bytes: ...
    async def aclose(self) -> None:
        """Close the file; closing it again has no effect."""
        ...

    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None, /
    ) -> None: ...


class FileProxy:
    """An async file that wraps a readable object: ``read``, lines, chunks, ``async with``.

    Args:
        wrapped: The object to read from.
        close: Awaited by :meth:`aclose`, instead of the ``aclose`` or ``close`` of ``wrapped``.
        read: Called as ``await read(size)``, instead of the reader that :func:`as_reader` returns for ``wrapped``.
    """

    def __init__(
        self,
        wrapped: Source,
        *,
        close: Callable[[], Awaitable[None]] | None = None,
        read: Read | None = None,
    ) -> None:
        self._wrapped = wrapped
        self._read = as_reader(wrapped) if read is None else read
        self._close = close
        self._ahead = b""  # bytes read from the wrapped file; those from position _at on have not been returned yet
        self._at = 0
        self.closed: bool = False

    async def read(self, size: int = -1) -> bytes:
        """Return at most ``size`` bytes, or all bytes to the end if it is negative; ``b""`` at the end.

        Raises:
            ValueError: The file is closed.
        """
        self._check_open()
        if size == 0:
            return b""
        if size > 0:
            return self._take(size) or await self._read(size)
        chunks = [self._take(len(self._ahead))]
        try:
            while chunk := await self._read(CHUNK):
                chunks.append(chunk)
            if sum(map(len, chunks)) > _INLINE_JOIN:
                return await run_io(b"".join, chunks)
        except BaseException:
            self._keep(chunks)
            raise
        return b"".join(chunks)

    async def readline(self, size: int = -1) -> bytes:
        """Return the next line with its line feed, or at most ``size`` bytes of it if ``size`` is not negative."""
        self._check_open()
        chunks: list[bytes] = []
        left = size
        try:
            while left != 0 and not (chunks and chunks[-1].endswith(b"\n")):
                if self._at == len(self._ahead):
                    self._keep([await self._read(CHUNK)])
                    if not self._ahead:
                        break
                end = self._ahead.find(b"\n", self._at) + 1 or len(self._ahead)
                chunk = self._take(min(end - self._at, left) if left > 0 else end - self._at)
                chunks.append(chunk)
                left -= len(chunk) if left > 0 else 0
        except BaseException:
            self._keep(chunks)
            raise
        return b"".join(chunks)

    def _take(self, size: int) -> bytes:
        found = self._ahead[self._at : self._at + size]
        self._at += len(found)
        return found

    def _keep(self, chunks: list[bytes]) -> None:
        """Replace the buffered bytes, which the next calls return first."""
        self._ahead, self._at = b"".join(chunks), 0

    async def readlines(self, hint: int = -1) -> list[bytes]:
        """Return the remaining lines; if ``hint`` is positive, stop after the line that completes ``hint`` bytes."""
        lines: list[bytes] = []
        total = 0
        async for line in self:
            lines.append(line)
            total += len(line)
            if 0 < hint <= total:
                break
        return lines

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        line = await self.readline()
        if not line:
            raise StopAsyncIteration
        return line

    async def chunks(self, size: int = CHUNK) -> AsyncIterator[bytes]:
        """Iterate over the remaining bytes in chunks of at most ``size`` bytes, for example for a streaming response.

        Args:
            size: Largest chunk, in bytes.
        """
        while chunk := await self.read(size):
            yield chunk

    async def aclose(self) -> None:
        """Close the file; closing it again has no effect."""
        if self.closed:
            return
        self.closed = True
        self._keep([])
        if self._close is not None:
            await self._close()
            return
        for method in ("aclose", "close"):
            if hasattr(self._wrapped, method):
                await self._call(method)
                return

    async def _call(self, method: str, *args: int) -> Any:
        """Call a method of the wrapped file, in a worker thread if it may block."""
        call = getattr(self._wrapped, method)
        if method == "aclose" or inspect.iscoroutinefunction(call):
            return await call(*args)
        if isinstance(self._wrapped, io.BytesIO) or readable_stream(self._wrapped) is not self._wrapped:
            return call(*args)
        return await run_io(call, *args)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None, /
    ) -> None:
        await self.aclose()

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on a closed file")


class SeekableFileProxy(FileProxy):
    """A :class:`FileProxy` over a seekable file."""

    async def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to ``offset`` bytes from the start, the current position or the end; return the new position."""
        self._check_open()
        if whence == os.SEEK_CUR:
            offset -= len(self._ahead) - self._at
        self._keep([])
        return int(await self._call("seek", offset, whence))

    async def tell(self) -> int:
        """Return the position in bytes."""
        self._check_open()
        return int(await self._call("tell")) - len(self._ahead) + self._at


class ReusableFileProxy(SeekableFileProxy):
    """A :class:`SeekableFileProxy` whose context does not close the wrapped file, and restores its position on exit."""

    initial_offset: int

    async def __aenter__(self) -> Self:
        self.initial_offset = await self.tell()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None, /
    ) -> None:
        await self.seek(self.initial_offset)


class Cursor:
    """A position in a file of known size. Together with a ``read``, it can be wrapped in a :class:`SeekableFileProxy`.

    Args:
        size: Size of the file, in bytes.
    """

    def __init__(self, size: int) -> None:
        self.size: int = size
        self.position: int = 0

    async def seek(self, offset: int, whence: int) -> int:
        """Move as :meth:`SeekableFileProxy.seek` does."""
        bases = {os.SEEK_SET: 0, os.SEEK_CUR: self.position, os.SEEK_END: self.size}
        if whence not in bases:
            raise ValueError(f"whence: expected {os.SEEK_SET}, {os.SEEK_CUR} or {os.SEEK_END}, got {whence!r}")
        position = bases[whence] + offset
        if position < 0:
            raise ValueError(f"offset: expected a position of at least 0, got {position}")
        self.position = position
        return self.position

    async def tell(self) -> int:
        """Return the position in bytes."""
        return self.position
