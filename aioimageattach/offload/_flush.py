"""The flush handler of rows with offloaded columns, each of which references at most one file per column."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, cast

from sqlalchemy import Column, ColumnElement, Text, event, select, type_coerce
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

from .._batches import batched
from .._greenlet import await_, in_bridge
from .._telemetry import LEFT, log_fields
from .._transaction.fence import GRACE, grace_of
from .._transaction.files import Upload
from .._transaction.hooks import (
    FlushHandler,
    FlushPlan,
    Report,
    Rows,
    connection_of,
    database_of,
    holds,
    lock,
    put,
    register,
)
from .._transaction.locks import PAGE, OwnerRow, among
from .._transaction.references import Referrer, TrackedFile
from ..context._current import resolve_store
from ..exc import DamagedValueError, DeclarationError
from ..store import KeyedStore, Store
from ._columns import coerced, columns_of, settings_of
from ._fetch import keyed
from ._prepare import Prepared, Wanted, prepare_all
from ._reference import Reference
from ._values import Settings, Stored

__all__ = ["StoredValues", "ValueReferrer"]

_WORK: Final = "aioimageattach.offload"

_log = logging.getLogger("aioimageattach.offload")


@dataclass(slots=True, eq=False)
class _Change:
    """One attribute of one row that is to be written.

    Args:
        row: The object.
        key: The name of the attribute.
        settings: The settings of its column.
        handle: The new value; ``None`` for NULL.
        old: The value of the row when it was loaded; ``None`` if it was NULL, or was not loaded.
        store: The store for the new file, which also contains the old one.
        prepared: The prepared content of the handle.
        dropped: The files that the row references immediately before it is written.
    """

    row: object
    key: str
    settings: Settings
    handle: Stored[Any] | None
    old: Stored[Any] | None
    store: KeyedStore | None = None
    prepared: Prepared | None = None
    dropped: list[TrackedFile] = field(default_factory=list)


@dataclass(slots=True)
class _Work:
    """The state of one flush.

    Args:
        planned: The changes whose files are about to be put.
        changes: The changes whose files are in the store, by row and attribute.
        deleted: The rows that are deleted, with their files.
        written: The rows for which statements were executed.
        writing: The handles that statements may write now.
        seen: The ``id`` of each handle that was processed.
    """

    planned: list[_Change] = field(default_factory=list)
    changes: dict[tuple[InstanceState[Any], str], _Change] = field(default_factory=dict)
    deleted: dict[InstanceState[Any], list[TrackedFile]] = field(default_factory=dict)
    written: set[InstanceState[Any]] = field(default_factory=set)
    writing: list[Stored[Any]] = field(default_factory=list)
    seen: set[int] = field(default_factory=set)

    def knows(self, row: object, key: str) -> bool:
        """Return whether the flush has processed the current value of an attribute."""
        change = self.changes.get((instance_state(row), key))
        return change is not None and change.handle is instance_dict(row).get(key)

    def add(self, changes: Iterable[_Change]) -> None:
        """Record changes whose files are in the store."""
        self.changes.update({(instance_state(change.row), change.key): change for change in changes})


class StoredValues(FlushHandler):
    """Puts the values of rows with offloaded columns, and reports which files the rows reference."""

    work_key: ClassVar[str] = _WORK

    def handles(self, mapper: Mapper[Any]) -> bool:
        """Return whether the mapper has offloaded columns."""
        return bool(columns_of(mapper))

    def plan(self, session: Session, rows: Rows) -> FlushPlan:
        """Return the files of new values, and the rows that are changed or deleted."""
        work = _left(session)
        changes: list[_Change] = []
        for row in rows.new:
            changes += _of_new(session, work, row, switched=bool(rows.gone))
        for row in rows.changed:
            changes += _of_dirty(session, work, row)
        uploads = _prepare(session, changes)
        if changes or work.changes or rows.gone:
            session.info[_WORK] = work
        work.planned = changes
        work.deleted = {instance_state(row): [] for row in rows.gone}
        return FlushPlan(uploads, _owners([*work.changes.values(), *changes], work.deleted))

    def read_rows(self, session: Session) -> None:
        """Read the current references of changed and deleted rows, then allow the new values to be written."""
        work = _work(session)
        work.add(work.planned)
        _read_references(session, work, [*work.changes.values()], list(work.deleted))

    def flushed(self, session: Session) -> Report:
        """Return the files that the rows reference now, and those that they no longer reference."""
        work, report = _work(session), Report()
        for change in work.changes.values():
            if instance_state(change.row) in work.written and _is_current(session, change):
                report.named += _files(session, change.row, change.key, change.handle)
                content = None if change.prepared is None else change.prepared.content
                if isinstance(content, Reference) and content.shared:
                    state = instance_state(change.row)
                    report.leased.append((database_of(session, state), content.since))
                report.dropped += change.dropped
        work.changes.clear()
        return report

    def ended(self, session: Session, deleted: Sequence[Any]) -> Report:
        """Return the files of the deleted rows. No file is put here, because no name depends on an inserted row."""
        work = _work(session)
        return Report(dropped=[file for row in deleted for file in _files_of_deleted(session, work, row)])

    def closed(self, session: Session) -> None:
        """Prevent further statements from writing the handles of the flush, and keep its unwritten changes."""
        work = _work(session)
        for handle in work.writing:
            handle._writing = False
        if work.changes:
            session.info[_WORK] = _Work(changes=work.changes)
        else:
            del session.info[_WORK]

    def deleted(self, session: Session, row: Any) -> Report:
        """Return the files of a row that a bulk statement has deleted."""
        return Report(dropped=list(_known_files(session, row)))


register(StoredValues())


def _work(session: Session) -> _Work:
    """Return the state of the flush; a new one if nothing was planned."""
    return cast("_Work | None", session.info.get(_WORK)) or _Work()


def _left(session: Session) -> _Work:
    """Return the changes that a failed flush has already put, for rows that are still to be written."""
    left: _Work = session.info.pop(_WORK, _Work())
    work = _Work()
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


# --- changes ---------------------------------------------------------------------------------------------------------


def _of_new(session: Session, work: _Work, row: object, *, switched: bool = False) -> Iterator[_Change]:
    values = instance_dict(row)
    for key, column in columns_of(object_mapper(row)).items():
        # SQLAlchemy applies the default even if None was assigned.
        if values.get(key) is None and column.default is not None:
            set_attribute(row, key, copy.deepcopy(cast("Any", column.default).arg))
        elif key not in values and switched:  # an UPDATE of a deleted row would keep the old value
            set_attribute(row, key, None)
        value = values.get(key)
        if value is not None and not work.knows(row, key):
            if isinstance(value, Stored):
                value._moves_with(instance_state(row))
            yield _change(session, work, row, key, column, None)


def _of_dirty(session: Session, work: _Work, row: object) -> Iterator[_Change]:
    for key, column in columns_of(object_mapper(row)).items():
        history = get_history(row, key, PASSIVE_NO_INITIALIZE)
        if not history.has_changes() or work.knows(row, key):
            continue
        old = history.deleted[0] if history.deleted else None
        change = _change(session, work, row, key, column, old)
        if change.handle is not None and old is not None and change.handle._raw == old._raw:
            set_committed_value(row, key, old)  # the column already holds this reference
        else:
            yield change


def _change(
    session: Session, work: _Work, row: object, key: str, column: Column[Any], old: Stored[Any] | None
) -> _Change:
    settings = settings_of(column)
    values = instance_dict(row)
    value = values.setdefault(key, None)  # the attribute may have been deleted with `del`
    # a handle that was stored before, or that belongs to another row too, is replaced by one for this attribute
    if value is not None and (not isinstance(value, Stored) or value._raw is not None or id(value) in work.seen):
        value = values[key] = coerced(settings, value)
    work.seen.add(id(value))
    store = None if value is None else _store(session, value)
    return _Change(row, key, settings, value, old, store)


def _store(session: Session, handle: Stored[Any]) -> KeyedStore:
    return keyed(resolve_store(handle._store, session=session))


# --- uploads ---------------------------------------------------------------------------------------------------------


def _prepare(session: Session, changes: list[_Change]) -> list[Upload]:
    """Return the files to put, and remove changes that leave the stored bytes as they are."""
    writing = [change for change in changes if change.handle is not None]
    if not writing:
        return []
    if not in_bridge():
        raise DeclarationError("values are stored by an AsyncSession; this session is used without one")
    sharing = grace_of(session) >= GRACE  # with a shorter grace time, an existing file may be too old to share
    wanted = [
        Wanted(
            change.handle,
            change.settings,
            change.old,
            change.handle._resolve(None, session),
            change.settings.dedupe and sharing,
        )
        for change in writing
        if change.handle is not None
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
            mimetype = content.mimetype(change.settings.cls.mimetype)
            file = TrackedFile(change.store, content.name, _referrer(session, change.row, change.key))
            uploads.append(Upload(file, prepared.data, mimetype, shared=content.shared))
    changes[:] = [change for change in changes if change.prepared is None or change.prepared.content is not None]
    return uploads


def _owners(changes: Iterable[_Change], deleted: Iterable[InstanceState[Any]]) -> list[OwnerRow]:
    """Return the database rows to lock: those that are changed or deleted, because each row owns its values."""
    states = dict.fromkeys((*deleted, *(instance_state(change.row) for change in changes)))
    return [OwnerRow(state.mapper, (), tuple(state.identity), state) for state in states if state.identity is not None]


def _read_references(
    session: Session, work: _Work, changes: Sequence[_Change], deleted: Sequence[InstanceState[Any]]
) -> None:
    """Read the current references of changed and deleted rows, then allow the new values to be written."""
    before = [change for change in changes if instance_state(change.row).key is not None]
    held = _held(session, {*deleted, *(instance_state(change.row) for change in before)})
    for state in deleted:
        row, handles = state.obj(), held.get(state, {}).items()
        work.deleted[state] = [file for key, handle in handles for file in _files(session, row, key, handle)]
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
    """Return the current values of rows in the database, without rows that no longer exist.

    The rows are read with a lock, although those of base tables are locked already: only a locking read returns the
    latest values at every isolation level.
    """
    by_mapper: dict[Mapper[Any], dict[tuple[Any, ...], InstanceState[Any]]] = {}
    for state in states:
        assert state.identity is not None
        by_mapper.setdefault(state.mapper, {})[tuple(state.identity)] = state
    found: dict[InstanceState[Any], dict[str, Stored[Any] | None]] = {}
    for mapper, rows in by_mapper.items():
        for connection, identities in _by_connection(session, mapper, rows).items():
            for identity, values in _read(connection, mapper, identities):
                if identity in rows:
                    found[rows[identity]] = values
            for identity in identities:  # the database may return a padded key, as for CHAR(10): compare it there
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
    """Read rows from tables instead of classes, so that query filters of the application cannot hide any."""
    columns = columns_of(mapper)
    primary = mapper.primary_key
    query = select(*primary, *columns.values()).select_from(mapper.persist_selectable).with_for_update(key_share=True)
    for batch in batched(identities, PAGE):
        for row in connection.execute(query.where(among(primary, batch))):
            yield tuple(row[: len(primary)]), dict(zip(columns, row[len(primary) :], strict=True))


# --- previous files --------------------------------------------------------------------------------------------------


def _files_of_deleted(session: Session, work: _Work, row: object) -> Iterable[TrackedFile]:
    known = work.deleted.get(instance_state(row))
    return _known_files(session, row) if known is None else known


def _known_files(session: Session, row: object) -> Iterator[TrackedFile]:
    """Return the files of a row that a bulk statement has deleted, if the columns were loaded.

    Files of changes that were not flushed are not included.
    """
    for key in columns_of(object_mapper(row)):
        history = get_history(row, key, PASSIVE_NO_INITIALIZE)
        known = (history.deleted if history.has_changes() else history.unchanged) or ()
        try:
            if not known:
                raise LookupError("it was not loaded")
            yield from _files(session, row, key, known[0])
        except LookupError as error:
            extra = log_fields(LEFT, error, count=1)
            _log.warning(
                "the file of a deleted %s.%s is left for the sweep: %s", type(row).__name__, key, error, extra=extra
            )


def _files(
    session: Session, row: object, key: str, handle: Stored[Any] | None, store: Store | None = None
) -> Iterator[TrackedFile]:
    """Yield the file that a handle references, unless it is shared."""
    if handle is None or handle._raw is None:
        return
    try:
        content = handle._read()
    except DamagedValueError as error:
        _log.warning("nothing is deleted: %s", error, extra=log_fields(LEFT, error, count=1))
        return
    if isinstance(content, Reference) and not content.shared:
        found = keyed(resolve_store(handle._store, store, session=session))
        yield TrackedFile(found, content.name, _referrer(session, row, key))


def _referrer(session: Session, row: object, key: str) -> ValueReferrer:
    state = instance_state(row)
    return ValueReferrer(database_of(session, state), state.mapper, key)


@dataclass(frozen=True, slots=True)
class ValueReferrer(Referrer):
    """The rows with an offloaded column. A SQL statement may have copied a reference into any of them."""

    key: str

    def referenced(self, connection: Connection, files: Sequence[TrackedFile]) -> Collection[TrackedFile]:
        """See :meth:`Referrer.referenced`; an index on the column makes this fast."""
        by_reference = {f"@{file.key}": file for file in files}
        found: set[TrackedFile] = set()
        for column in self._columns():
            for references in batched(sorted(by_reference), PAGE):
                query = select(column).where(column.in_(references))
                found.update(by_reference[raw] for raw in connection.scalars(query) if raw in by_reference)
        return found

    def _columns(self) -> list[ColumnElement[str]]:
        """Return the columns with the object type of this one, whose file names have the same prefix."""
        own = columns_of(self.mapper)[self.key]
        object_type = settings_of(own).object_type
        mappers = (self.mapper, *self.mapper.registry.mappers)
        columns = dict.fromkeys(column for mapper in mappers for column in columns_of(mapper).values())
        return [type_coerce(one, Text()) for one in columns if settings_of(one).object_type == object_type]


# --- late changes ----------------------------------------------------------------------------------------------------


@event.listens_for(Mapper, "mapper_configured")
def _configured(mapper: Mapper[Any], cls: type) -> None:
    """Listen only to mappers with offloaded columns, so that others are not slowed down."""
    if columns_of(mapper):
        event.listen(mapper, "before_insert", _inserting)
        event.listen(mapper, "before_update", _updating)
        event.listen(mapper, "before_delete", _deleting)


def _inserting(mapper: Mapper[Any], connection: Connection, row: object) -> None:
    _late(row, _of_new)


def _updating(mapper: Mapper[Any], connection: Connection, row: object) -> None:
    _late(row, _of_dirty)


def _late(row: object, changes_of: Callable[[Session, _Work, object], Iterator[_Change]]) -> None:
    """Store values that the application's hooks assigned after ``before_flush``, and allow them to be written."""
    session = object_session(row)
    assert session is not None
    work = _work(session)
    changes = list(changes_of(session, work, row))
    if changes:
        session.info[_WORK] = work
        put(session, _prepare(session, changes))
        lock(session, _owners(changes, ()))
        _read_references(session, work, changes, [])
        work.add(changes)
    work.written.add(instance_state(row))
    for key in columns_of(object_mapper(row)):
        change = work.changes.get((instance_state(row), key))
        if change is not None and change.handle is not None and work.knows(row, key):
            change.handle._writing = True
            work.writing.append(change.handle)


def _deleting(mapper: Mapper[Any], connection: Connection, row: object) -> None:
    """Read the references of a delete-orphan row, which SQLAlchemy marks for deletion during the flush."""
    session = object_session(row)
    assert session is not None
    work, state = _work(session), instance_state(row)
    if state not in work.deleted:
        session.info[_WORK] = work
        lock(session, _owners((), [state]))
        _read_references(session, work, [], [state])
