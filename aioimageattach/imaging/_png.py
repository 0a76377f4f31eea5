"""The structure of a PNG: its frames, texts, orientation and colours."""

from __future__ import annotations

import math
import struct
import zlib
from typing import Final

from ._colour import SRGB, Colours, gamma_profile, profile_of, span
from ._containers import png_parts
from ._limits import ImageLimits
from ._structure import STREAMED, Clock, Metadata, Pieces, Structure, check_frames, damaged
from ._tiff import exif_orientation

__all__ = ["examine_png"]

_PIXELS: Final = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS"})
_FRAMES: Final = frozenset({b"acTL", b"fcTL", b"fdAT"})
_COLOURS: Final = {b"cICP": 4, b"sRGB": 1, b"gAMA": 4, b"cHRM": 32}
_BANDS: Final = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}


def examine_png(view: memoryview, limits: ImageLimits, clock: Clock) -> Structure:
    """Analyse the structure of a PNG; see :func:`._guard.examine`."""
    if bytes(view[12:16]) != b"IHDR" or len(view) < 33:
        raise damaged("image/png")
    width, height = int.from_bytes(view[16:20], "big"), int.from_bytes(view[20:24], "big")
    bytes_per_pixel = STREAMED
    if view[28]:  # interlaced
        bytes_per_pixel += max(1, view[24] // 8) * (4 if view[25] == 3 else _BANDS.get(view[25], 4))
    limits.check_size(width, height, bytes_per_pixel=bytes_per_pixel)
    metadata = Metadata(limits)
    pieces = Pieces()
    pieces.keep(0, 8)
    frames, orientation, end = 0, 1, 8
    profile: bytes | None = None
    colours: dict[bytes, memoryview] = {}
    for part in png_parts(view):
        end = part.end
        if part.name in _PIXELS:
            if part.name == b"IDAT":  # the decoder reads the header up to the name of the first data chunk
                pieces.keep(part.start, part.body)
                pieces.end_head()
                pieces.keep(part.body, part.end)
            else:
                pieces.keep(part.start, part.end)
            continue
        if part.name in _FRAMES:
            frames += part.name == b"fcTL"
            check_frames(frames, limits)
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
        elif part.name in _COLOURS and len(body) == _COLOURS[part.name]:
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
        profile=_profile(colours, profile, is_grey=view[25] in (0, 4)),
    )


def _profile(colours: dict[bytes, memoryview], profile: bytes | None, *, is_grey: bool) -> bytes | None:
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
