"""The response to a request: the status, the headers, and the bytes of the file to send. Does no I/O."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias
from urllib.parse import quote

from ...._http.asgi import Scope
from ...._http.conditions import CONDITIONS, Version, evaluate, range_applies
from ...._http.dates import format_date
from ...._http.ranges import Range, multipart_body, parse_ranges
from .names import ServableFile

__all__ = [
    "Cors",
    "FileInfo",
    "Headers",
    "RequestInfo",
    "Response",
    "error_response",
    "file_response",
    "make_private",
    "offloaded_response",
    "options_response",
]

Header: TypeAlias = tuple[bytes, bytes]
Headers: TypeAlias = list[Header]

_METHODS: Final = b"GET, HEAD, OPTIONS"
_ERRORS: Final = {
    403: b"The URL has expired, or it is not complete.\n",
    404: b"There is no such file.\n",
    405: b"Files can only be read.\n",
    412: b"The file has another version.\n",
    416: b"The file has no such bytes.\n",
    503: b"The file cannot be read at the moment.\n",
}
_IMMUTABLE: Final[Header] = (b"cache-control", b"public, max-age=31536000, immutable")
_REVALIDATE: Final[Header] = (b"cache-control", b"no-cache")
_NOSNIFF: Final[Header] = (b"x-content-type-options", b"nosniff")
# Even if a browser misinterprets the type of the file, the file cannot load resources, run scripts or access an origin.
# Browsers need inline styles for the page that they generate around an image.
_SANDBOX: Final[Header] = (b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'; sandbox")
_EXPOSED_HEADERS: Final = b"Accept-Ranges, Content-Length, Content-Range, ETag"
_ALLOWED_HEADERS: Final = b"If-Match, If-Modified-Since, If-None-Match, If-Range, If-Unmodified-Since, Range"
_PREFLIGHT_VARY: Final[Header] = (
    b"vary",
    b"Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
)
_PREFLIGHT_MAX_AGE: Final = b"86400"
_ORIGIN: Final = re.compile(r"https?://[a-z0-9.-]+(:[0-9]{1,5})?|https?://\[[0-9a-f:.]+\](:[0-9]{1,5})?|null")
_RELEVANT: Final = CONDITIONS | {b"origin", b"access-control-request-method"}
_FRONT_SERVER_CONDITIONS: Final = frozenset({b"if-modified-since", b"if-unmodified-since", b"range"})


@dataclass(slots=True)
class RequestInfo:
    """The parts of a request that the response depends on.

    Attributes:
        method: The HTTP method, such as ``GET``.
        conditions: The request's headers that are in :data:`~aioimageattach._http.conditions.CONDITIONS`. Repeated
            headers are joined by commas, which makes a header that must not be a list malformed, so it is ignored.
        origin: The origin of the page that sends the request.
        preflight: ``True`` if this is a CORS preflight.
        query: The query string.
        cors: The headers of every response to the origin.
    """

    method: str
    conditions: Mapping[bytes, str]
    origin: bytes | None
    preflight: bool
    query: bytes
    cors: Headers

    @classmethod
    def from_scope(cls, scope: Scope, cors: Cors) -> RequestInfo:
        """Create the description of a request from an HTTP scope."""
        conditions: dict[bytes, str] = {}
        origin: bytes | None = None
        preflight = False
        for name, value in scope["headers"]:
            if name not in _RELEVANT:
                continue
            if name == b"origin":
                origin = value
            elif name == b"access-control-request-method":
                preflight = True
            else:
                earlier = conditions.get(name)
                text = value.decode("latin-1")
                conditions[name] = text if earlier is None else f"{earlier}, {text}"
        query = scope.get("query_string", b"")
        return cls(scope["method"], conditions, origin, preflight, query, cors.headers_for(origin))

    def needs_etag(self) -> bool:
        """Return whether the response depends on the entity tag, which a front-end server does not know."""
        return not _FRONT_SERVER_CONDITIONS.issuperset(self.conditions)


@dataclass(slots=True)
class Response:
    """A response whose body is a sequence of bytes and ranges of a file."""

    status: int
    headers: Headers
    body: list[bytes | Range] = field(default_factory=list)


class FileInfo:
    """The validators and headers of a file that exists.

    Args:
        file: The file.
        size: The size of the file, in bytes.
        etag: The entity tag to use for a file without a revision.
        modified: The time of the last change, in seconds since 1970.
    """

    __slots__ = ("headers", "mimetype", "size", "unchanged_headers", "version", "whole_headers")

    def __init__(self, file: ServableFile, size: int, etag: str, modified: int) -> None:
        self.size: int = size
        self.mimetype: str = file.mimetype
        self.version: Version = Version(file.etag or etag, modified)
        self.headers: Headers = [
            *_file_headers(file, self.version.etag),
            (b"last-modified", format_date(modified).encode()),
            (b"accept-ranges", b"bytes"),
        ]
        self.whole_headers: Headers = [*self.headers, (b"content-length", str(size).encode())]
        # Only the headers that a cache needs to update its entry (RFC 9110, section 15.4.5).
        self.unchanged_headers: Headers = [
            header for header in self.headers if header[0] in (b"cache-control", b"etag")
        ]


class Cors:
    """The origins whose pages may display files and read them by script (Fetch Standard: CORS protocol and CORP).

    Args:
        origins: ``False`` for none, so that only pages of the same site may display files; ``True`` for all, without
            credentials; or a list of origins such as ``"https://shop.example.com"``.
    """

    def __init__(self, origins: bool | Iterable[str]) -> None:
        if isinstance(origins, str):
            raise ValueError(f"cors: expected True, False or a list of origins, got the str {origins!r:.80}")
        listed = () if isinstance(origins, bool) else tuple(origins)
        for origin in listed:
            if not isinstance(origin, str) or not _ORIGIN.fullmatch(origin):
                raise ValueError(
                    f"cors: expected origins such as 'https://shop.example.com', in lower case and without a slash at "
                    f"the end, got {origin!r:.80}"
                )
        self._all = origins is True
        self._listed = frozenset(origin.encode() for origin in listed)
        policy = b"cross-origin" if origins is True or listed else b"same-site"
        self._always: Headers = [(b"cross-origin-resource-policy", policy)]
        if self._all:
            self._always += self._grant(b"*")
        if listed:
            self._always.append((b"vary", b"Origin"))

    @staticmethod
    def _grant(origin: bytes) -> Headers:
        return [(b"access-control-allow-origin", origin), (b"access-control-expose-headers", _EXPOSED_HEADERS)]

    def headers_for(self, origin: bytes | None) -> Headers:
        """Return the headers of every response to an origin. The caller must not modify the list."""
        if origin is None or origin not in self._listed:
            return self._always
        return [*self._always, *self._grant(origin)]

    def preflight_headers(self, origin: bytes | None) -> Headers:
        """Return the headers that permit a page to send requests; empty if its origin is not allowed."""
        if not self._all and origin not in self._listed:
            return []
        return [
            (b"access-control-allow-methods", _METHODS),
            (b"access-control-allow-headers", _ALLOWED_HEADERS),
            (b"access-control-max-age", _PREFLIGHT_MAX_AGE),
        ]


def error_response(request: RequestInfo, status: int, *more: Header) -> Response:
    """Return an error response with one line of text, which reveals nothing about the server's disk."""
    text = _ERRORS[status]
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(text)).encode()),
        (b"cache-control", b"no-store"),
        _NOSNIFF,
        *more,
        *request.cors,
    ]
    if status == 405:
        headers.append((b"allow", _METHODS))
    return Response(status, headers, [] if request.method == "HEAD" else [text])


def options_response(request: RequestInfo, cors: Cors) -> Response:
    """Return the response to an OPTIONS request, including CORS preflights."""
    if not request.preflight:
        return Response(204, [(b"allow", _METHODS), *request.cors])
    without_vary = [header for header in request.cors if header[0] != b"vary"]
    granted = cors.preflight_headers(request.origin)
    return Response(204, [(b"allow", _METHODS), *without_vary, *granted, _PREFLIGHT_VARY])


def offloaded_response(request: RequestInfo, file: ServableFile, header: bytes, location: str) -> Response:
    """Return a response that makes the front-end server send the file, or a 404 if the file does not exist."""
    sent = (header, f"{location}{quote(file.name)}".encode())
    return Response(200, [sent, *_file_headers(file, file.etag), *request.cors])


def file_response(request: RequestInfo, info: FileInfo) -> Response:
    """Return the response to a GET or HEAD request for a file that exists."""
    body = request.method == "GET"
    if request.conditions:
        status = evaluate(request.conditions, info.version)
        if status == 304:
            return Response(304, info.unchanged_headers + request.cors)
        if status == 412:
            return error_response(request, 412)
        header = request.conditions.get(b"range")
        if header is not None and body and range_applies(request.conditions, info.version):
            ranges = parse_ranges(header, info.size)
            if ranges is not None:
                return _partial_response(request, info, ranges)
    return Response(200, info.whole_headers + request.cors, [(0, info.size)] if body and info.size else [])


def make_private(response: Response, seconds: int, content_disposition: bytes | None) -> None:
    """Allow only the browser to cache a response, and only while its URL is valid.

    Args:
        response: The response, which is modified in place; errors are left unchanged.
        seconds: The remaining lifetime of the URL, in seconds.
        content_disposition: The ``Content-Disposition`` of a download, which replaces that of the file.
    """
    if response.status >= 400:
        return
    private = f"private, max-age={seconds}" if _IMMUTABLE in response.headers else "private, no-cache"
    headers = [header for header in response.headers if header[0] != b"cache-control"]
    headers.append((b"cache-control", private.encode()))
    if content_disposition is not None and response.status != 304:
        headers = [header for header in headers if header[0] != b"content-disposition"]
        headers.append((b"content-disposition", content_disposition))
    response.headers = headers


def _file_headers(file: ServableFile, etag: str | None) -> Headers:
    """Return the headers that depend only on the name and the entity tag."""
    headers = [(b"content-type", file.mimetype.encode()), _IMMUTABLE if file.etag else _REVALIDATE, _NOSNIFF, _SANDBOX]
    if etag is not None:
        headers.append((b"etag", etag.encode()))
    if (disposition := file.content_disposition) is not None:
        headers.append((b"content-disposition", disposition))
    return headers


def _partial_response(request: RequestInfo, info: FileInfo, ranges: list[Range]) -> Response:
    if not ranges:
        return error_response(request, 416, (b"content-range", f"bytes */{info.size}".encode()))
    if len(ranges) == 1:
        start, end = ranges[0]
        content_range = (b"content-range", f"bytes {start}-{end - 1}/{info.size}".encode())
        length = (b"content-length", str(end - start).encode())
        return Response(206, [*info.headers, length, content_range, *request.cors], [(start, end)])
    boundary = secrets.token_hex(16)
    body = multipart_body(ranges, info.size, info.mimetype, boundary)
    content_type = (b"content-type", f"multipart/byteranges; boundary={boundary}".encode())
    length = (b"content-length", str(_length(body)).encode())
    headers = [header for header in info.headers if header[0] != b"content-type"]
    return Response(206, [content_type, *headers, length, *request.cors], body)


def _length(body: Iterable[bytes | Range]) -> int:
    return sum(len(part) if isinstance(part, bytes) else part[1] - part[0] for part in body)
