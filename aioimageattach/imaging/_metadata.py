"""Remove metadata from originals: location, time, owner, texts and embedded previews."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, TypeAlias
from zlib import crc32

from ..exc import UnreadableImageError, UnsupportedImageError
from ._containers import Item, Part, gif_parts, heif_items, jpeg_parts, png_parts, riff_parts, top_boxes
from ._header import Probe, inspect, open_view
from ._limits import ImageLimits

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["STRIPPED_TYPES", "strip_metadata", "strip_probed"]

_Stripper: TypeAlias = "Callable[[memoryview, int], Iterator[bytes | memoryview] | Iterator[bytes]]"

_SOI, _EOI, _SOS = b"\xd8", b"\xd9", b"\xda"
_APPLICATION: Final = range(0xE0, 0xF0)
_COMMENT: Final = 0xFE
_PNG_KEPT: Final = frozenset(
    (
        b"IHDR PLTE IDAT IEND tRNS acTL fcTL fdAT "  # pixels
        b"gAMA cHRM sRGB iCCP cICP mDCV cLLI sBIT bKGD pHYs"  # how to display them
    ).split()
)
_WEBP_KEPT: Final = frozenset({b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF", b"ICCP"})
_GIF_APPLICATIONS: Final = (b"\x0bNETSCAPE2.0", b"\x0bANIMEXTS1.0", b"\x0bICCRGBG1012")
_EXIF_FLAG, _XMP_FLAG = 0x08, 0x04
_SPARE_BOXES: Final = frozenset({b"free", b"skip", b"uuid", b"udta"})


def strip_metadata(data: Buffer, mimetype: str) -> bytes:
    """Return a copy of an image without its metadata. The pixels stay identical, because nothing is re-encoded.

    Removes EXIF (including the location and the preview), XMP, IPTC, comments, texts, maker notes, and data after the
    end of the image, such as the videos and gain maps of phones. Keeps the colour profile, the orientation, the
    resolution of PNG, and the timing of an animation.

    Args:
        data: The file. It is not changed.
        mimetype: MIME type of the file: JPEG, PNG, WebP, GIF or AVIF.

    Returns:
        The content of the new file.

    Raises:
        UnreadableImageError: The file is not of that type, or its structure is damaged.
        UnsupportedImageError: Metadata cannot be removed safely from files of that type, or from this file.
    """
    strip = _stripper(mimetype)
    with open_view(data) as view:
        found = inspect(view, _LENIENT).probe
        if found.mimetype != mimetype:
            raise UnreadableImageError(f"expected {mimetype}, got {found.mimetype}")
        return b"".join(strip(view, found.orientation))


def strip_probed(data: Buffer, found: Probe) -> bytes:
    """Do the same as :func:`strip_metadata` for an image whose header has been read, without reading it again."""
    strip = _stripper(found.mimetype)
    with open_view(data) as view:
        return b"".join(strip(view, found.orientation))


def _stripper(mimetype: str) -> _Stripper:
    strip = _STRIPPERS.get(mimetype)
    if strip is None:
        raise UnsupportedImageError(
            f"metadata can be removed from {', '.join(sorted(STRIPPED_TYPES))}, got {mimetype}",
            mimetype=mimetype,
            allowed=STRIPPED_TYPES,
        )
    return strip


def _broken(mimetype: str) -> UnreadableImageError:
    return UnreadableImageError(
        f"expected a valid {mimetype} file, to remove its metadata, got one with a damaged structure"
    )


def _exif(orientation: int) -> bytes:
    """Return an EXIF block (TIFF 6.0, section 2) with only the orientation, or without tags if it is the default."""
    if orientation == 1:
        return b"MM\0*\0\0\0\x08" + struct.pack(">HI", 0, 0)
    return b"MM\0*\0\0\0\x08" + struct.pack(">HHHIHHI", 1, 0x0112, 3, 1, orientation, 0, 0)


def _segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + (len(body) + 2).to_bytes(2, "big") + body


def _jpeg(view: memoryview, orientation: int) -> Iterator[bytes | memoryview]:
    parts = list(jpeg_parts(view))
    names = {part.name for part in parts}
    if _SOS not in names or parts[-1].name != _EOI:
        raise _broken("image/jpeg")
    for part in parts:
        marker = part.name[0]
        if marker == _COMMENT:
            continue
        if marker not in _APPLICATION or _is_needed(marker, view[part.body : part.end]):
            yield _without_preview(view[part.start : part.end]) if marker == 0xE0 else view[part.start : part.end]
        if part.name == _SOI and orientation != 1:
            yield _segment(0xE1, b"Exif\0\0" + _exif(orientation))


def _is_needed(marker: int, content: memoryview) -> bool:
    head = bytes(content[:12])
    return (
        (marker == 0xE0 and head.startswith(b"JFIF\0"))
        or (marker == 0xE2 and head == b"ICC_PROFILE\0")
        or (marker == 0xEE and head.startswith(b"Adobe"))
    )


def _without_preview(segment: memoryview) -> bytes:
    """Return the JFIF header with its version and resolution, without the preview that may follow it."""
    return _segment(0xE0, (bytes(segment[4:16]) + bytes(12))[:12] + b"\0\0")


def _png_chunk(name: bytes, body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + name + body + crc32(name + body).to_bytes(4, "big")


def _png(view: memoryview, orientation: int) -> Iterator[bytes | memoryview]:
    parts = list(png_parts(view))
    if not parts or parts[0].name != b"IHDR" or parts[-1].name != b"IEND":
        raise _broken("image/png")
    yield view[:8]
    for part in parts:
        if part.name in _PNG_KEPT:
            yield view[part.start : part.end]
        if part.name == b"IHDR" and orientation != 1:
            yield _png_chunk(b"eXIf", _exif(orientation))


def _riff_chunk(name: bytes, body: bytes) -> bytes:
    return name + len(body).to_bytes(4, "little") + body + bytes(len(body) & 1)


def _content(view: memoryview, part: Part) -> memoryview:
    return view[part.body : part.body + int.from_bytes(view[part.start + 4 : part.body], "little")]


def _webp(view: memoryview, orientation: int) -> Iterator[bytes | memoryview]:
    parts = list(riff_parts(view))
    names = {part.name for part in parts}
    kept = [_webp_chunk(view, part, orientation) for part in parts if part.name in _WEBP_KEPT]
    if orientation != 1 and b"VP8X" in names:
        kept.append(_riff_chunk(b"EXIF", _exif(orientation)))
    yield b"RIFF" + (4 + sum(map(len, kept))).to_bytes(4, "little") + b"WEBP"
    yield from kept


def _webp_chunk(view: memoryview, part: Part, orientation: int) -> bytes:
    body = bytes(_content(view, part))
    if part.name == b"VP8X":
        flags = body[0] & ~(_EXIF_FLAG | _XMP_FLAG) if body else 0
        body = bytes([flags | (_EXIF_FLAG if orientation != 1 else 0)]) + body[1:]
    elif part.name == b"ANMF":
        frame = [
            _riff_chunk(inner.name, bytes(_content(view, inner)))
            for inner in riff_parts(view, part.body + 16, part.body + len(body))
            if inner.name in (b"ALPH", b"VP8 ", b"VP8L")
        ]
        body = body[:16] + b"".join(frame)
    return _riff_chunk(part.name, body)


def _gif(view: memoryview, _: int) -> Iterator[bytes | memoryview]:
    parts = list(gif_parts(view))
    names = {part.name for part in parts}
    if b"," not in names or b";" not in names:
        raise _broken("image/gif")
    for part in parts:
        if part.name in (b"header", b",", b";", b"!\xf9") or (
            part.name == b"!\xff" and bytes(view[part.body : part.body + 12]) in _GIF_APPLICATIONS
        ):
            yield view[part.start : part.end]


def _avif(view: memoryview, _: int) -> Iterator[bytes]:
    """Overwrite the metadata in place, so that all offsets in the file stay valid."""
    items = heif_items(view)
    boxes = list(top_boxes(view))
    if items is None or not boxes or boxes[-1].end != len(view):
        raise _broken("image/avif")
    if any(box.name == b"moov" for box in boxes):
        raise UnsupportedImageError(
            "metadata can be removed from a still image/avif file, got an image sequence", mimetype="image/avif"
        )
    private = [item for item in items if item.kind in (b"Exif", b"mime", b"uri ")]
    ranges = [extent for item in private for extent in item.extents]
    shared = [extent for item in items if item not in private for extent in item.extents]
    if any(start < other_end and other_start < end for start, end in ranges for other_start, other_end in shared):
        raise _broken("image/avif")
    copy = bytearray(view)
    for box in boxes:
        if box.name in _SPARE_BOXES:
            copy[box.body : box.end] = bytes(box.end - box.body)
    for item in private:
        _blank(copy, item)
    yield bytes(copy)


def _blank(file: bytearray, item: Item) -> None:
    """Overwrite an item with content that readers still accept: EXIF without tags, or text of spaces."""
    left = b"\0\0\0\0" + _exif(1) if item.kind == b"Exif" else b""
    filler = b"\0" if item.kind == b"Exif" else b" "
    for start, end in item.extents:
        size = end - start
        file[start:end] = left[:size].ljust(size, filler)
        left = left[size:]


_STRIPPERS: Final[MappingProxyType[str, _Stripper]] = MappingProxyType(
    {
        "image/avif": _avif,
        "image/gif": _gif,
        "image/jpeg": _jpeg,
        "image/png": _png,
        "image/webp": _webp,
    }
)

STRIPPED_TYPES: Final = frozenset(_STRIPPERS)
"""MIME types whose metadata can be removed."""

# The image was already checked against the limits of its class. These only bound the memory that a header can take.
_LENIENT: Final = ImageLimits(
    types=STRIPPED_TYPES,
    max_bytes=2**40,
    max_side=2**31,
    max_pixels=2**62,
    max_memory=2**62,
    max_frames=1_000_000,
    max_metadata=200_000_000,
    header_timeout=60,
)
