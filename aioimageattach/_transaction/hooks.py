"""The only listeners on sessions: they feed the journal, upload before a flush and discard after a transaction.

The hooks do not know how rows reference files. They call a :class:`FlushHandler` for the rows of mappers that it
handles, and it returns the files and rows concerned. The hooks put the files, lock the rows, and keep the journal.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Final, cast
from weakref import WeakKeyDictionary, WeakSet, ref

from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.orm import InstanceState, Mapper, Session, SessionTransaction
from sqlalchemy.orm.attributes import instance_state
from sqlalchemy.pool import ConnectionPoolEntry, Pool

from .._greenlet import await_, in_bridge
from .._tasks import finish
from .._telemetry import LEFT, log_fields
from ..context._current import bound_store
from ..exc import DeclarationError, StoreFileNotFoundError, TransactionExpiredError
from ..store import Store
from .deferral import is_deferred
from .fence import check_age, grace_of
from .files import Upload, discard_all, put_all
from .handover import hand_over
from .journal import Journal, Verdict
from .locks import OwnerRow, lock_owners
from .references import Database, TrackedFile, unreferenced

__all__ = [
    "FlushHandler",
    "FlushPlan",
    "Report",
    "Rows",
    "claim",
    "connection_of",
    "database_of",
    "former_store",
    "holds",
    "lock",
    "put",
    "register",
]

_BOUND: Final = "aioimageattach.bound"
_DATABASES: Final = "aioimageattach.databases"
_DELETED: Final = "aioimageattach.deleted"
_JOURNAL: Final = "aioimageattach.journal"
_SESSION: Final = "aioimageattach.session"

_log = logging.getLogger("aioimageattach.transaction")


@dataclass(slots=True)
class Rows:
    """The rows of one handler in a flush, before the first statement of the flush."""

    new: list[Any] = field(default_factory=list)
    changed: list[Any] = field(default_factory=list)
    gone: list[Any] = field(default_factory=list)


@dataclass(slots=True)
class FlushPlan:
    """The work to do before a handler may read anything.

    Args:
        uploads: The files to put.
        owners: The rows to lock.
    """

    uploads: Sequence[Upload] = ()
    owners: Sequence[OwnerRow] = ()


@dataclass(slots=True)
class Report:
    """The references to files that statements have changed.

    Args:
        named: Files that a row references now.
        dropped: Files whose row was deleted, or references another file now.
        leased: Databases with a row that references a shared file, with the earliest time at which these files were
            put, in seconds since 1970. No transaction deletes a shared file, but a sweep may delete an old one.
    """

    named: list[TrackedFile] = field(default_factory=list)
    dropped: list[TrackedFile] = field(default_factory=list)
    leased: list[tuple[Database, float]] = field(default_factory=list)


class FlushHandler(ABC):
    """Handles one way in which rows reference files. Each row references none, one or many.

    In each flush, the methods are called in the order of their definition. A handler without work in a flush is not
    called.
    """

    work_key: ClassVar[str]
    """Key of the handler's state in ``Session.info``. After :meth:`plan`, a flush skips handlers without state."""

    @abstractmethod
    def handles(self, mapper: Mapper[Any]) -> bool:
        """Return whether rows of a mapper may reference files. The result is cached."""

    @abstractmethod
    def plan(self, session: Session, rows: Rows) -> FlushPlan:
        """Check the rows, and return the files to put and the rows to lock."""

    @abstractmethod
    def read_rows(self, session: Session) -> None:
        """Read the references of the rows. At this time, the new files are in the store, and the rows are locked."""

    @abstractmethod
    def flushed(self, session: Session) -> Report:
        """Return the references that the statements of the flush have changed."""

    @abstractmethod
    def ended(self, session: Session, deleted: Sequence[Any]) -> Report:
        """Put the files whose names depend on their inserted rows, and return the additional changes.

        Args:
            session: The session.
            deleted: The rows that the flush has deleted.
        """

    def closed(self, session: Session) -> None:
        """Forget the flush, which may have failed."""
        del session.info[self.work_key]

    @abstractmethod
    def deleted(self, session: Session, row: Any) -> Report:
        """Return the files of a row that a bulk statement has deleted."""


_handlers: Final[list[FlushHandler]] = []
_handlers_by_class: Final[WeakKeyDictionary[type, tuple[FlushHandler, ...]]] = WeakKeyDictionary()


def register(handler: FlushHandler) -> None:
    """Call a handler in every flush from now on."""
    _handlers.append(handler)
    _handlers_by_class.clear()


def _handlers_of(row: object) -> tuple[FlushHandler, ...]:
    cls = type(row)
    found = _handlers_by_class.get(cls)
    if found is None:
        mapper = instance_state(row).mapper
        found = _handlers_by_class[cls] = tuple(handler for handler in _handlers if handler.handles(mapper))
    return found


# --- connections -----------------------------------------------------------------------------------------------------


def connection_of(session: Session, mapper: Mapper[Any], state: InstanceState[Any] | None = None) -> Connection:
    """Return the connection that the flush writes the rows of a mapper to.

    A flush of SQLAlchemy calls ``get_bind()`` with the mapper and no clause. This function does the same, so that an
    application that routes its queries to a replica does not route these queries there.

    Args:
        session: The session.
        mapper: The mapper of the rows.
        state: One of the rows, for a session over shards.
    """
    choose = session.connection_callable
    if choose is not None and state is not None:
        return choose(mapper.base_mapper, state.obj())
    return session.connection(bind_arguments={"mapper": mapper.base_mapper})


def database_of(session: Session, state: InstanceState[Any]) -> Database:
    """Return the database that the flush writes a row to.

    No connection is taken from the pool for this, because a flush uploads its files before it needs one.

    Args:
        session: The session.
        state: The row.
    """
    mapper = state.mapper.base_mapper
    known: dict[Any, Database] = session.info.setdefault(_DATABASES, {})
    shard: dict[str, Any] = {} if session.connection_callable is None else {"instance": state.obj()}
    key = mapper, state if shard else None
    if key not in known:
        bind = session.get_bind(mapper=mapper, **shard)
        known[key] = Database(bind if isinstance(bind, Engine) else None, *key)
    return known[key]


_watched: WeakKeyDictionary[Connection, ref[Session]] = WeakKeyDictionary()


def _watch(session: Session, database: Database) -> None:
    """Listen for the COMMIT on the connection to the database that a row was written to.

    No event of the session is reliable in every case: ``before_commit`` fires before the last flushes, and does not
    identify the transaction that is committed if a savepoint is open. The event of the connection does.
    """
    if database.watched:
        return
    database.watched = True
    connection = connection_of(session, database.mapper, database.state)
    database.schemas = connection.get_execution_options().get("schema_translate_map") or {}
    connection.info[_SESSION] = _watched[connection] = ref(session)


# --- functions for handlers ------------------------------------------------------------------------------------------


def put(session: Session, uploads: Sequence[Upload]) -> None:
    """Put files for rows that the current transaction will write; on failure, delete them again except shared ones."""
    if not uploads:
        return
    if not in_bridge():
        raise DeclarationError(
            "expected an AsyncSession, which uploads files in its flush, got a Session that is used without one"
        )
    since = time.time()
    await_(put_all(uploads))
    tokens = _open_transactions(session)
    for upload in uploads:
        if not upload.shared:
            _journal(session).uploaded(tokens, upload.file, since)


def lock(session: Session, owners: Sequence[OwnerRow]) -> None:
    """Lock rows until the transaction ends, table by table, in the order of their keys.

    Other rows of these tables that the flush changes or deletes are locked, too. Otherwise the statements of the flush
    would lock those rows later, in a different order.
    """
    if not owners:
        return
    sharded = session.connection_callable is not None
    others = [] if sharded else [instance_state(row) for row in (*session.dirty, *session.deleted)]
    wanted: dict[Connection, list[OwnerRow]] = {}
    for owner in owners:
        wanted.setdefault(connection_of(session, owner.mapper, owner.state), []).append(owner)
    for connection, some in wanted.items():
        lock_owners(connection, some, others)


def _record(session: Session, report: Report) -> None:
    if not report.named and not report.dropped and not report.leased:
        return
    journal, tokens = _journal(session), _open_transactions(session)
    for file in report.named:
        _watch(session, file.referrer.database)
        journal.named(tokens, file)
    for file in report.dropped:
        _watch(session, file.referrer.database)
        journal.dropped(tokens, file)
    for database, since in report.leased:
        _watch(session, database)
        journal.leased(tokens, since)


def claim(session: Session, file: TrackedFile) -> None:
    """Prevent other transactions of this process from discarding a file that this one adopts.

    Raises:
        StoreFileNotFoundError: Another transaction is discarding the file.
    """
    if file in _discarding:
        name = str(file.key)
        raise StoreFileNotFoundError(f"{name!r} is being deleted by another transaction", name=name)
    journal = _journal(session)
    journal.claim(_open_transactions(session), file)
    _claiming.add(journal)


def holds(session: Session, file: TrackedFile) -> bool:
    """Return whether a row may reference the file: this session uploaded or dropped it in the open transaction."""
    return _journal(session).holds(file)


def _journal(session: Session) -> Journal:
    found = session.info.get(_JOURNAL)
    if found is None:
        found = session.info[_JOURNAL] = Journal()
    return cast("Journal", found)


def _open_transactions(session: Session) -> list[SessionTransaction]:
    """Return the root transaction and its savepoints, outermost first, without the subtransactions of flushes."""
    found: SessionTransaction | None = session.get_nested_transaction() or session.get_transaction()
    found = found or session.begin()
    chain = []
    while found is not None:
        chain.append(found)
        found = found.parent
    return [one for one in reversed(chain) if one.nested or one.parent is None]


# --- detached rows --------------------------------------------------------------------------------------------------


class _Bound:
    """The store that was bound to the former session of a detached row. It is not pickled."""

    __slots__ = ("store",)

    def __init__(self, store: Store | None = None) -> None:
        self.store = store

    def __deepcopy__(self, memo: object) -> _Bound:
        return _Bound(self.store)

    def __reduce__(self) -> tuple[Any, ...]:
        return _Bound, ()


@event.listens_for(Session, "persistent_to_detached")
def _detached(session: Session, row: object) -> None:
    store = bound_store(session)
    if store is not None and _handlers_of(row):
        instance_state(row).info[_BOUND] = _Bound(store)


def former_store(state: InstanceState[Any]) -> Store | None:
    """Return the store that was bound to the former session of a detached row."""
    info = state.__dict__.get("info")  # `state.info` would create a dict, and most rows have none
    found: _Bound | None = None if info is None else info.get(_BOUND)
    return None if found is None else found.store


# --- transactions ----------------------------------------------------------------------------------------------------


@event.listens_for(Engine, "commit")
@event.listens_for(Engine, "prepare_twophase")
def _sending(connection: Connection, *_: object) -> None:
    # listens on the class Engine, because adding a listener to one connection costs as much as a statement
    known = _watched.get(connection)
    session = None if known is None else known()
    root = None if session is None else session.get_transaction()
    if session is None or root is None:
        return
    try:
        check_age(time.time() - _journal(session).since(), grace_of(session))
    except TransactionExpiredError:
        # SQLAlchemy considers the transaction finished, as after a failed COMMIT, and would not roll back.
        connection.dialect.do_rollback(connection.connection)
        raise
    _journal(session).sending(root)


@event.listens_for(Session, "after_commit")
def _committed(session: Session) -> None:
    if _JOURNAL in session.info:
        _journal(session).committed(_open_transactions(session)[-1])


@event.listens_for(Session, "after_transaction_end")
def _ended(session: Session, transaction: SessionTransaction) -> None:
    if transaction.parent is None:
        session.info.pop(_DATABASES, None)
    elif not transaction.nested:  # the subtransaction of a flush
        session.info.pop(_DELETED, None)
        for handler in _active(session):
            handler.closed(session)
    if _JOURNAL in session.info:
        _apply(session, _journal(session).end(transaction))


@event.listens_for(Pool, "invalidate")
def _connection_invalidated(connection: object, entry: ConnectionPoolEntry, error: BaseException | None) -> None:
    """Detect that a session was cancelled while it closed, because it then does not report the end of its transaction.

    The pool invalidates its connection in that case.
    """
    known = entry.info.get(_SESSION)
    session = None if known is None else known()
    if not isinstance(error, asyncio.CancelledError) or session is None or session.in_transaction():
        return
    session.info.pop(_DATABASES, None)
    with contextlib.suppress(
        asyncio.CancelledError
    ):  # an exception is already propagating, and the pool still has to close the connection
        _apply(session, _journal(session).close_all())


def _apply(session: Session, verdict: Verdict) -> None:
    if verdict.unresolved:
        count = len(verdict.unresolved)
        extra = log_fields(LEFT, count=count)
        _log.warning("%d files are left for the sweep: the outcome of their transaction is unknown", count, extra=extra)
    hand_over(verdict.attached, certain=not verdict.unresolved)
    if is_deferred(session):
        verdict = replace(verdict, dropped=())
    if not verdict.uploads and not verdict.dropped:
        return
    if in_bridge():
        await_(finish(_discard(verdict)))
    else:
        count = len(verdict.uploads) + len(verdict.dropped)
        extra = log_fields(LEFT, count=count)
        _log.warning("%d files are left for the sweep: the session ended outside the event loop", count, extra=extra)


_claiming: Final[WeakSet[Journal]] = WeakSet()
_discarding: Final[set[TrackedFile]] = set()


async def _discard(verdict: Verdict) -> None:
    files = await unreferenced(verdict.uploads, verdict.dropped)
    files = [file for file in files if not any(file in journal.claimed for journal in _claiming)]
    _discarding.update(files)
    try:
        await discard_all(files)
    finally:
        _discarding.difference_update(files)


# --- flushes ---------------------------------------------------------------------------------------------------------


def _active(session: Session) -> list[FlushHandler]:
    info = session.info
    return [handler for handler in _handlers if handler.work_key in info]


@event.listens_for(Session, "before_flush")
def _before_flush(session: Session, context: object, instances: object) -> None:
    for handler in _active(session):
        handler.closed(session)  # the last flush failed before its first statement
    found: dict[FlushHandler, Rows] = {}
    for row in session.new:
        for handler in _handlers_of(row):
            found.setdefault(handler, Rows()).new.append(row)
    for row in session.dirty:
        for handler in _handlers_of(row):
            found.setdefault(handler, Rows()).changed.append(row)
    for row in session.deleted:
        for handler in _handlers_of(row):
            found.setdefault(handler, Rows()).gone.append(row)
    plans = [handler.plan(session, rows) for handler, rows in found.items()]
    put(session, [upload for plan in plans for upload in plan.uploads])
    lock(session, [owner for plan in plans for owner in plan.owners])
    for handler in _active(session):
        handler.read_rows(session)


@event.listens_for(Session, "after_flush")
def _after_flush(session: Session, context: object) -> None:
    # the statements have been executed, and hooks of the application have not had a chance to expunge the rows yet
    active = _active(session)
    if active:
        session.info[_DELETED] = {handler: [] for handler in active}
    for handler in active:
        _record(session, handler.flushed(session))


@event.listens_for(Session, "persistent_to_deleted")
def _deleted(session: Session, row: object) -> None:
    for handler in _handlers_of(row):
        in_flush: dict[FlushHandler, list[Any]] = session.info.get(_DELETED, {})
        if handler in in_flush:
            in_flush[handler].append(row)
        else:
            _record(session, handler.deleted(session, row))


@event.listens_for(Session, "after_flush_postexec")
def _after_flush_postexec(session: Session, context: object) -> None:
    deleted: dict[FlushHandler, list[Any]] = session.info.pop(_DELETED, {})
    for handler, rows in deleted.items():
        _record(session, handler.ended(session, rows))
