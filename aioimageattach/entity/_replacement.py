"""Find the rows to delete because a flush inserts or deletes other rows of the same image sets.

Inserting or deleting an original deletes every row of its image set that the database contains at that time, including
rows of other transactions. This module reads keys with Core statements: it does not refresh the application's
entities, and the application's loader options, filters and unflushed changes have no effect.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import InstanceState, Mapper, Session, make_transient_to_detached
from sqlalchemy.orm.attributes import get_history, instance_state
from sqlalchemy.orm.base import PASSIVE_NO_INITIALIZE

from .._transaction.hooks import connection_of
from .._transaction.locks import OwnerRow, among
from ..exc import NoOriginalError
from ..key import ImageKey
from ..store import Store
from ._changes import SetChanges, by_connection, group_changes, owners_of, read_rows
from ._gallery import assign_first_positions, assign_positions
from ._image import Image
from ._mapping import SIZE, Attachment, identity_attributes
from ._record import known_store, record_of
from ._stored_rows import StoredRow, key_columns, new_instance, stored_values

__all__ = ["RemovedRow", "Replacement"]


@dataclass(slots=True)
class RemovedRow:
    """A row that the flush deletes.

    Args:
        row: The row.
        key: The key of its file according to the database; ``None`` if it could not be determined.
        store: The store of the file; ``None`` if it must be determined from the session.
    """

    row: Image
    key: ImageKey | None
    store: Store | None


class Replacement:
    """The image sets in which a flush inserts or deletes rows.

    Args:
        session: The session.
        new: Image rows that the flush will insert, or has just inserted because they were added late.
        gone: Image rows that the flush will delete.
    """

    __slots__ = ("_groups", "_kept", "_new", "_session", "_without_set")

    def __init__(self, session: Session, new: Sequence[Image], gone: Sequence[Image]) -> None:
        self._session = session
        self._new = new
        self._kept = {instance_state(row) for row in new}
        self._groups, self._without_set = group_changes(new, gone)

    def owners(self) -> list[OwnerRow]:
        """Return the owners of the sets.

        Lock them before reading anything: the locks serialise transactions that change the same image set.
        """
        return [owner for group in self._groups for owner in owners_of(group)]

    def find_removed(self) -> list[RemovedRow]:
        """Return the rows that this flush removes from the database.

        At their default isolation level, a locking read on MySQL and MariaDB also locks the gaps beside the rows, so
        that transactions for two adjacent owners could deadlock. There, the rows are read without locks, then locked by
        their primary keys, and read again with gap locks only if they have changed. As a consequence, two concurrent
        first uploads for one owner can leave two originals. The newer one is used, and the next upload removes both.

        Returns:
            The rows to delete that the database still contains, and the replaced rows, which are now marked as deleted.

        Raises:
            NoOriginalError: The original of a new thumbnail has been replaced or deleted in the meantime.
            TooManyPicturesError: An owner would have more images than are allowed.
        """
        session = self._session
        removed: list[RemovedRow] = []
        loaded_sets = _LoadedSets(session)
        with session.no_autoflush:
            assign_first_positions(self._new)
            for group in self._groups:
                for connection, set_keys in by_connection(session, group).items():
                    new = {set_key: group.sets[set_key].new for set_key in set_keys}
                    gone = {set_key: group.sets[set_key].gone for set_key in set_keys}
                    assign_positions(group.attachment, connection, new, gone)
                found = read_rows(session, group)
                for set_key, members in group.sets.items():
                    removed += _removed_from_set(
                        loaded_sets, group.attachment, set_key, members, found.get(set_key, []), self._kept
                    )
            for row in self._without_set:
                removed += _removed_without_set(session, row)
        return removed


def _removed_from_set(
    loaded_sets: _LoadedSets,
    attachment: Attachment,
    set_key: tuple[Any, ...],
    members: SetChanges,
    found: Sequence[StoredRow],
    kept: set[InstanceState[Any]],
) -> Iterator[RemovedRow]:
    session = loaded_sets.session
    _check_origins(members.new, found)
    everything = loaded_sets.is_deleted(attachment, set_key)
    matched = _match_gone(members.gone, found, ignore_revisions=everything)
    wanted = {id(row) for _, row in matched.values()}
    for row in members.gone:
        # Another transaction has deleted or replaced it: DELETE would warn, or hit the new row.
        if id(row) not in wanted:
            session.expunge(row)
    replaced = any(row.original for row in members.new) or any(one.original for one, _ in matched.values())
    loaded = loaded_sets.rows(attachment, members.new) if replaced else []
    sizes = {_size(row): row for row in loaded}
    taken = {
        _size(row) for row in members.new if (attached := record_of(row).attached) is not None and attached.replaces
    }
    present: set[int] = set()
    for one in found:
        if id(one) in matched:
            row = matched[id(one)][1]
        else:
            size = _size(one.row)
            entity = _entity(session, attachment.image, one.identity, members.shard) or sizes.get(size)
            row = one.row if entity is None else entity
            present.add(id(row))
            if not (everything or replaced or size in taken) or instance_state(row) in kept:
                continue
            if entity is not None and (_has_moved(attachment, row) or loaded_sets.has_removed(attachment, one, row)):
                continue
        present.add(id(row))
        key = _key(one.row)  # before the row becomes persistent
        if row is one.row:
            _make_persistent(session, row, members.shard)
        session.delete(row)
        yield RemovedRow(row, key or _key_in_session(session, row, one.row), known_store(row) or members.store)
    for row in loaded:
        if id(row) not in present and row in session:
            session.expunge(row)  # another transaction has deleted it


def _match_gone(
    gone: Sequence[Image], found: Sequence[StoredRow], *, ignore_revisions: bool
) -> dict[int, tuple[StoredRow, Image]]:
    """Return the rows of the database to delete, by ``id``, each with the corresponding object of the session.

    The rows are matched by size and revision. The keys cannot be compared, because the database may return them padded.
    The size alone is not enough: another transaction may have replaced the image with one of the same size, which
    must not be deleted.
    """
    sizes = {_size(row): row for row in gone}
    matched: dict[int, tuple[StoredRow, Image]] = {}
    for one in found:
        row = sizes.get(_size(one.row))
        if row is not None:
            [revision] = stored_values(instance_state(row), ["revision"])
            if ignore_revisions or revision in (None, one.row.revision):
                matched[id(one)] = one, row
    return matched


@dataclass(slots=True)
class _LoadedSets:
    """The collections of owners that are loaded in a session."""

    session: Session
    _removed: dict[tuple[Any, ...], set[int]] = field(default_factory=dict)
    _rows: dict[tuple[InstanceState[Any], str], dict[tuple[Any, ...], list[Image]]] = field(default_factory=dict)

    def rows(self, attachment: Attachment, new: Sequence[Image]) -> list[Image]:
        """Return the loaded rows of the set that the new rows belong to."""
        names = attachment.discriminators
        found: list[Image] = []
        for owner, values in {(record_of(row).owner, tuple(row.__dict__.get(name) for name in names)) for row in new}:
            if owner is not None:
                found += self._of(attachment, owner).get(values, ())
        return found

    def owner(self, attachment: Attachment, set_key: tuple[Any, ...]) -> Any:
        """Return the owner of a set, if it is loaded."""
        mapper = attachment.owner
        values = dict(zip((name for name, _ in attachment.pairs), set_key, strict=False))
        identity = tuple(values.get(attribute) for attribute in identity_attributes(mapper))
        return self.session.identity_map.get(mapper.identity_key_from_primary_key(identity))

    def is_deleted(self, attachment: Attachment, set_key: tuple[Any, ...]) -> bool:
        """Return whether the owner of a set is deleted in this flush."""
        owner = self.owner(attachment, set_key)
        return owner is not None and instance_state(owner) in self.session._deleted

    def has_removed(self, attachment: Attachment, one: StoredRow, row: Image) -> bool:
        """Return whether the application has removed a row from its owner's collection, perhaps to move it."""
        name = attachment.relationship.key
        key = (name, *one.set_key[: len(attachment.pairs)])
        if key not in self._removed:
            owner = self.owner(attachment, one.set_key)
            history = None if owner is None else get_history(owner, name, PASSIVE_NO_INITIALIZE)
            self._removed[key] = set() if history is None else set(map(id, history.deleted or ()))
        return id(row) in self._removed[key]

    def _of(self, attachment: Attachment, owner: InstanceState[Any]) -> dict[tuple[Any, ...], list[Image]]:
        key = (owner, attachment.relationship.key)
        if key not in self._rows:
            rows = self._rows[key] = {}
            for row in owner.dict.get(attachment.relationship.key, ()):
                state = instance_state(row)
                if state.persistent and state.session is self.session:
                    rows.setdefault(stored_values(state, attachment.discriminators), []).append(row)
        return self._rows[key]


def _removed_without_set(session: Session, row: Image) -> Iterator[RemovedRow]:
    """Lock, read and yield a deleted row whose set is unknown, or remove it from the session if it no longer exists.

    The set is unknown if the class has no owner, or if the row was loaded without the necessary columns.
    """
    state = instance_state(row)
    mapper, connection = state.mapper, connection_of(session, state.mapper, state)
    columns = key_columns(mapper)
    query = select(*columns.values()).select_from(mapper.selectable)
    query = query.where(among(mapper.primary_key, [tuple(state.identity or ())])).with_for_update()
    values = connection.execute(query).first()
    if values is None:
        session.expunge(row)
        return
    found = new_instance(mapper, dict(zip(columns, values, strict=True)))
    key = None if found is None else _key(found) or _key_in_session(session, row, found)
    yield RemovedRow(row, key, known_store(row))


def _check_origins(new: Sequence[Image], found: Sequence[StoredRow]) -> None:
    for row in new:
        origin = record_of(row).origin
        if origin is None or instance_state(origin.row).key is None:
            continue
        size = stored_values(instance_state(origin.row), SIZE)
        loaded = next((one for one in found if tuple(one.row.__dict__[name] for name in SIZE) == size), None)
        if loaded is None or loaded.row.revision != origin.key.revision:
            raise NoOriginalError(
                f"the original of a new {type(row).__name__} was replaced or deleted after the thumbnail was made; "
                "roll back, or generate the thumbnail again"
            )


def _size(row: Image) -> tuple[Any, ...]:
    state = instance_state(row)
    return stored_values(state, SIZE) if state.key is not None else tuple(row.__dict__.get(name) for name in SIZE)


def _key(row: Image) -> ImageKey | None:
    try:
        return row._stored_key()
    except Exception:  # object_type or object_id may use attributes that are available only in a session
        return None


def _key_in_session(session: Session, row: Image, found: Image) -> ImageKey | None:
    """Return the key of a row whose object type or id can be calculated only from the object in the session."""
    with session.no_autoflush:
        key = _key(row)
    width, height, mimetype, revision = found.width, found.height, found.mimetype, found.revision
    return key and replace(key, width=width, height=height, mimetype=mimetype, revision=revision)


def _entity(session: Session, mapper: Mapper[Any], identity: tuple[Any, ...], shard: Any) -> Image | None:
    found: Image | None = session.identity_map.get(mapper.identity_key_from_primary_key(identity, identity_token=shard))
    return found


def _has_moved(attachment: Attachment, row: Image) -> bool:
    """Return whether this flush moves a row to another set."""
    state = instance_state(row)
    return any(
        name in state.committed_state and state.dict.get(name) != state.committed_state[name]
        for name in (*attachment.set_attributes, *attachment.constants)
    )


def _make_persistent(session: Session, row: Image, shard: Any) -> None:
    """Add an image that was not loaded to the session as a persistent object, without emitting SQL."""
    instance_state(row).identity_token = shard
    make_transient_to_detached(row)
    session.add(row)
