"""Stores in a directory, and ASGI applications that serve their files."""

from __future__ import annotations

from ._exposed import HttpExposedFileSystemStore
from ._paths import guess_extension
from ._static import StaticServer, StaticServerMiddleware
from ._store import BaseFileSystemStore, FileSystemStore

__all__ = [
    "BaseFileSystemStore",
    "FileSystemStore",
    "HttpExposedFileSystemStore",
    "StaticServer",
    "StaticServerMiddleware",
    "guess_extension",
]
