"""Sizes and looks, without a pixel."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aioimageattach.exc import DeclarationError, ImageTooLargeError
from aioimageattach.imaging import ImageLimits, Recipe
from aioimageattach.imaging.recipe import FORMATS, KERNELS

WIDE = ImageLimits(max_side=10**9, max_pixels=10**18)


@pytest.mark.parametrize(
    ("arguments", "size", "expected"),
    [
        ({"width": 150}, (4000, 3000), (150, 113)),
        ({"width": 150}, (3000, 4000), (150, 200)),
        ({"height": 150}, (4000, 3000), (200, 150)),
        ({"ratio": 0.5}, (451, 300), (226, 150)),
        ({"ratio": 2}, (451, 300), (902, 600)),
        ({"ratio": Fraction(1, 3)}, (300, 30), (100, 10)),
        ({"ratio": 1e-9}, (4000, 3000), (1, 1)),
        ({"width": 150}, (30000, 1), (150, 1)),
        ({"height": 1}, (1, 30000), (1, 1)),
        ({"width": 100, "height": 100}, (400, 300), (100, 100)),
        ({"width": 100, "height": 100, "fit": "contain"}, (400, 300), (100, 100)),
        ({"width": 100, "height": 100, "fit": "fill"}, (400, 300), (100, 100)),
        ({"width": 100, "height": 100, "fit": "inside"}, (400, 300), (100, 75)),
        ({"width": 100, "height": 100, "fit": "inside"}, (300, 400), (75, 100)),
        ({"width": 100, "height": 50, "fit": "inside"}, (400, 300), (67, 50)),
        ({"width": 150, "height": 150}, (1, 30000), (150, 150)),
    ],
)
def test_target_is_the_size_asked_for(
    arguments: dict[str, Any], size: tuple[int, int], expected: tuple[int, int]
) -> None:
    """Sides that follow the proportions are rounded to the nearest pixel, and none is 0."""
    assert expected == Recipe(**arguments).target(size)


@pytest.mark.parametrize(
    ("fit", "size", "expected"),
    [
        ("cover", (400, 300), (133, 100)),
        ("cover", (300, 400), (100, 133)),
        ("contain", (400, 300), (100, 75)),
        ("contain", (300, 400), (75, 100)),
        ("fill", (400, 300), (100, 100)),
    ],
)
def test_scaled_is_the_whole_picture_before_cropping_or_bars(
    fit: Any, size: tuple[int, int], expected: tuple[int, int]
) -> None:
    """Cover is scaled past the box, contain within it."""
    assert expected == Recipe(width=100, height=100, fit=fit).scaled(size)


sides = st.integers(1, 30_000)


@given(sides, sides, sides, sides, st.sampled_from(["cover", "contain", "inside"]))
@example(1, 3, 1, 2, "contain")  # as wide as the box, which its height decides
def test_proportions_hold_to_half_a_pixel(width: int, height: int, box_width: int, box_height: int, fit: Any) -> None:
    """Whatever the sizes, one side is the box's and the other the nearest to the original's proportions."""
    scaled = Recipe(width=box_width, height=box_height, fit=fit).scaled((width, height))
    assert min(scaled) >= 1
    fits_width = scaled[0] == box_width and (abs(scaled[1] - height * box_width / width) <= 0.5 or scaled[1] == 1)
    fits_height = scaled[1] == box_height and (abs(scaled[0] - width * box_height / height) <= 0.5 or scaled[0] == 1)
    assert fits_width or fits_height
    if fit == "cover":
        assert scaled[0] >= box_width
        assert scaled[1] >= box_height
    else:
        assert scaled[0] <= box_width
        assert scaled[1] <= box_height


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"width": 0}, "width: expected 1 to 1,000,000, got 0"),
        ({"height": -1}, "height: expected 1"),
        ({"width": 10**9}, "width: expected 1"),
        ({"width": 10**400}, "a number of 1329 bits"),
        ({"ratio": 0}, "ratio: expected a finite number above 0"),
        ({"ratio": -0.5}, "ratio"),
        ({"ratio": math.nan}, "ratio"),
        ({"ratio": math.inf}, "ratio"),
        ({"ratio": 10**400}, "ratio"),
        ({"width": 1, "height": 1, "fit": "crop"}, "fit: expected one of cover, contain, fill, inside"),
        ({"width": 1, "filter": "sharp"}, "filter: expected one of nearest"),
        ({"width": 1, "format": "bmp"}, "format: expected one of avif, gif, jpeg, png, webp"),
        ({"width": 1, "quality": 0}, "quality: expected 1 to 100"),
        ({"width": 1, "quality": 101}, "quality"),
        ({"width": 1, "background": (0, 0, 256)}, "background: expected 0 to 255"),
        ({"width": 1, "variant": ""}, "variant"),
        ({"width": 1, "variant": "Upper"}, "variant"),
        ({"width": 1, "variant": "x" * 33}, "variant"),
        ({"width": 1, "variant": "../x"}, "variant"),
    ],
)
def test_values_out_of_range_are_refused(arguments: dict[str, Any], message: str) -> None:
    """A value no thumbnail can have is a ValueError that says what was expected."""
    with pytest.raises(ValueError, match=message):
        Recipe(**arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"fit": "cover"},
        {"ratio": 1, "width": 1},
        {"ratio": 1, "height": 1},
        {"width": 1, "fit": "cover"},
        {"width": True},
        {"width": "150"},
        {"width": 1.5},
        {"ratio": True},
        {"ratio": "1"},
        {"ratio": Decimal(1)},
        {"width": 1, "height": 1, "fit": 3},
        {"width": 1, "filter": 0},
        {"width": 1, "format": b"png"},
        {"width": 1, "quality": 80.0},
        {"width": 1, "animated": 1},
        {"width": 1, "animated": True, "format": "jpeg"},
        {"width": 1, "background": "white"},
        {"width": 1, "background": (1, 2)},
        {"width": 1, "background": (1, 2, 3.0)},
        {"width": 1, "preprocess": "grey"},
        {"width": 1, "postprocess": 1},
        {"width": 1, "variant": 1},
    ],
)
def test_wrong_types_and_combinations_are_refused(arguments: dict[str, Any]) -> None:
    """What cannot work as written is a DeclarationError, which is a TypeError."""
    with pytest.raises(DeclarationError):
        Recipe(**arguments)


@pytest.mark.parametrize(
    ("recipe", "size", "original"),
    [
        (Recipe(ratio=1e9), (4000, 3000), None),
        (Recipe(ratio=1e308), (4000, 3000), None),
        (Recipe(width=30_001), (10, 10), None),
        (Recipe(width=20_000), (100, 100), None),
        (Recipe(width=20_000), (20_000, 10), "image/webp"),
        (Recipe(width=20_000, format="avif"), (20_000, 10), None),
    ],
)
def test_targets_beyond_limits_are_refused(recipe: Recipe, size: tuple[int, int], original: str | None) -> None:
    """Neither the limits nor what the format can hold may be passed."""
    with pytest.raises(ImageTooLargeError):
        recipe.target(size, original=original)


def test_limits_of_the_caller_hold_for_targets() -> None:
    """Who raises the limits may make larger thumbnails, in formats that hold them."""
    assert Recipe(width=200_000).target((20_000, 10), original="image/png", limits=WIDE) == (200_000, 100)
    with pytest.raises(ImageTooLargeError, match="65,500"):
        Recipe(width=200_000).target((20_000, 10), original="image/jpeg", limits=WIDE)


@pytest.mark.parametrize(
    ("arguments", "original", "expected"),
    [
        ({"width": 1}, "image/jpeg", "image/jpeg"),
        ({"width": 1}, "image/tiff", "image/png"),
        ({"width": 1}, "image/svg+xml", "image/png"),
        ({"width": 1, "format": "jpg"}, "image/png", "image/jpeg"),
        ({"width": 1, "format": "WebP"}, "image/png", "image/webp"),
        ({"width": 1, "format": "image/avif"}, "image/png", "image/avif"),
    ],
)
def test_mimetype_is_the_originals_unless_a_format_is_given(
    arguments: dict[str, Any], original: str, expected: str
) -> None:
    """What cannot be written becomes PNG."""
    assert expected == Recipe(**arguments).mimetype(original)


BOX = {"width": 10, "height": 10}


@pytest.mark.parametrize(
    ("arguments", "original", "expected"),
    [
        ({"width": 10}, "image/jpeg", ""),
        ({"width": 10, "format": "jpeg"}, "image/jpeg", ""),
        ({"width": 10, "quality": 80}, "image/jpeg", ""),
        ({"width": 10, "filter": "lanczos"}, "image/jpeg", ""),
        ({"width": 10, "background": (0, 0, 0)}, "image/png", ""),
        ({"width": 10, "animated": True}, "image/jpeg", ""),
        ({**BOX, "fit": "inside"}, "image/jpeg", ""),
        (BOX, "image/jpeg", "cover"),
        ({**BOX, "fit": "contain"}, "image/jpeg", "contain"),
        ({**BOX, "fit": "fill"}, "image/jpeg", "fill"),
        ({"width": 10, "format": "webp"}, "image/jpeg", "webp"),
        ({**BOX, "format": "webp"}, "image/jpeg", "cover.webp"),
        ({"width": 10}, "image/svg+xml", "png"),
        ({"width": 10, "animated": True}, "image/gif", "animated"),
        ({"width": 10, "animated": True, "format": "webp"}, "image/gif", "webp.animated"),
        ({"width": 10, "quality": 95}, "image/jpeg", "q95"),
        ({"width": 10, "quality": 95}, "image/png", ""),
        ({"width": 10, "filter": "point"}, "image/jpeg", "nearest"),
        ({"width": 10, "background": (0, 16, 255)}, "image/jpeg", "bg0010ff"),
        ({"width": 10, "preprocess": abs}, "image/jpeg", "custom"),
        ({"width": 10, "postprocess": abs, "variant": "grey"}, "image/jpeg", "grey"),
        ({**BOX, "variant": "avatar"}, "image/jpeg", "avatar"),
    ],
)
def test_look_tells_thumbnails_of_one_size_apart(arguments: dict[str, Any], original: str, expected: str) -> None:
    """A plain resize in the same format has no word, everything else has a short one."""
    assert expected == Recipe(**arguments).look(original)


def test_long_looks_are_shortened_and_stay_apart() -> None:
    """However much is asked for, the look fits into 32 characters, and differs where the recipe differs."""
    looks = {
        Recipe(
            **BOX, fit="contain", format="webp", animated=True, quality=quality, filter="mitchell", background=(1, 2, 3)
        ).look("image/gif")
        for quality in range(1, 50)
    }
    assert len(looks) == 49
    assert all(len(look) <= 32 and look.startswith("contain-") for look in looks)


def test_recipes_are_values() -> None:
    """Equal recipes are one key, however they were spelt."""
    assert Recipe(width=10, height=20) == Recipe(width=10, height=20, fit="cover")
    assert {Recipe(width=10, format="jpg"): 1} == {Recipe(width=10, format="image/jpeg"): 1}
    assert Recipe(ratio=1) == Recipe(ratio=1.0)
    assert Recipe(width=1, background=[1, 2, 3]).background == (1, 2, 3)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", KERNELS)
def test_familiar_filter_names_have_kernels(name: str) -> None:
    """Each familiar name stands for a kernel of libvips."""
    assert Recipe(width=1, filter=name).kernel in {"nearest", "linear", "cubic", "mitchell", "lanczos2", "lanczos3"}


def test_formats_are_those_that_can_be_written() -> None:
    """The formats of thumbnails are the five of the web."""
    assert {"avif", "gif", "jpeg", "jpg", "png", "webp"} == set(FORMATS)
