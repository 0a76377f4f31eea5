"""Originals that are reduced when they are attached."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from aioimageattach.imaging import ImageLimits, Probe, Recipe, probe, render
from aioimageattach.imaging._limits import KNOWN_TYPES
from aioimageattach.imaging._reduction import reduction
from tests import photos

LIMITS = ImageLimits(types=KNOWN_TYPES, reduce_to=200)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (Probe(200, 150, "image/jpeg"), None),
        (Probe(9000, 9000, "image/svg+xml"), None),
        (Probe(9000, 9000, "application/pdf", frames=3), None),
        (Probe(300, 200, "image/tiff", frames=2), None),
        (Probe(300, 200, "image/avif", frames=2), None),
        (Probe(300, 200, "image/jpeg"), {"format": "jpeg", "quality": 90}),
        (Probe(150, 201, "image/avif"), {"format": "avif", "quality": 80}),
        (Probe(300, 200, "image/png"), {"format": "png"}),
        (Probe(300, 200, "image/tiff"), {"format": "png"}),
        (Probe(300, 200, "image/heic"), {"format": "jpeg", "quality": 90}),
        (Probe(300, 200, "image/heic", has_alpha=True), {"format": "png"}),
        (Probe(300, 200, "image/gif", frames=9), {"format": "gif", "animated": True}),
        (Probe(300, 200, "image/webp"), {"format": "webp", "quality": 90, "animated": True}),
    ],
)
def test_originals_that_are_not_reduced(found: Probe, expected: dict[str, object] | None) -> None:
    """Small images, drawings, and files with more pages than the result could have are stored unchanged."""
    recipe = None if expected is None else Recipe(width=200, height=200, fit="inside", **expected)  # type: ignore[arg-type]
    assert recipe == reduction(found, LIMITS)


def test_without_a_limit_nothing_is_reduced() -> None:
    """By default, originals are stored unchanged."""
    assert reduction(Probe(30_000, 30_000, "image/jpeg"), ImageLimits()) is None


@pytest.mark.parametrize("make", [photos.animated_gif, photos.animated_webp])
def test_animations_keep_their_frames(make: object) -> None:
    """All frames are reduced."""
    data = make()  # type: ignore[operator]
    recipe = reduction(probe(data, LIMITS), LIMITS)
    assert recipe is not None
    image = Image.open(io.BytesIO(render(data, [recipe], LIMITS)[0].blob))
    assert image.size == (200, 134)
    assert image.n_frames == 5  # type: ignore[attr-defined]
