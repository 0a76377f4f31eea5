"""The natural size of vector images."""

from __future__ import annotations

import math
from typing import Final

from ..exc import ImageTooLargeError
from ._limits import ImageLimits

__all__ = ["whole_size"]

_ROUNDING: Final = 1 / 400
_FACTORS: Final = (1, 2, 4, 5, 8, 10, 20, 50, 100, 200, 500, 1_000)


def whole_size(width: float, height: float, limits: ImageLimits, what: str) -> tuple[int, int]:
    """Return the size in whole pixels. The size of a small drawing is multiplied, to preserve the aspect ratio.

    Args:
        width: Width in CSS pixels, greater than 0.
        height: Height in CSS pixels, greater than 0.
        limits: The limits, of which ``max_side`` applies.
        what: Noun phrase for the image in the error message, such as ``"an SVG"``.

    Raises:
        ImageTooLargeError: A side exceeds ``max_side``.
    """
    longest = max(width, height)
    if not longest <= limits.max_side:  # checked before rounding, because it can be infinite
        raise ImageTooLargeError(
            f"expected {what} of at most {limits.max_side:,} pixels per side (max_side), "
            f"got {width:.6g} x {height:.6g}",
            limit=limits.max_side,
            actual=math.ceil(longest) if math.isfinite(longest) else longest,
        )
    for factor in _FACTORS:
        sides = max(1, round(width * factor)), max(1, round(height * factor))
        if max(sides) > limits.max_side:
            break
        if abs(sides[0] * height / (sides[1] * width) - 1) <= _ROUNDING:
            return sides
    return max(1, round(width)), max(1, round(height))
