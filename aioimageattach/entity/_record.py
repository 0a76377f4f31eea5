"""The library's data about an image row besides its columns: the attached bytes, and the file that the row names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, cast
from weakref import WeakValueDictionary

from sqlalchemy.orm import InstanceState
from sqlalchemy.orm.attributes import instance_state

from .._transaction.references import TrackedFile
from ..file import Spool
from ..imaging._render import Rendering
from ..key import ImageKey
from ..store import Store
from ._derived import DerivedFile

__all__ = ["Attached", "Origin", "Record", "attach", "attached_as", "known_store", "record_of", "share"]

_INFO: Final = "aioimageattach"


@dataclass(frozen=True, slots=True)
class Origin:
    """The original that a thumbnail was made from.

    Args:
        row: The row of the original.
        key: The key of its file at that time.
    """

    row: Any
    key: ImageKey


@dataclass(eq=False, slots=True, weakref_slot=True)
class Attached:
    """The attached content of a row that is not in the database yet; copies of the row share it.

    Args:
        store: The store that contains the file or will receive it.
        spool: The bytes; ``None`` for an adopted file, which was already in the store.
        reproducible: ``True`` if the bytes can be regenerated.
        replaces: ``True`` if the row replaces a thumbnail of the same size.
        derived: The declared thumbnails that were made from it, to be put with it.
        attempted: ``True`` if a flush has tried to put the bytes under their first revision. Each further attempt, of
            this row or of a copy, uses a new revision, because the file may have reached the store under the old one.
    """

    store: Store
    spool: Spool | None
    reproducible: bool = False
    replaces: bool = False
    attempted: bool = False
    derived: Sequence[tuple[DerivedFile, Rendering]] = ()


@dataclass(slots=True)
class Record:
    """The library's data about one row besides its columns.

    Args:
        store: The store of its file, if the row was attached or flushed in this process.
        attached: The attached content, until the row is in the database.
        origin: The original that the row was made from, until the row is in the database; ``None`` for a copy.
        file: The file that a flush has put for the row, or is about to put.
        owner: The state of the owner that the row was attached to.
        position: The position copied from the image that it replaces, as loaded at that time.
    """

    store: Store | None = None
    attached: Attached | None = None
    origin: Origin | None = None
    file: TrackedFile | None = None
    owner: InstanceState[Any] | None = None
    position: int | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Record:
        return Record(self.store, self.attached)

    def __reduce__(self) -> tuple[Any, ...]:
        return Record, ()  # neither bytes nor stores are pickled


_shared: WeakValueDictionary[str, Attached] = WeakValueDictionary()
"""Attached contents by revision, for the copies of a row that ``merge`` and ``deepcopy`` make."""


def record_of(row: object) -> Record:
    """Return the record of a row; create it if necessary.

    It is stored in the row's state, so that it lives as long as the row.
    """
    info = instance_state(row).info
    found = info.get(_INFO)
    if found is None:
        found = info[_INFO] = Record()
    return cast("Record", found)


def known_store(row: object) -> Store | None:
    """Return the store of a row's file, if it was attached or flushed in this process."""
    found = instance_state(row).__dict__.get("info")  # most rows have none: do not create it
    record: Record | None = None if found is None else found.get(_INFO)
    return None if record is None else record.store


def attach(row: Any, attached: Attached, origin: Origin | None) -> None:
    """Record the attached content of a new row, and the original that it was made from."""
    record = record_of(row)
    record.store, record.attached, record.origin = attached.store, attached, origin
    share(row.revision, attached)


def share(revision: str | None, attached: Attached) -> None:
    """Register attached content by revision, so that copies of the row find it."""
    if revision is not None:
        _shared[revision] = attached


def attached_as(row: object, revision: Any) -> None:
    """Assign the content attached under a revision to a row that receives it: a copy of a row not flushed yet."""
    found = _shared.get(revision) if isinstance(revision, str) else None
    if found is not None:
        record = record_of(row)
        if record.attached is None and record.file is None:
            record.store, record.attached = found.store, found
