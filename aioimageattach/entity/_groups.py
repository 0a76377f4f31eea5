"""The rows of one owner grouped by image set, kept until the rows or their keys change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Column, event
from sqlalchemy.orm import ColumnProperty
from sqlalchemy.orm.attributes import QueryableAttribute, instance_state

from ._image import Image
from ._mapping import SIZE
from ._record import record_of

__all__ = ["Groups", "invalidate_groups"]


@dataclass(slots=True)
class Groups:
    """The rows of one owner grouped by image set, so that reading one set does not scan a whole large gallery.

    Args:
        rows: The list that was grouped.
        key_changes: The value of ``_key_changes`` at that time.
        sets: The rows of each set, by the values of the discriminators.
    """

    rows: list[Any]
    key_changes: int
    sets: dict[tuple[Any, ...], list[Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, rows: list[Any], names: Sequence[str]) -> Groups:
        """Group rows by the values of attributes."""
        found = cls(rows, _key_changes[0])
        for row in rows:
            values = row.__dict__
            found.sets.setdefault(tuple([values.get(name) for name in names]), []).append(row)
        return found

    def are_current(self, rows: list[Any]) -> bool:
        """Return whether the list is still the same object, and no row has moved to another set since the grouping."""
        return self.rows is rows and self.key_changes == _key_changes[0]

    def __reduce__(self) -> tuple[Any, ...]:
        return Groups, ([], -1)  # a copy of the owner groups its own rows


_key_changes = [0]
"""Counts the rows, of any owner, that have moved to another set since the process started."""


def invalidate_groups(attribute: QueryableAttribute[Any], attachment_key: str) -> None:
    """Invalidate the groups of an owner when rows are added to or removed from its relationship."""
    key = ("aioimageattach", attachment_key)

    @event.listens_for(attribute, "append")
    @event.listens_for(attribute, "remove")
    def changed(owner: object, *_: object) -> None:
        instance_state(owner).info.pop(key, None)


@event.listens_for(Image, "attribute_instrument", propagate=True)
def _instrumented(cls: type[Image], name: str, attribute: Any) -> None:
    prop = getattr(attribute, "property", None)
    if name in SIZE or not isinstance(prop, ColumnProperty):
        return
    column = prop.columns[0]
    if isinstance(column, Column) and column.primary_key:
        event.listen(attribute, "set", _key_changed)


def _key_changed(row: object, value: object, old: object, initiator: object) -> None:
    if value != old:
        state = instance_state(row)
        if state.key is not None or record_of(row).owner is not None:  # a new row is not in a collection yet
            _key_changes[0] += 1
