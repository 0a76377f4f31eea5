"""The files that committed rows name: the basis of verifying, sweeping and moving.

Rows are read a page at a time, each page in a new short session, so that a run of hours keeps no transaction open. All
statements about one page use one connection, to the database that these rows are written to: a session that sends
SELECTs to replicas would let one server answer for another. They are Core statements on tables, so that nothing that
an application adds to its queries, such as a filter for rows marked as deleted, hides a file.
"""

from __future__ import annotations

from .kinds import PAGE, ImageKind, Kind, Reference, StoredKind, kinds, related
from .reader import Reader, Sessions, ask, opened
from .scan import Scan, beyond, count, named, references, reread

__all__ = [
    "PAGE",
    "ImageKind",
    "Kind",
    "Reader",
    "Reference",
    "Scan",
    "Sessions",
    "StoredKind",
    "ask",
    "beyond",
    "count",
    "kinds",
    "named",
    "opened",
    "references",
    "related",
    "reread",
]
