"""Analyse the structure of an image: which parts the decoder needs, and how much memory decoding takes.

The decoder gets a file without metadata: no EXIF, XMP or texts, no previews, no other images. The cost of parsing
them is therefore bounded by these modules and does not depend on the decoder. The orientation and the colours are read
here.
"""

from __future__ import annotations

import struct
from typing import Final

from ..exc import UnreadableImageError
from ._colour import profile_of
from ._containers import Piece, gif_parts, riff_parts
from ._heif import still
from ._jpeg import examine_jpeg
from ._limits import ImageLimits
from ._png import examine_png
from ._structure import STREAMED, Clock, Metadata, Pieces, Structure, check_frames
from ._tiff import Tiff, exif_orientation

__all__ = ["examine"]

_CLEAR_FRAME: Final = b"!\xf9\4\1\0\0\0\0,\0\0\0\0\1\0\1\0\x80\0\0\0\0\0\0\2\2\x44\1\0;"
"""A GIF frame of one transparent pixel, and the end of the file."""

_GIF, _WEBP, _AVIF, _HEIC = 7.0, 9.0, 18.0, 14.0  # memory per pixel, in bytes
_PROFILE_FLAG, _EXIF_FLAG = 0x20, 0x08  # of VP8X (RFC 9649, 2.7)
_DEEP: Final = 1.5  # factor for more than 8 bits per sample


def examine(view: memoryview, mimetype: str, limits: ImageLimits, clock: Clock) -> Structure:
    """Analyse the structure of a raster image of the given MIME type.

    Raises:
        UnreadableImageError: The part that contains the size, or another part that the decoder requires, is missing or
            damaged.
        UnsupportedImageError: The image uses a variant of its format that would be rendered incorrectly.
        ImageTooLargeError: The image exceeds a limit.
    """
    match mimetype:
        case "image/jpeg":
            return examine_jpeg(view, limits, clock)
        case "image/png":
            return examine_png(view, limits, clock)
        case "image/webp":
            return _webp(view, limits)
        case "image/gif":
            return _gif(view, limits, clock)
        case "image/tiff":
            return _tiff(view, limits)
        case _:
            return _heif(view, mimetype, limits)


def _webp(view: memoryview, limits: ImageLimits) -> Structure:
    if 8 + int.from_bytes(view[4:8], "little") > len(view) + 1:
        raise UnreadableImageError("expected a complete image/webp file, got one that is truncated")
    metadata = Metadata(limits)
    pieces = Pieces()
    frames, orientation, profile, dropped, announced = 0, 1, None, False, 0
    for part in riff_parts(view):
        size = int.from_bytes(view[part.start + 4 : part.body], "little")
        content = view[part.body : part.body + size]
        if part.name == b"ANMF":
            frames += 1
            check_frames(frames, limits)
        elif part.name == b"VP8X" and len(content) >= 10:
            sides = (1 + int.from_bytes(view[at : at + 3], "little") for at in (part.body + 4, part.body + 7))
            limits.check_size(*sides, bytes_per_pixel=_WEBP)
            announced = content[0]
            flags = bytes([content[0] & 0x12]) + bytes(content[1:])  # keep only the flags for alpha and animation
            pieces.found.append(bytes(view[part.start : part.body]) + flags + bytes(part.end - part.body - size))
            continue
        elif part.name not in (b"VP8 ", b"VP8L", b"ALPH", b"ANIM"):
            dropped = True
            metadata.add(len(content))
            # browsers ignore chunks that VP8X does not announce
            if part.name == b"EXIF" and announced & _EXIF_FLAG:
                orientation = exif_orientation(content)
            elif part.name == b"ICCP" and announced & _PROFILE_FLAG:
                profile = bytes(content)
            continue
        pieces.keep(part.start, part.end)
    found: tuple[Piece, ...] | None = None
    if dropped:
        size = sum(len(piece) if isinstance(piece, bytes) else piece[1] - piece[0] for piece in pieces.found)
        found = (b"RIFF" + (4 + size).to_bytes(4, "little") + b"WEBP", *pieces.found)
    return Structure(found, bytes_per_pixel=_WEBP, frames=max(frames, 1), orientation=orientation, profile=profile)


def _gif(view: memoryview, limits: ImageLimits, clock: Clock) -> Structure:
    metadata = Metadata(limits)
    pieces = Pieces()
    frames, end = 0, 0
    is_covered = is_clear = is_complete = False
    canvas: tuple[int, int] = (0, 0)
    for number, part in enumerate(gif_parts(view)):
        if not number & 1023:
            clock.check()
        end = part.end
        if part.name == b"header":
            canvas = struct.unpack_from("<2H", view, 6)
            limits.check_size(*canvas, bytes_per_pixel=_GIF)
            pieces.keep(0, end)
            continue
        if part.name == b";":
            is_complete = True
            break
        if part.name == b",":
            frames += 1
            check_frames(frames, limits)
            left, top, width, height = struct.unpack_from("<4H", view, part.start + 1)
            is_covered = is_covered or (not left and not top and width >= canvas[0] and height >= canvas[1])
        elif part.name == b"!\xf9":
            is_clear = is_clear or bool(part.end - part.body > 2 and view[part.body + 1] & 1)
        else:
            metadata.add(part.end - part.body)
            if bytes(view[part.body : part.body + 12]) != b"\x0bNETSCAPE2.0":
                continue
        pieces.keep(part.start, part.end)
    if not is_complete:
        pieces.keep(end, len(view))  # the file ends in the middle of a frame
    elif not is_covered and not is_clear:
        pieces.found.append(_CLEAR_FRAME)  # shows the decoder that parts of the canvas stay transparent
    return Structure(pieces.all(), bytes_per_pixel=_GIF, frames=max(frames, 1))


def _tiff(view: memoryview, limits: ImageLimits) -> Structure:
    tiff = Tiff(view)
    frames = 0
    for _ in tiff.directories():
        frames += 1
        check_frames(frames, limits)
    page = tiff.page(limits.max_metadata)
    limits.check_size(page.width, page.height)
    bytes_per_pixel = STREAMED + 2 * page.block / (page.width * page.height)
    limits.check_size(page.width, page.height, bytes_per_pixel=bytes_per_pixel)
    return Structure(
        (page.head, (0, len(view))),
        head=1,
        bytes_per_pixel=bytes_per_pixel,
        frames=frames,
        orientation=page.orientation,
        profile=page.profile,
        extra_bands=page.extra_bands,
    )


def _heif(view: memoryview, mimetype: str, limits: ImageLimits) -> Structure:
    found = still(view, mimetype)
    check_frames(found.frames, limits)
    metadata = Metadata(limits)
    metadata.add(found.metadata)
    profile = found.profile
    if profile is not None:
        metadata.add(len(profile))
    elif found.colours is not None:
        profile = profile_of(found.colours, is_grey=found.is_grey)
    bytes_per_pixel = _AVIF if mimetype == "image/avif" else _HEIC
    if found.bits > 8:
        bytes_per_pixel *= _DEEP
    limits.check_size(*found.coded, bytes_per_pixel=bytes_per_pixel)
    return Structure(
        found.pieces,
        bytes_per_pixel=bytes_per_pixel,
        frames=found.frames,
        size=(found.width, found.height),
        profile=profile,
        bits=found.bits,
        has_alpha=found.has_alpha,
        is_narrow=found.is_grey and found.colours is not None and not found.colours.full_range,
        is_alpha_narrow=not found.alpha_full_range,
    )
