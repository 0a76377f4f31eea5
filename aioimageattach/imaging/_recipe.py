"""Recipes: the appearance and the size of a thumbnail."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias, cast, get_args

from ..exc import DeclarationError, ImageTooLargeError
from ._geometry import Box, covering, fitted, nearest, proportional
from ._limits import DEFAULT_LIMITS, VECTOR_TYPES, ImageLimits
from ._options import (
    CROP_STEPS,
    DEFAULT_KERNEL,
    FORMATS,
    GRAVITIES,
    KERNELS,
    NAMES,
    POINT_STEPS,
    QUALITIES,
    Crop,
    Fit,
    Gravity,
    Point,
    checked_area,
    checked_background,
    checked_choice,
    checked_crop,
    checked_format,
    checked_fractions,
    checked_gravity,
    checked_int,
    checked_ratio,
)

if TYPE_CHECKING:
    from ._vips import Image as VipsImage

__all__ = [
    "FORMATS",
    "FULL_SIZE",
    "GRAVITIES",
    "KERNELS",
    "QUALITIES",
    "Fit",
    "Gravity",
    "Layout",
    "Recipe",
    "read_look",
]

Hook: TypeAlias = "Callable[[VipsImage], VipsImage]"
_MOVING: Final = frozenset({"image/gif", "image/webp"})
_MAX_SIDES: Final = MappingProxyType(
    {"image/jpeg": 65_500, "image/webp": 16_383, "image/avif": 16_384, "image/gif": 65_535}
)
_MAX_SIDE: Final = 1_000_000
_MAX_LOOK: Final = 32
_VARIANT: Final = re.compile(r"[a-z0-9][a-z0-9.-]{0,31}", re.ASCII)
FULL_SIZE: Final = "full"
"""The look of a plain resize to the size of the original. The original itself has the empty look."""


class Layout(NamedTuple):
    """Sizes at each step from an original to its thumbnail, in pixels as displayed.

    Args:
        part: The part of the original that the recipe uses: all of it, unless the recipe has a crop box.
        inner: Size of that part after resizing, before ``cover`` crops it or ``contain`` adds bars.
        target: Size of the thumbnail.
    """

    part: Box
    inner: tuple[int, int]
    target: tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """The size, format and appearance of a thumbnail.

    Pass ``ratio``, or ``width``, or ``height``, or both ``width`` and ``height``, optionally with ``fit``. Recipes with
    the same meaning compare equal and have the same hash.

    Args:
        width: Width in pixels. Without ``height``, the height is calculated from the aspect ratio.
        height: Height in pixels. Without ``width``, the width is calculated from the aspect ratio.
        ratio: Factor by which both sides of the original are scaled: below 1 to reduce, above 1 to enlarge.
        fit: How the image is fitted into the box of ``width`` and ``height``; see :data:`Fit`. ``None`` means
            ``"cover"`` if both are given.
        enlarge: ``True`` if the thumbnail may be larger than the original. If ``False``, a larger size is reduced to
            that of the original, and a box is reduced in proportion. SVG and PDF have no pixels and are not affected.
        gravity: The part that ``"cover"`` keeps: a name of :data:`GRAVITIES`, or the focal point as fractions of the
            width and the height, from the left and from the top, rounded to 0.01. ``"attention"`` looks for faces and
            strong colours, ``"entropy"`` for detail. ``None`` means the centre.
        crop: The part of the original to use, as left, top, width and height, in fractions of the displayed original,
            rounded to 0.0001. It is cut out first: sizes, ``fit`` and ``gravity`` refer to this part. ``None`` means
            the whole image.
        format: ``"jpeg"``, ``"png"``, ``"webp"``, ``"avif"``, ``"gif"``, or a MIME type such as ``"image/webp"``.
            ``None`` keeps the original's format, except that TIFF, HEIC, SVG and PDF become PNG.
        filter: Resampling filter, a name of :data:`KERNELS`; ``None`` means ``"lanczos3"``.
        quality: Quality for JPEG, WebP and AVIF, 1 to 100; ``None`` means the default in :data:`QUALITIES`.
        animated: ``True`` to keep the frames of an animated GIF or WebP. If ``False``, only the first frame is used.
        background: Red, green and blue, 0 to 255: the colour of the bars of ``contain``, and of the background behind
            transparent parts in JPEG.
        preprocess: Called with the whole image, upright and in sRGB, before it is cropped or resized.
        postprocess: Called with the resized image. Both callables receive and return a ``pyvips.Image``, run in a
            worker thread, and are called once per frame if an animation is kept.
        variant: Your own name for this look, 1 to 32 characters of ``a-z 0-9 . -``. Always pass one together with a
            callable, so that two looks of the same size can be distinguished. ``None`` means the canonical name; see
            :meth:`look`.

    Raises:
        ValueError: A value is out of range or unknown.
        DeclarationError: An argument has the wrong type, or the arguments cannot be combined.
    """

    width: int | None = None
    height: int | None = None
    ratio: float | None = None
    fit: Fit | None = None
    enlarge: bool = True
    gravity: Gravity | Point | None = None
    crop: Crop | None = None
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
                put(self, label, checked_int(label, side, 1, _MAX_SIDE))
        if self.ratio is not None:
            put(self, "ratio", checked_ratio(self.ratio))
        self._check_combination()
        for label in ("enlarge", "animated"):
            if not isinstance(getattr(self, label), bool):
                raise DeclarationError(f"{label}: expected a bool, got {getattr(self, label)!r:.80}")
        if self.crop is not None:
            put(self, "crop", checked_crop(self.crop))
        if self.format is not None:
            put(self, "format", checked_format(self.format))
        if self.filter is not None:
            checked_choice("filter", self.filter, tuple(KERNELS))
        if self.quality is not None:
            put(self, "quality", checked_int("quality", self.quality, 1, 100))
        if self.animated and self.format is not None and FORMATS[self.format] not in _MOVING:
            raise DeclarationError(f"animated: expected the format gif or webp, got {self.format}")
        put(self, "background", checked_background(self.background))
        for label in ("preprocess", "postprocess"):
            if (hook := getattr(self, label)) is not None and not callable(hook):
                raise DeclarationError(f"{label}: expected a callable, got {hook!r:.80}")
        if self.variant is not None:
            if not isinstance(self.variant, str):
                raise DeclarationError(f"variant: expected a str, got {self.variant!r:.80}")
            if not _VARIANT.fullmatch(self.variant):
                raise ValueError(
                    f"variant: expected 1 to 32 characters of a-z, 0-9, '.' and '-', starting with a letter or digit, "
                    f"got {self.variant!r:.80}"
                )

    def _check_combination(self) -> None:
        box = (self.width is not None, self.height is not None)
        if self.ratio is not None and any(box):
            raise DeclarationError("ratio: expected no width and no height beside it; pass either")
        if self.ratio is None and not any(box):
            raise DeclarationError("expected width, height, both, or ratio; got none of them")
        if self.fit is not None:
            checked_choice("fit", self.fit, get_args(Fit))
            if not all(box):
                raise DeclarationError("fit: expected both width and height beside it")
        elif all(box):
            object.__setattr__(self, "fit", "cover")
        if self.fit == "cover":
            object.__setattr__(self, "gravity", checked_gravity(self.gravity))
        elif self.gravity is not None:
            raise DeclarationError('gravity: expected both width and height, and fit="cover", beside it')

    @property
    def kernel(self) -> str:
        """The libvips kernel of :attr:`filter`."""
        return KERNELS[self.filter or "undefined"]

    def with_focal_point(self, point: Point) -> Recipe:
        """Return a copy that keeps this point of the original in view, instead of the recipe's own ``gravity``.

        A recipe whose ``fit`` is not ``"cover"`` does not depend on a focal point and is returned unchanged.

        Args:
            point: Fractions of the original's displayed width and height, from the left and from the top.

        Raises:
            ValueError: A fraction is below 0 or above 1.
            DeclarationError: ``point`` is not a pair of numbers.
        """
        if self.fit != "cover":
            return self
        x, y = checked_fractions("focal point", point, 2)
        if self.crop is not None:
            left, top, width, height = self.crop
            x, y = min(max((x - left) / width, 0.0), 1.0), min(max((y - top) / height, 0.0), 1.0)
        return replace(self, gravity=(x, y))

    def with_crop_box(self, box: Crop) -> Recipe:
        """Return a copy that renders only this part of the original. The recipe's own ``crop`` is a part of the box.

        Args:
            box: Left, top, width and height, as fractions of the displayed original.

        Raises:
            ValueError: The box is empty, or not inside the image.
            DeclarationError: ``box`` is not four numbers.
        """
        left, top, width, height = checked_area("crop box", box)
        if self.crop is not None:
            inner_left, inner_top, inner_width, inner_height = self.crop
            left, top = left + inner_left * width, top + inner_top * height
            width, height = inner_width * width, inner_height * height
        return replace(self, crop=(left, top, width, height))

    def layout(self, size: tuple[int, int], original: str = "") -> Layout:
        """Return the sizes at each step from an original to its thumbnail, without checking them against any limit.

        Args:
            size: Width and height of the original, in pixels, as displayed.
            original: The original's MIME type; ``enlarge=False`` does not apply to vector images.
        """
        part = self.part(size)
        most = None if self.enlarge or original in VECTOR_TYPES else part.size
        if self.ratio is not None:
            ratio = self.ratio if most is None else min(self.ratio, 1.0)
            # 1e15 is far beyond every limit, so clamping there changes nothing and prevents float overflow
            width, height = (max(1, int(min(side * ratio, 1e15) + 0.5)) for side in part.size)
            return Layout(part, (width, height), (width, height))
        if self.width is None or self.height is None or self.fit == "inside":
            inner = self._scaled(part.size)
            if most is not None and (inner[0] > most[0] or inner[1] > most[1]):
                inner = most
            return Layout(part, inner, inner)
        target = self.width, self.height
        if most is not None:
            # the largest box that the image fills (cover, fill) or fits into (contain) without being enlarged
            smaller = fitted(target, most, cover=self.fit == "contain")
            target = min(target, smaller)
        return Layout(
            part, target if self.fit == "fill" else fitted(part.size, target, cover=self.fit == "cover"), target
        )

    def _scaled(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the size of an image scaled to fit inside the box, or to the one given side."""
        if self.width is not None and self.height is not None:
            return fitted(size, (self.width, self.height))
        if self.width is not None:
            return self.width, nearest(size[1] * self.width, size[0])
        height = cast("int", self.height)
        return nearest(size[0] * height, size[1]), height

    def part(self, size: tuple[int, int]) -> Box:
        """Return the part of an image that :attr:`crop` selects, in pixels of that image.

        Args:
            size: Width and height of the original, or of a smaller copy, as displayed.
        """
        whole = Box(0, 0, *size)
        return whole if self.crop is None else proportional(whole, self.crop)

    def region(self, size: tuple[int, int], target: tuple[int, int], point: Point) -> Box:
        """Return the part of an image that becomes the thumbnail, in pixels of that image.

        Args:
            size: Width and height of the original, or of a smaller copy, as displayed.
            target: Width and height of the thumbnail.
            point: The focal point of ``cover``, in fractions of the :meth:`part`.
        """
        part = self.part(size)
        return covering(part, target, point) if self.fit == "cover" else part

    def target(
        self, size: tuple[int, int], *, original: str | None = None, limits: ImageLimits = DEFAULT_LIMITS
    ) -> tuple[int, int]:
        """Return the width and height of the thumbnail, in pixels as displayed, each at least 1.

        A side that is calculated from the aspect ratio is rounded to the nearest pixel. ``preprocess`` and
        ``postprocess`` can change the size; this method cannot take that into account.

        Args:
            size: Width and height of the original, in pixels as displayed.
            original: MIME type of the original. If given, the size limits of the thumbnail's format are also checked.
            limits: Limits for the thumbnail.

        Raises:
            ImageTooLargeError: The thumbnail would exceed ``limits`` or the largest size of its format.
        """
        width, height = self.layout(size, original or "").target
        limits.check_size(width, height, what="a thumbnail")
        if original is not None or self.format is not None:
            mimetype = self.mimetype(original or "")
            longest = _MAX_SIDES.get(mimetype, _MAX_SIDE)
            if max(width, height) > longest:
                raise ImageTooLargeError(
                    f"expected a thumbnail of at most {longest:,} pixels per side, the maximum of {mimetype}, "
                    f"got {width} x {height}",
                    limit=longest,
                    actual=max(width, height),
                )
        return width, height

    def mimetype(self, original: str) -> str:
        """Return the MIME type of the thumbnail for an original of the given MIME type."""
        if self.format is not None:
            return FORMATS[self.format]
        return original if original in NAMES else "image/png"

    def is_animated_for(self, original: str) -> bool:
        """Return whether the thumbnail of an animated original of the given MIME type keeps its frames."""
        return self.animated and original in _MOVING and self.mimetype(original) in _MOVING

    def words(self, original: str) -> tuple[str, ...]:
        """Return the canonical words that describe the result of this recipe, apart from its size.

        Two recipes that produce the same pixels at the same size have the same words, in every process and in every
        version of this library. The words consist of ``a-z 0-9 -``; :func:`read_look` parses them. They do not include
        ``variant`` and ``enlarge``.

        Args:
            original: MIME type of the original.
        """
        mimetype = self.mimetype(original)
        words: list[str] = []
        if self.fit in ("cover", "contain", "fill"):
            words.append(self.fit)
        if self.crop is not None:
            words.append("crop" + "".join(f"{round(part * CROP_STEPS):04x}" for part in self.crop))
        if isinstance(self.gravity, tuple):
            words.append("at" + "-".join(str(round(part * POINT_STEPS)) for part in self.gravity))
        elif self.gravity not in (None, "centre"):
            words.append(self.gravity)
        if original and mimetype != original:
            words.append(NAMES[mimetype])
        if self.is_animated_for(original):
            words.append("animated")
        if self.kernel != DEFAULT_KERNEL:
            words.append(self.kernel)
        if self.quality is not None and self.quality != QUALITIES.get(mimetype, self.quality):
            words.append(f"q{self.quality}")
        if self.background != (255, 255, 255) and (self.fit == "contain" or mimetype == "image/jpeg"):
            words.append("bg{:02x}{:02x}{:02x}".format(*self.background))
        if self.preprocess is not None or self.postprocess is not None:
            words.append("custom")
        return tuple(words)

    def look(self, original: str, size: tuple[int, int] | None = None) -> str:
        """Return the name of the look, which distinguishes a thumbnail from others of the same size.

        The name is :attr:`variant` if there is one; otherwise the :meth:`words` joined by dots, such as ``"cover"``,
        ``"webp"`` or ``"cover.north.webp.q95"``. A plain resize in the format of the original has an empty name. If it
        also has the size of the original, its name is ``"full"``, because the original itself has the empty name. A
        name has at most 32 characters of ``a-z 0-9 . -``; a longer one is shortened to its first word and a checksum.

        Args:
            original: MIME type of the original.
            size: Width and height of the original; ``None`` if unknown.
        """
        if self.variant is not None:
            return self.variant
        words = self.words(original)
        look = ".".join(words)
        if not look and size is not None and self.layout(size, original).target == size:
            return FULL_SIZE
        if len(look) > _MAX_LOOK:
            look = f"{words[0]}-{hashlib.sha256(look.encode()).hexdigest()[:16]}"
        return look


def read_look(look: str) -> dict[str, Any]:
    """Return the arguments of :class:`Recipe` that a look describes, ignoring unknown words.

    To find out whether the look is complete, compare it with :meth:`Recipe.look` of a recipe with these arguments.

    Args:
        look: A name from :meth:`Recipe.look`.
    """
    found: dict[str, Any] = {}
    for part in look.split("."):
        if part in ("cover", "contain", "fill"):
            found["fit"] = part
        elif part in GRAVITIES:
            found["gravity"] = part
        elif part in KERNELS:
            found["filter"] = part
        elif part in FORMATS:
            found["format"] = part
        elif part == "animated":
            found["animated"] = True
        elif match := re.fullmatch(r"at(\d{1,3})-(\d{1,3})", part, re.ASCII):
            found["gravity"] = tuple(int(number) / POINT_STEPS for number in match.groups())
        elif match := re.fullmatch(r"crop([0-9a-f]{4})([0-9a-f]{4})([0-9a-f]{4})([0-9a-f]{4})", part):
            found["crop"] = tuple(int(number, 16) / CROP_STEPS for number in match.groups())
        elif re.fullmatch(r"q\d{1,3}", part, re.ASCII):
            found["quality"] = int(part[1:])
        elif re.fullmatch(r"bg[0-9a-f]{6}", part):
            found["background"] = tuple(bytes.fromhex(part[2:]))
    return found
