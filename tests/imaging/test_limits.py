"""Limits validate their values."""

from __future__ import annotations

import math
from typing import Any

import pytest

from aioimageattach.exc import DeclarationError, ImageProportionsError, ImageTooLargeError, ImageTooSmallError
from aioimageattach.imaging import ImageLimits
from aioimageattach.imaging._limits import DEFAULT_LIMITS, KNOWN_TYPES


def test_allow_adds_types_to_a_copy() -> None:
    """The copy accepts more types and keeps the other limits; the original is unchanged."""
    limits = ImageLimits(max_side=77)
    more = limits.allow("image/svg+xml", "image/tiff")
    assert limits.types | {"image/svg+xml", "image/tiff"} == more.types
    assert more.max_side == 77
    assert DEFAULT_LIMITS.types == limits.types
    assert limits.allow(*KNOWN_TYPES).types == KNOWN_TYPES


@pytest.mark.parametrize(
    "arguments",
    [
        {"max_bytes": 0},
        {"max_frames": -1},
        {"min_width": 0},
        {"verify": "everything"},
        {"min_height": -1},
        {"reduce_to": 0},
        {"min_aspect": 0},
        {"max_aspect": math.inf},
        {"min_aspect": 2, "max_aspect": 1.9},
        {"timeout": 0},
        {"timeout": math.inf},
        {"timeout": math.nan},
        {"types": {"image/bmp"}},
    ],
)
def test_values_out_of_range_are_rejected(arguments: dict[str, Any]) -> None:
    """A limit below 1, or an unknown type, raises ValueError."""
    with pytest.raises(ValueError, match=next(iter(arguments))):
        ImageLimits(**arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        {"max_bytes": 1.5},
        {"max_side": True},
        {"min_width": None},
        {"min_aspect": "16/9"},
        {"max_aspect": True},
        {"reduce_to": 3000.0},
        {"timeout": "1"},
        {"timeout": True},
        {"types": "image/png"},
        {"isolated": 1},
    ],
)
def test_wrong_types_are_rejected(arguments: dict[str, Any]) -> None:
    """A limit of the wrong type raises TypeError."""
    with pytest.raises(DeclarationError):
        ImageLimits(**arguments)


def test_unknown_types_cannot_be_allowed() -> None:
    """The error for an unknown type lists the known ones."""
    with pytest.raises(ValueError, match="image/tiff"):
        DEFAULT_LIMITS.allow("image/x-photo")


@pytest.mark.parametrize(
    ("size", "bytes_per_pixel", "limit", "actual"),
    [
        ((30_001, 1), None, 30_000, 30_001),
        ((1, 40_000), 1.0, 30_000, 40_000),
        ((25_001, 10_000), 0.5, 250_000_000, 250_010_000),
        ((8_000, 5_001), 25.0, 1_000_000_000, 1_000_200_000),
    ],
)
def test_errors_of_sizes_beyond_the_limits(
    size: tuple[int, int], bytes_per_pixel: float | None, limit: int, actual: int
) -> None:
    """The error has the limit and the actual value as numbers."""
    with pytest.raises(ImageTooLargeError) as caught:
        DEFAULT_LIMITS.check_size(*size, bytes_per_pixel=bytes_per_pixel)
    assert (limit, actual) == (caught.value.limit, caught.value.actual)


def test_sizes_at_the_limits_are_accepted() -> None:
    """An image at the limit is accepted."""
    DEFAULT_LIMITS.check_size(30_000, 8_333)
    DEFAULT_LIMITS.check_size(25_000, 10_000)
    DEFAULT_LIMITS.check_size(8_000, 5_000, bytes_per_pixel=25.0)
    ImageLimits(max_pixels=100, timeout=None).check_size(10, 10, bytes_per_pixel=4.0)


@pytest.mark.parametrize(
    ("limits", "size"),
    [
        (ImageLimits(min_width=800), (800, 1)),
        (ImageLimits(min_width=800, min_height=600), (800, 600)),
        (ImageLimits(min_aspect=1 / 3), (10, 30)),
        (ImageLimits(max_aspect=16 / 9), (1920, 1080)),
        (ImageLimits(min_aspect=1, max_aspect=1), (7, 7)),
    ],
)
def test_originals_at_the_limits_are_accepted(limits: ImageLimits, size: tuple[int, int]) -> None:
    """The minimum and the maximum are allowed, including ratios that have no exact float."""
    limits.check_original(*size, "image/jpeg")


@pytest.mark.parametrize(
    ("limits", "size", "name", "values"),
    [
        (ImageLimits(min_width=800), (799, 9000), "min_width", (800, 799)),
        (ImageLimits(min_width=2, min_height=600), (800, 599), "min_height", (600, 599)),
        (ImageLimits(min_aspect=0.5), (10, 21), "min_aspect", (0.5, 10 / 21)),
        (ImageLimits(max_aspect=2), (201, 100), "max_aspect", (2, 2.01)),
    ],
)
def test_errors_of_originals_beyond_the_limits(
    limits: ImageLimits, size: tuple[int, int], name: str, values: tuple[float, float]
) -> None:
    """The error names the limit, and has the limit and the image's value as numbers."""
    kind = ImageTooSmallError if "aspect" not in name else ImageProportionsError
    with pytest.raises(kind, match=rf"\({name}\)") as caught:
        limits.check_original(*size, "image/jpeg")
    assert values == (caught.value.limit, caught.value.actual)


def test_limits_for_drawings() -> None:
    """Minimum sizes do not apply to vector images, but minimum and maximum proportions do."""
    limits = ImageLimits(min_width=800, min_height=800, max_aspect=2)
    limits.check_original(24, 24, "image/svg+xml")
    with pytest.raises(ImageProportionsError):
        limits.check_original(72, 24, "image/svg+xml")
