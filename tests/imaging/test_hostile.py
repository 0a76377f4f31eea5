"""Deliberately damaged images: each yields an error of this library, or a correct thumbnail."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator
from functools import cache

import pytest
from PIL import Image

from aioimageattach.exc import ImageError
from aioimageattach.imaging import ImageLimits, Recipe, probe, render, strip_metadata
from aioimageattach.imaging._limits import KNOWN_TYPES
from aioimageattach.imaging._metadata import STRIPPED_TYPES
from tests import photos

LIMITS = ImageLimits(types=KNOWN_TYPES, timeout=20)
MUTANTS = 30
SLOW = {"cmyk": 12, "profile": 20}  # colours are converted again for each
SEEDS = pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.thorough) for seed in (1, 2))])


@cache
def small(kind: str) -> bytes:
    """Return an image of the given type, of a few kilobytes, with metadata."""
    picture = photos.opened("chelsea", (48, 32))
    moving = [picture.rotate(turn) for turn in (0, 30, 60)]
    match kind:
        case "jpeg":
            return photos.saved(picture, "JPEG", exif=photos.exif(6))
        case "profile":
            return photos.saved(picture, "JPEG", icc_profile=photos.DISPLAY_P3)
        case "progressive":
            return photos.saved(picture, "JPEG", progressive=True, comment=b"hello")
        case "cmyk":
            return photos.saved(picture.convert("CMYK"), "JPEG")
        case "png":
            return photos.saved(picture.convert("RGBA"), "PNG", exif=photos.exif(3))
        case "palette":
            return photos.saved(picture.quantize(16), "PNG", transparency=1)
        case "gif":
            first, *rest = (frame.quantize(16) for frame in moving)
            return photos.saved(first, "GIF", save_all=True, append_images=rest, duration=50, comment=b"hello")
        case "webp":
            return photos.saved(picture, "WEBP", exif=photos.exif(8))
        case "lossless":
            return photos.saved(picture.convert("RGBA"), "WEBP", lossless=True)
        case "moving":
            return photos.saved(moving[0], "WEBP", save_all=True, append_images=moving[1:], duration=50)
        case "avif":
            return photos.saved(picture, "AVIF", speed=10, exif=photos.exif(1), xmp=b"<x/>" * 9)
        case "tiff":
            return photos.saved(picture, "TIFF", exif=photos.exif(5))
        case "heic":
            pillow_heif = pytest.importorskip("pillow_heif")
            file = io.BytesIO()
            pillow_heif.from_pillow(picture.resize((64, 64))).save(file)
            return file.getvalue()
        case "svg":
            return photos.SVG
        case _:
            return photos.pdf()


KINDS = [
    "jpeg",
    "profile",
    "progressive",
    "cmyk",
    "png",
    "palette",
    "gif",
    "webp",
    "lossless",
    "moving",
    "avif",
    "tiff",
    "heic",
]
KINDS += ["svg", "pdf"]


def survives(data: bytes) -> bool:
    """Return ``True`` for a correct thumbnail, and ``False`` for an error of this library; fail otherwise."""
    recipe = Recipe(width=16, height=16, animated=True)
    try:
        found = probe(data, LIMITS)
        (rendering,) = render(data, [recipe], LIMITS)
    except ImageError:
        return False
    assert (rendering.width, rendering.height) == (16, 16)
    with Image.open(io.BytesIO(rendering.blob)) as picture:
        assert picture.size == (16, 16)
        assert rendering.mimetype == Image.MIME[picture.format or ""]
    assert 0 < found.width <= LIMITS.max_side
    assert 0 < found.height <= LIMITS.max_side
    return True


def mutants(kind: str, seed: int) -> Iterator[bytes]:
    """Yield truncations, flipped bytes, extreme numbers, and removed, repeated and swapped pieces."""
    data = small(kind)
    size = len(data)
    source = random.Random(f"{kind} {seed}")
    for _ in range(SLOW.get(kind, MUTANTS)):
        copy = bytearray(data)
        at = source.randrange(size) if source.random() < 0.5 else source.randrange(min(size, 400))
        match source.randrange(6):
            case 0:
                del copy[at:]
            case 1:
                for _ in range(source.choice((1, 1, 2, 8))):
                    copy[source.randrange(size)] ^= 1 << source.randrange(8)
            case 2:
                copy[at] = source.choice((0, 1, 0x7F, 0x80, 0xFF))
            case 3:
                extreme = source.choice((b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f"))
                copy[at : at + 4] = extreme
            case 4:
                del copy[at : at + source.randrange(1, 64)]
            case _:
                copy[at:at] = copy[source.randrange(size) :][: source.randrange(1, 64)]
        yield bytes(copy)


@SEEDS
@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files(kind: str, seed: int) -> None:
    """For any damage, no foreign error is raised and no wrong size is returned."""
    assert survives(small(kind))
    results = [survives(mutant) for mutant in mutants(kind, seed)]  # run all of them, even after a failure
    assert not all(results)


@SEEDS
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("cmyk", "tiff", "heic", "svg", "pdf")])
def test_stripping_damaged_files(kind: str, seed: int) -> None:
    """Stripping never turns a readable file into another image, whatever its metadata."""
    mimetype = probe(small(kind)).mimetype
    assert mimetype in STRIPPED_TYPES
    for mutant in mutants(kind, seed):
        try:
            stripped = strip_metadata(mutant, mimetype)
            (before,) = render(mutant, [Recipe(ratio=1, format="png")])
        except ImageError:
            continue
        (after,) = render(stripped, [Recipe(ratio=1, format="png")])
        assert (before.width, before.height) == (after.width, after.height)
