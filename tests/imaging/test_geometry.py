"""Boxes and sizes, without images."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from aioimageattach.imaging._geometry import Box, covering, fitted, nearest, proportional, stored

sides = st.integers(1, 30_000)
fractions = st.floats(0, 1)


@pytest.mark.parametrize(
    ("numerator", "denominator", "expected"), [(1, 2, 1), (3, 2, 2), (5, 2, 3), (4, 3, 1), (1, 9, 1), (0, 5, 1)]
)
def test_rounding(numerator: int, denominator: int, expected: int) -> None:
    """Halves are rounded up, and the result is at least 1."""
    assert expected == nearest(numerator, denominator)


@given(sides, sides, sides, sides, st.booleans())
def test_scaling_into_a_box(width: int, height: int, across: int, down: int, cover: bool) -> None:
    """One side equals that of the box; the other stays inside it, or covers it."""
    found = fitted((width, height), (across, down), cover=cover)
    assert found[0] == across or found[1] == down
    if cover:
        assert found >= (across, 0)
        assert found[1] >= down
    else:
        assert found[0] <= across
        assert found[1] <= down


@given(sides, sides, fractions, fractions, fractions, fractions)
@example(1, 1, 1.0, 1.0, 0.0, 0.0)
def test_parts_are_inside_the_image(
    width: int, height: int, left: float, top: float, across: float, down: float
) -> None:
    """A part has at least one pixel and does not extend beyond an edge."""
    box = proportional(Box(3, 4, width, height), (left, top, across * (1 - left), down * (1 - top)))
    assert min(box.size) >= 1
    assert (box.left >= 3, box.top >= 4) == (True, True)
    assert (box.left + box.width <= 3 + width, box.top + box.height <= 4 + height) == (True, True)


def test_fractions_are_rounded_to_the_nearest_pixel() -> None:
    """Adjacent parts share their edge."""
    assert proportional(Box(0, 0, 10, 10), (0.26, 0.5, 0.5, 0.5)) == (3, 5, 5, 5)
    assert proportional(Box(0, 0, 10, 10), (0.76, 0, 0.24, 1)) == (8, 0, 2, 10)


@given(sides, sides, sides, sides, fractions, fractions)
def test_covers_are_as_large_as_possible_and_contain_the_point(
    width: int, height: int, across: int, down: int, x: float, y: float
) -> None:
    """One side is that of the image; the point is inside, and centred as far as the edges allow."""
    box = covering(Box(0, 0, width, height), (across, down), (x, y))
    assert box.width == width or box.height == height
    for start, length, whole, at in ((box.left, box.width, width, x), (box.top, box.height, height, y)):
        assert 0 <= start <= whole - length
        assert start <= at * whole <= start + length
        middle = start + length / 2
        assert abs(middle - at * whole) <= 1 or start in (0, whole - length)


@pytest.mark.parametrize(
    ("point", "expected"),
    [
        ((0.5, 0.5), (50, 0, 100, 100)),
        ((0.0, 0.5), (0, 0, 100, 100)),
        ((1.0, 0.0), (100, 0, 100, 100)),
        ((0.4, 0.9), (30, 0, 100, 100)),
        ((0.2, 0.5), (0, 0, 100, 100)),
    ],
)
def test_the_point_is_centred_as_far_as_the_edges_allow(point: Any, expected: tuple[int, ...]) -> None:
    """A square of an image that is twice as wide as high is centred on the point."""
    assert expected == covering(Box(0, 0, 200, 100), (7, 7), point)
    left, *rest = expected
    assert (left + 5, *rest) == covering(Box(5, 0, 200, 100), (7, 7), point)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_parts_of_a_rotated_file(orientation: int) -> None:
    """A part that Pillow cuts from the stored rows and rotates equals the part as displayed."""
    raw = Image.frombytes("L", (5, 7), bytes(range(35)))
    exif = Image.Exif()
    exif[0x0112] = orientation

    def turned(image: Image.Image) -> Image.Image:
        image = image.copy()
        image.getexif()[0x0112] = orientation
        return ImageOps.exif_transpose(image)

    displayed = turned(raw)
    for box in (Box(0, 0, *displayed.size), Box(1, 2, 3, 2), Box(0, 3, 2, 1), Box(3, 0, 1, 4)):
        left, top, width, height = stored(box, displayed.size, orientation)
        part = turned(raw.crop((left, top, left + width, top + height)))
        expected = displayed.crop((box.left, box.top, box.left + box.width, box.top + box.height))
        assert (expected.size, expected.tobytes()) == (part.size, part.tobytes())
