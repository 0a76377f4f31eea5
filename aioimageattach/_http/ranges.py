"""Byte ranges (RFC 9110, section 14)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, TypeAlias

__all__ = ["MAX_RANGES", "Range", "multipart_body", "parse_ranges"]

Range: TypeAlias = tuple[int, int]
"""The offset of the first byte, and the offset just past the last byte."""

MAX_RANGES: Final = 16
"""Largest number of ranges in one request. A header with more is ignored, as section 14.2 allows."""

_MAX_CHARS: Final = 1024
_MERGE_GAP: Final = 80
"""Ranges at most this many bytes apart are merged, because the headers of another part would be larger than the gap."""

_SPEC: Final = re.compile(r"([0-9]+)-([0-9]*)|-([0-9]+)")


def parse_ranges(header: str, size: int) -> list[Range] | None:
    """Parse the requested ranges; merge those that overlap or nearly touch.

    The total size of the ranges never exceeds the size of the file.

    Args:
        header: The value of ``Range``.
        size: The size of the file, in bytes.

    Returns:
        The ranges, in the order of the request unless some were merged. An empty list if no range contains a byte of
        the file (respond with 416). ``None`` if the header must be ignored: the unit is not bytes, the syntax is
        invalid, there are too many ranges, or the file is empty.
    """
    unit, _, text = header.partition("=")
    if unit.lower() != "bytes" or len(header) > _MAX_CHARS or not size:
        return None
    specs = [spec for part in text.split(",") if (spec := part.strip(" \t"))]
    if not 0 < len(specs) <= MAX_RANGES:
        return None
    ranges: list[Range] = []
    for spec in specs:
        match = _SPEC.fullmatch(spec)
        if match is None:
            return None
        first, last, suffix = match.groups()
        if suffix is not None:
            start, end = max(0, size - int(suffix)), size
        else:
            start, end = int(first), min(int(last) + 1 if last else size, size)
            if last and int(last) < start:
                return None
        if start < end:
            ranges.append((start, end))
    return _merge(ranges)


def _merge(ranges: list[Range]) -> list[Range]:
    merged: list[Range] = []
    for start, end in sorted(ranges):
        if merged and start <= merged[-1][1] + _MERGE_GAP:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((start, end))
    return ranges if len(merged) == len(ranges) else merged


def multipart_body(ranges: Sequence[Range], size: int, mimetype: str, boundary: str) -> list[bytes | Range]:
    """Return the body of a multipart response (section 14.6): bytes to send unchanged, and ranges of the file to read.

    Args:
        ranges: Two or more ranges of the file.
        size: The size of the whole file, in bytes.
        mimetype: The MIME type of the file.
        boundary: A string that does not occur in the file.
    """
    body: list[bytes | Range] = []
    for start, end in ranges:
        head = f"Content-Type: {mimetype}\r\nContent-Range: bytes {start}-{end - 1}/{size}\r\n\r\n"
        body += (f"\r\n--{boundary}\r\n{head}".encode(), (start, end))
    body.append(f"\r\n--{boundary}--\r\n".encode())
    return body
