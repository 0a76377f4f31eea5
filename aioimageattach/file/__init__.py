"""Async files: the file that a store returns, the sources that can be attached, and the spool in between."""

from __future__ import annotations

from ._proxy import AsyncFile, Cursor, FileProxy, ReusableFileProxy, SeekableFileProxy
from ._source import CHUNK, AsyncReadable, Source, SyncReadable, as_reader
from ._spool import SPOOL_MEMORY, SPOOLS_MEMORY, Spool, SpoolFile, as_blocks, measure

__all__ = [
    "CHUNK",
    "SPOOLS_MEMORY",
    "SPOOL_MEMORY",
    "AsyncFile",
    "AsyncReadable",
    "Cursor",
    "FileProxy",
    "ReusableFileProxy",
    "SeekableFileProxy",
    "Source",
    "Spool",
    "SpoolFile",
    "SyncReadable",
    "as_blocks",
    "as_reader",
    "measure",
]
