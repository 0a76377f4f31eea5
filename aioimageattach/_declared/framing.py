"""Crop boxes and focal points that editors choose, in the precision of file names. Does no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import ceil, floor, isfinite
from typing import Any, Final

from ..imaging._options import POINT_STEPS, Crop
from ..imaging._recipe import Recipe

__all__ = ["BOX", "COLUMNS", "POINT", "WHOLE", "Framing"]

BOX: Final = ("crop_left", "crop_top", "crop_width", "crop_height")
"""The attributes of the mixin :class:`~aioimageattach.entity.CropBox`."""
POINT: Final = ("focal_x", "focal_y")
"""The attributes of the mixin :class:`~aioimageattach.entity.FocalPoint`."""
COLUMNS: Final = (*BOX, *POINT)

_NOISE: Final = 1e-4
"""Inaccuracy of the fractions in a database, in steps: MySQL stores them as single-precision numbers."""


@dataclass(frozen=True, slots=True)
class Framing:
    """The part of an image that an editor wants to show, in hundredths of the displayed original.

    Pages calculate it from a row, and the server from a file name. It is rounded in one place, so both get the same.

    Args:
        box: Left, top, right and bottom edge of the crop box; ``None`` for the whole image.
        point: The focal point, from the left and from the top; ``None`` if there is none.
    """

    box: tuple[int, int, int, int] | None = None
    point: tuple[int, int] | None = None

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Framing:
        """Return the framing in the columns of a row.

        The edges of the box are rounded inwards, so that nothing outside of it is shown.

        Args:
            values: The values of :data:`COLUMNS` by attribute; others are ignored.
        """
        return _framing(*[values.get(name) for name in COLUMNS])

    @classmethod
    def parse(cls, text: str) -> Framing | None:
        """Parse :attr:`text`; return ``None`` if no image can have this framing."""
        box = point = None
        if len(text) >= 8:
            left, top, right, bottom = (int(text[start : start + 2]) for start in range(0, 8, 2))
            box = left, top, right + 1, bottom + 1
            if left > right or top > bottom or box == _FULL:
                return None
        if len(text) in (6, 14):
            point = int(text[-6:-3]), int(text[-3:])
            if max(point) > POINT_STEPS:
                return None
        return cls(box, point)

    @property
    def text(self) -> str:
        """The framing in file names: eight digits for the box, and six for the point."""
        text = ""
        if self.box is not None:
            left, top, right, bottom = self.box
            text = f"{left:02}{top:02}{right - 1:02}{bottom - 1:02}"
        return text if self.point is None else text + "".join(f"{part:03}" for part in self.point)

    @property
    def crop(self) -> Crop | None:
        """Left, top, width and height of the box, as fractions."""
        if self.box is None:
            return None
        left, top, right, bottom = self.box
        return left / POINT_STEPS, top / POINT_STEPS, (right - left) / POINT_STEPS, (bottom - top) / POINT_STEPS

    def parts(self) -> tuple[Framing, ...]:
        """Return the framings with none, either and both of box and point."""
        return WHOLE, self.without_point(), Framing(None, self.point), self

    def without_point(self) -> Framing:
        """Return the framing with the box only."""
        return self if self.point is None else WHOLE if self.box is None else Framing(self.box)

    def boxed(self, recipe: Recipe) -> Recipe:
        """Return a recipe that is limited to the box."""
        crop = self.crop
        return recipe if crop is None else recipe.with_crop_box(crop)

    def focused(self, recipe: Recipe) -> Recipe:
        """Return a recipe, which is limited to the box already, with the focal point."""
        if self.point is None:
            return recipe
        x, y = self.point
        return recipe.with_focal_point((x / POINT_STEPS, y / POINT_STEPS))


_FULL: Final = (0, 0, POINT_STEPS, POINT_STEPS)
WHOLE: Final = Framing()
"""The whole image, without a focal point."""


@lru_cache(4096)
def _framing(
    left: float | None,
    top: float | None,
    width: float | None,
    height: float | None,
    x: float | None,
    y: float | None,
) -> Framing:
    box = None
    if not (left is None or top is None or width is None or height is None) and isfinite(left + top + width + height):
        (first, last), (upper, lower) = _inside(left, left + width), _inside(top, top + height)
        box = first, upper, last, lower
    point = None if x is None or y is None or not isfinite(x + y) else (_nearest(x), _nearest(y))
    return Framing(None if box == _FULL else box, point)


def _nearest(part: float) -> int:
    return min(max(int(part * POINT_STEPS + 0.5), 0), POINT_STEPS)


def _inside(start: float, end: float) -> tuple[int, int]:
    """Return the largest range of whole steps inside a range; the step at its start if it contains none."""
    first, last = ceil(start * POINT_STEPS - _NOISE), floor(end * POINT_STEPS + _NOISE)
    if first >= last:
        first = min(max(floor(start * POINT_STEPS + _NOISE), 0), POINT_STEPS - 1)
        return first, first + 1
    first = min(max(first, 0), POINT_STEPS - 1)
    return first, min(max(last, first + 1), POINT_STEPS)
