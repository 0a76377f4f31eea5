"""The files of an offloaded attribute."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import Any

from sqlalchemy import Column, ColumnElement, Row, Text, select, type_coerce
from sqlalchemy.orm import Mapper

from .._batches import batched
from .._filenames import UNKNOWN_TYPE
from ..exc import DamagedValueError
from ..offload._columns import columns_of, settings_of
from ..offload._reference import INLINE_MARKS, parse_name
from ..store import KeyedStore
from .kind import PAGE, FileReference, Kind, Part
from .reader import Reader

__all__ = ["StoredKind"]


class StoredKind(Kind):
    """The files of one offloaded attribute.

    Args:
        mapper: The mapper of the class that declares the attribute.
        key: The name of the attribute.
    """

    def __init__(self, mapper: Mapper[Any], key: str) -> None:
        super().__init__(mapper)
        self.key: str = key
        self._object_type: str = settings_of(self.source).object_type or ""

    @property
    def object_types(self) -> frozenset[str]:
        """The object type with which all names begin."""
        return frozenset({self._object_type})

    @property
    def source(self) -> Column[Any]:
        """The column of the attribute."""
        return columns_of(self.mapper)[self.key]

    def parts(self) -> Sequence[Part]:
        """Return one part with all rows, in order of the primary key."""
        return (Part((), tuple(self.primary_key), stable=False),)

    def reference(self, reader: Reader, row: Row[Any]) -> FileReference:
        """Return the file of a row's value."""
        values = self.values_of(row)
        mapper = self._mapper_of(values) or self.mapper
        content, damage = None, None
        try:
            name = values[self.key].name
            content = None if name is None else parse_name(name)
        except DamagedValueError as error:
            damage = error.with_traceback(None)
        plain = content is not None and content.compression is None
        return FileReference(
            cls=mapper.class_,
            identity=self._identity(values),
            object_type=self._object_type,
            key=None,
            name=None if content is None else content.name,
            mimetype=UNKNOWN_TYPE if content is None else content.mimetype(settings_of(self.source).cls.mimetype),
            size=None if content is None else content.stored,
            sha256=content.sha256 if content is not None and plain else None,
            reproducible=False,
            created_at=None,
            content=content,
            damage=damage,
        )

    def can_have(self, name: str) -> bool:
        """Return whether the name belongs to a file of this attribute."""
        found = parse_name(name)
        return found is not None and found.object_type == self._object_type

    def named(self, reader: Reader, names: Collection[str], store: KeyedStore) -> set[str]:
        """Return the names that rows contain. Fast if the column is declared with ``index=True``."""
        column = type_coerce(self.source, Text())
        found = set[str]()
        wanted = [str(content) for name in names if (content := parse_name(name)) is not None]
        for batch in batched(wanted, PAGE):
            query = select(column).where(column.in_(batch))
            found.update(raw[1:] for raw in reader.connection.scalars(query))
        return found

    def where(self) -> list[ColumnElement[bool]]:
        """Return the conditions for rows whose value is in a file, not inline."""
        column = self.column(self.source)
        raw = type_coerce(column, Text())
        return [*super().where(), column.is_not(None), *(raw.not_like(f"{mark}%") for mark in INLINE_MARKS)]

    @cached_property
    def columns(self) -> Mapping[str, ColumnElement[Any]]:
        """The columns of the value and of the primary key, by attribute."""
        found = super().columns
        wanted = {self.key, "", *(self.mapper.get_property_by_column(one).key for one in self.mapper.primary_key)}
        return {key: column for key, column in found.items() if key in wanted}

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.cls.__name__}.{self.key}>"
