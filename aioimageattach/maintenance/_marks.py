"""Find rows with marks of declared thumbnails whose files are not all in the store."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from .._declared.names import derived_type
from .._inventory import PAGE, Reader, Sessions, beyond, run_with_reader
from .._inventory.marks import MarkedKind, MarkedRow
from ..store import KeyedStore

__all__ = ["FalseMarks", "false_marks"]

FalseMarks = tuple[MarkedRow, set[str]]
"""A row, and the names of its missing files."""


async def false_marks(
    sessions: Sessions, kind: MarkedKind, store: KeyedStore
) -> AsyncGenerator[tuple[int, list[FalseMarks]], None]:
    """Yield for each page the number of rows, and the rows whose files are not all in the store.

    Files are listed instead of looked up: each page is compared with the range of names that its files can have.
    """
    after: tuple[Any, ...] | None = None
    while True:
        rows, after = await _page(sessions, kind, store, after)
        missing = await _missing(store, rows)
        found = [(row, gone) for row in rows if (gone := missing.intersection(row.names))]
        # The image may have been replaced or deleted after the page was read.
        yield len(rows), [(row, gone) for row, gone in found if await _is_unchanged(sessions, kind, row, store)]
        if after is None:
            return


async def _page(
    sessions: Sessions, kind: MarkedKind, store: KeyedStore, after: tuple[Any, ...] | None
) -> tuple[list[MarkedRow], tuple[Any, ...] | None]:
    """Return the next rows, and the position after which the following page begins; ``None`` after the last page."""
    [part] = kind.parts()

    def read(reader: Reader) -> tuple[list[MarkedRow], tuple[Any, ...] | None]:
        order = part.sortable(reader.dialect)
        follows = [] if after is None else [beyond(order, after)]
        rows = kind.select(reader, *part.where, *follows, order=order, limit=PAGE)
        found = [kind.marked(reader, row, store) for row in rows]
        last = tuple(rows[-1][-len(order) :]) if len(rows) == PAGE else None
        return [one for one in found if one is not None], last

    return await run_with_reader(sessions, kind.mapper, read)


async def _missing(store: KeyedStore, rows: Sequence[MarkedRow]) -> set[str]:
    """Return the names of the missing files of some rows."""
    wanted: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        if row.names:
            wanted[row.reference.object_type].update(row.names)
    for object_type, names in wanted.items():
        first, last = min(names), max(names)
        async for info in store.list_objects(f"{derived_type(object_type)}/", start_after=first[:-1]):
            if info.name > last:
                break
            names.discard(info.name)
    return set().union(*wanted.values())


async def _is_unchanged(sessions: Sessions, kind: MarkedKind, row: MarkedRow, store: KeyedStore) -> bool:
    """Return ``True`` if a row still has the same marks of the same files."""
    same = kind.at(row.reference.identity)
    found = await run_with_reader(sessions, kind.mapper, lambda reader: kind.rows(reader, store, *same))
    return any((one.marks, one.files) == (row.marks, row.files) for one in found)
