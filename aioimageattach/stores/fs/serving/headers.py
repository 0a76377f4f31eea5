"""The headers of answers: caching, safety, other origins. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, TypeAlias

from ...._http.dates import format_date
from .names import Shown

__all__ = ["METHODS", "Cors", "Headers", "file_headers", "version_headers"]

Header: TypeAlias = tuple[bytes, bytes]
Headers: TypeAlias = list[Header]

METHODS: Final = b"GET, HEAD, OPTIONS"

_FOR_EVER: Final[Header] = (b"cache-control", b"public, max-age=31536000, immutable")
_ASK_AGAIN: Final[Header] = (b"cache-control", b"no-cache")
_SAFE: Final = (
    (b"x-content-type-options", b"nosniff"),
    # Whatever a browser takes it for, it loads nothing, runs nothing and belongs to no origin. The style is for the
    # page that a browser makes around a picture.
    (b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'; sandbox"),
)
_EXPOSED: Final = b"Accept-Ranges, Content-Length, Content-Range, ETag"
_ALLOWED: Final = b"If-Match, If-Modified-Since, If-None-Match, If-Range, If-Unmodified-Since, Range"
_DAY: Final = b"86400"
_ORIGIN: Final = re.compile(r"https?://[a-z0-9.-]+(:[0-9]{1,5})?|https?://\[[0-9a-f:.]+\](:[0-9]{1,5})?|null")


class Cors:
    """Which pages of other origins may read files by script, and show them (Fetch, CORS protocol and CORP).

    Args:
        origins: ``False`` for none: pages of the same site may show files. ``True`` for all, without credentials.
            Otherwise the origins, such as ``"https://shop.example.com"``.
    """

    def __init__(self, origins: bool | Iterable[str]) -> None:
        if isinstance(origins, str):
            raise ValueError(f"cors: expected True, False or a list of origins, got the text {origins!r:.80}")
        listed = () if isinstance(origins, bool) else tuple(origins)
        for origin in listed:
            if not isinstance(origin, str) or not _ORIGIN.fullmatch(origin):
                raise ValueError(
                    f"cors: expected origins such as 'https://shop.example.com', in lower case and with no slash at "
                    f"the end, got {origin!r:.80}"
                )
        self._all = origins is True
        self._listed = frozenset(origin.encode() for origin in listed)
        shared = b"cross-origin" if origins is True or listed else b"same-site"
        self._always: Headers = [(b"cross-origin-resource-policy", shared)]
        if self._all:
            self._always += self._granted(b"*")
        if listed:
            self._always.append((b"vary", b"Origin"))

    @staticmethod
    def _granted(origin: bytes) -> Headers:
        return [(b"access-control-allow-origin", origin), (b"access-control-expose-headers", _EXPOSED)]

    def to(self, origin: bytes | None) -> Headers:
        """Return the headers of any answer to that origin; not to be changed."""
        if origin is None or origin not in self._listed:
            return self._always
        return [*self._always, *self._granted(origin)]

    def preflight(self, origin: bytes | None) -> Headers:
        """Return the headers that let a page ask with these methods and headers; none where it may not."""
        if not self._all and origin not in self._listed:
            return []
        return [
            (b"access-control-allow-methods", METHODS),
            (b"access-control-allow-headers", _ALLOWED),
            (b"access-control-max-age", _DAY),
        ]


def version_headers(file: Shown, tag: str | None) -> Headers:
    """Return the headers that say which version it is and how long it stays that: all that a 304 has to have."""
    headers: Headers = [_FOR_EVER if file.tag else _ASK_AGAIN]
    if tag is not None:
        headers.append((b"etag", tag.encode()))
    return headers


def file_headers(file: Shown, tag: str | None, modified: int | None) -> Headers:
    """Return the headers of a file that do not depend on how much of it is sent."""
    headers = [(b"content-type", file.mimetype.encode()), *version_headers(file, tag), *_SAFE]
    if modified is not None:
        headers += [(b"last-modified", format_date(modified).encode()), (b"accept-ranges", b"bytes")]
    if not file.inline:
        headers.append((b"content-disposition", f'attachment; filename="{file.filename}"'.encode()))
    return headers
