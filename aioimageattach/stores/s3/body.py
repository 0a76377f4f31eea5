"""Bodies of requests, which can be sent any number of times."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from hashlib import sha256
from typing import Final

from ..._threads import run_io
from ...file import CHUNK, Source, Spool, SpoolFile
from .chunked import Algorithm, checksum

__all__ = ["SLICE", "Body", "Slices"]

SLICE: Final = 256 * 1024
"""How many bytes are handed to the connection at once."""

_INLINE: Final = 64 * 1024  # hashing so much costs what a thread hop costs


class Body:
    """Bytes in memory, or in a map of a file.

    Args:
        view: The bytes.
        on_disk: Whether reading them may block.
    """

    __slots__ = ("_digest", "on_disk", "size", "view")

    def __init__(self, view: bytes | memoryview = b"", *, on_disk: bool = False) -> None:
        self.view: memoryview = memoryview(view)
        self.size: int = len(self.view)
        self.on_disk: bool = on_disk
        self._digest: str | None = None

    @classmethod
    async def of(cls, source: Source) -> Body:
        """Return a source's bytes as a body; what is not in memory yet is read to its end, into a spool.

        Raises:
            DeclarationError: It is nothing that bytes can be read from.
            StoreUnavailableError: The spool's temporary file could not be written.
        """
        if isinstance(source, SpoolFile):
            return cls(source.take(), on_disk=source.spool.on_disk)
        if isinstance(source, bytes):
            return cls(source)
        spool = await Spool.fill(source, fingerprint=False)
        return cls(spool.view, on_disk=spool.on_disk)

    def part(self, start: int, end: int) -> Body:
        """Return the bytes from ``start`` up to but not including ``end`` as a body of their own, not copied."""
        return Body(self.view[start:end], on_disk=self.on_disk)

    async def sha256(self) -> str:
        """Return the fingerprint, 64 hexadecimal digits; computed once."""
        if self._digest is None:
            self._digest = await self._compute(lambda view: sha256(view).hexdigest())
        return self._digest

    async def checksum(self, algorithm: Algorithm) -> str:
        """Return a checksum as S3 has it, in base64."""
        return await self._compute(lambda view: checksum(view, algorithm))

    async def _compute(self, function: Callable[[memoryview], str]) -> str:
        if self.on_disk or self.size > _INLINE:
            return await run_io(function, self.view)
        return function(self.view)

    @property
    def is_slice(self) -> bool:
        """Whether it is small enough, and near enough, to be handed to the connection at once."""
        return self.size <= SLICE and not self.on_disk


class Slices:
    """A body slice by slice, for one attempt.

    Args:
        body: The body.
        progress: Called before each slice.

    Attributes:
        all_sent: Whether the last slice was handed over, so that the server may have received the whole.
    """

    __slots__ = ("_body", "_progress", "all_sent")

    def __init__(self, body: Body, progress: Callable[[], object]) -> None:
        self._body = body
        self._progress = progress
        self.all_sent: bool = body.is_slice  # such a body goes with the headers

    async def __aiter__(self) -> AsyncIterator[bytes | memoryview]:
        body = self._body
        for start in range(0, body.size, CHUNK):
            block: bytes | memoryview = body.view[start : start + CHUNK]
            if body.on_disk:
                block = await run_io(bytes, block)
            for at in range(0, len(block), SLICE):
                self._progress()
                self.all_sent = start + at + SLICE >= body.size
                yield block[at : at + SLICE]
