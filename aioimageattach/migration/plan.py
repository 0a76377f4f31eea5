"""The plan of a migration: which files, how many at once, and what became of them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from traceback import format_exception
from typing import Any

from .._tasks import as_completed
from ..context import resolve_store
from ..exc import ImageAttachError, MigrationError, OwnershipError, StoreFileNotFoundError
from ..inventory import Kind, Reference, Sessions, kinds, reread
from ..inventory.ownership import own_kinds
from ..inventory.plan import RowPlan
from ..store import KeyedStore, Store
from .transfer import Outcome, Transfer, share_a_place

__all__ = ["Failure", "Migrated", "MigrationPlan", "Progress", "migrate", "migrate_class"]


@dataclass(frozen=True, slots=True)
class Migrated:
    """A file that is in the destination now, or would be copied there.

    Args:
        reference: The row that names it.
        outcome: Whether it was copied, was there already, or would be copied.
        size: In bytes.
    """

    reference: Reference
    outcome: Outcome
    size: int


@dataclass(frozen=True, slots=True)
class Failure:
    """A file that could not be moved.

    Args:
        reference: The row that names it.
        error: Why.
    """

    reference: Reference
    error: Exception


@dataclass(slots=True)
class Progress:
    """How far a migration is.

    Args:
        total: Number of rows at the start, and at the end the number of those that were read; ``None`` before.
        done: Rows that are dealt with, whatever the result: the sum of the following five.
        copied: Files that were copied.
        missing: In a dry run, files that would be copied.
        present: Files that were already in the destination.
        gone: Rows that were replaced or deleted meanwhile, with their files.
        failed: Files that could not be moved.
        bytes: Total size of the files that were copied, or would be.
        missed: Rows that the database counts but did not give; the run is then not a success.
    """

    total: int | None = None
    done: int = 0
    copied: int = 0
    missing: int = 0
    present: int = 0
    gone: int = 0
    failed: int = 0
    bytes: int = 0
    missed: int = 0


class MigrationPlan(RowPlan[Migrated, Progress]):
    """A migration that is yet to be done: iterate over it with ``async for``, or :meth:`execute` it.

    Each time it begins from the start, and skips files that are already in the destination. An error or a cancellation
    stops the copies that are in progress, and leaves no partial file. A loop that is left early continues in the
    background until Python closes its iterator: put that into :func:`contextlib.aclosing`.

    Attributes:
        progress: What was done so far; reset at each start.
        failures: The files that could not be moved.
        objections: Reasons why rows may be hidden, with ``force=True``.
        warnings: After a run, reasons to doubt that it copied what was wanted.
    """

    def __init__(
        self,
        sessions: Sessions,
        parts: tuple[Kind, ...],
        transfer: Transfer,
        *,
        concurrency: int,
        max_failures: int,
        force: bool,
    ) -> None:
        super().__init__(sessions, parts, concurrency=concurrency, force=force)
        if max_failures < 1:
            raise ValueError(f"max_failures: expected at least 1, got {max_failures}")
        self._transfer = transfer
        self._max_failures = max_failures
        self.progress = Progress()
        self.failures: list[Failure] = []

    def __repr__(self) -> str:
        names = ", ".join(kind.cls.__name__ for kind in self._kinds)
        return f"<MigrationPlan of {names} from {self._transfer.source!r} to {self._transfer.destination!r}>"

    async def __aiter__(self) -> AsyncGenerator[Migrated, None]:
        """Copy, and yield each file that is now in the destination, in the order of completion.

        Raises:
            MigrationError: At the end, if some files could not be moved; immediately, if there are too many of them.
        """
        self.failures = []
        self.warnings.clear()
        self.progress: Progress = Progress(total=await self._count())
        is_first = await self._own(claim=False)
        async with aclosing(as_completed(self._each(self._attempt), self._concurrency)) as attempts:
            async for attempt in attempts:
                migrated = await self._note(attempt)
                if migrated is not None:
                    yield migrated
                if len(self.failures) >= self._max_failures:
                    raise self._error(", and the migration was stopped")
        if self.failures:
            raise self._error("")
        self._end()
        await self._own(claim=not self._transfer.dry_run)
        if is_first and self.progress.present == self.progress.done > 0:
            self.warnings.append(
                "every file was in the destination before the first migration to it: is it another name of the source?"
            )

    async def _own(self, *, claim: bool) -> bool:
        """Look whose the files in the destination are; return whether nobody has claimed them.

        Args:
            claim: Whether to record that they are this database's then.

        Raises:
            OwnershipError: They are another database's.
        """
        where = self._transfer.destination
        if not isinstance(where, KeyedStore):
            return False
        owned = await own_kinds(self._sessions, self._kinds, where, claim=claim)
        if conflicts := [f"{one.object_type}/ in {one.store!r}: {one.conflict}" for one in owned if one.conflict]:
            raise OwnershipError(f"nothing was copied: {'; '.join(conflicts)}")
        return all(one.changed or one.owner is None for one in owned)

    async def _attempt(self, kind: Kind, reference: Reference) -> _Attempt:
        try:
            outcome, size = await self._transfer.run(reference)
        except Exception as error:
            return _Attempt(kind, reference, error)
        return _Attempt(kind, reference, Migrated(reference, outcome, size))

    async def _note(self, attempt: _Attempt) -> Migrated | None:
        progress, result = self.progress, attempt.result
        progress.done += 1
        if not isinstance(result, Exception):
            if result.outcome == "present":
                progress.present += 1
            elif result.outcome == "copied":
                progress.copied += 1
                progress.bytes += result.size
            else:
                progress.missing += 1
                progress.bytes += result.size
            return result
        if isinstance(result, StoreFileNotFoundError) and await self._is_gone(attempt):
            progress.gone += 1
            return None
        result.add_note(f"the file of {attempt.reference.cls.__name__} {attempt.reference.identity!r}")
        _forget_frames(result)
        progress.failed += 1
        self.failures.append(Failure(attempt.reference, result))
        return None

    async def _is_gone(self, attempt: _Attempt) -> bool:
        """Whether the row names that file no longer: it was replaced or deleted since it was read."""
        now = await reread(self._sessions, attempt.kind, attempt.reference)
        return now is None or (now.key, now.name) != (attempt.reference.key, attempt.reference.name)

    def _error(self, more: str) -> MigrationError:
        errors = [failure.error for failure in self.failures]
        return MigrationError(f"{len(errors):,} files could not be moved{more}", errors)


def _forget_frames(error: Exception) -> None:
    """Let an error that is kept hold no bytes of its file; of one that nobody foresaw, the traceback stays as text."""
    if not isinstance(error, ImageAttachError):
        error.add_note("".join(format_exception(error)).rstrip())
    seen = set[int]()
    behind: list[BaseException | None] = [error]
    while behind:
        one = behind.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            one.__traceback__ = None
            behind += [one.__cause__, one.__context__, *getattr(one, "exceptions", ())]


@dataclass(frozen=True, slots=True)
class _Attempt:
    kind: Kind
    reference: Reference
    result: Migrated | Exception


def migrate(
    session: Sessions,
    base: Any,
    source: Store,
    destination: Store,
    *,
    concurrency: int = 16,
    deep: bool = False,
    dry_run: bool = False,
    max_failures: int = 1000,
    force: bool = False,
) -> MigrationPlan:
    """Plan to copy the files of all committed rows from one store to another; nothing is deleted anywhere.

    Each file is read once, compared with its row by size and fingerprint, and put; what differs is not put. Within one
    server the server copies. A file that is in the destination already, with the right size, is passed over: a
    migration that was stopped can be run again, and goes on. Memory and open transactions do not grow with the number
    of rows. An application may go on writing meanwhile; see :doc:`/howto/move`.

    Args:
        session: Makes sessions: an ``async_sessionmaker``, or an ``AsyncSession``, which itself is not used.
        base: The declarative base, or the :class:`sqlalchemy.orm.registry`, of the classes.
        source: Where the files are.
        destination: Where they are to be.
        concurrency: How many files are on their way at once.
        deep: Whether files that are in the destination already, or that a server has copied, are read and their
            fingerprints compared.
        dry_run: Whether to copy nothing, and only tell what would be copied.
        max_failures: After so many files that could not be moved it stops.

    Returns:
        The plan; nothing is done yet.

    Raises:
        DeclarationError: No class of the base has files, or what is given is no store.
        ContextError: One of the stores is ``current_store``, and there is none.
        ValueError: Both stores keep all of the files in one place, as a store and a mirror of it do. If that is so for
            some classes only, as with a routing store, those are left out. Or a number is less than 1.
    """
    source, destination = resolve_store(source), resolve_store(destination)
    moved = tuple(kind for kind in kinds(base) if not share_a_place(kind, source, destination))
    if not moved:
        raise ValueError(
            f"destination: expected a store in another place than {source!r}, got {destination!r}, which has its files"
        )
    transfer = Transfer(source, destination, deep=deep, dry_run=dry_run)
    return MigrationPlan(session, moved, transfer, concurrency=concurrency, max_failures=max_failures, force=force)


def migrate_class(
    session: Sessions,
    cls: type[Any],
    source: Store,
    destination: Store,
    *,
    concurrency: int = 16,
    deep: bool = False,
    dry_run: bool = False,
    max_failures: int = 1000,
    force: bool = False,
) -> MigrationPlan:
    """Plan to copy the files of one class, and of those derived from it; otherwise as :func:`migrate`."""
    return migrate(
        session,
        cls,
        source,
        destination,
        concurrency=concurrency,
        deep=deep,
        dry_run=dry_run,
        max_failures=max_failures,
        force=force,
    )
