"""The only listeners on sessions: they feed the journal, upload before a flush and discard after a transaction."""

from __future__ import annotations

import asyncio
import logging
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, cast
from weakref import WeakKeyDictionary, WeakValueDictionary, ref

from sqlalchemy import event
from sqlalchemy.engine import Connection
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import InstanceState, Session, SessionTransaction, object_mapper
from sqlalchemy.orm.attributes import instance_state

from .._greenlet import await_, in_bridge
from .._threads import finish
from ..context import resolve_store
from ..exc import (
    ContextError,
    DeclarationError,
    ImageAttachError,
    ImageError,
    StoreError,
    StoreFileExistsError,
)
from ..file import Spool
from ..key import ImageKey
from ..store import Store
from .journal import Journal, StoredFile

__all__ = ["CONCURRENCY", "DISCARD_TIMEOUT", "FileRow", "Record", "SourceRow", "keep", "record_of", "session_lock"]

CONCURRENCY: Final = 8
"""How many files of one flush or one clean-up are on their way at once."""

DISCARD_TIMEOUT: Final = 30.0
"""Seconds that the clean-up at the end of a transaction may take."""

_CONNECTIONS: Final = "aioimageattach.connections"
_JOURNAL: Final = "aioimageattach.journal"
_LATE: Final = "aioimageattach.late"
_LOCK: Final = "aioimageattach.lock"

_log = logging.getLogger("aioimageattach.transaction")


class FileRow:
    """A mapped class whose rows own one file each."""

    @abstractmethod
    def _stored_key(self) -> ImageKey | None:
        """The key of the file, ``None`` where the columns it is made of are not loaded."""

    @abstractmethod
    def _renew(self, store: Store) -> None:
        """Take a new revision: the present one may have reached the store."""

    @classmethod
    @abstractmethod
    def _settle(cls, session: Session, rows: Sequence[Any]) -> Sequence[FileRow]:
        """The rows that have to go because of the rows that come and go, as the database has them now and locked.

        Called in the flush, after the uploads.
        """


@dataclass(frozen=True, slots=True)
class SourceRow:
    """A row, and the key its file had when something was made of it."""

    row: FileRow
    key: ImageKey


@dataclass(slots=True, weakref_slot=True)
class Record:
    """What is known of the file of a row beside its columns.

    Args:
        store: Where the file is, or is to be put.
        spool: The bytes, until they are in the store.
        file: The name under which it was put, or tried to be put, or stood before the row was deleted.
        reproducible: Whether the bytes can be made again.
        source: The row whose file they were made from.
    """

    store: Store | None = None
    spool: Spool | None = None
    file: StoredFile | None = None
    reproducible: bool = False
    source: SourceRow | None = None


_records: WeakKeyDictionary[InstanceState[Any], Record] = WeakKeyDictionary()
_uploads: WeakValueDictionary[str, Record] = WeakValueDictionary()


def keep(row: object, revision: str, record: Record) -> None:
    """Note what is known of a new row; copies that ``merge`` or ``deepcopy`` make of it find it by the revision."""
    _records[instance_state(row)] = _uploads[revision] = record


@event.listens_for(FileRow, "attribute_instrument", propagate=True)
def _instrumented(cls: type[FileRow], name: str, attribute: Any) -> None:
    if name == "revision":
        event.listen(attribute, "set", _follow)


def _follow(row: object, revision: Any, *_: object) -> None:
    """Let the copy that ``merge`` makes keep the bytes: what it is a copy of may be forgotten before the flush."""
    record = _uploads.get(revision)
    if record is not None:
        _records.setdefault(instance_state(row), record)


def record_of(row: object) -> Record:
    """Return the record of a row, a new one if it has none yet."""
    state = instance_state(row)
    found = _records.get(state)
    if found is None:
        found = _uploads.get(state.dict.get("revision") or "") if state.key is None else None
        found = _records[state] = found or Record()
    return found


def session_lock(session: Session) -> asyncio.Lock:
    """Return the lock for our own statements on a session, which one task at a time may use."""
    return cast("asyncio.Lock", session.info.setdefault(_LOCK, asyncio.Lock()))


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
    level = connection.get_execution_options().get("isolation_level") or getattr(
        connection.dialect, "_on_connect_isolation_level", None
    )
    if level == "AUTOCOMMIT":
        _journal(session).permanent(transaction)


_watched: WeakKeyDictionary[Connection, ref[Session]] = WeakKeyDictionary()


def _touched(session: Session, row: object) -> None:
    """A row with a file was inserted or deleted: from now on it matters how the transaction ends.

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
    if session is not None and root is not None:
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
    if verdict.doubtful:
        _log.warning(
            "the outcome of a transaction is unknown: %d files are kept, whether rows name them or not",
            len(verdict.doubtful),
        )
    if not verdict.discard:
        return
    if in_bridge():
        await_(finish(_discard(verdict.discard)))
    else:
        _log.warning("%d files are left behind: the session ended outside the event loop", len(verdict.discard))


# --- rows ------------------------------------------------------------------------------------------------------------


@event.listens_for(Session, "before_flush")
def _before_flush(session: Session, context: object, instances: object) -> None:
    journal = _journal(session)
    token = _current(session)
    waiting: list[tuple[FileRow, Record]] = []
    seen: set[int] = set()
    changed: dict[type[FileRow], list[FileRow]] = {}
    for row in session.new:
        if isinstance(row, FileRow):
            changed.setdefault(type(row), []).append(row)
            record = record_of(row)
            if record.spool is None:
                _require_file(session, row, record)
                continue
            copied = id(record) in seen
            seen.add(id(record))
            if copied:
                record = _records[instance_state(row)] = replace(record)
            if copied or record.file is not None:  # an upload failed, and may have reached the store all the same
                assert record.store is not None
                row._renew(record.store)
                record.file = None
            waiting.append((row, record))
    for row in session.deleted:
        if isinstance(row, FileRow) and _remember(session, row):
            changed.setdefault(type(row), []).append(row)
    early = [(row, record) for row, record in waiting if not _needs_insert(row, record)]
    if early:
        _put_all(journal, token, early)
    for cls, rows in changed.items():
        for row in cls._settle(session, rows):
            record = record_of(row)
            record.store = resolve_store(record.store, session=session)
            key = row._stored_key()
            assert key is not None
            record.file = StoredFile(record.store, key)
            session.delete(row)


@event.listens_for(Session, "after_flush")
def _inserted(session: Session, context: object) -> None:
    # here the statements are sent, and no hook of the application has yet had the chance to expunge the rows
    for row in session.new:
        if isinstance(row, FileRow):
            record = record_of(row)
            if record.spool is not None:
                session.info.setdefault(_LATE, []).append(row)
                continue
            record.file = record.file or _file_of(session, row)
            if record.file is not None:
                _touched(session, row)
                _journal(session).named(_current(session), record.file)


@event.listens_for(Session, "after_flush_postexec")
def _after_flush(session: Session, context: object) -> None:
    journal = _journal(session)
    late = [(row, record_of(row)) for row in session.info.pop(_LATE, ())]
    if late:
        token = _current(session)
        _put_all(journal, token, late)
        for row, record in late:
            assert record.file is not None
            _touched(session, row)
            journal.named(token, record.file)


@event.listens_for(Session, "persistent_to_deleted")
def _deleted(session: Session, row: object) -> None:
    if isinstance(row, FileRow):
        file = record_of(row).file or _file_of(session, row)
        if file is None:
            _log.warning("the file of a deleted %s is left behind: its row was not loaded", type(row).__name__)
        else:
            _touched(session, row)
            _journal(session).dropped(_current(session), file)


def _needs_insert(row: FileRow, record: Record) -> bool:
    """Whether the store has to wait for the database to identify the row."""
    assert record.store is not None
    if not record.store.needs_object_id:
        return False
    key = row._stored_key()
    return key is None or key.object_id is None


def _require_file(session: Session, row: FileRow, record: Record) -> None:
    """Refuse to insert a row without bytes, unless its file stays in the store until this transaction ends.

    Such rows come from ``pickle``, from ``merge`` of what was deleted meanwhile, and from a transaction that was rolled
    back. Rows of SQLAlchemy-ImageAttach have no revision, and what becomes of their files is not known.
    """
    key = row._stored_key()
    file = record.file or _file_of(session, row)
    if key is None or key.revision is None or (file is not None and _journal(session).holds(file)):
        return
    raise ImageError(
        f"{row!r} has no file: it is a copy, or its file went with the transaction it was attached in; "
        "attach the picture again"
    )


def _remember(session: Session, row: FileRow) -> bool:
    """Note where the file of a row that is about to be deleted stands; refuse the deletion if nobody knows.

    Returns:
        Whether there is a row to delete: where it was expired, it may have gone meanwhile.
    """
    record = record_of(row)
    record.store = resolve_store(record.store, session=session)
    key = row._stored_key()
    if key is None:
        try:
            session.refresh(row)
        except InvalidRequestError:
            session.expunge(row)
            return False
        key = row._stored_key()
    assert key is not None
    record.file = StoredFile(record.store, key)
    return True


def _file_of(session: Session, row: FileRow) -> StoredFile | None:
    """The file of a row that nobody told us of before, if its columns are loaded and a store is known."""
    key = row._stored_key()
    try:
        return None if key is None else StoredFile(resolve_store(record_of(row).store, session=session), key)
    except ContextError:
        return None


# --- files -----------------------------------------------------------------------------------------------------------


def _put_all(journal: Journal, token: SessionTransaction, jobs: list[tuple[FileRow, Record]]) -> None:
    """Upload the files of a flush; on failure none of them is left, and the rows wait as before."""
    if not in_bridge():
        raise DeclarationError("pictures are uploaded by an AsyncSession; this session is used without one")
    files = []
    for row, record in jobs:
        key = row._stored_key()
        assert record.store is not None
        assert key is not None
        record.file = StoredFile(record.store, key)
        files.append(record.file)
    await_(_upload([record for _, record in jobs], files, journal, token))


async def _upload(records: list[Record], files: list[StoredFile], journal: Journal, token: SessionTransaction) -> None:
    turn = asyncio.Semaphore(CONCURRENCY)
    begun: list[StoredFile] = []

    async def put(record: Record, file: StoredFile) -> None:
        assert record.spool is not None
        async with turn:
            begun.append(file)
            async with record.spool.open() as data:
                try:
                    await file.store.put(file.key, data, reproducible=record.reproducible)
                except StoreFileExistsError:
                    begun.remove(file)  # somebody else's, who needs it
                    raise
                except ImageAttachError:
                    raise
                except Exception as error:
                    raise StoreError(
                        f"{file.store!r} could not put {file.key!r}: {error}", store=repr(file.store)
                    ) from error

    tasks = [asyncio.ensure_future(put(record, file)) for record, file in zip(records, files, strict=True)]
    try:
        await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        try:
            await finish(asyncio.wait(tasks))
        finally:
            await finish(_discard(begun))
        raise
    for record, file in zip(records, files, strict=True):
        record.spool = None
        journal.uploaded(token, file)


async def _discard(files: Sequence[StoredFile]) -> None:
    """Delete files; log what fails."""
    turn = asyncio.Semaphore(CONCURRENCY)
    left = set(files)

    async def delete(file: StoredFile) -> None:
        async with turn:
            try:
                await file.store.discard(file.key)
            except (Exception, asyncio.CancelledError) as error:
                task = asyncio.current_task()
                if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                    raise
                _log.warning("%r could not delete %r, which is left behind: %r", file.store, file.key, error)
            left.discard(file)

    try:
        async with asyncio.timeout(DISCARD_TIMEOUT):
            await asyncio.gather(*(delete(file) for file in files))
    except TimeoutError:
        _log.warning("%d files were not deleted within %g s, and are left behind", len(left), DISCARD_TIMEOUT)
