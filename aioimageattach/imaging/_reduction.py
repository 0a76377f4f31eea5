"""Reduce originals when they are attached."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from ._limits import VECTOR_TYPES, ImageLimits
from ._options import NAMES
from ._recipe import Recipe

if TYPE_CHECKING:
    from ._header import Probe

__all__ = ["reduction"]

_QUALITIES: Final = MappingProxyType({"image/jpeg": 90, "image/webp": 90, "image/avif": 80})
"""Quality by MIME type, higher than for thumbnails, because thumbnails are rendered from the result."""
_KEEP_FRAMES: Final = frozenset({"image/gif", "image/webp"})


def reduction(found: Probe, limits: ImageLimits) -> Recipe | None:
    """Return the recipe that reduces an original to ``reduce_to``; ``None`` if it is stored unchanged.

    Args:
        found: The original's header.
        limits: The limits of its class.
    """
    side = limits.reduce_to
    if side is None or max(found.width, found.height) <= side or found.mimetype in VECTOR_TYPES:
        return None
    if found.frames > 1 and found.mimetype not in _KEEP_FRAMES:
        return None  # the other frames or pages would be lost
    mimetype = found.mimetype
    if mimetype not in NAMES:
        mimetype = "image/jpeg" if mimetype == "image/heic" and not found.has_alpha else "image/png"
    return Recipe(
        width=side,
        height=side,
        fit="inside",
        format=NAMES[mimetype],
        quality=_QUALITIES.get(mimetype),
        animated=mimetype in _KEEP_FRAMES,
    )
