"""Rows that are files: each names one, from its INSERT to its DELETE."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final
from weakref import WeakKeyDictionary, WeakValueDictionary

from sqlalchemy import event
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import InstanceState, Session
from sqlalchemy.orm.attributes import instance_state

from ..context import resolve_store
from ..exc import ContextError, ImageError
from ..file import Spool
from ..key import ImageKey
from ..store import Store
from .files import Upload
from .hooks import Namer, dropped, holds, named, put, register
from .journal import StoredFile

__all__ = ["FileRow", "FileRows", "Record", "SourceRow", "keep", "record_of"]

_LATE: Final = "aioimageattach.late"

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
        adopted: Whether the file was in the store before the row: then a rollback leaves it there.
    """

    store: Store | None = None
    spool: Spool | None = None
    file: StoredFile | None = None
    reproducible: bool = False
    source: SourceRow | None = None
    adopted: bool = False


_records: WeakKeyDictionary[InstanceState[Any], Record] = WeakKeyDictionary()
_uploads: WeakValueDictionary[str, Record] = WeakValueDictionary()


def keep(row: object, revision: str | None, record: Record) -> None:
    """Note what is known of a new row; copies that ``merge`` or ``deepcopy`` make of it find it by the revision."""
    _records[instance_state(row)] = record
    if revision is not None:
        _uploads[revision] = record


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


class FileRows(Namer):
    """What the session's hooks ask of rows that are files."""

    def flush(self, session: Session) -> Generator[Sequence[Upload]]:
        """Put the files of new rows; then delete the rows that have to go with those that come and go."""
        waiting: list[tuple[FileRow, Record]] = []
        changed: dict[type[FileRow], list[FileRow]] = {}
        seen: set[int] = set()
        for row in session.new:
            if isinstance(row, FileRow):
                changed.setdefault(type(row), []).append(row)
                record = record_of(row)
                if record.spool is None:
                    _require_file(session, row, record)
                else:
                    waiting.append((row, _own(row, record, copied=id(record) in seen)))
                    seen.add(id(record))
        for row in session.deleted:
            if isinstance(row, FileRow) and _remember(session, row):
                changed.setdefault(type(row), []).append(row)
        early = [(row, record) for row, record in waiting if not _needs_insert(row, record)]
        yield [_upload(row, record) for row, record in early]
        for _, record in early:
            record.spool = None
        for cls, rows in changed.items():
            for row in cls._settle(session, rows):
                record = record_of(row)
                record.store = resolve_store(record.store, session=session)
                key = row._stored_key()
                assert key is not None
                record.file = StoredFile(record.store, key)
                session.delete(row)

    def flushed(self, session: Session) -> None:
        """Note which rows were inserted; those whose files wait for them come later."""
        late: list[FileRow] = []
        session.info[_LATE] = late  # a flush that failed may have left its own
        for row in session.new:
            if isinstance(row, FileRow):
                record = record_of(row)
                if record.spool is not None:
                    late.append(row)
                    continue
                record.file = record.file or _file_of(session, row)
                if record.file is not None:
                    named(session, row, record.file)

    def flush_ended(self, session: Session) -> None:
        """Put the files that waited for the database to identify their rows, and those of rows that came late."""
        late = [(row, record_of(row)) for row in session.info.pop(_LATE, ())]
        put(session, [_upload(row, record) for row, record in late])
        for row, record in late:
            assert record.file is not None
            record.spool = None
            named(session, row, record.file)

    def deleted(self, session: Session, row: object) -> None:
        """Note that the row's file has to go."""
        if isinstance(row, FileRow):
            file = record_of(row).file or _file_of(session, row)
            if file is None:
                _log.warning(
                    "the file of a deleted %s is left to the sweep: its row was not loaded", type(row).__name__
                )
            else:
                dropped(session, row, file)


register(FileRows())


def _own(row: FileRow, record: Record, *, copied: bool) -> Record:
    """The record to upload by: a copy gets one of its own, and what was tried before another name."""
    if copied:
        record = _records[instance_state(row)] = replace(record)
    if copied or record.file is not None:  # an upload failed, and may have reached the store all the same
        assert record.store is not None
        row._renew(record.store)
        record.file = None
    return record


def _upload(row: FileRow, record: Record) -> Upload:
    key = row._stored_key()
    assert record.store is not None
    assert record.spool is not None
    assert key is not None
    record.file = StoredFile(record.store, key)
    return Upload(record.file, record.spool, key.mimetype, record.reproducible)


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
    if record.adopted or key is None or key.revision is None or (file is not None and holds(session, file)):
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
