"""Headers that a signature covers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Final

__all__ = ["UNSIGNED_HEADERS", "collapse", "each"]

UNSIGNED_HEADERS: Final = frozenset(
    {
        "accept-encoding",
        "authorization",
        "baggage",
        "connection",
        "expect",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "traceparent",
        "tracestate",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "user-agent",
        "x-amzn-trace-id",
    }
)
"""What proxies, gateways and tracers on the way may change."""

_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FORBIDDEN: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")
_BLANKS: Final = re.compile(r"[ \t]+")


@lru_cache(maxsize=256)
def _lower(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"headers: {name!r:.80} is no name of a header")
    return name.lower()


def collapse(value: str) -> str:
    """Return the value with each run of blanks as one space."""
    return _BLANKS.sub(" ", value) if "  " in value or "\t" in value else value


def each(headers: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """Iterate over the headers: the name as given, the name in lower case, the value without blanks around it.

    Raises:
        ValueError: A name stands twice or is none, or a value has a control character: nothing may add a line to a
            request. The message names the header alone, since a value may be a secret.
    """
    seen: set[str] = set()
    for name, value in headers.items():
        lower = _lower(name)
        if lower in seen:
            raise ValueError(f"headers: {lower} stands there twice; join its values by a comma")
        seen.add(lower)
        if _FORBIDDEN.search(value):
            raise ValueError(f"headers: the value of {lower} has a control character, or is not encodable as UTF-8")
        yield name, lower, value.strip(" \t")
