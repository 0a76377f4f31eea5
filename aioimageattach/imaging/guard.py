"""Refuses pictures by what their structure says, before a decoder sees them."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Final

from ..exc import ImageTooLargeError, UnreadableImageError
from .containers import JPEG_DATA, gif_parts, heif_items, jpeg_parts, png_parts, riff_parts
from .limits import ImageLimits

__all__ = ["Structure", "examine"]

_JPEG_FRAMES: Final = frozenset({0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF})
_JPEG_PROGRESSIVE: Final = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_PNG_PIXELS: Final = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"fcTL", b"fdAT"})
_LEAST_PART: Final = 1_000  # what a decoder keeps for each part, however small
_SCAN: Final = 100_000  # a scan costs as much as so many pixels, however small the picture
_PASSES: Final = 25  # a camera's progressive JPEG has ten
_MOST_SCANS: Final = 1_000  # encoders make some dozens at most


@dataclass(frozen=True, slots=True)
class Structure:
    """What the structure says; ``at_once`` where the picture is decoded as a whole."""

    at_once: bool = False
    frames: int = 1


def examine(view: memoryview, mimetype: str, limits: ImageLimits) -> Structure:
    """Return what the structure says, for a raster picture of that type.

    Raises:
        UnreadableImageError: The part that tells of the size is missing or broken.
        ImageTooLargeError: It is beyond a limit.
    """
    match mimetype:
        case "image/jpeg":
            return _jpeg(view, limits)
        case "image/png":
            return _png(view, limits)
        case "image/webp":
            return _webp(view, limits)
        case "image/gif":
            return _gif(view, limits)
        case "image/avif" | "image/heic":
            return _heif(view, limits)
        case _:
            return Structure()


def _broken(mimetype: str) -> UnreadableImageError:
    return UnreadableImageError(f"expected {mimetype}, as its first bytes say, but its structure is broken")


class _Metadata:
    """Counts bytes of metadata."""

    def __init__(self, limits: ImageLimits) -> None:
        self.left = self._limit = limits.max_metadata

    def add(self, size: int) -> None:
        self.left -= max(size, _LEAST_PART)
        if self.left < 0:
            raise ImageTooLargeError(
                f"the picture has more than {self._limit:,} bytes of metadata (max_metadata)", limit=self._limit
            )


def _check_frames(frames: int, limits: ImageLimits) -> None:
    if frames > limits.max_frames:
        raise ImageTooLargeError(
            f"the picture has more than {limits.max_frames:,} frames (max_frames)", limit=limits.max_frames
        )


def _jpeg(view: memoryview, limits: ImageLimits) -> Structure:
    metadata = _Metadata(limits)
    size, bands, progressive, scans, allowed = None, 0, False, 0, 0
    for part in jpeg_parts(view):
        marker = part.name[0]
        if marker in _JPEG_FRAMES and size is None:
            if part.end - part.body < 6:
                break
            height, width = (int.from_bytes(view[at : at + 2], "big") for at in (part.body + 1, part.body + 3))
            size, bands, progressive = (width, height), view[part.body + 5], marker in _JPEG_PROGRESSIVE
            limits.check_size(width, height, at_once=progressive)
            allowed = min(limits.max_pixels_at_once * _PASSES // max(width * height, _SCAN), _MOST_SCANS)
        elif marker == 0xDA:
            if size is None or part.body >= len(view):
                break
            scans += 1
            if scans == 1 and not progressive:
                if view[part.body] >= bands:
                    return Structure()
                progressive = True  # each band in a scan of its own: kept as a whole as well
                limits.check_size(*size, at_once=True)
            if scans > allowed:
                raise ImageTooLargeError(f"the JPEG has more than {allowed:,} scans", limit=allowed)
        elif part.name != JPEG_DATA:
            metadata.add(part.end - part.body)
    if not scans:
        raise _broken("image/jpeg")
    return Structure(at_once=progressive)


def _png(view: memoryview, limits: ImageLimits) -> Structure:
    if bytes(view[12:16]) != b"IHDR" or len(view) < 33:
        raise _broken("image/png")
    width, height = int.from_bytes(view[16:20], "big"), int.from_bytes(view[20:24], "big")
    interlaced = view[28] != 0
    limits.check_size(width, height, at_once=interlaced)
    metadata = _Metadata(limits)
    frames = 0
    for part in png_parts(view):
        if part.name == b"fcTL":
            frames += 1
            _check_frames(frames, limits)
        elif part.name not in _PNG_PIXELS:
            body = view[part.body : part.end - 4]
            metadata.add(len(body))
            if part.name in (b"zTXt", b"iTXt", b"iCCP"):
                metadata.add(_unpacked(part.name, body, metadata.left))
    return Structure(at_once=interlaced)


def _unpacked(name: bytes, body: memoryview, left: int) -> int:
    """The size of the compressed text or profile in a chunk (PNG 11.3.3, 11.3.4), counted until beyond what is left."""
    start = body.tobytes().find(b"\0") + 2
    if name == b"iTXt":
        language = body[start + 1 :].tobytes()
        start += 1 + language.find(b"\0") + 1
        start += body[start:].tobytes().find(b"\0") + 1
    unpacker = zlib.decompressobj()
    size = 0
    for at in range(start, len(body), 16_384):
        packed = body[at : at + 16_384].tobytes()
        while packed and size <= left:
            try:
                size += len(unpacker.decompress(packed, 65_536))
            except zlib.error:
                return size
            packed = unpacker.unconsumed_tail
    return size


def _webp(view: memoryview, limits: ImageLimits) -> Structure:
    metadata = _Metadata(limits)
    frames = 0
    for part in riff_parts(view):
        if part.name == b"ANMF":
            frames += 1
            _check_frames(frames, limits)
        elif part.name == b"VP8X" and part.end - part.body >= 10:
            sides = (1 + int.from_bytes(view[at : at + 3], "little") for at in (part.body + 4, part.body + 7))
            limits.check_size(*sides)
        elif part.name not in (b"VP8 ", b"VP8L", b"ALPH", b"ANIM"):
            metadata.add(part.end - part.body)
    return Structure(frames=max(frames, 1))


def _gif(view: memoryview, limits: ImageLimits) -> Structure:
    metadata = _Metadata(limits)
    frames = 0
    for part in gif_parts(view):
        if part.name == b"header":
            limits.check_size(int.from_bytes(view[6:8], "little"), int.from_bytes(view[8:10], "little"))
        elif part.name == b",":
            frames += 1
            _check_frames(frames, limits)
        elif part.name not in (b"!\xf9", b";"):
            metadata.add(part.end - part.body)
    return Structure(frames=max(frames, 1))


def _heif(view: memoryview, limits: ImageLimits) -> Structure:
    metadata = _Metadata(limits)
    for item in heif_items(view) or ():
        if item.kind in (b"Exif", b"mime"):
            metadata.add(sum(end - start for start, end in item.extents))
    return Structure(at_once=True)
