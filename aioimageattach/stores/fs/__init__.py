"""Stores in a directory, and what serves it."""

from __future__ import annotations

from .exposed import LOCAL_HOSTS, HttpExposedFileSystemStore
from .paths import guess_extension
from .static import StaticServer, StaticServerMiddleware
from .store import BaseFileSystemStore, FileSystemStore

__all__ = [
    "LOCAL_HOSTS",
    "BaseFileSystemStore",
    "FileSystemStore",
    "HttpExposedFileSystemStore",
    "StaticServer",
    "StaticServerMiddleware",
    "guess_extension",
]
