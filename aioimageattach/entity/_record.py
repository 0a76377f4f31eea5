"""What is known of an image row beside its columns: the bytes it was attached with, and the file it names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, cast
from weakref import WeakValueDictionary

from sqlalchemy.orm import InstanceState
from sqlalchemy.orm.attributes import instance_state

from .._transaction.references import StoredFile
from ..file import Spool
from ..imaging._render import Rendering
from ..key import ImageKey
from ..store import Store
from ._derived import DerivedFile

__all__ = ["Attached", "Record", "Source", "attach", "attached_as", "known_store", "record_of", "share"]

_INFO: Final = "aioimageattach"


@dataclass(frozen=True, slots=True)
class Source:
    """The original that a thumbnail was made from.

    Args:
        row: Its row.
        key: The key that its file had at that time.
    """

    row: Any
    key: ImageKey


@dataclass(eq=False, slots=True, weakref_slot=True)
class Attached:
    """What was attached as a row that is not in the database yet; copies of the row share it.

    Args:
        store: Where the file is, or is to be put.
        spool: The bytes; ``None`` for a file that was adopted, which was in the store before.
        reproducible: Whether the bytes can be made again.
        replaces: Whether the row takes the place of a thumbnail of the same size.
        derived: The declared thumbnails that were made with it, to be put with it.
        attempted: Whether a flush has tried to put the bytes under the revision they were attached with. Each further
            attempt, of this row or of a copy, takes a new one: the old one may have reached the store.
    """

    store: Store
    spool: Spool | None
    reproducible: bool = False
    replaces: bool = False
    attempted: bool = False
    derived: Sequence[tuple[DerivedFile, Rendering]] = ()


@dataclass(slots=True)
class Record:
    """What is known of one row beside its columns.

    Args:
        store: Where its file is, if the row was attached or flushed in this process.
        attached: What it was attached with, until the row is in the database.
        source: The original that it was made from, until the row is in the database; of a copy, ``None``.
        file: The file that a flush has put for the row, or is about to put.
        owner: The state of the owner that it was attached to.
        position: The position that it took over from the picture that it replaces, as that was loaded.
    """

    store: Store | None = None
    attached: Attached | None = None
    source: Source | None = None
    file: StoredFile | None = None
    owner: InstanceState[Any] | None = None
    position: int | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Record:
        return Record(self.store, self.attached)

    def __reduce__(self) -> tuple[Any, ...]:
        return Record, ()  # neither bytes nor stores are pickled


_shared: WeakValueDictionary[str, Attached] = WeakValueDictionary()
"""By revision: how copies that ``merge`` and ``deepcopy`` make of a row find what was attached."""


def record_of(row: object) -> Record:
    """Return the record of a row, a new one if it has none yet.

    It is kept with the row's state, so that it lives as long as the row.
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


def attach(row: Any, attached: Attached, source: Source | None) -> None:
    """Note what was attached as a new row, and which original it was made from."""
    record = record_of(row)
    record.store, record.attached, record.source = attached.store, attached, source
    share(row.revision, attached)


def share(revision: str | None, attached: Attached) -> None:
    """Let copies of a row find what was attached by their revision."""
    if revision is not None:
        _shared[revision] = attached


def attached_as(row: object, revision: Any) -> None:
    """Give a row that takes a revision what was attached under it: it is a copy of a row that is not flushed yet."""
    found = _shared.get(revision) if isinstance(revision, str) else None
    if found is not None:
        record = record_of(row)
        if record.attached is None and record.file is None:
            record.store, record.attached = found.store, found
