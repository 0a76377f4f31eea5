"""The only listeners on sessions: they feed the journal, upload before a flush and discard after a transaction.

What the files are, and how rows name them, is the business of :class:`Namer`; the hooks ask each of them in turn.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Generator, Sequence
from typing import Any, Final, cast
from weakref import WeakKeyDictionary, ref

from sqlalchemy import event
from sqlalchemy.engine import Connection
from sqlalchemy.orm import Session, SessionTransaction, object_mapper
from sqlalchemy.pool import ConnectionPoolEntry, Pool

from .._greenlet import await_, in_bridge
from .._threads import finish
from ..exc import DeclarationError, TransactionExpiredError
from .fence import check_age, grace_of
from .files import Upload, discard_all, put_all
from .journal import Journal, StoredFile, Verdict

__all__ = ["Namer", "dropped", "holds", "leased", "named", "put", "register", "session_lock"]

_CONNECTIONS: Final = "aioimageattach.connections"
_JOURNAL: Final = "aioimageattach.journal"
_LOCK: Final = "aioimageattach.lock"
_SESSION: Final = "aioimageattach.session"

_log = logging.getLogger("aioimageattach.transaction")


class Namer(ABC):
    """A way in which rows name files: none, one or many each."""

    @abstractmethod
    def flush(self, session: Session) -> Generator[Sequence[Upload]]:
        """Look at the rows that come, change and go, before the first statement of a flush.

        Yields:
            Once, the files that have to be put. It goes on when these and those of the other namers are in the store,
            and may then send statements that lock rows; where a put fails, it does not go on.
        """

    @abstractmethod
    def flushed(self, session: Session) -> None:
        """Report with :func:`named` and :func:`dropped` what the statements of the flush did."""

    @abstractmethod
    def flush_ended(self, session: Session) -> None:
        """Put what had to wait for its row; the flush is over but for that."""

    @abstractmethod
    def deleted(self, session: Session, row: object) -> None:
        """Report with :func:`dropped` the files of a row that was deleted, by a flush or in bulk."""


_namers: Final[list[Namer]] = []


def register(namer: Namer) -> None:
    """Let the hooks ask a namer from now on."""
    _namers.append(namer)


def session_lock(session: Session) -> asyncio.Lock:
    """Return the lock for our own statements on a session, which one task at a time may use."""
    return cast("asyncio.Lock", session.info.setdefault(_LOCK, asyncio.Lock()))


# --- what namers report ----------------------------------------------------------------------------------------------


def put(session: Session, uploads: Sequence[Upload]) -> None:
    """Put files for rows that are to be written in the present transaction; on failure none of them is left."""
    if not uploads:
        return
    if not in_bridge():
        raise DeclarationError("files are uploaded by an AsyncSession; this session is used without one")
    since = time.time()
    await_(put_all(uploads))
    token = _current(session)
    for upload in uploads:
        if not upload.shared:
            _journal(session).uploaded(token, upload.file, since)


def named(session: Session, row: object, file: StoredFile) -> None:
    """Note that a row that names the file was inserted or updated."""
    _touched(session, row)
    _journal(session).named(_current(session), file)


def dropped(session: Session, row: object, file: StoredFile) -> None:
    """Note that the row that named the file was deleted, or names another."""
    _touched(session, row)
    _journal(session).dropped(_current(session), file)


def leased(session: Session, row: object, since: float) -> None:
    """Note that a row names a file that others may name, too: no transaction deletes it; a sweep may once it is old.

    Args:
        session: The session.
        row: The row.
        since: When the file was put at the earliest, in seconds since 1970.
    """
    _touched(session, row)
    _journal(session).leased(_current(session), since)


def holds(session: Session, file: StoredFile) -> bool:
    """Whether the file is in the store and ours to name: put, or dropped, in a transaction that is still open."""
    return _journal(session).holds(file)


def _journal(session: Session) -> Journal:
    return cast("Journal", session.info.setdefault(_JOURNAL, Journal()))


def _root_or_savepoint(transaction: SessionTransaction | None) -> SessionTransaction | None:
    while transaction is not None and not transaction.nested and transaction.parent is not None:
        transaction = transaction.parent
    return transaction


def _current(session: Session) -> SessionTransaction:
    found = session.get_nested_transaction() or session.get_transaction()
    return session.begin() if found is None else found


def _root(session: Session) -> SessionTransaction:
    found = session.get_transaction()
    assert found is not None
    return found


# --- transactions ----------------------------------------------------------------------------------------------------


@event.listens_for(Session, "after_transaction_create")
def _created(session: Session, transaction: SessionTransaction) -> None:
    if transaction.parent is None or transaction.nested:
        _journal(session).begin(transaction, _root_or_savepoint(transaction.parent))


@event.listens_for(Session, "after_begin")
def _began(session: Session, transaction: SessionTransaction, connection: Connection) -> None:
    if transaction.parent is None:
        session.info.setdefault(_CONNECTIONS, []).append(connection)
        connection.info[_SESSION] = ref(session)
    level = connection.get_execution_options().get("isolation_level") or getattr(
        connection.dialect, "_on_connect_isolation_level", None
    )
    if level == "AUTOCOMMIT":
        _journal(session).permanent(transaction)


_watched: WeakKeyDictionary[Connection, ref[Session]] = WeakKeyDictionary()


def _touched(session: Session, row: object) -> None:
    """A row with a file was written: from now on it matters how the transaction ends.

    No event of the session tells in every case that COMMIT is about to be sent: ``before_commit`` comes before the last
    flushes, and is silent about whose commit it is where a savepoint is open. The connection's own event tells it.
    """
    _note_permanence(session)
    if _borrows(session, row):
        _journal(session).shared(_current(session))
    for connection in session.info.get(_CONNECTIONS, ()):
        known = _watched.get(connection)
        if known is None or known() is not session:
            _watched[connection] = ref(session)
            event.listen(connection, "commit", _sending)
            if session.twophase:
                event.listen(connection, "prepare_twophase", _sending)


def _borrows(session: Session, row: object) -> bool:
    """Whether the session was given the row's connection, and may be part of a transaction that is not its own."""
    try:
        return isinstance(session.get_bind(object_mapper(row)), Connection)
    except Exception:  # a session over shards, which asks for more than the mapper; those are engines
        return False


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


def _note_permanence(session: Session) -> None:
    """Where the driver says that no transaction is open, what was done is permanent, whatever SQLAlchemy believes.

    SQLite's legacy mode releases the outermost savepoint that way, and a driver may be told to commit by itself.
    """
    for connection in session.info.get(_CONNECTIONS, ()):
        if connection.dialect.name != "sqlite" or connection.invalidated:
            continue
        if not connection.connection.driver_connection.in_transaction:
            _journal(session).permanent(_root(session))


@event.listens_for(Session, "after_commit")
def _committed(session: Session) -> None:
    token = _current(session)
    if token.nested:
        _note_permanence(session)
    _journal(session).committed(token)


@event.listens_for(Session, "after_rollback")
def _rolled_back(session: Session) -> None:
    _journal(session).rolled_back(_current(session))


@event.listens_for(Session, "after_transaction_end")
def _ended(session: Session, transaction: SessionTransaction) -> None:
    verdict = _journal(session).end(transaction)
    if transaction.parent is None:
        session.info.pop(_CONNECTIONS, None)
    _carry_out(verdict)


@event.listens_for(Pool, "invalidate")
def _interrupted(connection: object, entry: ConnectionPoolEntry, error: BaseException | None) -> None:
    """A session that is cancelled while it closes never says that its transaction ended; it gives its connection up."""
    known = entry.info.get(_SESSION)
    session = None if known is None else known()
    if not isinstance(error, asyncio.CancelledError) or session is None or session.in_transaction():
        return
    session.info.pop(_CONNECTIONS, None)
    with contextlib.suppress(asyncio.CancelledError):  # one is on its way, and the connection has yet to be closed
        _carry_out(_journal(session).settle())


def _carry_out(verdict: Verdict) -> None:
    if verdict.doubtful:
        _log.warning(
            "the outcome of a transaction is unknown: %d files are kept, whether rows name them or not",
            len(verdict.doubtful),
        )
    if not verdict.discard:
        return
    if in_bridge():
        await_(finish(discard_all(verdict.discard)))
    else:
        _log.warning("%d files are left to the sweep: the session ended outside the event loop", len(verdict.discard))


# --- flushes ---------------------------------------------------------------------------------------------------------


@event.listens_for(Session, "before_flush")
def _before_flush(session: Session, context: object, instances: object) -> None:
    flushes = [namer.flush(session) for namer in _namers]
    put(session, [upload for flush in flushes for upload in next(flush)])
    for flush in flushes:
        next(flush, None)


@event.listens_for(Session, "after_flush")
def _after_flush(session: Session, context: object) -> None:
    # here the statements are sent, and no hook of the application has yet had the chance to expunge the rows
    for namer in _namers:
        namer.flushed(session)


@event.listens_for(Session, "after_flush_postexec")
def _after_flush_postexec(session: Session, context: Any) -> None:
    for namer in _namers:
        namer.flush_ended(session)


@event.listens_for(Session, "persistent_to_deleted")
def _deleted(session: Session, row: object) -> None:
    for namer in _namers:
        namer.deleted(session, row)
