"""Read the header of an image, before any pixels are decoded."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from ..exc import DeclarationError, ImageTooLargeError, UnreadableImageError, UnsupportedImageError
from . import _pdf
from . import _pillow_heif as _heif
from . import _svg as svg
from ._guard import examine
from ._limits import ImageLimits
from ._sniff import sniff
from ._structure import Clock, Structure, assemble
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
    "load",
    "memory_of",
    "open_view",
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
"""The libvips loader for each MIME type, so that libvips never guesses the type."""


EMBEDDED: Final = frozenset({"image/jpeg", "image/png", "image/webp", "image/gif"})
_PROGRESSIVELY_SHOWN: Final = frozenset({"image/jpeg", "image/png", "image/gif"})
"""MIME types of which browsers display damaged files as far as they can be decoded."""
_EMBEDDED_COST: Final = 25  # bytes of memory per pixel of an image embedded in an SVG


@dataclass(frozen=True, slots=True)
class Probe:
    """Properties of an image, read from its header.

    Args:
        width: Width in pixels as displayed, after the orientation is applied. For SVG and PDF, the natural width: one
            pixel per ``px`` of an SVG, or per point of the first page of a PDF.
        height: Height in pixels as displayed, likewise.
        mimetype: MIME type, detected from the content.
        frames: Number of frames of an animation, or of pages; 1 for a still image.
        orientation: EXIF orientation, 1 to 8; 1 if the file has none, or if it need not be applied.
        has_alpha: ``True`` if the image has transparency.
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
    """A probe, and the further information that decoding needs."""

    probe: Probe
    structure: Structure = _PLAIN
    drawing: svg.Drawing | None = None


def check_bytes(view: memoryview, limits: ImageLimits) -> None:
    """Raise :class:`~aioimageattach.exc.ImageTooLargeError` if the file has more than ``max_bytes`` bytes."""
    if len(view) > limits.max_bytes:
        raise ImageTooLargeError(
            f"expected an image of at most {limits.max_bytes:,} bytes (max_bytes), got {len(view):,} bytes",
            limit=limits.max_bytes,
            actual=len(view),
        )


@contextmanager
def open_view(data: Buffer) -> Generator[memoryview, None, None]:
    """Open a buffer as a memoryview of single bytes. Until it is released, the buffer cannot be closed or resized."""
    try:
        whole = memoryview(data)
    except TypeError:
        raise DeclarationError(f"data: expected bytes, a memoryview or an mmap, got {type(data).__name__}") from None
    with whole:
        if not whole.c_contiguous:
            raise DeclarationError("data: expected a contiguous buffer, got a memoryview with strides")
        with whole.cast("B") as view:
            yield view


def inspect(view: memoryview, limits: ImageLimits) -> Header:
    """Read the header of an image in this process.

    Raises:
        UnreadableImageError: The file is not an image, or its header is damaged.
        UnsupportedImageError: The limits do not allow the type of the image, or it needs an extra.
        ImageTooLargeError: The image exceeds a limit.
    """
    check_bytes(view, limits)
    mimetype = sniff(view)
    if mimetype is None:
        empty = "no bytes; if the file was read before, call seek(0) first"
        got = f"bytes that start with {bytes(view[:12])!r}" if len(view) else empty
        raise UnreadableImageError(f"expected an image, got {got}")
    if mimetype not in limits.types:
        raise UnsupportedImageError(
            f"expected one of {', '.join(sorted(limits.types)) or 'no types'}, got {mimetype}"
            + (
                ". HEIC, the format of iPhone photos, requires aioimageattach[heif]" if mimetype == "image/heic" else ""
            ),
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
    structure = examine(view, mimetype, limits, clock)
    if mimetype == "image/heic" and structure.size is not None:
        return Header(Probe(*structure.size, mimetype, structure.frames, has_alpha=structure.has_alpha), structure)
    with header_errors(mimetype):
        image = load(assemble(view, structure, header=True), mimetype)
        found = _probe_of(image, mimetype, structure)
    limits.check_size(found.width, found.height, bytes_per_pixel=structure.bytes_per_pixel)
    return Header(found, structure)


def fail_on(mimetype: str, limits: ImageLimits) -> str:
    """Return the value of the libvips option ``fail_on``: how much damage is accepted."""
    if limits.verify == "complete":
        return "warning"
    return "none" if mimetype in _PROGRESSIVELY_SHOWN else "error"


def load(data: memoryview | bytes, mimetype: str, **options: Any) -> Picture:
    """Open an image with the loader of its type. The data must outlive the image."""
    source = libvips().Source.new_from_memory(data)
    return getattr(libvips().Image, LOADERS[mimetype])(source, **options)


def _probe_of(image: Picture, mimetype: str, structure: Structure) -> Probe:
    width, height = image.width, image.height
    if structure.orientation > 4:
        width, height = height, width
    has_alpha = bool(without_extra(image, structure).hasalpha())
    return Probe(width, height, mimetype, structure.frames, structure.orientation, has_alpha)


def memory_of(header: Header) -> int:
    """Return the memory that decoding takes, in bytes, at least 1."""
    return int(header.probe.width * header.probe.height * header.structure.bytes_per_pixel) + 1


def without_extra(image: Picture, structure: Structure) -> Picture:
    """Drop the bands that are neither colours nor an alpha channel."""
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
                f"expected an SVG with embedded images that take at most {limits.max_memory:,} bytes of memory "
                "(max_memory), got larger ones",
                limit=limits.max_memory,
            )

    drawing = svg.examine(view, limits, check_picture, clock)
    limits.check_size(drawing.width, drawing.height)
    return Header(Probe(drawing.width, drawing.height, "image/svg+xml", has_alpha=True), drawing=drawing)
