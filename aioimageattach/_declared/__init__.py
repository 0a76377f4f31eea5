"""Declared thumbnails, apart from rows: what a class declares, the names of the files, and how they are made."""

from __future__ import annotations

from .srcset import Srcset

__all__ = ["Srcset"]
