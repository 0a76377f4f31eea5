"""Colours: create ICC profiles from code points and gamma values."""

from __future__ import annotations

import functools
import math
import struct
from collections.abc import Callable
from typing import Final, NamedTuple, TypeAlias

__all__ = ["SRGB", "Colours", "gamma_profile", "profile_of", "span"]

Matrix: TypeAlias = "tuple[tuple[float, float, float], tuple[float, float, float], tuple[float, float, float]]"
Point: TypeAlias = "tuple[float, float]"

D65: Final = (0.3127, 0.3290)
SRGB: Final = ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060), D65)
_PRIMARIES: Final[dict[int, tuple[Point, Point, Point, Point]]] = {
    1: SRGB,
    4: ((0.67, 0.33), (0.21, 0.71), (0.14, 0.08), (0.310, 0.316)),
    5: ((0.64, 0.33), (0.29, 0.60), (0.15, 0.06), D65),
    6: ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070), D65),
    7: ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070), D65),
    9: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046), D65),
    11: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), (0.314, 0.351)),
    12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), D65),
    22: ((0.630, 0.340), (0.295, 0.605), (0.155, 0.077), D65),
}
"""Chromaticity coordinates of red, green, blue and white, by code point (ITU-T H.273, table 2)."""

_DIFFUSE_WHITE: Final = 203.0  # cd/m², the level of white paper in HDR images (ITU-R BT.2408)
_D50: Final = (0.9642, 1.0, 0.8249)
_BRADFORD: Final[Matrix] = ((0.8951, 0.2664, -0.1614), (-0.7502, 1.7135, 0.0367), (0.0389, -0.0685, 1.0296))
_STEPS: Final = 4_096


def span(red: Point, green: Point, blue: Point) -> float:
    """Return the area of the triangle between three chromaticities; 0 if one of them is not a visible colour."""
    if any(x < 0 or y < 0.001 or x + y > 1.01 for x, y in (red, green, blue)):
        return 0
    return abs((green[0] - red[0]) * (blue[1] - red[1]) - (blue[0] - red[0]) * (green[1] - red[1])) / 2


class Colours(NamedTuple):
    """Code points of ITU-T H.273."""

    primaries: int
    transfer: int
    full_range: bool


def _pq(code: float) -> float:
    """Return the light level of a PQ code (SMPTE ST 2084, BT.2100 table 4), where 1 is diffuse white."""
    root = math.pow(code, 32 / 2523)
    light = max(root - 3424 / 4096, 0) / (2413 / 128 - 2392 / 128 * root)
    return 10_000 / _DIFFUSE_WHITE * math.pow(light, 16384 / 2610)


def _hlg(code: float) -> float:
    """Return the light level of an HLG code on a display of 1,000 cd/m² (BT.2100 table 5), where 1 is diffuse white."""
    scene = code * code / 3 if code <= 0.5 else (math.exp((code - 0.55991073) / 0.17883277) + 0.28466892) / 12
    return 1_000 / _DIFFUSE_WHITE * math.pow(scene, 1.2)


def _srgb(code: float) -> float:
    return code / 12.92 if code <= 0.04045 else ((code + 0.055) / 1.055) ** 2.4


_CURVES: Final[dict[int, Callable[[float], float]]] = {
    4: lambda code: code**2.2,
    5: lambda code: code**2.8,
    8: lambda code: code,
    16: _pq,
    18: _hlg,
}
"""Functions from code to light level, by transfer characteristics (H.273 table 3). Others are treated as sRGB."""


@functools.lru_cache(maxsize=32)
def profile_of(colours: Colours, *, is_grey: bool = False) -> bytes | None:
    """Return an ICC profile for these code points; ``None`` if they mean sRGB or are unknown.

    Light above diffuse white is clipped to white, because thumbnails are for displays without HDR.
    """
    primaries = _PRIMARIES.get(colours.primaries, SRGB)
    curve = _CURVES.get(colours.transfer)
    if curve is None and (is_grey or primaries is SRGB):
        return None
    return _profile(primaries, curve or _srgb, is_grey=is_grey)


@functools.lru_cache(maxsize=32)
def gamma_profile(exponent: float, primaries: tuple[Point, Point, Point, Point], *, is_grey: bool) -> bytes:
    """Return an ICC profile for a gamma curve with the given exponent and primaries."""
    return _profile(primaries, lambda code: code**exponent, is_grey=is_grey)


def _profile(primaries: tuple[Point, Point, Point, Point], curve: Callable[[float], float], *, is_grey: bool) -> bytes:
    """Return a display profile (ICC.1:2001-04) with a tone curve per colour and a matrix."""
    values = [round(min(max(curve(step / (_STEPS - 1)), 0.0), 1.0) * 65_535) for step in range(_STEPS)]
    light = b"curv\0\0\0\0" + struct.pack(f">I{_STEPS}H", _STEPS, *values)
    text = b"code points"
    tags = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", len(text) + 1) + text + bytes(1 + 78),
        b"cprt": b"text\0\0\0\0none\0",
        b"wtpt": _xyz(_D50),
    }
    if is_grey:
        tags[b"kTRC"] = light
    else:
        tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), light)
        columns = zip(*_to_d50(primaries), strict=True)
        tags |= {name: _xyz(column) for name, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), columns, strict=True)}
    start = 128 + 4 + 12 * len(tags)
    table, body, places = [], bytearray(), dict[bytes, int]()
    for name, content in tags.items():
        if content not in places:
            places[content] = start + len(body)
            body += content + bytes(-len(content) % 4)
        table.append(struct.pack(">4sII", name, places[content], len(content)))
    head = struct.pack(
        ">I4sI4s4s4s12s4s28s12s16s",
        start + len(body),
        b"",
        0x0220_0000,
        b"mntr",
        b"GRAY" if is_grey else b"RGB ",
        b"XYZ ",
        bytes(12),
        b"acsp",
        bytes(28),
        _fixed(_D50),
        b"",
    )
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + b"".join(table) + bytes(body)


def _fixed(values: tuple[float, ...]) -> bytes:
    return b"".join(struct.pack(">i", round(value * 65_536)) for value in values)


def _xyz(values: tuple[float, ...]) -> bytes:
    return b"XYZ \0\0\0\0" + _fixed(values)


def _times(left: Matrix, right: Matrix) -> Matrix:
    columns = tuple(zip(*right, strict=True))
    return tuple(  # type: ignore[return-value]
        tuple(sum(a * b for a, b in zip(row, column, strict=True)) for column in columns) for row in left
    )


def _inverse(matrix: Matrix) -> Matrix:
    (a, b, c), (d, e, f), (g, h, i) = matrix
    rows = (
        (e * i - f * h, c * h - b * i, b * f - c * e),
        (f * g - d * i, a * i - c * g, c * d - a * f),
        (d * h - e * g, b * g - a * h, a * e - b * d),
    )
    whole = a * rows[0][0] + b * rows[1][0] + c * rows[2][0]
    return tuple(tuple(value / whole for value in row) for row in rows)  # type: ignore[return-value]


def _diagonal(values: tuple[float, ...]) -> Matrix:
    return (values[0], 0, 0), (0, values[1], 0), (0, 0, values[2])


def _apply(matrix: Matrix, vector: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(sum(a * b for a, b in zip(row, vector, strict=True)) for row in matrix)


def _to_d50(primaries: tuple[Point, Point, Point, Point]) -> Matrix:
    """Return the matrix from linear RGB to XYZ under D50 (SMPTE RP 177, with Bradford adaptation)."""
    red, green, blue, white = ((x / y, 1.0, (1 - x - y) / y) for x, y in primaries)
    plain: Matrix = tuple(zip(red, green, blue, strict=True))  # type: ignore[assignment]
    scaled = _times(plain, _diagonal(_apply(_inverse(plain), white)))
    cones = [d50 / own for d50, own in zip(_apply(_BRADFORD, _D50), _apply(_BRADFORD, white), strict=True)]
    return _times(_times(_inverse(_BRADFORD), _times(_diagonal(tuple(cones)), _BRADFORD)), scaled)
