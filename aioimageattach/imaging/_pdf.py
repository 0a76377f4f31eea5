"""The one door to PDFium, which paints PDF; it comes with the extra ``pdf``."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, NamedTuple

from ..exc import ImageTooLargeError, UnreadableImageError, UnsupportedImageError
from .limits import ImageLimits

__all__ = ["Painting", "header", "paint"]

_MIMETYPE = "application/pdf"
_lock = threading.Lock()  # PDFium is not thread-safe


class Painting(NamedTuple):
    """Pixels of four bytes, red, green, blue and one unused."""

    pixels: bytes
    width: int
    height: int


@contextmanager
def _document(view: memoryview) -> Generator[Any, None, None]:
    try:
        import pypdfium2
    except ImportError as error:
        raise UnsupportedImageError(
            "application/pdf needs pypdfium2: install aioimageattach[pdf]", mimetype=_MIMETYPE
        ) from error
    with _lock:
        try:
            document = pypdfium2.PdfDocument(view.tobytes())
            try:
                yield document
            finally:
                document.close()
        except pypdfium2.PdfiumError as error:
            raise UnreadableImageError("expected application/pdf, but it is broken or wants a password") from error


@contextmanager
def _first_page(document: Any) -> Generator[Any, None, None]:
    page = document[0]
    try:
        yield page
    finally:
        page.close()


def header(view: memoryview, limits: ImageLimits) -> tuple[int, int, int]:
    """Return the first page's width and height, a pixel for a point, and the number of pages."""
    with _document(view) as document:
        pages = len(document)
        if pages > limits.max_frames:
            raise ImageTooLargeError(
                f"the PDF has {pages:,} pages: {limits.max_frames:,} are allowed (max_frames)",
                limit=limits.max_frames,
                actual=pages,
            )
        with _first_page(document) as page:
            width, height = page.get_size()
    sides = max(1, round(width)), max(1, round(height))
    limits.check_size(*sides)
    return *sides, pages


def paint(view: memoryview, size: tuple[int, int]) -> Painting:
    """Paint the first page on white, at least as large as the size, without distorting it."""
    with _document(view) as document, _first_page(document) as page:
        width, height = page.get_size()
        bitmap = page.render(
            scale=max(size[0] / width, size[1] / height), may_draw_forms=False, prefer_bgrx=True, rev_byteorder=True
        )
        try:
            return Painting(bytes(bitmap.buffer), bitmap.width, bitmap.height)
        finally:
            bitmap.close()
