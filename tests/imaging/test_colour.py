"""Colours compared with lcms, with standards and with printed paper."""

from __future__ import annotations

import io
import math
import struct

import pytest
from PIL import Image, ImageCms

from aioimageattach.imaging import ImageLimits, Recipe, render
from aioimageattach.imaging._colour import SRGB, Colours, gamma_profile, profile_of, span
from tests import photos
from tests.imaging.bmff import Entry, box, built, ispe, nclx, parsed

LIMITS = ImageLimits().allow("image/tiff", "image/heic")
RED = (200, 50, 50)


def pixel(data: bytes, **options: str) -> tuple[int, ...]:
    """Return the centre pixel of a thumbnail."""
    (made,) = render(data, [Recipe(width=32, format="png", **options)], LIMITS)  # type: ignore[arg-type]
    found = Image.open(io.BytesIO(made.blob)).convert("RGB").getpixel((16, 16))
    assert isinstance(found, tuple)
    return found


def near(expected: tuple[float, ...], tolerance: float = 2) -> object:
    return pytest.approx(expected, abs=tolerance)


def by_lcms(profile: bytes, colour: tuple[int, int, int]) -> tuple[int, ...]:
    """Return the sRGB value of a colour according to lcms."""
    made = ImageCms.profileToProfile(
        Image.new("RGB", (1, 1), colour), ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB"),
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
    )  # fmt: skip
    assert made is not None
    found = made.getpixel((0, 0))
    assert isinstance(found, tuple)
    return found


def coded(light: float) -> float:
    """Return the sRGB code for an amount of light, 0 to 255 (IEC 61966-2-1)."""
    return 255 * (12.92 * light if light <= 0.0031308 else 1.055 * light ** (1 / 2.4) - 0.055)


def avif(colour: tuple[int, int, int], primaries: int, transfer: int) -> bytes:
    """Return an AVIF of one colour with the given code points and without an ICC profile."""
    file = photos.saved(Image.new("RGB", (32, 32), colour), "AVIF", quality=100, subsampling="4:4:4")
    items: list[Entry] = parsed(file)
    items[0].properties += [ispe(32, 32), nclx(primaries, transfer, 6)]
    return built(items)


def png(colour: tuple[int, int, int], *chunks: bytes) -> bytes:
    """Return a PNG of one colour with the given chunks."""
    whole = photos.saved(Image.new("RGB", (32, 32), colour), "PNG")
    return whole[:33] + b"".join(chunks) + whole[33:]


def cicp(primaries: int, transfer: int) -> bytes:
    return photos.png_chunk(b"cICP", bytes((primaries, transfer, 0, 1)))


@pytest.mark.parametrize("colour", [RED, (10, 200, 120), (128, 128, 128), (255, 255, 255), (0, 0, 0)])
def test_display_p3_by_code_points(colour: tuple[int, int, int]) -> None:
    """Code points of Display P3 in AVIF ``nclx`` and PNG ``cICP`` have the same effect as its ICC profile."""
    expected = near(by_lcms(photos.DISPLAY_P3, colour))
    assert pixel(avif(colour, 12, 13)) == expected
    assert pixel(png(colour, cicp(12, 13))) == expected
    assert pixel(png(colour, cicp(12, 13)), filter="cubic") == expected


def test_code_points_come_before_a_profile() -> None:
    """The order of precedence is cICP, iCCP, sRGB, then gAMA and cHRM (PNG, third edition, 4.3)."""
    packed = photos.saved(Image.new("RGB", (32, 32), RED), "PNG", icc_profile=photos.DISPLAY_P3)
    points = packed[:33] + cicp(1, 13) + packed[33:]
    assert pixel(points) == RED
    assert pixel(packed) == near(by_lcms(photos.DISPLAY_P3, RED))
    gamma = photos.png_chunk(b"gAMA", struct.pack(">I", 100_000))
    assert pixel(packed[:33] + gamma + packed[33:]) == near(by_lcms(photos.DISPLAY_P3, RED))
    assert pixel(png(RED, gamma, photos.png_chunk(b"sRGB", b"\0"))) == RED
    assert pixel(png(RED, photos.png_chunk(b"cICP", bytes((12, 13, 6, 1))))) == RED  # PNG has no matrix coefficients


def pq(luminance: float) -> int:
    """Return the code, 0 to 255, of a luminance in cd/m² (SMPTE ST 2084, equation 5.2)."""
    power = (luminance / 10_000) ** 0.1593017578125
    return round(255 * ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375)


def hlg(scene: float) -> int:
    """Return the code, 0 to 255, of scene light, 0 to 1 (ITU-R BT.2100, table 5)."""
    if scene <= 1 / 12:
        return round(255 * math.sqrt(3 * scene))
    return round(255 * (0.17883277 * math.log(12 * scene - 0.28466892) + 0.55991073))


@pytest.mark.parametrize("luminance", [203, 400, 10_000])
def test_diffuse_white_of_pq_is_white(luminance: float) -> None:
    """203 cd/m² is the white of paper (ITU-R BT.2408); brighter values are also white."""
    code = pq(luminance)
    for data in (avif((code, code, code), 9, 16), png((code, code, code), cicp(9, 16))):
        assert pixel(data) == near((255, 255, 255))


@pytest.mark.parametrize("luminance", [100, 30, 5])
def test_greys_of_pq(luminance: float) -> None:
    """Half of the luminance of white is half in sRGB; one 8-bit step of PQ is a few percent."""
    code = pq(luminance)
    grey = coded(luminance / 203)
    assert pixel(png((code, code, code), cicp(9, 16))) == near((grey, grey, grey), 4)


@pytest.mark.parametrize("share", [1.0, 0.5, 0.1])
def test_greys_of_hlg(share: float) -> None:
    """On a display of 1,000 cd/m², with exponent 1.2 (BT.2100, table 5), 203 cd/m² are white."""
    code = hlg((203 * share / 1_000) ** (1 / 1.2))
    grey = coded(share)
    assert pixel(png((code, code, code), cicp(9, 18))) == near((grey, grey, grey), 4)
    assert pixel(avif((code, code, code), 9, 18)) == near((grey, grey, grey), 5)


def test_bt_2020_is_wider_than_srgb() -> None:
    """The primaries of sRGB, stated in BT.2020 (ITU-R BT.2087, matrix M2), are preserved."""
    light = (0.6274, 0.0691, 0.0164)  # linear red of BT.709
    code = tuple(round(coded(value)) for value in light)
    assert pixel(png(code, cicp(9, 13))) == near((255, 0, 0), 8)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("gamma", "expected"),
    [(100_000, coded(128 / 255)), (45_455, 128), (55_556, coded((128 / 255) ** 1.8)), (1, 128), (0, 128)],
)
def test_gamma_of_png_is_applied(gamma: int, expected: float) -> None:
    """A file of linear light is converted; impossible values are ignored."""
    data = png((128, 128, 128), photos.png_chunk(b"gAMA", struct.pack(">I", gamma)))
    assert pixel(data) == near((expected,) * 3)


def test_gamma_of_grey_png_is_applied() -> None:
    """The profile of a grey image has one curve."""
    whole = photos.saved(Image.new("L", (32, 32), 128), "PNG")
    data = whole[:33] + photos.png_chunk(b"gAMA", struct.pack(">I", 100_000)) + whole[33:]
    assert pixel(data) == near((coded(128 / 255),) * 3)


P3_POINTS = (31_270, 32_900, 68_000, 32_000, 26_500, 69_000, 15_000, 6_000)
SRGB_POINTS = (31_270, 32_900, 64_000, 33_000, 30_000, 60_000, 15_000, 6_000)


@pytest.mark.parametrize(
    ("points", "expected"),
    [(P3_POINTS, None), (SRGB_POINTS, RED), ((0,) * 8, RED), ((31_270, 32_900) * 4, RED), ((99_000,) * 8, RED)],
)
def test_primaries_of_png_are_applied(points: tuple[int, ...], expected: tuple[int, ...] | None) -> None:
    """The chromaticities of Display P3 give its colours; degenerate ones are ignored."""
    gamma = photos.png_chunk(b"gAMA", struct.pack(">I", 45_455))
    data = png(RED, gamma, photos.png_chunk(b"cHRM", struct.pack(">8I", *points)))
    assert pixel(data) == near(
        expected or by_lcms(photos.DISPLAY_P3, RED), 11
    )  # a power function is not exactly the curve of P3


def without(profile: bytes, *names: bytes) -> bytes:
    """Return a profile without the given tags."""
    count = struct.unpack(">I", profile[128:132])[0]
    table = [profile[132 + 12 * at : 144 + 12 * at] for at in range(count)]
    kept = [one for one in table if one[:4] not in names]
    rest = b"".join(kept) + bytes(12 * (count - len(kept)))
    return profile[:128] + struct.pack(">I", len(kept)) + rest + profile[132 + 12 * count :]


P3 = photos.DISPLAY_P3
BROKEN = {
    "no curve": without(P3, b"bTRC"),
    "no primary": without(P3, b"rXYZ"),
    "no tags": P3[:128] + struct.pack(">I", 0) + bytes(100),
    "curves of no kind": P3.replace(b"para", b"zzzz"),
    "a device link": P3[:12] + b"link" + P3[16:],
    "other colours": P3[:16] + b"HSV " + P3[20:],
    "a future version": P3[:8] + b"\x09\0\0\0" + P3[12:],
    "no signature": P3[:36] + b"xxxx" + P3[40:],
    "cut off": P3[:200],
    "a profile of inks": P3[:16] + b"CMYK" + P3[20:],
    "not a profile": b"hello",
}


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("name", BROKEN)
def test_profiles_that_cannot_be_linked_are_absent(name: str, file_format: str) -> None:
    """As in browsers, the image is treated as sRGB, with every kernel."""
    options = {} if file_format in ("PNG", "TIFF") else {"quality": 95}
    data = photos.saved(Image.new("RGB", (32, 32), RED), file_format, icc_profile=BROKEN[name], **options)
    assert pixel(data) == near(RED, 3)
    assert pixel(data, filter="cubic") == near(RED, 3)


def test_profiles_of_other_formats_are_applied() -> None:
    """A profile in several segments of a JPEG, and one in HEIC, are applied."""
    long = P3 + bytes(150_000)
    data = photos.saved(Image.new("RGB", (32, 32), RED), "JPEG", quality=95, subsampling=0, icc_profile=long)
    assert data.count(b"ICC_PROFILE\0") == 3
    assert pixel(data) == near(by_lcms(P3, RED), 3)


@pytest.mark.parametrize(
    ("inks", "expected"),
    [((0, 0, 0, 0), (255, 255, 255)), ((255, 255, 255, 255), (0, 0, 0)), ((0, 0, 0, 255), (0, 0, 0))],
)
def test_inks_reach_black_and_white(inks: tuple[int, ...], expected: tuple[int, ...]) -> None:
    """Paper is white, and all inks or black alone are nearly black, due to black point compensation."""
    data = photos.saved(Image.new("CMYK", (32, 32), inks), "JPEG", quality=95)
    assert pixel(data) == near(expected, 32)
    assert max(pixel(data)) - min(pixel(data)) <= 24


@pytest.mark.parametrize(
    ("inks", "expected"),
    [  # ISO 12647-2, coated paper, CIELAB of solid inks, converted to sRGB by lcms; cyan is clipped
        ((255, 0, 0, 0), (0, 158, 224)),
        ((0, 255, 0, 0), (230, 0, 126)),
        ((0, 0, 255, 0), (255, 237, 0)),
    ],
)
def test_solid_inks_have_the_colours_of_print(inks: tuple[int, ...], expected: tuple[int, ...]) -> None:
    """Solid cyan, magenta and yellow have the colours of offset printing, not those of a formula."""
    data = photos.saved(Image.new("CMYK", (32, 32), inks), "JPEG", quality=95)
    assert pixel(data) == near(expected, 25)


def test_code_points_of_srgb_need_no_profile() -> None:
    """sRGB needs no conversion, and unknown code points mean sRGB."""
    for colours in (Colours(1, 13, True), Colours(1, 1, False), Colours(2, 2, True), Colours(250, 13, True)):
        assert profile_of(colours) is None
    assert profile_of(Colours(12, 13, True), is_grey=True) is None
    assert profile_of(Colours(12, 16, True), is_grey=True) is not None
    assert gamma_profile(1.0, SRGB, is_grey=False)[16:20] == b"RGB "


@pytest.mark.parametrize("primaries", [1, 4, 5, 6, 7, 9, 11, 12, 22])
@pytest.mark.parametrize("transfer", [4, 5, 8, 16, 18])
def test_profiles_preserve_white(primaries: int, transfer: int) -> None:
    """lcms accepts each profile, and white stays white for every white point."""
    profile = profile_of(Colours(primaries, transfer, True))
    assert profile is not None
    assert by_lcms(profile, (255, 255, 255)) == near((255, 255, 255), 1)
    assert by_lcms(profile, (0, 0, 0)) == near((0, 0, 0), 1)


def test_the_area_of_primaries() -> None:
    """The result is the area of the triangle, if all of its corners are colours."""
    assert span((0, 0.1), (0.8, 0.1), (0, 0.9)) == pytest.approx(0.32)
    assert span((0.5, 0.6), (0.3, 0.6), (0.15, 0.06)) == 0
    assert span((-0.1, 0.1), (0.3, 0.6), (0.15, 0.06)) == 0


def test_heif_with_a_profile_and_code_points() -> None:
    """The ICC profile takes precedence over the code points."""
    file = photos.saved(Image.new("RGB", (32, 32), RED), "AVIF", quality=100, subsampling="4:4:4")
    items = parsed(file)
    items[0].properties += [ispe(32, 32), nclx(9, 16, 6), box(b"colr", b"prof", P3)]
    assert pixel(built(items)) == near(by_lcms(P3, RED), 3)
