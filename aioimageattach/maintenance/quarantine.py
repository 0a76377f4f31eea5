"""Files that a sweep removed, kept for a while, so that one command can undo any sweep."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from ..exc import StoreError
from ..inventory.ownership import keyed, types_of
from ..inventory.plan import Plan
from ..key import make_revision, revision_time
from ..store import KeyedStore, Store

__all__ = ["Restored", "Sweep", "UndoPlan", "UndoProgress", "empty", "make_sweep_id", "quarantine", "sweeps", "undo"]

TRASH: Final = ".trash/"
"""The prefix of files that a sweep removed: ``.trash/SWEEP/NAME``."""

_BATCH: Final = 1000
_END: Final = "{"  # sorts after all characters of a revision


@dataclass(frozen=True, slots=True)
class Sweep:
    """A sweep whose files are still in quarantine.

    Args:
        id: Identifies it; sweeps in order of time have these in order.
        swept_at: When it began.
    """

    id: str
    swept_at: datetime


@dataclass(frozen=True, slots=True)
class Restored:
    """A file that was taken back from quarantine.

    Args:
        name: Its name.
        store: The store; a part of a combined one.
        error: Why it could not be restored; ``None`` if it was.
    """

    name: str
    store: KeyedStore
    error: StoreError | None = None


@dataclass(slots=True)
class UndoProgress:
    """The progress of an undone sweep.

    Args:
        done: Files that were found in quarantine: the sum of the following two.
        restored: Files that have their names again.
        failed: Files that could not be restored.
    """

    done: int = 0
    restored: int = 0
    failed: int = 0


def make_sweep_id() -> str:
    """Return an identifier of a sweep that begins now."""
    return make_revision()


async def quarantine(store: KeyedStore, object_type: str, names: Sequence[str], sweep: str) -> dict[str, StoreError]:
    """Put files of an object type into quarantine; return the error of each that could not be put there."""
    failed: dict[str, StoreError] = {}
    for part in store.parts(object_type):
        found = await part.move_objects({name: f"{TRASH}{sweep}/{name}" for name in names})
        failed |= {name: error for name, error in found.items() if not isinstance(error, FileNotFoundError)}
    return failed


async def empty(parts: Sequence[KeyedStore], object_types: Sequence[str], before: datetime) -> int:
    """Delete the files of sweeps before a time for good; return their number."""
    number = 0
    for part in parts:
        for one in await _sweeps_in(part):
            if one.swept_at >= before:
                break
            for object_type in object_types:
                async for names in _batches(part, f"{TRASH}{one.id}/{object_type}/"):
                    number += len(names) - len(await part.delete_objects(names))
    return number


async def sweeps(target: Any, store: Store | None = None, *, sessions: Any = None) -> list[Sweep]:
    """Return the sweeps that can be undone, in order of time.

    Args:
        target: The declarative base, or one class.
        store: The store; ``None`` for the current store, or that of the sessions.
        sessions: Where to look for a store, if none is given.
    """
    where = keyed(store, sessions)
    found = {one.id: one for part in _parts(where, types_of(target, None)) for one in await _sweeps_in(part)}
    return sorted(found.values(), key=lambda one: one.id)


def _parts(store: KeyedStore, object_types: Any) -> list[KeyedStore]:
    return list({id(part): part for one in object_types for part in store.parts(one)}.values())


async def _sweeps_in(part: KeyedStore) -> list[Sweep]:
    """Return the sweeps with files in quarantine, by one listing of one name for each."""
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


async def _batches(part: KeyedStore, prefix: str) -> AsyncIterator[list[str]]:
    batch: list[str] = []
    async for info in part.list_objects(prefix):
        batch.append(info.name)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


class UndoPlan(Plan[Restored, UndoProgress]):
    """A sweep that is yet to be undone: iterate over it with ``async for``, or :meth:`execute` it.

    Attributes:
        progress: What was done so far; reset at each start.
    """

    def __init__(self, store: KeyedStore, object_types: Sequence[str], sweep: str | None) -> None:
        super().__init__()
        self._store = store
        self._object_types = object_types
        self._sweep = sweep
        self.progress = UndoProgress()

    async def __aiter__(self) -> AsyncGenerator[Restored, None]:
        """Yield each file, after it has its name again or could not be restored."""
        self.progress: UndoProgress = UndoProgress()
        self.warnings.clear()
        parts = _parts(self._store, self._object_types)
        last = max([one.id for part in parts for one in await _sweeps_in(part)], default="")
        for part in parts:
            for object_type in self._object_types:
                async for restored in self._restore(part, f"{TRASH}{self._sweep or last}/", object_type):
                    yield restored
        if not self.progress.done:
            self.warnings.append("there was nothing to restore")

    async def _restore(self, part: KeyedStore, prefix: str, object_type: str) -> AsyncIterator[Restored]:
        async for batch in _batches(part, f"{prefix}{object_type}/"):
            failed = await part.move_objects({name: name.removeprefix(prefix) for name in batch})
            for name in batch:
                error = failed.get(name)
                self.progress.done += 1
                self.progress.restored += error is None
                self.progress.failed += error is not None
                yield Restored(name.removeprefix(prefix), part, error)


def undo(
    target: Any,
    store: Store | None = None,
    *,
    sweep: str | None = None,
    object_types: Sequence[str] | None = None,
    sessions: Any = None,
) -> UndoPlan:
    """Plan to give the files that a sweep removed their names again.

    Args:
        target: The declarative base, or one class.
        store: The store; ``None`` for the current store, or that of the sessions.
        sweep: :attr:`Sweep.id` of the sweep; ``None`` for the last one.
        object_types: The first parts of the files' names; ``None`` for those of the classes.
        sessions: Where to look for a store, if none is given.

    Raises:
        DeclarationError: A class or the store is not fit for it.
        ContextError: No store is named anywhere.

    Effects: A file whose name is taken stays in quarantine. An error or a cancellation leaves the others there, too.
    """
    return UndoPlan(keyed(store, sessions), list(types_of(target, object_types)), sweep)
