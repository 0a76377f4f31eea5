"""Crop boxes and focal points in the precision of file names."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioimageattach._declared.framing import BOX, COLUMNS, POINT, WHOLE, Framing
from aioimageattach.imaging import Recipe


def boxed(*box: float) -> Framing:
    """Return the framing of a row with a crop box."""
    return Framing.of(dict(zip(BOX, box, strict=True)))


FRAMINGS = st.one_of(
    *[st.fixed_dictionaries(dict.fromkeys(names, st.floats(0, 1))) for names in ((), BOX, POINT, COLUMNS)]
).map(Framing.of)
"""Framings of rows without values, with a crop box, with a focal point, and with both."""


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((0.1, 0.05, 0.45, 0.85), (10, 5, 55, 90)),
        ((0.104, 0, 0.7, 1), (11, 0, 80, 100)),
        ((0.29, 0.29, 0.57, 0.71), (29, 29, 86, 100)),
        ((0.1 + 0.2, 0, 0.7, 0.5), (30, 0, 100, 50)),
        ((0.3300000131, 0, 0.3300000131, 1), (33, 0, 66, 100)),
        ((0.104, 0.5, 0.003, 0.0001), (10, 50, 11, 51)),
        ((0.999, 0, 0.001, 1), (99, 0, 100, 100)),
        ((1 / 3, 1 / 3, 1 / 3, 1 / 3), (34, 34, 66, 66)),
        ((0, 0, 1, 1), None),
        ((0.9, 0.9, 5, -3), (90, 90, 100, 91)),
        ((-7, 2, 0.5, 0.5), (0, 99, 1, 100)),
    ],
)
def test_boxes_are_rounded_inwards(box: tuple[float, ...], expected: tuple[int, ...] | None) -> None:
    """Nothing outside of the editor's box is shown, unless it is smaller than a hundredth; fractions may be inexact."""
    assert boxed(*box).box == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, WHOLE),
        (dict.fromkeys(COLUMNS), WHOLE),
        ({"crop_left": 0.1, "crop_top": 0.1, "crop_width": 0.5}, WHOLE),
        ({"focal_x": 0.1}, WHOLE),
        ({"focal_x": 0.404, "focal_y": 0.255, "width": 7}, Framing(point=(40, 26))),
        ({"focal_x": 1.5, "focal_y": -1}, Framing(point=(100, 0))),
        (dict.fromkeys(COLUMNS, math.nan), WHOLE),
        (dict.fromkeys(COLUMNS, math.inf), WHOLE),
    ],
)
def test_what_a_row_contains(values: dict[str, Any], expected: Framing) -> None:
    """Incomplete and infinite values count as none. Other values outside of the image are limited to it."""
    assert Framing.of(values) == expected


@given(FRAMINGS)
def test_framings_are_restored(framing: Framing) -> None:
    """The text in a file name, and the fractions that a row stores, both result in the same framing."""
    assert Framing.parse(framing.text) == framing
    assert framing.crop is None or boxed(*framing.crop) == Framing(framing.box)
    assert framing.without_point().text == framing.text[: 8 if framing.box else 0]


@given(st.from_regex(r"([0-9]{8})?([0-9]{6})?", fullmatch=True))
def test_each_text_stands_for_at_most_one_framing(text: str) -> None:
    """No two texts result in the same framing, and no text in a part outside of the image."""
    found = Framing.parse(text)
    assert found is None or found.text == text


@pytest.mark.parametrize(
    "text", ["50004999", "00504949", "00009999", "00009999040025", "101000", "000999", "10054089101000"]
)
def test_invalid_framings(text: str) -> None:
    """Empty boxes, the whole image as a box, and points outside of the image are rejected."""
    assert Framing.parse(text) is None


def test_a_box_and_the_crop_of_a_recipe() -> None:
    """The recipe's crop is a part of the box; the point, in fractions of the whole image, applies inside of both."""
    framing = Framing((10, 20, 60, 100), (35, 60))
    plain, cropped = Recipe(width=100), Recipe(width=100, height=100, crop=(0.5, 0, 0.5, 0.5))
    assert framing.boxed(plain) == Recipe(width=100, crop=(0.1, 0.2, 0.5, 0.8))
    assert framing.boxed(cropped).crop == (0.35, 0.2, 0.25, 0.4)
    assert framing.focused(framing.boxed(plain)) == framing.boxed(plain)
    assert framing.focused(framing.boxed(Recipe(width=100, height=100))).gravity == "centre"
    assert framing.focused(framing.boxed(cropped)).gravity == "southwest"
    assert WHOLE.focused(WHOLE.boxed(plain)) is plain
