"""Sizes and looks, without an image."""

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
from aioimageattach.imaging._recipe import FORMATS, GRAVITIES, KERNELS, read_look

BOX: dict[str, Any] = {"width": 10, "height": 10}
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
        ({"ratio": Decimal("0.1")}, (300, 30), (30, 3)),
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
def test_target_is_the_requested_size(
    arguments: dict[str, Any], size: tuple[int, int], expected: tuple[int, int]
) -> None:
    """Sides that follow from the aspect ratio are rounded to the nearest pixel, and at least 1."""
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
    """``cover`` is scaled to fill the box, ``contain`` to fit into it."""
    assert expected == Recipe(width=100, height=100, fit=fit).layout(size).inner


sides = st.integers(1, 30_000)


@given(sides, sides, sides, sides, st.sampled_from(["cover", "contain", "inside"]))
@example(1, 3, 1, 2, "contain")  # the height of the box is decisive
def test_proportions_hold_to_half_a_pixel(width: int, height: int, box_width: int, box_height: int, fit: Any) -> None:
    """For all sizes, one side equals the box, and the other one is rounded from the aspect ratio."""
    scaled = Recipe(width=box_width, height=box_height, fit=fit).layout((width, height)).inner
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
        ({"ratio": Decimal("inf")}, "ratio"),
        ({"ratio": math.inf}, "ratio"),
        ({"ratio": 10**400}, "ratio"),
        ({"width": 1, "height": 1, "fit": "crop"}, "fit: expected one of cover, contain, fill, inside"),
        ({"width": 1, "filter": "sharp"}, "filter: expected one of nearest"),
        ({"width": 1, "format": "bmp"}, "format: expected one of avif, gif, jpeg, png, webp"),
        ({"width": 1, "quality": 0}, "quality: expected 1 to 100"),
        ({"width": 1, "quality": 101}, "quality"),
        ({"width": 1, "background": (0, 0, 256)}, "background: expected 0 to 255"),
        ({**BOX, "gravity": "upwards"}, "gravity: expected one of centre, north"),
        ({**BOX, "gravity": (0.5, 1.01)}, "gravity: expected 2 numbers from 0 to 1"),
        ({**BOX, "gravity": (math.nan, 0)}, "gravity: expected 2 numbers from 0 to 1"),
        ({"width": 1, "crop": (0, 0, 0, 1)}, "crop: expected left, top, width and height"),
        ({"width": 1, "crop": (0, 0, 1, 0)}, "crop: expected left, top, width and height"),
        ({"width": 1, "crop": (0.5, 0, 0.6, 1)}, "crop: expected left, top, width and height"),
        ({"width": 1, "crop": (0, 0.5, 1, 0.6)}, "crop: expected left, top, width and height"),
        ({"width": 1, "crop": (-0.1, 0, 1, 1)}, "crop: expected 4 numbers from 0 to 1"),
        ({"width": 1, "variant": ""}, "variant"),
        ({"width": 1, "variant": "Upper"}, "variant"),
        ({"width": 1, "variant": "x" * 33}, "variant"),
        ({"width": 1, "variant": "../x"}, "variant"),
    ],
)
def test_values_out_of_range_are_rejected(arguments: dict[str, Any], message: str) -> None:
    """A value out of range raises ValueError with the expected values."""
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
        {"ratio": Decimal("nan")},
        {"width": 1, "height": 1, "fit": 3},
        {"width": 1, "filter": 0},
        {"width": 1, "format": b"png"},
        {"width": 1, "quality": 80.0},
        {"width": 1, "animated": 1},
        {"width": 1, "animated": True, "format": "jpeg"},
        {"width": 1, "enlarge": None},
        {"width": 1, "gravity": "north"},
        {**BOX, "fit": "contain", "gravity": "north"},
        {**BOX, "gravity": 0.5},
        {**BOX, "gravity": (0.5,)},
        {**BOX, "gravity": (0.5, True)},
        {**BOX, "gravity": (0.5, "1")},
        {"width": 1, "crop": (0, 0, 1)},
        {"width": 1, "crop": "0011"},
        {"width": 1, "background": "white"},
        {"width": 1, "background": (1, 2)},
        {"width": 1, "background": (1, 2, 3.0)},
        {"width": 1, "preprocess": "grey"},
        {"width": 1, "postprocess": 1},
        {"width": 1, "variant": 1},
    ],
)
def test_wrong_types_and_combinations_are_rejected(arguments: dict[str, Any]) -> None:
    """Invalid types and combinations raise DeclarationError, which is a TypeError."""
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
def test_targets_beyond_limits_are_rejected(recipe: Recipe, size: tuple[int, int], original: str | None) -> None:
    """Neither the limits nor the maximum of the format may be exceeded."""
    with pytest.raises(ImageTooLargeError):
        recipe.target(size, original=original)


def test_limits_of_the_caller_hold_for_targets() -> None:
    """Higher limits allow larger thumbnails, in formats that support them."""
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
    """A format that cannot be written becomes PNG."""
    assert expected == Recipe(**arguments).mimetype(original)


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
        ({**BOX, "gravity": "center"}, "image/jpeg", "cover"),
        ({**BOX, "gravity": "north"}, "image/jpeg", "cover.north"),
        ({**BOX, "gravity": "left", "format": "webp"}, "image/jpeg", "cover.west.webp"),
        ({**BOX, "gravity": "attention"}, "image/jpeg", "cover.attention"),
        ({**BOX, "gravity": (0.404, 0.3)}, "image/jpeg", "cover.at40-30"),
        ({**BOX, "gravity": (0, 1)}, "image/jpeg", "cover.southwest"),
        ({"width": 10, "crop": (0.125, 0.08, 0.5, 0.6)}, "image/jpeg", "crop04e2032013881770"),
        ({"width": 10, "crop": (0, 0, 1, 1)}, "image/jpeg", ""),
        ({"width": 10, "enlarge": False}, "image/jpeg", ""),
    ],
)
def test_look_distinguishes_thumbnails_of_one_size(arguments: dict[str, Any], original: str, expected: str) -> None:
    """A plain resize in the same format has an empty look, every other recipe a short one."""
    assert expected == Recipe(**arguments).look(original)


def test_long_looks_are_shortened_and_stay_distinct() -> None:
    """A look has at most 32 characters, and differs if the recipe differs."""
    looks = {
        Recipe(
            **BOX, fit="contain", format="webp", animated=True, quality=quality, filter="mitchell", background=(1, 2, 3)
        ).look("image/gif")
        for quality in range(1, 50)
    }
    assert len(looks) == 49
    assert all(len(look) <= 32 and look.startswith("contain-") for look in looks)


def test_recipes_are_values() -> None:
    """Equal recipes are one dictionary key, however they were written."""
    assert Recipe(width=10, height=20) == Recipe(width=10, height=20, fit="cover")
    assert {Recipe(width=10, format="jpg"): 1} == {Recipe(width=10, format="image/jpeg"): 1}
    assert Recipe(ratio=1) == Recipe(ratio=1.0)
    assert Recipe(width=1, background=[1, 2, 3]).background == (1, 2, 3)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", KERNELS)
def test_familiar_filter_names_have_kernels(name: str) -> None:
    """Each common name maps to a kernel of libvips."""
    assert Recipe(width=1, filter=name).kernel in {"nearest", "linear", "cubic", "mitchell", "lanczos2", "lanczos3"}


def test_formats_are_those_that_can_be_written() -> None:
    """Thumbnails can have five formats."""
    assert {"avif", "gif", "jpeg", "jpg", "png", "webp"} == set(FORMATS)


@pytest.mark.parametrize(
    ("arguments", "size", "expected"),
    [
        ({"width": 600}, (400, 300), (400, 300)),
        ({"width": 401}, (400, 1), (400, 1)),
        ({"height": 600}, (400, 300), (400, 300)),
        ({"width": 200}, (400, 300), (200, 150)),
        ({"ratio": 2}, (400, 300), (400, 300)),
        ({"ratio": 0.5}, (400, 300), (200, 150)),
        ({"width": 800, "height": 800, "fit": "inside"}, (400, 300), (400, 300)),
        ({"width": 800, "height": 100, "fit": "inside"}, (400, 300), (133, 100)),
        ({"width": 800, "height": 800}, (400, 300), (300, 300)),
        ({"width": 800, "height": 400}, (400, 300), (400, 200)),
        ({"width": 100, "height": 100}, (400, 300), (100, 100)),
        ({"width": 800, "height": 800, "fit": "fill"}, (400, 300), (300, 300)),
        ({"width": 800, "height": 800, "fit": "contain"}, (400, 300), (400, 400)),
        ({"width": 400, "height": 800, "fit": "contain"}, (400, 300), (400, 800)),
        ({"width": 800, "height": 100, "fit": "contain"}, (400, 300), (800, 100)),
        ({"width": 900, "height": 900, "crop": (0, 0, 0.5, 0.5)}, (400, 300), (150, 150)),
    ],
)
def test_nothing_is_enlarged_on_request(
    arguments: dict[str, Any], size: tuple[int, int], expected: tuple[int, int]
) -> None:
    """A larger size becomes that of the original, and a larger box is reduced in proportion."""
    assert expected == Recipe(**arguments, enlarge=False).target(size)


@given(sides, sides, sides, sides, st.sampled_from(["cover", "contain", "fill", "inside"]))
def test_no_pixels_are_added_without_enlarging(width: int, height: int, across: int, down: int, fit: Any) -> None:
    """For all sizes, the image in the thumbnail is at most as wide and as high as the original."""
    free = Recipe(width=across, height=down, fit=fit)
    layout = Recipe(width=across, height=down, fit=fit, enlarge=False).layout((width, height))
    if fit == "cover":  # the part that is cropped must come from the original, too
        part = free.region((width, height), layout.target, (0.5, 0.5))
        assert (layout.target[0] <= part.width, layout.target[1] <= part.height) == (True, True)
    else:
        assert (layout.inner[0] <= width, layout.inner[1] <= height) == (True, True)
    before = free.layout((width, height))
    if before.inner[0] <= width and before.inner[1] <= height:
        assert before == layout


@pytest.mark.parametrize("mimetype", ["image/svg+xml", "application/pdf"])
def test_drawings_have_any_size(mimetype: str) -> None:
    """A vector image has no pixels, so it can be rendered at any size."""
    assert Recipe(width=900, enlarge=False).target((90, 60), original=mimetype) == (900, 600)


def test_gravities_are_points() -> None:
    """A name, its alias and the equivalent point are the same recipe; the centre is the default."""
    assert Recipe(**BOX, gravity="top") == Recipe(**BOX, gravity="north") == Recipe(**BOX, gravity=(0.5, 0))
    assert Recipe(**BOX) == Recipe(**BOX, gravity="centre") == Recipe(**BOX, gravity=(0.501, 0.499))
    assert Recipe(**BOX, gravity=[0.111, 0.115]).gravity == (0.11, 0.12)  # type: ignore[arg-type]


def test_focal_points_replace_the_gravity() -> None:
    """The focal point of an image overrides the gravity of a recipe; without ``cover`` nothing changes."""
    assert Recipe(**BOX, gravity="north").with_focal_point((0.2, 0.7)) == Recipe(**BOX, gravity=(0.2, 0.7))
    assert Recipe(**BOX, gravity="attention").with_focal_point((0.5, 0.5)) == Recipe(**BOX)
    for plain in (Recipe(width=10), Recipe(**BOX, fit="contain")):
        assert plain.with_focal_point((0.2, 0.7)) is plain
    with pytest.raises(ValueError, match="focal point: expected 2 numbers from 0 to 1"):
        Recipe(**BOX).with_focal_point((0.2, 7))


def test_crop_boxes_contain_the_crop_of_a_recipe() -> None:
    """A recipe's own crop is a part of the box; the whole image as a box changes nothing."""
    assert Recipe(width=9).with_crop_box((0.1, 0.2, 0.5, 0.8)) == Recipe(width=9, crop=(0.1, 0.2, 0.5, 0.8))
    cropped = Recipe(width=9, crop=(0.5, 0, 0.5, 0.5))
    assert cropped.with_crop_box((0.1, 0.2, 0.5, 0.8)) == Recipe(width=9, crop=(0.35, 0.2, 0.25, 0.4))
    assert cropped.with_crop_box((0, 0, 1, 1)) == cropped
    assert Recipe(width=9, crop=(0.9999, 0, 0.0001, 1)).with_crop_box((0.99, 0, 0.01, 1)).crop == (0.9999, 0, 0.0001, 1)
    with pytest.raises(ValueError, match="crop box: expected left, top, width and height of an area inside"):
        cropped.with_crop_box((0.5, 0, 0.6, 1))
    with pytest.raises(DeclarationError, match="crop box: expected 4 numbers"):
        cropped.with_crop_box((0.5, 0, 0.6))  # type: ignore[arg-type]


def test_focal_points_are_those_of_the_whole_picture() -> None:
    """With a crop box they are converted; a point outside of the box is moved to its edge."""
    recipe = Recipe(**BOX, crop=(0.5, 0, 0.5, 0.5))
    assert recipe.with_focal_point((0.6, 0.4)).gravity == (0.2, 0.8)
    assert recipe.with_focal_point((0.1, 0.9)).gravity == "southwest"


def test_crop_boxes_select_a_part() -> None:
    """Sizes are calculated from the selected part, in pixels of the given image."""
    recipe = Recipe(width=50, crop=(0.25, 0.5, 0.5, 0.5))
    assert recipe.layout((400, 300)) == ((100, 150, 200, 150), (50, 38), (50, 38))
    assert recipe.part((40, 30)) == (10, 15, 20, 15)
    assert Recipe(width=1, crop=(0.99999, 0.99999, 0.00001, 0.00001)).part((10, 10)) == (9, 9, 1, 1)
    assert Recipe(width=1, crop=(0.33335, 0, 0.66665, 1)).crop == (0.3334, 0.0, 0.6666, 1.0)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "gravity": st.sampled_from(sorted(GRAVITIES)) | st.tuples(st.floats(0, 1), st.floats(0, 1)),
            "format": st.sampled_from(["avif", "gif", "png", "webp"]),
            "filter": st.sampled_from(sorted(KERNELS)),
            "quality": st.integers(1, 100),
            "background": st.tuples(*[st.integers(0, 255)] * 3),
            "animated": st.just(True),
            "fit": st.sampled_from(["cover", "contain", "fill"]),
            "crop": st.tuples(*[st.floats(0.001, 0.499)] * 4),
        },
    )
)
def test_looks_can_be_read(arguments: dict[str, Any]) -> None:
    """The words of a look, unless it was shortened, give a recipe with that look."""
    if arguments.get("fit", "cover") != "cover":
        arguments.pop("gravity", None)
    if arguments.get("format", "gif") not in ("gif", "webp"):
        arguments.pop("animated", None)
    recipe = Recipe(**BOX, **arguments)
    look = ".".join(recipe.words("image/gif"))
    assert ".".join(Recipe(**BOX, **read_look(look)).words("image/gif")) == look
    assert recipe.look("image/gif") == look or len(look) > 32


def test_unknown_words_are_ignored() -> None:
    """A custom look gives no arguments."""
    assert read_look("") == read_look("avatar.custom.full.at1000-3.cropxyz") == {}


def test_the_look_of_the_original_size() -> None:
    """The original has the empty look, so a plain thumbnail of the same size has another one."""
    size = (400, 300)
    for recipe in (
        Recipe(width=400),
        Recipe(ratio=1),
        Recipe(width=400, height=300, fit="inside"),
    ):
        assert recipe.look("image/jpeg", size) == "full"
        assert recipe.look("image/jpeg") == ""
    assert Recipe(width=400).look("image/jpeg", (401, 300)) == ""
    assert Recipe(width=9000, enlarge=False).look("image/jpeg", size) == "full"
    assert Recipe(width=400, format="webp").look("image/jpeg", size) == "webp"
    assert Recipe(width=400, variant="mine").look("image/jpeg", size) == "mine"
