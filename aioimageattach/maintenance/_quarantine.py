"""Quarantine: files that a sweep removed are kept for a while, so that one command can undo the sweep."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from datetime import datetime
from typing import Any, Final

from .._inventory.derived import with_derived
from .._inventory.ownership import keyed, types_of
from .._inventory.plan import Plan
from .._names import revision_time
from ..exc import StoreError
from ..key import make_revision
from ..store import KeyedStore, ObjectInfo, Store
from ._search import Orphan

__all__ = ["delete_expired", "make_sweep_id", "quarantine", "sweeps", "undo"]

TRASH: Final = ".trash/"
"""The prefix of quarantined files: ``.trash/SWEEP/NAME``."""

_ID_CHARS: Final = 26
_BATCH: Final = 1000
_END: Final = "{"  # sorts after every character of a revision


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
        for sweep, swept_at in (await _sweeps_in(part)).items():
            if swept_at >= before:
                break
            for object_type in object_types:
                async for batch in _batches(part, f"{TRASH}{sweep}/{object_type}/"):
                    number += len(batch) - len(await part.delete_objects([info.name for info in batch]))
    return number


async def sweeps(target: Any, store: Store | None = None, *, sessions: Any = None) -> dict[str, datetime]:
    """Return the sweeps that can be undone, oldest first: the identifier of each, and the time at which it started.

    Args:
        target: The declarative base, or one class.
        store: The store; ``None`` for the current store, or that of the sessions.
        sessions: The sessions whose store is used if none is given.
    """
    parts = _parts(keyed(store, sessions), with_derived(types_of(target, None), target))
    found = {sweep: swept_at for part in parts for sweep, swept_at in (await _sweeps_in(part)).items()}
    return dict(sorted(found.items()))


def _parts(store: KeyedStore, object_types: Iterable[str]) -> list[KeyedStore]:
    return list({id(part): part for object_type in object_types for part in store.parts(object_type)}.values())


async def _sweeps_in(part: KeyedStore) -> dict[str, datetime]:
    """Return the sweeps with files in quarantine. This lists one file per sweep."""
    found: dict[str, datetime] = {}
    after = ""
    while True:
        async for info in part.list_objects(TRASH, start_after=after):
            sweep = info.name.removeprefix(TRASH).partition("/")[0]
            swept_at = revision_time(sweep)
            if swept_at is not None:
                found[sweep] = swept_at
            after = f"{TRASH}{sweep}/{_END}"
            break
        else:
            return found


async def _batches(part: KeyedStore, prefix: str) -> AsyncGenerator[list[ObjectInfo], None]:
    batch: list[ObjectInfo] = []
    async for info in part.list_objects(prefix):
        batch.append(info)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


class _UndoPlan(Plan[Orphan]):
    _outcomes = ("restored",)

    def __init__(self, store: KeyedStore, object_types: Sequence[str], sweep: str | None) -> None:
        super().__init__()
        self._store = store
        self._object_types = object_types
        self._sweep = sweep

    async def _run(self) -> AsyncGenerator[Orphan, None]:
        parts = _parts(self._store, self._object_types)
        last = max([sweep for part in parts for sweep in await _sweeps_in(part)], default="")
        prefix = f"{TRASH}{self._sweep or last}/"
        for part in parts:
            for object_type in self._object_types:
                async with aclosing(_batches(part, f"{prefix}{object_type}/")) as batches:
                    async for batch in batches:
                        for orphan in await self._restore(part, prefix, object_type, batch):
                            yield orphan
        if not self.progress.done:
            self.warnings.append("there was nothing to restore")

    async def _restore(
        self, part: KeyedStore, prefix: str, object_type: str, batch: Sequence[ObjectInfo]
    ) -> list[Orphan]:
        failed = await part.move_objects({info.name: info.name.removeprefix(prefix) for info in batch})
        orphans = [
            Orphan(
                object_type,
                info.name.removeprefix(prefix),
                info.size,
                info.modified_at,
                removed=info.name in failed,
                error=failed.get(info.name),
            )
            for info in batch
        ]
        self.progress.done += len(batch)
        self.progress.counts["restored"] += len(batch) - len(failed)
        self._add_failures([orphan for orphan in orphans if orphan.removed])
        return orphans


def undo(
    target: Any,
    store: Store | None = None,
    *,
    sweep: str | None = None,
    object_types: Sequence[str] | None = None,
    sessions: Any = None,
) -> Plan[Orphan]:
    """Plan to move the files that a sweep put into quarantine back to their original names.

    Args:
        target: The declarative base, or one class.
        store: The store; ``None`` for the current store, or that of the sessions.
        sweep: The identifier of the sweep, :attr:`Plan.id`; ``None`` for the last one.
        object_types: The object types of the files to restore; ``None`` for those of the classes.
        sessions: The sessions whose store is used if none is given.

    Returns:
        The plan. It yields each file that was found in quarantine, after it was restored or could not be. Its progress
        counts these files, and those that were ``restored``.

    Raises:
        DeclarationError: The store cannot be listed, or the object type of a class depends on the row.
        ContextError: No store is given, bound or current.

    Effects: A file stays in quarantine if its original name is in use again. After an error or a cancellation, the
        files that were not restored yet also stay there.
    """
    return _UndoPlan(keyed(store, sessions), list(with_derived(types_of(target, object_types), target)), sweep)
