"""ThumbHashes compared with the reference implementation, dominant colours, and decodes."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import pytest
import pyvips
from PIL import Image

from aioimageattach.exc import UnreadableImageError
from aioimageattach.imaging import ImageLimits, Recipe, probe, render
from aioimageattach.imaging._limits import KNOWN_TYPES
from aioimageattach.imaging._preview import dominant_colour, thumbhash
from aioimageattach.imaging._render import render_with_preview
from tests import photos

ALL = ImageLimits(types=KNOWN_TYPES)
VECTORS = json.loads((Path(__file__).parent.parent / "data" / "thumbhash.json").read_text("utf-8"))
"""ThumbHashes made with the reference implementation, the npm package thumbhash 0.1.1."""


@pytest.mark.parametrize("vector", VECTORS, ids=[vector["picture"] for vector in VECTORS])
def test_thumbhashes_are_those_of_the_reference_implementation(vector: dict[str, Any]) -> None:
    """Photographs, noise, a single row, and transparent parts give identical bytes."""
    found = thumbhash(vector["width"], vector["height"], base64.b64decode(vector["pixels"]))
    assert vector["thumbhash"] == base64.b64encode(found).decode()
    assert len(found) <= 28


@pytest.mark.parametrize("pixel", [(255, 255, 255, 255), (0, 0, 0, 255), (10, 20, 30, 128), (0, 0, 0, 0)])
@pytest.mark.parametrize("size", [(8, 8), (48, 48), (8, 31)])
def test_thumbhashes_of_one_colour(pixel: tuple[int, ...], size: tuple[int, int]) -> None:
    """All amplitudes are 0 despite floating-point errors."""
    found = thumbhash(*size, bytes(pixel) * size[0] * size[1])
    header, second = int.from_bytes(found[:3], "little"), int.from_bytes(found[3:5], "little")
    assert (header >> 18 & 31, second >> 3 & 63, second >> 9 & 63) == (0, 0, 0)
    assert (pixel[3] < 255) == bool(header >> 23)
    luminance = (header & 63) / 63 * 255
    assert abs(luminance - (sum(pixel[:3]) / 3 if pixel[3] else 0)) <= 255 / 63 / 2 + 1


def test_the_dominant_colour_is_the_mean_of_the_commonest() -> None:
    """The dominant colour is the mean of the most frequent similar pixels, and ignores transparent ones."""
    red, near, blue, clear = (
        bytes(pixel) for pixel in ((200, 10, 10, 255), (208, 12, 11, 255), (9, 9, 250, 255), (0,) * 4)
    )
    assert dominant_colour(red * 3 + near * 2 + blue * 4 + clear * 9) == "#cb0b0a"
    assert dominant_colour(blue) == "#0909fa"
    assert dominant_colour(clear * 3) is None


@pytest.mark.parametrize(
    ("data", "colour"),
    [
        (photos.SVG, (10, 100, 200)),
        (photos.pdf(), (255, 255, 255)),
        (photos.saved(Image.new("L", (500, 10), 77), "PNG"), (77, 77, 77)),
        (photos.saved(Image.new("RGBA", (30, 20), (9, 99, 200, 255)), "WEBP", lossless=True), (9, 99, 200)),
    ],
)
def test_previews_of_all_kinds(data: bytes, colour: tuple[int, int, int]) -> None:
    """Drawings, documents, grey images and alpha give the colour of most pixels."""
    [], preview = render_with_preview(data, [], ALL)
    assert preview.colour is not None
    found = bytes.fromhex(preview.colour[1:])
    assert max(abs(seen - expected) for seen, expected in zip(found, colour, strict=True)) < 8


@pytest.mark.parametrize("orientation", [1, 6, 3])
def test_previews_are_upright_and_the_same_with_and_without_thumbnails(orientation: int) -> None:
    """Neither thumbnails nor the orientation of the file change the preview visibly."""
    data = photos.oriented(orientation, "PNG")
    upright = photos.opened("chelsea").resize((48, 32), Image.Resampling.LANCZOS).convert("RGBA")
    expected = nibbles(thumbhash(48, 32, upright.tobytes()))
    recipes = [Recipe(width=100), Recipe(width=50, height=50, gravity="entropy"), Recipe(width=9, filter="cubic")]
    for wanted in ([], recipes[:1], recipes):
        made, preview = render_with_preview(data, wanted, ALL)
        assert [one.blob for one in made] == [one.blob for one in render(data, wanted, ALL)] or len(wanted) == 1
        found = nibbles(base64.b64decode(preview.thumbhash))
        assert max(abs(one - other) for one, other in zip(expected, found, strict=True)) <= 1


def nibbles(data: bytes) -> list[int]:
    return [half for byte in data[5:] for half in (byte & 15, byte >> 4)]


def test_a_preview_needs_no_additional_decode(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thumbnail with a smart crop and a preview opens the file as often as the thumbnail alone."""
    opened: list[str] = []
    call = pyvips.Operation.call

    def counting(name: str, *arguments: Any, **options: Any) -> Any:
        opened.extend([name] if name.endswith("load_source") else [])
        return call(name, *arguments, **options)

    monkeypatch.setattr(pyvips.Operation, "call", counting)
    counts = []
    for recipe in (Recipe(width=300), Recipe(width=300, height=300, gravity="attention")):
        render(photos.large(), [Recipe(width=300)])
        counts.append(len(opened))
        opened.clear()
        render_with_preview(photos.large(), [recipe])
        counts.append(len(opened))
        opened.clear()
    assert len(set(counts)) == 1
    assert counts[0] >= 1


def test_strips_have_previews_and_smart_crops() -> None:
    """A line of pixels, and a thumbnail that is much larger, do not fail."""
    for size in ((1, 3000), (3000, 1), (2, 2)):
        data = photos.saved(Image.new("RGB", size, (10, 200, 30)), "PNG")
        recipes = [
            Recipe(width=1000, height=3, fit="fill"),
            Recipe(width=3, height=1000, fit="fill"),
            Recipe(width=40, height=40, gravity="attention"),
        ]
        made, preview = render_with_preview(data, recipes)
        assert [Image.open(io.BytesIO(one.blob)).size for one in made] == [(1000, 3), (3, 1000), (40, 40)]
        assert preview.colour == "#0ac81e"
        header = base64.b64decode(preview.thumbhash)
        assert (header[2] >> 2 & 31, int.from_bytes(header[3:5], "little") >> 3 & 0xFFF) == (0, 0)  # without a shape


def test_previews_of_damaged_pictures() -> None:
    """A damaged image raises an error if the class requires complete images, as for thumbnails."""
    with pytest.raises(UnreadableImageError):
        render_with_preview(photos.photo("coffee")[:9000], [], ImageLimits(verify="complete"))


def test_previews_come_from_workers() -> None:
    """An image that is read in a worker process has the same preview."""
    limits = ImageLimits(isolated=True)
    recipes = [Recipe(width=20)]
    assert render_with_preview(photos.png(), recipes, limits) == render_with_preview(photos.png(), recipes)
    assert probe(photos.png(), limits).width == 451
