"""From the file to a picture of libvips: no larger than it is needed."""

from __future__ import annotations

from typing import Any, Final

from ..exc import ImageTooLargeError
from . import _heif, _pdf
from ._vips import Picture, Watch, libvips
from .limits import ImageLimits
from .probe import Header, loaded

__all__ = ["decode"]

_JPEG_REST: Final = 1.5  # what JPEG leaves to the better resizing: sharp to the eye, and a quarter faster than 2
_WEBP_REST: Final = 2.0
_FILTER_PASSES: Final = 25


def decode(
    view: memoryview,
    header: Header,
    limits: ImageLimits,
    watch: Watch,
    *,
    needed: tuple[int, int] | None = None,
    frames: bool = False,
) -> Picture:
    """Open a picture for reading once from top to bottom; its orientation is not applied yet.

    Args:
        view: The file; it must outlive the picture.
        header: What :func:`~aioimageattach.imaging.probe.inspect` said.
        limits: For the canvas of a drawing.
        watch: Stops the reading in time.
        needed: Width and height, as displayed, below which the picture must not be; ``None`` means as it is.
        frames: Whether all frames are wanted, one below the other.
    """
    size = header.probe.width, header.probe.height
    wanted = needed or size
    match header.probe.mimetype:
        case "image/svg+xml":
            canvas = _canvas(size, wanted, header, limits)
            image = loaded(view, "image/svg+xml", scale=max(canvas[0] / size[0], canvas[1] / size[1]))
        case "application/pdf":
            painting = _pdf.paint(view, _canvas(size, wanted, header, limits))
            image = _from_memory(watch, painting.pixels, painting.width, painting.height, 4).extract_band(0, n=3)
        case "image/heic":
            found = _heif.load(view)
            image = _from_memory(watch, found.pixels, found.width, found.height, found.bands)
            if found.profile is not None:
                image = image.copy()
                image.set_type(libvips().GValue.blob_type, "icc-profile-data", found.profile)
        case mimetype:
            image = loaded(view, mimetype, **_shrinking(mimetype, size, wanted, header, frames=frames))
    return watch.add(image)


def _shrinking(
    mimetype: str, size: tuple[int, int], wanted: tuple[int, int], header: Header, *, frames: bool
) -> dict[str, Any]:
    """The options that let a decoder leave out what is not needed."""
    if frames:
        return {"n": -1}
    room = min(size[0] / wanted[0], size[1] / wanted[1])
    if mimetype == "image/jpeg":
        return {"shrink": next(shrink for shrink in (8, 4, 2, 1) if shrink == 1 or room >= shrink * _JPEG_REST)}
    if mimetype == "image/webp" and header.probe.frames == 1 and room > _WEBP_REST:
        return {"scale": _WEBP_REST / room}
    return {}


def _canvas(size: tuple[int, int], wanted: tuple[int, int], header: Header, limits: ImageLimits) -> tuple[int, int]:
    """The size at which to paint a drawing; it holds the wanted size, and keeps the proportions."""
    scale = max(wanted[0] / size[0], wanted[1] / size[1])
    width, height = (max(1, round(side * scale)) for side in size)
    limits.check_size(width, height, what="the painted drawing", at_once=True)
    allowed = limits.max_pixels_at_once * _FILTER_PASSES
    if header.filters * width * height > allowed:
        raise ImageTooLargeError(
            f"the SVG paints {header.filters:,} filter steps at {width} x {height}: that is too much work",
            limit=allowed,
            actual=header.filters * width * height,
        )
    return width, height


def _from_memory(watch: Watch, pixels: bytes, width: int, height: int, bands: int) -> Picture:
    watch.hold(pixels)
    image = libvips().Image.new_from_memory(pixels, width, height, bands, "uchar")
    return image.copy(interpretation="srgb" if bands > 2 else "b-w")
