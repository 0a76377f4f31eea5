"""The natural size of pictures that have no pixels."""

from __future__ import annotations

import math
from typing import Final

from ..exc import ImageTooLargeError
from ._limits import ImageLimits

__all__ = ["whole_size"]

_ROUNDING: Final = 1 / 400
_FACTORS: Final = (1, 2, 4, 5, 8, 10, 20, 50, 100, 200, 500, 1_000)


def whole_size(width: float, height: float, limits: ImageLimits, what: str) -> tuple[int, int]:
    """Return the size in whole pixels; of a small drawing a multiple of it, so that the proportions are right.

    Args:
        width: In pixels of CSS; more than 0.
        height: Likewise.
        limits: ``max_side`` holds.
        what: The name that the message gives it.
    """
    longest = max(width, height)
    if not longest <= limits.max_side:  # before it becomes an int: it may be infinite
        raise ImageTooLargeError(
            f"{what} is {width:.6g} x {height:.6g}: no side may have more than {limits.max_side:,} pixels (max_side)",
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
