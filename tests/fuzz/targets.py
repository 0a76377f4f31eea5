"""Fuzzing targets. Each accepts any bytes, and may raise only errors of this library."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from functools import partial
from typing import Final

from PIL import Image

from aioimageattach.exc import ImageError
from aioimageattach.imaging import (
    ImageLimits,
    Recipe,
    probe,
    render,
    strip_metadata,
)
from aioimageattach.imaging import (
    _containers as containers,
)
from aioimageattach.imaging import (
    _isolation as isolation,
)
from aioimageattach.imaging import (
    _svg as svg,
)
from aioimageattach.imaging._limits import KNOWN_TYPES
from aioimageattach.imaging._metadata import STRIPPED_TYPES
from aioimageattach.imaging._probe import _validate as _validate_probe
from aioimageattach.imaging._render import _validate as _validate_thumbnails

LIMITS: Final = ImageLimits(types=KNOWN_TYPES, max_pixels=1_000_000, max_memory=4_000_000, timeout=5)
RECIPES: Final = (Recipe(width=16, height=16, animated=True), Recipe(width=8))


def check_picture(data: bytes) -> None:
    """Thumbnails of an image have the right size, or the image is rejected."""
    found = probe(data, LIMITS)
    for rendering in render(data, RECIPES, LIMITS):
        with Image.open(io.BytesIO(rendering.blob)) as picture:
            assert picture.size == (rendering.width, rendering.height), (found, rendering.recipe)


def check_header(data: bytes) -> None:
    """A header is read or rejected."""
    found = probe(data, LIMITS)
    assert 0 < found.width <= LIMITS.max_side
    assert 0 < found.height <= LIMITS.max_side


def check_stripping(data: bytes) -> None:
    """An image without metadata has the same type and size, and nothing left to remove."""
    found = probe(data, LIMITS)
    if found.mimetype in STRIPPED_TYPES:
        stripped = strip_metadata(data, found.mimetype)
        again = probe(stripped, LIMITS)
        assert (found.width, found.height) == (again.width, again.height)
        assert stripped == strip_metadata(stripped, found.mimetype)


def check_walks(data: bytes) -> None:
    """Iteration over any structure stays inside the file."""
    if len(data) < 12:
        return  # files without a signature are never iterated over
    view = memoryview(data)
    for walk in (
        containers.jpeg_parts,
        containers.png_parts,
        containers.riff_parts,
        containers.gif_parts,
        containers.top_boxes,
    ):
        last = 0
        for part in walk(view):
            assert last <= part.start <= part.body, part
            assert part.end <= len(data), part
            last = part.start
    for item in containers.heif_items(view) or ():
        assert all(0 <= start <= end <= len(data) for start, end in item.extents), item


def check_drawing(data: bytes) -> None:
    """The cost of a drawing is calculated, or the drawing is rejected."""
    svg.examine(memoryview(data), LIMITS, lambda picture: None)


def check_answer(data: bytes) -> None:
    """The response of a worker, which may be compromised, is accepted or raises one of the expected errors."""
    head, _, body = data.partition(b"\0")
    try:
        found = json.loads(head)
        told = isolation._reported_error(found)
        if told is None and "probe" in found:
            told = _validate_probe(found, memoryview(body), LIMITS)
        elif told is None:
            told = _validate_thumbnails(found, memoryview(body), RECIPES[1:], ["image/webp"], LIMITS)
    except isolation.RESPONSE_ERRORS:
        return
    assert told is not None


def _attempt(check: Callable[[bytes], None], data: bytes) -> None:
    try:
        check(data)
    except ImageError:
        pass


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    name: partial(_attempt, check)
    for name, check in {
        "picture": check_picture,
        "header": check_header,
        "stripping": check_stripping,
        "walks": check_walks,
        "drawing": check_drawing,
        "answer": check_answer,
    }.items()
}

ANSWERS: Final = (
    b'{"probe": {"width": 3, "height": 3, "mimetype": "image/gif", "frames": 1, "orientation": 1, "has_alpha": false}}'
    b"\0GIF89a",
    b'{"renderings": [[12, 3, 3, "image/webp"]]}\0RIFF0000WEBP',
    b'{"error": "UnsupportedImageError", "text": "x", "fields": {"mimetype": "x", "allowed": ["y"], "limit": 1}}',
    b'{"memory": true}',
)
"""Seeds of generated responses."""
