"""Headers that a signature covers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

__all__ = ["UNSIGNED_HEADERS", "collapsed", "lowered", "stripped"]

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
def lowered(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of a request's headers in lower case.

    Raises:
        ValueError: One stands twice, or is none.
    """
    for name in names:
        if not _NAME.fullmatch(name):
            raise ValueError(f"headers: {name!r:.80} is no name of a header")
    found = tuple(name.lower() for name in names)
    if len(set(found)) < len(found):
        twice, _ = Counter(found).most_common(1)[0]
        raise ValueError(f"headers: {twice} stands there twice; join its values by a comma")
    return found


def stripped(headers: Mapping[str, str]) -> list[str]:
    """Return the values of headers without blanks around them.

    Raises:
        ValueError: One has a control character: nothing may add a line to a request. The message names the header
            alone, since a value may be a secret.
    """
    values = list(headers.values())
    text = f"|{'|'.join(values)}|"
    if text.isprintable() and "| " not in text and " |" not in text:
        return values
    for name, value in headers.items():
        if _FORBIDDEN.search(value):
            raise ValueError(
                f"headers: the value of {name.lower()} has a control character, or is not encodable as UTF-8"
            )
    return [value.strip(" \t") for value in values]


def collapsed(headers: Mapping[str, str]) -> list[str]:
    """Return the values of headers without blanks around them, and each run of blanks in them as one space.

    Raises:
        ValueError: One has a control character.
    """
    values = list(headers.values())
    text = f"|{'|'.join(values)}|"
    # One look at all of them together: nearly all requests have nothing to change.
    if text.isprintable() and "  " not in text and "| " not in text and " |" not in text:
        return values
    return [_BLANKS.sub(" ", value) for value in stripped(headers)]
