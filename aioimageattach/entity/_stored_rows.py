"""Image rows as the database contains them, read with Core statements and without events."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import Column, Select, select
from sqlalchemy.engine import Connection
from sqlalchemy.orm import InstanceState, Mapper
from sqlalchemy.orm.base import LoaderCallableStatus

from .._declared.framing import COLUMNS
from .._transaction.locks import among
from ._image import Image
from ._mapping import Attachment, attachments_to, identity_attributes

__all__ = ["StoredRow", "key_columns", "latest_rows", "new_instance", "stored_values"]


@dataclass(slots=True)
class StoredRow:
    """A row as read from the database."""

    row: Image
    set_key: tuple[Any, ...]
    identity: tuple[Any, ...]
    original: bool


def stored_values(state: InstanceState[Any], names: Sequence[str]) -> tuple[Any, ...]:
    """Return the database values of attributes of a persistent object, each ``None`` if it is unknown."""
    identity = dict(zip(identity_attributes(state.mapper), state.identity or (), strict=False))
    values = []
    for name in names:
        value = identity.get(name, state.committed_state.get(name, state.dict.get(name)))
        values.append(None if isinstance(value, LoaderCallableStatus) else value)
    return tuple(values)


def latest_rows(attachment: Attachment, connection: Connection, set_keys: Sequence[tuple[Any, ...]]) -> list[StoredRow]:
    """Return the latest committed rows of image sets, and lock them until the end of the transaction."""
    columns = key_columns(attachment.image)
    query = (
        select(*columns.values())
        .select_from(attachment.image.selectable)
        .where(among([columns[name] for name in attachment.set_attributes], set_keys))
        .where(*(columns[name] == value for name, value in attachment.constants.items()))
    )
    locking = query.with_for_update()
    if connection.dialect.name not in ("mysql", "mariadb"):
        return list(_fetch(attachment, connection, locking))
    found = list(_fetch(attachment, connection, query))
    return found if _unchanged(attachment.image, connection, found) else list(_fetch(attachment, connection, locking))


def _unchanged(mapper: Mapper[Any], connection: Connection, found: Sequence[StoredRow]) -> bool:
    """Lock rows by their primary keys, and return whether they are unchanged since they were read."""
    if not found:
        return True
    keys = [row.identity for row in found]
    query = select(*mapper.primary_key, mapper.columns["revision"]).where(among(mapper.primary_key, keys))
    latest = {tuple(row[:-1]): row[-1] for row in connection.execute(query.with_for_update())}
    return all(latest.get(row.identity, row) == row.row.revision for row in found)


def _fetch(attachment: Attachment, connection: Connection, query: Select[Any]) -> Iterator[StoredRow]:
    mapper = attachment.image
    names = tuple(key_columns(mapper))
    for values in connection.execute(query):
        row = new_instance(mapper, dict(zip(names, values, strict=True)))
        if row is not None:
            identity = tuple(row.__dict__[name] for name in identity_attributes(mapper))
            set_key = tuple(row.__dict__[name] for name in attachment.set_attributes)
            yield StoredRow(row, set_key, identity, row.original)


def key_columns(mapper: Mapper[Any]) -> dict[str, Column[Any]]:
    """Return the columns that determine the file and the image set of a row, by attribute.

    These are all columns if a class overrides ``object_type`` or ``object_id``.
    """
    attachments = attachments_to(mapper.class_)
    names = {"mimetype", "original", "revision", *COLUMNS, *identity_attributes(mapper)}
    names.update(name for one in attachments for name in (*one.set_attributes, *one.constants))
    classes: list[type[Image]] = [one.class_ for one in mapper.self_and_descendants]
    own = any(cls.object_type is not Image.object_type or cls.object_id is not Image.object_id for cls in classes)
    special = (mapper.polymorphic_on, mapper.version_id_col)
    return {
        prop.key: cast("Column[Any]", prop.columns[0])
        for prop in mapper.column_attrs
        if own or prop.key in names or any(column is one for column in prop.columns for one in special)
    }


def new_instance(mapper: Mapper[Any], values: dict[str, Any]) -> Image | None:
    """Return a transient image with the given attributes; ``None`` if the row is not of the mapper's class.

    The constructor is not called, and no events fire.
    """
    if mapper.polymorphic_on is not None:
        name = mapper.get_property_by_column(mapper.polymorphic_on).key
        actual = mapper.polymorphic_map.get(values.get(name), mapper)
        if not actual.isa(mapper):
            return None
        mapper = actual
    row: Image = mapper.class_manager.new_instance()
    row.__dict__.update(values)
    return row
