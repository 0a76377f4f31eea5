"""Inventory: read the files that committed rows name, for verification, sweeps and migrations.

Rows are read a page at a time, each page in a new short session, so that a run of several hours keeps no transaction
open. All statements about a page use one connection, to the database to which its rows are written: a session that
sends SELECTs to replicas could otherwise mix the answers of several servers. The statements are Core statements on
tables, so that filters that an application adds to its queries, for example for soft-deleted rows, cannot hide files.
"""

from __future__ import annotations

from .images import ImageKind
from .kind import PAGE, FileReference, Kind
from .kinds import kinds, related
from .reader import Reader, Sessions, opened, run_with_reader
from .scan import Scan, beyond, count, named, references, reread
from .values import StoredKind

__all__ = [
    "PAGE",
    "FileReference",
    "ImageKind",
    "Kind",
    "Reader",
    "Scan",
    "Sessions",
    "StoredKind",
    "beyond",
    "count",
    "kinds",
    "named",
    "opened",
    "references",
    "related",
    "reread",
    "run_with_reader",
]
