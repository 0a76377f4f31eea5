"""Mark the rows of originals whose declared thumbnails exist, so that their URLs point directly to the store."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any

from sqlalchemy import bindparam, update
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.orm import Mapper

from .._inventory import ImageKind, Sessions, run_with_reader
from .._inventory.marks import marked_kinds, write_marks
from ..entity import Image
from ..entity._derived import MARKS, declarations_of, marks_for
from ..entity._mapping import mapper_of
from ..store import KeyedStore
from ._maker import Made

__all__ = ["drop_outdated_marks", "has_marks", "set_marks"]


async def set_marks(
    sessions: async_sessionmaker[Any], classes: Iterable[type[Image]], store: KeyedStore, results: Iterable[Made]
) -> None:
    """Set the marks of originals, in one transaction.

    Rows whose image has been replaced or deleted in the meantime do not change. A result is used for a class only if
    it covers all thumbnails that the class declares. The thumbnails whose files all exist are marked.

    Args:
        sessions: Factory of sessions.
        classes: Image classes, including their subclasses. Those without
            :class:`~aioimageattach.entity.ThumbnailMarks` are skipped.
        store: The store.
        results: The results of :meth:`ThumbnailMaker.make_missing`.

    Raises:
        SQLAlchemyError: The database could not be written.
    """
    found = list(results)
    statements = {mapper: _marked(mapper, store, found) for mapper in _marking(classes)}
    if not any(statements.values()):
        return
    async with sessions.begin() as session:
        for mapper, rows in statements.items():
            if rows:
                column = mapper.columns[MARKS]
                statement = update(column.table).where(mapper.columns["revision"] == bindparam("of"))
                connection = await session.connection(bind_arguments={"mapper": mapper})
                await connection.execute(statement.values({column: bindparam("marks")}), rows)


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
        rows = await run_with_reader(sessions, kind.mapper, partial(kind.with_revisions, store, wanted))
        kept = [(row, row.without(())) for row in rows]
        await write_marks(sessions, kind, [(row, marks) for row, marks in kept if marks != row.marks])


def _marking(classes: Iterable[type[Image]]) -> Iterator[Mapper[Any]]:
    """Yield the mappers of the classes that have marks, and each column only once."""
    for cls in classes:
        for mapper in mapper_of(cls).self_and_descendants:
            columns = mapper.columns
            if MARKS in columns and columns[MARKS].table is columns["revision"].table:
                yield mapper


def _marked(mapper: Mapper[Any], store: KeyedStore, results: Sequence[Made]) -> list[dict[str, str]]:
    """Return the parameters of the UPDATE, ordered by revision, so that concurrent transactions do not deadlock."""
    declared = declarations_of(mapper.class_)
    found: dict[str, str] = {}
    for result in results:
        about = {id(one.declaration) for one in result.thumbnails}
        if not declared or not about.issuperset(map(id, declared.values())):
            continue
        framings = [
            (one.declaration, one.framing)
            for one in result.complete
            if declared.get(one.declaration.name) is one.declaration
        ]
        marks = marks_for(framings, store, result.original.object_type)
        if marks:
            found[result.original.revision] = marks
    return [{"of": revision, "marks": found[revision]} for revision in sorted(found)]
