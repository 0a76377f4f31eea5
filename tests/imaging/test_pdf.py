"""PDF originals: the first page, rendered with an extra."""

from __future__ import annotations

import io
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from PIL import Image

from aioimageattach.exc import ImageTooLargeError, UnreadableImageError, UnsupportedImageError
from aioimageattach.imaging import ImageLimits, Recipe, probe, render
from tests import photos

LIMITS = ImageLimits().allow("application/pdf")


@pytest.mark.parametrize("width", [30, 300, 900])
def test_the_first_page_is_painted_at_the_size_needed(width: int) -> None:
    """The thumbnail is a PNG, red in the lower left and white elsewhere, and sharp at any size."""
    (rendering,) = render(photos.pdf(2), [Recipe(width=width)], LIMITS)
    image = Image.open(io.BytesIO(rendering.blob))
    assert (rendering.mimetype, image.size) == ("image/png", (width, width * 2 // 3))
    assert image.getpixel((width // 4, width // 2)) == (255, 0, 0)
    assert image.getpixel((width // 4, width // 8)) == (255, 255, 255)
    assert image.getpixel((width * 3 // 4, width // 2)) == (255, 255, 255)


def test_many_threads_may_paint() -> None:
    """Concurrent threads are safe, although PDFium is not thread-safe."""
    with ThreadPoolExecutor(4) as pool:
        jobs = [
            pool.submit(render, photos.pdf(1, 200 + number, 100), [Recipe(width=50)], LIMITS) for number in range(24)
        ]
        assert [job.result()[0].width for job in jobs] == [50] * 24


def compressed_pdf(page: str = "", *, damaged: bool = False) -> bytes:
    """Return a page of 300 x 200 units whose objects are in a compressed stream (PDF 2.0, 7.5.7 and 7.5.8).

    With ``damaged``, it is preceded by an unreferenced stream that cannot be decompressed.
    """
    objects = {
        1: b"<< /Type /Catalog /Pages 2 0 R >>",
        2: b"<< /Type /Pages /Kids [4 0 R] /Count 1 >>",
        4: f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 300 200] /Contents 3 0 R {page} >>".encode(),
    }
    table, body = "", b""
    for number, content in objects.items():
        table += f"{number} {len(body)} "
        body += content + b" "
    packed = zlib.compress(table.encode() + body)
    paint = b"1 0 0 rg 0 0 150 100 re f"
    stream = b"%d 0 obj\n<< %s /Length %d >>\nstream\n%s\nendstream\nendobj\n"
    form = b"/Type /ObjStm /N 3 /First %d /Filter /FlateDecode" % len(table)
    file = bytearray(b"%PDF-1.7\n")
    if damaged:
        file += stream % (7, form, 5, b"xxxxx")
    places = {3: len(file)}
    file += stream % (3, b"", len(paint), paint)
    places[5] = len(file)
    file += stream % (5, form, len(packed), packed)
    places[6] = start = len(file)
    entries = bytes(6)
    for number in range(1, 7):
        in_stream = number in objects
        place, index = (5, list(objects).index(number)) if in_stream else (places[number], 0)
        entries += bytes([1 + in_stream]) + place.to_bytes(4, "big") + bytes([index])
    file += stream % (6, b"/Type /XRef /Size 7 /Root 1 0 R /W [1 4 1]", len(entries), entries)
    return bytes(file) + b"startxref\n%d\n%%%%EOF\n" % start


@pytest.mark.parametrize(
    ("data", "size"),
    [
        (photos.pdf(entries="/UserUnit 2"), (600, 400)),
        (photos.pdf(entries="/UserUnit 0.5"), (150, 100)),
        (photos.pdf(entries="/UserUnit 0.000001"), (3, 2)),  # the minimum is a hundredth
        (compressed_pdf(), (300, 200)),
        (compressed_pdf("/UserUnit 2.5"), (750, 500)),
        (compressed_pdf("/UserUnit 2.5", damaged=True), (750, 500)),
        (photos.pdf(1, 0.5, 0.25), (2, 1)),  # small pages keep their aspect ratio
    ],
)
def test_the_unit_of_a_page(data: bytes, size: tuple[int, int]) -> None:
    """The size of a page is its box times ``UserUnit`` (PDF 2.0, table 31), wherever that is written."""
    found = probe(data, LIMITS)
    assert size == (found.width, found.height)
    (rendering,) = render(data, [Recipe(width=60)], LIMITS)
    image = Image.open(io.BytesIO(rendering.blob))
    assert image.size == (60, 60 * size[1] // size[0])
    assert (image.getpixel((15, 29)), image.getpixel((45, 5))) == ((255, 0, 0), (255, 255, 255))


@pytest.mark.parametrize("data", [photos.pdf()[:60], b"%PDF-1.7\nnothing", photos.pdf(0), photos.pdf(1, 0, 0)])
def test_broken_documents_are_unreadable(data: bytes) -> None:
    """Documents without a table, a page or a size are rejected."""
    try:
        found = probe(data, LIMITS)
    except UnreadableImageError:
        return
    assert data == photos.pdf(1, 0, 0)  # a page without a size gets a default paper size
    assert (found.width, found.height) == (612, 792)


def test_canvases_are_limited() -> None:
    """A page is painted as a whole: the lower limit applies to its canvas."""
    with pytest.raises(ImageTooLargeError, match="max_memory"):
        render(photos.pdf(), [Recipe(width=16_000)], LIMITS)


def test_a_small_part_is_enlarged_if_the_canvas_is_limited() -> None:
    """A part of a page is painted as sharply as the limits allow, and then enlarged to the wanted size."""
    limits = replace(LIMITS, max_side=600)
    (rendering,) = render(photos.pdf(), [Recipe(width=300, crop=(0.2, 0.7, 0.05, 0.05))], limits)
    found = Image.open(io.BytesIO(rendering.blob))
    assert (found.width, found.getpixel((150, found.height // 2))) == (300, (255, 0, 0))


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """If PDF is allowed but the extra is not installed, the error names the extra."""
    monkeypatch.setitem(sys.modules, "pypdfium2", None)
    with pytest.raises(UnsupportedImageError, match=r"aioimageattach\[pdf\]") as caught:
        probe(photos.pdf(), LIMITS)
    assert caught.value.mimetype == "application/pdf"
