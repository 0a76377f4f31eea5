"""Serve declared thumbnails, which are rendered on request, and generate thumbnails for all existing pictures."""

from __future__ import annotations

from .._declared import Srcset
from ._backfill import backfill
from ._plan import ThumbnailFailure, ThumbnailPlan, ThumbnailProgress, Thumbnails
from ._rows import generate
from ._server import ThumbnailServer

__all__ = [
    "Srcset",
    "ThumbnailFailure",
    "ThumbnailPlan",
    "ThumbnailProgress",
    "ThumbnailServer",
    "Thumbnails",
    "backfill",
    "generate",
]
