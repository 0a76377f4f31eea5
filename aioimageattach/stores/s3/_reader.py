"""Open objects, which stream their content and resume if the connection breaks."""

from __future__ import annotations

import base64
import io
import re
from math import inf
from typing import Final, NamedTuple

import aiohttp

from ...exc import StoreError, StoreFileExistsError, StoreUnavailableError
from ...file import FileProxy
from ...file._source import CHUNK
from ._http.chunked import Algorithm, Hash, new_hash
from ._http.sender import Progress, Request, Sender
from ._http.transport import BREAKS
from ._http.watchdog import Limit
from ._objects import ObjectHead, read_etag, read_head, read_size

__all__ = ["ObjectFile", "open_object", "range_header"]

_RANGE: Final = "Range"
_CONTENT_RANGE: Final = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/", re.ASCII)
_PARTIAL: Final = frozenset({200, 206})
_SMALL: Final = 4 * 1024 * 1024  # below this, clearing memory costs more than briefly holding the bytes twice


def range_header(start: int, end: int | None) -> dict[str, str]:
    """Return the ``Range`` header for the bytes from ``start`` up to but not including ``end``, or up to the end."""
    return {_RANGE: f"bytes={start}-{'' if end is None else end - 1}"}


class _Opened(NamedTuple):
    """A response whose length is known.

    Args:
        response: The response, whose headers have arrived.
        skip: The number of bytes that precede the requested ones.
        size: The number of requested bytes.
    """

    response: aiohttp.ClientResponse
    skip: int
    size: int


class _Stream:
    """The bytes of a response, and of the responses that resume it if the connection breaks."""

    def __init__(self, sender: Sender, request: Request, opened: _Opened, start: int) -> None:
        self._sender = sender
        self._request = request
        self._response = opened.response
        self._headers = opened.response.headers
        self._start = start
        self._skip = opened.skip
        self._position = 0
        self.size: int = opened.size
        self._breaks = 0
        self._expected = ""
        self._hash: Hash | None = None

    def verify(self, algorithm: Algorithm) -> None:
        """Verify the bytes against the checksum in the headers, if it covers the whole object."""
        expected = self._headers.get(f"x-amz-checksum-{algorithm}", "")
        if expected and "-" not in expected and self._headers.get("x-amz-checksum-type") != "COMPOSITE":
            self._expected, self._hash = expected, new_hash(algorithm)

    @property
    def left(self) -> int:
        """The number of bytes that have not been read yet."""
        return self.size - self._position

    @property
    def head(self) -> ObjectHead:
        """The description of the object in the first response."""
        return read_head(self._headers)

    async def read(self, size: int = CHUNK, /) -> bytes:
        """Return up to ``size`` bytes; ``b""`` at the end."""
        while self._position < self.size:
            try:
                while self._skip:
                    self._skip -= len(await self._wait(min(self._skip, CHUNK)))
                wanted = min(size, self.size - self._position)
                # Bytes that have already arrived need no timeout, which would cost more than reading them.
                piece = self._response.content.read_nowait(wanted) or await self._wait(wanted)
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
        state = self._sender.transport.loop_state()
        with Limit(state.watchdog, inf, self._sender.read_timeout):
            piece = await self._response.content.read(size)
        if not piece:
            raise aiohttp.ClientPayloadError("the response ended early")
        return piece

    def _compare(self) -> None:
        assert self._hash is not None
        if self._position == self.size and base64.b64encode(self._hash.digest()).decode() != self._expected:
            raise StoreError(
                f"{self._request}: the content does not match the checksum of the object",
                store=self._sender.label,
                name=self._request.name,
            )

    async def _resume(self, cause: Exception) -> None:
        self._response.close()
        self._breaks += 1
        if self._breaks > self._sender.policy.max_retry:
            raise StoreUnavailableError(
                f"{self._request}: the response was interrupted {self._breaks} times, last after {self._position:,} of "
                f"{self.size:,} bytes",
                store=self._sender.label,
                name=self._request.name,
                attempts=self._breaks,
            ) from cause
        start = self._start + self._position
        headers = {**self._request.headers, **range_header(start, self._start + self.size)}
        if etag := read_etag(self._headers):
            headers["If-Match"] = f'"{etag}"'
        request = self._request._replace(headers=headers)
        try:
            opened = await _open_range(self._sender, request, start, self._start + self.size)
        except StoreFileExistsError as error:
            raise self._replaced() from error
        found = read_etag(opened.response.headers)
        if etag and found and found != etag:  # some servers ignore If-Match
            opened.response.close()
            raise self._replaced()
        self._response, self._skip = opened.response, opened.skip

    def _replaced(self) -> StoreError:
        return StoreError(
            f"{self._request}: the object was replaced while it was read",
            store=self._sender.label,
            name=self._request.name,
        )

    async def aclose(self) -> None:
        """Release the connection; close it if the response was not read to its end."""
        if not self._response.closed:
            self._response.close()


class ObjectFile(FileProxy):
    """An asynchronous file with the content of an object, or of a range of it.

    Args:
        source: The stream to read from, or only the object's description if there are no bytes to read.

    Attributes:
        size: The size of the file, in bytes.
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
        """The description of the object; its ``size`` is that of the range.

        Raises:
            StoreUnavailableError: The server did not send a required header, such as the modification time.
        """
        return self._source if isinstance(self._source, ObjectHead) else self._source.head

    async def read(self, size: int = -1, /) -> bytes:
        """Return up to ``size`` bytes, or all remaining bytes if ``size`` is negative; ``b""`` at the end.

        Raises:
            ValueError: The file is closed.
        """
        stream = self._stream
        if size >= 0 or stream is None:
            return await super().read(size)
        self._check_open()
        if stream.left <= _SMALL:
            if not self._ahead:
                self._keep([await stream.read()])
                if not stream.left:  # small objects usually arrive in one piece
                    return self._take(len(self._ahead))
            return await super().read(size)
        ahead = self._take(len(self._ahead))
        # Allocate the full size, so that each piece is copied once and the content is never held twice.
        whole = io.BytesIO(bytes(len(ahead) + stream.left))
        whole.write(ahead)
        try:
            while piece := await self._read(CHUNK):
                whole.write(piece)
        except BaseException:
            self._keep([whole.getbuffer()[: whole.tell()].tobytes()])
            raise
        return whole.getvalue()


async def _receive(response: aiohttp.ClientResponse, progress: Progress) -> _Opened:
    """Accept a response whose length is known; without a length, truncation could not be detected."""
    return _Opened(response, 0, read_size(response.headers))


async def _open_range(sender: Sender, request: Request, start: int, end: int | None) -> _Opened:
    """Request a range; locate it in the response if the server sends more, such as the whole object.

    Raises:
        StoreError: The response contains a different range.
    """
    headers = {**request.headers, **range_header(start, end)}
    response, _, size = await sender.send(request._replace(headers=headers, accepted=_PARTIAL), _receive)
    given = response.headers.get("Content-Range", "")
    found = _CONTENT_RANGE.match(given)
    first, after = (int(found[1]), int(found[2]) + 1) if found else (0, size)
    is_whole = response.status == 200 and not given
    if is_whole or (found and first <= start < after and size == after - first):
        last = after if end is None else min(end, after)
        return _Opened(response, min(start, after) - first, max(0, last - start))
    response.close()
    raise StoreError(
        f"{request}: expected the range {start}-{'' if end is None else end - 1}, got {given[:80]!r}",
        store=sender.label,
        name=request.name,
    )


async def open_object(
    sender: Sender, request: Request, *, start: int, end: int | None, checksum: Algorithm | None
) -> ObjectFile:
    """Request an object and return it as an open file, which the caller closes.

    Args:
        sender: Sends the requests.
        request: The request without a range.
        start: Offset of the first byte.
        end: Offset just past the last byte; ``None`` means the end of the object.
        checksum: The algorithm of the checksum to verify, if the server keeps one.

    Raises:
        StoreError: The object cannot be read.
    """
    if start or end is not None:
        return ObjectFile(_Stream(sender, request, await _open_range(sender, request, start, end), start))
    asked = request
    if checksum is not None:
        asked = request._replace(headers={**request.headers, "x-amz-checksum-mode": "ENABLED"})
    stream = _Stream(sender, request, await sender.send(asked, _receive), start)
    if checksum is not None:
        stream.verify(checksum)
    return ObjectFile(stream)
