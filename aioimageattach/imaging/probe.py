"""What a picture is, from its header alone: before a single pixel is read."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from ..exc import DeclarationError, ImageTooLargeError, UnreadableImageError, UnsupportedImageError
from . import _heif, _pdf, guard, svg
from ._vips import Picture, header_errors, libvips
from .isolation import ask
from .limits import DEFAULT_LIMITS, ImageLimits
from .sniff import sniff

if TYPE_CHECKING:
    from typing_extensions import Buffer


__all__ = ["LOADERS", "Header", "Probe", "check_bytes", "inspect", "loaded", "opened", "probe"]

LOADERS: Final = {
    "image/avif": "heifload_source",
    "image/gif": "gifload_source",
    "image/heic": "heifload_source",
    "image/jpeg": "jpegload_source",
    "image/png": "pngload_source",
    "image/svg+xml": "svgload_source",
    "image/tiff": "tiffload_source",
    "image/webp": "webpload_source",
}
"""The one loader of libvips that may read each type; none guesses."""


_EMBEDDED: Final = frozenset({"image/jpeg", "image/png", "image/webp", "image/gif"})
_BYTES: Final = {"uchar": 1, "char": 1, "ushort": 2, "short": 2, "uint": 4, "int": 4, "float": 4, "double": 8}
_MOST_BYTES_PER_PIXEL: Final = 16


@dataclass(frozen=True, slots=True)
class Probe:
    """What a picture is.

    Args:
        width: In pixels, as displayed: the orientation is applied. Of a drawing, its natural size: one pixel for an
            SVG's ``px`` and for a point of a PDF's first page.
        height: Likewise.
        mimetype: By content.
        frames: Of an animation, or pages; 1 for a still picture.
        orientation: As EXIF says, 1 to 8; 1 where nothing is said or nothing need be done.
        has_alpha: Whether parts of it can be clear.
    """

    width: int
    height: int
    mimetype: str
    frames: int = 1
    orientation: int = 1
    has_alpha: bool = False


@dataclass(frozen=True, slots=True)
class Header:
    """A probe, and what the decoder need know besides: how many filter steps an SVG paints."""

    probe: Probe
    filters: int = 0


def probe(data: Buffer, limits: ImageLimits = DEFAULT_LIMITS) -> Probe:
    """Read a picture's header: a fraction of a millisecond, whatever its size, and no pixel.

    Args:
        data: The file; bytes, a memoryview, a read-only ``mmap``. It is not copied.
        limits: What is accepted.

    Raises:
        UnreadableImageError: The bytes are no picture, or the header is broken. Later pixels may still be.
        UnsupportedImageError: A kind of picture that the limits do not allow, or that needs an extra.
        ImageTooLargeError: It is beyond a limit.
    """
    with opened(data) as view:
        if limits.isolated:
            check_bytes(view, limits)
            return ask(view, limits, lambda found, _: _believed(found, view, limits))
        return inspect(view, limits).probe


def check_bytes(view: memoryview, limits: ImageLimits) -> None:
    """Raise :class:`~aioimageattach.exc.ImageTooLargeError` where the file has too many bytes."""
    if len(view) > limits.max_bytes:
        raise ImageTooLargeError(
            f"the picture has {len(view):,} bytes: {limits.max_bytes:,} are allowed (max_bytes)",
            limit=limits.max_bytes,
            actual=len(view),
        )


def _believed(found: Any, view: memoryview, limits: ImageLimits) -> Probe:
    """The probe that a worker speaks of; ValueError, TypeError or KeyError where it cannot be."""
    told = Probe(**found["probe"])
    numbers = told.width, told.height, told.frames, told.orientation
    if any(type(number) is not int or number < 1 for number in numbers) or type(told.has_alpha) is not bool:
        raise TypeError("expected positive numbers")
    limits.check_size(told.width, told.height)
    if told.mimetype != sniff(view) or told.mimetype not in limits.types:
        raise ValueError("expected the type of the file")
    return told


@contextmanager
def opened(data: Buffer) -> Generator[memoryview, None, None]:
    """Hold a buffer as single bytes; while it is held, it can be neither closed nor resized."""
    try:
        whole = memoryview(data)
    except TypeError:
        raise DeclarationError(f"data: expected bytes, a memoryview or an mmap, got {type(data).__name__}") from None
    with whole:
        if not whole.c_contiguous:
            raise DeclarationError("data: expected contiguous bytes, got a view with steps")
        with whole.cast("B") as view:
            yield view


def inspect(view: memoryview, limits: ImageLimits) -> Header:
    """Do what :func:`probe` does, in this process, and say what the decoder need know."""
    check_bytes(view, limits)
    mimetype = sniff(view)
    if mimetype is None:
        what = f"bytes that begin with {bytes(view[:12])!r}" if len(view) else "no bytes"
        raise UnreadableImageError(f"expected a picture, got {what}")
    if mimetype not in limits.types:
        raise UnsupportedImageError(
            f"{mimetype} is not allowed here; allowed are {', '.join(sorted(limits.types)) or 'none'}"
            + (". HEIC, what iPhones take, needs the extra 'heif'" if mimetype == "image/heic" else ""),
            mimetype=mimetype,
            allowed=limits.types,
        )
    match mimetype:
        case "application/pdf":
            width, height, pages = _pdf.header(view, limits)
            return Header(Probe(width, height, mimetype, frames=pages))
        case "image/svg+xml":
            return _drawing(view, limits)
        case "image/heic":
            _heif.require()
        case _:
            pass
    structure = guard.examine(view, mimetype, limits)
    with header_errors(mimetype):
        found = _described(loaded(view, mimetype), mimetype)
    limits.check_size(found.width, found.height, at_once=structure.at_once)
    if found.frames > limits.max_frames:
        raise ImageTooLargeError(
            f"the picture has {found.frames:,} frames: {limits.max_frames:,} are allowed (max_frames)",
            limit=limits.max_frames,
            actual=found.frames,
        )
    return Header(found)


def loaded(view: memoryview, mimetype: str, **options: Any) -> Picture:
    """Open a picture of that type with the one loader for it; the view must outlive it."""
    source = libvips().Source.new_from_memory(view)
    return getattr(libvips().Image, LOADERS[mimetype])(source, fail_on="truncated", access="sequential", **options)


def _described(image: Picture, mimetype: str) -> Probe:
    fields = frozenset(image.get_fields())
    frames = image.get("n-pages") if "n-pages" in fields else 1
    told = image.get("orientation") if "orientation" in fields else 1
    orientation = told if told in range(1, 9) else 1
    if image.bands * _BYTES.get(image.format, 16) > _MOST_BYTES_PER_PIXEL:
        raise UnsupportedImageError(
            f"{mimetype} with {image.bands} bands of the kind {image.format} is not read here", mimetype=mimetype
        )
    width, height = image.width, image.height
    if orientation > 4:
        width, height = height, width
    return Probe(width, height, mimetype, frames, orientation, bool(image.hasalpha()))


def _drawing(view: memoryview, limits: ImageLimits) -> Header:
    inner = replace(limits, types=_EMBEDDED)
    left = limits.max_pixels_at_once

    def check_picture(data: bytes) -> None:
        nonlocal left
        found = inspect(memoryview(data), inner).probe
        left -= found.width * found.height
        if left < 0:
            raise ImageTooLargeError(
                f"the SVG holds pictures of more than {limits.max_pixels_at_once:,} pixels (max_pixels_at_once)",
                limit=limits.max_pixels_at_once,
            )

    filters = svg.examine(view, limits, check_picture)
    with header_errors("image/svg+xml"):
        image = loaded(view, "image/svg+xml")
        width, height = image.width, image.height
    limits.check_size(width, height)
    return Header(Probe(width, height, "image/svg+xml", has_alpha=True), filters)
