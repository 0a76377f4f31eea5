"""The one door to pillow-heif, which reads the pixels of HEIC; it comes with the extra ``heif``."""

from __future__ import annotations

from typing import Any, NamedTuple

from ..exc import UnreadableImageError, UnsupportedImageError

__all__ = ["Pixels", "load", "require"]

_MODES = {
    "L": (1, 8),
    "LA": (2, 8),
    "RGB": (3, 8),
    "RGBA": (4, 8),
    "I;16": (1, 16),
    "LA;16": (2, 16),
    "RGB;16": (3, 16),
    "RGBA;16": (4, 16),
}
"""Bands and their bits, by pillow-heif's names."""


class Pixels(NamedTuple):
    """Rows of pixels without gaps, upright, of 8 or 16 bits a band."""

    pixels: bytes | memoryview
    width: int
    height: int
    bands: int
    bits: int


def require() -> Any:
    """Return the library, or say which extra it comes with."""
    try:
        import pillow_heif
    except ImportError as error:
        raise UnsupportedImageError(
            "image/heic needs pillow-heif: install aioimageattach[heif]", mimetype="image/heic"
        ) from error
    return pillow_heif


def load(file: memoryview | bytes) -> Pixels:
    """Decode the primary picture; samples of more than 8 bits become 16."""
    library = require()
    try:
        image = library.open_heif(file, convert_hdr_to_8bit=False)
        (width, height), (bands, bits), stride, data = image.size, _MODES[image.mode], image.stride, image.data
    except (OSError, RuntimeError, SyntaxError, ValueError, EOFError) as error:
        raise UnreadableImageError("expected image/heic, as its brand says, but it is broken") from error
    row = width * bands * bits // 8
    pixels = data if row == stride else b"".join(data[at : at + row] for at in range(0, height * stride, stride))
    return Pixels(pixels, width, height, bands, bits)
