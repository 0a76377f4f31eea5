"""Structures that would take too much memory or time are rejected immediately."""

from __future__ import annotations

import io
import json
import re
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image, ImageChops, ImageStat

from aioimageattach.exc import ImageTooLargeError, UnreadableImageError
from aioimageattach.imaging import ImageLimits, Recipe, probe, render
from aioimageattach.imaging._guard import examine
from aioimageattach.imaging._limits import DEFAULT_LIMITS
from aioimageattach.imaging._structure import Clock, Structure, assemble
from tests import photos
from tests.fuzz import structured


def packed(size: int) -> bytes:
    """Return compressed zeros, at a ratio of a thousand to one."""
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(bytes(min(1 << 20, size - at))) for at in range(0, size, 1 << 20)) + packer.flush()


def png_header(width: int, height: int, *, depth: int = 8, colour: int = 2, interlaced: int = 0) -> bytes:
    return width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes((depth, colour, 0, 0, interlaced))


def tiny_png(*chunks: bytes) -> bytes:
    return photos.png_file(png_header(8, 8), zlib.compress(bytes(8 * 25)), *chunks)


def jpeg(frame: int, width: int, height: int, *scans: int) -> bytes:
    """Return a minimal JPEG of three bands: a frame, and scans with the given numbers of bands."""
    sof = b"\x08" + height.to_bytes(2, "big") + width.to_bytes(2, "big") + b"\3\1\x11\0\2\x11\1\3\x11\1"
    data = b"\xff\xd8\xff" + bytes([frame]) + (len(sof) + 2).to_bytes(2, "big") + sof
    for bands in scans:
        data += b"\xff\xda" + (6 + 2 * bands).to_bytes(2, "big") + bytes([bands]) + bytes(2 * bands + 3) + b"data"
    return data + b"\xff\xd9"


def riff(body: bytes) -> bytes:
    return b"RIFF" + (len(body) + 4).to_bytes(4, "little") + b"WEBP" + body


GIF = b"GIF89a\1\0\1\0\x80\0\0\0\0\0\xff\xff\xff"
FRAME = b",\0\0\0\0\1\0\1\0\0\2\2D\1\0"

BOMBS: dict[str, tuple[Callable[[], bytes], str]] = {
    "PNG of 65,536 a side": (lambda: photos.png_file(png_header(65_536, 65_536, depth=1, colour=0), b""), "max_side"),
    "PNG of 900 megapixels": (
        lambda: photos.png_file(png_header(29_999, 29_999, depth=1, colour=0), b""),
        "max_pixels",
    ),
    "interlaced PNG": (lambda: photos.png_file(png_header(15_000, 15_000, depth=16, interlaced=1), b""), "max_memory"),
    "PNG text": (lambda: tiny_png(photos.png_chunk(b"zTXt", b"a\0\0" + packed(12_000_000))), "max_metadata"),
    "PNG texts": (lambda: tiny_png(photos.png_chunk(b"zTXt", b"a\0\0" + packed(900_000)) * 20), "max_metadata"),
    "PNG international text": (
        lambda: tiny_png(photos.png_chunk(b"iTXt", b"a\0\1\0en\0word\0" + packed(12_000_000))),
        "max_metadata",
    ),
    "PNG profile": (lambda: tiny_png(photos.png_chunk(b"iCCP", b"a\0\0" + packed(12_000_000))), "max_metadata"),
    "PNG of crumbs": (lambda: tiny_png(photos.png_chunk(b"tEXt", b"a\0b") * 900_000), "max_metadata"),
    "PNG of empty data": (lambda: tiny_png(photos.png_chunk(b"IDAT", b"") * 900_000), "30,000 parts"),
    "progressive JPEG": (lambda: jpeg(0xC2, 30_000, 8_000, 3), "max_memory"),
    "JPEG of bands apart": (lambda: jpeg(0xC0, 30_000, 8_000, 1, 1, 1), "max_memory"),
    "JPEG of many scans": (lambda: jpeg(0xC2, 5_000, 5_000, *[3] * 41), "40 scans"),
    "tiny JPEG of many scans": (lambda: jpeg(0xC2, 8, 8, *[1] * 10_001), "at most 1,000 scans"),
    "JPEG of comments": (lambda: b"\xff\xd8" + b"\xff\xfe\0\2" * 5_000_000, "max_metadata"),
    "JPEG of much EXIF": (lambda: b"\xff\xd8" + (b"\xff\xe1\xff\xff" + bytes(65_533)) * 200, "max_metadata"),
    "GIF of 300,000 frames": (lambda: GIF + FRAME * 300_000 + b";", "max_frames"),
    "GIF of 65,535 a side": (lambda: b"GIF89a\xff\xff\xff\xff\0\0\0" + FRAME + b";", "max_side"),
    "GIF of comments": (lambda: GIF + b"!\xfe\0" * 5_000_000, "max_metadata"),
    "GIF of crumbs": (lambda: GIF + b",\0\0\0\0\1\0\1\0\0\2" + b"\1D" * 20_000_000, "30,000 parts"),
    "WebP of frames": (lambda: riff(b"ANMF\0\0\0\0" * 4_000_000), "max_frames"),
    "WebP of crumbs": (lambda: riff(b"ABCD\0\0\0\0" * 4_000_000), "max_metadata"),
    "WebP of 16 million a side": (lambda: riff(b"VP8X\x0a\0\0\0" + b"\0\0\0\0" + b"\xff" * 6), "max_side"),
    "WebP of 268 megapixels": (
        lambda: riff(b"VP8L\x70\0\0\0\x2f" + (16_382 | 16_382 << 14).to_bytes(4, "little") + bytes(0x6B)),
        "max_pixels",
    ),
    "AVIF of crumbs": (lambda: b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf" + b"\0\0\0\x08free" * 5_000_000, "30,000"),
    "100 megabytes": (lambda: b"\xff\xd8\xff" + bytes(100_000_000), "max_bytes"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_rejected(name: str) -> None:
    """Files that would take gigabytes or minutes are rejected with the name of a limit."""
    make, word = BOMBS[name]
    with pytest.raises(ImageTooLargeError, match=word):
        probe(make())


MEASURE = """
import json
from aioimageattach.imaging import probe
from tests import photos
from tests.fuzz import structured
from tests.imaging.test_guard import BOMBS

def memory(name):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(name))

def grown(make):
    data = make()
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    before = memory("VmRSS")
    try:
        probe(data)
    except ValueError:
        return (memory("VmHWM") - before) / 1024

for name in photos.NAMES:
    probe(photos.photo(name))
print(json.dumps({name: grown(make) for name, (make, _) in BOMBS.items()}))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process's memory can be reset on Linux only")
def test_rejecting_takes_little_memory() -> None:
    """Rejecting any of these files takes less than 50 MiB of memory, besides the file itself."""
    done = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True)
    grown = json.loads(done.stdout)
    assert set(grown) == set(BOMBS)
    assert {name: mebibytes for name, mebibytes in grown.items() if mebibytes > 50} == {}


@pytest.mark.parametrize(("side", "most"), [(8, 1_000), (2_000, 250), (5_000, 40)])
def test_scans_are_limited_by_their_cost(side: int, most: int) -> None:
    """The scans may cover four times the maximum of pixels in total; tiny images may have a thousand."""
    assert structure(jpeg(0xC2, side, side, *[1] * most), "image/jpeg").bytes_per_pixel > 1
    with pytest.raises(ImageTooLargeError, match=f"at most {most:,} scans"):
        structure(jpeg(0xC2, side, side, *[1] * (most + 1)), "image/jpeg")


def structure(data: bytes, mimetype: str, limits: ImageLimits = DEFAULT_LIMITS) -> Structure:
    return examine(memoryview(data), mimetype, limits, Clock(limits.header_timeout))


@pytest.mark.parametrize(
    ("data", "mimetype", "is_whole", "frames"),
    [
        (photos.photo("coffee"), "image/jpeg", False, 1),
        (photos.progressive(), "image/jpeg", True, 1),
        (jpeg(0xC0, 100, 100, 1, 1, 1), "image/jpeg", True, 1),
        (photos.png(), "image/png", False, 1),
        (photos.png_file(png_header(9, 9, interlaced=1), b""), "image/png", True, 1),
        (photos.animated_gif(), "image/gif", True, 5),
        (photos.animated_webp(), "image/webp", True, 5),
        (photos.avif(), "image/avif", True, 1),
    ],
)
def test_structures_determine_how_a_picture_is_decoded(data: bytes, mimetype: str, is_whole: bool, frames: int) -> None:
    """An image that is decoded as a whole takes memory for each pixel; frames are counted."""
    found = structure(data, mimetype)
    assert (is_whole, frames) == (found.bytes_per_pixel >= 1, found.frames)


@pytest.mark.parametrize(
    "data",
    [
        jpeg(0xC0, 100, 100),
        b"\xff\xd8\xff\xc0\0\3\x08\xff\xd9",
        b"\xff\xd8\xff\xda\0\2",
        b"\xff\xd8" + jpeg(0xC0, 8, 8)[2:-2] + b"\xff\xda\0\2",
    ],
    ids=["no scan", "short frame", "no frame", "empty scan"],
)
def test_jpegs_without_a_frame_or_scan_are_unreadable(data: bytes) -> None:
    """A JPEG needs at least a frame header and a scan."""
    with pytest.raises(UnreadableImageError, match="damaged structure"):
        structure(data, "image/jpeg")


def test_frames_of_animated_png_are_limited() -> None:
    """Hidden frames count as well."""
    frames = [Image.new("RGB", (8, 8), (shade, 0, 0)) for shade in range(0, 250, 50)]
    data = photos.saved(frames[0], "PNG", save_all=True, append_images=frames[1:])
    assert structure(data, "image/png").frames == 1
    with pytest.raises(ImageTooLargeError, match="max_frames"):
        structure(data, "image/png", ImageLimits(max_frames=4))


def test_invalid_compressed_texts() -> None:
    """Text that cannot be decompressed takes no memory."""
    data = tiny_png(photos.png_chunk(b"zTXt", b"a\0\0" + b"no stream"), photos.png_chunk(b"iCCP", b"no zero"))
    assert structure(data, "image/png", ImageLimits(max_metadata=4_000)).profile is None


def test_usual_metadata_is_accepted() -> None:
    """A megabyte of text, as editors write it, is accepted; it counts after decompression."""
    text = photos.png_chunk(b"zTXt", b"a\0\0" + packed(1_000_000))
    assert probe(tiny_png(text)).width == 8
    with pytest.raises(ImageTooLargeError, match="max_metadata"):
        probe(tiny_png(text), ImageLimits(max_metadata=999_999))


def cubic(count: int) -> bytes:
    """Return EXIF with three directories whose entries point to the next one: libvips' parser reads it n³ times."""

    def entry(tag: int, kind: int, place: int) -> bytes:
        return struct.pack(">HHII", tag, kind, 1, place)

    first = 8 + 6 + 12 * count
    second = first + 6 + 12 * count
    parts = [
        struct.pack(">H", count) + entry(*one) * count + struct.pack(">I", 0)
        for one in ((0x8769, 4, first), (0xA005, 4, second), (0, 3, 0))
    ]
    return b"MM\0*" + struct.pack(">I", 8) + b"".join(parts)


def with_exif(block: bytes, file_format: str) -> bytes:
    """Return an image with that block, which no encoder would write."""
    picture = photos.opened("chelsea", (40, 40))
    data = photos.saved(picture, file_format)
    match file_format:
        case "JPEG":
            body = b"Exif\0\0" + block
            return data[:2] + b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body + data[2:]
        case "PNG":
            return data[:33] + photos.png_chunk(b"eXIf", block) + data[33:]
        case _:
            head = b"VP8X\x0a\0\0\0\x08\0\0\0" + (39).to_bytes(3, "little") * 2
            return riff(head + data[12:] + b"EXIF" + len(block).to_bytes(4, "little") + block + bytes(len(block) % 2))


@pytest.mark.parametrize(
    ("file_format", "count"), [("JPEG", 500), ("JPEG", 1_700), ("PNG", 1_000), ("PNG", 3_000), ("WEBP", 1_000)]
)
def test_exif_that_points_to_itself(file_format: str, count: int) -> None:
    """The decoder does not receive such EXIF, which took seconds per few kilobytes."""
    data = with_exif(cubic(count), file_format)
    start = time.thread_time()
    assert probe(data).width == 40
    (made,) = render(data, [Recipe(width=20)])
    assert time.thread_time() - start < 1
    assert made.width == 20


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
def test_decoders_get_no_metadata(file_format: str) -> None:
    """A decoder receives no EXIF, XMP or texts, and decodes the same pixels."""
    picture = photos.opened("chelsea", (40, 40))
    options = {"exif": photos.exif(6), "icc_profile": photos.DISPLAY_P3}
    if file_format != "PNG":
        options["xmp"] = b"<x/>private"
    data = photos.saved(picture, file_format, **options)
    found = structure(data, f"image/{file_format.lower()}")
    clean = assemble(memoryview(data), found)
    for word in (photos.GPS[0], b"Example Phones", b"private", b"ICC"):
        assert word not in bytes(clean)
    assert found.orientation == 6
    assert found.profile == photos.DISPLAY_P3
    assert Image.open(io.BytesIO(clean)).tobytes() == Image.open(io.BytesIO(data)).tobytes()


def test_pictures_without_metadata_are_not_copied() -> None:
    """The decoder reads the file itself, up to the last relevant byte."""
    data = photos.photo("coffee")
    view = memoryview(data)
    clean = assemble(view, structure(data, "image/jpeg"))
    assert isinstance(clean, memoryview)
    assert clean.obj is data


def test_headers_have_a_time_limit() -> None:
    """A file whose header takes longer is rejected."""
    limits = ImageLimits(header_timeout=1e-9)
    for make in (photos.progressive, photos.png, photos.animated_gif, lambda: photos.SVG):
        with pytest.raises(ImageTooLargeError, match="header_timeout") as caught:
            probe(make(), limits.allow("image/svg+xml"))
        assert caught.value.limit == 1e-9
    clock = Clock(60)
    clock.check()


def test_profiles_of_several_segments_are_joined_in_order() -> None:
    """Segments are ordered by number (ICC.1, annex B.4); one without a number comes first."""
    parts = [
        b"\xff\xe2" + (2 + 12 + len(body)).to_bytes(2, "big") + b"ICC_PROFILE\0" + body
        for body in (b"\2\2world", b"\1\2hello ", b"\2\2again", b"x")
    ]
    data = jpeg(0xC0, 100, 100, 3)
    assert structure(data[:2] + b"".join(parts) + data[2:], "image/jpeg").profile == b"hello world"


def test_frames_of_a_gif_that_cover_it_stay_opaque() -> None:
    """Only pixels that no frame covers are transparent, as in Pillow."""
    whole = photos.saved(Image.new("P", (50, 50), 0), "GIF")
    assert not probe(whole).has_alpha
    grown = whole[:6] + struct.pack("<HH", 100, 80) + whole[10:]
    assert probe(grown).has_alpha
    (made,) = render(grown, [Recipe(width=100, format="png")])
    found = Image.open(io.BytesIO(made.blob)).convert("RGBA")
    assert [found.getpixel(at) for at in ((49, 49), (50, 20), (20, 50), (99, 79))] == [
        (0, 0, 0, 255), (0, 0, 0, 0), (0, 0, 0, 0), (0, 0, 0, 0)
    ]  # fmt: skip


def test_animations_with_transparent_parts_keep_their_frames() -> None:
    """The frame that marks transparency for the decoder is not part of the animation."""
    frames = [Image.new("P", (50, 50), shade) for shade in (0, 1, 2)]
    data = photos.saved(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=100)
    grown = data[:6] + struct.pack("<HH", 100, 80) + data[10:]
    assert probe(grown).frames == probe(data).frames
    (made,) = render(grown, [Recipe(width=50, animated=True)])
    with Image.open(io.BytesIO(made.blob)) as found:
        assert getattr(found, "n_frames") == probe(data).frames  # noqa: B009
        assert found.convert("RGBA").getchannel("A").getpixel((45, 35)) == 0


def cut(data: bytes, share: float) -> bytes:
    return data[: int(len(data) * share)]


DAMAGED = {
    "JPEG without its last bytes": lambda: photos.photo("coffee")[:-2],
    "half a JPEG": lambda: cut(photos.photo("coffee"), 0.5),
    "half a progressive JPEG": lambda: cut(photos.progressive(), 0.5),
    "a JPEG with a hole": lambda: cut(photos.photo("coffee"), 0.5) + bytes(9_000) + photos.photo("coffee")[-9_000:],
    "a PNG without its last chunk": lambda: photos.transparent_png()[:-12],
    "half a PNG": lambda: cut(photos.transparent_png(), 0.5),
    "half a PNG of many chunks": lambda: cut(photos.saved(photos.grained(size=(800, 600)), "PNG"), 0.5),
    "half a GIF": lambda: cut(photos.saved(photos.opened("coffee"), "GIF", interlace=0), 0.5),
    "half an animated GIF": lambda: cut(photos.animated_gif(), 0.5),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_pictures_are_rendered_like_in_browsers(name: str) -> None:
    """The upper part equals Pillow's result: an accepted image has thumbnails."""
    data = DAMAGED[name]()
    found = probe(data)
    assert probe(data, ImageLimits(verify="pixels")) == found
    (made,) = render(data, [Recipe(width=60, format="png")])
    with Image.open(io.BytesIO(data)) as expected, pytest.MonkeyPatch.context() as patch:
        patch.setattr("PIL.ImageFile.LOAD_TRUNCATED_IMAGES", True)
        box = (0, 0, expected.width, expected.height // 4)
        upper = expected.convert("RGB").crop(box).resize((60, 10))
    shown = Image.open(io.BytesIO(made.blob)).convert("RGB")
    shown = shown.crop((0, 0, 60, shown.height // 4)).resize((60, 10))
    assert max(ImageStat.Stat(ImageChops.difference(upper, shown)).mean) < 12


@pytest.mark.parametrize("make", [photos.webp, photos.avif])
@pytest.mark.parametrize("share", [0.5, 0.95])
def test_truncated_formats_that_are_decoded_as_a_whole_are_rejected(make: Callable[[], bytes], share: float) -> None:
    """Their structure reveals that data is missing."""
    with pytest.raises(UnreadableImageError):
        probe(cut(make(), share))


def test_undecodable_pixels_are_rejected_on_request() -> None:
    """An AVIF with zeros as data has a valid header, and is rejected only if pixels are verified."""
    data = photos.avif()
    start = data.index(b"mdat") + 4
    data = data[:start] + bytes(len(data) - start)
    assert probe(data).width == 451
    with pytest.raises(UnreadableImageError):
        render(data, [Recipe(width=40)])
    with pytest.raises(UnreadableImageError):
        probe(data, ImageLimits(verify="pixels"))


def sized(width: int, height: int, **options: Any) -> bytes:
    """Return a JPEG whose header contains the given size."""
    data = bytearray(photos.saved(Image.new("RGB", (16, 16)), "JPEG", **options))
    frame = re.search(b"\xff[\xc0\xc2]\0\x11\x08", data)
    assert frame is not None
    struct.pack_into(">2H", data, frame.end(), height, width)
    return bytes(data)


PHONES = {
    "Samsung, 108 megapixels": lambda: sized(12_000, 9_000),
    "Samsung, 200 megapixels": lambda: sized(16_320, 12_240),
    "50 megapixels, progressive": lambda: sized(8_160, 6_120, progressive=True),
}


@pytest.mark.parametrize("name", PHONES)
def test_pictures_of_phones_are_accepted(name: str) -> None:
    """The default limits accept images from phones."""
    assert probe(PHONES[name]()).width > 8_000


def test_the_memory_of_a_progressive_jpeg_follows_from_its_sampling() -> None:
    """Coefficients take two bytes for each component (ITU T.81, A.1.1): 3 per pixel with 4:2:0, 6 with 4:4:4."""
    for subsampling, expected in ((0, 6), (1, 4), (2, 3)):
        data = photos.saved(photos.opened("coffee"), "JPEG", progressive=True, subsampling=subsampling)
        assert structure(data, "image/jpeg").bytes_per_pixel == pytest.approx(expected + 0.5)


@pytest.mark.parametrize("recipe", [Recipe(width=90), Recipe(ratio=1), Recipe(width=90, height=60, fit="inside")])
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
def test_thumbnails_of_the_same_size_are_not_the_upload(recipe: Recipe, file_format: str) -> None:
    """A thumbnail is always a separate file without metadata."""
    data = photos.saved(photos.opened("chelsea", (90, 60)), file_format, exif=photos.exif(1))
    (made,) = render(data, [recipe])
    assert (made.width, made.height) == (90, 60)
    assert made.blob != data
    assert photos.GPS[0] in data
    assert photos.GPS[0] not in made.blob
    assert not dict(Image.open(io.BytesIO(made.blob)).getexif())


@pytest.mark.parametrize("seed", [7, *(pytest.param(seed, marks=pytest.mark.thorough) for seed in range(8, 12))])
def test_structured_files_stay_within_the_budgets(seed: int) -> None:
    """A hundred generated hostile files stay within the limits; ``tests.fuzz.structured`` makes any number."""
    found, over = structured.run(100, seed, most_seconds=1)
    assert over == []
    for name in structured.KINDS:
        assert found[f"{name}: accepted"] + found[f"{name}: refused"] == 20
