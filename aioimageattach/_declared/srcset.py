"""The declarations in ``__thumbnails__`` of an image class, and the thumbnail files that they define."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import lru_cache
from hashlib import blake2b
from types import MappingProxyType
from typing import Any, Final, TypeAlias

from .._names import extension
from ..exc import DeclarationError, ImageTooLargeError
from ..imaging._geometry import fitted, nearest
from ..imaging._limits import ImageLimits
from ..imaging._options import (
    CROP_STEPS,
    DEFAULT_KERNEL,
    POINT_STEPS,
    Crop,
    Gravity,
    Point,
    checked_format,
    checked_int,
)
from ..imaging._recipe import Recipe
from ..key import VECTOR_TYPES
from .framing import WHOLE, Framing
from .names import NAME

__all__ = ["Declaration", "Declarations", "Ladder", "Srcset", "Step", "declarations"]

_MAX_WIDTH: Final = 65_500
_MOVING: Final = ("gif", "webp")
_NEARLY: Final = 1.1
_KEPT: Final = 4096
"""Number of different originals for which a declaration caches the list of files."""


@dataclass(frozen=True, slots=True)
class Srcset:
    """A thumbnail in several widths and formats, from which the browser chooses.

    ::

        Srcset([320, 640, 1280], sizes="(min-width: 60rem) 33vw, 100vw")

    No thumbnail is larger than its original. If the original is narrower than the largest of ``widths``, the larger
    widths are left out, and the original's own width is added. The next smaller width is left out, too, if the original
    is less than 10 % wider. If the original has a crop box, its size is used instead of that of the original.

    Args:
        widths: Widths of the files, in pixels.
        aspect: Aspect ratio to which the image is cropped, as width and height, such as ``(1, 1)``; ``None`` keeps
            the original's aspect ratio.
        sizes: Displayed width of the image, as in the HTML attribute ``sizes``, such as ``"48px"``. With several
            widths, ``img()`` and ``picture()`` require it, here or as an argument, because without it browsers assume
            that the image is as wide as the window.
        formats: Formats of the files, the preferred one first. AVIF takes five times as long to encode as WebP.
        fallback: Format of an additional file, of medium width, for clients that do not support the other formats,
            such as e-mail clients; ``None`` for no additional file.
        gravity: The part to keep if there is an ``aspect``. For this and the following arguments, see
            :class:`~aioimageattach.imaging.Recipe`.
        crop: The part of the original, or of its crop box, to use.
        filter: Resampling filter.
        quality: Quality in all formats, 1 to 100; ``None`` means the default of each format.
        animated: ``True`` to keep the frames of an animation. Thumbnails of animated originals are then made in
            animated formats only.
        background: Colour behind transparent parts in JPEG.
        preprocess: Function called with the whole image; requires ``variant``.
        postprocess: Function called with each resized image; requires ``variant``.
        variant: Name that you give to the effect of these functions. Change it whenever one of them changes.

    Raises:
        ValueError: A value is out of range or unknown.
        DeclarationError: An argument has the wrong type, or the arguments cannot be combined.
    """

    widths: Sequence[int]
    _: KW_ONLY
    aspect: tuple[int, int] | None = None
    sizes: str | None = None
    formats: Sequence[str] = ("webp",)
    fallback: str | None = "jpeg"
    gravity: Gravity | Point | None = None
    crop: Crop | None = None
    filter: str | None = None
    quality: int | None = None
    animated: bool = False
    background: tuple[int, int, int] = (255, 255, 255)
    preprocess: Any = None
    postprocess: Any = None
    variant: str | None = None
    recipe: Recipe = field(init=False, repr=False)
    """Recipe that all files share, except for their size and format."""

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "widths", _checked("widths", self.widths, lambda width: checked_int("widths", width, 1, _MAX_WIDTH)))
        put(self, "formats", _checked("formats", self.formats, checked_format))
        put(self, "widths", tuple(sorted(self.widths)))
        if self.fallback is not None:
            put(self, "fallback", checked_format(self.fallback))
        if self.sizes is not None and not isinstance(self.sizes, str):
            raise DeclarationError(f"sizes: expected a str, got {self.sizes!r:.80}")
        aspect = self.aspect
        if aspect is not None:
            if not isinstance(aspect, tuple | list) or len(aspect) != 2:
                raise DeclarationError(f"aspect: expected width and height, such as (4, 3), got {aspect!r:.80}")
            sides = [checked_int("aspect", side, 1, 10_000) for side in aspect]
            put(self, "aspect", tuple(side // math.gcd(*sides) for side in sides))
        elif self.gravity is not None:
            raise DeclarationError("gravity: expected an aspect beside it; without one, nothing is cropped")
        recipe = Recipe(
            width=self.widths[-1],
            height=None if aspect is None else self.widths[-1],
            enlarge=False,
            gravity=self.gravity,
            crop=self.crop,
            filter=self.filter,
            quality=self.quality,
            animated=self.animated,
            background=self.background,
            preprocess=self.preprocess,
            postprocess=self.postprocess,
            variant=self.variant,
        )
        put(self, "recipe", recipe)
        for name in ("crop", "background"):
            put(self, name, getattr(recipe, name))


def _checked(label: str, values: object, check: Any) -> tuple[Any, ...]:
    if isinstance(values, str) or not isinstance(values, Sequence) or not values:
        raise DeclarationError(f"{label}: expected a list of at least one value, got {values!r:.80}")
    found = tuple(check(value) for value in values)
    if len(set(found)) < len(found):
        raise ValueError(f"{label}: expected different values, got {values!r:.80}")
    return found


@dataclass(frozen=True, slots=True)
class Step:
    """One file of a thumbnail.

    Args:
        recipe: The recipe of the file, without a crop; see :meth:`Declaration.recipe_of`.
        width: Width in pixels.
        height: Height in pixels.
        mimetype: MIME type, such as ``"image/webp"``.
        tail: End of the file name: the size and the extension.
    """

    recipe: Recipe
    width: int
    height: int
    mimetype: str
    tail: str


@dataclass(frozen=True, slots=True)
class Ladder:
    """The files of one thumbnail of one original.

    Args:
        formats: The files of each format, ordered by width; the preferred format first.
        fallback: The file for clients that do not support ``srcset``; ``None`` if there are no files.
        steps: All files without duplicates.
        sources: The formats that browsers can choose from. One that has no other file than the fallback is not among
            them.
    """

    formats: tuple[tuple[Step, ...], ...]
    fallback: Step | None
    steps: tuple[Step, ...] = field(init=False)
    sources: tuple[tuple[Step, ...], ...] = field(init=False)

    def __post_init__(self) -> None:
        found = {step.tail: step for steps in self.formats for step in steps}
        if self.fallback is not None:
            found.setdefault(self.fallback.tail, self.fallback)
        object.__setattr__(self, "steps", tuple(found.values()))
        object.__setattr__(self, "sources", tuple(steps for steps in self.formats if steps != (self.fallback,)))

    @property
    def compatible(self) -> tuple[Step, ...]:
        """The files of the last format, which most clients support, for contexts that can offer only one format."""
        formats = self.sources or self.formats
        return formats[-1] if formats else ()


class Declaration:
    """One entry of ``__thumbnails__``.

    Args:
        name: Name of the thumbnail.
        value: The declared value.
        limits: Limits on originals and thumbnails.

    Attributes:
        look: Description of the processing, the same in every process and in every version of this library.
        crops: ``True`` if the result depends on a focal point.
        digest: Identifier of the set of files that the declaration defines.
    """

    def __init__(self, name: str, value: Srcset | Recipe, limits: ImageLimits) -> None:
        recipe = value.recipe if isinstance(value, Srcset) else value
        aspect = value.aspect if isinstance(value, Srcset) else None
        self.name: str = name
        self.value: Srcset | Recipe = value
        self.limits: ImageLimits = limits
        self._recipe = recipe
        self._uncropped: Recipe = replace(recipe, crop=None)
        self.crops: bool = recipe.fit == "cover" or aspect is not None
        self.look: str = _look(recipe, aspect)
        files: list[Any] = [recipe.width, recipe.height, recipe.ratio, recipe.fit, recipe.format]
        if isinstance(value, Srcset):
            files = [value.widths, value.formats, value.fallback]
        self.digest: str = blake2b(f"{name} {self.look} {files}".encode(), digest_size=8).hexdigest()
        self._ladders: dict[tuple[int, int, str, Any], Ladder] = {}

    def __repr__(self) -> str:
        return f"<Declaration {self.name!r}: {self.value!r}>"

    @property
    def sizes(self) -> str | None:
        """The HTML attribute ``sizes``."""
        return self.value.sizes if isinstance(self.value, Srcset) else None

    def relevant(self, framing: Framing) -> Framing:
        """Return the part of a framing that the result depends on."""
        return framing if self.crops else framing.without_point()

    def ladder(self, width: int, height: int, mimetype: str, framing: Framing = WHOLE) -> Ladder:
        """Return the files for an original. Their sizes depend only on that of the part of it that is shown.

        Args:
            width: Width of the original, in pixels, as displayed.
            height: Height of the original, in pixels, as displayed.
            mimetype: MIME type of the original.
            framing: Crop box and focal point of the original.
        """
        original = width, height, mimetype, framing.box
        found = self._ladders.get(original)
        if found is None:
            if len(self._ladders) >= _KEPT:
                self._ladders.clear()
            part = framing.boxed(self._recipe).part((width, height))
            found = self._ladders[original] = self._make_ladder(part.size, mimetype)
        return found

    def recipe_of(self, step: Step, framing: Framing) -> Recipe:
        """Return the recipe of a file with the crop of the declaration, the crop box and the focal point."""
        crop = framing.boxed(self._recipe).crop
        return framing.focused(step.recipe if crop is None else replace(step.recipe, crop=crop))

    def _make_ladder(self, size: tuple[int, int], original: str) -> Ladder:
        if isinstance(self.value, Recipe):
            steps = self._steps([replace(self._uncropped, enlarge=False)], size, original)
            return Ladder((steps,) if steps else (), steps[0] if steps else None)
        srcset, common = self.value, self._uncropped
        boxes = _boxes(srcset, size, original)
        animated = common.is_animated_for(original)
        names = [name for name in srcset.formats if name in _MOVING or not animated]
        formats = []
        for name in names or ["webp"]:
            recipes = [_with_box(common, name, animated, *box) for box in boxes]
            formats.append(self._steps(recipes, size, original))
        found = tuple(steps for steps in formats if steps)
        return Ladder(found, self._fallback(srcset, found, size, original))

    def _fallback(
        self, srcset: Srcset, formats: tuple[tuple[Step, ...], ...], size: tuple[int, int], original: str
    ) -> Step | None:
        if not formats:
            return None
        middle = formats[-1][len(formats[-1]) // 2]
        if srcset.fallback is None or middle.recipe.animated:
            return middle
        made = self._steps([replace(middle.recipe, format=srcset.fallback)], size, original)
        known = {step.tail: step for steps in formats for step in steps}
        return known.get(made[0].tail, made[0]) if made else middle

    def _steps(self, recipes: Sequence[Recipe], size: tuple[int, int], original: str) -> tuple[Step, ...]:
        """Return the files that recipes make, ordered by width, without those that exceed a limit."""
        steps: dict[str, Step] = {}
        for recipe in recipes:
            try:
                width, height = recipe.target(size, original=original, limits=self.limits)
            except ImageTooLargeError:
                continue
            mimetype = recipe.mimetype(original)
            step = Step(recipe, width, height, mimetype, f".{width}x{height}{extension(mimetype)}")
            steps.setdefault(step.tail, step)
        return tuple(steps.values())


Declarations: TypeAlias = Mapping[str, Declaration]
"""The declarations of a class, by name."""


def declarations(found: object, where: str, limits: ImageLimits) -> Declarations:
    """Validate the declarations of a class.

    Args:
        found: The value of ``__thumbnails__``.
        where: Name of the class, for error messages.
        limits: Limits of the class.

    Raises:
        DeclarationError: A declaration is invalid.
    """
    if not isinstance(found, Mapping):
        raise DeclarationError(f"{where}.__thumbnails__: expected a dict, got {found!r:.80}")
    for name, value in found.items():
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise DeclarationError(
                f"{where}.__thumbnails__: expected names of 1 to 16 lower-case letters, digits and '_', the first one "
                f"a letter, got {name!r:.80}"
            )
        if not isinstance(value, Srcset | Recipe):
            raise DeclarationError(
                f"{where}.__thumbnails__[{name!r}]: expected a Srcset or a Recipe, got {value!r:.80}"
            )
        if (value.preprocess is not None or value.postprocess is not None) and value.variant is None:
            raise DeclarationError(
                f"{where}.__thumbnails__[{name!r}]: expected a variant, your name for the effect of the callable, got "
                "None; file names depend on it, so change it whenever the callable changes"
            )
    return MappingProxyType({name: Declaration(name, value, limits) for name, value in found.items()})


@lru_cache(_KEPT)
def _with_box(recipe: Recipe, format: str, animated: bool, width: int, height: int | None) -> Recipe:
    return replace(recipe, format=format, animated=animated, width=width, height=height)


def _boxes(srcset: Srcset, part: tuple[int, int], original: str) -> list[tuple[int, int | None]]:
    """Return the width and height of each file's recipe.

    Unless the original is a vector image, they are limited to the size of the part of it that is shown.
    """
    aspect = srcset.aspect
    own = part if aspect is None else fitted(aspect, part)
    widths = list(srcset.widths)
    if original not in VECTOR_TYPES and own[0] < widths[-1]:
        widths = [width for width in widths if width <= own[0]]
        if widths and own[0] < _NEARLY * widths[-1]:
            widths.pop()
        widths.append(own[0])
    if aspect is None:
        return [(width, None) for width in widths]
    return [own if width == own[0] else (width, nearest(width * aspect[1], aspect[0])) for width in widths]


def _look(recipe: Recipe, aspect: tuple[int, int] | None) -> str:
    """Describe the processing apart from size and format. Defaults are omitted."""
    words: list[str] = []
    if aspect is not None:
        words.append(f"aspect{aspect[0]}x{aspect[1]}")
    elif recipe.fit is not None:
        words.append(recipe.fit)
    if recipe.crop is not None:
        words.append("crop" + "".join(f"{round(part * CROP_STEPS):04x}" for part in recipe.crop))
    if isinstance(recipe.gravity, tuple):
        words.append("at" + "-".join(str(round(part * POINT_STEPS)) for part in recipe.gravity))
    elif recipe.gravity not in (None, "centre"):
        words.append(str(recipe.gravity))
    if recipe.animated:
        words.append("animated")
    if recipe.kernel != DEFAULT_KERNEL:
        words.append(recipe.kernel)
    if recipe.quality is not None:
        words.append(f"q{recipe.quality}")
    if recipe.background != (255, 255, 255):
        words.append("bg{:02x}{:02x}{:02x}".format(*recipe.background))
    if recipe.variant is not None:
        words.append(f"as-{recipe.variant}")
    return ".".join(words)
