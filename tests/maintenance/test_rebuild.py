"""The recipe of a thumbnail, derived from its row."""

from __future__ import annotations

from typing import Any

import pytest

from aioimageattach.imaging import Recipe
from aioimageattach.key import ImageKey
from aioimageattach.maintenance._rebuild import recipe_of

ORIGINAL = ImageKey("picture", 1, 4000, 2663, "image/jpeg", "0" * 26)


@pytest.mark.parametrize(
    ("look", "size", "mimetype", "expected"),
    [
        ("", (200, 133), "image/jpeg", {"width": 200, "format": "jpeg"}),
        ("", (201, 134), "image/jpeg", {"width": 201, "format": "jpeg"}),
        ("", (11, 7), "image/jpeg", {"width": 11, "format": "jpeg"}),
        ("", (12, 8), "image/jpeg", {"width": 12, "format": "jpeg"}),
        ("", (199, 133), "image/jpeg", {"width": 199, "height": 133, "fit": "fill", "format": "jpeg"}),
        ("", (2663, 1773), "image/jpeg", {"width": 2663, "format": "jpeg"}),
        ("", (2, 2), "image/jpeg", {"width": 2, "height": 2, "fit": "fill", "format": "jpeg"}),
        ("webp", (200, 133), "image/webp", {"width": 200, "format": "webp"}),
        ("cover.webp.q95", (50, 60), "image/webp", {"width": 50, "height": 60, "format": "webp", "quality": 95}),
        (
            "contain.bg010203",
            (9, 9),
            "image/jpeg",
            {"width": 9, "height": 9, "fit": "contain", "background": (1, 2, 3), "format": "jpeg"},
        ),
        (
            "fill.cubic",
            (9, 9),
            "image/jpeg",
            {"width": 9, "height": 9, "fit": "fill", "filter": "cubic", "format": "jpeg"},
        ),
        ("full", (4000, 2663), "image/jpeg", {"width": 4000, "format": "jpeg"}),
        ("cover.at40-30", (9, 9), "image/jpeg", {"width": 9, "height": 9, "gravity": (0.4, 0.3), "format": "jpeg"}),
        (
            "crop04e2032013881770.png",
            (200, 160),
            "image/png",
            {"width": 200, "crop": (0.125, 0.08, 0.5, 0.6), "format": "png"},
        ),
    ],
)
def test_looks_with_a_recipe(look: str, size: tuple[int, int], mimetype: str, expected: dict[str, Any]) -> None:
    """The recipe results in the size, type and look of the thumbnail."""
    assert recipe_of(look, *size, mimetype, ORIGINAL) == Recipe(**expected)


@pytest.mark.parametrize("ratio", [0.013, 0.1, 0.2501, 0.333, 0.77])
@pytest.mark.parametrize("size", [(4000, 2663), (2663, 4000), (61, 43), (1000, 1)])
def test_sizes_of_plain_resizes_are_reproduced(ratio: float, size: tuple[int, int]) -> None:
    """The recipe of a plain resize results in the same size, however it was requested."""
    original = ImageKey("picture", 1, *size, "image/jpeg", "0" * 26)
    for recipe in (Recipe(ratio=ratio), Recipe(width=17), Recipe(height=17), Recipe(width=19, height=18, fit="inside")):
        target = recipe.target(size)
        found = recipe_of("", *target, "image/jpeg", original)
        assert found is not None
        assert found.target(size) == target


@pytest.mark.parametrize(
    ("look", "size", "mimetype"),
    [
        ("mine", (200, 133), "image/jpeg"),
        ("full", (200, 133), "image/jpeg"),
        ("north", (200, 133), "image/jpeg"),
        ("custom", (200, 133), "image/jpeg"),
        ("cover.custom", (200, 200), "image/jpeg"),
        ("cover-0123456789abcdef", (200, 200), "image/jpeg"),
        ("webp", (200, 133), "image/jpeg"),
        ("", (200, 133), "image/webp"),
        ("", (200, 133), "image/bmp"),
        ("q0", (200, 133), "image/jpeg"),
        ("animated", (200, 133), "image/jpeg"),
        ("cover.fill", (200, 200), "image/jpeg"),
        ("", (100_000, 66_575), "image/jpeg"),
    ],
)
def test_looks_without_a_recipe(look: str, size: tuple[int, int], mimetype: str) -> None:
    """Custom names, callables, long looks and impossible combinations have no recipe."""
    assert recipe_of(look, *size, mimetype, ORIGINAL) is None
