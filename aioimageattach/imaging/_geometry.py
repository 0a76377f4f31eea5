"""Calculate sizes and boxes in whole pixels."""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil
from typing import NamedTuple

__all__ = ["Box", "covering", "fitted", "nearest", "proportional", "stored"]


class Box(NamedTuple):
    """A part of an image, in pixels.

    Args:
        left: Distance from the left edge.
        top: Distance from the top edge.
        width: Width, at least 1.
        height: Height, at least 1.
    """

    left: int
    top: int
    width: int
    height: int

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.width, self.height


def nearest(numerator: int, denominator: int) -> int:
    """Return the integer nearest to a fraction, at least 1. Halves are rounded up."""
    return max(1, (2 * numerator + denominator) // (2 * denominator))


def fitted(size: tuple[int, int], box: tuple[int, int], *, cover: bool = False) -> tuple[int, int]:
    """Return the size of an image scaled to a box, keeping its aspect ratio.

    Args:
        size: Width and height of the image.
        box: Width and height of the box.
        cover: ``True`` to fill the whole box, ``False`` to stay inside it.
    """
    wider = box[0] * size[1] <= box[1] * size[0]
    if wider != cover:
        return box[0], nearest(size[1] * box[0], size[0])
    return nearest(size[0] * box[1], size[1]), box[1]


def proportional(box: Box, fractions: Iterable[float]) -> Box:
    """Return the part of a box that is given in fractions of the box, at least one pixel wide and high.

    Args:
        box: The whole box.
        fractions: Left, top, width and height, from 0 to 1.
    """
    left, top, width, height = fractions
    start_x, start_y = min(int(left * box.width + 0.5), box.width - 1), min(int(top * box.height + 0.5), box.height - 1)
    end_x = min(max(int((left + width) * box.width + 0.5), start_x + 1), box.width)
    end_y = min(max(int((top + height) * box.height + 0.5), start_y + 1), box.height)
    return Box(box.left + start_x, box.top + start_y, end_x - start_x, end_y - start_y)


def covering(box: Box, shape: tuple[int, int], point: tuple[float, float]) -> Box:
    """Return the largest part of a box with a given aspect ratio.

    Args:
        box: The whole box.
        shape: The aspect ratio, as width and height.
        point: The point to centre, as far as the edges of the box allow, in fractions of the box.
    """
    width = min(box.width, nearest(box.height * shape[0], shape[1]))
    height = min(box.height, nearest(box.width * shape[1], shape[0]))
    left = min(max(ceil(point[0] * box.width - width / 2 - 0.5), 0), box.width - width)
    top = min(max(ceil(point[1] * box.height - height / 2 - 0.5), 0), box.height - height)
    return Box(box.left + left, box.top + top, width, height)


def stored(box: Box, size: tuple[int, int], orientation: int) -> Box:
    """Convert a part of the displayed image to the rows and columns of the stored image.

    Args:
        box: The part, as displayed.
        size: Width and height of the whole image, as displayed.
        orientation: The EXIF orientation, 1 to 8 (Exif 3.0, tag 274).
    """
    left, top, width, height = box
    right, bottom = size[0] - left - width, size[1] - top - height
    x = {1: left, 2: right, 3: right, 4: left, 5: top, 6: top, 7: bottom, 8: bottom}[orientation]
    y = {1: top, 2: top, 3: bottom, 4: bottom, 5: left, 6: right, 7: right, 8: left}[orientation]
    return Box(x, y, *((height, width) if orientation > 4 else (width, height)))
