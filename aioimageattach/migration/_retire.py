"""Remove the copies that a migration has left in the old store."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from .._inventory import FileReference, Kind, Sessions, kinds
from .._inventory.plan import RowPlan
from ..context._current import resolve_store
from ..store import Store
from ._transfer import Transfer, share_files

__all__ = ["RetirePlan", "RetireProgress", "Retired", "retire"]


@dataclass(frozen=True, slots=True)
class Retired:
    """A copy in the old store.

    Args:
        reference: The file, as its row describes it.
        removed: ``True`` if the copy was removed.
        error: Why the copy was kept: the new store does not have the file, or a store failed.
    """

    reference: FileReference
    removed: bool
    error: Exception | None = None


@dataclass(slots=True)
class RetireProgress:
    """The progress of removing copies.

    Args:
        total: Number of rows at the start, and at the end number of rows that were read; ``None`` before.
        done: Rows that were processed: the sum of the following two.
        safe: Files that the new store has; their copies were removed, or would be.
        kept: Files whose copies were kept, because the new store does not have them.
        missed: Rows that the database counts but did not return; if there are any, the run fails.
    """

    total: int | None = None
    done: int = 0
    safe: int = 0
    kept: int = 0
    missed: int = 0


class RetirePlan(RowPlan[Retired, RetireProgress]):
    """A removal of copies that has not started yet; it yields each copy after it was removed or kept.

    Attributes:
        progress: Counts of the current run, or of the last one; reset when a run starts.
        warnings: Signs that the last run was incomplete, or that its arguments were wrong.
    """

    def __init__(
        self, sessions: Sessions, parts: tuple[Kind, ...], transfer: Transfer, *, delete: bool, concurrency: int
    ) -> None:
        super().__init__(RetireProgress, sessions, parts, concurrency=concurrency)
        self._transfer = transfer
        self._delete = delete

    def __repr__(self) -> str:
        names = ", ".join(kind.cls.__name__ for kind in self._kinds)
        return f"<RetirePlan of {names} in {self._transfer.source!r}>"

    async def _run(self) -> AsyncGenerator[Retired, None]:
        async with aclosing(self._results(self._retire)) as results:
            async for retired in results:
                self.progress.safe += retired.error is None
                self.progress.kept += retired.error is not None
                yield retired
        self._require_all_rows()

    async def _retire(self, kind: Kind, reference: FileReference) -> Retired:
        error = await self._try(self._remove(reference))
        return Retired(reference, self._delete) if error is None else Retired(reference, False, error)

    async def _remove(self, reference: FileReference) -> None:
        await self._transfer.check(reference)
        if self._delete:
            await self._transfer.delete_from_source(reference)


def retire(
    session: Sessions,
    base: Any,
    old: Store,
    new: Store,
    *,
    delete: bool = False,
    deep: bool = False,
    concurrency: int = 16,
) -> RetirePlan:
    """Plan to remove the copies of files from a store that the application no longer uses.

    A copy is removed only if the new store has the file, with the size that its row contains. Files that no row names
    are not touched; a sweep removes them.

    Args:
        session: Makes sessions.
        base: The declarative base, or one class.
        old: The store with the copies.
        new: The store that the application uses.
        delete: ``True`` to remove copies; otherwise they are only checked.
        deep: ``True`` to read the files in the new store and compare checksums.
        concurrency: Number of files that are processed concurrently.

    Returns:
        The plan: iterate over it, or await :meth:`RetirePlan.execute`.

    Raises:
        ValueError: Both stores keep the files in the same place, so they are not copies; or ``concurrency`` is less
            than 1.
        DeclarationError: No class of the base has files.
        UnsafeDatabaseError: From the plan: the database may hide rows.
        StoreMissingError: From the plan: a bucket does not exist.
        StoreUnavailableError: From the plan: a store has not responded for many consecutive files.
        IncompleteError: From the plan, at its end: not all rows were read.

    Effects: None without ``delete``. With it, each copy is removed after the new store was checked. After an error or
        a cancellation, the remaining copies are unchanged.
    """
    old, new = resolve_store(old), resolve_store(new)
    parts = kinds(base)
    if any(share_files(kind, old, new) for kind in parts):
        raise ValueError(f"old: expected a store in another place than {new!r}, got {old!r}")
    transfer = Transfer(old, new, deep=deep, dry_run=True)
    return RetirePlan(session, parts, transfer, delete=delete, concurrency=concurrency)
