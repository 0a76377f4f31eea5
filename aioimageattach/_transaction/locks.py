"""Locks on the rows that files belong to. All transactions take them in the same order, which avoids deadlocks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Column, ColumnElement, select, tuple_
from sqlalchemy.engine import Connection
from sqlalchemy.orm import InstanceState, Mapper

from .._batches import batched

__all__ = ["PAGE", "OwnerRow", "among", "lock_owners", "root_of"]

PAGE: Final = 1000
"""Maximum number of rows per statement."""

Key = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class OwnerRow:
    """A row that a transaction locks before it changes files that belong to the row.

    Args:
        mapper: The mapper of the row.
        columns: The columns that identify the row; empty for its primary key.
        key: The values of these columns.
        state: A row of the flush that is in the same shard, in a session over shards.
    """

    mapper: Mapper[Any]
    columns: tuple[Column[Any], ...]
    key: Key
    state: InstanceState[Any]


def root_of(mapper: Mapper[Any]) -> Mapper[Any]:
    """Return the mapper of the base table, which contains a row for each instance of every subclass."""
    while mapper.inherits is not None and not mapper.concrete:
        mapper = mapper.inherits
    return mapper


def among(columns: Sequence[Any], keys: Sequence[Key]) -> ColumnElement[bool]:
    """Return the condition that the columns equal one of the given tuples of values."""
    if len(columns) == 1:
        return columns[0].in_([key[0] for key in keys])  # type: ignore[no-any-return]
    return tuple_(*columns).in_(keys)


def lock_owners(connection: Connection, owners: Iterable[OwnerRow], others: Iterable[InstanceState[Any]]) -> None:
    """Lock rows table by table, in the order of their primary keys.

    Only rows of base tables are locked, because code that locks rows in tables of subclasses has locked the row of the
    base table first. SQLite has no row locks.

    Args:
        connection: The connection that the flush uses.
        owners: The rows.
        others: Persistent objects whose rows are locked, too, if they are in the same tables.
    """
    if connection.dialect.name == "sqlite":
        return
    wanted: dict[Mapper[Any], set[Key]] = {}
    by_columns: dict[tuple[Mapper[Any], tuple[Column[Any], ...]], set[Key]] = {}
    for owner in owners:
        keys = wanted.setdefault(root_of(owner.mapper), set())
        if owner.columns:
            by_columns.setdefault((owner.mapper, owner.columns), set()).add(owner.key)
        else:
            keys.add(owner.key)
    for (mapper, columns), keys in by_columns.items():
        wanted[root_of(mapper)].update(_primary_keys(connection, mapper, columns, keys))
    for state in others:
        root = root_of(state.mapper)
        if root in wanted and state.identity is not None:
            wanted[root].add(tuple(state.identity))
    for root, keys in sorted(wanted.items(), key=lambda item: repr(item[0].primary_key)):
        primary = root.primary_key
        for some in _pages(keys):
            query = select(*primary).where(among(primary, some)).order_by(*primary)
            connection.execute(query.with_for_update(key_share=True))


def _primary_keys(
    connection: Connection, mapper: Mapper[Any], columns: tuple[Column[Any], ...], keys: set[Key]
) -> Iterator[Key]:
    for some in _pages(keys):
        query = select(*mapper.primary_key).select_from(mapper.persist_selectable).where(among(columns, some))
        yield from map(tuple, connection.execute(query))


def _pages(keys: set[Key]) -> Iterator[list[Key]]:
    """Return the keys in pages, sorted as the database sorts numbers, so that the order is the same across pages."""
    try:
        ordered = sorted(keys)
    except TypeError:
        ordered = sorted(keys, key=repr)
    return batched(ordered, PAGE)
