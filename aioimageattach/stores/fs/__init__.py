"""Stores in a directory, and what serves it."""

from __future__ import annotations

from .exposed import HttpExposedFileSystemStore
from .paths import guess_extension
from .static import StaticServer, StaticServerMiddleware
from .store import BaseFileSystemStore, FileSystemStore

__all__ = [
    "BaseFileSystemStore",
    "FileSystemStore",
    "HttpExposedFileSystemStore",
    "StaticServer",
    "StaticServerMiddleware",
    "guess_extension",
]
