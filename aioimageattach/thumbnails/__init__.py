"""Serve declared thumbnails, which are rendered on request, and generate thumbnails with rows for all owners."""

from __future__ import annotations

from .._declared import Srcset
from ._rows import ThumbnailFailure, ThumbnailPlan, ThumbnailProgress, Thumbnails, generate
from ._server import ThumbnailServer

__all__ = [
    "Srcset",
    "ThumbnailFailure",
    "ThumbnailPlan",
    "ThumbnailProgress",
    "ThumbnailServer",
    "Thumbnails",
    "generate",
]
