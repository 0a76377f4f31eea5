"""Possible values of the arguments of a recipe, and functions that validate them."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from decimal import Decimal
from numbers import Real
from types import MappingProxyType
from typing import Final, Literal, TypeAlias, cast

from ..exc import DeclarationError

__all__ = [
    "CROP_STEPS",
    "DEFAULT_KERNEL",
    "FORMATS",
    "GRAVITIES",
    "KERNELS",
    "NAMES",
    "POINT_STEPS",
    "QUALITIES",
    "Crop",
    "Fit",
    "Gravity",
    "Point",
    "checked_area",
    "checked_background",
    "checked_choice",
    "checked_crop",
    "checked_format",
    "checked_fractions",
    "checked_gravity",
    "checked_int",
    "checked_ratio",
]

Fit = Literal["cover", "contain", "fill", "inside"]
"""Ways to fit an image into a box with a different aspect ratio: the values of CSS ``object-fit``, and ``inside``.

===========  ===============================================================================
``cover``    fills the box; the parts that exceed it are cropped, see ``gravity``
``contain``  fits inside the box; the remaining area is filled with ``background``
``fill``     is stretched to the box
``inside``   fits inside the box, without bars
===========  ===============================================================================
"""

Gravity = Literal[
    "centre",
    "center",
    "north",
    "top",
    "northeast",
    "east",
    "right",
    "southeast",
    "south",
    "bottom",
    "southwest",
    "west",
    "left",
    "northwest",
    "attention",
    "entropy",
]
"""Name of the part of the image that ``cover`` keeps; see :data:`GRAVITIES`."""

Point: TypeAlias = tuple[float, float]
Crop: TypeAlias = tuple[float, float, float, float]

FORMATS: Final = MappingProxyType(
    {
        "avif": "image/avif",
        "gif": "image/gif",
        "jpeg": "image/jpeg",
        "jpg": "image/jpeg",
        "png": "image/png",
        "webp": "image/webp",
    }
)
"""The formats of thumbnails and their MIME types."""

NAMES: Final = MappingProxyType({mimetype: name for name, mimetype in FORMATS.items() if name != "jpg"})
"""The MIME types of thumbnails and the names of their formats."""
_FORMAT_NAMES: Final = {key: NAMES[mimetype] for key, mimetype in (*FORMATS.items(), *zip(NAMES, NAMES, strict=True))}
"""The name of each format, by its other names and its MIME type."""

GRAVITIES: Final = MappingProxyType(
    {
        "centre": (0.5, 0.5),
        "north": (0.5, 0.0),
        "northeast": (1.0, 0.0),
        "east": (1.0, 0.5),
        "southeast": (1.0, 1.0),
        "south": (0.5, 1.0),
        "southwest": (0.0, 1.0),
        "west": (0.0, 0.5),
        "northwest": (0.0, 0.0),
        "attention": None,
        "entropy": None,
    }
)
"""Position that a crop keeps in view, in fractions of width and height; ``None`` if it depends on the pixels."""

_GRAVITY_NAMES: Final = MappingProxyType(
    {
        **{name: name for name in GRAVITIES},
        "center": "centre",
        "top": "north",
        "right": "east",
        "bottom": "south",
        "left": "west",
    }
)

KERNELS: Final = MappingProxyType(
    {
        "nearest": "nearest",
        "point": "nearest",
        "box": "nearest",
        "linear": "linear",
        "bilinear": "linear",
        "triangle": "linear",
        "cubic": "cubic",
        "bicubic": "cubic",
        "catrom": "cubic",
        "mitchell": "mitchell",
        "lanczos2": "lanczos2",
        "lanczos": "lanczos3",
        "lanczos3": "lanczos3",
        "undefined": "lanczos3",
    }
)
"""Common names of resampling filters, mapped to the kernels of libvips."""

QUALITIES: Final = MappingProxyType({"image/jpeg": 80, "image/webp": 80, "image/avif": 60})
"""Default quality by MIME type. The three values give a similar visual quality."""

DEFAULT_KERNEL: Final = "lanczos3"

POINT_STEPS: Final = 100
"""Number of steps to which each coordinate of a focal point is rounded."""
CROP_STEPS: Final = 10_000
"""Number of steps to which a crop box is rounded: finer than most images' pixels, and four hex digits in a look."""


def checked_int(label: str, value: object, low: int, high: int) -> int:
    if isinstance(value, bool):
        raise DeclarationError(f"{label}: expected an int, got {value!r}")
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise DeclarationError(f"{label}: expected an int, got {value!r:.80}") from None
    if not low <= number <= high:
        raise ValueError(f"{label}: expected {low} to {high:,}, got {_short(number)}")
    return number


def _short(number: int) -> str:
    return str(number) if -(10**12) < number < 10**12 else f"a number of {number.bit_length()} bits"


def checked_choice(label: str, value: object, known: Sequence[str]) -> str:
    if not isinstance(value, str):
        raise DeclarationError(f"{label}: expected one of {', '.join(known)}, got {value!r:.80}")
    if value not in known:
        raise ValueError(f"{label}: expected one of {', '.join(known)}, got {value!r:.80}")
    return value


def checked_fractions(label: str, values: object, count: int) -> list[float]:
    expected = "a number" if count == 1 else f"{count} numbers"
    if not isinstance(values, tuple | list) or len(values) != count or not all(map(_is_number, values)):
        raise DeclarationError(f"{label}: expected {expected} from 0 to 1, got {values!r:.80}")
    if not all(0 <= value <= 1 for value in values):
        raise ValueError(f"{label}: expected {expected} from 0 to 1, got {values!r:.80}")
    return [float(value) for value in values]


def _is_number(value: object) -> bool:
    if isinstance(value, Decimal):  # not a Real, but common in databases and JSON
        return not value.is_nan()
    return isinstance(value, Real) and not isinstance(value, bool)


def checked_gravity(gravity: object) -> str | Point:
    if gravity is None:
        return "centre"
    if isinstance(gravity, str):
        return _GRAVITY_NAMES[checked_choice("gravity", gravity, tuple(_GRAVITY_NAMES))]
    x, y = (math.floor(part * POINT_STEPS + 0.5) / POINT_STEPS for part in checked_fractions("gravity", gravity, 2))
    named = next((name for name, point in GRAVITIES.items() if point == (x, y)), None)
    return named or (x, y)


def checked_area(label: str, area: object) -> Crop:
    left, top, width, height = checked_fractions(label, area, 4)
    if width == 0 or height == 0 or left + width > 1 + 1e-9 or top + height > 1 + 1e-9:
        raise ValueError(f"{label}: expected left, top, width and height of an area inside the image, got {area!r:.80}")
    return left, top, width, height


def checked_crop(crop: object) -> Crop | None:
    left, top, width, height = checked_area("crop", crop)
    x, y = (min(math.floor(part * CROP_STEPS + 0.5), CROP_STEPS - 1) for part in (left, top))
    across = min(max(math.floor(width * CROP_STEPS + 0.5), 1), CROP_STEPS - x)
    down = min(max(math.floor(height * CROP_STEPS + 0.5), 1), CROP_STEPS - y)
    if (across, down) == (CROP_STEPS, CROP_STEPS):
        return None
    return x / CROP_STEPS, y / CROP_STEPS, across / CROP_STEPS, down / CROP_STEPS


def checked_ratio(ratio: object) -> float:
    if not _is_number(ratio):
        raise DeclarationError(f"ratio: expected a number, got {ratio!r:.80}")
    try:
        number = float(cast("float", ratio))
    except OverflowError:
        number = float("inf")
    if not 0 < number < float("inf"):
        raise ValueError(f"ratio: expected a finite number above 0, got {number!r}")
    return number


def checked_format(name: object) -> str:
    if not isinstance(name, str):
        raise DeclarationError(f"format: expected one of {', '.join(NAMES.values())}, got {name!r:.80}")
    found = _FORMAT_NAMES.get(name.lower())
    if found is None:
        raise ValueError(f"format: expected one of {', '.join(NAMES.values())}, got {name!r:.80}")
    return found


def checked_background(colour: object) -> tuple[int, int, int]:
    if not isinstance(colour, tuple | list) or len(colour) != 3:
        raise DeclarationError(f"background: expected a tuple of red, green and blue, got {colour!r:.80}")
    red, green, blue = (checked_int("background", part, 0, 255) for part in colour)
    return red, green, blue
