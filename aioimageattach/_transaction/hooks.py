"""The only listeners on sessions: they feed the journal, upload before a flush and discard after a transaction.

The hooks know nothing about rows. Each :class:`FlushHandler` says which files the rows of its kind reference.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import Any, Final, cast
from weakref import WeakKeyDictionary, WeakSet, ref

from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.orm import InstanceState, Mapper, Session, SessionTransaction
from sqlalchemy.orm.attributes import instance_state
from sqlalchemy.pool import ConnectionPoolEntry, Pool

from .._greenlet import await_, in_bridge
from .._tasks import finish
from ..context import bound_store
from ..exc import DeclarationError, StoreFileNotFoundError, TransactionExpiredError
from ..store import Store
from .deferral import is_deferred
from .fence import check_age, grace_of
from .files import Upload, discard_all, put_all
from .journal import Journal, Verdict
from .references import Database, StoredFile, unreferenced

__all__ = [
    "FlushHandler",
    "claim",
    "connection_of",
    "database_of",
    "dropped",
    "holds",
    "leased",
    "named",
    "put",
    "register",
    "store_left",
]

_BOUND: Final = "aioimageattach.bound"
_DATABASES: Final = "aioimageattach.databases"
_JOURNAL: Final = "aioimageattach.journal"
_SESSION: Final = "aioimageattach.session"

_log = logging.getLogger("aioimageattach.transaction")


class FlushHandler(ABC):
    """One way in which rows reference files: none, one or many each."""

    @abstractmethod
    def references(self, row: object) -> bool:
        """Return whether a row is of the kind whose files the handler knows."""

    @abstractmethod
    def flush(self, session: Session) -> Generator[Sequence[Upload]]:
        """Look at the new, changed and deleted rows before the first statement of a flush.

        Yields:
            Once, the files to put. It is resumed when these and those of the other handlers are in the store, and may
            then execute statements that lock rows. If a put fails, it is not resumed.
        """

    @abstractmethod
    def flushed(self, session: Session) -> None:
        """Report with :func:`named` and :func:`dropped` what the statements of the flush did."""

    @abstractmethod
    def flush_ended(self, session: Session) -> None:
        """Put the files that had to wait for their rows, and forget the flush."""

    @abstractmethod
    def flush_closed(self, session: Session) -> None:
        """Forget what only the flush's statements may do; called at the end of each flush, even if it failed."""

    @abstractmethod
    def deleted(self, session: Session, row: object) -> None:
        """Report with :func:`dropped` the files of a row that a flush or a bulk statement deleted."""


_handlers: Final[list[FlushHandler]] = []


def register(handler: FlushHandler) -> None:
    """Call a handler in every flush from now on."""
    _handlers.append(handler)


# --- where rows are written ------------------------------------------------------------------------------------------


def connection_of(session: Session, mapper: Mapper[Any], state: InstanceState[Any] | None = None) -> Connection:
    """Return the connection that the flush writes the rows of a mapper to.

    SQLAlchemy asks ``get_bind()`` for the mapper alone when it flushes, and so do we: an application that sends its
    queries elsewhere, such as to a replica, does not send these there.

    Args:
        session: The session.
        mapper: The mapper of the rows.
        state: One of the rows, for a session over shards.
    """
    choose = session.connection_callable
    if choose is not None and state is not None:
        return choose(mapper.base_mapper, state.obj())
    return session.connection(bind_arguments={"mapper": mapper.base_mapper})


def database_of(session: Session, mapper: Mapper[Any], state: InstanceState[Any]) -> Database:
    """Return the database that the flush writes the rows of a mapper to.

    No connection is taken from the pool for that: a flush uploads its files before it needs one.

    Args:
        session: The session.
        mapper: The mapper of the rows.
        state: One of the rows, for a session over shards.
    """
    known: dict[Any, Database] = session.info.setdefault(_DATABASES, {})
    shard: dict[str, Any] = {} if session.connection_callable is None else {"instance": state.obj()}
    key = mapper.base_mapper, state if shard else None
    if key not in known:
        bind = session.get_bind(mapper=mapper.base_mapper, **shard)
        known[key] = Database(bind if isinstance(bind, Engine) else None, *key)
    return known[key]


_watched: WeakKeyDictionary[Connection, ref[Session]] = WeakKeyDictionary()


def _watch(session: Session, database: Database) -> None:
    """Notice when COMMIT is about to be sent to the database that a row was written to.

    No event of the session says so in every case: ``before_commit`` comes before the last flushes, and does not say
    whose commit it is if a savepoint is open. The connection's own event does.
    """
    if database.watched:
        return
    database.watched = True
    connection = connection_of(session, database.mapper, database.state)
    database.schemas = connection.get_execution_options().get("schema_translate_map") or {}
    connection.info[_SESSION] = ref(session)
    known = _watched.get(connection)
    if known is None or known() is not session:
        _watched[connection] = ref(session)
        event.listen(connection, "commit", _sending)
        if session.twophase:
            event.listen(connection, "prepare_twophase", _sending)


# --- what handlers report --------------------------------------------------------------------------------------------


def put(session: Session, uploads: Sequence[Upload]) -> None:
    """Put files for rows that are to be written in the present transaction; on failure none of them is left."""
    if not uploads:
        return
    if not in_bridge():
        raise DeclarationError("files are uploaded by an AsyncSession; this session is used without one")
    since = time.time()
    await_(put_all(uploads))
    tokens = _open_transactions(session)
    for upload in uploads:
        if not upload.shared:
            _journal(session).uploaded(tokens, upload.file, since)


def named(session: Session, file: StoredFile) -> None:
    """Note that a row that references the file was inserted or updated."""
    _watch(session, file.referrer.database)
    _journal(session).named(_open_transactions(session), file)


def dropped(session: Session, file: StoredFile) -> None:
    """Note that the row that referenced the file was deleted, or references another."""
    _watch(session, file.referrer.database)
    _journal(session).dropped(_open_transactions(session), file)


def claim(session: Session, file: StoredFile) -> None:
    """Keep the other transactions of this process from discarding a file that is to be adopted in this one.

    Raises:
        StoreFileNotFoundError: One of them is discarding it.
    """
    if file in _discarding:
        name = str(file.key)
        raise StoreFileNotFoundError(f"{name!r} is being removed by another transaction", name=name)
    journal = _journal(session)
    journal.claim(_open_transactions(session), file)
    _claiming.add(journal)


def leased(session: Session, database: Database, since: float) -> None:
    """Note that a row references a shared file: no transaction deletes it, but a sweep may once it is old.

    Args:
        session: The session.
        database: Where the row is.
        since: When the file was put at the earliest, in seconds since 1970.
    """
    _watch(session, database)
    _journal(session).leased(_open_transactions(session), since)


def holds(session: Session, file: StoredFile) -> bool:
    """Return whether a row may reference the file: this session uploaded or dropped it in the open transaction."""
    return _journal(session).holds(file)


def _journal(session: Session) -> Journal:
    found = session.info.get(_JOURNAL)
    if found is None:
        found = session.info[_JOURNAL] = Journal()
    return cast("Journal", found)


def _open_transactions(session: Session) -> list[SessionTransaction]:
    """The root transaction and the savepoints in it, outermost first; flushes have transactions of their own."""
    found: SessionTransaction | None = session.get_nested_transaction() or session.get_transaction()
    found = found or session.begin()
    tokens = []
    while found is not None:
        if found.nested or found.parent is None:
            tokens.append(found)
        found = found.parent
    return tokens[::-1]


# --- rows that leave their session ----------------------------------------------------------------------------------


class _Bound:
    """The store that was bound to the session that a row has left. It is not pickled."""

    __slots__ = ("store",)

    def __init__(self, store: Store | None = None) -> None:
        self.store = store

    def __reduce__(self) -> tuple[Any, ...]:
        return _Bound, ()


@event.listens_for(Session, "persistent_to_detached")
def _detached(session: Session, row: object) -> None:
    store = bound_store(session)
    if store is not None and any(handler.references(row) for handler in _handlers):
        instance_state(row).info[_BOUND] = _Bound(store)


def store_left(state: InstanceState[Any]) -> Store | None:
    """Return the store that was bound to the session that a row has left."""
    info = state.__dict__.get("info")  # most rows have none: do not create it
    found: _Bound | None = None if info is None else info.get(_BOUND)
    return None if found is None else found.store


# --- transactions ----------------------------------------------------------------------------------------------------


def _sending(connection: Connection, *_: object) -> None:
    session = _watched[connection]()
    root = None if session is None else session.get_transaction()
    if session is None or root is None:
        return
    try:
        check_age(time.time() - _journal(session).since(), grace_of(session))
    except TransactionExpiredError:
        connection.dialect.do_rollback(connection.connection)  # SQLAlchemy takes it for done, as after a failed COMMIT
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
    elif not transaction.nested:  # a flush has a transaction of its own
        for handler in _handlers:
            handler.flush_closed(session)
    if _JOURNAL in session.info:
        _carry_out(session, _journal(session).end(transaction))


@event.listens_for(Pool, "invalidate")
def _interrupted(connection: object, entry: ConnectionPoolEntry, error: BaseException | None) -> None:
    """A session that is cancelled while it closes never reports its end, but the pool discards its connection."""
    known = entry.info.get(_SESSION)
    session = None if known is None else known()
    if not isinstance(error, asyncio.CancelledError) or session is None or session.in_transaction():
        return
    session.info.pop(_DATABASES, None)
    with contextlib.suppress(asyncio.CancelledError):  # one is on its way, and the connection has yet to be closed
        _carry_out(session, _journal(session).settle())


def _carry_out(session: Session, verdict: Verdict) -> None:
    if verdict.unresolved:
        _log.warning("the outcome of a transaction is unknown: %d files are kept", len(verdict.unresolved))
    if is_deferred(session):
        verdict = replace(verdict, dropped=())
    if not verdict.uploads and not verdict.dropped:
        return
    if in_bridge():
        await_(finish(_discard(verdict)))
    else:
        count = len(verdict.uploads) + len(verdict.dropped)
        _log.warning("%d files are left to the sweep: the session ended outside the event loop", count)


_claiming: Final[WeakSet[Journal]] = WeakSet()
_discarding: Final[set[StoredFile]] = set()


async def _discard(verdict: Verdict) -> None:
    files = await unreferenced(verdict.uploads, verdict.dropped)
    files = [file for file in files if not any(file in journal.claimed for journal in _claiming)]
    _discarding.update(files)
    try:
        await discard_all(files)
    finally:
        _discarding.difference_update(files)


# --- flushes ---------------------------------------------------------------------------------------------------------


@event.listens_for(Session, "before_flush")
def _before_flush(session: Session, context: object, instances: object) -> None:
    flushes = [handler.flush(session) for handler in _handlers]
    put(session, [upload for flush in flushes for upload in next(flush)])
    for flush in flushes:
        next(flush, None)


@event.listens_for(Session, "after_flush")
def _after_flush(session: Session, context: object) -> None:
    # the statements were sent, and no hook of the application has had the chance to expunge the rows yet
    for handler in _handlers:
        handler.flushed(session)


@event.listens_for(Session, "after_flush_postexec")
def _after_flush_postexec(session: Session, context: Any) -> None:
    for handler in _handlers:
        handler.flush_ended(session)


@event.listens_for(Session, "persistent_to_deleted")
def _deleted(session: Session, row: object) -> None:
    for handler in _handlers:
        handler.deleted(session, row)
