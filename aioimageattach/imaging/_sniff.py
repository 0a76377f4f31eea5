"""Detect the type of an image from its content."""

from __future__ import annotations

import re
from typing import Final
from xml.parsers import expat

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
_TEXT: Final = re.compile(rb"(?:\xef\xbb\xbf)?\s{0,1000}<|\xff\xfe<\0|\xfe\xff\0<|<\0|\0<")
"""First bytes of XML in ASCII-compatible encodings and in UTF-16."""
_BLOCK, _MOST_PROLOG = 16_384, 1_000_000  # bytes before the first element, such as licences and declarations


class _FoundError(Exception):
    """Raised to stop the parser at the first element."""

    def __init__(self, name: str) -> None:
        self.name = name


def sniff(view: memoryview) -> str | None:
    """Return the MIME type of a file from its first bytes; ``None`` if it is not a known type of image.

    The rest of the file may still be damaged. Types that this library cannot read are also detected, so that error
    messages can name them.
    """
    head = bytes(view[:32])
    for magic, mimetype in _MAGIC:
        if head.startswith(magic):
            return mimetype
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image/webp"
    if head[4:8] == b"ftyp":
        return _brand(view)
    if _TEXT.match(bytes(view[:1_024])) and _root(view) == "svg":
        return "image/svg+xml"
    return None


def _root(view: memoryview) -> str | None:
    """Return the local name of the first element, using an XML parser that stops there."""

    def stop(name: str, _: dict[str, str]) -> None:
        raise _FoundError(name.rpartition(":")[2])

    parser = expat.ParserCreate()
    parser.StartElementHandler = stop
    try:
        for at in range(0, min(len(view), _MOST_PROLOG), _BLOCK):
            parser.Parse(bytes(view[at : at + _BLOCK]), False)
        getattr(parser, "SetReparseDeferralEnabled", bool)(False)  # since 2.6, Expat waits for more of a long token
        parser.Parse(b"", False)
    except _FoundError as found:
        return found.name
    except (expat.ExpatError, ValueError, LookupError):
        return None
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
