"""Detection of types by the first bytes."""

from __future__ import annotations

import pytest

from aioimageattach.imaging._sniff import sniff
from tests import photos


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (photos.photo("rocket"), "image/jpeg"),
        (photos.png(), "image/png"),
        (photos.animated_gif(), "image/gif"),
        (photos.webp(), "image/webp"),
        (photos.avif(), "image/avif"),
        (photos.tiff(), "image/tiff"),
        (photos.pdf(), "application/pdf"),
        (photos.SVG, "image/svg+xml"),
        (b"\xef\xbb\xbf<svg/>", "image/svg+xml"),
        (b"  \n<!-- a > b --><!-- c --> <svg:svg xmlns:svg='x'>", "image/svg+xml"),
        (b'<!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN" "x.dtd" [<!ENTITY n "v">]><svg>', "image/svg+xml"),
        (b"\0\0\0\x14ftypmif1\0\0\0\0avis", "image/avif"),
        (b"\0\0\0\x14ftypmsf1\0\0\0\0hevc", "image/heic"),
        (b"\0\0\0\x14ftypmif1\0\0\0\0mif2", None),
        (b"\xff\x0a" + bytes(20), "image/jxl"),
        (b"8BPS" + bytes(20), "image/vnd.adobe.photoshop"),
        (b"<svgx>", None),
        (b"<!-- <svg> -->", None),
        (b"text <svg>", None),
        (b" " * 20_000 + b"<svg>", None),
        (b"RIFF\0\0\0\0WAVE", None),
        (b"", None),
    ],
)
def test_first_bytes_name_the_type(data: bytes, expected: str | None) -> None:
    """Every type has its signature, and other files are not mistaken for one."""
    assert expected == sniff(memoryview(data))


@pytest.mark.parametrize("piece", [b" ", b"<!-- -->", b"<!--", b"<!DOCTYPE svg", b"<!DOCTYPE svg>", b"<?xml ?>", b"["])
def test_sniffing_does_not_backtrack(piece: bytes) -> None:
    """Repetitions do not make the pattern for SVG backtrack."""
    assert sniff(memoryview(piece * 20_000)) is None
