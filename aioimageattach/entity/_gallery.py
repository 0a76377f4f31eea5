"""The images of one owner as a gallery: their maximum number, and their order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from operator import attrgetter
from typing import Any

from sqlalchemy import Column, func, select, update
from sqlalchemy.engine import Connection
from sqlalchemy.orm.attributes import instance_state, set_attribute

from .._transaction.locks import among
from ..exc import TooManyPicturesError
from ._columns import own_columns
from ._image import Image
from ._mapping import Attachment, attachments_to
from ._record import record_of

__all__ = ["assign_first_positions", "assign_positions", "check_max_pictures", "renumbered"]


def renumbered(positions: Sequence[int | None]) -> list[int]:
    """Return positions for rows in their new order.

    Positions that are already strictly increasing are kept. Otherwise the new positions are consecutive numbers that
    are not in use, so that the rows can be updated one by one under a unique constraint.

    Args:
        positions: The current positions, in the new order; ``None`` for a row without a position.
    """
    present = [position for position in positions if position is not None]
    if len(present) == len(positions) and all(a < b for a, b in pairwise(present)):
        return present
    count, used = len(positions), set(present)
    start = next((first for first in (0, count) if used.isdisjoint(range(first, first + count))), None)
    if start is None:
        start = max(used) + 1
    return list(range(start, start + count))


def check_max_pictures(attachment: Attachment, count: int) -> None:
    """Reject more images than one owner may have.

    Raises:
        TooManyPicturesError: ``count`` exceeds the limit.
    """
    limit = attachment.options.max_pictures
    if limit is not None and count > limit:
        raise TooManyPicturesError(
            f"expected at most {limit:,} images per {attachment.relationship.parent.class_.__name__} (max_pictures), "
            f"got {count:,}; delete one first",
            limit=limit,
            actual=count,
        )


def assign_first_positions(new: Iterable[Image]) -> None:
    """Assign positions to the images of new owners, and check how many images they have.

    Raises:
        TooManyPicturesError: An owner would have more images than are allowed.
    """
    galleries: dict[tuple[int, Any], tuple[Attachment, list[Image]]] = {}
    for row in new:
        owner = record_of(row).owner
        if owner is None or owner.key is not None:
            continue
        for attachment in attachments_to(type(row)):
            if owner.mapper.isa(attachment.owner) and attachment.accepts(row.__dict__):
                galleries.setdefault((id(attachment), owner), (attachment, []))[1].append(row)
    for attachment, rows in galleries.values():
        originals = [row for row in rows if row.original]
        check_max_pictures(attachment, len(originals))
        _append(attachment, originals, -1)
        _copy_positions(attachment, rows)


def assign_positions(
    attachment: Attachment,
    connection: Connection,
    new: Mapping[tuple[Any, ...], Sequence[Image]],
    gone: Mapping[tuple[Any, ...], Sequence[Image]],
) -> None:
    """Assign positions to new images of locked owners, and check how many images they have.

    Args:
        attachment: The attachment.
        connection: The connection that holds the locks.
        new: The new rows, by the values of :attr:`Attachment.set_attributes`.
        gone: The rows to delete, in the same form.

    Raises:
        TooManyPicturesError: An owner would have more images than are allowed.
    """
    pictures = {set_key: rows for set_key, some in new.items() if (rows := [row for row in some if row.original])}
    cleared = own_columns(attachment).cleared
    if not pictures or not (attachment.position or attachment.options.max_pictures or cleared):
        return
    removed = {set_key for set_key, rows in gone.items() if any(row.__dict__.get("original") for row in rows)}
    present = _present(attachment, connection, [*pictures, *removed])
    if cleared:
        _clear(attachment, connection, [set_key for set_key in pictures if set_key in present], cleared)
    owners: dict[tuple[Any, ...], list[tuple[Any, ...]]] = {}
    for set_key in pictures:
        owners.setdefault(set_key[: len(attachment.pairs)], []).append(set_key)
    totals = _totals(attachment, connection, list(owners))
    for owner, set_keys in owners.items():
        count, last = totals.get(owner, (0, -1))
        added = [set_key for set_key in set_keys if set_key not in present]
        fewer = sum(set_key in present and set_key[: len(owner)] == owner for set_key in removed.difference(pictures))
        if added:
            check_max_pictures(attachment, count + len(added) - fewer)
        for set_key in set_keys:
            if set_key in present:
                _keep_position(attachment, pictures[set_key], present[set_key])
        _append(attachment, [row for set_key in added for row in pictures[set_key]], last)
        _copy_positions(attachment, [row for set_key in added for row in new[set_key]])


def _keep_position(attachment: Attachment, rows: Sequence[Image], position: int | None) -> None:
    """Update positions copied from the replaced image, which may have been moved since it was loaded."""
    name = attachment.position
    for row in rows:
        if name is not None and row.__dict__.get(name) == record_of(row).position:
            set_attribute(row, name, position)


def _append(attachment: Attachment, rows: Sequence[Image], last: int) -> None:
    """Number the rows that have no position yet, after the last position."""
    name = attachment.position
    if name is None:
        return
    last = max([last, *(value for row in rows if (value := row.__dict__.get(name)) is not None)])
    order: Any = attrgetter("insert_order")  # the order in which they were added to the session
    for row in sorted(rows, key=lambda row: order(instance_state(row))):
        if row.__dict__.get(name) is None:
            last += 1
            set_attribute(row, name, last)


def _copy_positions(attachment: Attachment, rows: Sequence[Image]) -> None:
    """Copy new positions from originals to their thumbnails, if every row needs a position."""
    name = attachment.position
    for row in rows if name in own_columns(attachment).copied else ():
        origin = record_of(row).origin
        if origin is not None:
            set_attribute(row, str(name), origin.row.__dict__.get(name))


def _column(attachment: Attachment, name: str) -> Column[Any]:
    return attachment.image.columns[name]


def _originals(attachment: Attachment) -> list[Any]:
    """Return the conditions that select the originals of an attachment."""
    constants = (_column(attachment, name) == value for name, value in attachment.constants.items())
    return [_column(attachment, "original"), *constants]


def _present(
    attachment: Attachment, connection: Connection, set_keys: Sequence[tuple[Any, ...]]
) -> dict[tuple[Any, ...], int | None]:
    """Return the positions of the images in the database, by set key."""
    columns = [_column(attachment, name) for name in attachment.set_attributes]
    position = [] if attachment.position is None else [_column(attachment, attachment.position)]
    query = select(*columns, *position).select_from(attachment.image.selectable)
    query = query.where(*_originals(attachment), among(columns, set_keys))
    return {
        tuple(row[: len(columns)]): row[-1] if position else None
        for row in connection.execute(query.order_by(*position))
    }


def _totals(
    attachment: Attachment, connection: Connection, owners: Sequence[tuple[Any, ...]]
) -> dict[tuple[Any, ...], tuple[int, int]]:
    """Return the number of images of each owner, and its last position; -1 if it has no image with a position."""
    columns = [_column(attachment, name) for _, name in attachment.pairs]
    last = [] if attachment.position is None else [func.max(_column(attachment, attachment.position))]
    query = select(*columns, func.count(), *last).select_from(attachment.image.selectable)
    query = query.where(*_originals(attachment), among(columns, owners))
    found: dict[tuple[Any, ...], tuple[int, int]] = {}
    for row in connection.execute(query.group_by(*columns)):
        values = tuple(row)
        number = values[-1] if last and values[-1] is not None else -1
        found[values[: len(columns)]] = values[len(columns)], number
    return found


def _clear(
    attachment: Attachment, connection: Connection, set_keys: Sequence[tuple[Any, ...]], names: Iterable[str]
) -> None:
    """Set unique columns of the replaced rows to NULL, so that the new rows can take over the values."""
    mapper = attachment.image
    query = select(*mapper.primary_key).select_from(mapper.selectable)
    query = query.where(
        *_originals(attachment), among([_column(attachment, name) for name in attachment.set_attributes], set_keys)
    )
    identities = [tuple(row) for row in connection.execute(query)] if set_keys else []
    tables: dict[Any, list[Column[Any]]] = {}  # more than one for a class with joined inheritance
    for column in [_column(attachment, name) for name in names] if identities else ():
        tables.setdefault(column.table, []).append(column)
    for table, columns in tables.items():
        statement = update(table).where(among(list(table.primary_key.columns), identities))
        connection.execute(statement.values(dict.fromkeys(columns)))
