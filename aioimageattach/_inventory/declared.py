"""Originals with the columns that matter for declared thumbnails, including those that subclasses add."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, Final

from sqlalchemy import ColumnElement, FromClause, Row, inspect
from sqlalchemy.orm import with_polymorphic

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
        """The columns to read, by attribute; those that a subclass adds have its position in the family as a prefix."""
        found = dict(super().columns)
        for number, mapper in enumerate(family(self.mapper)):
            for name in sorted(_NAMES.intersection(mapper.columns.keys()).difference(found)):
                found[f"{number}.{name}"] = self.column(mapper.columns[name])
        return found

    def values_of(self, row: Row[Any]) -> dict[str, Any]:
        """Return the values of a row by attribute, including the attributes of its own class."""
        values = super().values_of(row)
        mapper, mappers = self._mapper_of(values), family(self.mapper)
        prefix = f"{mappers.index(mapper)}." if mapper in mappers else "-"
        own = {key.removeprefix(prefix): value for key, value in values.items() if key.startswith(prefix)}
        return values | own
