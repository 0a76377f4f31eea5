"""PDF originals: the first page, painted by an extra."""

from __future__ import annotations

import io
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image

from aioimageattach.exc import ImageTooLargeError, UnreadableImageError, UnsupportedImageError
from aioimageattach.imaging import ImageLimits, Recipe, probe, render
from tests import photos

LIMITS = ImageLimits().allow("application/pdf")


@pytest.mark.parametrize("width", [30, 300, 900])
def test_the_first_page_is_painted_at_the_size_needed(width: int) -> None:
    """Red in the lower left, white elsewhere, as PNG, and sharp at any size."""
    (rendering,) = render(photos.pdf(2), [Recipe(width=width)], LIMITS)
    image = Image.open(io.BytesIO(rendering.blob))
    assert (rendering.mimetype, image.size) == ("image/png", (width, width * 2 // 3))
    assert image.getpixel((width // 4, width // 2)) == (255, 0, 0)
    assert image.getpixel((width // 4, width // 8)) == (255, 255, 255)
    assert image.getpixel((width * 3 // 4, width // 2)) == (255, 255, 255)


def test_many_threads_may_paint() -> None:
    """The library behind is not thread-safe; here it is."""
    with ThreadPoolExecutor(4) as pool:
        jobs = [
            pool.submit(render, photos.pdf(1, 200 + number, 100), [Recipe(width=50)], LIMITS) for number in range(24)
        ]
        assert [job.result()[0].width for job in jobs] == [50] * 24


@pytest.mark.parametrize("data", [photos.pdf()[:60], b"%PDF-1.7\nnothing", photos.pdf(0), photos.pdf(1, 0, 0)])
def test_broken_documents_are_unreadable(data: bytes) -> None:
    """Documents without a table, a page or a size."""
    try:
        found = probe(data, LIMITS)
    except UnreadableImageError:
        return
    assert data == photos.pdf(1, 0, 0)  # a page without a size gets that of paper
    assert (found.width, found.height) == (612, 792)


def test_canvases_are_limited() -> None:
    """A page is painted as a whole: its canvas has the lower limit."""
    with pytest.raises(ImageTooLargeError, match="max_memory"):
        render(photos.pdf(), [Recipe(width=16_000)], LIMITS)


def test_the_extra_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who allows PDF without installing the extra learns its name."""
    monkeypatch.setitem(sys.modules, "pypdfium2", None)
    with pytest.raises(UnsupportedImageError, match=r"aioimageattach\[pdf\]") as caught:
        probe(photos.pdf(), LIMITS)
    assert caught.value.mimetype == "application/pdf"
