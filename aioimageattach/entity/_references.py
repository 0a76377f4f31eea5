"""The query for image files that committed rows reference, made before a file is discarded."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from sqlalchemy import Column, select
from sqlalchemy.engine import Connection
from sqlalchemy.orm import Mapper

from .._batches import batched
from .._transaction.references import Referrer, TrackedFile
from ..key import ImageKey
from ._image import Image
from ._stored_rows import key_columns, new_instance

__all__ = ["ImageReferrer", "object_types"]

_PAGE: Final = 1000
"""Maximum number of files per statement."""

_LEGACY_ROWS: Final = 1000
"""Number of rows without a revision that are read to look for one file. If there may be more, the file is kept."""


@dataclass(frozen=True, slots=True)
class ImageReferrer(Referrer):
    """The rows of an image class, and of other classes whose files have the same object type."""

    def referenced(self, connection: Connection, files: Sequence[TrackedFile]) -> Collection[TrackedFile]:
        """See :meth:`Referrer.referenced`."""
        keys = {file: cast("ImageKey", file.key) for file in files}
        mappers = list(self._mappers({key.object_type for key in keys.values()}))
        revisions = _referenced_revisions(
            connection, mappers, {key.revision for key in keys.values() if key.revision is not None}
        )
        return {
            file
            for file, key in keys.items()
            if (key.revision in revisions if key.revision is not None else _legacy(connection, mappers, key))
        }

    def _mappers(self, types: Collection[str]) -> Iterator[Mapper[Any]]:
        """Yield one mapper for each table whose rows may reference files of these object types."""
        seen: set[Any] = set()
        for mapper in (self.mapper, *self.mapper.registry.mappers):
            if not issubclass(mapper.class_, Image) or "revision" not in mapper.columns:
                continue
            table = mapper.columns["revision"].table
            if table not in seen and (mapper.isa(self.mapper) or _may_have(mapper, types)):
                seen.add(table)
                yield mapper


def object_types(mappers: Iterable[Mapper[Any]]) -> frozenset[str] | None:
    """Return the object types of some image classes; ``None`` if they depend on the row."""
    found = set[str]()
    for one in mappers:
        cls: Any = one.class_
        if cls.object_type is Image.object_type:
            found.add(str(one.local_table.description).replace("_", "-"))
            continue
        try:
            found.add(cls.__new__(cls).object_type)
        except Exception:  # the property reads a column, which has no value in this instance
            return None
    return frozenset(found)


def _may_have(mapper: Mapper[Any], types: Collection[str]) -> bool:
    known = object_types(mapper.self_and_descendants)
    return known is None or not known.isdisjoint(types)


def _referenced_revisions(
    connection: Connection, mappers: Sequence[Mapper[Any]], revisions: Collection[str]
) -> set[str]:
    ordered = sorted(revisions)
    found: set[str] = set()
    for mapper in mappers:
        column: Column[Any] = mapper.columns["revision"]
        for batch in batched(ordered, _PAGE):
            query = select(column).where(column.in_(batch))
            found.update(revision.casefold() for revision in connection.scalars(query))
    return {revision for revision in ordered if revision.casefold() in found}


def _legacy(connection: Connection, mappers: Sequence[Mapper[Any]], key: ImageKey) -> bool:
    """Return whether a row without a revision may reference the file of a key without a revision."""
    for mapper in mappers:
        columns = key_columns(mapper)
        query = (
            select(*columns.values())
            .select_from(mapper.selectable)
            .where(columns["revision"].is_(None), columns["width"] == key.width, columns["height"] == key.height)
            .limit(_LEGACY_ROWS)
        )
        rows = connection.execute(query).all()
        images = (new_instance(mapper, dict(zip(columns, row, strict=True))) for row in rows)
        if len(rows) == _LEGACY_ROWS or any(_names(image, key) for image in images if image is not None):
            return True
    return False


def _names(image: Image, key: ImageKey) -> bool:
    try:
        return image._stored_key() == key
    except Exception:  # object_type or object_id may use attributes that are available only in a session
        return True
