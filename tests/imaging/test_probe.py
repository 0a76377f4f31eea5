"""Headers of real files of every type, and rejected files."""

from __future__ import annotations

import mmap
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from aioimageattach.exc import (
    DeclarationError,
    ImageProportionsError,
    ImageTooLargeError,
    ImageTooSmallError,
    UnreadableImageError,
    UnsupportedImageError,
)
from aioimageattach.imaging import ImageLimits, Probe, Recipe, probe, render
from aioimageattach.imaging._limits import KNOWN_TYPES
from tests import photos

ALL = ImageLimits(types=KNOWN_TYPES)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (photos.large, Probe(4000, 3000, "image/jpeg")),
        (photos.progressive, Probe(600, 400, "image/jpeg")),
        (photos.cmyk, Probe(600, 400, "image/jpeg")),
        (photos.grey, Probe(512, 512, "image/jpeg")),
        (photos.png, Probe(451, 300, "image/png")),
        (photos.transparent_png, Probe(451, 300, "image/png", has_alpha=True)),
        (photos.deep_png, Probe(160, 120, "image/png", has_alpha=True)),
        (photos.palette_png, Probe(451, 300, "image/png", has_alpha=True)),
        (photos.animated_gif, Probe(320, 214, "image/gif", frames=5, has_alpha=True)),
        (photos.animated_webp, Probe(320, 214, "image/webp", frames=5, has_alpha=True)),
        (photos.webp, Probe(451, 300, "image/webp", has_alpha=True)),
        (photos.avif, Probe(451, 300, "image/avif")),
        (photos.tiff, Probe(451, 300, "image/tiff")),
        (lambda: photos.SVG, Probe(240, 120, "image/svg+xml", has_alpha=True)),
        (lambda: photos.pdf(3), Probe(300, 200, "application/pdf", frames=3)),
    ],
)
def test_headers_of_every_type(make: Callable[[], bytes], expected: Probe) -> None:
    """Size, type, frames and alpha are detected for every type."""
    assert expected == probe(make(), ALL)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_sizes_are_as_displayed(orientation: int, file_format: str) -> None:
    """Width and height are those after the orientation is applied."""
    found = probe(photos.oriented(orientation, file_format), ALL)
    assert (451, 300, orientation) == (found.width, found.height, found.orientation)


def test_avif_ignores_the_exif_orientation() -> None:
    """AVIF is rotated by its own property, so the EXIF orientation is ignored."""
    found = probe(photos.oriented(6, "AVIF"))
    assert (found.width, found.height, found.orientation) == (451, 300, 1)


def test_invalid_orientations() -> None:
    """Values other than 1 to 8 mean upright."""
    data = photos.saved(photos.opened("chelsea"), "JPEG", exif=photos.exif(9))
    assert Probe(451, 300, "image/jpeg") == probe(data)


def test_any_buffer_is_read(tmp_path: Path) -> None:
    """Bytes, bytearrays, views with other item sizes, and mapped files give the same result."""
    data = photos.transparent_png() + b"\0" * (-len(photos.transparent_png()) % 4)
    expected = probe(data)
    path = tmp_path / "picture"
    path.write_bytes(data)
    assert expected == probe(bytearray(data))
    assert expected == probe(memoryview(data).cast("I"))
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert expected == probe(mapped)


@pytest.mark.parametrize("data", ["text", 3, None, memoryview(b"abcdef")[::2]])
def test_other_objects_are_rejected(data: Any) -> None:
    """Only a contiguous buffer is accepted."""
    with pytest.raises(DeclarationError, match="data: expected"):
        probe(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello, this is not a picture",
        b"<html><body>hi</body></html>",
        b"<!-- svg --><p>",
        b"\0\0\0\x18ftypisom\0\0\0\0isommp42",
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff",
        b"\xff\xd8\xff\xc0\0\x03\x08",
        b"\xff\xd8\xff\xda\0\x03\x08",
        b"GIF89a",
        b"GIF89a\1\0\1\0\0\0\0/* */=1;alert(1)",
        b"RIFF\0\0\0\0WEBP",
        b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf",
        b"II*\0\0\0\0\0",
        b"%PDF-1.7\n",
        b"<svg xmlns='http://www.w3.org/2000/svg'><",
        b"<svg xmlns='http://www.example.com/'/>",
    ],
)
def test_files_that_are_no_image_are_unreadable(data: bytes) -> None:
    """Bare signatures, other files and polyglots are rejected."""
    with pytest.raises(UnreadableImageError):
        probe(data, ALL)


@pytest.mark.parametrize(
    ("data", "mimetype"),
    [
        (photos.tiff(), "image/tiff"),
        (photos.SVG, "image/svg+xml"),
        (photos.pdf(), "application/pdf"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "image/heic"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "image/heic"),
        (photos.saved(photos.opened("chelsea"), "BMP"), "image/bmp"),
        (b"\x1f\x8b" + bytes(30), "application/gzip"),
    ],
)
def test_the_error_for_a_type_that_is_not_allowed(data: bytes, mimetype: str) -> None:
    """The error contains the detected and the allowed types."""
    with pytest.raises(UnsupportedImageError, match=f"got {mimetype}".replace("+", r"\+")) as caught:
        probe(data)
    assert mimetype == caught.value.mimetype
    assert ImageLimits().types == caught.value.allowed


def test_rejected_heic_names_the_extra() -> None:
    """The error names the missing extra, for uploads from an iPhone."""
    with pytest.raises(UnsupportedImageError, match=r"aioimageattach\[heif\]"):
        probe(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")


def test_pixels_of_too_many_bytes_are_refused() -> None:
    """A TIFF with many bands is rejected, because each band takes memory."""
    import pyvips

    image = pyvips.Image.black(8, 8, bands=20)
    with pytest.raises(UnsupportedImageError, match="20 samples"):
        probe(image.tiffsave_buffer(), ALL)


@pytest.mark.parametrize(
    ("limits", "make", "word"),
    [
        (ImageLimits(max_bytes=1000), photos.avif, "max_bytes"),
        (ImageLimits(max_side=450), photos.png, "max_side"),
        (ImageLimits(max_pixels=451 * 300 - 1), photos.avif, "max_pixels"),
        (ImageLimits(max_memory=451 * 300 * 18 - 1), photos.avif, "max_memory"),
        (ImageLimits(max_memory=600 * 400 * 3), photos.progressive, "max_memory"),
        (ImageLimits(max_frames=4), photos.animated_gif, "max_frames"),
        (ImageLimits(max_frames=4), photos.animated_webp, "max_frames"),
        (ALL.allow(), lambda: photos.pdf(1, 40_000, 3), "max_side"),
        (ImageLimits(types=KNOWN_TYPES, max_frames=2), lambda: photos.pdf(3), "max_frames"),
        (ImageLimits(types=KNOWN_TYPES, max_side=239), lambda: photos.SVG, "max_side"),
        (ImageLimits(max_metadata=400), photos.png, "max_metadata"),
        (ImageLimits(max_metadata=400), photos.webp, "max_metadata"),
        (ImageLimits(max_metadata=100), photos.avif, "max_metadata"),
        (ImageLimits(max_metadata=10), photos.animated_gif, "max_metadata"),
        (ImageLimits(max_metadata=400), photos.large, "max_metadata"),
    ],
)
def test_each_limit_holds(limits: ImageLimits, make: Callable[[], bytes], word: str) -> None:
    """An image beyond a limit is rejected with the name of the limit."""
    with pytest.raises(ImageTooLargeError, match=rf"\({word}\)|\({word}\)$"):
        probe(make(), limits)


def test_pages_of_a_tiff_are_limited() -> None:
    """Pages are counted against the limit, although only the decoder reads them."""
    pages = [photos.opened("chelsea", (8, 8))] * 3
    data = photos.saved(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    assert probe(data, ALL).frames == 3
    with pytest.raises(ImageTooLargeError, match="max_frames"):
        probe(data, ImageLimits(types=KNOWN_TYPES, max_frames=2))


def test_importing_loads_no_decoder() -> None:
    """libvips, PDFium and pillow-heif are imported with the first image that needs them."""
    code = (
        "import sys, aioimageattach.imaging\n"
        "from aioimageattach.imaging import _decode, _metadata, _pdf, _pillow_heif, _svg\n"
        "print(sorted({'pyvips', 'pypdfium2', 'pillow_heif', 'PIL'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("isolated", [False, True])
def test_small_and_narrow_pictures_are_refused_if_new(isolated: bool) -> None:
    """New images are rejected by their header; stored images still have thumbnails."""
    limits = ImageLimits(min_width=301, max_aspect=1, isolated=isolated)
    with pytest.raises(ImageTooSmallError, match="min_width") as caught:
        probe(photos.saved(Image.new("RGB", (300, 900)), "PNG"), limits)
    assert (caught.value.limit, caught.value.actual) == (301, 300)
    with pytest.raises(ImageProportionsError, match="max_aspect"):
        probe(photos.oriented(6), limits)
    assert probe(photos.saved(Image.new("RGB", (301, 301)), "PNG"), limits).width == 301
    assert render(photos.oriented(6), [Recipe(width=10)], limits)[0].width == 10
