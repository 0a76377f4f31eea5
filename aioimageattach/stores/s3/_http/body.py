"""Request bodies, which can be sent any number of times."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Callable, Iterator
from hashlib import sha256
from typing import Final

from ...._threads import run_io
from ....file import Source, Spool
from ....file._source import CHUNK
from ....file._spool import SpoolFile
from .chunked import Algorithm, Hash, new_hash

__all__ = ["SLICE", "Body", "Slices", "Watch"]

SLICE: Final = 256 * 1024
"""Size of the slices that are passed to the connection, in bytes."""

_INLINE: Final = 64 * 1024  # hashing this many bytes takes as long as switching to a worker thread


class Body:
    """A request body in memory, or in the memory map of a spool's file.

    Args:
        view: The bytes.
        spool: The spool that the bytes are mapped from; ``None`` if they are in memory.
    """

    __slots__ = ("_digest", "_spool", "size", "view")

    def __init__(self, view: bytes | memoryview = b"", *, spool: Spool | None = None) -> None:
        self.view: memoryview = memoryview(view)
        self.size: int = len(self.view)
        self._spool = spool
        self._digest: str | None = None

    @classmethod
    async def of(cls, source: Source) -> Body:
        """Return a body with the bytes of a source; a source that is not in memory is read into a spool first.

        Raises:
            DeclarationError: Bytes cannot be read from the source.
            StoreUnavailableError: The temporary file of the spool cannot be written.
        """
        if isinstance(source, bytes):
            return cls(source)
        file = source if isinstance(source, SpoolFile) else (await Spool.fill(source, checksum=False)).open()
        return cls(file.take(), spool=file.spool if file.spool.on_disk else None)

    @property
    def on_disk(self) -> bool:
        """``True`` if reading the bytes may block."""
        return self._spool is not None

    def part(self, start: int, end: int) -> Body:
        """Return a body that shares the bytes from ``start`` up to but not including ``end``."""
        return Body(self.view[start:end], spool=self._spool)

    def blocks(self) -> Iterator[memoryview]:
        """Iterate over the bytes in blocks of at most 1 MiB; blocks read from disk are not kept in memory."""
        for start in range(0, self.size, CHUNK):
            yield self.view[start : start + CHUNK]
            self._forget()

    def copy(self, block: memoryview) -> bytes:
        """Copy a block into memory. May block."""
        found = bytes(block)
        self._forget()
        return found

    def _forget(self) -> None:
        if self._spool is not None:
            self._spool.forget()

    async def sha256(self) -> str:
        """Return the SHA-256 as 64 hexadecimal digits; it is computed once."""
        if self._digest is None:
            self._digest = (await self._hash(sha256())).hex()
        return self._digest

    async def checksum(self, algorithm: Algorithm) -> str:
        """Return a checksum in the form that S3 uses, base64."""
        return base64.b64encode(await self._hash(new_hash(algorithm))).decode()

    async def _hash(self, state: Hash) -> bytes:
        def run() -> bytes:
            for block in self.blocks():
                state.update(block)
            return state.digest()

        return await run_io(run) if self.on_disk or self.size > _INLINE else run()

    @property
    def is_slice(self) -> bool:
        """``True`` if the body is small and in memory, so that it can be passed to the connection in one piece."""
        return self.size <= SLICE and not self.on_disk


class Watch:
    """A record of whether the server may have received the whole body, in any attempt.

    Attributes:
        all_sent: ``True`` if the last byte was passed to a connection.
    """

    __slots__ = ("all_sent",)

    def __init__(self) -> None:
        self.all_sent: bool = False


class Slices:
    """An asynchronous iterator over the slices of a body, for one attempt.

    Args:
        body: The body.
        progress: Called before each slice.
        watch: Records when the last slice is passed to the connection.
    """

    __slots__ = ("_body", "_progress", "_watch")

    def __init__(self, body: Body, progress: Callable[[], object], watch: Watch) -> None:
        self._body = body
        self._progress = progress
        self._watch = watch

    async def __aiter__(self) -> AsyncIterator[bytes | memoryview]:
        body = self._body
        for start in range(0, body.size, CHUNK):
            block: bytes | memoryview = body.view[start : start + CHUNK]
            if body.on_disk:
                block = await run_io(body.copy, body.view[start : start + CHUNK])
            for at in range(0, len(block), SLICE):
                self._progress()
                if start + at + SLICE >= body.size:
                    self._watch.all_sent = True
                yield block[at : at + SLICE]
