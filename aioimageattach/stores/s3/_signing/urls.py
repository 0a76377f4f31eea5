"""URLs as they stand on the wire: whatever is signed here is sent exactly so."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final, NamedTuple
from urllib.parse import quote

from ....exc import InvalidKeyError

__all__ = ["MAX_KEY_BYTES", "Target", "quote_key", "quote_query", "split_url"]

MAX_KEY_BYTES: Final = 1024
"""How long a key may be in UTF-8."""

_ORIGIN: Final = re.compile(r"(?P<scheme>https?)://(?P<netloc>[A-Za-z0-9._~:\[\]-]+)")
_DEFAULT_PORTS: Final = {"http": ":80", "https": ":443"}


@lru_cache(maxsize=256)
def _host(origin: str) -> str | None:
    """Return the host of a scheme and an authority, with its port unless that is the usual one."""
    found = _ORIGIN.fullmatch(origin)
    return found and found["netloc"].lower().removesuffix(_DEFAULT_PORTS[found["scheme"]])


class Target(NamedTuple):
    """The parts of a URL: where it is sent, and what a signature covers. All of them are percent-encoded."""

    origin: str
    host: str
    path: str
    query: str = ""

    @property
    def url(self) -> str:
        """The whole URL."""
        url = self.origin + self.path
        return f"{url}?{self.query}" if self.query else url


def split_url(url: str) -> Target:
    """Split a URL that is already percent-encoded; no part of it is decoded, encoded or normalised.

    Args:
        url: ``http://`` or ``https://``, a host in ASCII, perhaps a port, a path, a query: no user, no fragment.

    Raises:
        ValueError: It is not such a URL. The message does not repeat it, since a URL may hold a signature.
    """
    whole, _, query = url.partition("?")
    origin, _, path = whole[8:].partition("/")
    origin = whole[:8] + origin
    host = _host(origin)
    if host is None or "#" in url or " " in url or not (url.isascii() and url.isprintable()):
        raise ValueError("url: expected http(s)://host/path?query, percent-encoded, without a user and a fragment")
    return Target(origin, host, f"/{path}", query)


@lru_cache(maxsize=256)
def quote_key(key: str) -> str:
    """Return a key as it stands in a URL's path: encoded once, ``/`` kept, ``%20`` for a space.

    Raises:
        InvalidKeyError: It is empty, longer than 1,024 bytes in UTF-8, not encodable, or has a segment ``.`` or ``..``,
            which clients and proxies on the way would resolve.
    """
    try:
        encoded = key.encode()
    except UnicodeEncodeError as error:
        raise InvalidKeyError(f"key {key!r:.80}: it is not encodable as UTF-8") from error
    if not 0 < len(encoded) <= MAX_KEY_BYTES:
        raise InvalidKeyError(f"key {key!r:.80}: expected 1 to {MAX_KEY_BYTES:,} bytes, got {len(encoded):,}")
    if "." in key and not {".", ".."}.isdisjoint(key.split("/")):
        raise InvalidKeyError(f"key {key!r:.80}: a segment is '.' or '..', which no URL can carry safely")
    return quote(encoded, safe="/~")


def quote_query(params: Mapping[str, str | None] | Sequence[tuple[str, str | None]]) -> str:
    """Return parameters as a query string, in the order given: ``%20`` for a space, a name alone for ``None``.

    ``?uploads`` is to stand alone: servers that check Version 2 of signatures sign ``?uploads=`` as if it were that.
    """
    pairs = params.items() if isinstance(params, Mapping) else params
    return "&".join(
        quote(name, safe="~") if value is None else f"{quote(name, safe='~')}={quote(value, safe='~')}"
        for name, value in pairs
    )
