"""Removing the copies that a move has left in the old store."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from .._tasks import as_completed
from ..context import resolve_store
from ..exc import ImageAttachError
from ..inventory import Kind, Reference, Sessions, kinds
from ..inventory.plan import RowPlan
from ..store import Store
from .transfer import Transfer, share_a_place

__all__ = ["RetirePlan", "RetireProgress", "Retired", "retire"]


@dataclass(frozen=True, slots=True)
class Retired:
    """A copy in the old store.

    Args:
        reference: The row that names the file.
        removed: Whether the copy was removed.
        error: Why it was kept: the other store does not have the file, or a store failed.
    """

    reference: Reference
    removed: bool
    error: Exception | None = None


@dataclass(slots=True)
class RetireProgress:
    """The progress of removing copies.

    Args:
        total: Number of rows at the start, and at the end the number of those that were read; ``None`` before.
        done: Rows that are dealt with: the sum of the following two.
        safe: Files that the other store has, so that their copies were removed, or would be.
        kept: Files whose copies were kept, because the other store does not have them.
        missed: Rows that the database counts but did not give; the run is then not a success.
    """

    total: int | None = None
    done: int = 0
    safe: int = 0
    kept: int = 0
    missed: int = 0


class RetirePlan(RowPlan[Retired, RetireProgress]):
    """A removal of copies that is yet to be done: iterate over it with ``async for``, or :meth:`execute` it.

    Attributes:
        progress: What was done so far; reset at each start.
        warnings: After a run, reasons to doubt that it did what was wanted.
    """

    def __init__(
        self, sessions: Sessions, parts: tuple[Kind, ...], transfer: Transfer, *, delete: bool, concurrency: int
    ) -> None:
        super().__init__(sessions, parts, concurrency=concurrency, force=False)
        self._transfer = transfer
        self._delete = delete
        self.progress = RetireProgress()

    async def __aiter__(self) -> AsyncGenerator[Retired, None]:
        """Yield each copy, after it was removed or kept."""
        self.warnings.clear()
        self.progress: RetireProgress = RetireProgress(total=await self._count())
        async with aclosing(as_completed(self._each(self._retire), self._concurrency)) as done:
            async for retired in done:
                self.progress.done += 1
                self.progress.safe += retired.error is None
                self.progress.kept += retired.error is not None
                yield retired
        self._end()

    async def _retire(self, kind: Kind, reference: Reference) -> Retired:
        try:
            await self._transfer.check(reference)
            if self._delete:
                await self._transfer.remove_source(reference)
        except (ImageAttachError, OSError) as error:
            return Retired(reference, False, error)
        return Retired(reference, self._delete)


def retire(
    session: Sessions,
    base: Any,
    store: Store,
    kept: Store,
    *,
    delete: bool = False,
    deep: bool = False,
    concurrency: int = 16,
) -> RetirePlan:
    """Plan to remove the copies of files from a store that the application does not use any more.

    A copy is removed only if the other store has the file, with the size that its row tells. Files that no row names
    are left; a sweep removes them.

    Args:
        session: Makes sessions.
        base: The declarative base, or one class.
        store: The store with the copies.
        kept: The store that the application uses.
        delete: Whether to remove copies; otherwise they are only looked at.
        deep: Whether to read the files in the other store and compare checksums.
        concurrency: Number of files that are looked at concurrently.

    Raises:
        ValueError: Both stores have the files in one place, so that they are no copies; or ``concurrency`` is less
            than 1.
        DeclarationError: No class of the base has files.
        UnsafeDatabaseError: From the plan: the database may hide rows.
        IncompleteError: From the plan, at its end: not all rows were read.
    """
    store, kept = resolve_store(store), resolve_store(kept)
    parts = kinds(base)
    if any(share_a_place(kind, store, kept) for kind in parts):
        raise ValueError(f"store: expected a store in another place than {kept!r}, got {store!r}")
    transfer = Transfer(store, kept, deep=deep, dry_run=True)
    return RetirePlan(session, parts, transfer, delete=delete, concurrency=concurrency)
