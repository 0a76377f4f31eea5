"""Images for the tests: real photographs, and realistic files of every format made from them.

Each file is made once per process from fixed data, with Pillow or by hand: never with libvips, so that it can be made
in a running event loop and is independent of the library under test.
"""

from __future__ import annotations

import io
import random
import struct
import zlib
from functools import cache
from pathlib import Path
from typing import Any

from PIL import Image, ImageChops, TiffImagePlugin

FOLDER = Path(__file__).with_name("photos")
NAMES = ("astronaut", "camera", "chelsea", "coffee", "hubble", "rocket")
GPS = (b"47 deg", (47.0, 33.0, 12.0), (10.0, 44.0, 58.0))
"""The location in :func:`exif`; no stripped file may contain the first text."""

_PHOTOS = {name: (FOLDER / f"{name}.jpg").read_bytes() for name in NAMES}
DISPLAY_P3 = (FOLDER / "display-p3.icc").read_bytes()
Image.init()  # import the plugins now rather than in an event loop


def photo(name: str) -> bytes:
    """Return a real photograph as a JPEG, 451 to 1,000 pixels wide, without metadata; one of :data:`NAMES`."""
    return _PHOTOS[name]


def opened(name: str, size: tuple[int, int] | None = None) -> Image.Image:
    """Return the photograph as a Pillow image, resized if a size is given."""
    picture = Image.open(io.BytesIO(photo(name)))
    picture.load()
    return picture if size is None else picture.resize(size, Image.Resampling.BICUBIC)


def saved(picture: Image.Image, file_format: str, **options: Any) -> bytes:
    """Return the bytes of an image in a format of Pillow, such as ``"PNG"``."""
    file = io.BytesIO()
    picture.save(file, file_format, **options)
    return file.getvalue()


def exif(orientation: int = 1) -> bytes:
    """Return EXIF as a phone writes it: make, model, orientation, time and location."""
    tags = Image.Exif()
    tags[0x010F] = "Example Phones"
    tags[0x0110] = "Model 12"
    tags[0x0112] = orientation
    tags[0x0132] = "2026:05:17 11:22:33"
    place = tags.get_ifd(0x8825)
    rational = TiffImagePlugin.IFDRational
    place.update(
        {
            1: "N",
            2: tuple(rational(part) for part in GPS[1]),
            3: "E",
            4: tuple(rational(part) for part in GPS[2]),
            28: GPS[0],
        }
    )
    return tags.tobytes()


@cache
def grained(name: str = "coffee", size: tuple[int, int] = (4000, 3000)) -> Image.Image:
    """Return the photograph enlarged, with sensor noise, so that its file is as large as a camera's."""
    picture = opened(name, size).convert("RGB")
    source = random.Random(12)
    tile = Image.frombytes("L", (509, 499), bytes(source.choices(range(256), k=509 * 499)))
    grain = Image.new("L", size)
    for left in range(0, size[0], tile.width):
        for top in range(0, size[1], tile.height):
            grain.paste(tile, (left, top))
    softened = Image.merge("RGB", [grain] * 3).point(lambda value: 128 + (value - 128) // 10)
    return ImageChops.add(picture, softened, scale=1, offset=-128)


@cache
def large(orientation: int = 1) -> bytes:
    """Return a 12-megapixel JPEG of about 4 MB, stored as 4000 x 3000, with EXIF, a location and Display P3.

    With orientations 5 to 8 it is displayed as 3000 x 4000.
    """
    return saved(grained(), "JPEG", quality=90, exif=exif(orientation), icc_profile=DISPLAY_P3)


@cache
def oriented(orientation: int, file_format: str = "JPEG") -> bytes:
    """Return the photograph chelsea, which is upright, 451 x 300, after the orientation is applied."""
    back = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    picture = opened("chelsea")
    if orientation in back:
        picture = picture.transpose(back[orientation])
    return saved(picture, file_format, exif=exif(orientation))


@cache
def progressive() -> bytes:
    """Return a progressive JPEG, 600 x 400."""
    return saved(opened("coffee"), "JPEG", quality=85, progressive=True)


@cache
def cmyk() -> bytes:
    """Return a CMYK JPEG without a profile and with inverted inks, as Adobe's programs write it, 600 x 400."""
    return saved(opened("coffee").convert("CMYK"), "JPEG", quality=90)


@cache
def grey() -> bytes:
    """Return a grey JPEG, 512 x 512."""
    return photo("camera")


@cache
def png() -> bytes:
    """Return an 8-bit RGB PNG with a location in its EXIF and text chunks, 451 x 300."""
    from PIL.PngImagePlugin import PngInfo

    texts = PngInfo()
    texts.add_text("Author", "somebody private")
    texts.add_itxt("XML:com.adobe.xmp", "<x:xmpmeta>private</x:xmpmeta>", zip=True)
    return saved(opened("chelsea"), "PNG", exif=exif(1), pnginfo=texts, icc_profile=DISPLAY_P3)


@cache
def transparent_png() -> bytes:
    """Return an 8-bit RGBA PNG, 451 x 300, opaque on the left and transparent on the right."""
    picture = opened("chelsea").convert("RGBA")
    picture.putalpha(Image.linear_gradient("L").rotate(90).resize(picture.size))
    return saved(picture, "PNG")


@cache
def deep_png() -> bytes:
    """Return a hand-written 16-bit PNG with alpha, 160 x 120: red increases to the right, the lower half is clear."""
    width, height = 160, 120
    rows = bytearray()
    for y in range(height):
        rows.append(0)
        for x in range(width):
            rows += struct.pack(">4H", x * 65535 // (width - 1), 20000, 40000, 65535 if y < height // 2 else 32768)
    return png_file(struct.pack(">IIBBBBB", width, height, 16, 6, 0, 0, 0), zlib.compress(bytes(rows)))


def png_chunk(kind: bytes, body: bytes) -> bytes:
    """Return a PNG chunk with its length and checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_file(header: bytes, data: bytes, *between: bytes) -> bytes:
    """Return a PNG with the given header, chunks and compressed data."""
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + b"".join(between)
        + png_chunk(b"IDAT", data)
        + png_chunk(b"IEND", b"")
    )


@cache
def palette_png() -> bytes:
    """Return a PNG with a palette of 64 colours, one of them transparent, 451 x 300."""
    return saved(opened("chelsea").quantize(64), "PNG", transparency=3)


def _frames(count: int) -> list[Image.Image]:
    picture = opened("rocket", (320, 214))
    return [ImageChops.offset(picture, 0, -20 * number) for number in range(count)]


@cache
def animated_gif(frames: int = 5) -> bytes:
    """Return an animated GIF, 320 x 214, 80 ms per frame, in an infinite loop, with a comment."""
    first, *rest = (frame.quantize(128) for frame in _frames(frames))
    return saved(first, "GIF", save_all=True, append_images=rest, duration=80, loop=0, comment=b"somebody private")


@cache
def animated_webp(frames: int = 5) -> bytes:
    """Return an animated WebP with alpha, 320 x 214, 80 ms per frame, in an infinite loop."""
    first, *rest = (frame.convert("RGBA") for frame in _frames(frames))
    return saved(first, "WEBP", save_all=True, append_images=rest, duration=80, loop=0, quality=75, exif=exif(1))


@cache
def webp(*, lossless: bool = False) -> bytes:
    """Return a WebP with alpha and a location, 451 x 300."""
    picture = Image.open(io.BytesIO(transparent_png()))
    return saved(picture, "WEBP", lossless=lossless, exif=exif(1), icc_profile=DISPLAY_P3)


@cache
def avif() -> bytes:
    """Return an AVIF with a location, 451 x 300."""
    return saved(opened("chelsea"), "AVIF", quality=60, speed=10, exif=exif(1))


@cache
def tiff() -> bytes:
    """Return a TIFF compressed with LZW, 451 x 300."""
    return saved(opened("chelsea"), "TIFF", compression="tiff_lzw")


SVG = (
    b'<?xml version="1.0" encoding="UTF-8"?>\n'
    b'<svg xmlns="http://www.w3.org/2000/svg" width="240" height="120" viewBox="0 0 240 120">'
    b'<rect width="240" height="120" fill="#0a64c8"/><circle cx="60" cy="60" r="50" fill="#ffd700"/></svg>\n'
)
"""A drawing of 240 x 120: a golden disc on blue."""


@cache
def pdf(pages: int = 1, width: float = 300, height: float = 200, entries: str = "") -> bytes:
    """Return a hand-written PDF: each page has a red rectangle in the lower left quarter of white paper.

    Sizes are in points. The dictionary of each page has the given further entries.
    """
    paint = f"1 0 0 rg 0 0 {width / 2:g} {height / 2:g} re f".encode()
    first = 4
    kids = " ".join(f"{first + number} 0 R" for number in range(pages))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {pages} >>".encode(),
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(paint), paint),
    ]
    page = f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 {width:g} {height:g}] /Contents 3 0 R {entries} >>".encode()
    objects += [page] * pages
    file = bytearray(b"%PDF-1.7\n")
    offsets = []
    for number, body in enumerate(objects, 1):
        offsets.append(len(file))
        file += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    start = len(file)
    file += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    for offset in offsets:
        file += b"%010d 00000 n \n" % offset
    file += b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, start)
    return bytes(file)
