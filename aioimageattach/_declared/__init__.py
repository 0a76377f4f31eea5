"""Declared thumbnails, which have no rows: the declarations of a class, the file names, and rendering."""

from __future__ import annotations

from .srcset import Srcset

__all__ = ["Srcset"]
