"""Async files: the files that stores return, the sources that can be attached, and the spool that buffers them."""

from __future__ import annotations

from ._proxy import AsyncFile, FileProxy, ReusableFileProxy, SeekableFileProxy
from ._source import Source, as_reader
from ._spool import Spool

__all__ = ["AsyncFile", "FileProxy", "ReusableFileProxy", "SeekableFileProxy", "Source", "Spool", "as_reader"]
