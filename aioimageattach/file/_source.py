"""Sources of bytes, and a uniform way to read them."""

from __future__ import annotations

import inspect
import io
import os
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from typing import IO, Any, Final, Protocol, TypeAlias, cast, runtime_checkable

from .._threads import run_io
from ..exc import DeclarationError

__all__ = [
    "CHUNK",
    "AsyncReadable",
    "Read",
    "Source",
    "SyncReadable",
    "as_reader",
    "blocking_read",
    "byte_view",
    "check_bytes",
    "readable_stream",
]

CHUNK: Final = 1024 * 1024
"""Number of bytes per call where the library chooses it, large compared with the cost of switching threads."""


@runtime_checkable
class SyncReadable(Protocol):
    """A file opened for reading bytes: ``open(path, "rb")``, ``io.BytesIO``, ``upload.file``."""

    def read(self, size: int = ..., /) -> bytes: ...


@runtime_checkable
class AsyncReadable(Protocol):
    """An asynchronous file: aiofiles, anyio, Starlette's ``UploadFile``, aiohttp's ``StreamReader``."""

    def read(self, size: int = ..., /) -> Awaitable[bytes]: ...


class HttpxResponse(Protocol):
    """A response of httpx, inside ``client.stream(...)``."""

    def aiter_bytes(self) -> AsyncIterator[bytes]: ...


class AiohttpResponse(Protocol):
    """A response of aiohttp."""

    @property
    def content(self) -> AsyncReadable: ...


Response: TypeAlias = "HttpxResponse | AiohttpResponse"

Source: TypeAlias = (
    "bytes | bytearray | memoryview | SyncReadable | AsyncReadable | AsyncIterable[bytes] | IO[bytes] | Response"
)
"""Any object that bytes can be read from: bytes, a sync or async file, an HTTP response, an async iterator."""

Read: TypeAlias = "Callable[[int], Awaitable[bytes]]"


def check_bytes(data: object) -> bytes:
    """Return the result of a ``read`` as bytes.

    Raises:
        DeclarationError: It is not bytes-like, for example a ``str`` from a file opened in text mode.
    """
    if isinstance(data, bytes):
        return data
    if isinstance(data, (bytearray, memoryview)):
        return bytes(data)
    if inspect.iscoroutine(data):
        data.close()
    raise DeclarationError(f"expected a file that reads bytes, got {type(data).__name__}; open it in binary mode")


class _ChunkReader:
    """Reads of any size over an iterator of chunks of any size."""

    def __init__(self, source: AsyncIterable[Any]) -> None:
        self._chunks = aiter(source)
        self._rest = memoryview(b"")

    async def read(self, size: int) -> bytes:
        while not self._rest:
            try:
                self._rest = memoryview(check_bytes(await anext(self._chunks)))
            except StopAsyncIteration:
                return b""
        found, self._rest = self._rest[:size], self._rest[size:]
        return bytes(found)


def readable_stream(source: object) -> object:
    """Return the stream of a response of httpx or aiohttp, or of a part of a form; or any other object unchanged."""
    if hasattr(source, "read_chunk") and hasattr(source, "at_eof"):
        return _chunks_of_part(source)
    if callable(chunks := getattr(source, "aiter_bytes", None)):  # httpx
        return chunks()
    content = getattr(source, "content", None)
    return content if hasattr(content, "iter_chunked") else source  # aiohttp


async def _chunks_of_part(part: Any) -> AsyncIterator[bytes]:
    """Read a part of a multipart request of aiohttp, whose ``read`` would return all of it."""
    while not part.at_eof():
        yield await part.read_chunk(CHUNK)


def blocking_read(source: object) -> Callable[[int], object] | None:
    """Return the ``read`` method of a source if it is not a coroutine function."""
    read = getattr(source, "read", None)
    return None if inspect.iscoroutinefunction(read) else cast("Callable[[int], object] | None", read)


def byte_view(source: bytes | bytearray | memoryview) -> memoryview:
    """Return a flat view of the bytes, copied only if the memory is not contiguous."""
    data = memoryview(source)
    return data.cast("B") if data.c_contiguous else memoryview(data.tobytes())


def as_reader(source: Source) -> Read:
    """Return a function to call as ``await read(size)``, which returns at most ``size`` bytes, and ``b""`` at the end.

    Args:
        source: Bytes, a sync or async binary file, an aiohttp or httpx response or stream, a part of a multipart
            request of aiohttp, or an async iterator.
            A sync file is read in a worker thread. The caller closes the source.

    Raises:
        DeclarationError: The source is none of these, or (when it is read) a file opened in text mode.
    """
    if isinstance(source, (bytes, bytearray, memoryview)):
        source = io.BytesIO(byte_view(source))
    if isinstance(source, io.BytesIO):
        memory = source

        async def read_memory(size: int) -> bytes:
            return memory.read(size)

        return read_memory
    stream = readable_stream(source)
    blocking = blocking_read(stream)
    if blocking is not None:
        call = blocking

        async def read_blocking(size: int) -> bytes:
            return check_bytes(await run_io(call, size))

        return read_blocking
    if isinstance(stream, AsyncReadable):
        call_async = stream.read

        async def read_async(size: int) -> bytes:
            return check_bytes(await call_async(size))

        return read_async
    if isinstance(stream, AsyncIterable):
        return _ChunkReader(stream).read
    hint = "open the path and pass the file" if isinstance(source, (str, os.PathLike)) else "see Source"
    raise DeclarationError(f"expected bytes, a binary file or an async iterator, got {type(source).__name__}: {hint}")
