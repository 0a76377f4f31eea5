"""AVIF and HEIC: the primary image only, compared with a second decoder; and contradictory tables."""

from __future__ import annotations

import io
import struct
import time
from typing import Any

import pytest
from PIL import Image, ImageChops, ImageOps, ImageStat

from aioimageattach.exc import ImageTooLargeError, UnreadableImageError, UnsupportedImageError
from aioimageattach.imaging import ImageLimits, Recipe, probe, render
from aioimageattach.imaging._av1 import sequence_colours
from aioimageattach.imaging._colour import Colours
from aioimageattach.imaging._heif import still
from tests import photos
from tests.imaging.bmff import ALPHA, QUARTER_TURN, Entry, box, built, film, ispe, parsed

pillow_heif = pytest.importorskip("pillow_heif")
LIMITS = ImageLimits().allow("image/heic")
AVIF = "image/avif"


def avif(picture: Image.Image, **options: Any) -> bytes:
    return photos.saved(picture, "AVIF", **({"quality": 95, "speed": 10} | options))


def heic(picture: Image.Image, **options: Any) -> bytes:
    file = io.BytesIO()
    pillow_heif.from_pillow(picture).save(file, **({"quality": -1, "chroma": 444} | options))
    return file.getvalue()


def rendered(data: bytes, width: int, limits: ImageLimits = LIMITS) -> Image.Image:
    (made,) = render(data, [Recipe(width=width, format="png")], limits)
    return Image.open(io.BytesIO(made.blob))


def difference(first: Image.Image, second: Image.Image) -> float:
    return max(ImageStat.Stat(ImageChops.difference(first.convert("RGBA"), second.convert("RGBA"))).mean)


def corner() -> Image.Image:
    """Return an image of 64 x 32 in red, with a transparent green upper left quarter."""
    picture = Image.new("RGBA", (64, 32), (200, 50, 50, 255))
    picture.paste((0, 200, 0, 0), (0, 0, 32, 16))
    return picture


def coded(picture: Image.Image, **options: Any) -> list[Entry]:
    """Return the coded images of an AVIF, each with its size."""
    items = [item for item in parsed(avif(picture, **options)) if item.kind == b"av01"]
    for item in items:
        item.properties.append(ispe(*picture.size))
    return items


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
@pytest.mark.parametrize("spread", ["full", "limited"])
def test_both_ranges_reach_black_and_white(mode: str, spread: str) -> None:
    """Black and white are preserved, compared with Pillow and libavif."""
    picture = Image.linear_gradient("L").convert(mode)
    data = avif(picture, range=spread)
    found, expected = rendered(data, 256), Image.open(io.BytesIO(data))
    assert difference(expected, found) < 1.5
    low, high = found.convert("L").getextrema()
    assert (low, high) == (pytest.approx(0, abs=3), pytest.approx(255, abs=3))


def test_the_range_may_be_stated_by_the_coded_picture_alone() -> None:
    """Without a ``colr`` box, the sequence header determines the range."""
    data = avif(Image.linear_gradient("L"), range="limited").replace(b"colr", b"free")
    assert rendered(data, 256).convert("L").getextrema() == (pytest.approx(0, abs=3), pytest.approx(255, abs=3))


def test_alpha_of_a_limited_range_reaches_opaque() -> None:
    """An alpha channel in limited range is expanded from transparent to opaque, as by libavif."""
    picture = Image.new("RGB", (256, 256), (200, 50, 50))
    (colour,) = coded(picture)
    (alpha,) = coded(Image.linear_gradient("L"), range="limited")
    alpha.number = 2
    alpha.properties.append(ALPHA)
    data = built([colour, alpha], references=[(b"auxl", 2, [1])])
    expected = Image.open(io.BytesIO(data))
    expected.load()
    assert expected.mode == "RGBA"
    found = rendered(data, 256)
    assert difference(expected, found) < 1.5
    assert found.getchannel("A").getextrema() == (0, 255)


@pytest.mark.parametrize("turned", [(True, True), (True, False), (False, True), (False, False)])
def test_a_rotation_applies_to_the_alpha_channel(turned: tuple[bool, bool]) -> None:
    """A rotation of either item applies to both, as in libavif."""
    items = coded(corner(), subsampling="4:4:4")
    items[1].properties.append(ALPHA)
    for item, is_turned in zip(items, turned, strict=True):
        item.properties += [QUARTER_TURN] * is_turned
    data = built(items, references=[(b"auxl", 2, [1])])
    is_read = turned[0] >= turned[1]  # libavif rejects the other one
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data))) if is_read else corner()
    found = probe(data)
    assert (found.width, found.height, found.has_alpha) == (*expected.size, True)
    assert difference(expected, rendered(data, expected.width)) < 3


def test_a_clean_aperture_crops() -> None:
    """The size is that of the aperture (ISO 14496-12, 12.1.4)."""
    picture = photos.opened("chelsea", (64, 64))
    data = heic(picture.crop((0, 0, 51, 37)))
    assert (probe(data, LIMITS).width, probe(data, LIMITS).height) == (51, 37)
    expected = pillow_heif.open_heif(data).to_pillow()
    assert difference(expected, rendered(data, 51)) < 2


@pytest.mark.parametrize(("across", "down"), [(-27, -19), (27, 19), (1, -9)])
def test_the_offset_of_a_clean_aperture(across: int, down: int) -> None:
    """Its offset is relative to the centre of the image (ISO 14496-12, 12.1.4), and can be in halves of a pixel."""
    picture = photos.opened("chelsea", (64, 48))
    (item,) = coded(picture, quality=100, subsampling="4:4:4")
    numbers = struct.pack(">4IiIiI", 37, 1, 29, 1, across, 2, down, 2)
    item.properties.append(box(b"clap", numbers))
    data = built([item])
    found = probe(data)
    assert (found.width, found.height) == (37, 29)
    left, top = (64 - 37 + across) // 2, (48 - 29 + down) // 2
    assert difference(picture.crop((left, top, left + 37, top + 29)), rendered(data, 37)) < 3


@pytest.mark.parametrize("bits", [10, 12])
def test_deep_grey_is_read(bits: int) -> None:
    """HEIC with 10 and 12 bits and without colours is read: 40,000 of 65,535 is 156 of 255."""
    size = 64, 64
    image = pillow_heif.from_bytes(mode="I;16", size=size, data=struct.pack("<H", 40_000) * (64 * 64))
    file = io.BytesIO()
    pillow_heif.options.SAVE_HDR_TO_12_BIT = bits == 12
    try:
        image.save(file, quality=95)
    finally:
        pillow_heif.options.SAVE_HDR_TO_12_BIT = False
    found = rendered(file.getvalue(), 64)
    assert found.mode == "L"
    assert found.getpixel((9, 9)) == pytest.approx(156, abs=2)


def test_files_with_many_pictures() -> None:
    """Only the first of 286 images is read; libvips' loader accepts at most 256."""
    first = photos.opened("chelsea", (64, 64))
    file = io.BytesIO()
    several = pillow_heif.from_pillow(first)
    for _ in range(285):
        several.add_from_pillow(Image.new("RGB", (16, 16)))
    several.save(file, quality=-1, chroma=444)
    assert probe(file.getvalue(), LIMITS).frames == 1
    assert difference(first, rendered(file.getvalue(), 64)) < 3


def test_tiles_are_joined() -> None:
    """A grid of two rows of tiles (ISO 23008-12, 6.6.2.3), as phones write it, is joined."""
    picture = photos.opened("chelsea", (128, 128))
    tiles = []
    for number, (left, top) in enumerate(((0, 0), (64, 0), (0, 64), (64, 64)), 2):
        (tile,) = coded(picture.crop((left, top, left + 64, top + 64)), subsampling="4:4:4")
        tile.number = number
        tiles.append(tile)
    grid = Entry(1, b"grid", struct.pack(">BBBBHH", 0, 0, 1, 1, 128, 128), [ispe(128, 128)])
    references = [(b"dimg", 1, [2, 3, 4, 5]), (b"thmb", 2, [1])]
    data = built([grid, *tiles], references=references)
    assert difference(picture, rendered(data, 128)) < 3
    identity = Entry(6, b"iden", b"", [ispe(64, 64), QUARTER_TURN])
    data = built([identity, *tiles], primary=6, references=[(b"dimg", 6, [2])])
    assert (probe(data).width, probe(data).height) == (64, 64)


def test_films_without_a_still_picture_show_their_first_frame() -> None:
    """An animated AVIF without items shows its first frame; the frames are counted."""
    pictures = [photos.opened("chelsea", (64, 64)), Image.new("RGB", (64, 64)), Image.new("RGB", (64, 64))]
    data = photos.saved(pictures[0], "AVIF", save_all=True, append_images=pictures[1:], quality=95)
    without = data.replace(b"pitm", b"free", 1)
    for one in (data, without):
        assert probe(one).frames == 3
        assert difference(pictures[0], rendered(one, 64)) < 4
        with pytest.raises(ImageTooLargeError, match="max_frames"):
            probe(one, ImageLimits(max_frames=2))


def claiming(samples: int) -> bytes:
    """Return a small AVIF with an image sequence whose tables claim the given number of samples."""
    (item,) = coded(Image.new("RGB", (64, 64)))
    return built([item], behind=film((64, 64), b"av01", item.properties[0], 32, len(item.data), frames=samples))


@pytest.mark.parametrize("frames", [1_001, 18_000_000, 0xFFFF_FFFF])
def test_tables_that_claim_many_samples(frames: int) -> None:
    """Tables that claim too many samples are rejected within a second of CPU time."""
    data = claiming(frames)
    start = time.thread_time()
    with pytest.raises(ImageTooLargeError, match="max_frames"):
        probe(data)
    assert time.thread_time() - start < 1


def test_invalid_tracks_are_ignored() -> None:
    """Sound tracks, missing tables and samples beyond the file are ignored."""
    (item,) = coded(Image.new("RGB", (64, 64)))
    config = item.properties[0]
    sound = film((64, 64), b"av01", config, 32, 10, handler=b"soun")
    for behind in (
        sound,
        box(b"moov", box(b"trak", box(b"mdia", box(b"hdlr", bytes(8), b"pict")))),
        sound.replace(b"soun", b"vide").replace(b"stsz", b"free"),
        sound.replace(b"soun", b"vide").replace(b"av01", b"xxxx"),
    ):
        assert (probe(built([item], behind=behind)).width) == 64
        with pytest.raises(UnreadableImageError):
            probe(built([item], behind=behind, pitm=b""))


@pytest.mark.parametrize("wide", [False, True])
def test_first_samples_are_found(wide: bool) -> None:
    """Samples of equal or individual lengths are found, with offsets of 32 or 64 bits."""
    (item,) = coded(photos.opened("chelsea", (64, 64)), subsampling="4:4:4")
    tables = film((64, 64), b"av01", item.properties[0], 32, len(item.data), wide=wide)
    data = built([item], behind=tables, pitm=b"", brand=b"avis")
    assert probe(data).frames == 2
    assert difference(photos.opened("chelsea", (64, 64)), rendered(data, 64)) < 4


def changed(**boxes: bytes) -> bytes:
    (item,) = coded(Image.new("RGB", (64, 64)))
    return built([item], **boxes)


def apertured(*numbers: int) -> bytes:
    """Return an image of 9 x 9 with the given clean aperture."""
    properties = box(b"ipco", ispe(9, 9), box(b"clap", struct.pack(f">{len(numbers)}I", *numbers)))
    return changed(iprp=box(b"iprp", properties, box(b"ipma", bytes(4), b"\0\0\0\1\0\1\2\1\2")))


LIES = {
    "no primary item": changed(pitm=box(b"pitm", bytes(4), b"\0\7")),
    "no items": changed(iinf=b""),
    "no properties": changed(iprp=b""),
    "no size": changed(iprp=box(b"iprp", box(b"ipco"), box(b"ipma", bytes(8)))),
    "size of 0": changed(iprp=box(b"iprp", box(b"ipco", ispe(0, 64)), box(b"ipma", bytes(4), b"\0\0\0\1\0\1\1\1"))),
    "an index beyond the properties": changed(
        iprp=box(b"iprp", box(b"ipco", ispe(9, 9)), box(b"ipma", bytes(4), b"\0\0\0\1\0\1\1\x09"))
    ),
    "associations beyond the box": changed(
        iprp=box(b"iprp", box(b"ipco"), box(b"ipma", bytes(4), b"\xff\xff\xff\xff"))
    ),
    "an aperture of no height": apertured(9, 1, 0, 1, 0, 1, 0, 1),
    "an aperture of no measure": apertured(9, 0, 9, 1, 0, 1, 0, 1),
    "an aperture that is larger than the picture": apertured(12, 1, 9, 1, 0, 1, 0, 1),
    "an aperture on the right of the picture": apertured(5, 1, 5, 1, 9, 1, 0, 1),
    "an aperture far above the picture": apertured(5, 1, 5, 1, 0, 1, 0x8000_0001, 1),
    "an aperture at no place": apertured(9, 1, 9, 1, 0, 1, 0, 0),
    "a short aperture": apertured(9, 1, 9, 1),
    "a short pitm": changed(pitm=box(b"pitm", bytes(4))),
    "an extent beyond the file": changed(
        iloc=box(b"iloc", bytes(4), b"\x44\0\0\1", struct.pack(">HHHII", 1, 0, 1, 10, 10**9))
    ),
    "no boxes": b"\0\0\0\x14ftypavif\0\0\0\0avif",
    "a broken iref": changed(iref=box(b"iref", bytes(4), box(b"dimg", b"\0\1\0\xff"))),
    "a grid without tiles": built([Entry(1, b"grid", bytes(8), [ispe(64, 64)])]),
    "a grid of itself": built([Entry(1, b"grid", bytes(8), [ispe(64, 64)])], references=[(b"dimg", 1, [1])]),
    "a grid of huge tiles": built(
        [Entry(1, b"grid", bytes(8), [ispe(64, 64)]), Entry(2, b"av01", b"x", [ispe(64, 64)])],
        references=[(b"dimg", 1, [2] * 5)],
    ),
    "an identity of two": built(
        [Entry(1, b"iden", b"", [ispe(64, 64)]), Entry(2, b"av01", b"x", [ispe(64, 64)])],
        references=[(b"dimg", 1, [2, 2])],
    ),
}


@pytest.mark.parametrize("name", LIES)
def test_contradictory_tables_are_unreadable(name: str) -> None:
    """Contradictory tables are rejected before decoding."""
    with pytest.raises(UnreadableImageError, match="image/avif"):
        still(memoryview(LIES[name]), AVIF)


@pytest.mark.parametrize(
    "data",
    [
        changed(
            iloc=box(b"iloc", bytes(4), b"\0\0", struct.pack(">H", 60_000), struct.pack(">HHH", 1, 0, 0xFFFF) * 60_000)
        ),
        changed(iprp=box(b"iprp", box(b"ipco", ispe(9, 9) * 5_000), box(b"ipma", bytes(8)))),
        changed(
            iprp=box(
                b"iprp",
                box(b"ipco", ispe(9, 9)),
                box(b"ipma", bytes(4), b"\0\0\x27\x10", (b"\0\1\xff" + b"\1" * 255) * 10_000),
            )
        ),
        changed(iref=box(b"iref", bytes(4), *[box(b"dimg", b"\0\1\x10\0" + b"\0\1" * 4_096)] * 10)),
        built([Entry(number, b"av01", b"", [ispe(9, 9)]) for number in range(1, 5_000)]),
    ],
    ids=["extents without bytes", "properties", "associations", "references", "items"],
)
def test_tables_are_limited(data: bytes) -> None:
    """Tables with more entries than any encoder writes are rejected."""
    with pytest.raises(ImageTooLargeError):
        still(memoryview(data), AVIF)


def test_other_derived_pictures_are_not_read() -> None:
    """Overlays are rejected, because they can be nested without end."""
    with pytest.raises(UnsupportedImageError, match="iovl"):
        still(memoryview(built([Entry(1, b"iovl", b"", [ispe(9, 9)])])), AVIF)


def test_items_that_name_themselves_as_alpha() -> None:
    """A reference of an item to itself is ignored."""
    (item,) = coded(Image.new("RGB", (64, 64)))
    item.properties.append(ALPHA)
    assert not still(memoryview(built([item], references=[(b"auxl", 1, [1])])), AVIF).has_alpha


def test_wide_tables_are_read() -> None:
    """Numbers of 32 bits and indexes of 15 bits are read (ISO 23008-12, 9.3)."""
    (item,) = coded(photos.opened("chelsea", (64, 64)))
    config, size = item.properties
    associations = struct.pack(">IIB", 1, 1, 2) + struct.pack(">HH", 0x8001, 2)
    data = built(
        [item],
        pitm=box(b"pitm", b"\1\0\0\0", struct.pack(">I", 1)),
        iprp=box(b"iprp", box(b"ipco", config, size), box(b"ipma", b"\1\0\0\1", associations)),
        iref=box(b"iref", b"\1\0\0\0", box(b"thmb", struct.pack(">IHI", 1, 1, 1))),
    )
    assert rendered(data, 64).size == (64, 64)


def obu(*fields: tuple[int, int]) -> bytes:
    """Return a sequence header with the given numbers and bit widths, in a unit with a size (AV1 5.3, 5.5)."""
    value, width = 0, 0
    for number, bits in fields:
        value, width = value << bits | number, width + bits
    body = (value << (-width % 8)).to_bytes(-(-width // 8), "big")
    return bytes((1 << 3 | 2, len(body))) + body


STILL = ((1, 1), (1, 1), (0, 5))
POINTS = ((1, 1), (9, 8), (16, 8), (9, 8))  # signalled: BT.2020, PQ
SIZE = ((5, 4), (5, 4), (63, 6), (63, 6))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        # profile 0, still, reduced; level; size; 3 tools; 3 filters; 10 bits; colours; full range
        ([(0, 3), *STILL, *SIZE, (0, 3), (0, 3), (1, 1), (0, 1), *POINTS, (1, 1)], Colours(9, 16, True)),
        ([(0, 3), *STILL, *SIZE, (0, 3), (0, 3), (1, 1), (0, 1), *POINTS, (0, 1)], Colours(9, 16, False)),
        # profile 1 has no bit for grey, profile 2 has one for 12 bits; no colours signalled
        ([(1, 3), *STILL, *SIZE, (0, 3), (0, 3), (0, 1), (0, 1), (1, 1)], Colours(2, 2, True)),
        ([(2, 3), *STILL, *SIZE, (0, 3), (0, 3), (1, 1), (1, 1), (0, 1), (0, 1), (0, 1)], Colours(2, 2, False)),
        # sRGB with identity matrix always has full range
        ([(1, 3), *STILL, *SIZE, (0, 3), (0, 3), (0, 1), (1, 1), (1, 8), (13, 8), (0, 8)], Colours(1, 13, True)),
        # a video: timing with equal intervals, decoder model, display delay, tier, frame numbers, all tools
        (
            [(0, 3), (0, 1), (0, 1), (1, 1), (1, 32), (1, 32), (1, 1), (1, 3), (1, 2), (1, 1), (4, 5), (1, 32), (4, 10),
             (1, 1), (0, 5), (0, 12), (9, 5), (0, 1), (1, 1), (0, 11), (1, 1), (3, 4), *SIZE, (1, 1), (0, 7), (0, 3),
             (0, 4), (1, 1), (0, 2), (0, 1), (1, 1), (0, 1), (0, 1), (5, 3), (0, 3), (0, 1), (1, 1), *POINTS, (0, 1)],
            Colours(9, 16, False),
        ),
        # a video with timing only: no equal intervals, no decoder model
        (
            [(0, 3), (0, 1), (0, 1), (1, 1), (1, 32), (1, 32), (0, 1), (0, 1), (0, 1), (0, 5), (0, 12), (0, 5), *SIZE,
             (0, 1), (0, 3), (0, 4), (0, 1), (0, 1), (0, 1), (0, 3), (0, 1), (0, 1), *POINTS, (1, 1)],
            Colours(9, 16, True),
        ),
        # a decoder model that no operating point uses, and screen content with integer motion vectors
        (
            [(0, 3), (0, 1), (0, 1), (1, 1), (1, 32), (1, 32), (0, 1), (1, 1), (4, 5), (1, 32), (4, 10),
             (1, 1), (0, 5), (0, 12), (0, 5), (0, 1), (0, 1), *SIZE, (0, 1), (0, 3),
             (0, 4), (0, 1), (0, 1), (1, 1), (1, 1), (0, 3), (0, 1), (0, 1), *POINTS, (1, 1)],
            Colours(9, 16, True),
        ),
        # a video without any of these
        (
            [(0, 3), (0, 1), (0, 1), (0, 1), (0, 1), (0, 5), (0, 12), (0, 5), *SIZE, (0, 1), (0, 3),
             (0, 4), (0, 1), (1, 1), (1, 1), (0, 3), (0, 1), (0, 1), *POINTS, (1, 1)],
            Colours(9, 16, True),
        ),
    ],
)  # fmt: skip
def test_sequence_headers_are_read(fields: list[tuple[int, int]], expected: Colours) -> None:
    """Hand-written headers are read, following another unit."""
    delimiter = bytes((2 << 3 | 4, 0))  # with an extension and without a size, so that it would extend to the end
    assert expected == sequence_colours(bytes(4) + obu(*fields), b"")
    assert expected == sequence_colours(bytes(4), bytes((2 << 3 | 2, 0)) + obu(*fields))
    assert sequence_colours(bytes(4) + delimiter, b"") is None


@pytest.mark.parametrize("data", [b"", b"\x0a", b"\x0a\xff", b"\x0a\x02\0\0", b"\x0a\x80\x80"])
def test_truncated_sequence_headers_are_ignored(data: bytes) -> None:
    """Truncated headers are ignored."""
    assert sequence_colours(bytes(4), data) is None


def test_codes_without_an_end() -> None:
    """An endless run of zeros ends with the data."""
    data = obu((0, 5), (1, 1), (0, 64), (1, 1), (0, 400))
    assert sequence_colours(bytes(4) + data, b"") is None


def test_limits_apply_to_the_size_before_cropping() -> None:
    """The decoder decodes the whole image, so its size before cropping counts."""
    aperture = box(b"clap", struct.pack(">8I", 9, 1, 9, 1, 0, 1, 0, 1))
    (item,) = coded(Image.new("RGB", (64, 64)))
    item.properties = [item.properties[0], ispe(2**31 - 1, 64), aperture]
    with pytest.raises(ImageTooLargeError, match="max_side"):
        probe(built([item]))
