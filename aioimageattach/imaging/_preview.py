"""Placeholders for images that are still loading: a ThumbHash and the dominant colour."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import cos, floor, pi
from operator import mul
from typing import Final

from ._vips import Picture

__all__ = ["SIDE", "Preview", "dominant_colour", "preview_of", "thumbhash"]

SIDE: Final = 48
"""Longest side of the reduced image from which a preview is computed, in pixels."""

_LEAST: Final = 8
"""Shortest side, in pixels, so that the highest frequency of a ThumbHash has more than one pixel per half-wave."""

_COARSE: Final = bytes(value >> 5 for value in range(256))
_OPAQUE: Final = 128
_NOISE: Final = 1e-9


@dataclass(frozen=True, slots=True)
class Preview:
    """A placeholder to show until an image is loaded.

    Args:
        thumbhash: ThumbHash of the image, a blurred version of at most 28 bytes, in Base64.
        colour: Dominant colour, such as ``"#1e90ff"``; ``None`` if the image is fully transparent.
    """

    thumbhash: str
    colour: str | None


def preview_of(image: Picture) -> Preview:
    """Return the preview of a small image.

    Args:
        image: An image of at most a few hundred pixels per side, upright, in sRGB or grey, with 8 bits per band.
    """
    scale = min(1.0, SIDE / max(image.width, image.height))
    width, height = (max(_LEAST, round(side * scale)) for side in (image.width, image.height))
    if (width, height) != (image.width, image.height):
        image = image.thumbnail_image(width, height=height, size="force")
    if image.interpretation == "b-w":
        image = image.colourspace("srgb")
    if not image.hasalpha():
        image = image.bandjoin(255)
    pixels = bytes(image.write_to_memory())
    encoded = base64.b64encode(thumbhash(image.width, image.height, pixels)).decode()
    return Preview(encoded, dominant_colour(pixels))


def dominant_colour(pixels: bytes) -> str | None:
    """Return the dominant colour of some pixels, as ``#rrggbb``.

    Colours are grouped into 512 cells of the RGB cube. The mean of the cell with the most pixels is returned.

    Args:
        pixels: Red, green, blue and alpha, 8 bits each. Pixels that are more than half transparent are ignored.

    Returns:
        ``None`` if all pixels are ignored.
    """
    opaque = [alpha >= _OPAQUE for alpha in pixels[3::4]]
    cells = list(zip(*(pixels[band::4].translate(_COARSE) for band in range(3)), strict=True))
    found = Counter(cell for cell, counts in zip(cells, opaque, strict=True) if counts)
    if not found:
        return None
    [(fullest, count)] = found.most_common(1)
    chosen = [counts and cell == fullest for cell, counts in zip(cells, opaque, strict=True)]
    means = (sum(map(mul, pixels[band::4], chosen)) for band in range(3))
    return "#" + "".join(f"{(2 * total + count) // (2 * count):02x}" for total in means)


def thumbhash(width: int, height: int, pixels: bytes) -> bytes:
    """Return the ThumbHash of an image, 5 to 25 bytes (https://evanw.github.io/thumbhash/).

    The image is split into luminance, two colour differences and alpha. A discrete cosine transform is applied to
    each channel, and the lowest frequencies are kept. The header contains the constant component and the largest
    amplitude of each channel; the other components follow as 4 bits each, relative to that amplitude.

    Args:
        width: Width in pixels, at most 100.
        height: Height in pixels, at most 100.
        pixels: Red, green, blue and alpha, 8 bits each, not premultiplied.
    """
    alpha = [value / 255 for value in pixels[3::4]]
    weight = sum(alpha)
    has_alpha = weight < width * height
    bands: list[list[float]] = []
    for band in (pixels[0::4], pixels[1::4], pixels[2::4]):
        values = [value / 255 for value in band]
        if has_alpha:  # transparent parts get the mean colour
            mean = sum(map(mul, values, alpha)) / weight if weight else 0.0
            values = [mean + (value - mean) * part for value, part in zip(values, alpha, strict=True)]
        bands.append(values)
    rgb = list(zip(*bands, strict=True))

    longest = max(width, height)
    finest = 5 if has_alpha else 7
    across, down = (max(1, _rounded(finest * side / longest)) for side in (width, height))
    luminance = _transformed([(r + g + b) / 3 for r, g, b in rgb], width, max(3, across), max(3, down))
    yellow = _transformed([(r + g) / 2 - b for r, g, b in rgb], width, 3, 3)
    red = _transformed([r - g for r, g, _ in rgb], width, 3, 3)
    channels = [luminance, yellow, red]

    wide = width > height
    first = _packed((luminance[0], 63, 6), (0.5 + yellow[0] / 2, 63, 6), (0.5 + red[0] / 2, 63, 6))
    first |= _packed((luminance[1], 31, 5), (has_alpha, 1, 1)) << 18
    second = (down if wide else across) | _packed((yellow[1], 63, 6), (red[1], 63, 6), (wide, 1, 1)) << 3
    head = first.to_bytes(3, "little") + second.to_bytes(2, "little")
    if has_alpha:
        clear = _transformed(alpha, width, 5, 5)
        channels.append(clear)
        head += _packed((clear[0], 15, 4), (clear[1], 15, 4)).to_bytes(1, "little")
    rest = [0.5 + part / (2 * most) if most else 0.0 for _, most, parts in channels for part in parts]
    rest += [0.0] * (len(rest) % 2)
    return head + bytes(_packed((low, 15, 4), (high, 15, 4)) for low, high in zip(rest[::2], rest[1::2], strict=True))


def _transformed(channel: Sequence[float], width: int, across: int, down: int) -> tuple[float, float, list[float]]:
    """Return the constant component of a channel, the largest amplitude of the others, and the others by row."""
    height = len(channel) // width
    rows = [channel[start : start + width] for start in range(0, len(channel), width)]
    columns = [[sum(map(mul, row, wave)) for row in rows] for wave in _waves(width, across)]
    parts: list[float] = []
    for y, wave in enumerate(_waves(height, down)):
        kept = (x for x in range(across) if x * down < across * (down - y))  # the triangle of low frequencies
        parts += [sum(map(mul, columns[x], wave)) / len(channel) for x in kept]
    constant, *others = parts
    most = max(map(abs, others))
    return constant, most if most > _NOISE else 0.0, others


@lru_cache(maxsize=256)
def _waves(length: int, count: int) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(cos(pi / length * wave * (at + 0.5)) for at in range(length)) for wave in range(count))


def _packed(*fields: tuple[float, int, int]) -> int:
    """Pack fractions into an integer, lowest bits first. A field is a fraction, its largest value and its bit count."""
    packed = shift = 0
    for fraction, most, bits in fields:
        packed |= _rounded(fraction * most) << shift
        shift += bits
    return packed


def _rounded(number: float) -> int:
    """Round to the nearest integer, halves up as in JavaScript, allowing for floating-point errors."""
    return floor(number + 0.5 + _NOISE)
