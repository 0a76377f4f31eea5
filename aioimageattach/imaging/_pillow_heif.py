"""The only module that uses pillow-heif, which decodes HEIC. Requires the extra ``heif``."""

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
"""Number of bands and bits per band, by the mode names of pillow-heif."""


class Pixels(NamedTuple):
    """Contiguous rows of pixels, upright, with 8 or 16 bits per band."""

    pixels: bytes | memoryview
    width: int
    height: int
    bands: int
    bits: int


def require() -> Any:
    """Return the module ``pillow_heif``; raise an error that names the extra if it is not installed."""
    try:
        import pillow_heif
    except ImportError as error:
        raise UnsupportedImageError(
            "image/heic requires pillow-heif: install aioimageattach[heif]", mimetype="image/heic"
        ) from error
    return pillow_heif


def load(file: memoryview | bytes) -> Pixels:
    """Decode the primary image. Samples of more than 8 bits are returned as 16 bits."""
    library = require()
    try:
        image = library.open_heif(file, convert_hdr_to_8bit=False)
        (width, height), (bands, bits), stride, data = image.size, _MODES[image.mode], image.stride, image.data
    except (OSError, RuntimeError, SyntaxError, ValueError, EOFError) as error:
        raise UnreadableImageError("expected a valid image/heic file, got one with damaged pixels") from error
    row = width * bands * bits // 8
    pixels = data if row == stride else b"".join(data[at : at + row] for at in range(0, height * stride, stride))
    return Pixels(pixels, width, height, bands, bits)
