"""Remove the copies that a migration has left in the old store."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from .._inventory import FileReference, Kind, Sessions, kinds
from .._inventory.plan import Plan, RowPlan
from ..context._current import resolve_store
from ..store import Store
from ._transfer import Copy, Transfer, share_files

__all__ = ["retire"]


class _RetirePlan(RowPlan[Copy]):
    _outcomes = ("removed", "safe")

    def __init__(
        self, sessions: Sessions, parts: tuple[Kind, ...], transfer: Transfer, *, delete: bool, concurrency: int
    ) -> None:
        super().__init__(sessions, parts, concurrency=concurrency)
        self._transfer = transfer
        self._delete = delete

    def __repr__(self) -> str:
        names = ", ".join(kind.cls.__name__ for kind in self._kinds)
        return f"<Plan to retire {names} in {self._transfer.source!r}>"

    async def _run(self) -> AsyncGenerator[Copy, None]:
        async with aclosing(self._results(self._retire)) as results:
            async for copy in results:
                if copy.error is None:
                    self.progress.counts[copy.outcome] += 1
                else:
                    self._add_failures([copy])
                yield copy
        self._require_all_rows()

    async def _retire(self, kind: Kind, reference: FileReference) -> Copy:
        error = await self._try(self._remove(reference))
        if error is not None:
            return Copy(reference, "failed", error=error)
        return Copy(reference, "removed" if self._delete else "safe")

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
) -> Plan[Copy]:
    """Plan to remove the copies of files from a store that the application no longer uses.

    A copy is removed only if the new store has the file, with the size that its row contains. Files that no row names
    are not touched; a sweep removes them.

    Args:
        session: Factory of sessions.
        base: The declarative base, or one class.
        old: The store with the copies.
        new: The store that the application uses.
        delete: ``True`` to remove copies; otherwise they are only checked.
        deep: ``True`` to read the files in the new store and compare checksums.
        concurrency: Number of files that are processed concurrently.

    Returns:
        The plan. It yields each copy after it was removed or kept. Its progress counts the copies that were
        ``removed``; those that would be removed with ``delete``, because the new store has the files (``safe``); and
        ``failed``, those that were kept because the new store does not have the files, or a store failed.

    Raises:
        ValueError: Both stores keep the files in the same place, so they are not copies; or ``concurrency`` is less
            than 1.
        DeclarationError: No class of the base has files.
        RefusedError: From the plan: the database may hide rows.
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
    return _RetirePlan(session, parts, transfer, delete=delete, concurrency=concurrency)
