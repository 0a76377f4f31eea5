"""What the session's hooks ask of rows with offloaded columns: each names a file per column, or none."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast

from sqlalchemy import Column, ColumnElement, Text, event, select, tuple_, type_coerce
from sqlalchemy.engine import Connection
from sqlalchemy.orm import InstanceState, Mapper, Session, object_mapper, object_session
from sqlalchemy.orm.attributes import (
    get_history,
    instance_dict,
    instance_state,
    set_attribute,
    set_committed_value,
)
from sqlalchemy.orm.base import PASSIVE_NO_INITIALIZE

from .._greenlet import await_, in_bridge
from .._transaction.fence import GRACE, grace_of
from .._transaction.files import Upload
from .._transaction.hooks import FlushHandler, connection_of, database_of, dropped, holds, leased, named, put
from .._transaction.references import Referrer, StoredFile
from ..context import resolve_store
from ..exc import DamagedValueError, DeclarationError
from ..store import KeyedStore, Store
from .columns import coerced, columns_of, settings_of
from .fetch import keyed
from .prepare import Prepared, Wanted, prepare_all
from .reference import Reference
from .values import Settings, Stored

__all__ = ["StoredValues", "ValueReferrer"]

_WORK: Final = "aioimageattach.offload"
_PAGE: Final = 1000

_log = logging.getLogger("aioimageattach.offload")


@dataclass(slots=True, eq=False)
class _Change:
    """One attribute of one row that is to be written.

    Args:
        row: The object.
        key: The attribute.
        settings: Of its column.
        handle: What is written; ``None`` for nothing.
        old: What the row held when it was loaded; ``None`` where it held nothing, or was not loaded.
        store: Where the new file goes, and the old one is.
        prepared: What of the handle is written.
        dropped: The files that the row named just before it is written.
    """

    row: object
    key: str
    settings: Settings
    handle: Stored[Any] | None
    old: Stored[Any] | None
    store: KeyedStore | None = None
    prepared: Prepared | None = None
    dropped: list[StoredFile] = field(default_factory=list)


@dataclass(slots=True)
class _Work:
    """What one flush is about."""

    changes: dict[tuple[InstanceState[Any], str], _Change] = field(default_factory=dict)
    doomed: dict[InstanceState[Any], list[StoredFile]] = field(default_factory=dict)
    written: set[InstanceState[Any]] = field(default_factory=set)  # the rows of which statements were executed
    writing: list[Stored[Any]] = field(default_factory=list)  # the handles that statements may write now
    seen: set[int] = field(default_factory=set)

    def knows(self, row: object, key: str) -> bool:
        """Whether the flush was told what the attribute of a row is now."""
        change = self.changes.get((instance_state(row), key))
        return change is not None and change.handle is instance_dict(row).get(key)

    def add(self, changes: Iterable[_Change]) -> None:
        """Note some changes."""
        self.changes.update({(instance_state(change.row), change.key): change for change in changes})


class StoredValues(FlushHandler):
    """What the session's hooks ask of rows with offloaded columns."""

    def flush(self, session: Session) -> Generator[Sequence[Upload]]:
        """Put the values that are new; then read and lock what the rows hold that are changed or deleted."""
        work = session.info[_WORK] = _left(session)
        deleted = session.deleted
        changes: list[_Change] = []
        for row in session.new:
            changes += _of_new(session, work, row, switched=bool(deleted))
        for row in session.dirty:
            changes += _of_dirty(session, work, row)
        yield _prepare(session, changes)
        work.add(changes)
        doomed = [row for row in deleted if columns_of(object_mapper(row))]
        _settle(session, work, [*work.changes.values()], doomed)

    def flushed(self, session: Session) -> None:
        """Note which files the rows name now, and which no longer."""
        work = _work(session)
        for change in work.changes.values():
            if instance_state(change.row) in work.written and _is_current(session, change):
                for file in _files(session, change.row, change.key, change.handle):
                    named(session, file)
                content = None if change.prepared is None else change.prepared.content
                if isinstance(content, Reference) and content.shared:
                    state = instance_state(change.row)
                    leased(session, database_of(session, state.mapper, state), content.since)
                for file in change.dropped:
                    dropped(session, file)
        work.changes.clear()

    def flush_ended(self, session: Session) -> None:
        """Forget what was deleted; nothing waits for its row."""
        _work(session).doomed.clear()

    def flush_closed(self, session: Session) -> None:
        """Let no further statement write the handles of the flush, which may have failed."""
        writing = _work(session).writing
        for handle in writing:
            handle._writing = False
        writing.clear()
        _work(session).written.clear()

    def references(self, row: object) -> bool:
        """Return whether a row has offloaded columns."""
        return bool(columns_of(object_mapper(row)))

    def deleted(self, session: Session, row: object) -> None:
        """Note that the files of a row have to go."""
        columns = columns_of(object_mapper(row))
        if not columns:
            return
        known = _work(session).doomed.get(instance_state(row))
        for file in _known_files(session, row, columns) if known is None else known:
            dropped(session, file)


def _work(session: Session) -> _Work:
    return cast("_Work", session.info.setdefault(_WORK, _Work()))


def _left(session: Session) -> _Work:
    """What a flush that was refused has put already, for rows that still wait for it."""
    left, work = _work(session), _Work()
    kept = [
        change
        for change in left.changes.values()
        if change.handle is not None
        and _is_current(session, change)
        and all(holds(session, file) for file in _files(session, change.row, change.key, change.handle))
    ]
    work.add(kept)
    return work


def _is_current(session: Session, change: _Change) -> bool:
    return change.row in session and instance_dict(change.row).get(change.key, change) is change.handle


# --- what changes ----------------------------------------------------------------------------------------------------


def _of_new(session: Session, work: _Work, row: object, *, switched: bool = False) -> Iterator[_Change]:
    values = instance_dict(row)
    for key, column in columns_of(object_mapper(row)).items():
        if (
            values.get(key) is None and column.default is not None
        ):  # which SQLAlchemy takes where None was assigned, too
            set_attribute(row, key, copy.deepcopy(cast("Any", column.default).arg))
        elif key not in values and switched:  # in the place of a row that is deleted it would inherit what that held
            set_attribute(row, key, None)
        if values.get(key) is not None and not work.knows(row, key):
            yield _change(session, work, row, key, column, None)


def _of_dirty(session: Session, work: _Work, row: object) -> Iterator[_Change]:
    for key, column in columns_of(object_mapper(row)).items():
        history = get_history(row, key, PASSIVE_NO_INITIALIZE)
        if not history.has_changes() or work.knows(row, key):
            continue
        old = history.deleted[0] if history.deleted else None
        change = _change(session, work, row, key, column, old)
        if change.handle is not None and old is not None and change.handle._raw == old._raw:
            set_committed_value(row, key, old)  # it was there all the time
        else:
            yield change


def _change(
    session: Session, work: _Work, row: object, key: str, column: Column[Any], old: Stored[Any] | None
) -> _Change:
    settings = settings_of(column)
    values = instance_dict(row)
    value = values.setdefault(key, None)  # it may have been deleted with `del`
    # what was stored before, or is another row's too, is written by a handle of its own
    if value is not None and (not isinstance(value, Stored) or value._raw is not None or id(value) in work.seen):
        value = values[key] = coerced(settings, value)
    work.seen.add(id(value))
    store = None if value is None else _store(session, value)
    return _Change(row, key, settings, value, old, store)


def _store(session: Session, handle: Stored[Any]) -> KeyedStore:
    return keyed(resolve_store(handle._store, session=session))


# --- what goes up ----------------------------------------------------------------------------------------------------


def _prepare(session: Session, changes: list[_Change]) -> list[Upload]:
    """Return what has to be put; take away the changes that change nothing."""
    writing = [change for change in changes if change.handle is not None]
    if not writing:
        return []
    if not in_bridge():
        raise DeclarationError("values are stored by an AsyncSession; this session is used without one")
    sharing = grace_of(session) >= GRACE  # with less time a file that is found may be too old
    wanted = [
        Wanted(change.handle, change.settings, change.old, change.store, change.settings.dedupe and sharing)
        for change in writing
        if change.handle is not None and change.store is not None
    ]
    uploads: list[Upload] = []
    for change, prepared in zip(writing, await_(prepare_all(wanted)), strict=True):
        assert change.handle is not None
        assert change.store is not None
        change.prepared = prepared
        content = prepared.content
        if content is None:
            assert change.old is not None
            change.old._remember(change.handle)
            set_committed_value(change.row, change.key, change.old)
        elif isinstance(content, Reference):
            mimetype = change.settings.cls.mimetype if content.compression is None else "application/octet-stream"
            file = StoredFile(change.store, content.name, _referrer(session, change.row, change.key))
            uploads.append(Upload(file, prepared.data, mimetype, shared=content.shared))
    changes[:] = [change for change in changes if change.prepared is None or change.prepared.content is not None]
    return uploads


def _settle(session: Session, work: _Work, changes: Sequence[_Change], doomed: Sequence[object]) -> None:
    """Read and lock what the rows hold that are changed or deleted; then let the new values be written."""
    before = [change for change in changes if instance_state(change.row).key is not None]
    rows = {instance_state(row) for row in (*doomed, *(change.row for change in before))}
    held = _held(session, rows)
    for row in doomed:
        handles = held.get(instance_state(row), {}).items()
        work.doomed[instance_state(row)] = [
            file for key, handle in handles for file in _files(session, row, key, handle)
        ]
    stores = {instance_state(change.row): change.store for change in changes if change.store is not None}
    for change in before:
        replaced = held.get(instance_state(change.row), {}).get(change.key)
        store = stores.get(instance_state(change.row))
        change.dropped = list(_files(session, change.row, change.key, replaced, store))
    for change in changes:
        if change.handle is not None and change.prepared is not None:
            change.handle._stored_as(change.prepared.raw, change.settings, change.store)


def _held(
    session: Session, states: Iterable[InstanceState[Any]]
) -> dict[InstanceState[Any], dict[str, Stored[Any] | None]]:
    """What rows hold in the database now, locked until the transaction ends; a row that is gone is left out."""
    by_mapper: dict[Mapper[Any], dict[tuple[Any, ...], InstanceState[Any]]] = {}
    for state in states:
        assert state.identity is not None
        by_mapper.setdefault(state.mapper, {})[tuple(state.identity)] = state
    found: dict[InstanceState[Any], dict[str, Stored[Any] | None]] = {}
    for mapper, rows in by_mapper.items():
        for connection, identities in _by_connection(session, mapper, rows).items():
            for identity, values in _read(connection, mapper, sorted(identities, key=repr)):
                if identity in rows:
                    found[rows[identity]] = values
            for identity in identities:  # the database may spell a key otherwise, as CHAR(10) does: let it compare
                if rows[identity] not in found:
                    found.update((rows[identity], values) for _, values in _read(connection, mapper, [identity]))
    return found


def _by_connection(
    session: Session, mapper: Mapper[Any], rows: Mapping[tuple[Any, ...], InstanceState[Any]]
) -> dict[Connection, list[tuple[Any, ...]]]:
    found: dict[Connection, list[tuple[Any, ...]]] = {}
    for identity, state in rows.items():
        found.setdefault(connection_of(session, mapper, state), []).append(identity)
    return found


def _read(
    connection: Connection, mapper: Mapper[Any], identities: Sequence[tuple[Any, ...]]
) -> Iterator[tuple[tuple[Any, ...], dict[str, Stored[Any] | None]]]:
    """By tables, not by classes: what an application adds to its queries hides nothing."""
    columns = columns_of(mapper)
    primary = mapper.primary_key
    query = select(*primary, *columns.values()).select_from(mapper.persist_selectable).with_for_update(key_share=True)
    for start in range(0, len(identities), _PAGE):
        some = identities[start : start + _PAGE]
        keys = primary[0].in_([identity[0] for identity in some]) if len(primary) == 1 else tuple_(*primary).in_(some)
        for row in connection.execute(query.where(keys)):
            yield tuple(row[: len(primary)]), dict(zip(columns, row[len(primary) :], strict=True))


# --- what was there --------------------------------------------------------------------------------------------------


def _known_files(session: Session, row: object, columns: Iterable[str]) -> Iterator[StoredFile]:
    """The files of a row that was deleted in bulk, as far as it was loaded; of changes that were not flushed, none."""
    for key in columns:
        history = get_history(row, key, PASSIVE_NO_INITIALIZE)
        known = (history.deleted if history.has_changes() else history.unchanged) or ()
        try:
            if not known:
                raise LookupError("it was not loaded")
            yield from _files(session, row, key, known[0])
        except LookupError as error:
            _log.warning("the file of a deleted %s.%s is left to the sweep: %s", type(row).__name__, key, error)


def _files(
    session: Session, row: object, key: str, handle: Stored[Any] | None, store: Store | None = None
) -> Iterator[StoredFile]:
    """The file that a handle names and that is its row's alone, if there is one."""
    if handle is None or handle._raw is None:
        return
    try:
        content = handle._read()
    except DamagedValueError as error:
        _log.warning("nothing is deleted: %s", error)
        return
    if isinstance(content, Reference) and not content.shared:
        found = keyed(resolve_store(handle._store, store, session=session))
        yield StoredFile(found, content.name, _referrer(session, row, key))


def _referrer(session: Session, row: object, key: str) -> ValueReferrer:
    state = instance_state(row)
    return ValueReferrer(database_of(session, state.mapper, state), state.mapper, key)


@dataclass(frozen=True, slots=True)
class ValueReferrer(Referrer):
    """The rows with an offloaded column, any of which may hold a copy of a reference that SQL has made."""

    key: str

    def referenced(self, connection: Connection, files: Sequence[StoredFile]) -> Collection[StoredFile]:
        """See :meth:`Referrer.referenced`; an index on the column makes this fast."""
        by_reference = {f"@{file.key}": file for file in files}
        found: set[StoredFile] = set()
        references = sorted(by_reference)
        for column in self._columns():
            for start in range(0, len(references), _PAGE):
                query = select(column).where(column.in_(references[start : start + _PAGE]))
                found.update(by_reference[raw] for raw in connection.scalars(query) if raw in by_reference)
        return found

    def _columns(self) -> list[ColumnElement[str]]:
        """The columns whose values have names that begin as those of this one do."""
        own = columns_of(self.mapper)[self.key]
        object_type = settings_of(own).object_type
        mappers = (self.mapper, *self.mapper.registry.mappers)
        columns = dict.fromkeys(column for mapper in mappers for column in columns_of(mapper).values())
        return [type_coerce(one, Text()) for one in columns if settings_of(one).object_type == object_type]


# --- what comes late -------------------------------------------------------------------------------------------------


@event.listens_for(Mapper, "before_insert")
def _inserting(mapper: Mapper[Any], connection: Connection, row: object) -> None:
    if columns_of(mapper):
        _late(row, _of_new)


@event.listens_for(Mapper, "before_update")
def _updating(mapper: Mapper[Any], connection: Connection, row: object) -> None:
    if columns_of(mapper):
        _late(row, _of_dirty)


def _late(row: object, changes_of: Callable[[Session, _Work, object], Iterator[_Change]]) -> None:
    """Store what a hook of the application assigned after our look at the session, and let the values be written."""
    session = object_session(row)
    assert session is not None
    work = _work(session)
    changes = list(changes_of(session, work, row))
    if changes:
        put(session, _prepare(session, changes))
        _settle(session, work, changes, [])
        work.add(changes)
    work.written.add(instance_state(row))
    for key in columns_of(object_mapper(row)):
        change = work.changes.get((instance_state(row), key))
        if change is not None and change.handle is not None and work.knows(row, key):
            change.handle._writing = True
            work.writing.append(change.handle)


@event.listens_for(Mapper, "before_delete")
def _deleting(mapper: Mapper[Any], connection: Connection, row: object) -> None:
    """Look at what an orphan holds, which the flush itself deletes."""
    if columns_of(mapper):
        session = object_session(row)
        assert session is not None
        work = _work(session)
        if instance_state(row) not in work.doomed:
            _settle(session, work, [], [row])
