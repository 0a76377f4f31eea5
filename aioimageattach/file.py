"""Async files: what a store gives, what may be attached, and the spool in between."""

from __future__ import annotations

import hashlib
import inspect
import io
import mmap
import os
import tempfile
import threading
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterator
from types import TracebackType
from typing import IO, Any, Final, Protocol, Self, TypeAlias, cast, runtime_checkable
from weakref import finalize

from ._threads import run_io, run_io_until
from .exc import DeclarationError, ImageTooLargeError, StoreUnavailableError

__all__ = [
    "CHUNK",
    "SPOOLS_MEMORY",
    "SPOOL_MEMORY",
    "AsyncFile",
    "AsyncReadable",
    "Cursor",
    "FileProxy",
    "ReusableFileProxy",
    "SeekableFileProxy",
    "Source",
    "Spool",
    "SpoolFile",
    "SyncReadable",
    "as_blocks",
    "as_reader",
    "measure",
]

CHUNK: Final = 1024 * 1024
"""How many bytes move at once where the choice is ours: about what makes a thread hop worth it."""

SPOOL_MEMORY: Final = 4 * 1024 * 1024
"""Up to so many bytes a spool stays in memory; a larger one goes to a temporary file."""

SPOOLS_MEMORY: Final = 128 * 1024 * 1024
"""Up to so many bytes all spools of the process stay in memory; beyond it, each goes to a temporary file."""

# Each step on these is atomic, and so they need no lock.
_in_memory: dict[int, int] = {}  # bytes by spool
_draining: set[Any] = set()  # spools that wait for a stream: the more, the less each gathers before it is put away

_INLINE_HASH: Final = 64 * 1024  # hashing so much costs what a thread hop costs


@runtime_checkable
class SyncReadable(Protocol):
    """A file opened for reading bytes: ``open(path, "rb")``, ``io.BytesIO``, ``upload.file``."""

    def read(self, size: int = ..., /) -> bytes: ...


@runtime_checkable
class AsyncReadable(Protocol):
    """An asynchronous file: aiofiles, anyio, Starlette's ``UploadFile``, aiohttp's ``StreamReader``."""

    def read(self, size: int = ..., /) -> Awaitable[bytes]: ...


Source: TypeAlias = "bytes | bytearray | memoryview | SyncReadable | AsyncReadable | AsyncIterable[bytes] | IO[bytes]"
"""Whatever bytes can be read from: bytes, a sync or async file, an HTTP response's stream, an async iterator."""

Read: TypeAlias = "Callable[[int], Awaitable[bytes]]"


class AsyncFile(Protocol):
    """What :meth:`Store.open() <aioimageattach.store.Store.open>` gives: an async file and context manager."""

    async def read(self, size: int = -1, /) -> bytes: ...
    async def readline(self, size: int = -1, /) -> bytes: ...
    async def readlines(self, hint: int = -1, /) -> list[bytes]: ...
    def __aiter__(self) -> AsyncIterator[bytes]: ...
    async def __anext__(self) -> bytes: ...
    async def aclose(self) -> None: ...
    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def _checked(data: object) -> bytes:
    if isinstance(data, bytes):
        return data
    if isinstance(data, (bytearray, memoryview)):
        return bytes(data)
    if inspect.iscoroutine(data):
        data.close()
    raise DeclarationError(f"expected a file that reads bytes, got {type(data).__name__}; open it in binary mode")


class _Chunked:
    """Reads of any size over an iterator of pieces of any size."""

    def __init__(self, source: AsyncIterable[Any]) -> None:
        self._pieces = aiter(source)
        self._rest = memoryview(b"")

    async def read(self, size: int) -> bytes:
        while not self._rest:
            try:
                self._rest = memoryview(_checked(await anext(self._pieces)))
            except StopAsyncIteration:
                return b""
        found, self._rest = self._rest[:size], self._rest[size:]
        return bytes(found)


def _stream(source: object) -> object:
    """What to read of an HTTP response; anything else is what it is."""
    if callable(pieces := getattr(source, "aiter_bytes", None)):  # httpx
        return pieces()
    content = getattr(source, "content", None)
    return content if hasattr(content, "iter_chunked") else source  # aiohttp


def _blocking(source: object) -> Callable[[int], object] | None:
    """The blocking ``read`` of a source that has one."""
    read = getattr(source, "read", None)
    return None if inspect.iscoroutinefunction(read) else cast("Callable[[int], object] | None", read)


def _flat(source: bytes | bytearray | memoryview) -> memoryview:
    """The bytes of memory of any shape, not copied where they follow one another."""
    data = memoryview(source)
    return data.cast("B") if data.c_contiguous else memoryview(data.tobytes())


def _slices(data: memoryview) -> Iterator[memoryview]:
    for start in range(0, len(data), CHUNK):
        yield data[start : start + CHUNK]


def _forgotten(blocks: Iterator[memoryview], spool: Spool) -> Iterator[memoryview]:
    """Yield blocks of a spool, and let each leave our memory once the next one is asked for."""
    for block in blocks:
        yield block
        spool.forget()


def as_blocks(source: Source) -> Iterator[bytes | memoryview] | None:
    """Return an iterator over what a source holds from where it stands, in blocks of at most 1 MiB.

    It may block, so it belongs into a worker thread, all of it in one hop.

    Args:
        source: Bytes, a sync binary file or a :class:`SpoolFile`; it stays the caller's to close.

    Returns:
        The blocks, which are not copied where the source is in memory; ``None`` for an asynchronous source, which
        :func:`as_reader` reads.
    """
    if isinstance(source, SpoolFile):
        return _forgotten(_slices(source.take()), source.spool)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _slices(_flat(source))
    read = _blocking(_stream(source))
    if read is None:
        return None
    call = read
    return iter(lambda: _checked(call(CHUNK)), b"")


def as_reader(source: Source) -> Read:
    """Return ``await read(size)`` over any source: at most ``size`` bytes, ``b""`` at the end.

    Args:
        source: Bytes, a sync or async binary file, an aiohttp or httpx response or stream, or an async iterator.
            It stays the caller's to close. A sync file is read in a worker thread.

    Raises:
        DeclarationError: It is none of these, or a file opened for text.
    """
    if isinstance(source, (bytes, bytearray, memoryview)):
        source = io.BytesIO(_flat(source))
    if isinstance(source, io.BytesIO):
        memory = source

        async def read_memory(size: int) -> bytes:
            return memory.read(size)

        return read_memory
    stream = _stream(source)
    blocking = _blocking(stream)
    if blocking is not None:
        call = blocking

        async def read_blocking(size: int) -> bytes:
            return _checked(await run_io(call, size))

        return read_blocking
    if isinstance(stream, AsyncReadable):
        call_async = stream.read

        async def read_async(size: int) -> bytes:
            return _checked(await call_async(size))

        return read_async
    if isinstance(stream, AsyncIterable):
        return _Chunked(stream).read
    hint = "open the path and pass the file" if isinstance(source, (str, os.PathLike)) else "see Source"
    raise DeclarationError(f"expected bytes, a binary file or an async iterator, got {type(source).__name__}: {hint}")


class FileProxy:
    """An async file over anything readable: ``read``, lines, chunks, ``async with``.

    Args:
        wrapped: What to read from.
        close: Awaited by :meth:`aclose`; by default ``wrapped``'s own ``aclose`` or ``close`` is.
        read: Awaited for at most so many bytes; by default ``wrapped``'s own way to be read is found out.
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
        self._ahead = b""
        self._at = 0
        self.closed: bool = False

    async def read(self, size: int = -1, /) -> bytes:
        """Return up to ``size`` bytes, all that is left where it is negative; ``b""`` at the end.

        Raises:
            ValueError: The file is closed.
        """
        self._check_open()
        if size == 0:
            return b""
        if size > 0:
            return self._take(size) or await self._read(size)
        pieces = [self._take(len(self._ahead))]
        try:
            while piece := await self._read(CHUNK):
                pieces.append(piece)
        except BaseException:
            self._keep(pieces)
            raise
        return b"".join(pieces)

    async def readline(self, size: int = -1, /) -> bytes:
        """Return one line with its line feed, or at most ``size`` bytes of it where ``size`` is not negative."""
        self._check_open()
        pieces: list[bytes] = []
        left = size
        try:
            while left != 0 and not (pieces and pieces[-1].endswith(b"\n")):
                if self._at == len(self._ahead):
                    self._keep([await self._read(CHUNK)])
                    if not self._ahead:
                        break
                end = self._ahead.find(b"\n", self._at) + 1 or len(self._ahead)
                piece = self._take(min(end - self._at, left) if left > 0 else end - self._at)
                pieces.append(piece)
                left -= len(piece) if left > 0 else 0
        except BaseException:
            self._keep(pieces)
            raise
        return b"".join(pieces)

    def _take(self, size: int) -> bytes:
        found = self._ahead[self._at : self._at + size]
        self._at += len(found)
        return found

    def _keep(self, pieces: list[bytes]) -> None:
        """Let the pieces be what is read next; nothing else is waiting."""
        self._ahead, self._at = b"".join(pieces), 0

    async def readlines(self, hint: int = -1, /) -> list[bytes]:
        """Return the lines that are left, or no more once they have ``hint`` bytes together, where it is positive."""
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
        """Iterate over what is left in pieces of at most ``size`` bytes, as a streaming response wants it."""
        while piece := await self.read(size):
            yield piece

    async def aclose(self) -> None:
        """Close the file; doing so again changes nothing."""
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
        """Call a method of the wrapped file, in a thread if it may block."""
        call = getattr(self._wrapped, method)
        if method == "aclose" or inspect.iscoroutinefunction(call):
            return await call(*args)
        if isinstance(self._wrapped, io.BytesIO) or _stream(self._wrapped) is not self._wrapped:
            return call(*args)
        return await run_io(call, *args)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on a closed file")


class SeekableFileProxy(FileProxy):
    """A :class:`FileProxy` over a seekable file."""

    async def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
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
    """A :class:`SeekableFileProxy` that leaves the wrapped file open, where it was when the context was entered."""

    initial_offset: int

    async def __aenter__(self) -> Self:
        self.initial_offset = await self.tell()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.seek(self.initial_offset)


async def measure(file: AsyncFile, count: Callable[[int], object] | None = None) -> tuple[int, str]:
    """Read a file to its end, keep nothing of it, and close it.

    Args:
        file: The file.
        count: Called with the size of each piece that was read.

    Returns:
        Its size in bytes, and its SHA-256 as 64 hexadecimal digits.
    """
    size, digest = 0, hashlib.sha256()
    async with file:
        while piece := await file.read(CHUNK):
            size += len(piece)
            if count is not None:
                count(len(piece))
            if len(piece) > _INLINE_HASH:
                await run_io(digest.update, piece)
            else:
                digest.update(piece)
    return size, digest.hexdigest()


def _too_large(limit: int, actual: int) -> ImageTooLargeError:
    return ImageTooLargeError(f"the file has more than {limit:,} bytes, which is the limit", limit=limit, actual=actual)


def _temporary_directory() -> str:
    return tempfile.tempdir or "the temporary directory"


class Spool:
    """Bytes read once from a source, with their number and fingerprint, to be read any number of times.

    They stay in memory up to :data:`SPOOL_MEMORY`, and all spools together up to :data:`SPOOLS_MEMORY`. Beyond it they
    go to an unnamed temporary file, which vanishes with the last reference, or with the process. What comes as bytes is
    kept as it is.

    Args:
        fingerprint: Whether :attr:`sha256` is wanted: it costs 2 to 3 ms of a core per mebibyte.
    """

    def __init__(self, *, fingerprint: bool = True) -> None:
        self.size: int = 0
        self.on_disk: bool = False
        self._hash = hashlib.sha256() if fingerprint else None
        self._pieces: list[bytes] = []
        self._file: io.FileIO | None = None
        self._view: memoryview | None = None

    @property
    def sha256(self) -> str:
        """The fingerprint of the bytes, 64 hexadecimal digits."""
        if self._hash is None:
            raise ValueError("the spool was filled without a fingerprint")
        return self._hash.hexdigest()

    @classmethod
    async def fill(cls, source: Source, *, limit: int | None = None, fingerprint: bool = True) -> Self:
        """Read a source to its end.

        Args:
            source: See :data:`Source`; read from where it stands, and the caller's to close.
            limit: The most bytes it may have; ``None`` for no limit.
            fingerprint: Whether :attr:`sha256` is wanted.

        Raises:
            ImageTooLargeError: It has more; no more than the limit and a chunk was read.
            DeclarationError: It is nothing that bytes can be read from.
            StoreUnavailableError: The temporary file could not be written.

        Effects: On an error or a cancellation nothing is left, in memory or in the temporary directory.
        """
        spool = cls(fingerprint=fingerprint)
        if isinstance(source, bytes):
            if limit is not None and len(source) > limit:
                raise _too_large(limit, len(source))
            if spool._hash is not None:
                if len(source) > _INLINE_HASH:
                    await run_io(spool._hash.update, source)
                else:
                    spool._hash.update(source)
            spool.size = len(source)
            spool._view = memoryview(source)
            return spool
        blocks = as_blocks(source)
        try:
            if blocks is not None:
                stop = threading.Event()
                await run_io_until(stop.set, spool._pump, blocks, limit, stop)
            else:
                await spool._drain(as_reader(source), limit)
        finally:
            spool._close()
        return spool

    async def _drain(self, read: Read, limit: int | None) -> None:
        _draining.add(self)
        try:
            await self._gather(read, limit)
        finally:
            _draining.discard(self)

    async def _gather(self, read: Read, limit: int | None) -> None:
        pieces: list[bytes] = []
        waiting = 0
        while piece := await read(CHUNK):
            pieces.append(piece)
            waiting += len(piece)
            if limit is not None and self.size + waiting > limit:
                raise _too_large(limit, self.size + waiting)
            if waiting >= min(CHUNK, max(_INLINE_HASH, SPOOLS_MEMORY // 4 // len(_draining))):
                await run_io(self._absorb, pieces)
                pieces, waiting = [], 0
        if self.size + waiting > _INLINE_HASH:
            await run_io(self._finish, pieces)
        else:
            self._finish(pieces)

    def _pump(self, blocks: Iterator[bytes | memoryview], limit: int | None, stop: threading.Event) -> None:
        for block in blocks:
            if limit is not None and self.size + len(block) > limit:
                raise _too_large(limit, self.size + len(block))
            self._absorb([bytes(block)])
            if stop.is_set():
                return
        self._finish([])

    def _absorb(self, pieces: list[bytes]) -> None:
        """Hash and keep some pieces; may block."""
        for piece in pieces:
            if self._hash is not None:
                self._hash.update(piece)
            self.size += len(piece)
        if self._file is None and self._fits():
            self._pieces += pieces
            return
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - closed by `_close`
                pieces, self._pieces = [*self._pieces, *pieces], []
            for piece in pieces:
                rest = memoryview(piece)
                while rest:
                    rest = rest[self._file.write(rest) :]
        except OSError as error:
            raise StoreUnavailableError(
                f"the upload could not be kept in {_temporary_directory()}: {error.strerror}; free space there, or set "
                "TMPDIR to a directory that has some"
            ) from error

    def _fits(self) -> bool:
        """Whether there is memory for all that was absorbed; small ones are not counted."""
        if self.size <= _INLINE_HASH:
            return True
        known = _in_memory.pop(id(self), None)
        if self.size > SPOOL_MEMORY or self.size + sum(tuple(_in_memory.values())) > SPOOLS_MEMORY:
            return False
        if known is None:
            finalize(self, _in_memory.pop, id(self), None).atexit = False
        _in_memory[id(self)] = self.size
        return True

    def _finish(self, pieces: list[bytes]) -> None:
        self._absorb(pieces)
        if self._file is None:
            self._view = memoryview(b"".join(self._pieces))
        else:
            self._view = memoryview(mmap.mmap(self._file.fileno(), self.size, access=mmap.ACCESS_READ))
            self.on_disk = True
        self._pieces = []

    def _close(self) -> None:
        """Let go of the temporary file: the map holds it, or nothing does."""
        if self._file is not None:
            self._file.close()
            self._file = None

    @property
    def view(self) -> memoryview:
        """The bytes, not copied: memory, or a read-only map of the temporary file."""
        if self._view is None:
            raise ValueError("the spool is not filled yet")
        return self._view

    def forget(self) -> None:
        """Let the system take back the memory in which the temporary file was read; it is read again where needed."""
        if self._view is not None and isinstance(self._view.obj, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
            self._view.obj.madvise(mmap.MADV_DONTNEED)

    def open(self) -> SpoolFile:
        """Return a new async file over the bytes, from their start; any number may be open at once."""
        return SpoolFile(self)

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __repr__(self) -> str:
        return f"<Spool of {self.size:,} bytes>"


class Cursor:
    """A position in bytes of a known number, with the methods that a :class:`SeekableFileProxy` wraps but ``read``."""

    def __init__(self, size: int) -> None:
        self.size: int = size
        self.position: int = 0

    async def seek(self, offset: int, whence: int) -> int:
        bases = {os.SEEK_SET: 0, os.SEEK_CUR: self.position, os.SEEK_END: self.size}
        if whence not in bases:
            raise ValueError(f"whence: expected {os.SEEK_SET}, {os.SEEK_CUR} or {os.SEEK_END}, got {whence!r}")
        position = bases[whence] + offset
        if position < 0:
            raise ValueError(f"seek to {position}: expected a position of 0 or more")
        self.position = position
        return self.position

    async def tell(self) -> int:
        return self.position


class _SpoolCursor(Cursor):
    def __init__(self, spool: Spool) -> None:
        super().__init__(spool.size)
        self._view = spool.view
        self._on_disk = spool.on_disk

    def take(self, size: int) -> memoryview:
        found = self._view[self.position : self.position + size]
        self.position += len(found)
        return found

    async def read(self, size: int = CHUNK, /) -> bytes:
        found = self.take(size)
        return await run_io(bytes, found) if self._on_disk else bytes(found)

    async def aclose(self) -> None:
        self._view = memoryview(b"")


class SpoolFile(SeekableFileProxy):
    """An async file over a spool. A store may :meth:`take` it whole instead of reading it piece by piece."""

    def __init__(self, spool: Spool) -> None:
        self._cursor = _SpoolCursor(spool)
        super().__init__(self._cursor)
        self.spool = spool
        self.size: int = spool.size

    def take(self) -> memoryview:
        """Return the bytes from where the file stands to the end, not copied, and move to the end."""
        self._check_open()
        self._cursor.position -= len(self._ahead) - self._at
        self._keep([])
        return self._cursor.take(self.size)
