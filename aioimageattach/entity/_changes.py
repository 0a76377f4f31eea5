"""The image sets in which a flush inserts or deletes rows, grouped by attachment."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.engine import Connection
from sqlalchemy.orm import InstanceState, Session
from sqlalchemy.orm.attributes import instance_state

from .._batches import batched
from .._transaction.hooks import connection_of
from .._transaction.locks import PAGE, OwnerRow
from ..store import Store
from ._image import Image
from ._mapping import Attachment, attachments_to, identity_attributes
from ._record import known_store, record_of
from ._stored_rows import StoredRow, latest_rows, stored_values

__all__ = ["AttachmentChanges", "SetChanges", "by_connection", "group_changes", "owners_of", "read_rows"]


@dataclass(slots=True)
class SetChanges:
    """One image set in which the flush inserts or deletes rows."""

    new: list[Image] = field(default_factory=list)
    gone: list[Image] = field(default_factory=list)

    @property
    def state(self) -> InstanceState[Any]:
        """The state of one of the rows."""
        return instance_state((*self.new, *self.gone)[0])

    @property
    def shard(self) -> Any:
        """The identity token of the rows, in a session over shards."""
        owners = (record_of(row).owner for row in self.new)
        states = (*map(instance_state, self.gone), *(owner for owner in owners if owner is not None))
        return next((state.identity_token for state in states), None)

    @property
    def store(self) -> Store | None:
        """The store of the new rows."""
        return next((store for row in self.new if (store := known_store(row)) is not None), None)


@dataclass(slots=True)
class AttachmentChanges:
    """The image sets of one attachment, by the values of :attr:`Attachment.set_attributes`."""

    attachment: Attachment
    sets: dict[tuple[Any, ...], SetChanges] = field(default_factory=dict)


def group_changes(new: Iterable[Image], gone: Iterable[Image]) -> tuple[list[AttachmentChanges], list[Image]]:
    """Return the changed sets, and the rows to delete that belong to no known set."""
    groups: dict[tuple[int, Any], AttachmentChanges] = {}
    without_set: list[Image] = []
    attachments: dict[type[Image], list[Attachment]] = {}
    rows = [*((row, True) for row in new), *((row, False) for row in gone)]
    for row, is_new in rows:
        if type(row) not in attachments:
            attachments[type(row)] = attachments_to(type(row))
        state = instance_state(row)
        placed = False
        for attachment in attachments[type(row)]:
            set_key = _set_key_of_new(attachment, row) if is_new else _set_key_of_old(attachment, state)
            if set_key is None:
                continue
            placed = True
            owner = record_of(row).owner if is_new else state
            shard = None if owner is None else owner.identity_token  # two shards may have owners with the same key
            group = groups.setdefault((id(attachment), shard), AttachmentChanges(attachment))
            members = group.sets.setdefault(set_key, SetChanges())
            (members.new if is_new else members.gone).append(row)
        if not placed and not is_new:
            without_set.append(row)
    return sorted(groups.values(), key=lambda group: str(group.attachment.relationship)), without_set


def _set_key_of_new(attachment: Attachment, row: Image) -> tuple[Any, ...] | None:
    """Return the set key of a new row, with the owner's key from the database; ``None`` if the owner is also new."""
    if not attachment.accepts(row.__dict__):
        return None
    owner = record_of(row).owner
    if owner is not None and owner.mapper.isa(attachment.owner):
        keys = stored_values(owner, [name for name, _ in attachment.pairs]) if owner.key is not None else (None,)
    else:
        keys = tuple(row.__dict__.get(name) for _, name in attachment.pairs)
    set_key = (*keys, *(row.__dict__.get(name) for name in attachment.discriminators))
    return None if None in set_key else set_key


def _set_key_of_old(attachment: Attachment, state: InstanceState[Any]) -> tuple[Any, ...] | None:
    """Return the set key of a stored row; ``None`` if it is not loaded, or belongs to another attachment."""
    names = tuple(attachment.constants)
    if not attachment.accepts(dict(zip(names, stored_values(state, names), strict=True))):
        return None
    set_key = stored_values(state, attachment.set_attributes)
    return None if None in set_key else set_key


def owners_of(group: AttachmentChanges) -> Iterator[OwnerRow]:
    """Yield the owners of the sets."""
    attachment = group.attachment
    names, identity = [name for name, _ in attachment.pairs], identity_attributes(attachment.owner)
    by_identity = set(identity) <= set(names)
    columns = () if by_identity else tuple(attachment.owner_columns)
    indexes = [names.index(name) for name in identity] if by_identity else list(range(len(names)))
    for key, state in {
        tuple(set_key[index] for index in indexes): one.state for set_key, one in group.sets.items()
    }.items():
        yield OwnerRow(attachment.owner, columns, key, state)


def by_connection(session: Session, group: AttachmentChanges) -> dict[Connection, list[tuple[Any, ...]]]:
    """Return the keys of the sets, in a fixed order, by the connection that writes their rows."""
    found: dict[Connection, list[tuple[Any, ...]]] = {}
    for set_key in sorted(group.sets, key=repr):
        connection = connection_of(session, group.attachment.image, group.sets[set_key].state)
        found.setdefault(connection, []).append(set_key)
    return found


def read_rows(session: Session, group: AttachmentChanges) -> dict[tuple[Any, ...], list[StoredRow]]:
    """Return the rows of the sets of a group."""
    found: dict[tuple[Any, ...], list[StoredRow]] = {}
    attachment = group.attachment
    for connection, set_keys in by_connection(session, group).items():
        rows = [row for batch in batched(set_keys, PAGE) for row in latest_rows(attachment, connection, batch)]
        if not {row.set_key for row in rows} <= group.sets.keys():
            # the database returns padded keys, as for CHAR(10): query each set, so that the database compares them
            found.update((set_key, latest_rows(attachment, connection, [set_key])) for set_key in set_keys)
            continue
        for row in rows:
            found.setdefault(row.set_key, []).append(row)
    return found
