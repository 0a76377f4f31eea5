"""Offloaded columns: files and large bytes, strings and JSON in the store, with a reference in the row."""

from __future__ import annotations

from ..exc import DamagedValueError, NotLoadedError, OffloadError, ValueTooLargeError
from . import _flush as _flush
from ._columns import stored, stored_binary, stored_file, stored_json, stored_text
from ._files import StoredFile
from ._load import load_stored
from ._values import Stored, StoredBinary, StoredJSON, StoredText

__all__ = [
    "DamagedValueError",
    "NotLoadedError",
    "OffloadError",
    "Stored",
    "StoredBinary",
    "StoredFile",
    "StoredJSON",
    "StoredText",
    "ValueTooLargeError",
    "load_stored",
    "stored",
    "stored_binary",
    "stored_file",
    "stored_json",
    "stored_text",
]
