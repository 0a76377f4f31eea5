"""The headers that a signature covers."""

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
"""Headers that proxies, gateways and tracing tools may change, so they are not signed."""

_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FORBIDDEN: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")
_BLANKS: Final = re.compile(r"[ \t]+")


@lru_cache(maxsize=256)
def lowered(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of a request's headers in lower case.

    Raises:
        ValueError: A name is repeated or invalid.
    """
    for name in names:
        if not _NAME.fullmatch(name):
            raise ValueError(f"headers: expected the name of a header, got {name!r:.80}")
    found = tuple(name.lower() for name in names)
    if len(set(found)) < len(found):
        repeated, _ = Counter(found).most_common(1)[0]
        raise ValueError(f"headers: expected each name once, got {repeated} again; join its values with commas")
    return found


def stripped(headers: Mapping[str, str]) -> list[str]:
    """Return the values of headers without leading and trailing blanks.

    Raises:
        ValueError: A value contains a control character, which could inject a line into the request, or cannot be
            encoded. The message contains only the name of the header, because the value may be a secret.
    """
    values = list(headers.values())
    text = f"|{'|'.join(values)}|"
    if text.isprintable() and "| " not in text and " |" not in text:
        return values
    for name, value in headers.items():
        if _FORBIDDEN.search(value):
            raise ValueError(
                f"headers: expected no control character in the value of {name.lower()}, and only characters that "
                "UTF-8 can encode"
            )
    return [value.strip(" \t") for value in values]


def collapsed(headers: Mapping[str, str]) -> list[str]:
    """Return the values of headers without leading and trailing blanks, and with each run of blanks as one space.

    Raises:
        ValueError: A value contains a control character.
    """
    values = list(headers.values())
    text = f"|{'|'.join(values)}|"
    # Check all values in one pass, because nearly all requests need no change.
    if text.isprintable() and "  " not in text and "| " not in text and " |" not in text:
        return values
    return [_BLANKS.sub(" ", value) for value in stripped(headers)]
