"""Quarantine: files that a sweep removed are kept for a while, so that one command can undo the sweep."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from .._inventory.derived import with_derived
from .._inventory.ownership import keyed, types_of
from .._inventory.plan import Plan
from .._names import revision_time
from ..exc import StoreError
from ..key import make_revision
from ..store import KeyedStore, Store

__all__ = [
    "Restored",
    "Sweep",
    "UndoPlan",
    "UndoProgress",
    "delete_expired",
    "make_sweep_id",
    "quarantine",
    "sweeps",
    "undo",
]

TRASH: Final = ".trash/"
"""The prefix of quarantined files: ``.trash/SWEEP/NAME``."""

_ID_CHARS: Final = 26
_BATCH: Final = 1000
_END: Final = "{"  # sorts after every character of a revision


@dataclass(frozen=True, slots=True)
class Sweep:
    """A sweep whose files are still in quarantine.

    Args:
        id: Identifies the sweep; identifiers sort by time.
        swept_at: When the sweep started.
    """

    id: str
    swept_at: datetime


@dataclass(frozen=True, slots=True)
class Restored:
    """A quarantined file that was restored, or could not be.

    Args:
        name: The original name of the file.
        store: The store, or the part of a combined store.
        error: Why the file could not be restored; ``None`` if it was.
    """

    name: str
    store: KeyedStore
    error: StoreError | None = None


@dataclass(slots=True)
class UndoProgress:
    """The progress of undoing a sweep.

    Args:
        done: Files that were found in quarantine: the sum of the following two.
        restored: Files that have their original names again.
        failed: Files that could not be restored.
    """

    done: int = 0
    restored: int = 0
    failed: int = 0


def make_sweep_id() -> str:
    """Return an identifier for a sweep that starts now."""
    return make_revision()[:_ID_CHARS]


async def quarantine(store: KeyedStore, object_type: str, names: Sequence[str], sweep: str) -> dict[str, StoreError]:
    """Move files of an object type to quarantine; return the error of each file that could not be moved."""
    failed: dict[str, StoreError] = {}
    for part in store.parts(object_type):
        found = await part.move_objects({name: f"{TRASH}{sweep}/{name}" for name in names})
        failed |= {name: error for name, error in found.items() if not isinstance(error, FileNotFoundError)}
    return failed


async def delete_expired(parts: Sequence[KeyedStore], object_types: Sequence[str], before: datetime) -> int:
    """Delete the quarantined files of all sweeps before a time; return their number."""
    number = 0
    for part in parts:
        for sweep in await _sweeps_in(part):
            if sweep.swept_at >= before:
                break
            for object_type in object_types:
                async for names in _batches(part, f"{TRASH}{sweep.id}/{object_type}/"):
                    number += len(names) - len(await part.delete_objects(names))
    return number


async def sweeps(target: Any, store: Store | None = None, *, sessions: Any = None) -> list[Sweep]:
    """Return the sweeps that can be undone, oldest first.

    Args:
        target: The declarative base, or one class.
        store: The store; ``None`` for the current store, or that of the sessions.
        sessions: The sessions whose store is used if none is given.
    """
    parts = _parts(keyed(store, sessions), with_derived(types_of(target, None), target))
    found = {sweep.id: sweep for part in parts for sweep in await _sweeps_in(part)}
    return sorted(found.values(), key=lambda sweep: sweep.id)


def _parts(store: KeyedStore, object_types: Iterable[str]) -> list[KeyedStore]:
    return list({id(part): part for object_type in object_types for part in store.parts(object_type)}.values())


async def _sweeps_in(part: KeyedStore) -> list[Sweep]:
    """Return the sweeps with files in quarantine. Each sweep costs one listing that is left after its first name."""
    found: list[Sweep] = []
    after = ""
    while True:
        async for info in part.list_objects(TRASH, start_after=after):
            sweep = info.name.removeprefix(TRASH).partition("/")[0]
            swept_at = revision_time(sweep)
            if swept_at is not None:
                found.append(Sweep(sweep, swept_at))
            after = f"{TRASH}{sweep}/{_END}"
            break
        else:
            return found


async def _batches(part: KeyedStore, prefix: str) -> AsyncGenerator[list[str], None]:
    batch: list[str] = []
    async for info in part.list_objects(prefix):
        batch.append(info.name)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


class UndoPlan(Plan[Restored, UndoProgress]):
    """The undoing of a sweep, not started yet; it yields each file after it was restored or could not be.

    Attributes:
        progress: Counts of the current run, or of the last one; reset when a run starts.
        warnings: Signs that the last run was incomplete, or that its arguments were wrong.
    """

    def __init__(self, store: KeyedStore, object_types: Sequence[str], sweep: str | None) -> None:
        super().__init__(UndoProgress)
        self._store = store
        self._object_types = object_types
        self._sweep = sweep

    async def _run(self) -> AsyncGenerator[Restored, None]:
        parts = _parts(self._store, self._object_types)
        last = max([sweep.id for part in parts for sweep in await _sweeps_in(part)], default="")
        prefix = f"{TRASH}{self._sweep or last}/"
        for part in parts:
            for object_type in self._object_types:
                async with aclosing(_batches(part, f"{prefix}{object_type}/")) as batches:
                    async for names in batches:
                        for restored in await self._restore(part, prefix, names):
                            yield restored
        if not self.progress.done:
            self.warnings.append("there was nothing to restore")

    async def _restore(self, part: KeyedStore, prefix: str, names: Sequence[str]) -> list[Restored]:
        failed = await part.move_objects({name: name.removeprefix(prefix) for name in names})
        self.progress.done += len(names)
        self.progress.restored += len(names) - len(failed)
        self.progress.failed += len(failed)
        return [Restored(name.removeprefix(prefix), part, failed.get(name)) for name in names]


def undo(
    target: Any,
    store: Store | None = None,
    *,
    sweep: str | None = None,
    object_types: Sequence[str] | None = None,
    sessions: Any = None,
) -> UndoPlan:
    """Plan to give the files that a sweep removed their original names again.

    Args:
        target: The declarative base, or one class.
        store: The store; ``None`` for the current store, or that of the sessions.
        sweep: The :attr:`Sweep.id` of the sweep; ``None`` for the last one.
        object_types: The object types of the files to restore; ``None`` for those of the classes.
        sessions: The sessions whose store is used if none is given.

    Returns:
        The plan: iterate over it, or await :meth:`UndoPlan.execute`.

    Raises:
        DeclarationError: The store cannot be listed, or the object type of a class depends on the row.
        ContextError: No store is given, bound or current.

    Effects: A file whose name exists already stays in quarantine. After an error or a cancellation, so do the files
        that were not restored yet.
    """
    return UndoPlan(keyed(store, sessions), list(with_derived(types_of(target, object_types), target)), sweep)
