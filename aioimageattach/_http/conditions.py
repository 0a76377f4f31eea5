"""Conditional requests and the entity tags they compare (RFC 9110, sections 8.8.3 and 13)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from .dates import parse_date

__all__ = ["CONDITIONS", "Version", "evaluate", "is_etag", "matches", "range_applies"]

CONDITIONS: Final = frozenset(
    {b"if-match", b"if-modified-since", b"if-none-match", b"if-range", b"if-unmodified-since", b"range"}
)
"""The request headers that can change the response, in the lower case of ASGI scopes."""

_ETAG: Final = re.compile(r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"')
_NEXT_ETAG: Final = re.compile(rf"[ \t,]*({_ETAG.pattern})[ \t]*(?=,|$)")


@dataclass(frozen=True, slots=True)
class Version:
    """The validators of one version of a file.

    Attributes:
        etag: The entity tag, weak or strong.
        modified: The time of the last change, in seconds since 1970.
    """

    etag: str
    modified: int


def is_etag(text: str) -> bool:
    """Return whether a header value is one entity tag, weak or strong."""
    return _ETAG.fullmatch(text) is not None


def matches(header: str, etag: str, *, weak: bool) -> bool:
    """Return whether a list of entity tags contains a tag.

    Args:
        header: The value of ``If-Match`` or ``If-None-Match``, other than ``*``. Parsing stops at the first part that
            is not a tag.
        etag: The tag of the current version, weak or strong.
        weak: ``True`` to use the weak comparison of section 8.8.3.2. In a strong comparison, a weak tag never matches.
    """
    opaque = etag.removeprefix("W/")
    if not weak and opaque != etag:
        return False
    if header == opaque:
        return True
    position = 0
    while found := _NEXT_ETAG.match(header, position):
        candidate = found[1]
        if candidate == opaque or (weak and candidate[2:] == opaque and candidate.startswith("W/")):
            return True
        position = found.end()
    return False


def evaluate(headers: Mapping[bytes, str], version: Version, *, year: int | None = None) -> int:
    """Return the status of a GET or HEAD of a file that exists: 200, 304 or 412 (section 13.2.2).

    Args:
        headers: The request's headers that are in :data:`CONDITIONS`; repeated headers are joined by commas.
        version: The current version of the file.
        year: The current year, for dates with a two-digit year; defaults to that of the system clock.
    """
    if_match = headers.get(b"if-match")
    if if_match is not None:
        if if_match != "*" and not matches(if_match, version.etag, weak=False):
            return 412
    elif (date := _date(headers, b"if-unmodified-since", year)) is not None and version.modified > date:
        return 412
    if_none_match = headers.get(b"if-none-match")
    if if_none_match is not None:
        return 304 if if_none_match == "*" or matches(if_none_match, version.etag, weak=True) else 200
    date = _date(headers, b"if-modified-since", year)
    return 304 if date is not None and version.modified <= date else 200


def range_applies(headers: Mapping[bytes, str], version: Version, *, year: int | None = None) -> bool:
    """Return whether ``If-Range`` permits a partial response: only if the version is the same (section 13.1.5)."""
    if_range = headers.get(b"if-range")
    if if_range is None:
        return True
    if version.etag.startswith("W/"):  # in this case the modification date is not a strong validator either
        return False
    if is_etag(if_range):
        return if_range == version.etag
    return parse_date(if_range, year=year) == version.modified


def _date(headers: Mapping[bytes, str], name: bytes, year: int | None) -> int | None:
    text = headers.get(name)
    return None if text is None else parse_date(text, year=year)
