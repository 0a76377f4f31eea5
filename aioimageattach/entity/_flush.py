"""The flush handler of image rows. Each row references one file, from its INSERT to its DELETE."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Final, cast
from weakref import WeakKeyDictionary, ref

from sqlalchemy import Insert, Table, Update, event
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.orm import InstanceState, Mapper, Session, object_session
from sqlalchemy.orm.attributes import instance_state, set_attribute
from sqlalchemy.orm.base import LoaderCallableStatus

from .._greenlet import await_
from .._telemetry import LEFT, log_fields
from .._transaction.files import Upload
from .._transaction.hooks import (
    FlushHandler,
    FlushPlan,
    Report,
    Rows,
    claim,
    database_of,
    holds,
    lock,
    put,
    register,
)
from .._transaction.references import TrackedFile
from ..context._current import resolve_store
from ..exc import ContextError, UsageError
from ..key import ImageKey
from ..store import KeyedStore, Store
from ._derived import MARKS, derived_from, marks_of, show_framing_of
from ._image import Image
from ._mapping import Attachment, attachments_to
from ._record import attached_as, known_store, record_of, share
from ._references import ImageReferrer
from ._replacement import Replacement

__all__ = ["ImageFlush"]

_WORK: Final = "aioimageattach.images"

_log = logging.getLogger("aioimageattach.transaction")


@dataclass(slots=True)
class _Work:
    """The state of one flush.

    Args:
        seen: The new rows that were processed before the first statement. Hooks of the application may add others
            later.
        inserted: The new rows that a statement has inserted or is about to insert, without those whose owner is
            deleted.
        removed: The files of the rows that are deleted, according to the database.
        changed: The rows that now reference another file, each with its previous file.
        allowed: The revisions that the statements of the flush may write.
        late: The rows whose files are put after their INSERT, because the file name depends on it.
        replacement: The image sets of the rows in ``seen``.
    """

    seen: set[InstanceState[Any]] = field(default_factory=set)
    inserted: list[Image] = field(default_factory=list)
    removed: dict[InstanceState[Any], TrackedFile | None] = field(default_factory=dict)
    changed: list[tuple[Image, TrackedFile | None]] = field(default_factory=list)
    allowed: set[str] = field(default_factory=set)
    late: list[Image] = field(default_factory=list)
    replacement: Replacement | None = None


class ImageFlush(FlushHandler):
    """Puts the files of image rows, and reports which files the rows reference."""

    work_key: ClassVar[str] = _WORK

    def handles(self, mapper: Mapper[Any]) -> bool:
        """Return whether the mapper's rows are images."""
        return issubclass(mapper.class_, Image)

    def plan(self, session: Session, rows: Rows) -> FlushPlan:
        """Return the files of new rows, and the owners of the rows to insert and delete."""
        new = _without_replaced(session, list(_with_owners(session, rows.new)))
        work = session.info[_WORK] = _Work(seen=set(map(instance_state, new)))
        for row in rows.gone:
            resolve_store(known_store(row), session=session)  # refuses the deletion if the store is unknown
        for row in rows.changed:
            _check_changed(session, work, row)
        waiting = [row for row in new if _prepare(session, work, row)]
        for row in new:
            _claim(session, row)
        work.replacement = Replacement(session, new, rows.gone)
        uploads = [upload for row in waiting if not _needs_insert(row) for upload in _uploads(session, row)]
        return FlushPlan(uploads, work.replacement.owners())

    def read_rows(self, session: Session) -> None:
        """Find the rows that this flush removes from the database, and calculate the marks of new rows again."""
        work = _work(session)
        assert work.replacement is not None
        for row in [row for state in work.seen if (row := state.obj()) is not None]:
            _renew_marks(row)
        for one in work.replacement.find_removed():
            store = resolve_store(one.store, session=session)
            record_of(one.row).store = store
            file = None if one.key is None else _stored_file(session, one.row, store, one.key)
            work.removed[instance_state(one.row)] = file

    def flushed(self, session: Session) -> Report:
        """Report the rows that were inserted or reference another file; :meth:`ended` reports those in ``late``."""
        work, report = _work(session), Report()
        for row in work.inserted:
            record = record_of(row)
            if record.attached is not None and record.file is None and record.attached.spool is not None:
                work.late.append(row)
            else:
                report.named += _inserted(session, row)
        for row, before in work.changed:
            report.dropped += [] if before is None else [before]
            file = _file_of(session, row)
            report.named += [] if file is None else [file]
        return report

    def ended(self, session: Session, deleted: Sequence[Image]) -> Report:
        """Put the files of the rows in ``late``, and remove deleted rows from the collections of their owners."""
        work, report = _work(session), Report()
        for row in deleted:
            report.dropped += _dropped(session, row)
        if work.late:
            _find_late(session, work)
            put(session, [upload for row in work.late for upload in _uploads(session, row)])
            for row in work.late:
                report.named += _inserted(session, row)
        _forget(session, work.removed)
        return report

    def deleted(self, session: Session, row: Image) -> Report:
        """Report that a row that a bulk statement has deleted no longer references its file."""
        return Report(dropped=_dropped(session, row))


register(ImageFlush())


def _work(session: Session) -> _Work:
    """Return the state of the flush; create it if the first rows were added late by a hook of the application."""
    return cast("_Work", session.info.setdefault(_WORK, _Work()))


def _dropped(session: Session, row: Image) -> list[TrackedFile]:
    state = instance_state(row)
    found = cast("_Work | None", session.info.get(_WORK))
    known = found is not None and state in found.removed
    file = found.removed[state] if found is not None and known else _file_of(session, row)
    if file is None:
        extra = log_fields(LEFT, count=1)
        _log.warning(
            "the file of a deleted %s is left for the sweep: its row was not loaded", type(row).__name__, extra=extra
        )
        return []
    return [file]


def _with_owners(session: Session, new: Sequence[Image]) -> Iterator[Image]:
    """Yield the image rows to insert. Expunge those whose owner is deleted in the same flush."""
    for row in new:
        owner = record_of(row).owner
        if owner is not None and owner in session._deleted:
            session.expunge(row)
        else:
            yield row


def _without_replaced(session: Session, new: Sequence[Image]) -> list[Image]:
    """Expunge the rows of images that were replaced before they were flushed, and return the others.

    Attaching an image does this, too, unless the application has expired the owner's collection in the meantime.
    """
    attachments = {cls: attachments_to(cls) for cls in {type(row) for row in new}}
    sets: dict[tuple[Any, ...], list[Image]] = {}
    for row in new:
        sets.setdefault(_set_of(row, attachments[type(row)]), []).append(row)
    left: list[Image] = []
    for rows in sets.values():
        originals = [number for number, row in enumerate(rows) if row.original]
        first = originals[-1] if originals and record_of(rows[0]).owner is not None else 0
        for row in rows[:first]:
            session.expunge(row)
        left += rows[first:]
    return left


def _set_of(row: Image, attachments: Sequence[Attachment]) -> tuple[Any, ...]:
    owner = record_of(row).owner
    for attachment in attachments if owner is not None else ():
        if owner is not None and owner.mapper.isa(attachment.owner) and attachment.accepts(row.__dict__):
            return owner, attachment.relationship, *(row.__dict__.get(name) for name in attachment.discriminators)
    return (instance_state(row),)


def _find_late(session: Session, work: _Work) -> None:
    """Mark rows for deletion by the next flush if an original attached by a hook of the application replaces them."""
    late = [row for row in work.late if instance_state(row) not in work.seen]
    if late:
        replacement = Replacement(session, late, ())
        lock(session, replacement.owners())
        replacement.find_removed()


def _inserted(session: Session, row: Image) -> list[TrackedFile]:
    record = record_of(row)
    file = record.file or _file_of(session, row)
    record.attached = record.origin = None
    return [] if file is None else [file]


def _forget(session: Session, gone: Iterable[InstanceState[Any]]) -> None:
    """Remove deleted rows from the loaded collections of their owners.

    Otherwise deleting an owner would try to delete them again.
    """
    owners: dict[int, tuple[list[Any], set[int]]] = {}
    attachments: dict[type[Any], list[Attachment]] = {}
    for state in gone:
        if not state.was_deleted and not state.deleted:
            continue  # a hook of the application has undone the deletion
        row = state.obj()
        if state.class_ not in attachments:
            attachments[state.class_] = attachments_to(state.class_)
        for attachment in attachments[state.class_]:
            mapper = attachment.owner
            values = {name: state.dict.get(column) for name, column in attachment.pairs}
            key = tuple(values.get(mapper.get_property_by_column(column).key) for column in mapper.primary_key)
            owner = None if None in key else session.identity_map.get(mapper.identity_key_from_primary_key(key))
            rows = None if owner is None else owner.__dict__.get(attachment.relationship.key)
            if rows is not None:
                owners.setdefault(id(rows), (rows, set()))[1].add(id(row))
    for rows, ids in owners.values():  # without events, because there is nothing to flush
        list.__setitem__(rows, slice(None), [row for row in rows if id(row) not in ids])


# --- files -----------------------------------------------------------------------------------------------------------


def _stored_file(session: Session, row: Image, store: Store, key: ImageKey, *, is_made: bool = False) -> TrackedFile:
    state = instance_state(row)
    if key.revision is not None and not store.needs_object_id:
        key = replace(key, object_id=None)  # object_id is not part of the file name, and changes if the row moves
    referrer = ImageReferrer(database_of(session, state), state.mapper)
    return TrackedFile(store, key, referrer, derived_from(row, store, key, is_made=is_made))


def _file_of(session: Session, row: Image) -> TrackedFile | None:
    """Return the file that a row references, if its columns are loaded and its store is known."""
    key = row._stored_key()
    try:
        store = None if key is None else resolve_store(known_store(row), session=session)
    except ContextError:
        return None
    return None if key is None or store is None else _stored_file(session, row, store, key)


def _uploads(session: Session, row: Image) -> Iterator[Upload]:
    """Yield the upload of a row's file and those of the declared thumbnails that were made with it."""
    record = record_of(row)
    key = row._stored_key()
    attached = record.attached
    assert key is not None
    assert attached is not None
    assert attached.spool is not None
    is_made = bool(attached.derived) and show_framing_of(row, [one for one, _ in attached.derived])
    record.file = _stored_file(session, row, attached.store, key, is_made=is_made)
    yield Upload(record.file, attached.spool, key.mimetype, attached.reproducible)
    for derived, rendering in attached.derived:
        file = TrackedFile(attached.store, derived.key_for(row), record.file.referrer)
        yield Upload(file, rendering.blob, rendering.mimetype, reproducible=True, shared=True)


def _renew_marks(row: Any) -> None:
    """Calculate the marks of a new row again: a directory cannot be identified before its first file has been put."""
    attached = record_of(row).attached
    if attached is not None and attached.derived and row.__dict__.get(MARKS) is not None:
        files = [one for one, _ in attached.derived]
        set_attribute(row, MARKS, marks_of(files, cast("KeyedStore", attached.store), row.object_type))


def _needs_insert(row: Image) -> bool:
    """Return whether the upload needs an ``object_id`` that the database has yet to generate."""
    attached = record_of(row).attached
    assert attached is not None
    if not attached.store.needs_object_id:
        return False
    key = row._stored_key()
    return key is None or key.object_id is None


# --- checks of written references ------------------------------------------------------------------------------------


def _prepare(session: Session, work: _Work, row: Image) -> bool:
    """Check a row to insert, and return whether its file has to be put.

    Raises:
        UsageError: The row references a file that this session has neither put nor adopted.
    """
    record = record_of(row)
    attached_as(row, row.__dict__.get("revision"))
    attached = record.attached
    put_before = record.file is not None and holds(session, record.file)
    waits = attached is not None and attached.spool is not None and not put_before
    if attached is not None and waits:
        if attached.attempted:
            set_attribute(
                row, "revision", attached.store.revision_for(row.object_type, reproducible=attached.reproducible)
            )
            share(row.revision, attached)
        attached.attempted = True
        record.file = None
    elif attached is None and not put_before:
        _require_file(session, row)
    if row.__dict__.get("revision") is not None:
        work.allowed.add(row.revision)  # type: ignore[arg-type]
    return waits


def _claim(session: Session, row: Image) -> None:
    """Verify that the file of a row that adopts it exists, and protect it from deletion.

    Raises:
        StoreFileNotFoundError: The file no longer exists.
    """
    attached = record_of(row).attached
    if attached is not None and attached.spool is None and isinstance(attached.store, KeyedStore):
        key = cast("ImageKey", row._stored_key())
        claim(session, _stored_file(session, row, attached.store, key))
        await_(attached.store.head_object(attached.store.name_of(key)))


def _require_file(session: Session, row: Image) -> None:
    """Refuse to insert a row whose file was not put for it.

    Such rows result from ``pickle``, from ``make_transient``, from ``merge`` of a deleted row, and from a transaction
    that was rolled back.
    Rows of SQLAlchemy-ImageAttach have no revision; they are not checked, because it is unknown whether their files
    exist.

    Raises:
        UsageError: The file was not put in this transaction.
    """
    key = row._stored_key()
    if key is None or key.revision is None:
        return
    file = _file_of(session, row)
    if file is None or not holds(session, file):
        raise UsageError(
            f"{row!r} has no file, because it is a copy, because it was made transient, or because the transaction "
            "that uploaded its file was rolled back; attach the image again with from_file()"
        )


def _check_changed(session: Session, work: _Work, row: Image) -> None:
    """Reject a change that makes a row reference another file, unless this session has put that file.

    Raises:
        UsageError: This session has not put the file.
    """
    state = instance_state(row)
    changed = {name: value for name, value in state.committed_state.items() if name in state.mapper.column_attrs}
    if not changed or any(changed_row is row for changed_row, _ in work.changed):
        return
    now, before = row._stored_key(), _key_before(row, changed)
    if now is None or now == before or _same_file(session, row, before, now):
        return
    file = _file_of(session, row)
    if file is not None and holds(session, file):
        old = None if before is None else _stored_file(session, row, file.store, before)
        work.changed.append((row, old))
        work.allowed.update(revision for revision in [now.revision] if revision is not None)
        return
    raise UsageError(
        f"{type(row).__name__}: with the change of {', '.join(sorted(changed))}, the row would reference {now!r} "
        f"instead of {before!r}, but this session has not uploaded that file. Either a stale object was merged, or a "
        "column that determines the file name was assigned. Refresh the object, or attach the image again with "
        "from_file()"
    )


def _key_before(row: Image, changed: Mapping[str, Any]) -> ImageKey | None:
    """Return the key of the file that the row references in the database; ``None`` if it is unknown."""
    values = row.__dict__
    now = {name: values[name] for name in changed if name in values}
    before = {name: value for name, value in changed.items() if not isinstance(value, LoaderCallableStatus)}
    for name in now:
        del values[name]
    values.update(before)
    try:
        return row._stored_key()
    finally:
        for name in before:
            del values[name]
        values.update(now)


def _same_file(session: Session, row: Image, before: ImageKey | None, now: ImageKey) -> bool:
    """Return whether two keys identify the same file: the built-in stores do not use ``object_id`` in names."""
    if before is None or before.revision is None or now.revision is None:
        return False
    if replace(before, object_id=None) != replace(now, object_id=None):
        return False
    try:
        return not resolve_store(known_store(row), session=session).needs_object_id
    except ContextError:
        return True


@event.listens_for(Image, "before_insert", propagate=True)
def _inserting(mapper: Mapper[Any], connection: Connection, row: Image) -> None:
    session = object_session(row)
    assert session is not None
    work = _work(session)
    if instance_state(row) not in work.seen:  # a hook of the application has added it after before_flush
        _prepare(session, work, row)
    work.inserted.append(row)
    if work.removed:
        # SQLAlchemy turns the DELETE and INSERT of one primary key into an UPDATE, and reports no deletion.
        old = session.identity_map.get(mapper.identity_key_from_instance(row))
        if old is not None and instance_state(old) in work.removed:
            work.changed.append((row, work.removed[instance_state(old)]))


@event.listens_for(Image, "before_update", propagate=True)
def _updating(mapper: Mapper[Any], connection: Connection, row: Image) -> None:
    session = object_session(row)
    assert session is not None
    _check_changed(session, _work(session), row)


# --- statements that bypass the objects ------------------------------------------------------------------------------

_tables: WeakKeyDictionary[Table, ref[Mapper[Any]]] = WeakKeyDictionary()
_sessions: WeakKeyDictionary[Connection, ref[Session]] = WeakKeyDictionary()
_FILE_COLUMNS: Final = frozenset({"revision", "width", "height", "mimetype"})


@event.listens_for(Mapper, "after_mapper_constructed")
def _mapped(mapper: Mapper[Any], cls: type) -> None:
    if issubclass(cls, Image) and isinstance(mapper.local_table, Table):
        _tables[mapper.local_table] = ref(mapper)


@event.listens_for(Session, "after_begin")
def _after_begin(session: Session, transaction: object, connection: Connection) -> None:
    _sessions[connection] = ref(session)


@event.listens_for(Engine, "before_execute")
def _executing(connection: Connection, statement: object, many: Any, params: Any, options: object) -> None:
    """Reject statements such as ``insert(Picture)`` or ``bulk_save_objects`` that write references to files.

    No other event fires for all of them. This listener is called for every statement of every engine, so it returns
    early for queries and for other tables. ``do_orm_execute`` fires less often, but makes SQLAlchemy prepare each query
    twice.
    """
    if not isinstance(statement, (Insert, Update)) or not isinstance(statement.table, Table):
        return
    of_table = _tables.get(statement.table)
    of_connection = None if of_table is None else _sessions.get(connection)
    mapper = None if of_table is None else of_table()
    session = None if of_connection is None else of_connection()
    if mapper is None or session is None:
        return
    # Outside a flush, statements on the table itself are not checked.
    if "parententity" in statement.table._annotations:
        _check_statement(mapper, statement, many or [params or {}], ())
    elif session._flushing:
        _check_statement(mapper, statement, many or [params or {}], _work(session).allowed)


def _check_statement(
    mapper: Mapper[Any], statement: Insert | Update, many: Sequence[Mapping[str, Any]], allowed: Collection[str]
) -> None:
    columns = {
        column.key: prop.key for prop in mapper.column_attrs if prop.key in _FILE_COLUMNS for column in prop.columns
    }
    columns.update({name: name for name in columns.values()})
    for values in _values_of(statement, many):
        written = {columns[name]: value for name, value in values.items() if name in columns}
        revision = written.get("revision")
        if not written or revision in allowed or (revision is None and isinstance(statement, Insert)):
            continue
        raise UsageError(
            f"{mapper.class_.__name__}: a statement writes {', '.join(sorted(written))}, which reference a file, "
            "without uploading that file; attach images with from_file(), and change rows through their objects"
        )


def _values_of(statement: Insert | Update, many: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Yield the values that a statement writes, by the keys of their columns."""
    own: dict[Any, Any] = {
        getattr(column, "key", column): getattr(value, "value", value)
        for column, value in (statement._values or {}).items()
    }
    for values in many:
        yield {**own, **values}
    for several in statement._multi_values:
        rows = cast("Sequence[Mapping[Any, Any]]", several)
        yield from ({getattr(column, "key", column): value for column, value in row.items()} for row in rows)
    if isinstance(statement, Insert) and statement.select is not None:
        yield dict.fromkeys(statement._select_names or (), "a query")
