"""Write to the rows of originals which declared thumbnails exist, and their placeholders."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from sqlalchemy import Update, bindparam, func, select, update
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.orm import Mapper

from .._declared.maker import Thumbnail
from .._declared.srcset import Declarations
from .._inventory import ImageKind, Sessions, run_with_reader
from .._inventory.marks import marked_kinds, write_marks
from ..entity import Image
from ..entity._derived import MARKS, declarations_of, marks_for
from ..entity._mapping import mapper_of
from ..entity._mixins import values_of
from ..store import KeyedStore
from ._maker import Made
from ._originals import written_columns

__all__ = ["drop_outdated_marks", "has_marks", "write_results"]


async def write_results(
    sessions: async_sessionmaker[Any], classes: Iterable[type[Image]], store: KeyedStore, results: Iterable[Made]
) -> None:
    """Set the marks of originals, and fill in placeholders that are missing.

    No transaction waits for a row while it has locked another one, so it cannot cause a deadlock in the application.
    Rows whose image has been replaced or deleted in the meantime do not change. A mark is set if the files of its
    thumbnail all exist, and if the result covers all thumbnails that the class declares.

    Args:
        sessions: Factory of sessions.
        classes: Image classes, including their subclasses. Those with neither
            :class:`~aioimageattach.entity.ThumbnailMarks` nor :class:`~aioimageattach.entity.Placeholder` are skipped.
        store: The store.
        results: The results of :meth:`ThumbnailMaker.make_missing`.

    Raises:
        SQLAlchemyError: The database could not be written.
    """
    found = list(results)
    mappers = {mapper: None for cls in classes for mapper in mapper_of(cls).self_and_descendants}
    for mapper in mappers:
        rows = _rows(mapper, store, found)
        written = await _write(sessions, mapper, rows) if rows else set()
        for row in rows:
            if row["of"] not in written:
                await _write(sessions, mapper, [row])


async def _write(
    sessions: async_sessionmaker[Any], mapper: Mapper[Any], rows: Sequence[Mapping[str, str | None]]
) -> set[str | None]:
    """Write to one row, or to those of several rows that no other transaction has locked; return their revisions."""
    statement, column = _update(mapper), mapper.columns["revision"]
    written = {row["of"] for row in rows}
    async with sessions.begin() as session:
        connection = await session.connection(bind_arguments={"mapper": mapper, "clause": statement})
        if len(rows) > 1 and connection.dialect.name != "sqlite":  # which has no locks on rows
            query = select(column).where(column.in_(written)).with_for_update(skip_locked=True)
            written = {*await connection.scalars(query)}
        if written:
            await connection.execute(statement, [row for row in rows if row["of"] in written])
    return written


def has_marks(cls: type[Image]) -> bool:
    """Return whether rows of a class may have marks."""
    return any(MARKS in mapper.columns for mapper in mapper_of(cls).self_and_descendants)


async def drop_outdated_marks(
    sessions: Sessions, classes: Iterable[type[Image]], store: KeyedStore, revisions: Iterable[str]
) -> None:
    """Remove the marks of originals that are not valid for the current declarations.

    Otherwise such a mark would become valid again if a previous declaration is restored, although the files are gone.

    Args:
        sessions: Factory of sessions.
        classes: Image classes, including their subclasses.
        store: The store.
        revisions: The revisions of the originals.

    Raises:
        SQLAlchemyError: The database could not be read or written.
    """
    wanted = {*revisions}
    for kind in marked_kinds(ImageKind(mapper_of(cls)) for cls in classes):
        for row in await run_with_reader(sessions, kind.mapper, partial(kind.with_revisions, store, wanted)):
            marks = row.without(())
            if marks != row.marks:
                await write_marks(sessions, kind, row, marks)


def _rows(mapper: Mapper[Any], store: KeyedStore, results: Sequence[Made]) -> list[dict[str, str | None]]:
    """Return the values to write, ordered by revision."""
    declared, names = declarations_of(mapper.class_), written_columns(mapper)
    found: dict[str, dict[str, str | None]] = {}
    for result in results:
        own = [one for one in result.thumbnails if declared.get(one.declaration.name) is one.declaration]
        if not own:
            continue
        values = {MARKS: _marks(declared, own, result, store), **values_of(result.preview)}
        revision = result.original.revision
        row = {f"new_{name}": values.get(name) for name in names}
        if any(row.values()):
            found[revision] = {"of": revision, **row}
    return [found[revision] for revision in sorted(found)]


def _marks(declared: Declarations, own: Sequence[Thumbnail], result: Made, store: KeyedStore) -> str | None:
    """Return the marks of the thumbnails whose files all exist; ``None`` if not all thumbnails were considered."""
    if {one.declaration.name for one in own} != {*declared}:
        return None
    complete = [(one.declaration, one.framing) for one in result.complete if one in own]
    return marks_for(complete, store, result.original.object_type)


def _update(mapper: Mapper[Any]) -> Update:
    """Return an UPDATE that replaces marks, fills in what else is NULL, and keeps the rest."""
    columns = mapper.columns
    values: dict[Any, Any] = {}
    for name in written_columns(mapper):
        column = columns[name]
        new = bindparam(f"new_{name}", type_=column.type)
        values[column] = func.coalesce(new, column) if name == MARKS else func.coalesce(column, new)
    return update(columns["revision"].table).where(columns["revision"] == bindparam("of")).values(values)
