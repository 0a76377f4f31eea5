"""Open objects: they are read as they arrive, and go on where they broke off."""

from __future__ import annotations

import base64
import io
from typing import Final

import aiohttp

from ...exc import StoreError, StoreFileExistsError, StoreUnavailableError
from ...file import CHUNK, FileProxy
from .chunked import Algorithm, Hash, new_hash
from .objects import ObjectHead, read_etag, read_head, read_size
from .sender import Progress, Request, Sender
from .transport import BREAKS

__all__ = ["ObjectFile", "open_object", "range_header"]

_RANGE: Final = "Range"
_PARTIAL: Final = frozenset({206})
_SMALL: Final = 4 * 1024 * 1024  # below, clearing memory costs more than holding the bytes twice for a moment


def range_header(start: int, end: int | None) -> dict[str, str]:
    """Return the header that asks for the bytes from ``start`` up to but not including ``end``; none for all."""
    if start == 0 and end is None:
        return {}
    return {_RANGE: f"bytes={start}-{'' if end is None else end - 1}"}


class _Stream:
    """The bytes of an answer, and of those after it where it breaks off."""

    def __init__(
        self, sender: Sender, request: Request, response: aiohttp.ClientResponse, start: int, size: int
    ) -> None:
        self._sender = sender
        self._request = request
        self._response = response
        self._headers = response.headers
        self._start = start
        self._position = 0
        self.size: int = size
        self._breaks = 0
        self._expected = ""
        self._hash: Hash | None = None

    def verify(self, algorithm: Algorithm) -> None:
        """Compare the bytes with the checksum that the server gave, if it is one of the whole."""
        expected = self._headers.get(f"x-amz-checksum-{algorithm}", "")
        if expected and "-" not in expected and self._headers.get("x-amz-checksum-type") != "COMPOSITE":
            self._expected, self._hash = expected, new_hash(algorithm)

    @property
    def left(self) -> int:
        """How many bytes have not been read yet."""
        return self.size - self._position

    @property
    def head(self) -> ObjectHead:
        """What the first answer says of the object."""
        return read_head(self._headers)

    async def read(self, size: int = CHUNK, /) -> bytes:
        """Return up to ``size`` bytes; ``b""`` at the end."""
        while self._position < self.size:
            try:
                # What is there already needs no timeout, which costs more than the rest of this.
                piece = self._response.content.read_nowait(size) or await self._wait(size)
            except BREAKS as error:
                await self._resume(error)
                continue
            self._breaks = 0
            self._position += len(piece)
            if self._hash is not None:
                self._hash.update(piece)
                self._compare()
            return piece
        return b""

    async def _wait(self, size: int) -> bytes:
        lane = self._sender.transport.lane()
        with lane.limit(lane.loop.time() + self._sender.read_timeout):
            piece = await self._response.content.read(size)
        if not piece:
            raise aiohttp.ClientPayloadError("the answer ended too early")
        return piece

    def _compare(self) -> None:
        assert self._hash is not None
        if self._position == self.size and base64.b64encode(self._hash.digest()).decode() != self._expected:
            raise StoreError(
                f"{self._request.what} {self._request.name!r}: the bytes that arrived are not those that were put: "
                "their checksums differ",
                store=self._sender.label,
                name=self._request.name,
            )

    async def _resume(self, cause: Exception) -> None:
        self._response.close()
        self._breaks += 1
        name = self._request.name
        if self._breaks > self._sender.policy.max_retry:
            raise StoreUnavailableError(
                f"{self._request.what} {name!r}: it broke off {self._breaks} times after {self._position:,} of "
                f"{self.size:,} bytes",
                store=self._sender.label,
                name=name,
                attempts=self._breaks,
            ) from cause
        start = self._start + self._position
        headers = {**self._request.headers, **range_header(start, self._start + self.size)}
        if etag := read_etag(self._headers):
            headers["If-Match"] = f'"{etag}"'
        request = self._request._replace(headers=headers, accepted=_PARTIAL)
        try:
            response, size = await self._sender.send(request, _receive)
        except StoreFileExistsError as error:
            raise StoreError(
                f"{self._request.what} {name!r}: it was replaced while it was read",
                store=self._sender.label,
                name=name,
                status=error.status,
                code=error.code,
            ) from error
        _check_range(self._sender, request, response, size, start, self._start + self.size)
        self._response = response

    async def aclose(self) -> None:
        """Let go of the connection; what was not read to its end takes it along."""
        self._response.close()


class ObjectFile(FileProxy):
    """An async file of an object, or of a range of it.

    Args:
        source: Its bytes; where there are none, what the server says of it.

    Attributes:
        size: How many bytes it has.
    """

    def __init__(self, source: _Stream | ObjectHead) -> None:
        if isinstance(source, ObjectHead):
            super().__init__(b"")
            self._stream = None
        else:
            super().__init__(source, read=source.read, close=source.aclose)
            self._stream = source
        self._source = source
        self.size: int = source.size

    @property
    def head(self) -> ObjectHead:
        """What the server says of it; its ``size`` is that of the range.

        Raises:
            StoreUnavailableError: The server has left out when it was put.
        """
        return self._source if isinstance(self._source, ObjectHead) else self._source.head

    async def read(self, size: int = -1, /) -> bytes:
        """Return up to ``size`` bytes, all that is left where it is negative; ``b""`` at the end.

        Raises:
            ValueError: The file is closed.
        """
        if size >= 0 or self._stream is None or self._stream.left <= _SMALL:
            return await super().read(size)
        self._check_open()
        ahead = self._take(len(self._ahead))
        # As large as it will be from the start: what comes is copied once, and the whole is never held twice.
        whole = io.BytesIO(bytes(len(ahead) + self._stream.left))
        whole.write(ahead)
        try:
            while piece := await self._read(CHUNK):
                whole.write(piece)
        except BaseException:
            self._keep([whole.getbuffer()[: whole.tell()].tobytes()])
            raise
        return whole.getvalue()


async def _receive(response: aiohttp.ClientResponse, progress: Progress) -> tuple[aiohttp.ClientResponse, int]:
    """Take an answer whose length is known: one of unknown length may be cut off, and nobody would see it."""
    return response, read_size(response.headers)


def _check_range(
    sender: Sender, request: Request, response: aiohttp.ClientResponse, size: int, start: int, end: int | None
) -> None:
    """Refuse the bytes of another range than the one that was asked for: some servers read ranges wrongly."""
    given = response.headers.get("Content-Range", "")
    if given.startswith(f"bytes {start}-") and (end is None or size <= end - start):
        return
    response.close()
    raise StoreError(
        f"{request.what} {request.name!r}: the server answered with another range than bytes {start}-"
        f"{'' if end is None else end - 1}: {given[:80]!r}",
        store=sender.label,
        name=request.name,
    )


async def open_object(
    sender: Sender, request: Request, *, start: int, end: int | None, checksum: Algorithm | None
) -> ObjectFile:
    """Ask for an object and return it open; the caller closes it.

    Args:
        sender: What asks.
        request: The question, without a range.
        start: In bytes.
        end: In bytes, not included; ``None`` means the end.
        checksum: Which checksum to compare, if the server keeps one.

    Raises:
        StoreError: It cannot be had.
    """
    asked = request
    compared = None
    if wanted := range_header(start, end):
        asked = request._replace(headers={**request.headers, **wanted}, accepted=_PARTIAL)
    elif compared := checksum:
        asked = request._replace(headers={**request.headers, "x-amz-checksum-mode": "ENABLED"})
    response, size = await sender.send(asked, _receive)
    if wanted:
        _check_range(sender, request, response, size, start, end)
    stream = _Stream(sender, request, response, start, size)
    if compared is not None:
        stream.verify(compared)
    return ObjectFile(stream)
