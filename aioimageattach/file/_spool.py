"""The spool: the bytes of a source, read once and kept in memory or in a temporary file."""

from __future__ import annotations

import hashlib
import io
import mmap
import tempfile
import threading
from collections.abc import Callable, Iterator
from typing import Any, Final, NoReturn, Self
from weakref import finalize

from .._threads import run_io, run_io_until
from ..exc import ImageTooLargeError, StoreUnavailableError
from ._proxy import AsyncFile, Cursor, SeekableFileProxy
from ._source import CHUNK, Read, Source, as_reader, blocking_read, byte_view, check_bytes, readable_stream

__all__ = ["SPOOLS_MEMORY", "SPOOL_MEMORY", "Spool", "SpoolFile", "as_blocks", "measure"]

SPOOL_MEMORY: Final = 4 * 1024 * 1024
"""Largest spool kept in memory, in bytes; a larger one uses a temporary file."""

SPOOLS_MEMORY: Final = 128 * 1024 * 1024
"""Maximum number of bytes that all spools of the process keep in memory together; others use temporary files."""

# Each operation on these two is atomic under the GIL, so they need no lock.
_in_memory: dict[int, int] = {}  # bytes by the id of the spool
_draining: set[Any] = set()  # spools that wait for a stream; the more there are, the less each may buffer in memory

_INLINE_HASH: Final = 64 * 1024  # hashing this many bytes takes as long as a switch to a worker thread


def _slices(data: memoryview) -> Iterator[memoryview]:
    for start in range(0, len(data), CHUNK):
        yield data[start : start + CHUNK]


def _with_release(blocks: Iterator[memoryview], spool: Spool) -> Iterator[memoryview]:
    """Yield the blocks of a spool, and release the memory of each when the next one is requested."""
    for block in blocks:
        yield block
        spool.forget()


def as_blocks(source: Source) -> Iterator[bytes | memoryview] | None:
    """Return an iterator over the rest of a source, in blocks of at most 1 MiB.

    The iterator may block: run the whole loop over it in one worker thread.

    Args:
        source: Bytes, a sync binary file or a :class:`SpoolFile`, read from its current position. The caller closes it.

    Returns:
        The blocks, not copied if the source is in memory; ``None`` for an async source, which :func:`as_reader` reads.
    """
    if isinstance(source, SpoolFile):
        return _with_release(_slices(source.take()), source.spool)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _slices(byte_view(source))
    read = blocking_read(readable_stream(source))
    if read is None:
        return None
    call = read
    return iter(lambda: check_bytes(call(CHUNK)), b"")


async def measure(file: AsyncFile, count: Callable[[int], object] | None = None) -> tuple[int, str]:
    """Read a file to its end and close it, without keeping its bytes.

    Args:
        file: The file.
        count: Called with the size of each chunk after it was read.

    Returns:
        Its size in bytes, and its SHA-256 as 64 hexadecimal digits.
    """
    size, digest = 0, hashlib.sha256()
    async with file:
        while chunk := await file.read(CHUNK):
            size += len(chunk)
            if count is not None:
                count(len(chunk))
            if len(chunk) > _INLINE_HASH:
                await run_io(digest.update, chunk)
            else:
                digest.update(chunk)
    return size, digest.hexdigest()


def _too_large(limit: int, actual: int) -> ImageTooLargeError:
    return ImageTooLargeError(f"the file has more than {limit:,} bytes, which is the limit", limit=limit, actual=actual)


def _temporary_directory() -> str:
    return tempfile.tempdir or "the temporary directory"


class Spool:
    """The bytes of a source, with their size and SHA-256. The source is read once, the spool any number of times.

    Up to :data:`SPOOL_MEMORY` bytes are kept in memory, as long as all spools in memory together have at most
    :data:`SPOOLS_MEMORY` bytes. Otherwise the bytes are moved to an unnamed temporary file, which is removed with the
    last reference or when the process ends. A source of type ``bytes`` is kept without a copy.

    Args:
        checksum: ``True`` to calculate :attr:`sha256`, which takes 2 to 3 ms of CPU time per MiB.
    """

    def __init__(self, *, checksum: bool = True) -> None:
        self.size: int = 0
        self.on_disk: bool = False
        self._hash = hashlib.sha256() if checksum else None
        self._unhashed = b""
        self._chunks: list[bytes] = []
        self._file: io.FileIO | None = None
        self._view: memoryview | None = None

    @property
    def sha256(self) -> str:
        """SHA-256 of the bytes, as 64 hexadecimal digits."""
        if self._hash is None:
            raise ValueError("expected a spool with a checksum; pass checksum=True when it is filled")
        self.complete_hash()
        return self._hash.hexdigest()

    @classmethod
    async def fill(
        cls, source: Source, *, limit: int | None = None, checksum: bool = True, defer_hash: bool = False
    ) -> Self:
        """Read a source to its end.

        Args:
            source: See :data:`Source`; read from its current position. The caller closes it.
            limit: Largest number of bytes accepted; ``None`` for no limit.
            checksum: ``True`` to calculate :attr:`sha256`.
            defer_hash: ``True`` if a source of type ``bytes`` is hashed later, by :meth:`complete_hash`. This saves one
                switch of threads if the caller runs further work in a thread anyway.

        Raises:
            ImageTooLargeError: The source has more bytes than ``limit``; at most one chunk beyond it was read.
            DeclarationError: Bytes cannot be read from the source.
            StoreUnavailableError: The temporary file could not be written.

        Effects: On an error or a cancellation, nothing is left in memory or in the temporary directory.
        """
        spool = cls(checksum=checksum)
        if isinstance(source, bytes):
            if limit is not None and len(source) > limit:
                raise _too_large(limit, len(source))
            spool._hold(source)
            if len(source) <= _INLINE_HASH:
                spool.complete_hash()
            elif checksum and not defer_hash:
                await run_io(spool.complete_hash)
            return spool
        blocks = as_blocks(source)
        try:
            if blocks is not None:
                stop = threading.Event()
                await run_io_until(stop.set, spool._read_blocks, blocks, limit, stop)
            else:
                await spool._read_stream(as_reader(source), limit)
        finally:
            spool._close()
        return spool

    @classmethod
    def of(cls, blob: bytes) -> Self:
        """Return a spool of a few bytes, which are hashed immediately. Use :meth:`fill` for many bytes."""
        spool = cls()
        spool._hold(blob)
        spool.complete_hash()
        return spool

    def _hold(self, blob: bytes) -> None:
        self._unhashed = blob if self._hash is not None else b""
        self.size = len(blob)
        self._view = memoryview(blob)

    def complete_hash(self) -> None:
        """Hash the bytes if :meth:`fill` has deferred that. Call it in a thread: it takes up to 3 ms per MiB."""
        if self._hash is not None:
            self._hash.update(self._unhashed)
            self._unhashed = b""

    async def _read_stream(self, read: Read, limit: int | None) -> None:
        _draining.add(self)
        try:
            await self._buffer_stream(read, limit)
        finally:
            _draining.discard(self)

    async def _buffer_stream(self, read: Read, limit: int | None) -> None:
        chunks: list[bytes] = []
        buffered = 0
        while chunk := await read(CHUNK):
            chunks.append(chunk)
            buffered += len(chunk)
            if limit is not None and self.size + buffered > limit:
                raise _too_large(limit, self.size + buffered)
            if buffered >= min(CHUNK, max(_INLINE_HASH, SPOOLS_MEMORY // 4 // len(_draining))):
                await run_io(self._absorb, chunks)
                chunks, buffered = [], 0
        if self.size + buffered > _INLINE_HASH:
            await run_io(self._finish, chunks)
        else:
            self._finish(chunks)

    def _read_blocks(self, blocks: Iterator[bytes | memoryview], limit: int | None, stop: threading.Event) -> None:
        for block in blocks:
            if limit is not None and self.size + len(block) > limit:
                raise _too_large(limit, self.size + len(block))
            self._absorb([bytes(block)])
            if stop.is_set():
                return
        self._finish([])

    def _absorb(self, chunks: list[bytes]) -> None:
        """Hash and keep some chunks; may block."""
        for chunk in chunks:
            if self._hash is not None:
                self._hash.update(chunk)
            self.size += len(chunk)
        if self._file is None and self._fits():
            self._chunks += chunks
            return
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - closed by `_close`
                chunks, self._chunks = [*self._chunks, *chunks], []
            for chunk in chunks:
                rest = memoryview(chunk)
                while rest:
                    rest = rest[self._file.write(rest) :]
        except OSError as error:
            raise StoreUnavailableError(
                f"the upload could not be written to {_temporary_directory()}: {error.strerror}; free space there, or "
                "set TMPDIR to a directory that has some"
            ) from error

    def _fits(self) -> bool:
        """Return whether the bytes read so far may stay in memory. Spools of up to 64 KiB always may."""
        if self.size <= _INLINE_HASH:
            return True
        known = _in_memory.pop(id(self), None)
        if self.size > SPOOL_MEMORY or self.size + sum(tuple(_in_memory.values())) > SPOOLS_MEMORY:
            return False
        if known is None:
            finalize(self, _in_memory.pop, id(self), None).atexit = False
        _in_memory[id(self)] = self.size
        return True

    def _finish(self, chunks: list[bytes]) -> None:
        self._absorb(chunks)
        if self._file is None:
            self._view = memoryview(b"".join(self._chunks))
        else:
            self._view = memoryview(mmap.mmap(self._file.fileno(), self.size, access=mmap.ACCESS_READ))
            self.on_disk = True
        self._chunks = []

    def _close(self) -> None:
        """Close the temporary file; after success, its memory map keeps the bytes."""
        if self._file is not None:
            self._file.close()
            self._file = None

    @property
    def view(self) -> memoryview:
        """The bytes, not copied: in memory, or a read-only memory map of the temporary file."""
        if self._view is None:
            raise ValueError("expected a filled spool; await fill() first")
        return self._view

    def forget(self) -> None:
        """Let the operating system reclaim the pages of the memory map, which are read again on demand."""
        if self._view is not None and isinstance(self._view.obj, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
            self._view.obj.madvise(mmap.MADV_DONTNEED)

    def open(self) -> SpoolFile:
        """Return a new async file over the bytes, at their start; any number may be open at the same time."""
        return SpoolFile(self)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("a spool cannot be pickled, because its bytes may be on disk: pickle `bytes(spool.view)`")

    def __repr__(self) -> str:
        return f"<Spool of {self.size:,} bytes>"


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
    """An async file over a spool. A store may :meth:`take` all bytes without a copy instead of reading chunks."""

    def __init__(self, spool: Spool) -> None:
        self._cursor = _SpoolCursor(spool)
        super().__init__(self._cursor)
        self.spool = spool
        self.size: int = spool.size

    def take(self) -> memoryview:
        """Return the bytes from the current position to the end, not copied, and move to the end."""
        self._check_open()
        self._cursor.position -= len(self._ahead) - self._at
        self._keep([])
        return self._cursor.take(self.size)
