"""Originals with the columns that matter for declared thumbnails, including those that subclasses add."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, Final

from sqlalchemy import ColumnElement, FromClause, Row, inspect
from sqlalchemy.orm import Mapper, with_polymorphic

from .._declared.framing import COLUMNS
from ..entity._derived import MARKS
from .images import ImageKind
from .kind import family

__all__ = ["DeclaredKind"]

_NAMES: Final = frozenset((*COLUMNS, MARKS, "thumbhash"))


class DeclaredKind(ImageKind):
    """The originals of an image class and of its subclasses, some of which may have mixins that the class lacks."""

    @cached_property
    def selectable(self) -> FromClause:
        """The tables of the class, joined with those of its subclasses."""
        if any(mapper.concrete for mapper in self.mapper.self_and_descendants):
            return super().selectable  # a union, which has all columns
        tables: FromClause = inspect(with_polymorphic(self.cls, "*")).selectable
        return tables

    def where(self) -> list[ColumnElement[bool]]:
        """Return the conditions on the rows."""
        return [*super().where(), self.column(self.mapper.columns["original"]).is_(True)]

    @cached_property
    def columns(self) -> Mapping[str, ColumnElement[Any]]:
        """The columns to read, by attribute; those that a subclass adds have the keys of ``_added``."""
        added = [(key, mapper.columns[name]) for mapper, names in self._added.items() for name, key in names.items()]
        return {**super().columns, **{key: self.column(column) for key, column in added}}

    @cached_property
    def _added(self) -> dict[Mapper[Any], dict[str, str]]:
        """The attributes that each class of the family adds, with the keys of their columns."""
        names = _NAMES.difference(self.mapper.columns.keys())
        return {
            mapper: {name: f"{number}.{name}" for name in sorted(names.intersection(mapper.columns.keys()))}
            for number, mapper in enumerate(family(self.mapper))
        }

    def values_of(self, row: Row[Any]) -> dict[str, Any]:
        """Return the values of a row by attribute, including the attributes that its class adds."""
        values = super().values_of(row)
        mapper = self._mapper_of(values) or self.mapper
        return values | {name: values[key] for name, key in self._added.get(mapper, {}).items()}
