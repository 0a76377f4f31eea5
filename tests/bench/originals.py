"""The originals, 12 megapixels each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from PIL import Image

from tests import photos

__all__ = ["LABELS", "SIZE", "by_format", "large", "written"]

SIZE = (4000, 3000)
LABELS = {
    "telephone": "Display P3, EXIF, 3.9 MB",
    "untagged": "no profile, no EXIF, 3.9 MB",
    "mosaic": "real photographs side by side, each at its own resolution",
}


def large() -> bytes:
    """Return an image as a phone writes it."""
    return photos.large()


def _untagged() -> bytes:
    return photos.saved(photos.grained(), "JPEG", quality=90)


def _mosaic() -> bytes:
    """Return an image with detail down to the pixel, which an enlarged image would not have."""
    picture = Image.new("RGB", SIZE)
    tiles = [photos.opened(name).convert("RGB") for name in photos.NAMES]
    left = number = 0
    while left < SIZE[0]:
        column = tiles[number % len(tiles)]
        top = 0
        while top < SIZE[1]:
            tile = tiles[number % len(tiles)]
            picture.paste(tile, (left, top))
            top += tile.height
            number += 1
        left += column.width
    return photos.saved(picture, "JPEG", quality=92)


def by_format() -> dict[str, bytes]:
    """Return the same image in several formats."""
    return {
        "JPEG, 3.9 MB, Display P3": large(),
        "JPEG, 3.9 MB, no profile": _untagged(),
        "WebP": photos.saved(photos.grained(), "WEBP", quality=80, method=2),
        "PNG": photos.saved(photos.grained(), "PNG", compress_level=1),
    }


_MAKERS: dict[str, Callable[[], bytes]] = {"telephone": large, "untagged": _untagged, "mosaic": _mosaic}


def written(name: str, folder: Path) -> Path:
    """Write one of :data:`LABELS` into the folder, unless it exists, and return its path."""
    path = folder / f"{name}.jpg"
    if not path.exists():
        path.write_bytes(_MAKERS[name]())
    return path
