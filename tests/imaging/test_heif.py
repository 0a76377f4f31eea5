"""HEIC originals, decoded with an extra."""

from __future__ import annotations

import io
import sys

import pytest
from PIL import Image, ImageChops, ImageStat

from aioimageattach.exc import UnreadableImageError, UnsupportedImageError
from aioimageattach.imaging import ImageLimits, Probe, Recipe, probe, render
from tests import photos

pillow_heif = pytest.importorskip("pillow_heif")
LIMITS = ImageLimits().allow("image/heic")


def heic(*, alpha: bool = False, orientation: int = 1, profile: bytes | None = None) -> bytes:
    """Return a HEIC as a phone writes it, of an odd width."""
    picture = photos.opened("chelsea").convert("RGBA" if alpha else "RGB")
    file = io.BytesIO()
    image = pillow_heif.from_pillow(picture)
    if profile is not None:
        image.info["icc_profile"] = profile
        image.info["icc_profile_type"] = "prof"
    image.save(file, quality=80, exif=photos.exif(orientation))
    return file.getvalue()


def thumbnail(data: bytes) -> Image.Image:
    (rendering,) = render(data, [Recipe(width=90)], LIMITS)
    assert rendering.mimetype == "image/png"
    return Image.open(io.BytesIO(rendering.blob))


@pytest.mark.parametrize("alpha", [False, True])
def test_thumbnails_of_iphone_pictures(alpha: bool) -> None:
    """Size, alpha and colours are correct."""
    data = heic(alpha=alpha)
    assert probe(data, LIMITS) == Probe(451, 300, "image/heic", has_alpha=alpha)
    image = thumbnail(data)
    expected = photos.opened("chelsea").resize((90, 60), Image.Resampling.LANCZOS)
    assert image.mode == ("RGBA" if alpha else "RGB")
    assert max(ImageStat.Stat(ImageChops.difference(image.convert("RGB"), expected)).mean) < 5


def test_pictures_are_upright() -> None:
    """The rotation in HEIC is applied once."""
    found = probe(heic(orientation=6), LIMITS)
    assert (found.width, found.height, found.orientation) == (300, 451, 1)
    assert thumbnail(heic(orientation=6)).size == (90, 135)


def test_the_profile_is_applied() -> None:
    """Display P3, which iPhones write, is converted to sRGB: the colours are stronger."""
    plain = ImageStat.Stat(thumbnail(heic()).convert("HSV")).mean[1]
    tagged = ImageStat.Stat(thumbnail(heic(profile=photos.DISPLAY_P3)).convert("HSV")).mean[1]
    assert tagged > plain + 5


def test_broken_pixels_are_unreadable() -> None:
    """A valid header with damaged pixels raises an error of this library."""
    whole = heic()
    start = whole.index(b"mdat") + 4
    data = whole[:start] + bytes(len(whole) - start)
    assert probe(data, LIMITS).width == 451
    with pytest.raises(UnreadableImageError):
        thumbnail(data)


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """If HEIC is allowed but the extra is not installed, the error names the extra."""
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(UnsupportedImageError, match=r"aioimageattach\[heif\]") as caught:
        probe(heic(), LIMITS)
    assert caught.value.mimetype == "image/heic"
