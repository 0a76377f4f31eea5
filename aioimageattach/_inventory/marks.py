"""Rows with marks. A mark records that all files of a declared thumbnail are in the store."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Row, bindparam, update

from .._batches import batched
from ..entity._derived import MARKS, marked_files
from ..store import KeyedStore
from .declared import DeclaredKind
from .images import ImageKind
from .kind import PAGE, FileReference, Kind, Part, family
from .reader import Reader, Sessions, run_with_reader

__all__ = ["MarkedKind", "MarkedRow", "marked_kinds", "write_marks"]


@dataclass(frozen=True, slots=True)
class MarkedRow:
    """A row with marks.

    Args:
        reference: The file of the original.
        marks: The marks, separated by spaces.
        files: The names of the files of each mark that is valid for the store.
    """

    reference: FileReference
    marks: str
    files: dict[str, list[str]]

    @property
    def names(self) -> list[str]:
        """The names of all files."""
        return [name for names in self.files.values() for name in names]

    def without(self, missing: Iterable[str]) -> str | None:
        """Return the valid marks whose files are not among the missing ones; ``None`` if there are none."""
        gone = {*missing}
        return " ".join(mark for mark, names in self.files.items() if gone.isdisjoint(names)) or None


class MarkedKind(DeclaredKind):
    """The originals of an image class that have marks and a revision."""

    def where(self) -> list[ColumnElement[bool]]:
        """Return the conditions on the rows."""
        return [*super().where(), self.column(self.mapper.columns[MARKS]).is_not(None)]

    def parts(self) -> Sequence[Part]:
        """Return the rows with a revision, because others are never marked."""
        return super().parts()[:1]

    def rows(self, reader: Reader, store: KeyedStore, *where: ColumnElement[bool]) -> list[MarkedRow]:
        """Return the rows that :meth:`select` reads, except those without a valid key."""
        found = [self.marked(reader, row, store) for row in self.select(reader, *where)]
        return [one for one in found if one is not None]

    def marked(self, reader: Reader, row: Row[Any], store: KeyedStore) -> MarkedRow | None:
        """Return the marks of a row that was read by :meth:`select`; ``None`` if the row has no valid key."""
        reference, values = self.reference(reader, row), self.values_of(row)
        if reference.key is None:
            return None
        return MarkedRow(reference, values[MARKS], marked_files(reference.cls, reference.key, values, store))

    def with_revisions(self, store: KeyedStore, revisions: Iterable[str], reader: Reader) -> list[MarkedRow]:
        """Return the rows with the given revisions."""
        column, batches = self.column(self.source), batched(sorted({*revisions}), PAGE)
        return [row for batch in batches for row in self.rows(reader, store, column.in_(batch))]


def marked_kinds(kinds: Iterable[Kind]) -> list[MarkedKind]:
    """Return the classes whose rows may have marks."""
    found: list[MarkedKind] = []
    for kind in kinds:
        mappers = family(kind.mapper) if isinstance(kind, ImageKind) else []
        marked = [mapper for mapper in mappers if MARKS in mapper.column_attrs]
        found += [MarkedKind(mapper) for mapper in marked if mapper.inherits not in marked]
    return found


async def write_marks(sessions: Sessions, kind: MarkedKind, row: MarkedRow, marks: str | None) -> None:
    """Replace the marks of a row, unless they have changed in the meantime.

    Each row is written in a separate transaction. One that waits for a row while it has locked another one could cause
    a deadlock in the application.

    Raises:
        DeclarationError: The sessions are bound to a connection.
    """
    columns = kind.mapper.columns
    column, table = columns[MARKS], columns[MARKS].table
    same: list[ColumnElement[bool]] = [column == row.marks]
    for key, value in zip(kind.mapper.primary_key, row.reference.identity, strict=True):
        # With joined inheritance, the marks may be in another table than the mapper's primary key.
        own = [one for one in kind.mapper.get_property_by_column(key).columns if one.table is table]
        same += [one == bindparam(None, value, one.type) for one in own]
    statement = update(table).where(*same).values({column: marks})
    await run_with_reader(sessions, kind.mapper, lambda reader: reader.connection.execute(statement), commit=True)
