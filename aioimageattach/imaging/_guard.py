"""Analyse the structure of a picture: which parts the decoder needs, and how much memory decoding takes.

The decoder gets a file without metadata: no EXIF, XMP or texts, no previews, no other pictures. The cost of parsing
them is therefore bounded by this module and does not depend on the decoder. The orientation and the colours are read
here.
"""

from __future__ import annotations

import math
import struct
import time
import zlib
from dataclasses import dataclass
from typing import Final

from ..exc import ImageTooLargeError, UnreadableImageError
from ._colour import SRGB, Colours, gamma_profile, profile_of, span
from ._containers import JPEG_DATA, Piece, gif_parts, jpeg_parts, png_parts, riff_parts
from ._heif import still
from ._limits import ImageLimits
from ._tiff import Tiff, exif_orientation

__all__ = ["Clock", "Structure", "assemble", "examine"]

_JPEG_FRAMES: Final = frozenset({0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF})
_JPEG_PROGRESSIVE: Final = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_PNG_PIXELS: Final = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS"})
_PNG_FRAMES: Final = frozenset({b"acTL", b"fcTL", b"fdAT"})
_PNG_COLOURS: Final = {b"cICP": 4, b"sRGB": 1, b"gAMA": 4, b"cHRM": 32}
_PNG_BANDS: Final = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_LEAST_PART: Final = 1_000  # bytes that a decoder keeps for each part, however small the part is
_SCAN: Final = 100_000  # minimum cost of a scan, in pixels, however small the picture is
_PASSES: Final = 4  # limit for the cost of all scans, as a multiple of max_pixels: about ten seconds
_MOST_SCANS: Final = 1_000  # encoders write a few dozen at most
_CLEAR_FRAME: Final = b"!\xf9\4\1\0\0\0\0,\0\0\0\0\1\0\1\0\x80\0\0\0\0\0\0\2\2\x44\1\0;"
"""A GIF frame of one transparent pixel, and the end of the file."""

_STREAMED: Final = 0.5
_GIF: Final = 7.0
_WEBP: Final = 9.0
_AVIF, _HEIC, _DEEP = 18.0, 14.0, 1.5


@dataclass(frozen=True, slots=True)
class Structure:
    """The result of analysing the structure of a picture.

    Args:
        pieces: The parts of the file that the decoder needs; ``None`` for the whole file.
        head: Number of pieces that are enough to read the header.
        bytes_per_pixel: Memory that decoding takes per pixel of the picture, in bytes.
        frames: Number of frames of an animation, or of pages.
        size: Width and height, in pixels as displayed; ``None`` if the structure does not contain them.
        orientation: EXIF orientation, 1 to 8.
        profile: ICC profile, either embedded or created from other colour information in the file.
        extra_bands: Number of bands that are neither colours nor an alpha channel.
        bits: Bits per sample of HEIC.
        has_alpha: ``True`` if HEIC has an alpha channel.
        is_narrow: ``True`` if black and white of a grey picture are 16 and 235 (ITU-R BT.601).
        is_alpha_narrow: The same for its alpha channel.
    """

    pieces: tuple[Piece, ...] | None = None
    head: int | None = None
    bytes_per_pixel: float = _STREAMED
    frames: int = 1
    size: tuple[int, int] | None = None
    orientation: int = 1
    profile: bytes | None = None
    extra_bands: int = 0
    bits: int = 8
    has_alpha: bool = False
    is_narrow: bool = False
    is_alpha_narrow: bool = False


class Clock:
    """Limits the CPU time that reading a header takes."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._end = time.thread_time() + seconds

    def check(self) -> None:
        """Raise :class:`~aioimageattach.exc.ImageTooLargeError` if the time is over."""
        if time.thread_time() > self._end:
            raise ImageTooLargeError(
                f"expected a header that takes at most {self._seconds} seconds to read (header_timeout), "
                "got a slower one",
                limit=self._seconds,
            )


def assemble(view: memoryview, structure: Structure, *, header: bool = False) -> memoryview | bytes:
    """Return the file for the decoder: a part of the view itself, or a smaller copy.

    Args:
        view: The file.
        structure: The result of :func:`examine`.
        header: ``True`` if only the header will be read.
    """
    if structure.pieces is None:
        return view
    pieces = structure.pieces[: structure.head] if header else structure.pieces
    end = 0
    for piece in pieces:
        if isinstance(piece, bytes) or piece[0] != end:
            break
        end = piece[1]
    else:
        return view[:end]  # only data after the picture is left out, so no copy is needed
    return b"".join([piece if isinstance(piece, bytes) else view[piece[0] : piece[1]] for piece in pieces])


def examine(view: memoryview, mimetype: str, limits: ImageLimits, clock: Clock) -> Structure:
    """Analyse the structure of a raster picture of the given MIME type.

    Raises:
        UnreadableImageError: The part that contains the size, or another part that the decoder requires, is missing or
            damaged.
        UnsupportedImageError: The picture uses a variant of its format that would be rendered incorrectly.
        ImageTooLargeError: The picture exceeds a limit.
    """
    match mimetype:
        case "image/jpeg":
            return _jpeg(view, limits, clock)
        case "image/png":
            return _png(view, limits, clock)
        case "image/webp":
            return _webp(view, limits)
        case "image/gif":
            return _gif(view, limits, clock)
        case "image/tiff":
            return _tiff(view, limits)
        case _:
            return _heif(view, mimetype, limits)


def _broken(mimetype: str) -> UnreadableImageError:
    return UnreadableImageError(f"expected a valid {mimetype} file, got one with a damaged structure")


class _Metadata:
    """Counts bytes of metadata against the limit."""

    def __init__(self, limits: ImageLimits) -> None:
        self.left = self._limit = limits.max_metadata

    def add(self, size: int) -> None:
        self.left -= max(size, _LEAST_PART)
        if self.left < 0:
            raise ImageTooLargeError(
                f"expected at most {self._limit:,} bytes of metadata (max_metadata), got more", limit=self._limit
            )


class _Pieces:
    """Collects ranges of the file, joining adjacent ones."""

    def __init__(self) -> None:
        self.found: list[Piece] = []
        self.head: int | None = None

    def keep(self, start: int, end: int) -> None:
        last = self.found[-1] if self.found else b""
        if len(self.found) != self.head and isinstance(last, tuple) and last[1] == start:
            self.found[-1] = last[0], end
        else:
            self.found.append((start, end))

    def end_head(self) -> None:
        """Mark the end of the header: it consists of the ranges kept so far."""
        if self.head is None:
            self.head = len(self.found)

    def all(self) -> tuple[Piece, ...]:
        return tuple(self.found)


def _check_frames(frames: int, limits: ImageLimits) -> None:
    if frames > limits.max_frames:
        raise ImageTooLargeError(
            f"expected at most {limits.max_frames:,} frames or pages (max_frames), got more", limit=limits.max_frames
        )


class _Jpeg:
    """The frame header of a JPEG."""

    def __init__(self, view: memoryview, marker: int, body: int, limits: ImageLimits) -> None:
        self.height, self.width = (int.from_bytes(view[at : at + 2], "big") for at in (body + 1, body + 3))
        self.bands, self.is_whole = view[body + 5], marker in _JPEG_PROGRESSIVE
        factors = [view[at] for at in range(body + 7, body + 6 + 3 * self.bands, 3) if at < len(view)]
        areas = [(factor >> 4) * (factor & 15) for factor in factors]
        self.coefficients = 2 * sum(areas) / max([1, *areas])
        self.scans_allowed = min(_PASSES * limits.max_pixels // max(self.width * self.height, _SCAN), _MOST_SCANS)

    def bytes_per_pixel(self) -> float:
        return _STREAMED + (self.coefficients if self.is_whole else 0)


def _jpeg(view: memoryview, limits: ImageLimits, clock: Clock) -> Structure:
    metadata = _Metadata(limits)
    pieces = _Pieces()
    frame: _Jpeg | None = None
    orientation, scans, profile = 1, 0, dict[int, bytes]()
    for part in jpeg_parts(view):
        marker, content = part.name[0], view[part.body : part.end]
        if part.name == JPEG_DATA:
            clock.check()
        elif marker in _JPEG_FRAMES and frame is None:
            if len(content) < 6:
                break
            frame = _Jpeg(view, marker, part.body, limits)
            limits.check_size(frame.width, frame.height, bytes_per_pixel=frame.bytes_per_pixel())
        elif marker == 0xDA:
            if frame is None or part.body >= len(view):
                break
            scans += 1
            if scans == 1:
                pieces.keep(part.start, part.end)
                pieces.end_head()
                if not frame.is_whole and view[part.body] < frame.bands:
                    frame.is_whole = True  # bands in separate scans: also kept in memory as a whole
                    limits.check_size(frame.width, frame.height, bytes_per_pixel=frame.bytes_per_pixel())
                if not frame.is_whole:
                    pieces.keep(part.end, len(view))
                    break
                continue
            if scans > frame.scans_allowed:
                raise ImageTooLargeError(
                    f"expected a JPEG of at most {frame.scans_allowed:,} scans, got more", limit=frame.scans_allowed
                )
        elif marker == 0xE1 and bytes(content[:6]) == b"Exif\0\0":
            metadata.add(len(content))
            orientation = exif_orientation(content) if orientation == 1 else orientation
            continue
        elif marker == 0xE2 and bytes(content[:12]) == b"ICC_PROFILE\0":
            metadata.add(len(content))
            profile.setdefault(view[part.body + 12] if len(content) > 14 else 0, bytes(content[14:]))
            continue
        elif 0xE0 <= marker <= 0xEF or marker == 0xFE:
            metadata.add(len(content))
            if not _is_needed(marker, content):
                continue
        pieces.keep(part.start, part.end)
    if not scans or frame is None:
        raise _broken("image/jpeg")
    return Structure(
        pieces.all(),
        pieces.head,
        frame.bytes_per_pixel(),
        orientation=orientation,
        profile=b"".join(profile[number] for number in sorted(profile)) or None,
    )


def _is_needed(marker: int, content: memoryview) -> bool:
    """Return whether a segment defines how samples are converted to colours."""
    head = bytes(content[:5])
    return (marker == 0xE0 and head == b"JFIF\0") or (marker == 0xEE and head == b"Adobe")


def _png(view: memoryview, limits: ImageLimits, clock: Clock) -> Structure:
    if bytes(view[12:16]) != b"IHDR" or len(view) < 33:
        raise _broken("image/png")
    width, height = int.from_bytes(view[16:20], "big"), int.from_bytes(view[20:24], "big")
    bytes_per_pixel = _STREAMED
    if view[28]:  # interlaced
        bytes_per_pixel += max(1, view[24] // 8) * (4 if view[25] == 3 else _PNG_BANDS.get(view[25], 4))
    limits.check_size(width, height, bytes_per_pixel=bytes_per_pixel)
    metadata = _Metadata(limits)
    pieces = _Pieces()
    pieces.keep(0, 8)
    frames, orientation, end = 0, 1, 8
    profile: bytes | None = None
    colours: dict[bytes, memoryview] = {}
    for part in png_parts(view):
        end = part.end
        if part.name in _PNG_PIXELS:
            if part.name == b"IDAT":  # the decoder reads the header up to the name of the first data chunk
                pieces.keep(part.start, part.body)
                pieces.end_head()
                pieces.keep(part.body, part.end)
            else:
                pieces.keep(part.start, part.end)
            continue
        if part.name in _PNG_FRAMES:
            frames += part.name == b"fcTL"
            _check_frames(frames, limits)
            continue
        body = view[part.body : part.end - 4]
        metadata.add(len(body))
        if part.name in (b"zTXt", b"iTXt", b"iCCP"):
            unpacked = _decompressed(part.name, body, metadata.left)
            metadata.add(len(unpacked))
            clock.check()
            if part.name == b"iCCP":
                profile = profile or unpacked or None
        elif part.name == b"eXIf":
            orientation = exif_orientation(body)
        elif part.name in _PNG_COLOURS and len(body) == _PNG_COLOURS[part.name]:
            colours.setdefault(part.name, body)
    if bytes(view[end + 4 : end + 8]) == b"IDAT":  # the file ends in the middle of this chunk
        pieces.keep(end, end + 8)
        pieces.end_head()
        pieces.keep(end + 8, len(view))
    return Structure(
        pieces.all(),
        pieces.head,
        bytes_per_pixel,
        orientation=orientation,
        profile=_png_profile(colours, profile, is_grey=view[25] in (0, 4)),
    )


def _png_profile(colours: dict[bytes, memoryview], profile: bytes | None, *, is_grey: bool) -> bytes | None:
    """Return the profile in order of precedence: code points, embedded, sRGB, gamma (PNG 4.3)."""
    code = colours.get(b"cICP")
    if code is not None and not code[2]:
        return profile_of(Colours(code[0], code[1], bool(code[3])), is_grey=is_grey)
    if profile is not None or b"sRGB" in colours or b"gAMA" not in colours:
        return profile
    gamma = int.from_bytes(colours[b"gAMA"], "big")
    primaries = SRGB
    if b"cHRM" in colours:
        white, red, green, blue = ((x / 100_000, y / 100_000) for x, y in struct.iter_unpack(">II", colours[b"cHRM"]))
        points = (red, green, blue, white)
        if not all(math.dist(*pair) < 0.005 for pair in zip(points, SRGB, strict=True)) and span(*points[:3]) > 0.01:
            primaries = points
    if not 10_000 <= gamma <= 200_000 or (primaries is SRGB and abs(gamma - 45_455) < 1_000):
        return None
    return gamma_profile(100_000 / gamma, primaries, is_grey=is_grey)


def _decompressed(name: bytes, body: memoryview, left: int) -> bytes:
    """Decompress the text or profile in a chunk (PNG 11.3.3, 11.3.4), stopping once it exceeds ``left`` bytes."""
    start = body.tobytes().find(b"\0") + 2
    if name == b"iTXt":
        language = body[start + 1 :].tobytes()
        start += 1 + language.find(b"\0") + 1
        start += body[start:].tobytes().find(b"\0") + 1
    unpacker = zlib.decompressobj()
    found = bytearray()
    for at in range(start, len(body), 16_384):
        packed = body[at : at + 16_384].tobytes()
        while packed and len(found) <= left:
            try:
                found += unpacker.decompress(packed, 65_536)
            except zlib.error:
                return bytes(found)
            packed = unpacker.unconsumed_tail
    return bytes(found)


def _webp(view: memoryview, limits: ImageLimits) -> Structure:
    if 8 + int.from_bytes(view[4:8], "little") > len(view) + 1:
        raise UnreadableImageError("expected a complete image/webp file, got one that is truncated")
    metadata = _Metadata(limits)
    pieces = _Pieces()
    frames, orientation, profile, dropped = 0, 1, None, False
    for part in riff_parts(view):
        size = int.from_bytes(view[part.start + 4 : part.body], "little")
        content = view[part.body : part.body + size]
        if part.name == b"ANMF":
            frames += 1
            _check_frames(frames, limits)
        elif part.name == b"VP8X" and len(content) >= 10:
            sides = (1 + int.from_bytes(view[at : at + 3], "little") for at in (part.body + 4, part.body + 7))
            limits.check_size(*sides, bytes_per_pixel=_WEBP)
            flags = bytes([content[0] & 0x12]) + bytes(content[1:])  # keep only the flags for alpha and animation
            pieces.found.append(bytes(view[part.start : part.body]) + flags + bytes(part.end - part.body - size))
            continue
        elif part.name not in (b"VP8 ", b"VP8L", b"ALPH", b"ANIM"):
            dropped = True
            metadata.add(len(content))
            if part.name == b"EXIF":
                orientation = exif_orientation(content)
            elif part.name == b"ICCP":
                profile = bytes(content)
            continue
        pieces.keep(part.start, part.end)
    found: tuple[Piece, ...] | None = None
    if dropped:
        size = sum(len(piece) if isinstance(piece, bytes) else piece[1] - piece[0] for piece in pieces.found)
        found = (b"RIFF" + (4 + size).to_bytes(4, "little") + b"WEBP", *pieces.found)
    return Structure(found, bytes_per_pixel=_WEBP, frames=max(frames, 1), orientation=orientation, profile=profile)


def _gif(view: memoryview, limits: ImageLimits, clock: Clock) -> Structure:
    metadata = _Metadata(limits)
    pieces = _Pieces()
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
            _check_frames(frames, limits)
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
        _check_frames(frames, limits)
    page = tiff.page(limits.max_metadata)
    limits.check_size(page.width, page.height)
    bytes_per_pixel = _STREAMED + 2 * page.block / (page.width * page.height)
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
    _check_frames(found.frames, limits)
    metadata = _Metadata(limits)
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
