"""Conditional requests (RFC 9110, 13)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from .dates import parse_date
from .tags import is_tag, matches

__all__ = ["CONDITIONS", "Version", "range_counts", "status_of"]

CONDITIONS: Final = frozenset(
    {b"if-match", b"if-modified-since", b"if-none-match", b"if-range", b"if-unmodified-since", b"range"}
)
"""The headers that may change what a request is answered with, as they are keys of the mappings here."""


@dataclass(frozen=True, slots=True)
class Version:
    """What tells one version of a file from another.

    Attributes:
        tag: The entity tag, weak or strong.
        modified: When it was changed last, in seconds since 1970.
    """

    tag: str
    modified: int


def status_of(headers: Mapping[bytes, str], version: Version, *, year: int) -> int:
    """Return what a GET or HEAD is answered with: 200, 304 or 412 (13.2.2).

    Args:
        headers: The request's, of :data:`CONDITIONS`; several of one name joined by commas.
        version: The present one.
        year: The present one.
    """
    wanted = headers.get(b"if-match")
    if wanted is not None:
        if wanted != "*" and not matches(wanted, version.tag, weak=False):
            return 412
    elif (date := _date(headers, b"if-unmodified-since", year)) is not None and version.modified > date:
        return 412
    known = headers.get(b"if-none-match")
    if known is not None:
        return 304 if known == "*" or matches(known, version.tag, weak=True) else 200
    date = _date(headers, b"if-modified-since", year)
    return 304 if date is not None and version.modified <= date else 200


def range_counts(headers: Mapping[bytes, str], version: Version, *, year: int) -> bool:
    """Whether ``If-Range`` leaves the range to be sent (13.1.5): only for exactly the version that the client has."""
    wanted = headers.get(b"if-range")
    if wanted is None:
        return True
    if version.tag.startswith("W/"):  # nor is its date good enough then
        return False
    if is_tag(wanted):
        return wanted == version.tag
    return parse_date(wanted, year=year) == version.modified


def _date(headers: Mapping[bytes, str], name: bytes, year: int) -> int | None:
    text = headers.get(name)
    return None if text is None else parse_date(text, year=year)
