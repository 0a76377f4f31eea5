"""The one door to pillow-heif, which reads the pixels of HEIC; it comes with the extra ``heif``."""

from __future__ import annotations

from typing import Any, NamedTuple

from ..exc import UnreadableImageError, UnsupportedImageError

__all__ = ["Pixels", "load", "require"]


class Pixels(NamedTuple):
    """Rows of pixels without gaps, upright, and the colour profile if there is one."""

    pixels: bytes
    width: int
    height: int
    bands: int
    profile: bytes | None


def require() -> Any:
    """Return the library, or say which extra it comes with."""
    try:
        import pillow_heif
    except ImportError as error:
        raise UnsupportedImageError(
            "image/heic needs pillow-heif: install aioimageattach[heif]", mimetype="image/heic"
        ) from error
    return pillow_heif


def load(view: memoryview) -> Pixels:
    """Decode the primary picture to 8 bits a band."""
    library = require()
    try:
        image = library.open_heif(view.tobytes(), convert_hdr_to_8bit=True)
        (width, height), bands, stride, data = image.size, len(image.mode), image.stride, image.data
    except (OSError, RuntimeError, SyntaxError, ValueError, EOFError) as error:
        raise UnreadableImageError("expected image/heic, as its brand says, but it is broken") from error
    row = width * bands
    pixels = b"".join(data[at : at + row] for at in range(0, height * stride, stride))
    return Pixels(pixels, width, height, bands, image.info.get("icc_profile"))
