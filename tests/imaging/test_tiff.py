"""TIFF: rendered like by a second decoder, or rejected; and directories of bounded cost."""

from __future__ import annotations

import io
import struct
import time
from functools import cache
from typing import Any

import pytest
from PIL import Image, ImageChops, ImageStat

from aioimageattach.exc import ImageError, ImageTooLargeError, UnreadableImageError, UnsupportedImageError
from aioimageattach.imaging import ImageLimits, Recipe, probe, render
from aioimageattach.imaging._guard import examine
from aioimageattach.imaging._structure import Clock, assemble
from aioimageattach.imaging._tiff import MOST_ENTRIES, Tiff, exif_orientation
from tests import photos

LIMITS = ImageLimits().allow("image/tiff")

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, OFFSETS, SAMPLES, ROWS, COUNTS, PLANAR = (
    *range(256, 260),
    262,
    273,
    277,
    278,
    279,
    284,
)
TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_COUNTS, EXTRA, FORMAT = 322, 323, 324, 325, 338, 339
SHORT, LONG = 3, 4


def directory(order: str, fields: dict[int, tuple[int, list[int]]], start: int, following: int = 0) -> bytes:
    """Return a directory at the given offset, followed by the values that do not fit (TIFF 6.0, section 2)."""
    entries, values = b"", b""
    behind = start + 2 + 12 * len(fields) + 4
    for tag, (kind, numbers) in sorted(fields.items()):
        body = struct.pack(f"{order}{len(numbers)}{'H' if kind == SHORT else 'I'}", *numbers)
        if len(body) > 4:
            place = struct.pack(order + "I", behind + len(values))
            values += body
        else:
            place = body.ljust(4, b"\0")
        entries += struct.pack(order + "HHI", tag, kind, len(numbers)) + place
    return struct.pack(order + "H", len(fields)) + entries + struct.pack(order + "I", following) + values


def tiff(pixels: bytes, order: str = "<", **changed: Any) -> bytes:
    """Return an uncompressed TIFF of 8 x 8 pixels in one strip, with some fields changed or, by ``None``, omitted."""
    start = 8 + len(pixels) + len(pixels) % 2
    fields: dict[int, Any] = {
        WIDTH: (SHORT, [8]),
        HEIGHT: (SHORT, [8]),
        BITS: (SHORT, [8, 8, 8]),
        COMPRESSION: (SHORT, [1]),
        PHOTOMETRIC: (SHORT, [2]),
        OFFSETS: (LONG, [8]),
        SAMPLES: (SHORT, [3]),
        ROWS: (SHORT, [8]),
        COUNTS: (LONG, [len(pixels)]),
        PLANAR: (SHORT, [1]),
    }
    fields |= {int(name[1:]): value for name, value in changed.items()}
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", start)
    kept = {tag: value for tag, value in fields.items() if value is not None}
    return head + pixels + bytes(len(pixels) % 2) + directory(order, kept, start)


RED = bytes((200, 50, 50)) * 64


def rendered(data: bytes, width: int = 8) -> Image.Image:
    (made,) = render(data, [Recipe(width=width)], LIMITS)
    return Image.open(io.BytesIO(made.blob))


def difference(first: Image.Image, second: Image.Image) -> float:
    return max(ImageStat.Stat(ImageChops.difference(first.convert("RGBA"), second.convert("RGBA"))).mean)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"])
@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "I;16"])
def test_all_kinds_of_colours(mode: str, compression: str) -> None:
    """Every accepted kind of colours is rendered like by Pillow."""
    picture = photos.opened("chelsea", (64, 48))
    if mode == "I;16":
        picture = picture.convert("I").point(lambda value: value * 257).convert("I;16")
    else:
        picture = picture.convert(mode)
    try:
        data = photos.saved(picture, "TIFF", compression=compression)
    except OSError:
        pytest.skip("such a file cannot be written")
    expected = Image.open(io.BytesIO(data))
    if mode == "I;16":
        expected = expected.convert("I").point(lambda value: value / 257).convert("L")
    found = rendered(data, 64)
    # inks depend on the profile, so only the polarity is compared
    assert difference(expected, found) < (60 if mode == "CMYK" else 3)


@pytest.mark.parametrize("order", ["<", ">"])
def test_both_orders_of_bytes_are_read(order: str) -> None:
    """Little-endian and big-endian files, both written by hand, are read."""
    assert rendered(tiff(RED, order)).convert("RGB").getpixel((4, 4)) == (200, 50, 50)


def test_large_offsets_are_read() -> None:
    """BigTIFF, with offsets of 64 bits, is read."""
    data = photos.saved(photos.opened("chelsea", (64, 48)), "TIFF", big_tiff=True)
    assert data[2] == 43
    assert difference(photos.opened("chelsea", (64, 48)), rendered(data, 64)) < 1


@pytest.mark.parametrize(
    ("meaning", "expected"),
    [
        (0, (200, 50, 50, 255)),  # unspecified: a Photoshop selection
        (2, (200, 50, 50, 0)),  # unassociated alpha
        (None, (200, 50, 50, 0)),  # omitted: old writers mean alpha
    ],
)
def test_extra_samples(meaning: int | None, expected: tuple[int, ...]) -> None:
    """An extra sample is alpha only if ExtraSamples says so (TIFF 6.0, section 18)."""
    extra = None if meaning is None else (SHORT, [meaning])
    data = tiff(bytes((200, 50, 50, 0)) * 64, _258=(SHORT, [8] * 4), _277=(SHORT, [4]), _338=extra)
    assert rendered(data).convert("RGBA").getpixel((4, 4)) == expected
    assert probe(data, LIMITS).has_alpha is (expected[3] == 0)


def test_associated_alpha_is_divided_out() -> None:
    """Premultiplied colours are divided by their alpha (TIFF 6.0, section 18)."""
    data = tiff(bytes((100, 25, 25, 128)) * 64, _258=(SHORT, [8] * 4), _277=(SHORT, [4]), _338=(SHORT, [1]))
    found = rendered(data).convert("RGBA").getpixel((4, 4))
    assert isinstance(found, tuple)
    assert all(abs(one - other) <= 2 for one, other in zip(found, (199, 50, 50, 128), strict=True))


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"_259": (SHORT, [50000])}, "Zstandard"),
        ({"_259": (SHORT, [34925])}, "LZMA"),
        ({"_259": (SHORT, [777])}, "compression 777"),
        ({"_262": (SHORT, [6])}, "YCbCr without JPEG"),
        ({"_262": (SHORT, [8])}, "CIELAB"),
        ({"_262": (SHORT, [32844])}, "photometric interpretation 32844"),
        ({"_262": None}, "photometric interpretation -1"),
        ({"_339": (SHORT, [3, 3, 3])}, "format"),
        ({"_258": (SHORT, [5, 6, 5])}, "bits"),
        (
            {
                "_284": (SHORT, [2]),
                "_322": (SHORT, [16]),
                "_323": (SHORT, [16]),
                "_324": (LONG, [8]),
                "_325": (LONG, [9]),
            },
            "planar tiles",
        ),
    ],
)
def test_unsupported_files_are_rejected(changed: dict[str, Any], word: str) -> None:
    """Unsupported compressions and colours, which would be rendered black or wrong, raise an error."""
    with pytest.raises(UnsupportedImageError, match=word):
        probe(tiff(RED, **changed), LIMITS)


@pytest.mark.parametrize(
    "changed",
    [
        {"_256": None},
        {"_257": (SHORT, [0])},
        {"_273": None},
        {"_279": None},
        {"_279": (LONG, [191])},
        {"_279": (LONG, [0])},
        {"_279": (LONG, [])},
        {"_273": (LONG, [10_000])},
        {"_277": (SHORT, [2])},
        {"_278": (SHORT, [4])},
        {"_322": (SHORT, [8]), "_323": (SHORT, [8]), "_324": (LONG, [8]), "_325": (LONG, [150])},
        {"_256": (12, [8])},
        {"_320": (SHORT, [1] * 70_000)},
    ],
)  # fmt: skip
def test_pictures_with_missing_parts_are_unreadable(changed: dict[str, Any]) -> None:
    """Missing, short or outlying sizes, strips and tiles are rejected; the decoder would leave them black."""
    data = tiff(RED, **changed)
    with pytest.raises(UnreadableImageError):
        probe(data[:100_000], LIMITS)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
def test_files_cut_in_half_are_unreadable(compression: str) -> None:
    """Pillow writes the directory first, so only the strips reveal a truncation."""
    data = photos.saved(photos.opened("chelsea"), "TIFF", compression=compression)
    with pytest.raises(UnreadableImageError):
        probe(data[: len(data) // 2], LIMITS)


def test_tiles_can_extend_beyond_the_picture() -> None:
    """A tile of 16 x 16 can contain an image of 8 x 8 (TIFF 6.0, section 15)."""
    pixels = b"".join(bytes((200, 50, 50)) * 8 + bytes(24) for _ in range(8)) + bytes(48 * 8)
    fields = {"_322": (SHORT, [16]), "_323": (SHORT, [16]), "_324": (LONG, [8]), "_325": (LONG, [768])}
    data = tiff(pixels, _273=None, _278=None, _279=None, **fields)
    assert rendered(data).convert("RGB").getcolors() == [(64, (200, 50, 50))]


def test_planes_in_strips_are_read() -> None:
    """Consecutive colour planes are read (TIFF 6.0, PlanarConfiguration)."""
    pixels = bytes([200] * 64 + [50] * 64 + [60] * 64)
    data = tiff(pixels, _284=(SHORT, [2]), _273=(LONG, [8, 72, 136]), _279=(LONG, [64] * 3))
    assert rendered(data).convert("RGB").getpixel((3, 3)) == (200, 50, 60)


@cache
def chain(pages: int, tags: int) -> bytes:
    """Return a TIFF with the given number of directories and of private tags in each."""
    data = bytearray(tiff(RED))
    struct.pack_into("<I", data, 4, len(data))
    extra = {40_000 + tag: (SHORT, [1]) for tag in range(tags)}
    first: dict[int, tuple[int, list[int]]] = {
        WIDTH: (SHORT, [8]), HEIGHT: (SHORT, [8]), BITS: (SHORT, [8]), PHOTOMETRIC: (SHORT, [1]),
        OFFSETS: (LONG, [8]), COUNTS: (LONG, [64]),
    }  # fmt: skip
    for number in range(pages):
        size = 2 + 12 * (len(first) + len(extra)) + 4
        last = number == pages - 1
        data += directory("<", first | extra, len(data), 0 if last else len(data) + size)
    return bytes(data)


def test_many_pages() -> None:
    """Pages are counted, but not passed to the decoder, which took 31 seconds for 200 directories of 3,000 tags."""
    data = chain(200, 3_000)
    start = time.thread_time()
    assert probe(data, LIMITS).frames == 200
    assert rendered(data).size == (8, 8)
    assert time.thread_time() - start < 5


def test_circular_chains_of_directories() -> None:
    """A circular chain ends at its beginning."""
    data = bytearray(tiff(RED))
    start = struct.unpack_from("<I", data, 4)[0]
    struct.pack_into("<I", data, start + 2 + 12 * 10, start)
    assert probe(bytes(data), LIMITS).frames == 1


def test_entries_are_limited() -> None:
    """A directory with more entries than any encoder writes is rejected."""
    assert probe(chain(1, MOST_ENTRIES - 6), LIMITS).width == 8
    with pytest.raises(ImageTooLargeError, match="entries"):
        probe(chain(1, MOST_ENTRIES - 5), LIMITS)


def test_strips_are_limited() -> None:
    """The numbers of strips and tiles are limited, too."""
    data = tiff(RED, _279=(LONG, [1] * 200_001))
    with pytest.raises(ImageTooLargeError, match="got 200,001"):
        probe(data, LIMITS)


def test_fields_are_limited() -> None:
    """The fields that are passed to the decoder are limited; the largest is a 16-bit palette."""
    palette = {"_262": (SHORT, [3]), "_258": (SHORT, [8]), "_277": (SHORT, [1])}
    assert probe(tiff(RED, **palette, _320=(SHORT, [1] * 3 * 65_536)), LIMITS).width == 8
    with pytest.raises(ImageTooLargeError, match="at most 1,000,000 bytes of fields"):
        probe(tiff(RED, **palette, _320=(SHORT, [1] * 500_000)), LIMITS)


def test_a_file_with_strips_and_tiles() -> None:
    """The decoder receives either strips or tiles, so that it cannot confuse them."""
    data = tiff(RED, _322=(SHORT, [16]), _323=(SHORT, [16]))
    assert rendered(data).convert("RGB").getcolors() == [(64, (200, 50, 50))]


def test_reading_a_header_copies_no_pixels() -> None:
    """The header passed to the decoder has the size of the directory, regardless of the file."""
    file = memoryview(photos.saved(photos.opened("chelsea"), "TIFF"))
    structure = examine(file, "image/tiff", LIMITS, Clock(1))
    assert len(file) > 300_000
    assert len(assemble(file, structure, header=True)) < 1_000


def test_a_picture_in_one_strip_takes_memory() -> None:
    """The decoder keeps a whole strip in memory, so its size is counted beforehand."""
    data = photos.saved(Image.new("RGB", (3_000, 2_000)), "TIFF", compression="tiff_lzw", strip_size=18_000_000)
    with pytest.raises(ImageTooLargeError, match="max_memory"):
        probe(data, ImageLimits(max_memory=30_000_000).allow("image/tiff"))
    assert probe(data, LIMITS).width == 3_000


@pytest.mark.parametrize("data", [b"II*\0", b"II*\0\0\0\0\0", b"MM\0*\0\0\xff\xff", b"II+\0\x08\0\0\0" + bytes(8), RED])
def test_headers_without_a_directory_are_unreadable(data: bytes) -> None:
    """A missing offset, or one beyond the file, is rejected."""
    view = memoryview(data)
    with pytest.raises(UnreadableImageError):
        tiff_file = Tiff(view)
        list(tiff_file.directories())
        tiff_file.page(1_000)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("prefix", [b"", b"Exif\0\0"])
def test_orientations_are_read(orientation: int, order: str, prefix: bytes) -> None:
    """Both byte orders are read, with and without the prefix that some formats write."""
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    block = head + directory(order, {0x0112: (SHORT, [orientation]), 0x010F: (LONG, [1, 2, 3])}, 8)
    assert orientation == exif_orientation(prefix + block)


@pytest.mark.parametrize(
    "block",
    [
        b"",
        b"Exif\0\0",
        b"II*\0\xff\xff\xff\xff",
        b"II*\0\x08\0\0\0\xff\xff",
        b"II*\0\x08\0\0\0\2\0" + bytes(20),
        b"II*\0\x08\0\0\0" + directory("<", {0x0112: (SHORT, [9])}, 8),
        b"II*\0\x08\0\0\0" + directory("<", {0x0112: (SHORT, [])}, 8),
        b"II*\0\x08\0\0\0" + directory("<", {0x0112: (7, [6])}, 8),
        b"II*\0\x08\0\0\0\xff\xff" + bytes(12 * 65_535),
    ],
)
def test_damaged_exif_is_ignored(block: bytes) -> None:
    """An image with damaged metadata is accepted."""
    assert exif_orientation(block) == 1


def test_profiles_that_are_too_large_are_ignored() -> None:
    """A profile beyond the limit on metadata, or beyond the file, is ignored."""
    data = photos.saved(photos.opened("chelsea", (64, 48)), "TIFF", icc_profile=photos.DISPLAY_P3)
    view = memoryview(data)
    assert Tiff(view).page(100_000).profile == photos.DISPLAY_P3
    assert Tiff(view).page(10).profile is None


@pytest.mark.parametrize("first", [0, *(pytest.param(first, marks=pytest.mark.thorough) for first in (1, 2))])
def test_any_changed_byte(first: int) -> None:
    """For any changed byte, a TIFF is rendered or rejected."""
    data = bytearray(tiff(RED))
    for at in range(len(data) - 130 + first, len(data), 3):
        for value in (0, 0x7F, 0xFF):
            changed = data.copy()
            changed[at] = value
            try:
                rendered(bytes(changed))
            except ImageError:
                pass
