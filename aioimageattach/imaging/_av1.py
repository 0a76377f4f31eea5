"""Read the colours from the AV1 sequence header (AV1 5.5), for AVIF files that do not state them elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ._colour import Colours

__all__ = ["sequence_colours"]

_SEQUENCE: Final = 1
_MOST: Final = 200  # bytes to search: a sequence header is shorter, and comes first
_UNSPECIFIED: Final = 2
_SRGB: Final = (1, 13, 0)  # BT.709, sRGB, identity: always full range


class _Bits:
    """Reads bits, most significant first; raises IndexError at the end."""

    def __init__(self, data: bytes) -> None:
        self._value, self._left = int.from_bytes(data, "big"), len(data) * 8

    def take(self, count: int) -> int:
        self._left -= count
        if self._left < 0:
            raise IndexError
        return self._value >> self._left & (1 << count) - 1


def sequence_colours(config: bytes, data: bytes) -> Colours | None:
    """Return the code points in the first sequence header; ``None`` if it is missing or damaged.

    Args:
        config: Content of the property ``av1C`` (AV1-ISOBMFF 2.3).
        data: Beginning of the coded image.
    """
    try:
        for kind, body in (*_units(config[4 : 4 + _MOST]), *_units(data[:_MOST])):
            if kind == _SEQUENCE:
                return _colours(_Bits(body))
    except IndexError:
        return None
    return None


def _units(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the type and the content of each open bitstream unit (AV1 5.3)."""
    at = 0
    while at < len(data):
        head = data[at]
        at += 2 if head & 4 else 1
        size = len(data) - at
        if head & 2:
            size, shift = 0, 0
            while True:
                part = data[at]
                size |= (part & 0x7F) << shift
                at, shift = at + 1, shift + 7
                if not part & 0x80:
                    break
        yield head >> 3 & 15, data[at : at + size]
        at += size


def _colours(bits: _Bits) -> Colours:
    take = bits.take
    profile, _, reduced = take(3), take(1), take(1)
    if reduced:
        take(5)
    else:
        _skip_operating_points(bits)
    wide, high = take(4) + 1, take(4) + 1
    take(wide + high)
    if not reduced and take(1):
        take(7)
    take(3)
    if not reduced:
        _skip_tools(bits)
    take(3)
    high_depth = take(1)
    if high_depth and profile == 2:
        take(1)
    is_grey = 0 if profile == 1 else take(1)
    primaries, transfer, matrix = (take(8), take(8), take(8)) if take(1) else (_UNSPECIFIED,) * 3
    full_range = not is_grey and (primaries, transfer, matrix) == _SRGB
    return Colours(primaries, transfer, full_range or bool(take(1)))


def _skip_operating_points(bits: _Bits) -> None:
    take = bits.take
    delay = 0
    if take(1):  # timing
        take(64)
        if take(1):
            zeros = 0
            while not take(1):
                zeros += 1
            take(zeros)
        if take(1):
            delay = take(5) + 1
            take(42)
    has_display_delay = take(1)
    for _ in range(take(5) + 1):
        take(12)
        if take(5) > 7:
            take(1)
        if delay and take(1):
            take(2 * delay + 1)
        if has_display_delay and take(1):
            take(4)


def _skip_tools(bits: _Bits) -> None:
    take = bits.take
    take(4)
    has_order = take(1)
    if has_order:
        take(2)
    screen = 2 if take(1) else take(1)
    if screen and not take(1):
        take(1)
    if has_order:
        take(3)
