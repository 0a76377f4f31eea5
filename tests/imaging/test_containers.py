"""Iterators over the structure of files: correct, bounded, and tolerant of damage."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator

import pytest

from aioimageattach.exc import ImageTooLargeError
from aioimageattach.imaging._containers import (
    JPEG_DATA,
    Part,
    gif_parts,
    heif_items,
    jpeg_parts,
    png_parts,
    riff_parts,
    top_boxes,
)
from tests import photos

Walk = Callable[[memoryview], Iterator[Part]]


@pytest.mark.parametrize(
    ("walk", "data", "last"),
    [
        (jpeg_parts, photos.large(), b"\xd9"),
        (jpeg_parts, photos.progressive(), b"\xd9"),
        (png_parts, photos.png(), b"IEND"),
        (riff_parts, photos.animated_webp(), b"EXIF"),
        (gif_parts, photos.animated_gif(), b";"),
        (top_boxes, photos.avif(), b"mdat"),
    ],
)
def test_parts_cover_the_file(walk: Walk, data: bytes, last: bytes) -> None:
    """Each part begins where the previous one ends, and the last one ends the file."""
    parts = list(walk(memoryview(data)))
    assert last == parts[-1].name
    assert len(data) == parts[-1].end
    assert all(before.end == after.start for before, after in itertools.pairwise(parts))
    assert all(part.start <= part.body <= part.end for part in parts)


@pytest.mark.parametrize(
    ("walk", "data"),
    [
        (jpeg_parts, photos.progressive()[:3000]),
        (png_parts, photos.png()),
        (riff_parts, photos.animated_webp()),
        (gif_parts, photos.animated_gif()[:4000]),
        (top_boxes, photos.avif()),
        (heif_items, photos.avif()),
    ],
)
def test_truncated_files_end_a_walk(walk: Walk, data: bytes) -> None:
    """For every truncation the iteration ends without a part beyond the end."""
    for size in (*range(2, 600), len(data) - 1):
        for part in walk(memoryview(data)[:size]) or ():
            if isinstance(part, Part):
                assert part.end <= size


@pytest.mark.parametrize(
    ("walk", "data"),
    [
        (jpeg_parts, b"\xff\xd8" + b"\xff\xfe\0\2" * 40_000),
        (png_parts, bytes(8) + (bytes(4) + b"teXt" + bytes(4)) * 40_000),
        (riff_parts, b"RIFF\xff\xff\xff\0WEBP" + b"ABCD\0\0\0\0" * 40_000),
        (gif_parts, b"GIF89a" + bytes(7) + b"!\xfe\0" * 40_000),
        (gif_parts, b"GIF89a" + bytes(7) + b"!\xfe" + b"\1x" * 50_000),
        (top_boxes, b"\0\0\0\x08free" * 40_000),
    ],
)
def test_files_with_too_many_parts_are_rejected(walk: Walk, data: bytes) -> None:
    """A file with more parts than any encoder writes raises an error."""
    with pytest.raises(ImageTooLargeError, match="30,000 parts"):
        list(walk(memoryview(data)))


def test_sizes_of_boxes() -> None:
    """A box has a size of 32 bits or 64 bits, or extends to the end of the file."""
    data = b"\0\0\0\x0cftypabcd" + b"\0\0\0\1free" + (20).to_bytes(8, "big") + b"wxyz" + b"\0\0\0\0mdat..."
    found = [(part.name, data[part.body : part.end]) for part in top_boxes(memoryview(data))]
    assert found == [(b"ftyp", b"abcd"), (b"free", b"wxyz"), (b"mdat", b"...")]


def test_markers_without_a_length_are_skipped() -> None:
    """TEM and a second SOI between the segments of a JPEG are skipped."""
    data = b"\xff\xd8\xff\x01\xff\xd8\xff\xfe\0\3x\xff\xd9"
    assert [part.name for part in jpeg_parts(memoryview(data))] == [b"\xd8", b"\xfe", b"\xd9"]


def test_truncated_scans() -> None:
    """A truncated scan is the last part."""
    data = b"\xff\xd8\xff\xda\0\2" + b"data\xff\0\xff\xd0data"
    parts = list(jpeg_parts(memoryview(data)))
    assert Part(b"\0", 6, 6, len(data)) == parts[-1]


def box(name: bytes, body: bytes) -> bytes:
    return (len(body) + 8).to_bytes(4, "big") + name + body


def heif(iinf: bytes, iloc: bytes, *more: bytes) -> memoryview:
    return memoryview(
        box(b"ftyp", b"avif\0\0\0\0")
        + box(b"meta", bytes(4) + box(b"iinf", iinf) + box(b"iloc", iloc) + b"".join(more))
    )


def entry(version: int, number: int, kind: bytes, texts: bytes) -> bytes:
    width = 2 if version == 2 else 4
    return box(b"infe", bytes([version, 0, 0, 0]) + number.to_bytes(width, "big") + b"\0\0" + kind + texts)


def test_items_of_every_version_of_the_tables_are_found() -> None:
    """Items are found for wide and narrow numbers, and for data in the file and in the table."""
    entries = entry(2, 1, b"Exif", b"\0") + entry(3, 2, b"mime", b"name\0application/rdf+xml\0")
    iinf = b"\1\0\0\0" + (2).to_bytes(4, "big") + entries
    first = b"\0\0\0\1" + b"\0\0" + b"\0\0" + b"\0\1" + (3).to_bytes(4, "big") + (5).to_bytes(4, "big")
    second = b"\0\0\0\2" + b"\0\1" + b"\0\0" + b"\0\1" + (2).to_bytes(4, "big") + (4).to_bytes(4, "big")
    view = heif(iinf, b"\2\0\0\0" + b"\x44\0" + (2).to_bytes(4, "big") + first + second, box(b"idat", b"0123456789"))
    items = heif_items(view)
    assert items is not None
    assert [(item.number, item.kind, item.content_type) for item in items] == [
        (1, b"Exif", b""),
        (2, b"mime", b"application/rdf+xml"),
    ]
    assert items[0].extents == ((3, 8),)
    assert bytes(view[slice(*items[1].extents[0])]) == b"2345"


@pytest.mark.parametrize(
    "view",
    [
        memoryview(b""),
        memoryview(box(b"meta", bytes(4))),
        heif(b"\0\0\0\0\0\1" + box(b"abcd", bytes(20)), b"\0\0\0\0\x44\0\0\0"),
        heif(b"\0\0\0\0\0\1" + entry(2, 1, b"mime", b"no end"), b"\0\0\0\0\x44\0\0\0"),
        heif(b"\0\0\0\0\0\0", b"\0\0\0\0\x44\0\0\1" + b"\0\1\0\0\0\1" + b"\x7f\0\0\0\0\0\0\1"),
        heif(b"\0\0\0\0\0\0", b"\1\0\0\0\x44\0\0\1" + b"\0\1\0\1\0\0\0\1" + bytes(8)),
        heif(b"\0\0\0\0\0\0", b"\0\0\0\0\x44"),
    ],
    ids=["empty", "no tables", "no entry", "open text", "beyond the file", "no data", "truncated"],
)
def test_unsupported_tables_are_ignored(view: memoryview) -> None:
    """The position of an item is not guessed."""
    assert heif_items(view) is None


@pytest.mark.parametrize("size", [999_998, 999_999, 1_000_000, 2_000_001])
def test_markers_across_two_steps_of_a_search(size: int) -> None:
    """A marker is found even if its two bytes are in two steps of the search."""
    head = b"\xff\xd8\xff\xda\0\x02"
    data = head + bytes(size) + b"\xff\xd9"
    *_, scan, end = jpeg_parts(memoryview(data))
    assert (scan.name, scan.start, scan.end) == (JPEG_DATA, len(head), len(head) + size)
    assert (end.start, end.end) == (len(data) - 2, len(data))


async def test_a_search_releases_the_interpreter() -> None:
    """Other threads run repeatedly while megabytes without a marker are searched."""
    view = memoryview(b"\xff\xd8\xff\xda\0\x02" + b"\xff\0" * 20_000_000)
    turns = 0
    done = asyncio.get_running_loop().run_in_executor(None, lambda: len(list(jpeg_parts(view))))
    while not done.done():
        turns += 1
        await asyncio.sleep(0)
    assert await done == 3
    assert turns > 5
