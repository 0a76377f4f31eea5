"""Decode a file to a libvips image, at a size no larger than needed."""

from __future__ import annotations

import base64
import functools
from dataclasses import replace
from typing import Any, Final

from ..exc import ImageTooLargeError
from . import _pdf
from . import _pillow_heif as _heif
from ._header import EMBEDDED, Header, fail_on, inspect, load, without_extra
from ._limits import VECTOR_TYPES, ImageLimits
from ._structure import Structure, assemble
from ._svg import Drawing
from ._vips import Picture, Watch, libvips, vips_errors

__all__ = ["decode", "paintable"]

_JPEG_REST: Final = 1.5  # left to the resampling kernel after shrink-on-load: looks sharp, a quarter faster than 2
_WEBP_REST: Final = 2.0
_FILTER_WORK: Final = 3_000_000_000  # nanoseconds
_CANVAS: Final = 8.0
_DPI: Final = 96  # of CSS, for lengths in absolute units
_NARROW_BLACK, _NARROW_RANGE = 16, 219  # out of 255, ITU-R BT.601


def decode(
    view: memoryview,
    header: Header,
    limits: ImageLimits,
    watch: Watch,
    *,
    needed: tuple[int, int] | None = None,
    frames: bool = False,
) -> Picture:
    """Open an image for sequential reading, from top to bottom and only once.

    The orientation is not applied yet. The colours are sRGB, grey, or those of the attached profile, which is known to
    be usable.

    Args:
        view: The file. It must outlive the image.
        header: The result of :func:`~aioimageattach.imaging._header.inspect`.
        limits: Limits for the canvas of SVG and PDF. Their ``verify`` decides whether damaged images are rejected.
        watch: Stops decoding when the time is over.
        needed: Smallest allowed width and height, as displayed; ``None`` means the original size.
        frames: ``True`` to read all frames, stacked vertically.
    """
    size = header.probe.width, header.probe.height
    wanted = needed or size
    structure = header.structure
    if header.drawing is not None:
        return _render_svg(header.drawing, _canvas(size, wanted, header, limits), limits, watch)
    match header.probe.mimetype:
        case "application/pdf":
            painting = _pdf.paint(view, _canvas(size, wanted, header, limits))
            image = _from_memory(watch, painting.pixels, painting.width, painting.height, 4, 8)
            return watch.add(image.extract_band(0, n=3))
        case "image/heic":
            found = _heif.load(assemble(view, structure))
            image = watch.add(_from_memory(watch, found.pixels, found.width, found.height, found.bands, found.bits))
        case mimetype:
            image = _open(
                view, mimetype, limits, watch, structure, _load_options(mimetype, size, wanted, header, frames)
            )
    return _with_profile(_to_full_range(without_extra(image, structure), structure), structure)


def paintable(wanted: tuple[int, int], header: Header, limits: ImageLimits) -> tuple[int, int]:
    """Return the size to decode for thumbnails that show a part of an image: the wanted size, if possible.

    An SVG or PDF is painted as a whole, so a small part at a large size can need a canvas that exceeds the limits. The
    size is then smaller than wanted, and the part has to be enlarged.

    Raises:
        ImageTooLargeError: Even the smallest canvas exceeds the limits.
    """
    if header.probe.mimetype not in VECTOR_TYPES:
        return wanted
    while True:
        try:
            _canvas((header.probe.width, header.probe.height), wanted, header, limits)
        except ImageTooLargeError:
            if max(wanted) == 1:
                raise
            wanted = max(1, wanted[0] * 7 // 8), max(1, wanted[1] * 7 // 8)
        else:
            return wanted


def _open(
    view: memoryview, mimetype: str, limits: ImageLimits, watch: Watch, structure: Structure, options: dict[str, Any]
) -> Picture:
    data = assemble(view, structure)
    watch.hold(data)
    return watch.add(load(data, mimetype, fail_on=fail_on(mimetype, limits), access="sequential", **options))


def _render_svg(drawing: Drawing, canvas: tuple[int, int], limits: ImageLimits, watch: Watch) -> Picture:
    def embed(data: bytes) -> str:
        return "data:image/png;base64," + base64.b64encode(_as_png(data, limits, watch)).decode()

    document = drawing.document(*canvas, embed)
    watch.hold(document)
    return watch.add(load(document, "image/svg+xml", fail_on="error", access="sequential", dpi=_DPI))


def _as_png(data: bytes, limits: ImageLimits, watch: Watch) -> bytes:
    """Convert an image embedded in an SVG to a PNG for the renderer, upright and in sRGB."""
    inner = replace(limits, types=EMBEDDED)
    with memoryview(data) as view:
        header = inspect(view, inner)
        image = decode(view, header, inner, watch)
        profile = {"export_profile": "srgb"} if "icc-profile-data" in image.get_fields() else {}
        image = image.thumbnail_image(header.probe.width, height=header.probe.height, size="force", **profile)
        png: bytes = image.pngsave_buffer(compression=1, keep="none")
    return png


def _load_options(
    mimetype: str, size: tuple[int, int], wanted: tuple[int, int], header: Header, frames: bool
) -> dict[str, Any]:
    """Return the loader options that make the decoder shrink the image while loading, or read all frames."""
    if frames:
        return {"n": header.probe.frames}
    room = min(size[0] / wanted[0], size[1] / wanted[1])
    if mimetype == "image/jpeg":
        return {"shrink": next(shrink for shrink in (8, 4, 2, 1) if shrink == 1 or room >= shrink * _JPEG_REST)}
    if mimetype == "image/webp" and header.probe.frames == 1 and room > _WEBP_REST:
        return {"scale": _WEBP_REST / room}
    return {}


def _to_full_range(image: Picture, structure: Structure) -> Picture:
    """Expand grey and alpha from narrow range to full range, which the decoder does not do."""
    if not (structure.is_narrow or structure.is_alpha_narrow):
        return image
    colours = image.bands - image.hasalpha()
    narrow = [structure.is_narrow] * colours + [structure.is_alpha_narrow] * (image.bands - colours)
    unit = 1 if image.format == "uchar" else 256
    full = 255 if image.format == "uchar" else 65_535
    factors = [full / (_NARROW_RANGE * unit) if is_narrow else 1 for is_narrow in narrow]
    shifts = [
        -_NARROW_BLACK * unit * factor if is_narrow else 0 for is_narrow, factor in zip(narrow, factors, strict=True)
    ]
    return (
        (image * factors + [shift + 0.5 for shift in shifts])
        .cast(image.format)
        .copy(interpretation=image.interpretation)
    )


def _with_profile(image: Picture, structure: Structure) -> Picture:
    """Attach the orientation and, if it is usable, the profile to an image. Convert CMYK to sRGB."""
    profile = structure.profile
    if profile is not None and not _is_usable(profile, image.interpretation, image.bands - image.hasalpha()):
        profile = None  # browsers ignore unusable profiles as well
    if profile is not None or structure.orientation != 1:
        image = image.copy()
    if structure.orientation != 1:
        image.set_type(libvips().GValue.gint_type, "orientation", structure.orientation)
    if profile is not None:
        image.set_type(libvips().GValue.blob_type, "icc-profile-data", profile)
    if image.interpretation == "cmyk":
        image = image.icc_transform(
            "srgb", embedded=True, input_profile="cmyk", intent="relative", black_point_compensation=True
        )
        image.remove("icc-profile-data")
    return image


@functools.lru_cache(maxsize=64)
def _is_usable(profile: bytes, interpretation: str, bands: int) -> bool:
    """Return whether a profile applies to such pixels. A damaged profile, or one for another colour model, does not."""
    pixel = libvips().Image.black(1, 1, bands=bands).copy(interpretation=interpretation).copy()
    pixel.set_type(libvips().GValue.blob_type, "icc-profile-data", profile)
    try:
        pixel.icc_transform("srgb", embedded=True).avg()
    except vips_errors():
        return False
    return True


def _canvas(size: tuple[int, int], wanted: tuple[int, int], header: Header, limits: ImageLimits) -> tuple[int, int]:
    """Return the size at which to paint an SVG or PDF: at least the wanted size, in the original aspect ratio."""
    scale = max(wanted[0] / size[0], wanted[1] / size[1])
    width, height = (max(1, round(side * scale)) for side in size)
    limits.check_size(width, height, what="a rendered drawing", bytes_per_pixel=_CANVAS)
    work = width * height * (header.drawing.filters if header.drawing is not None else 0)
    if work > _FILTER_WORK:
        raise ImageTooLargeError(
            f"expected filters of an SVG that take at most {_FILTER_WORK / 1e9:.0f} seconds, got about "
            f"{work / 1e9:,.0f} seconds at {width} x {height}",
            limit=_FILTER_WORK,
            actual=work,
        )
    return width, height


def _from_memory(watch: Watch, pixels: bytes | memoryview, width: int, height: int, bands: int, bits: int) -> Picture:
    watch.hold(pixels)
    image = libvips().Image.new_from_memory(pixels, width, height, bands, "uchar" if bits == 8 else "ushort")
    names = ("b-w", "srgb") if bits == 8 else ("grey16", "rgb16")
    return image.copy(interpretation=names[bands > 2])
