"""Kind: one kind of files that rows name, with the statements that read the rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, Final, cast

from sqlalchemy import (
    CHAR,
    Column,
    ColumnElement,
    Double,
    Enum,
    Float,
    FromClause,
    Row,
    Table,
    bindparam,
    func,
    select,
)
from sqlalchemy import cast as sql_cast
from sqlalchemy.orm import Mapper

from ..exc import ImageAttachError
from ..key import ImageKey
from ..offload._reference import Reference as ValueReference
from ..store import KeyedStore
from .reader import Reader

__all__ = ["PAGE", "FileReference", "Kind", "Part", "family"]

PAGE: Final = 1000
"""Number of rows or names per statement."""


@dataclass(frozen=True, slots=True)
class FileReference:
    """One file that a committed row names.

    Args:
        cls: The mapped class of the row, the most derived one.
        identity: The primary key of the row.
        object_type: The object type, with which the file's name begins; empty if the row does not determine it.
        key: Identifies the file in a store; ``None`` if the row contains the name itself.
        name: The name that the row contains; ``None`` if the name is derived from the key.
        mimetype: The MIME type of the file.
        size: The size in bytes; ``None`` if the row does not contain it.
        sha256: The SHA-256 of the file, 64 hexadecimal digits; ``None`` if the row does not contain it.
        reproducible: ``True`` if the file can be made again from another one.
        created_at: When the row was created; ``None`` if the row does not contain it.
        content: The facts in the name of an offloaded value; ``None`` for an image.
        damage: The reason why no valid file name can be derived from the row; ``None`` if there is a valid name.
    """

    cls: type[Any]
    identity: tuple[Any, ...]
    object_type: str
    key: ImageKey | None
    name: str | None
    mimetype: str
    size: int | None
    sha256: str | None
    reproducible: bool
    created_at: datetime | None
    content: ValueReference | None = None
    damage: ImageAttachError | None = None

    def name_in(self, store: KeyedStore) -> str:
        """Return the name of the file in a store.

        Raises:
            InvalidKeyError: The store cannot have such a file, or no name can be derived from the row.
            DamagedValueError: The row of an offloaded value contains no valid name.
        """
        if self.damage is not None:
            raise self.damage
        return store.name_of(self.key) if self.key is not None else cast("str", self.name)


class Kind(ABC):
    """The files that one attribute of a mapped class and of its subclasses names.

    Args:
        mapper: The mapper of the class.
    """

    def __init__(self, mapper: Mapper[Any]) -> None:
        self.mapper: Mapper[Any] = mapper

    @property
    def cls(self) -> type[Any]:
        """The mapped class."""
        return self.mapper.class_

    @property
    @abstractmethod
    def object_types(self) -> frozenset[str] | None:
        """The object types of the files; ``None`` if they depend on the row."""

    @property
    def tables(self) -> tuple[Table, ...]:
        """The tables that contain the rows."""
        found = dict.fromkeys(table for one in family(self.mapper) for table in one.tables)
        return tuple(table for table in found if isinstance(table, Table))

    @property
    @abstractmethod
    def source(self) -> Column[Any]:
        """The column whose values name the files."""

    @property
    def place(self) -> str:
        """The source column as ``table.column``; equal for two kinds that read the same column."""
        table = self.source.table  # with concrete inheritance, a subquery of a union
        return f"{getattr(table, 'fullname', table.description)}.{self.source.name}"

    @abstractmethod
    def parts(self) -> Sequence[Part]:
        """Return the parts in which :class:`Scan` reads the rows."""

    @abstractmethod
    def reference(self, reader: Reader, row: Row[Any]) -> FileReference:
        """Return the file that a row names; the row was read by :meth:`select`."""

    @abstractmethod
    def can_have(self, name: str) -> bool:
        """Return whether a file of this kind can have the name. Files with other names belong to other programs."""

    @abstractmethod
    def named(self, reader: Reader, names: Collection[str], store: KeyedStore) -> set[str]:
        """Return the names of files in a store that rows name. May over-report."""

    def where(self) -> list[ColumnElement[bool]]:
        """Return the conditions that select the kind's rows from a shared table."""
        concrete = any(mapper.concrete for mapper in self.mapper.self_and_descendants if mapper is not self.mapper)
        if self.mapper.polymorphic_on is None or not (self.mapper.single or concrete):
            return []
        return [self.mapper.polymorphic_on.in_([mapper.polymorphic_identity for mapper in family(self.mapper)])]

    def select(
        self,
        reader: Reader,
        *where: ColumnElement[bool],
        order: Sequence[ColumnElement[Any]] = (),
        limit: int | None = None,
    ) -> Sequence[Row[Any]]:
        """Return rows with all columns that :meth:`reference` needs, followed by the values of ``order``."""
        columns = [column.label(f"c{number}") for number, column in enumerate(self.columns.values())]
        extra = [column.label(f"o{number}") for number, column in enumerate(order)]
        query = select(*columns, *extra).select_from(self.selectable).where(*self.where(), *where)
        return reader.connection.execute(query.order_by(*order).limit(limit)).all()

    def find(self, reader: Reader, *where: ColumnElement[bool], limit: int) -> list[FileReference]:
        """Return the files that the selected rows name."""
        return [self.reference(reader, row) for row in self.select(reader, *where, limit=limit)]

    def at(self, identity: Sequence[Any]) -> list[ColumnElement[bool]]:
        """Return the conditions for the row with a primary key."""
        return [
            column == bindparam(None, value, column.type)
            for column, value in zip(self.primary_key, identity, strict=True)
        ]

    def count(self, reader: Reader, *where: ColumnElement[bool]) -> int:
        """Return the number of rows."""
        query = select(func.count()).select_from(self.selectable).where(*self.where(), *where)
        return cast("int", reader.connection.scalar(query))

    @property
    def primary_key(self) -> list[ColumnElement[Any]]:
        """The columns of the primary key, as :meth:`select` reads them."""
        return [self.column(column) for column in self.mapper.primary_key]

    def column(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        """Return a column of a table as :meth:`select` reads it."""
        found = self.selectable.corresponding_column(cast("Any", column))
        return cast("ColumnElement[Any]", found)

    @cached_property
    def selectable(self) -> FromClause:
        """The table, the join or the union from which rows are read."""
        return self.mapper.selectable

    @cached_property
    def columns(self) -> Mapping[str, ColumnElement[Any]]:
        """The columns to read, by attribute; the empty attribute is the discriminator of the row's class."""
        found: dict[str, ColumnElement[Any]] = {}
        for prop in self.mapper.column_attrs:
            column = self.selectable.corresponding_column(cast("Any", prop.columns[0]))
            if column is not None:  # otherwise it is an expression, which the row loads if it is needed
                found[prop.key] = column
        if self.mapper.polymorphic_on is not None:
            found[""] = self.column(self.mapper.polymorphic_on)
            if found[""] is None:
                found[""] = self.mapper.polymorphic_on
        return found

    def values_of(self, row: Row[Any]) -> dict[str, Any]:
        """Return the values of a row that :meth:`select` has read, by attribute."""
        return dict(zip(self.columns, row, strict=False))

    def _mapper_of(self, values: Mapping[str, Any]) -> Mapper[Any] | None:
        """Return the mapper of a row; ``None`` if no imported class has the row's polymorphic identity."""
        if "" not in values:
            return self.mapper
        return self.mapper.polymorphic_map.get(values[""])

    def _identity(self, values: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(values[self.mapper.get_property_by_column(column).key] for column in self.mapper.primary_key)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.cls.__name__}>"


@dataclass(frozen=True, slots=True)
class Part:
    """Rows with an order in which they can be read page by page.

    Args:
        where: Conditions in addition to those of the kind.
        order: The columns to sort by; their values are unique.
        stable: ``True`` if a row never moves to an earlier position, so that a scan cannot miss it.
    """

    where: tuple[ColumnElement[bool], ...]
    order: tuple[ColumnElement[Any], ...]
    stable: bool

    def sortable(self, dialect: str) -> tuple[ColumnElement[Any], ...]:
        """Return the order as expressions that the database sorts in the same order as it compares them.

        MySQL sorts an ENUM by its index and compares it as a string, and it returns FLOATs with fewer digits.
        """
        return tuple(_sortable(column, dialect) for column in self.order)


def _sortable(column: ColumnElement[Any], dialect: str) -> ColumnElement[Any]:
    if dialect not in ("mysql", "mariadb"):
        return column
    if isinstance(column.type, Enum):
        return sql_cast(column, CHAR)
    if isinstance(column.type, Float):
        return sql_cast(column, Double)
    return column


def family(mapper: Mapper[Any]) -> list[Mapper[Any]]:
    """Return a mapper, and its descendants whose rows are in its tables."""
    found = [mapper]
    for other in mapper.self_and_descendants:
        if other.inherits in found and not other.concrete:
            found.append(other)
    return found
