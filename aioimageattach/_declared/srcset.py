"""What an image class declares in ``__thumbnails__``, and which files of an original follow from it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from hashlib import blake2b
from types import MappingProxyType
from typing import Any, Final, TypeAlias

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
    whole,
)
from ..imaging._recipe import Recipe
from ..key import VECTOR_TYPES, extension
from .names import NAME

__all__ = ["Declaration", "Declarations", "Ladder", "Srcset", "Step", "declarations"]

_MAX_WIDTH: Final = 65_500
_MOVING: Final = ("gif", "webp")
_NEARLY: Final = 1.1
_KEPT: Final = 4096
"""How many sizes of originals a declaration remembers the files of."""


@dataclass(frozen=True, slots=True)
class Srcset:
    """One picture in several widths and formats, from which the browser chooses.

    ::

        Srcset([320, 640, 1280], sizes="(min-width: 60rem) 33vw, 100vw")

    No thumbnail is larger than its original. Wider ones are left out; where the original is narrower than the widest
    of them, its own width takes their place.

    Args:
        widths: In pixels.
        aspect: Width and height of a shape that the picture is cropped to, such as ``(1, 1)``; ``None`` keeps the
            original's.
        sizes: How wide the picture is shown: the HTML attribute ``sizes``, such as ``"48px"``. It can also be given
            where the picture is shown; a browser that is not told loads the widest file.
        formats: The formats, the best one first. AVIF takes five times as long to make as WebP.
        fallback: The format of one more file for programs that do not know the others, such as e-mail readers;
            ``None`` for none. It has the middle one of the widths.
        gravity: Which part is kept if there is an ``aspect``; see :class:`~aioimageattach.imaging.Recipe` for this and
            what follows.
        crop: The part of the original to use.
        filter: The kernel that resizes.
        quality: 1 to 100, in all formats; ``None`` means the format's default.
        animated: Whether an animation keeps its frames. Animated originals then have files of animated formats only.
        background: The colour behind transparent parts in JPEG.
        preprocess: Called with the whole picture.
        postprocess: Called with each resized picture.
        variant: Your name for what a callable does. Change it if the callable changes.

    Raises:
        ValueError: A value is out of range or not known.
        DeclarationError: An argument has the wrong type, or arguments cannot be combined.
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
    """The recipe of the files, but for their size and format."""

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "widths", _checked("widths", self.widths, lambda width: whole("widths", width, 1, _MAX_WIDTH)))
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
            sides = [whole("aspect", side, 1, 10_000) for side in aspect]
            put(self, "aspect", tuple(side // math.gcd(*sides) for side in sides))
        elif self.gravity is not None:
            raise DeclarationError("gravity: give it with an aspect; without one, nothing is cropped")
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
        raise DeclarationError(f"{label}: expected a list of one or more, got {values!r:.80}")
    found = tuple(check(value) for value in values)
    if len(set(found)) < len(found):
        raise ValueError(f"{label}: expected each one once, got {values!r:.80}")
    return found


@dataclass(frozen=True, slots=True)
class Step:
    """One file of a thumbnail.

    Args:
        recipe: How it is made.
        width: In pixels.
        height: In pixels.
        mimetype: Such as ``"image/webp"``.
        tail: The end of its name: size and extension.
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
        formats: Those to choose from, by width; the best format first.
        fallback: The one for programs that cannot choose; ``None`` if there are no files.
        steps: All files, each once.
    """

    formats: tuple[tuple[Step, ...], ...]
    fallback: Step | None
    steps: tuple[Step, ...] = field(init=False)

    def __post_init__(self) -> None:
        found = {step.tail: step for steps in self.formats for step in steps}
        if self.fallback is not None:
            found.setdefault(self.fallback.tail, self.fallback)
        object.__setattr__(self, "steps", tuple(found.values()))

    @property
    def compatible(self) -> tuple[Step, ...]:
        """The files of one format, for where only one can be offered: the last, which most programs know."""
        return self.formats[-1] if self.formats else ()


class Declaration:
    """One entry of ``__thumbnails__``.

    Args:
        name: Its name.
        what: What is declared.
        limits: What is accepted, also for thumbnails.

    Attributes:
        look: What is done to the pixels, in words that are the same in every process and version.
        crops: Whether a focal point makes a difference.
        digest: Identifies the set of files that the declaration stands for.
    """

    def __init__(self, name: str, what: Srcset | Recipe, limits: ImageLimits) -> None:
        recipe = what.recipe if isinstance(what, Srcset) else what
        aspect = what.aspect if isinstance(what, Srcset) else None
        self.name: str = name
        self.what: Srcset | Recipe = what
        self.limits: ImageLimits = limits
        self.crops: bool = recipe.fit == "cover" or aspect is not None
        self.look: str = _look(recipe, aspect)
        files: list[Any] = [recipe.width, recipe.height, recipe.ratio, recipe.fit, recipe.format]
        if isinstance(what, Srcset):
            files = [what.widths, what.formats, what.fallback]
        self.digest: str = blake2b(f"{name} {self.look} {files}".encode(), digest_size=8).hexdigest()
        self._ladders: dict[tuple[int, int, str], Ladder] = {}

    def __repr__(self) -> str:
        return f"<Declaration {self.name!r}: {self.what!r}>"

    @property
    def sizes(self) -> str | None:
        """The HTML attribute ``sizes``."""
        return self.what.sizes if isinstance(self.what, Srcset) else None

    def ladder(self, width: int, height: int, mimetype: str) -> Ladder:
        """Return the files of an original.

        Args:
            width: Of the original, in pixels, as displayed.
            height: Of the original, in pixels, as displayed.
            mimetype: Of the original.
        """
        original = width, height, mimetype
        found = self._ladders.get(original)
        if found is None:
            if len(self._ladders) >= _KEPT:
                self._ladders.clear()
            found = self._ladders[original] = self._make_ladder((width, height), mimetype)
        return found

    def _make_ladder(self, size: tuple[int, int], original: str) -> Ladder:
        if isinstance(self.what, Recipe):
            steps = self._steps([replace(self.what, enlarge=False)], size, original)
            return Ladder((steps,) if steps else (), steps[0] if steps else None)
        what = self.what
        boxes = _boxes(what, size, original)
        animated = what.recipe.is_animated_for(original)
        names = [name for name in what.formats if name in _MOVING or not animated]
        formats = []
        for name in names or ["webp"]:
            recipe = replace(what.recipe, format=name, animated=animated)
            recipes = [replace(recipe, width=box[0], height=box[1]) for box in boxes]
            formats.append(self._steps(recipes, size, original))
        found = tuple(steps for steps in formats if steps)
        return Ladder(found, self._fallback(what, found, size, original))

    def _fallback(
        self, what: Srcset, formats: tuple[tuple[Step, ...], ...], size: tuple[int, int], original: str
    ) -> Step | None:
        if not formats:
            return None
        middle = formats[-1][len(formats[-1]) // 2]
        if what.fallback is None or middle.recipe.animated:
            return middle
        made = self._steps([replace(middle.recipe, format=what.fallback)], size, original)
        known = {step.tail: step for steps in formats for step in steps}
        return known.get(made[0].tail, made[0]) if made else middle

    def _steps(self, recipes: Sequence[Recipe], size: tuple[int, int], original: str) -> tuple[Step, ...]:
        """The files of some recipes, by width; without those that no file of the format can be."""
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
"""What a class declares, by name."""


def declarations(found: object, where: str, limits: ImageLimits) -> Declarations:
    """Check what a class declares.

    Args:
        found: The value of ``__thumbnails__``.
        where: The name of the class, for messages.
        limits: The limits of the class.

    Raises:
        DeclarationError: It cannot work as it is written.
    """
    if not isinstance(found, Mapping):
        raise DeclarationError(f"{where}.__thumbnails__: expected a dict, got {found!r:.80}")
    for name, what in found.items():
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise DeclarationError(
                f"{where}.__thumbnails__: expected names of 1 to 16 small letters, digits and '_', beginning with a "
                f"letter, got {name!r:.80}"
            )
        if not isinstance(what, Srcset | Recipe):
            raise DeclarationError(f"{where}.__thumbnails__[{name!r}]: expected a Srcset or a Recipe, got {what!r:.80}")
        if (what.preprocess is not None or what.postprocess is not None) and what.variant is None:
            raise DeclarationError(
                f"{where}.__thumbnails__[{name!r}]: expected a variant, because there is a callable: the files are "
                "named after what is done to the picture, so give what the callable does a name, and change the name "
                "whenever the callable changes"
            )
    return MappingProxyType({name: Declaration(name, what, limits) for name, what in found.items()})


def _boxes(what: Srcset, size: tuple[int, int], original: str) -> list[tuple[int, int | None]]:
    """The sizes of the files, as a recipe has them; never larger than the original, except for vector images."""
    part = what.recipe.part(size).size
    aspect = what.aspect
    own = part if aspect is None else fitted(aspect, part)
    widths = list(what.widths)
    if original not in VECTOR_TYPES and own[0] < widths[-1]:
        widths = [width for width in widths if width <= own[0]]
        if widths and own[0] < _NEARLY * widths[-1]:
            widths.pop()
        widths.append(own[0])
    if aspect is None:
        return [(width, None) for width in widths]
    return [own if width == own[0] else (width, nearest(width * aspect[1], aspect[0])) for width in widths]


def _look(recipe: Recipe, aspect: tuple[int, int] | None) -> str:
    """What is done to the pixels apart from size and format. Every word that is left out means a default."""
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
