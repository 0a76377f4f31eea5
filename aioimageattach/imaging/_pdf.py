"""The only module that uses PDFium, which renders PDF. Requires the extra ``pdf``."""

from __future__ import annotations

import itertools
import re
import threading
import zlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from ..exc import ImageTooLargeError, UnreadableImageError, UnsupportedImageError
from ._limits import ImageLimits
from ._vector import whole_size

__all__ = ["Painting", "header", "paint"]

_MIMETYPE: Final = "application/pdf"
_USER_UNIT: Final = re.compile(rb"/UserUnit\s{0,100}(\d{1,9}(?:\.\d{0,9})?)")
_OBJECTS: Final = re.compile(rb"/ObjStm\b[^>]{0,500}>{2}\s{0,100}stream\r?\n")
_MOST_OBJECTS, _OBJECT = 20, 500_000  # number of compressed objects to search, and bytes of each
_LEAST_UNIT: Final = 0.01
_lock = threading.Lock()  # PDFium is not thread-safe


class Painting(NamedTuple):
    """Pixels of four bytes: red, green, blue and an unused byte."""

    pixels: bytes
    width: int
    height: int


@contextmanager
def _document(view: memoryview) -> Generator[Any, None, None]:
    try:
        import pypdfium2
    except ImportError as error:
        raise UnsupportedImageError(
            "application/pdf requires pypdfium2: install aioimageattach[pdf]", mimetype=_MIMETYPE
        ) from error
    with _lock:
        try:
            document = pypdfium2.PdfDocument(view.tobytes())
            try:
                yield document
            finally:
                document.close()
        except pypdfium2.PdfiumError as error:
            raise UnreadableImageError(
                "expected a valid application/pdf file, got one that is damaged or needs a password"
            ) from error


@contextmanager
def _first_page(document: Any) -> Generator[Any, None, None]:
    page = document[0]
    try:
        yield page
    finally:
        page.close()


def header(view: memoryview, limits: ImageLimits) -> tuple[int, int, int]:
    """Return the width and the height of the first page, at one pixel per point, and the number of pages."""
    with _document(view) as document:
        pages = len(document)
        if pages > limits.max_frames:
            raise ImageTooLargeError(
                f"expected a PDF of at most {limits.max_frames:,} pages (max_frames), got {pages:,}",
                limit=limits.max_frames,
                actual=pages,
            )
        with _first_page(document) as page:
            width, height = page.get_size()
    unit = _user_unit(view)
    sides = whole_size(width * unit, height * unit, limits, "a page")
    limits.check_size(*sides)
    return *sides, pages


def _user_unit(view: memoryview) -> float:
    """Return the ``UserUnit`` of the first page in points (PDF 2.0, table 31), which PDFium does not expose.

    Uses the first value found in the file or in its compressed objects, because programs write the same for all pages.
    """
    for text in _texts(view.tobytes()):
        if found := _USER_UNIT.search(text):
            return max(float(found[1]), _LEAST_UNIT)
    return 1.0


def _texts(data: bytes) -> Iterator[bytes]:
    """Yield the file, and the contents of its first compressed object streams (PDF 2.0, 7.5.7)."""
    yield data
    for stream in itertools.islice(_OBJECTS.finditer(data), _MOST_OBJECTS):
        try:
            text = zlib.decompressobj().decompress(data[stream.end() : stream.end() + _OBJECT], _OBJECT)
        except zlib.error:
            continue
        yield text


def paint(view: memoryview, size: tuple[int, int]) -> Painting:
    """Render the first page on white, at least as large as ``size``, in its own aspect ratio."""
    with _document(view) as document, _first_page(document) as page:
        width, height = page.get_size()
        bitmap = page.render(
            scale=max(size[0] / width, size[1] / height), may_draw_forms=False, prefer_bgrx=True, rev_byteorder=True
        )
        try:
            return Painting(bytes(bitmap.buffer), bitmap.width, bitmap.height)
        finally:
            bitmap.close()
