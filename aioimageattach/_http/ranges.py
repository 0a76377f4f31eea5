"""Ranges of bytes (RFC 9110, 14)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, TypeAlias

__all__ = ["MAX_RANGES", "Range", "parse_ranges", "parts"]

Range: TypeAlias = tuple[int, int]
"""From the first byte up to but not including the second."""

MAX_RANGES: Final = 16
"""How many ranges one request may ask for; of one that asks for more the header is ignored, as 14.2 allows."""

_MAX_CHARS: Final = 1024
_NEAR: Final = 80
"""Bytes between two ranges that cost less than the head of a part."""

_SPEC: Final = re.compile(r"([0-9]+)-([0-9]*)|-([0-9]+)")


def parse_ranges(header: str, size: int) -> list[Range] | None:
    """Return the ranges that a request asks for, in its order; those that overlap or nearly touch become one.

    Together they are never longer than the file.

    Args:
        header: The value of ``Range``.
        size: Of the file, in bytes.

    Returns:
        An empty list where none of them has a byte, which is to be answered with 416. ``None`` where the header is to
        be ignored: it is in another unit, not in the form, or asks for too much.
    """
    unit, _, text = header.partition("=")
    if unit.lower() != "bytes" or len(header) > _MAX_CHARS or not size:
        return None
    specs = [spec for piece in text.split(",") if (spec := piece.strip(" \t"))]
    if not 0 < len(specs) <= MAX_RANGES:
        return None
    found: list[Range] = []
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
            found.append((start, end))
    return _joined(found)


def _joined(found: list[Range]) -> list[Range]:
    joined: list[Range] = []
    for start, end in sorted(found):
        if joined and start <= joined[-1][1] + _NEAR:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        else:
            joined.append((start, end))
    return found if len(joined) == len(found) else joined


def parts(ranges: Sequence[Range], size: int, mimetype: str, boundary: str) -> list[bytes | Range]:
    """Return the body of an answer with several ranges (14.6): what is to be sent, and what is to be read, in order."""
    pieces: list[bytes | Range] = []
    for start, end in ranges:
        head = f"Content-Type: {mimetype}\r\nContent-Range: bytes {start}-{end - 1}/{size}\r\n\r\n"
        pieces += (f"\r\n--{boundary}\r\n{head}".encode(), (start, end))
    pieces.append(f"\r\n--{boundary}--\r\n".encode())
    return pieces
