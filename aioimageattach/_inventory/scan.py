"""Scan: read all rows of a kind page by page, while the application writes rows."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, and_, bindparam, or_

from ..store import KeyedStore
from .images import ImageKind
from .kind import PAGE, FileReference, Kind, Part
from .reader import Reader, Sessions, run_with_reader

__all__ = ["Scan", "beyond", "count", "named", "references", "reread"]

_MAX_PASSES: Final = 3


class Scan:
    """All files that committed rows of a kind name, read in bounded memory while the application writes rows.

    A row whose primary key changes during the scan may move from a page that is yet to be read to one that was already
    read. Therefore rows that are read in order of their primary key are read once more at the end, and those that were
    missed are yielded then. For this, the scan keeps eight bytes per row.

    Args:
        sessions: Factory of sessions, one for each page.
        kind: The kind of files.
        page: Number of rows per statement.
        check: Called with the reader of each page before the page is read.

    Attributes:
        rows: Number of rows that were read.
        missed: Number of rows that the database counted but did not return page by page.
    """

    def __init__(
        self, sessions: Sessions, kind: Kind, *, page: int = PAGE, check: Callable[[Reader], object] | None = None
    ) -> None:
        self._sessions = sessions
        self._kind = kind
        self._page = page
        self._check = check
        self.rows: int = 0
        self.missed: int = 0

    async def __aiter__(self) -> AsyncIterator[FileReference]:
        self.rows = self.missed = 0
        for part in self._kind.parts():
            seen = array("q")  # hashes of primary keys
            before = await self._count(part)
            rows = 0
            async for reference in self._pages(part):
                rows += 1
                if not part.stable:
                    seen.append(hash(reference.identity))
                yield reference
            after = await self._count(part)
            self.rows += rows
            for _ in range(_MAX_PASSES if not part.stable and (rows or after) else 0):
                seen = array("q", sorted(seen))
                rows, before = 0, after
                found = array("q")
                async for reference in self._pages(part):
                    rows += 1
                    mark = hash(reference.identity)
                    place = bisect_left(seen, mark)
                    if place == len(seen) or seen[place] != mark:
                        found.append(mark)
                        self.rows += 1
                        yield reference
                seen.extend(found)
                after = await self._count(part)
                if rows >= min(before, after):
                    break
            self.missed += max(0, min(before, after) - rows)

    async def _count(self, part: Part) -> int:
        return await run_with_reader(
            self._sessions, self._kind.mapper, lambda reader: self._kind.count(reader, *part.where)
        )

    async def _pages(self, part: Part) -> AsyncIterator[FileReference]:
        after: tuple[Any, ...] | None = None

        def read(reader: Reader) -> tuple[list[FileReference], tuple[Any, ...] | None]:
            if self._check is not None:
                self._check(reader)
            order = part.sortable(reader.dialect)
            follows = [] if after is None else [beyond(order, after)]
            rows = self._kind.select(reader, *part.where, *follows, order=order, limit=self._page)
            found = [self._kind.reference(reader, row) for row in rows]
            return found, tuple(rows[-1][-len(order) :]) if rows else None

        while True:
            found, after = await run_with_reader(self._sessions, self._kind.mapper, read)
            for reference in found:
                yield reference
            if after is None:
                return


def references(sessions: Sessions, kind: Kind, *, page: int = PAGE) -> Scan:
    """Return a scan of all files that committed rows of a kind name; iterate over it with ``async for``."""
    return Scan(sessions, kind, page=page)


async def reread(sessions: Sessions, kind: Kind, reference: FileReference) -> FileReference | None:
    """Return the file that a row names now; ``None`` if the row no longer exists.

    The row is looked up by its file first, because its primary key may have changed, then by its primary key.
    """

    def read(reader: Reader) -> FileReference | None:
        if isinstance(kind, ImageKind) and reference.key is not None and reference.key.revision is not None:
            revision = kind.column(kind.mapper.columns["revision"])
            for found in kind.find(reader, revision == reference.key.revision, limit=1):
                return found
        for found in kind.find(reader, *kind.at(reference.identity), limit=1):
            return found
        return None

    return await run_with_reader(sessions, kind.mapper, read)


async def named(sessions: Sessions, kind: Kind, names: Collection[str], store: KeyedStore) -> set[str]:
    """Return the names of files that committed rows of a kind name; see :meth:`Kind.named`."""
    return await run_with_reader(sessions, kind.mapper, lambda reader: kind.named(reader, names, store))


async def count(sessions: Sessions, kind: Kind) -> int:
    """Return the number of rows of a kind that name files."""
    return await run_with_reader(sessions, kind.mapper, kind.count)


def beyond(columns: Sequence[ColumnElement[Any]], after: Sequence[Any]) -> ColumnElement[bool]:
    """Return the condition for rows that sort after some values, in a form for which every database uses an index."""
    first, *rest = columns
    value = bindparam(None, after[0], first.type)  # SQLAlchemy would not treat a plain True or False as a value
    if not rest:
        return first > value
    return and_(first >= value, or_(first > value, beyond(rest, after[1:])))
