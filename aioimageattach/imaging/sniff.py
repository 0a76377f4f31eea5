"""What kind of picture bytes are, by the bytes alone."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["sniff"]

_MAGIC: Final = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"II*\0", "image/tiff"),
    (b"MM\0*", "image/tiff"),
    (b"II+\0", "image/tiff"),
    (b"MM\0+", "image/tiff"),
    (b"%PDF-", "application/pdf"),
    (b"BM", "image/bmp"),
    (b"8BPS", "image/vnd.adobe.photoshop"),
    (b"\0\0\1\0", "image/vnd.microsoft.icon"),
    (b"\xff\x0a", "image/jxl"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "image/jxl"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "image/jp2"),
    (b"\x1f\x8b", "application/gzip"),
)
_AVIF: Final = {b"avif", b"avis"}
_HEIC: Final = {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"hevs"}
_SVG: Final = re.compile(
    rb"(?:\xef\xbb\xbf)?(?:<\?xml[^>]{0,200}\?>)?"
    rb"(?:\s++|<!--.{0,4000}?-->|<!DOCTYPE\s++svg[^\[>]{0,300}(?:\[[^\]]{0,4000}\]\s*+)?>)*+"
    rb"<(?:[A-Za-z][\w.-]{0,30}:)?svg[\s/>]",
    re.DOTALL,
)


def sniff(view: memoryview) -> str | None:
    """Return the media type that the first bytes speak of, or ``None`` for no kind of picture that is known.

    It says what they claim to be, not that the rest holds. Also kinds that nothing here can read have their name, so
    that an error can say it.
    """
    head = bytes(view[:32])
    for magic, mimetype in _MAGIC:
        if head.startswith(magic):
            return mimetype
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image/webp"
    if head[4:8] == b"ftyp":
        return _brand(view)
    if _SVG.match(bytes(view[:16_384])):
        return "image/svg+xml"
    return None


def _brand(view: memoryview) -> str | None:
    end = min(int.from_bytes(view[:4], "big"), 512, len(view))
    major = bytes(view[8:12])
    brands = {major} | {bytes(view[at : at + 4]) for at in range(16, end - 3, 4)}
    if major in _AVIF:
        return "image/avif"
    if major in _HEIC:
        return "image/heic"
    if brands & _AVIF:
        return "image/avif"
    if brands & _HEIC:
        return "image/heic"
    return None
