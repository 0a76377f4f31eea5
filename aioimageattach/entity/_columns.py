"""The columns that an application adds to an image class, and how new rows copy their values."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Final
from weakref import WeakKeyDictionary

from sqlalchemy import Column, Table, UniqueConstraint
from sqlalchemy.orm import MappedColumn, Mapper, RelationshipDirection
from sqlalchemy.orm.attributes import set_attribute

from ._image import Image
from ._mapping import SIZE, Attachment, identity_attributes
from ._mixins import CropBox, FocalPoint, Placeholder, ThumbnailMarks

__all__ = ["OwnColumns", "copy_values", "is_unique", "own_columns"]


@dataclass(frozen=True, slots=True)
class OwnColumns:
    """The columns of an image class that belong to the application.

    Args:
        copied: Attributes that a thumbnail copies from its original.
        kept: Attributes that an image copies from the image that it replaces.
        cleared: The attributes in ``kept`` with a unique constraint. They are set to NULL in the replaced row first,
            because SQLAlchemy inserts rows before it deletes others.
        references: Relationships to other objects, with the attributes of their foreign keys.
        owners: Relationships to the owner.
        empty: Attributes that are set to ``None`` in a new row. Without a value, SQLAlchemy would load them after the
            flush, which synchronous code cannot do.
        ours: The attributes in ``empty`` that belong to the library.
    """

    copied: frozenset[str]
    kept: frozenset[str]
    cleared: frozenset[str]
    references: tuple[tuple[str, frozenset[str]], ...]
    owners: tuple[str, ...]
    empty: tuple[str, ...]
    ours: frozenset[str]


_OURS: Final = {
    cls: frozenset(name for name, value in vars(cls).items() if isinstance(value, MappedColumn))
    for cls in (Image, FocalPoint, CropBox, Placeholder, ThumbnailMarks)
}
"""The columns of the library, by the class that maps them."""

_known: WeakKeyDictionary[Mapper[Any], dict[str, OwnColumns]] = WeakKeyDictionary()


def own_columns(attachment: Attachment) -> OwnColumns:
    """Return the application's columns of an attachment's images."""
    mapper, key = attachment.image, str(attachment.relationship)
    memo = _known.setdefault(mapper, {})
    if key not in memo:
        memo[key] = _own_columns(attachment)
    return memo[key]


def copy_values(
    row: Image, source: Image, names: Collection[str], references: Iterable[tuple[str, frozenset[str]]]
) -> None:
    """Copy attribute values to a new row from another one."""
    values = source.__dict__
    for name in names:
        if name in values:
            set_attribute(row, name, deepcopy(values[name]))
    for name, keys in references:
        # copy the related object too: its key is unknown until it is flushed
        if keys <= set(names) and values.get(name) is not None and None in {values.get(key) for key in keys}:
            set_attribute(row, name, values[name])


def _own_columns(attachment: Attachment) -> OwnColumns:
    mapper = attachment.image
    columns = dict(_candidates(attachment))
    unique = {name for name, column in columns.items() if is_unique(mapper, column)}
    nullable = {name for name, column in columns.items() if column.nullable}
    own = {name for name in unique - nullable if columns[name].default is not None or columns[name].server_default}
    many_to_one = [one for one in mapper.relationships if one.direction is RelationshipDirection.MANYTOONE]
    to_owner = {(remote, local) for local, remote in attachment.relationship.local_remote_pairs or ()}
    empty = tuple(prop.key for prop in mapper.column_attrs if _is_empty(prop.columns[0]))
    return OwnColumns(
        copied=frozenset(columns.keys() - own - (nullable & {*unique, attachment.position})),
        kept=frozenset(columns.keys() - own),
        cleared=frozenset(unique & nullable),
        references=tuple(
            (one.key, frozenset(mapper.get_property_by_column(local).key for local in one.local_columns))
            for one in many_to_one
        ),
        owners=tuple(
            one.key
            for one in many_to_one
            if set(one.local_remote_pairs or ()) == to_owner and attachment.owner.isa(one.mapper)
        ),
        empty=empty,
        ours=_ours(mapper).intersection(empty),
    )


def _candidates(attachment: Attachment) -> Iterator[tuple[str, Column[Any]]]:
    mapper = attachment.image
    ours = {*_ours(mapper), *identity_attributes(mapper), *attachment.set_attributes, *attachment.constants}
    for prop in mapper.column_attrs:
        column = prop.columns[0]
        if prop.key in ours or not isinstance(column, Column):
            continue
        special = column is mapper.version_id_col or column is mapper.polymorphic_on or column.computed is not None
        # the file of an offloaded value belongs to one row; the database fills in a sentinel
        if not special and not getattr(column.type, "belongs_to_row", False) and not column._insert_sentinel:
            yield prop.key, column


def _ours(mapper: Mapper[Any]) -> frozenset[str]:
    return frozenset(name for cls, names in _OURS.items() if issubclass(mapper.class_, cls) for name in names)


def _is_empty(column: object) -> bool:
    """Return whether a column becomes NULL if a row is inserted without a value for it."""
    return (
        isinstance(column, Column)
        and bool(column.nullable)
        and column.default is None
        and column.server_default is None
        and not getattr(column.type, "belongs_to_row", False)
    )


def is_unique(mapper: Mapper[Any], column: Column[Any]) -> bool:
    """Return whether two rows of one image set cannot have the same value in a column."""
    table = column.table
    assert isinstance(table, Table)
    sides = {mapper.columns[name] for name in SIZE}
    several = [set(one.columns) for one in table.constraints if isinstance(one, UniqueConstraint)]
    several += [set(index.columns) for index in table.indexes if index.unique]
    return any(column in columns and not columns & sides for columns in several)
