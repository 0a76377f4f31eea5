"""Headers that a signature covers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
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


def each(headers: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """Return of each header the name as given, the name in lower case, and the value without blanks around it.

    Raises:
        ValueError: A name stands twice or is none, or a value has a control character: nothing may add a line to a
            request. The message names the header alone, since a value may be a secret.
    """
    found = [(name, _lower(name), value.strip(" \t")) for name, value in headers.items()]
    if len({lower for _, lower, _ in found}) < len(found):
        twice, _ = Counter(lower for _, lower, _ in found).most_common(1)[0]
        raise ValueError(f"headers: {twice} stands there twice; join its values by a comma")
    if _FORBIDDEN.search("".join(headers.values())):
        bad = next(_lower(name) for name, value in headers.items() if _FORBIDDEN.search(value))
        raise ValueError(f"headers: the value of {bad} has a control character, or is not encodable as UTF-8")
    return found
