"""What a picture is, from its header alone: before a single pixel is decoded."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from ..exc import DeclarationError, ImageTooLargeError, UnreadableImageError, UnsupportedImageError
from . import _guard as guard
from . import _pdf
from . import _pillow_heif as _heif
from . import _svg as svg
from ._guard import Clock, Structure
from ._limits import ImageLimits
from ._sniff import sniff
from ._vips import Picture, header_errors, libvips

if TYPE_CHECKING:
    from typing_extensions import Buffer


__all__ = [
    "LOADERS",
    "Header",
    "Probe",
    "check_bytes",
    "fail_on",
    "inspect",
    "loaded",
    "memory_of",
    "opened",
    "without_extra",
]

LOADERS: Final = {
    "image/avif": "heifload_source",
    "image/gif": "gifload_source",
    "image/jpeg": "jpegload_source",
    "image/png": "pngload_source",
    "image/svg+xml": "svgload_source",
    "image/tiff": "tiffload_source",
    "image/webp": "webpload_source",
}
"""The one loader of libvips that may read each type; none guesses."""


EMBEDDED: Final = frozenset({"image/jpeg", "image/png", "image/webp", "image/gif"})
_PROGRESSIVELY_SHOWN: Final = frozenset({"image/jpeg", "image/png", "image/gif"})
"""Types of which browsers show as much of a damaged file as can be decoded."""
_EMBEDDED_COST: Final = 25  # bytes of memory for each pixel of a picture in a drawing


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


_PLAIN: Final = Structure()


@dataclass(frozen=True, slots=True)
class Header:
    """A probe, and what the decoder need know besides."""

    probe: Probe
    structure: Structure = _PLAIN
    drawing: svg.Drawing | None = None


def check_bytes(view: memoryview, limits: ImageLimits) -> None:
    """Raise :class:`~aioimageattach.exc.ImageTooLargeError` where the file has too many bytes."""
    if len(view) > limits.max_bytes:
        raise ImageTooLargeError(
            f"the picture has {len(view):,} bytes: {limits.max_bytes:,} are allowed (max_bytes)",
            limit=limits.max_bytes,
            actual=len(view),
        )


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
    """Read a picture's header in this process.

    Raises:
        UnreadableImageError: The bytes are no picture, or the header is broken.
        UnsupportedImageError: A kind of picture that the limits do not allow, or that needs an extra.
        ImageTooLargeError: It is beyond a limit.
    """
    check_bytes(view, limits)
    mimetype = sniff(view)
    if mimetype is None:
        empty = "no bytes; if the file was read before, call seek(0) first"
        what = f"bytes that begin with {bytes(view[:12])!r}" if len(view) else empty
        raise UnreadableImageError(f"expected a picture, got {what}")
    if mimetype not in limits.types:
        raise UnsupportedImageError(
            f"{mimetype} is not allowed here; allowed are {', '.join(sorted(limits.types)) or 'none'}"
            + (". HEIC, what iPhones take, needs the extra 'heif'" if mimetype == "image/heic" else ""),
            mimetype=mimetype,
            allowed=limits.types,
        )
    clock = Clock(limits.header_timeout)
    match mimetype:
        case "application/pdf":
            width, height, pages = _pdf.header(view, limits)
            header = Header(Probe(width, height, mimetype, frames=pages))
        case "image/svg+xml":
            header = _drawing(view, limits, clock)
        case _:
            header = _raster(view, mimetype, limits, clock)
    clock.check()
    return header


def _raster(view: memoryview, mimetype: str, limits: ImageLimits, clock: Clock) -> Header:
    if mimetype == "image/heic":
        _heif.require()
    structure = guard.examine(view, mimetype, limits, clock)
    if mimetype == "image/heic" and structure.size is not None:
        return Header(Probe(*structure.size, mimetype, structure.frames, has_alpha=structure.has_alpha), structure)
    with header_errors(mimetype):
        image = loaded(guard.assemble(view, structure, header=True), mimetype)
        found = _described(image, mimetype, structure)
    limits.check_size(found.width, found.height, bytes_per_pixel=structure.bytes_per_pixel)
    return Header(found, structure)


def fail_on(mimetype: str, limits: ImageLimits) -> str:
    """Return how much damage libvips accepts, by its own word."""
    if limits.verify == "complete":
        return "warning"
    return "none" if mimetype in _PROGRESSIVELY_SHOWN else "error"


def loaded(data: memoryview | bytes, mimetype: str, **options: Any) -> Picture:
    """Open a picture of that type with the one loader for it; the data must outlive it."""
    source = libvips().Source.new_from_memory(data)
    return getattr(libvips().Image, LOADERS[mimetype])(source, **options)


def _described(image: Picture, mimetype: str, structure: Structure) -> Probe:
    width, height = image.width, image.height
    if structure.orientation > 4:
        width, height = height, width
    has_alpha = bool(without_extra(image, structure).hasalpha())
    return Probe(width, height, mimetype, structure.frames, structure.orientation, has_alpha)


def memory_of(header: Header) -> int:
    """Return the memory that decoding takes, in bytes; at least 1."""
    return int(header.probe.width * header.probe.height * header.structure.bytes_per_pixel) + 1


def without_extra(image: Picture, structure: Structure) -> Picture:
    """Leave out the bands that are no colour and no alpha channel."""
    return image.extract_band(0, n=image.bands - structure.extra_bands) if structure.extra_bands else image


def _drawing(view: memoryview, limits: ImageLimits, clock: Clock) -> Header:
    inner = replace(limits, types=EMBEDDED)
    left = limits.max_memory

    def check_picture(data: bytes) -> None:
        nonlocal left
        found = inspect(memoryview(data), inner).probe
        left -= found.width * found.height * _EMBEDDED_COST
        if left < 0:
            raise ImageTooLargeError(
                f"the SVG holds pictures that take more than {limits.max_memory:,} bytes (max_memory)",
                limit=limits.max_memory,
            )

    drawing = svg.examine(view, limits, check_picture, clock)
    limits.check_size(drawing.width, drawing.height)
    return Header(Probe(drawing.width, drawing.height, "image/svg+xml", has_alpha=True), drawing=drawing)
