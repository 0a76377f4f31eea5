"""The container structure of image files: iterate over segments, chunks, blocks and boxes, in plain Python.

Each iterator takes a view of single bytes, yields well-formed parts, and stops without an error at the first malformed
one; callers can check the last part for completeness. No pixels are decoded, and the file is not copied. A file with
more parts than any encoder writes raises :class:`~aioimageattach.exc.ImageTooLargeError`, which bounds the run time.
"""

from __future__ import annotations

import functools
import re
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple, ParamSpec, TypeAlias

from ..exc import ImageTooLargeError

__all__ = [
    "JPEG_DATA",
    "Item",
    "Part",
    "Piece",
    "boxes",
    "first_boxes",
    "gif_parts",
    "heif_items",
    "items_of",
    "jpeg_parts",
    "png_parts",
    "riff_parts",
    "top_boxes",
]

_MARKER: Final = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_FULL_BLOCKS: Final = re.compile(rb"(?s:\xff.{255}){1,2000}+")
"""Full sub-blocks of a GIF. The repetition is bounded, because a search holds the GIL until it ends."""
JPEG_DATA: Final = b"\0"
"""Name of the part of a JPEG that contains the data of a scan."""

P = ParamSpec("P")

Piece: TypeAlias = bytes | tuple[int, int]
"""A piece of a new file: bytes, or the start and end of a range of the old file."""

_MOST_PARTS: Final = 30_000
_MOST_FILL: Final = 65_536  # bytes between two segments, where there should be none
_STEP: Final = 500_000  # bytes per search, because a search holds the GIL and would delay the event loop
_SIZE_NAME: Final = struct.Struct(">I4s")
_NAME_SIZE: Final = struct.Struct("<4sI")
_SOS: Final = 0xDA
_EOI: Final = 0xD9


class Part(NamedTuple):
    """One part of a file: its name, and the positions of its start, its content (``body``) and its end."""

    name: bytes
    start: int
    body: int
    end: int


def _too_many() -> ImageTooLargeError:
    return ImageTooLargeError(f"expected a file of at most {_MOST_PARTS:,} parts, got more", limit=_MOST_PARTS)


def _bounded(walk: Callable[P, Iterator[Part]]) -> Callable[P, Iterator[Part]]:
    @functools.wraps(walk)
    def bounded(*args: P.args, **kwargs: P.kwargs) -> Iterator[Part]:
        for number, part in enumerate(walk(*args, **kwargs)):
            if number == _MOST_PARTS:
                raise _too_many()
            yield part

    return bounded


def _number(view: memoryview, start: int, size: int) -> int:
    return int.from_bytes(view[start : start + size], "big")


def _next_marker(view: memoryview, position: int, end: int) -> re.Match[bytes] | None:
    for start in range(position, min(end, len(view)), _STEP):
        found = _MARKER.search(view, start, start + _STEP + 1)
        if found is not None:
            return found
    return None


@_bounded
def jpeg_parts(view: memoryview) -> Iterator[Part]:
    """Yield the segments of a JPEG by marker (ITU T.81 B.1), ending with EOI.

    The data of a scan follows its SOS segment as a part named ``\\0``. Its end is only searched for if the caller
    continues after SOS.
    """
    yield Part(b"\xd8", 0, 2, 2)
    position = 2
    while found := _next_marker(view, position, position + _MOST_FILL):
        start, marker = found.start(), view[found.start() + 1]
        body = start + 4
        if marker == _EOI:
            yield Part(b"\xd9", start, start + 2, start + 2)
            return
        if marker in (0x01, 0xD8):  # these have no length
            position = start + 2
            continue
        end = start + 2 + _number(view, start + 2, 2)
        if end < body or end > len(view):
            return
        yield Part(bytes([marker]), start, body, end)
        position = end
        if marker == _SOS:
            following = _next_marker(view, end, len(view))
            position = following.start() if following else len(view)
            yield Part(b"\0", end, end, position)


@_bounded
def png_parts(view: memoryview) -> Iterator[Part]:
    """Yield the chunks of a PNG, ending with IEND. A part includes its checksum."""
    position = 8
    while position + 12 <= len(view):
        size, name = _SIZE_NAME.unpack_from(view, position)
        end = position + 12 + size
        if end > len(view):
            return
        yield Part(name, position, position + 8, end)
        if name == b"IEND":
            return
        position = end


@_bounded
def riff_parts(view: memoryview, start: int = 12, end: int | None = None) -> Iterator[Part]:
    """Yield the chunks of a RIFF file, by default of the whole file. A part includes its padding."""
    if end is None:
        end = min(len(view), 8 + int.from_bytes(view[4:8], "little"))
    while start + 8 <= end:
        name, size = _NAME_SIZE.unpack_from(view, start)
        if start + 8 + size > end:
            return
        stop = min(start + 8 + size + (size & 1), end)
        yield Part(name, start, start + 8, stop)
        start = stop


def _past_blocks(view: memoryview, position: int) -> int:
    """Return the position after a list of sub-blocks and its terminator, or a position beyond the end of the file."""
    length = len(view)
    for _ in range(_MOST_PARTS + length // 128):
        if position >= length:
            return length + 1
        size = view[position]
        if size == 255 and (full := _FULL_BLOCKS.match(view, position)):  # usually all but the last
            position = full.end()
            continue
        position += size + 1
        if not size:
            return position
    raise _too_many()


@_bounded
def gif_parts(view: memoryview) -> Iterator[Part]:
    """Yield the blocks of a GIF: ``header`` with the global colour table, ``,`` for a frame, ``;`` for the end.

    An extension is named ``!`` followed by its label byte. Its body starts at its sub-blocks.
    """
    if len(view) < 13:
        return
    position = 13 + (3 << (view[10] & 7) + 1 if view[10] & 0x80 else 0)
    yield Part(b"header", 0, 6, min(position, len(view)))
    while position < len(view):
        start, kind = position, view[position]
        if kind == 0x3B:
            yield Part(b";", start, start + 1, start + 1)
            return
        if kind == 0x21 and start + 2 < len(view):
            body = start + 2
            name = b"!" + bytes(view[start + 1 : start + 2])
        elif kind == 0x2C and start + 10 < len(view):
            colours = view[start + 9]
            body = start + 10 + (3 << (colours & 7) + 1 if colours & 0x80 else 0) + 1
            name = b","
        else:
            return
        position = _past_blocks(view, body)
        if position > len(view):
            return
        yield Part(name, start, body, position)


@_bounded
def boxes(view: memoryview, start: int, end: int) -> Iterator[Part]:
    """Yield the boxes in a range of an ISO 14496-12 file."""
    while start + 8 <= end:
        size, name = _SIZE_NAME.unpack_from(view, start)
        body = start + 8
        if size == 1:
            size, body = _number(view, start + 8, 8), start + 16
        stop = end if size == 0 else start + size
        if stop < body or stop > end:
            return
        yield Part(name, start, body, stop)
        start = stop


def top_boxes(view: memoryview) -> Iterator[Part]:
    """Yield the top-level boxes of an ISO 14496-12 file, such as AVIF or HEIC."""
    return boxes(view, 0, len(view))


def first_boxes(view: memoryview, part: Part | None, skip: int = 0) -> dict[bytes, Part]:
    """Return the first box of each name in ``part``, after skipping ``skip`` bytes; empty if ``part`` is ``None``."""
    if part is None:
        return {}
    found: dict[bytes, Part] = {}
    for box in boxes(view, part.body + skip, part.end):
        found.setdefault(box.name, box)
    return found


@dataclass(frozen=True, slots=True)
class Item:
    """An item of HEIF (ISO 23008-12): its type, the MIME type of ``mime`` items, and the positions of its bytes."""

    number: int
    kind: bytes
    content_type: bytes
    extents: tuple[tuple[int, int], ...]


class _Reader:
    """Reads numbers sequentially; raises IndexError at the end."""

    def __init__(self, view: memoryview, start: int, end: int) -> None:
        self._view, self._at, self._end = view, start, end

    def number(self, size: int) -> int:
        if self._at + size > self._end:
            raise IndexError
        value = _number(self._view, self._at, size)
        self._at += size
        return value

    def text(self) -> bytes:
        rest = bytes(self._view[self._at : min(self._end, self._at + 256)])
        text, zero, _ = rest.partition(b"\0")
        if not zero:
            raise IndexError
        self._at += len(text) + 1
        return text


def heif_items(view: memoryview) -> list[Item] | None:
    """Return the items of a HEIF file; ``None`` if their table is missing or not supported."""
    meta = next((box for box in top_boxes(view) if box.name == b"meta"), None)
    return items_of(view, first_boxes(view, meta, 4))


def items_of(view: memoryview, tables: Mapping[bytes, Part]) -> list[Item] | None:
    """Return the items described by the boxes of a ``meta`` box, like :func:`heif_items`."""
    if b"iinf" not in tables or b"iloc" not in tables:
        return None
    try:
        kinds = _item_kinds(view, tables[b"iinf"])
        places = _item_places(view, tables[b"iloc"], tables.get(b"idat"))
    except IndexError:
        return None
    return [Item(number, *kind, places.get(number, ())) for number, kind in kinds.items()]


def _item_kinds(view: memoryview, table: Part) -> dict[int, tuple[bytes, bytes]]:
    head = _Reader(view, table.body, table.end)
    wide = head.number(4) >> 24
    head.number(4 if wide else 2)
    kinds = {}
    for box in boxes(view, table.body + (8 if wide else 6), table.end):
        entry = _Reader(view, box.body, box.end)
        version = entry.number(4) >> 24
        if box.name != b"infe" or version < 2:
            raise IndexError
        number = entry.number(2 if version == 2 else 4)
        entry.number(2)
        kind = entry.number(4).to_bytes(4, "big")
        entry.text()
        kinds[number] = (kind, entry.text() if kind == b"mime" else b"")
    return kinds


def _item_places(view: memoryview, table: Part, data: Part | None) -> dict[int, tuple[tuple[int, int], ...]]:
    reader = _Reader(view, table.body, table.end)
    version = reader.number(4) >> 24
    sizes = reader.number(2)
    offset_size, length_size, base_size = sizes >> 12, sizes >> 8 & 15, sizes >> 4 & 15
    index_size = sizes & 15 if version in (1, 2) else 0
    places = {}
    left = _MOST_PARTS
    for _ in range(reader.number(4 if version == 2 else 2)):
        number = reader.number(4 if version == 2 else 2)
        method = reader.number(2) & 15 if version in (1, 2) else 0
        source = reader.number(2)
        base = reader.number(base_size)
        extents = []
        count = reader.number(2)
        left -= count + 1
        if left < 0:  # an extent can take zero bytes in the table, so the size of the file does not bound their number
            raise _too_many()
        for _ in range(count):
            reader.number(index_size)
            start, length = base + reader.number(offset_size), reader.number(length_size)
            first, last = (data.body, data.end) if method == 1 and data is not None else (0, len(view))
            if source or method > 1 or (method == 1 and data is None) or first + start + length > last:
                raise IndexError
            extents.append((first + start, first + start + length))
        places[number] = tuple(extents)
    return places
