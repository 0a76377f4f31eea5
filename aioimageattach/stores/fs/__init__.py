"""Stores in a directory."""

from __future__ import annotations

from .paths import guess_extension
from .store import FileSystemStore

__all__ = ["FileSystemStore", "guess_extension"]
