"""Render thumbnails of several sizes and looks from one decode."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from .._telemetry import RENDER
from ..exc import ImageTooLargeError, ProcessingError
from ._decode import decode, paintable
from ._geometry import Box, covering, stored
from ._header import Header, check_bytes, inspect, open_view
from ._isolation import ask
from ._limits import DEFAULT_LIMITS, ImageLimits
from ._options import DEFAULT_KERNEL, GRAVITIES, QUALITIES, Point
from ._preview import Preview, preview_of
from ._recipe import Recipe
from ._sniff import sniff
from ._vips import Picture, Watch, call_hook, libvips, watched

if TYPE_CHECKING:
    from typing_extensions import Buffer


__all__ = ["Rendering", "render", "render_with_preview"]

_FRAME_COST: Final = 10
"""Memory per pixel of each frame of an animation, in bytes: for the decoded, resized and joined copies."""
_WASTE: Final = 4
"""Largest area of a shared image in memory, relative to the largest thumbnail rendered from it."""
_SAMPLE: Final = 256
"""Longest side of the reduced copy used for previews and smart crops, in pixels."""
_SMART: Final = frozenset({"attention", "entropy"})
_SAVERS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "image/avif": ("heifsave_buffer", {"compression": "av1", "effort": 2}),  # effort 4: ten times as long, saves 5 %
    "image/gif": ("gifsave_buffer", {}),
    "image/jpeg": ("jpegsave_buffer", {"optimize_coding": True}),
    "image/png": ("pngsave_buffer", {"filter": "all"}),
    "image/webp": ("webpsave_buffer", {"effort": 2}),
}


@dataclass(frozen=True, slots=True)
class Rendering:
    """A rendered thumbnail.

    Args:
        blob: Content of the file.
        width: Width in pixels.
        height: Height in pixels.
        mimetype: MIME type, such as ``"image/webp"``.
        recipe: The recipe that produced it.
    """

    blob: bytes
    width: int
    height: int
    mimetype: str
    recipe: Recipe


def render(data: Buffer, recipes: Sequence[Recipe], limits: ImageLimits = DEFAULT_LIMITS) -> list[Rendering]:
    """Render thumbnails of one image.

    The image is decoded once, at a size just large enough for the largest thumbnail, and the thumbnails are rendered
    from that copy. The image is decoded separately for a recipe that cannot share it: one with another ``filter``,
    a ``preprocess`` or a kept animation, or one that uses only a small part of the image. Thumbnails are upright, in
    sRGB with 8 bits per band, and have no metadata. Rendering a thumbnail of 300 pixels from a 12-megapixel JPEG takes
    30 ms on one core.

    Args:
        data: The file as bytes, a memoryview or a read-only ``mmap``. It is not copied, and must not change during the
            call.
        recipes: One recipe per thumbnail.
        limits: Limits for the image, for the thumbnails, and for the time that rendering may take.

    Returns:
        The thumbnails, in the order of the recipes.

    Raises:
        UnreadableImageError: The file is not an image, or the image is damaged.
        UnsupportedImageError: The limits do not allow the type of the image, or it needs an extra.
        ImageTooLargeError: The image or a thumbnail exceeds a limit, or rendering took too long.
        ProcessingError: The result of a callable could not be computed.
        DeclarationError: A callable did not return an image.
    """
    return _rendered(data, recipes, limits, preview=False)[0]


def render_with_preview(
    data: Buffer, recipes: Sequence[Recipe], limits: ImageLimits = DEFAULT_LIMITS
) -> tuple[list[Rendering], Preview]:
    """Render thumbnails of one image, and its preview from the same decode; see :func:`render`.

    Args:
        data: As for :func:`render`.
        recipes: One recipe per thumbnail; may be empty, to compute only the preview.
        limits: As for :func:`render`.

    Returns:
        The thumbnails, in the order of the recipes, and the preview.
    """
    made, preview = _rendered(data, recipes, limits, preview=True)
    return made, cast("Preview", preview)


def _rendered(
    data: Buffer, recipes: Sequence[Recipe], limits: ImageLimits, *, preview: bool
) -> tuple[list[Rendering], Preview | None]:
    with RENDER(), open_view(data) as view:
        if limits.isolated:
            return _render_isolated(view, recipes, limits, preview=preview)
        header = inspect(view, limits)
        with watched(header.probe.mimetype, limits.timeout) as watch:
            return _Job(view, header, limits, watch).run(recipes, preview=preview)


def _render_isolated(
    view: memoryview, recipes: Sequence[Recipe], limits: ImageLimits, *, preview: bool
) -> tuple[list[Rendering], Preview | None]:
    check_bytes(view, limits)
    types = [recipe.mimetype(sniff(view) or "") for recipe in recipes]

    def read(found: Any, body: memoryview) -> tuple[list[Rendering], Preview | None]:
        made = _validate(found, body, recipes, types, limits)
        return made, _validate_preview(found["preview"]) if preview else None

    return ask(view, limits, read, recipes, preview=preview)


def _validate(
    found: Any, body: memoryview, recipes: Sequence[Recipe], types: Sequence[str], limits: ImageLimits
) -> list[Rendering]:
    """Return the thumbnails of a worker's response; raise ValueError, TypeError or KeyError if they are implausible."""
    made: list[Rendering] = []
    for recipe, expected, (size, width, height, mimetype) in zip(recipes, types, found["renderings"], strict=True):
        if any(type(number) is not int or number < 1 for number in (size, width, height)):
            raise TypeError(f"expected positive integers, got {(size, width, height)!r:.80}")
        limits.check_size(width, height)
        if size > len(body) or not mimetype == expected == sniff(body[:size]):
            raise ValueError(f"expected a thumbnail of the type {expected}, got {mimetype!r:.80}")
        made.append(Rendering(bytes(body[:size]), width, height, mimetype, recipe))
        body = body[size:]
    return made


def _validate_preview(fields: Any) -> Preview:
    preview = Preview(**fields)
    if not 5 <= len(base64.b64decode(preview.thumbhash, validate=True)) <= 28:
        raise ValueError("expected a ThumbHash of 5 to 28 bytes")
    if preview.colour is not None and not re.fullmatch("#[0-9a-f]{6}", preview.colour):
        raise ValueError("expected a colour such as #1e90ff")
    return preview


class _Job:
    """Renders the thumbnails of one image."""

    def __init__(self, view: memoryview, header: Header, limits: ImageLimits, watch: Watch) -> None:
        self._header, self._limits = header, limits
        self._mimetype = header.probe.mimetype
        self._size = header.probe.width, header.probe.height

        def open_picture(needed: tuple[int, int] | None = None, *, frames: bool = False) -> Picture:
            return decode(view, header, limits, watch, needed=needed, frames=frames)

        self._open: Callable[..., Picture] = open_picture
        self._shared: Picture | None = None
        self._sampled: Picture | None = None

    def run(self, recipes: Sequence[Recipe], *, preview: bool) -> tuple[list[Rendering], Preview | None]:
        targets = {recipe: self._target(recipe, self._size) for recipe in recipes}
        self._share(targets, sampled=preview or any(recipe.gravity in _SMART for recipe in targets))
        done = {recipe: self._one(recipe) for recipe in targets}
        return [done[recipe] for recipe in recipes], preview_of(self._sample()) if preview else None

    def _target(self, recipe: Recipe, size: tuple[int, int]) -> tuple[int, int]:
        return recipe.target(size, original=self._mimetype, limits=self._limits)

    def _keeps_frames(self, recipe: Recipe) -> bool:
        return self._header.probe.frames > 1 and recipe.is_animated_for(self._mimetype)

    def _can_share(self, recipe: Recipe) -> bool:
        return recipe.kernel == DEFAULT_KERNEL and recipe.preprocess is None and not self._keeps_frames(recipe)

    # --- the whole image, decoded once ------------------------------------------------------------------------------

    def _share(self, targets: dict[Recipe, tuple[int, int]], *, sampled: bool) -> None:
        """Decode the whole image into memory, if two or more of the recipes and the sample can share it.

        The size is the largest that any of them needs.
        """
        wanted = [(self._whole(recipe), target) for recipe, target in targets.items() if self._can_share(recipe)]
        if sampled:
            wanted.append((self._sample_size, self._sample_size))
        wanted.sort(key=lambda item: _area(item[0]))
        while len(wanted) > 1:
            width, height = (max(sides) for sides in zip(*(whole for whole, _ in wanted), strict=True))
            if width * height <= _WASTE * max(_area(target) for _, target in wanted):
                self._shared = _resized(self._open((width, height)), (width, height)).copy_memory()
                return
            wanted.pop()  # uses so small a part that a copy of the whole image at that scale would waste memory

    def _whole(self, recipe: Recipe) -> tuple[int, int]:
        """Return the size of the whole image at the scale at which the part used by a recipe has the needed size.

        It is smaller for a part of a drawing that can only be painted at a smaller scale.
        """
        part, inner, _ = recipe.layout(self._size, self._mimetype)
        width, height = (
            -(-side * whole // shown) for side, whole, shown in zip(inner, self._size, part.size, strict=True)
        )
        return (width, height) if part.size == self._size else paintable((width, height), self._header, self._limits)

    def _source(self, size: tuple[int, int]) -> Picture:
        """Return the whole image, at the given size or larger."""
        shared = self._shared
        if shared is not None and shared.width >= size[0] and shared.height >= size[1]:
            return shared
        return self._open(size)

    @property
    def _sample_size(self) -> tuple[int, int]:
        recipe = Recipe(width=_SAMPLE, height=_SAMPLE, fit="inside", enlarge=False)
        return recipe.layout(self._size, self._mimetype).target

    def _sample(self) -> Picture:
        """Return a small, upright copy of the whole image, in memory."""
        if self._sampled is None:
            size = self._sample_size
            self._sampled = _resized(self._source(size), size).copy_memory()
        return self._sampled

    # --- one thumbnail ----------------------------------------------------------------------------------------------

    def _one(self, recipe: Recipe) -> Rendering:
        point = self._point(recipe)
        if self._keeps_frames(recipe):
            image = self._animation(recipe, point)
        elif self._can_share(recipe):
            image = self._finished(self._source(self._whole(recipe)), self._size, recipe, point)
        else:
            image = self._still(self._open(None if recipe.preprocess else self._whole(recipe)), recipe, point)
        height = image.get_page_height()
        mimetype = recipe.mimetype(self._mimetype)
        return Rendering(_saved(image, mimetype, recipe), image.width, height, mimetype, recipe)

    def _point(self, recipe: Recipe) -> Point:
        """Return the focal point of a recipe, in fractions of the part that it uses."""
        if isinstance(recipe.gravity, tuple):
            return recipe.gravity
        point = GRAVITIES[recipe.gravity or "centre"]
        if point is not None:
            return point
        sample = self._sample()
        sample = sample.crop(*recipe.part((sample.width, sample.height)))
        width, height = covering(
            Box(0, 0, sample.width, sample.height), self._target(recipe, self._size), (0.5, 0.5)
        ).size
        found = sample.smartcrop(width, height, interesting=recipe.gravity)
        return (width / 2 - found.xoffset) / sample.width, (height / 2 - found.yoffset) / sample.height

    def _still(self, image: Picture, recipe: Recipe, point: Point) -> Picture:
        size = self._size
        if recipe.preprocess is not None:
            image = call_hook("preprocess", recipe.preprocess, _upright(image).copy_memory())
            size = image.width, image.height
            self._limits.check_size(*size, what="a result of preprocess")
        return self._finished(image, size, recipe, point)

    def _finished(self, image: Picture, size: tuple[int, int], recipe: Recipe, point: Point) -> Picture:
        """Crop the image, resize it, add bars, and call ``postprocess``.

        Args:
            image: The image, or a smaller copy of it.
            size: Width and height to which the sizes of the recipe refer.
            recipe: The recipe of the thumbnail.
            point: The focal point of the crop.
        """
        target = self._target(recipe, size)
        inner = recipe.layout(size, self._mimetype).inner if recipe.fit == "contain" else target
        image = _cropped(image, recipe, target, point)
        image = _resized(image, inner) if recipe.kernel == DEFAULT_KERNEL else _resized_by(image, inner, recipe.kernel)
        if inner != target:
            image, colour = _match_background(image, recipe.background)
            image = image.gravity("centre", *target, extend="background", background=colour)
        if recipe.postprocess is not None:
            image = call_hook("postprocess", recipe.postprocess, image.copy_memory())
            self._target(Recipe(width=image.width, height=image.height, fit="fill", format=recipe.format), size)
            image = _in_srgb(image)
        return image

    def _animation(self, recipe: Recipe, point: Point) -> Picture:
        probe = self._header.probe
        limits = self._limits
        if probe.frames > limits.max_animated_frames:
            raise ImageTooLargeError(
                f"expected an animation of at most {limits.max_animated_frames:,} frames (max_animated_frames), "
                f"got {probe.frames:,}",
                limit=limits.max_animated_frames,
                actual=probe.frames,
            )
        target = self._target(recipe, self._size)
        for width, height in (self._size, target):
            if width * height * probe.frames > limits.max_pixels:
                raise ImageTooLargeError(
                    f"expected an animation of at most {limits.max_pixels:,} pixels in all its frames (max_pixels), "
                    f"got {probe.frames:,} frames of {width} x {height}",
                    limit=limits.max_pixels,
                    actual=width * height * probe.frames,
                )
            limits.check_size(width, height, what="an animation", bytes_per_pixel=_FRAME_COST * probe.frames)
        animation = self._open(frames=True)
        page = animation.get_page_height()
        frames = [
            self._still(animation.crop(0, top, animation.width, page), recipe, point).copy_memory()
            for top in range(0, animation.height, page)
        ]
        if len({(frame.width, frame.height, frame.bands) for frame in frames}) > 1:
            raise ProcessingError(
                "preprocess, postprocess: expected all frames of an animation to have the same size and number of "
                "bands, got different ones"
            )
        joined = libvips().Image.arrayjoin(frames, across=1).copy()
        joined.set_type(libvips().GValue.gint_type, "page-height", frames[0].height)
        for name in {"delay", "loop"}.intersection(animation.get_fields()):
            joined.set_type(animation.get_typeof(name), name, animation.get(name))
        return joined


def _area(size: tuple[int, int]) -> int:
    return size[0] * size[1]


def _cropped(image: Picture, recipe: Recipe, target: tuple[int, int], point: Point) -> Picture:
    """Crop an image, whose orientation may not have been applied yet, to the part that a recipe uses."""
    orientation = image.get("orientation") if "orientation" in image.get_fields() else 1
    size = (image.height, image.width) if orientation in (5, 6, 7, 8) else (image.width, image.height)
    region = recipe.region(size, target, point)
    if region == (0, 0, *size):
        return image
    return image.crop(*stored(region, size, orientation if orientation in range(1, 9) else 1))


def _profile(image: Picture) -> dict[str, str]:
    # without a profile, converting would only cost time: the result is the same
    return {"export_profile": "srgb"} if "icc-profile-data" in image.get_fields() else {}


def _resized(image: Picture, size: tuple[int, int]) -> Picture:
    """Resize an image to exactly the given size, upright and in sRGB."""
    return _in_srgb(image.thumbnail_image(size[0], height=size[1], size="force", **_profile(image)))


def _resized_by(image: Picture, size: tuple[int, int], kernel: str) -> Picture:
    """Do the same with a kernel other than that of ``thumbnail_image``."""
    image = _upright(image)
    has_alpha = image.hasalpha()
    if has_alpha:
        image = image.premultiply()
    image = image.resize(size[0] / image.width, vscale=size[1] / image.height, kernel=kernel)
    if has_alpha:
        image = image.unpremultiply()
    return image.cast("uchar")


def _upright(image: Picture) -> Picture:
    """Return the image in sRGB, with its orientation applied."""
    if _profile(image):
        image = image.icc_transform("srgb", embedded=True, depth=8)
    image = _in_srgb(image)
    if "orientation" in image.get_fields() and image.get("orientation") != 1:
        image = image.copy_memory().autorot()
    return image


def _in_srgb(image: Picture) -> Picture:
    """Convert an image to 8-bit sRGB, unless it is 8-bit grey. Remove its profile, which has already been applied."""
    if _profile(image):
        image = image.copy()
        image.remove("icc-profile-data")
    if image.format == "uchar" and image.interpretation in ("srgb", "b-w"):
        return image
    return image.colourspace("srgb").cast("uchar")


def _match_background(image: Picture, background: tuple[int, int, int]) -> tuple[Picture, list[int]]:
    """Return the image in a colour space that can represent the background, and the background as its band values."""
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
        image, colour = _match_background(image, recipe.background)
        image = image.flatten(background=colour[:-1])
    blob: bytes = getattr(image, _SAVERS[mimetype][0])(keep="none", **options)
    return blob
