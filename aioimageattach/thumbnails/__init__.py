"""Declared thumbnails, which are made when they are asked for, and thumbnails with rows, made for all owners."""

from __future__ import annotations

from ..declared import Srcset
from .rows import ThumbnailFailure, ThumbnailPlan, ThumbnailProgress, Thumbnails, generate
from .server import ThumbnailServer

__all__ = [
    "Srcset",
    "ThumbnailFailure",
    "ThumbnailPlan",
    "ThumbnailProgress",
    "ThumbnailServer",
    "Thumbnails",
    "generate",
]
