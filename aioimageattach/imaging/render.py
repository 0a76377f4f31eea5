"""Thumbnails: one decode, as many sizes and looks as asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ..exc import ImageError, ImageTooLargeError
from ._vips import Picture, Watch, called, libvips, watched
from .decode import decode
from .header import Header, check_bytes, inspect, opened
from .isolation import ask
from .limits import DEFAULT_LIMITS, ImageLimits
from .recipe import DEFAULT_KERNEL, QUALITIES, Recipe
from .sniff import sniff

if TYPE_CHECKING:
    from typing_extensions import Buffer


__all__ = ["Rendering", "render"]

_WASTE: Final = 4  # how much larger than the largest thumbnail a shared picture may be
_SAVERS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "image/avif": ("heifsave_buffer", {"compression": "av1", "effort": 2}),  # 4 takes ten times as long for 5 %
    "image/gif": ("gifsave_buffer", {}),
    "image/jpeg": ("jpegsave_buffer", {"optimize_coding": True}),
    "image/png": ("pngsave_buffer", {"filter": "all"}),
    "image/webp": ("webpsave_buffer", {"effort": 2}),
}


@dataclass(frozen=True, slots=True)
class Rendering:
    """A finished thumbnail.

    Args:
        blob: The file.
        width: In pixels.
        height: In pixels.
        mimetype: Such as ``"image/webp"``.
        recipe: What was asked for.
    """

    blob: bytes
    width: int
    height: int
    mimetype: str
    recipe: Recipe


def render(data: Buffer, recipes: Sequence[Recipe], limits: ImageLimits = DEFAULT_LIMITS) -> list[Rendering]:
    """Make thumbnails of one picture.

    The picture is decoded once, no larger than the largest thumbnail needs, and the others are made of that one. What
    cannot share gets a decode of its own: another ``filter``, a ``preprocess``, a kept animation. Thumbnails are
    upright, in sRGB, of 8 bits a band and without metadata. Costs a core for 30 ms where a 12-megapixel JPEG becomes
    300 pixels wide.

    Args:
        data: The file; bytes, a memoryview, a read-only ``mmap``. It is not copied, and must not change meanwhile.
        recipes: What to make.
        limits: What is accepted; also for the thumbnails, and for how long it may take.

    Returns:
        The thumbnails, in the order of the recipes.

    Raises:
        UnreadableImageError: The bytes are no picture, or a broken one.
        UnsupportedImageError: A kind of picture that the limits do not allow, or that needs an extra.
        ImageTooLargeError: It, or a thumbnail, is beyond a limit, or it took too long.
        ImageError: What a callable returned could not be computed.
        DeclarationError: A callable returned no picture.
    """
    with opened(data) as view:
        if limits.isolated:
            return _rendered_apart(view, recipes, limits)
        header = inspect(view, limits)
        with watched(header.probe.mimetype, limits.timeout) as watch:
            return _Job(view, header, limits, watch).run(recipes)


def _rendered_apart(view: memoryview, recipes: Sequence[Recipe], limits: ImageLimits) -> list[Rendering]:
    check_bytes(view, limits)
    types = [recipe.mimetype(sniff(view) or "") for recipe in recipes]
    return ask(view, limits, lambda found, body: _believed(found, body, recipes, types, limits), recipes)


def _believed(
    found: Any, body: memoryview, recipes: Sequence[Recipe], types: Sequence[str], limits: ImageLimits
) -> list[Rendering]:
    """The thumbnails that a worker speaks of; ValueError, TypeError or KeyError where they cannot be."""
    made: list[Rendering] = []
    for recipe, expected, (size, width, height, mimetype) in zip(recipes, types, found["renderings"], strict=True):
        if any(type(number) is not int or number < 1 for number in (size, width, height)):
            raise TypeError("expected positive numbers")
        limits.check_size(width, height)
        if size > len(body) or not mimetype == expected == sniff(body[:size]):
            raise ValueError("expected a picture of the type of its recipe")
        made.append(Rendering(bytes(body[:size]), width, height, mimetype, recipe))
        body = body[size:]
    return made


class _Job:
    """The thumbnails of one picture."""

    def __init__(self, view: memoryview, header: Header, limits: ImageLimits, watch: Watch) -> None:
        self._header, self._limits = header, limits
        self._mimetype = header.probe.mimetype
        self._size = header.probe.width, header.probe.height

        def open_picture(needed: tuple[int, int] | None = None, *, frames: bool = False) -> Picture:
            return decode(view, header, limits, watch, needed=needed, frames=frames)

        self._open: Callable[..., Picture] = open_picture

    def run(self, recipes: Sequence[Recipe]) -> list[Rendering]:
        targets = {recipe: self._target(recipe, self._size) for recipe in recipes}
        shared = self._shared([recipe for recipe in targets if self._can_share(recipe)], targets)
        done = {recipe: self._one(recipe, shared) for recipe in targets}
        return [done[recipe] for recipe in recipes]

    def _target(self, recipe: Recipe, size: tuple[int, int]) -> tuple[int, int]:
        return recipe.target(size, original=self._mimetype, limits=self._limits)

    def _moves(self, recipe: Recipe) -> bool:
        return self._header.probe.frames > 1 and recipe.moves(self._mimetype)

    def _can_share(self, recipe: Recipe) -> bool:
        return recipe.kernel == DEFAULT_KERNEL and recipe.preprocess is None and not self._moves(recipe)

    def _shared(self, recipes: list[Recipe], targets: dict[Recipe, tuple[int, int]]) -> Picture | None:
        """The whole picture at the largest of these sizes, in memory, where that spares a decode."""
        if len(recipes) < 2:
            return None
        scaled = [recipe.scaled(self._size) for recipe in recipes]
        width, height = max(side[0] for side in scaled), max(side[1] for side in scaled)
        if width * height > _WASTE * max(targets[recipe][0] * targets[recipe][1] for recipe in recipes):
            return None
        return _resized(self._open((width, height)), (width, height)).copy_memory()

    def _one(self, recipe: Recipe, shared: Picture | None) -> Rendering:
        if self._moves(recipe):
            image = self._animation(recipe)
        elif shared is not None and self._can_share(recipe):
            image = self._finished(shared, self._size, recipe)
        elif recipe.preprocess is not None:
            image = self._still(self._open(), recipe)
        else:
            needed = recipe.scaled(self._size)
            image = self._still(self._open(needed), recipe)
        height = image.get_page_height()
        mimetype = recipe.mimetype(self._mimetype)
        return Rendering(_saved(image, mimetype, recipe), image.width, height, mimetype, recipe)

    def _still(self, image: Picture, recipe: Recipe) -> Picture:
        size = self._size
        if recipe.preprocess is not None:
            image = called("preprocess", recipe.preprocess, _upright(image).copy_memory())
            size = image.width, image.height
            self._limits.check_size(*size, what="what preprocess returned")
        return self._finished(image, size, recipe)

    def _finished(self, image: Picture, size: tuple[int, int], recipe: Recipe) -> Picture:
        """Resize, crop or add bars, and let the user's callable have it."""
        target = self._target(recipe, size)
        inner = recipe.scaled(size) if recipe.fit == "contain" else target
        if recipe.fit == "cover":
            image = _cropped(image, target)
        image = _resized(image, inner) if recipe.kernel == DEFAULT_KERNEL else _resized_by(image, inner, recipe.kernel)
        if inner != target:
            image, colour = _coloured(image, recipe.background)
            image = image.gravity("centre", *target, extend="background", background=colour)
        if recipe.postprocess is not None:
            image = called("postprocess", recipe.postprocess, image.copy_memory())
            self._target(Recipe(width=image.width, height=image.height, fit="fill", format=recipe.format), size)
            image = _in_srgb(image)
        return image

    def _animation(self, recipe: Recipe) -> Picture:
        probe = self._header.probe
        limits = self._limits
        if probe.frames > limits.max_animated_frames:
            raise ImageTooLargeError(
                f"the animation has {probe.frames:,} frames: {limits.max_animated_frames:,} are allowed to be kept "
                "(max_animated_frames)",
                limit=limits.max_animated_frames,
                actual=probe.frames,
            )
        target = self._target(recipe, self._size)
        for width, height in (self._size, target):
            if width * height * probe.frames > limits.max_pixels:
                raise ImageTooLargeError(
                    f"{probe.frames:,} frames of {width} x {height}: {limits.max_pixels:,} pixels are allowed "
                    "(max_pixels)",
                    limit=limits.max_pixels,
                    actual=width * height * probe.frames,
                )
        film = self._open(frames=True)
        page = film.get_page_height()
        frames = [
            self._still(film.crop(0, top, film.width, page), recipe).copy_memory()
            for top in range(0, film.height, page)
        ]
        if len({(frame.width, frame.height, frame.bands) for frame in frames}) > 1:
            raise ImageError("the callables made frames of different sizes or bands: an animation needs equal ones")
        joined = libvips().Image.arrayjoin(frames, across=1).copy()
        joined.set_type(libvips().GValue.gint_type, "page-height", frames[0].height)
        for name in {"delay", "loop"}.intersection(film.get_fields()):
            joined.set_type(film.get_typeof(name), name, film.get(name))
        return joined


def _turned(image: Picture) -> bool:
    return "orientation" in image.get_fields() and image.get("orientation") in (5, 6, 7, 8)


def _cropped(image: Picture, target: tuple[int, int]) -> Picture:
    """Cut a picture that is not upright yet to the target's proportions, around its middle."""
    wide, high = reversed(target) if _turned(image) else target
    width = min(image.width, max(1, round(image.height * wide / high)))
    height = min(image.height, max(1, round(image.width * high / wide)))
    return image.crop((image.width - width) // 2, (image.height - height) // 2, width, height)


def _profile(image: Picture) -> dict[str, str]:
    # without a profile it would take a detour through other colours, and come out the same
    return {"export_profile": "srgb"} if "icc-profile-data" in image.get_fields() else {}


def _resized(image: Picture, size: tuple[int, int]) -> Picture:
    """Resize a picture to exactly that size, upright, in sRGB."""
    return _in_srgb(image.thumbnail_image(size[0], height=size[1], size="force", **_profile(image)))


def _resized_by(image: Picture, size: tuple[int, int], kernel: str) -> Picture:
    """Do the same with another kernel than the one that ``thumbnail_image`` has."""
    image = _upright(image)
    has_alpha = image.hasalpha()
    if has_alpha:
        image = image.premultiply()
    image = image.resize(size[0] / image.width, vscale=size[1] / image.height, kernel=kernel)
    if has_alpha:
        image = image.unpremultiply()
    return image.cast("uchar")


def _upright(image: Picture) -> Picture:
    """The whole picture, orientation applied, in sRGB."""
    if _profile(image):
        image = image.icc_transform("srgb", embedded=True, depth=8)
    image = _in_srgb(image)
    if "orientation" in image.get_fields() and image.get("orientation") != 1:
        image = image.copy_memory().autorot()
    return image


def _in_srgb(image: Picture) -> Picture:
    """Grey of 8 bits stays as it is, all else becomes sRGB of 8 bits; a profile has been applied by now, and goes."""
    if _profile(image):
        image = image.copy()
        image.remove("icc-profile-data")
    if image.format == "uchar" and image.interpretation in ("srgb", "b-w"):
        return image
    return image.colourspace("srgb").cast("uchar")


def _coloured(image: Picture, background: tuple[int, int, int]) -> tuple[Picture, list[int]]:
    """A picture that can show that colour, and the colour in its bands, opaque."""
    colour = list(background)
    if image.interpretation == "b-w":
        if len(set(background)) == 1:
            colour = colour[:1]
        else:
            image = image.colourspace("srgb")
    return image, colour + [255] * bool(image.hasalpha())


def _saved(image: Picture, mimetype: str, recipe: Recipe) -> bytes:
    options: dict[str, Any] = dict(_SAVERS[mimetype][1])
    if mimetype in QUALITIES:
        options["Q"] = recipe.quality or QUALITIES[mimetype]
    if mimetype == "image/jpeg" and image.hasalpha():
        image, colour = _coloured(image, recipe.background)
        image = image.flatten(background=colour[:-1])
    blob: bytes = getattr(image, _SAVERS[mimetype][0])(keep="none", **options)
    return blob
