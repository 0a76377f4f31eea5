"""Serve declared thumbnails; render them on request, after a commit, or for all existing images."""

from __future__ import annotations

from .._declared import Srcset
from ._backfill import backfill
from ._plan import Thumbnails
from ._rows import generate
from ._server import ThumbnailServer
from ._worker import ThumbnailWorker

__all__ = [
    "Srcset",
    "ThumbnailServer",
    "ThumbnailWorker",
    "Thumbnails",
    "backfill",
    "generate",
]
