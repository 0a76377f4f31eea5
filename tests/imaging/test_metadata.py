"""Originals without metadata: the same pixels, and no private data."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import pytest
import pyvips
from PIL import Image, ImageChops

from aioimageattach.exc import ImageTooLargeError, UnreadableImageError, UnsupportedImageError
from aioimageattach.imaging import Probe, Recipe, probe, render, strip_metadata
from aioimageattach.imaging._metadata import STRIPPED_TYPES, strip_probed
from tests import photos

PRIVATE = (photos.GPS[0], b"Example Phones", b"somebody private", b"xmpmeta", b"2026:05:17")


def test_the_orientation_of_a_webp_must_be_announced() -> None:
    """Browsers and libvips ignore an EXIF chunk that VP8X does not announce; so do thumbnails and stripped files."""
    data = bytearray(photos.saved(photos.opened("chelsea", (48, 32)), "WEBP", exif=photos.exif(8)))
    assert probe(bytes(data)).width == 32
    assert data[12:16] == b"VP8X"
    data[20] &= ~0x08
    found = probe(bytes(data))
    assert (found.width, found.height, found.orientation) == (48, 32, 1)
    assert "orientation" not in pyvips.Image.new_from_buffer(bytes(data), "").get_fields()
    for blob in (bytes(data), strip_metadata(bytes(data), "image/webp")):
        [made] = render(blob, [Recipe(ratio=1, format="png")])
        assert (made.width, made.height) == (48, 32)


def pixels(data: bytes) -> bytes:
    """Return the displayed pixels, decoded by the library itself."""
    return render(data, [Recipe(ratio=1, format="png")])[0].blob


def jpeg_with_everything() -> bytes:
    """Return a JPEG with a JFIF preview, XMP, IPTC, a comment, trailing data, and EXIF with a location."""
    data = photos.saved(
        photos.opened("chelsea"),
        "JPEG",
        exif=photos.exif(6),
        icc_profile=photos.DISPLAY_P3,
        comment=b"somebody private",
        xmp=b"<x:xmpmeta>somebody private</x:xmpmeta>",
    )
    jfif = b"\xff\xe0" + struct.pack(">H", 16 + 27) + b"JFIF\0\1\2\1\0\x48\0\x48\3\3" + bytes(27)
    jfxx = b"\xff\xe0" + struct.pack(">H", 24) + b"JFXX\0\x10somebody private"
    iptc = b"\xff\xed" + struct.pack(">H", 2 + 14 + 16) + b"Photoshop 3.0\0somebody private"
    assert data[2:4] == b"\xff\xe0"
    rest = data[4 + int.from_bytes(data[4:6], "big") :]
    return data[:2] + jfif + jfxx + iptc + rest + b"somebody private" + photos.exif(1)


@pytest.mark.parametrize(
    "make",
    [
        jpeg_with_everything,
        photos.large,
        lambda: photos.large(3),
        photos.progressive,
        photos.cmyk,
        photos.grey,
        lambda: photos.oriented(5),
        photos.png,
        lambda: photos.oriented(7, "PNG"),
        photos.deep_png,
        photos.palette_png,
        photos.webp,
        lambda: photos.oriented(8, "WEBP"),
        lambda: photos.saved(photos.opened("chelsea"), "WEBP"),
        photos.animated_webp,
        photos.animated_gif,
        photos.avif,
    ],
)
def test_stripping_keeps_the_pixels(make: Callable[[], bytes]) -> None:
    """Type, size, orientation and pixels stay the same, private data is removed, and stripping is idempotent."""
    data = make()
    found = probe(data)
    stripped = strip_metadata(data, found.mimetype)
    assert probe(stripped) == found
    assert len(stripped) <= len(data)
    assert not [text for text in PRIVATE if text in stripped]
    if found.mimetype != "image/jpeg" or found.width < 4000:
        assert pixels(stripped) == pixels(data)
    with Image.open(io.BytesIO(data)) as before, Image.open(io.BytesIO(stripped)) as after:
        assert before.info.get("icc_profile") == after.info.get("icc_profile")
        assert after.getexif().get(0x0112, 1) == (found.orientation if found.mimetype != "image/avif" else 1)
        assert not after.getexif().get_ifd(0x8825)
        after.load()
    assert strip_metadata(stripped, found.mimetype) == stripped


@pytest.mark.parametrize("make", [photos.animated_gif, photos.animated_webp])
def test_animations_keep_frames_and_durations(make: Callable[[], bytes]) -> None:
    """All frames, durations and the loop count are kept."""
    data = make()
    with (
        Image.open(io.BytesIO(data)) as before,
        Image.open(io.BytesIO(strip_metadata(data, probe(data).mimetype))) as after,
    ):
        assert before.n_frames == after.n_frames == 5
        for frame in range(5):
            before.seek(frame)
            after.seek(frame)
            assert ImageChops.difference(before.convert("RGB"), after.convert("RGB")).getbbox() is None
            assert before.info["duration"] == after.info["duration"]
            assert before.info["loop"] == after.info["loop"]


def test_the_resolution_of_jfif_stays_without_its_preview() -> None:
    """The JFIF segment keeps only its version and density."""
    stripped = strip_metadata(jpeg_with_everything(), "image/jpeg")
    start = stripped.index(b"JFIF\0")
    assert stripped[start - 2 : start + 14] == b"\0\x10JFIF\0\1\2\1\0\x48\0\x48\0\0"


def test_avif_is_overwritten_in_place() -> None:
    """The metadata is overwritten, and all other bytes stay at their positions."""
    plain = photos.avif()
    texts = photos.saved(
        photos.opened("chelsea"), "AVIF", exif=photos.exif(1), xmp=b"<x:xmpmeta>somebody private</x:xmpmeta>"
    )
    for data in (plain, texts + b"\0\0\0\x18freesomebody private"):
        stripped = strip_metadata(data, "image/avif")
        assert len(stripped) == len(data)
        assert not [text for text in PRIVATE if text in stripped]
        assert pixels(stripped) == pixels(data)


def box(name: bytes, body: bytes) -> bytes:
    return (len(body) + 8).to_bytes(4, "big") + name + body


def test_unsupported_avif_is_rejected() -> None:
    """Image sequences, and items that overlap the image, are rejected."""
    data = photos.avif()
    with pytest.raises(UnsupportedImageError, match="image sequence"):
        strip_metadata(data + box(b"moov", b""), "image/avif")
    with pytest.raises(UnreadableImageError, match="damaged structure"):
        strip_metadata(data + b"\0\0", "image/avif")
    shared = data.replace(b"Exif\0", b"uri \0", 1)
    assert b"uri " in strip_metadata(shared, "image/avif")


def test_avif_whose_metadata_overlaps_the_picture_is_rejected() -> None:
    """Bytes that belong to the image as well are never overwritten."""
    data = bytearray(photos.avif())
    at = data.index(b"iloc")
    version, sizes, count = data[at + 4], data[at + 8], int.from_bytes(data[at + 10 : at + 12], "big")
    assert (version, sizes, count) == (0, 0x44, 2)
    first, second = at + 12, at + 12 + 14
    data[second + 6 : second + 10] = data[first + 6 : first + 10]
    with pytest.raises(UnreadableImageError, match="damaged structure"):
        strip_metadata(bytes(data), "image/avif")


@pytest.mark.parametrize("mimetype", ["image/tiff", "image/svg+xml", "application/pdf", "image/heic", "image/bmp"])
def test_other_types_are_refused(mimetype: str) -> None:
    """Types from which metadata cannot be removed reliably are rejected."""
    with pytest.raises(UnsupportedImageError, match="metadata can be removed from") as caught:
        strip_metadata(b"", mimetype)
    assert caught.value.allowed == STRIPPED_TYPES
    assert caught.value.mimetype == mimetype


@pytest.mark.parametrize(
    ("data", "mimetype"),
    [
        (photos.png(), "image/jpeg"),
        (photos.photo("chelsea"), "image/png"),
        (photos.photo("chelsea")[:-2000], "image/jpeg"),
        (photos.png()[:-20], "image/png"),
        (photos.webp()[:200], "image/webp"),
        (photos.animated_gif()[:-1], "image/gif"),
        (b"", "image/gif"),
    ],
)
def test_broken_files_are_refused(data: bytes, mimetype: str) -> None:
    """A file of another type, or a truncated one, is unreadable: nothing is guessed."""
    with pytest.raises(UnreadableImageError):
        strip_metadata(data, mimetype)


def test_bombs_are_rejected_without_a_decoder() -> None:
    """Compressed texts that would fill the memory are detected without a decoder."""
    bomb = photos.png_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(30_000_000), 9)) * 8
    data = photos.png()
    with pytest.raises(ImageTooLargeError, match="max_metadata"):
        strip_metadata(data[:33] + bomb + data[33:], "image/png")


def test_pictures_beyond_the_default_limits_are_stripped() -> None:
    """An image that was accepted with higher limits can be stripped."""
    data = photos.saved(Image.new("1", (18_000, 15_000)), "PNG", exif=photos.exif(1))
    with pytest.raises(ImageTooLargeError):
        probe(data)
    stripped = strip_metadata(data, "image/png")
    assert stripped[16:24] == data[16:24]
    assert photos.GPS[0] not in stripped


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_probed_file_is_stripped_without_a_decoder(orientation: int) -> None:
    """With a known header, the result equals that of reading the header again."""
    data = photos.oriented(orientation)
    assert strip_probed(data, probe(data)) == strip_metadata(data, "image/jpeg")
    with pytest.raises(UnsupportedImageError, match="got image/tiff"):
        strip_probed(photos.tiff(), Probe(451, 300, "image/tiff"))
