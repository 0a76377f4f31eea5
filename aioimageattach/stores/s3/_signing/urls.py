"""URLs in exactly the form in which they are signed and sent."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final, NamedTuple
from urllib.parse import quote

from ....exc import InvalidKeyError

__all__ = ["MAX_KEY_BYTES", "Target", "quote_key", "quote_query", "split_url"]

MAX_KEY_BYTES: Final = 1024
"""Maximum length of a key in UTF-8, in bytes."""

_ORIGIN: Final = re.compile(r"(?P<scheme>https?)://(?P<netloc>[A-Za-z0-9._~:\[\]-]+)")
_DEFAULT_PORTS: Final = {"http": ":80", "https": ":443"}


@lru_cache(maxsize=256)
def _host(origin: str) -> str | None:
    """Return the host of an origin, with its port unless that is the default; ``None`` if the origin is malformed."""
    found = _ORIGIN.fullmatch(origin)
    return found and found["netloc"].lower().removesuffix(_DEFAULT_PORTS[found["scheme"]])


class Target(NamedTuple):
    """The parts of a URL that a request is sent to and that its signature covers. All of them are percent-encoded."""

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
        url: A URL that consists of ``http://`` or ``https://``, an ASCII host, and optionally a port, a path and a
            query, without a user name or a fragment.

    Raises:
        ValueError: The URL is malformed. The message does not repeat it, because a URL may contain a signature.
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
    """Return a key as part of a URL's path: percent-encoded once, with ``/`` kept and ``%20`` for a space.

    Raises:
        InvalidKeyError: The key is empty, longer than 1,024 bytes in UTF-8, not encodable, or has a segment ``.`` or
            ``..``, which clients and proxies would resolve.
    """
    try:
        encoded = key.encode()
    except UnicodeEncodeError as error:
        raise InvalidKeyError(f"key: expected characters that UTF-8 can encode, got {key!r:.80}") from error
    if not 0 < len(encoded) <= MAX_KEY_BYTES:
        raise InvalidKeyError(f"key: expected 1 to {MAX_KEY_BYTES:,} bytes, got {len(encoded):,}: {key!r:.80}")
    if "." in key and not {".", ".."}.isdisjoint(key.split("/")):
        raise InvalidKeyError(
            f"key: expected segments other than '.' and '..', which URLs cannot contain, got {key!r:.80}"
        )
    return quote(encoded, safe="/~")


def quote_query(params: Mapping[str, str | None] | Sequence[tuple[str, str | None]]) -> str:
    """Return parameters as a query string, in the given order, with ``%20`` for a space and no ``=`` for ``None``.

    ``?uploads`` must be sent without ``=``: servers that verify Signature Version 2 sign ``?uploads=`` as ``?uploads``.
    """
    pairs = params.items() if isinstance(params, Mapping) else params
    return "&".join(
        quote(name, safe="~") if value is None else f"{quote(name, safe='~')}={quote(value, safe='~')}"
        for name, value in pairs
    )
