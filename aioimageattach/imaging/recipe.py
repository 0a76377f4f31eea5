"""What a thumbnail is to look like, and how large it is then: plain arithmetic."""

from __future__ import annotations

import hashlib
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, cast, get_args

from ..exc import DeclarationError, ImageTooLargeError
from .limits import DEFAULT_LIMITS, ImageLimits

if TYPE_CHECKING:
    from ._vips import Image as VipsImage

__all__ = ["FORMATS", "KERNELS", "QUALITIES", "Fit", "Recipe"]

Fit = Literal["cover", "contain", "fill", "inside"]
"""How a picture fills a box of other proportions; the words of CSS ``object-fit``, and ``inside``.

===========  ===============================================================================
``cover``    fills the box, what stands over is cropped evenly on both sides
``contain``  all of it stands inside the box, the rest is painted with the background
``fill``     is stretched to the box
``inside``   all of it stands inside the box, and the result is no larger than it must be
===========  ===============================================================================
"""

Hook: TypeAlias = "Callable[[VipsImage], VipsImage]"

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
"""The formats of thumbnails and their types."""

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
"""The familiar names of filters, and the kernels of libvips they stand for."""

QUALITIES: Final = MappingProxyType({"image/jpeg": 80, "image/webp": 80, "image/avif": 60})
"""The default quality of the formats that have one; the three look alike."""

DEFAULT_KERNEL: Final = "lanczos3"

_SAVABLE: Final = frozenset(FORMATS.values())
_NAMES: Final = MappingProxyType({mimetype: name for name, mimetype in FORMATS.items() if name != "jpg"})
_MOVING: Final = frozenset({"image/gif", "image/webp"})
_MAX_SIDES: Final = MappingProxyType(
    {"image/jpeg": 65_500, "image/webp": 16_383, "image/avif": 16_384, "image/gif": 65_535}
)
_MAX_SIDE: Final = 1_000_000
_VARIANT: Final = re.compile(r"[a-z0-9][a-z0-9.-]{0,31}", re.ASCII)


def _whole(label: str, value: object, low: int, high: int) -> int:
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


def _word(label: str, value: object, known: tuple[str, ...]) -> str:
    if not isinstance(value, str):
        raise DeclarationError(f"{label}: expected one of {', '.join(known)}, got {value!r:.80}")
    if value not in known:
        raise ValueError(f"{label}: expected one of {', '.join(known)}, got {value!r:.80}")
    return value


def _nearest(numerator: int, denominator: int) -> int:
    """The whole number nearest to a fraction, halves up, at least 1."""
    return max(1, (2 * numerator + denominator) // (2 * denominator))


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What a thumbnail is to look like.

    Give ``ratio``, or ``width``, or ``height``, or both sides with ``fit``. Recipes compare and hash by what they say.

    Args:
        width: In pixels; alone, the height follows the proportions.
        height: In pixels; alone, the width follows the proportions.
        ratio: Times the original's sides: below 1 shrinks, above 1 enlarges.
        fit: How the picture fills the box of ``width`` and ``height``; ``None`` means ``"cover"`` where both are given.
        format: ``"jpeg"``, ``"png"``, ``"webp"``, ``"avif"``, ``"gif"``, or their types such as ``"image/webp"``.
            ``None`` keeps the original's; TIFF, HEIC, SVG and PDF become PNG.
        filter: The kernel that resizes, by a name of :data:`KERNELS`; ``None`` and ``"undefined"`` mean the best guess.
        quality: 1 to 100, for JPEG, WebP and AVIF; ``None`` means :data:`QUALITIES`.
        animated: Whether an animated GIF or WebP keeps its frames; else the first one is taken.
        background: Red, green and blue, 0 to 255: the bars of ``contain``, and what clear parts become in JPEG.
        preprocess: Is called with the whole picture, upright and in sRGB, before it is resized.
        postprocess: Is called with the resized picture. Both get and return a ``pyvips.Image``, run in a worker
            thread, and are called once per frame where an animation is kept.
        variant: Your name for this look, 1 to 32 of ``a-z 0-9 . -``; give one wherever you give a callable, so that
            two looks of one size can be told apart. ``None`` means the canonical one, :meth:`look`.

    Raises:
        ValueError: A value is out of range or not known.
        DeclarationError: An argument is of the wrong type, or they cannot be combined.
    """

    width: int | None = None
    height: int | None = None
    ratio: float | None = None
    fit: Fit | None = None
    format: str | None = None
    filter: str | None = None
    quality: int | None = None
    animated: bool = False
    background: tuple[int, int, int] = (255, 255, 255)
    preprocess: Hook | None = None
    postprocess: Hook | None = None
    variant: str | None = None

    def __post_init__(self) -> None:
        put = object.__setattr__
        for label in ("width", "height"):
            if (side := getattr(self, label)) is not None:
                put(self, label, _whole(label, side, 1, _MAX_SIDE))
        if self.ratio is not None:
            put(self, "ratio", _checked_ratio(self.ratio))
        self._check_combination()
        if self.format is not None:
            put(self, "format", _checked_format(self.format))
        if self.filter is not None:
            _word("filter", self.filter, tuple(KERNELS))
        if self.quality is not None:
            put(self, "quality", _whole("quality", self.quality, 1, 100))
        if not isinstance(self.animated, bool):
            raise DeclarationError(f"animated: expected a bool, got {self.animated!r:.80}")
        if self.animated and self.format is not None and FORMATS[self.format] not in _MOVING:
            raise DeclarationError(f"animated: {self.format} thumbnails are not animated here; use gif or webp")
        put(self, "background", _checked_background(self.background))
        for label in ("preprocess", "postprocess"):
            if (hook := getattr(self, label)) is not None and not callable(hook):
                raise DeclarationError(f"{label}: expected a callable, got {hook!r:.80}")
        if self.variant is not None:
            if not isinstance(self.variant, str):
                raise DeclarationError(f"variant: expected a text, got {self.variant!r:.80}")
            if not _VARIANT.fullmatch(self.variant):
                raise ValueError(
                    f"variant: expected 1 to 32 of a-z, 0-9, '.' and '-', a letter or digit first: {self.variant!r:.80}"
                )

    def _check_combination(self) -> None:
        box = (self.width is not None, self.height is not None)
        if self.ratio is not None and any(box):
            raise DeclarationError("ratio: give it alone, without width and height")
        if self.ratio is None and not any(box):
            raise DeclarationError("expected ratio, width, height, or width and height")
        if self.fit is not None:
            _word("fit", self.fit, get_args(Fit))
            if not all(box):
                raise DeclarationError("fit: give it with both width and height")
        elif all(box):
            object.__setattr__(self, "fit", "cover")

    @property
    def kernel(self) -> str:
        """The kernel of libvips that resizes."""
        return KERNELS[self.filter or "undefined"]

    def target(
        self, size: tuple[int, int], *, original: str | None = None, limits: ImageLimits = DEFAULT_LIMITS
    ) -> tuple[int, int]:
        """Return the width and height of the thumbnail, in pixels, as displayed; neither is ever 0.

        A side that follows the proportions is rounded to the nearest pixel. What a ``preprocess`` or ``postprocess``
        does to the size is not known here.

        Args:
            size: Width and height of the original as displayed.
            original: The original's type; with it the limits of the thumbnail's format are checked too.
            limits: The thumbnail may not go beyond them either.

        Raises:
            ImageTooLargeError: The thumbnail would be beyond the limits, or what its format can hold.
        """
        width, height = self.scaled(size)
        if self.fit in ("cover", "contain"):
            width, height = self.width or width, self.height or height
        limits.check_size(width, height, what="the thumbnail")
        if original is not None or self.format is not None:
            mimetype = self.mimetype(original or "")
            longest = _MAX_SIDES.get(mimetype, _MAX_SIDE)
            if max(width, height) > longest:
                raise ImageTooLargeError(
                    f"the thumbnail is {width} x {height}: {mimetype} has sides of at most {longest:,} pixels",
                    limit=longest,
                    actual=max(width, height),
                )
        return width, height

    def scaled(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return what the whole original becomes, before ``cover`` crops it or ``contain`` adds bars."""
        width, height = size
        if self.ratio is not None:
            # far beyond every limit is as good as exact there, and no float overflows
            return tuple(max(1, int(min(side * self.ratio, 1e15) + 0.5)) for side in size)  # type: ignore[return-value]
        if self.fit == "fill":
            return cast("int", self.width), cast("int", self.height)
        if self.height is None or (self.width is not None and self._width_binds(self.width, self.height, size)):
            box = cast("int", self.width)
            return box, _nearest(height * box, width)
        return _nearest(width * self.height, height), self.height

    def _width_binds(self, box_width: int, box_height: int, size: tuple[int, int]) -> bool:
        wider = box_width * size[1] <= box_height * size[0]  # the original, than the box
        return wider != (self.fit == "cover")

    def mimetype(self, original: str) -> str:
        """Return the thumbnail's type, for an original of that type."""
        if self.format is not None:
            return FORMATS[self.format]
        return original if original in _SAVABLE else "image/png"

    def moves(self, original: str) -> bool:
        """Whether the thumbnail of an animated original of that type keeps its frames."""
        return self.animated and original in _MOVING and self.mimetype(original) in _MOVING

    def look(self, original: str) -> str:
        """Return the name of this look: what tells it from other thumbnails of the same size.

        :attr:`variant` where there is one. Else empty for a plain resize in the original's own format, and short words
        joined by dots for others, such as ``"cover"``, ``"webp"``, ``"cover.webp.q95"``; at most 32 of
        ``a-z 0-9 . -``, the same in every process.

        Args:
            original: The original's type.
        """
        if self.variant is not None:
            return self.variant
        mimetype = self.mimetype(original)
        words: list[str] = []
        if self.fit in ("cover", "contain", "fill"):
            words.append(self.fit)
        if original and mimetype != original:
            words.append(_NAMES[mimetype])
        if self.moves(original):
            words.append("animated")
        if self.kernel != DEFAULT_KERNEL:
            words.append(self.kernel)
        if self.quality is not None and self.quality != QUALITIES.get(mimetype, self.quality):
            words.append(f"q{self.quality}")
        if self.background != (255, 255, 255) and (self.fit == "contain" or mimetype == "image/jpeg"):
            words.append("bg{:02x}{:02x}{:02x}".format(*self.background))
        if self.preprocess is not None or self.postprocess is not None:
            words.append("custom")
        look = ".".join(words)
        if len(look) > 32:
            look = f"{words[0]}-{hashlib.sha256(look.encode()).hexdigest()[:16]}"
        return look


def _checked_ratio(ratio: object) -> float:
    if isinstance(ratio, bool) or not isinstance(ratio, Real):
        raise DeclarationError(f"ratio: expected a number, got {ratio!r:.80}")
    try:
        number = float(ratio)
    except OverflowError:
        number = float("inf")
    if not 0 < number < float("inf"):
        raise ValueError(f"ratio: expected a finite number above 0, got {number!r}")
    return number


def _checked_format(name: object) -> str:
    if not isinstance(name, str):
        raise DeclarationError(f"format: expected one of {', '.join(_NAMES.values())}, got {name!r:.80}")
    known = {**FORMATS, **{mimetype: mimetype for mimetype in _SAVABLE}}
    mimetype = known.get(name.lower())
    if mimetype is None:
        raise ValueError(f"format: expected one of {', '.join(_NAMES.values())}, got {name!r:.80}")
    return _NAMES[mimetype]


def _checked_background(colour: object) -> tuple[int, int, int]:
    if not isinstance(colour, tuple | list) or len(colour) != 3:
        raise DeclarationError(f"background: expected red, green and blue, got {colour!r:.80}")
    red, green, blue = (_whole("background", part, 0, 255) for part in colour)
    return red, green, blue
