"""What a request is answered with. Pure: what has to be read of a file is said, not read."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from ...._http.conditions import CONDITIONS, Version, range_counts, status_of
from ...._http.messages import Scope
from ...._http.ranges import Range, parse_ranges, parts
from ...._http.tags import matches
from .headers import METHODS, Cors, Headers, file_headers, version_headers
from .names import Shown

__all__ = ["Answer", "Asked", "file_answer", "name_answer", "offloaded", "refusal"]

_WORDS: Final = {
    404: b"There is no such file.\n",
    405: b"Files can only be read.\n",
    412: b"The file is another version.\n",
    416: b"The file has no such bytes.\n",
    503: b"The file cannot be read at the moment.\n",
}
_PREFLIGHT_VARY: Final = (b"vary", b"Origin, Access-Control-Request-Method, Access-Control-Request-Headers")


@dataclass(slots=True)
class Asked:
    """What matters of a request.

    Attributes:
        method: Such as ``GET``.
        conditions: The headers of :data:`~aioimageattach._http.conditions.CONDITIONS` that it has; several of one name
            are joined, as a list may be. What is no list is of no form then, and ignored.
        origin: The origin of the page that asks.
        preflight: Whether a browser asks what that page may ask.
    """

    method: str
    conditions: Mapping[bytes, str]
    origin: bytes | None
    preflight: bool

    @classmethod
    def of(cls, scope: Scope) -> Asked:
        """Look at a scope."""
        conditions: dict[bytes, str] = {}
        origin: bytes | None = None
        preflight = False
        for name, value in scope["headers"]:
            if name in CONDITIONS:
                before = conditions.get(name)
                text = value.decode("latin-1")
                conditions[name] = text if before is None else f"{before}, {text}"
            elif name == b"origin":
                origin = value
            elif name == b"access-control-request-method":
                preflight = True
        return cls(scope["method"], conditions, origin, preflight)


@dataclass(slots=True)
class Answer:
    """A status, headers, and the body in pieces: bytes, and ranges of the file."""

    status: int
    headers: Headers
    pieces: list[bytes | Range] = field(default_factory=list)


def refusal(asked: Asked, status: int, cors: Headers, *more: tuple[bytes, bytes]) -> Answer:
    """Return an answer without a file: a line of text that tells nothing of the server's disk."""
    words = _WORDS[status]
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(words)).encode()),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
        *more,
        *cors,
    ]
    return Answer(status, headers, [] if asked.method == "HEAD" else [words])


def name_answer(asked: Asked, file: Shown | None, cors: Cors) -> Answer | Shown:
    """Return the answer that needs no disk; the file where it has to be looked at.

    A client that has the version of a name that is never given twice is told so, whether the file is still there
    or not.
    """
    to_origin = cors.to(asked.origin)
    if asked.method == "OPTIONS":
        if not asked.preflight:
            return Answer(204, [(b"allow", METHODS), *to_origin])
        headers = [pair for pair in to_origin if pair[0] != b"vary"]
        return Answer(204, [(b"allow", METHODS), *headers, *cors.preflight(asked.origin), _PREFLIGHT_VARY])
    if asked.method not in ("GET", "HEAD"):
        return refusal(asked, 405, to_origin, (b"allow", METHODS))
    if file is None:
        return refusal(asked, 404, to_origin)
    if file.tag is not None and asked.conditions:
        known = asked.conditions.get(b"if-none-match")
        needs_more = b"if-match" in asked.conditions or b"if-unmodified-since" in asked.conditions
        if known is not None and not needs_more and matches(known, file.tag, weak=True):
            return Answer(304, [*version_headers(file, file.tag), *to_origin])
    return file


def offloaded(file: Shown, cors: Headers, header: bytes, place: str) -> Answer:
    """Return an answer that lets the server in front of the application send the file, or say that it is not there."""
    return Answer(200, [(header, f"{place}{file.name}".encode()), *file_headers(file, file.tag, None), *cors])


def file_answer(
    asked: Asked, file: Shown, version: Version, size: int, headers: Headers, whole: Headers, cors: Headers
) -> Answer:
    """Return the answer to GET or HEAD of a file that is there.

    Args:
        asked: The request.
        file: The file.
        version: Which version of it there is.
        size: Of it, in bytes.
        headers: Those of the file, however much is sent of it.
        whole: The same, where all of it is sent.
        cors: Those for the request's origin.
    """
    body = asked.method == "GET"
    if asked.conditions:
        year = time.gmtime().tm_year
        status = status_of(asked.conditions, version, year=year)
        if status == 304:
            return Answer(304, [*version_headers(file, version.tag), *cors])
        if status == 412:
            return refusal(asked, 412, cors)
        wanted = asked.conditions.get(b"range")
        if wanted is not None and body and range_counts(asked.conditions, version, year=year):
            ranges = parse_ranges(wanted, size)
            if ranges is not None:
                return _partial(asked, file, ranges, size, headers, cors)
    return Answer(200, [*whole, *cors], [(0, size)] if body and size else [])


def _partial(asked: Asked, file: Shown, ranges: list[Range], size: int, headers: Headers, cors: Headers) -> Answer:
    if not ranges:
        return refusal(asked, 416, cors, (b"content-range", f"bytes */{size}".encode()))
    if len(ranges) == 1:
        start, end = ranges[0]
        where = (b"content-range", f"bytes {start}-{end - 1}/{size}".encode())
        return Answer(206, [*headers, (b"content-length", str(end - start).encode()), where, *cors], [(start, end)])
    boundary = secrets.token_hex(16)
    pieces = parts(ranges, size, file.mimetype, boundary)
    kind = (b"content-type", f"multipart/byteranges; boundary={boundary}".encode())
    length = (b"content-length", str(_length(pieces)).encode())
    return Answer(206, [kind, *(pair for pair in headers if pair[0] != b"content-type"), length, *cors], pieces)


def _length(pieces: Iterable[bytes | Range]) -> int:
    return sum(len(piece) if isinstance(piece, bytes) else piece[1] - piece[0] for piece in pieces)
