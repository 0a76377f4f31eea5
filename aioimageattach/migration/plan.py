"""The plan of a migration: which files, how many at once, and what became of them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from dataclasses import dataclass
from traceback import format_exception
from typing import Any

from .._plans import at_once, carry_out
from ..context import resolve_store
from ..exc import ImageAttachError, MigrationError, StoreFileNotFoundError
from ..inventory import Kind, Reference, Sessions, count, kinds, references, reread
from ..store import Store
from .transfer import Outcome, Transfer

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
        total: How many rows there were at the start; ``None`` before. There may be more or fewer by the end.
        done: Rows that are dealt with, however that ended: the sum of the following four.
        copied: Files that were copied; in a dry run, that would be.
        present: Files that were in the destination already.
        gone: Rows that were replaced or deleted meanwhile, with their files.
        failed: Files that could not be moved.
        bytes: How many bytes the copied files have together.
    """

    total: int | None = None
    done: int = 0
    copied: int = 0
    present: int = 0
    gone: int = 0
    failed: int = 0
    bytes: int = 0


class MigrationPlan:
    """A migration that is yet to be done: iterate over it with ``async for``, or :meth:`execute` it.

    Each time it begins from the start, and passes over what is in the destination. An error and a cancellation stop the
    copies that are under way, and nothing half-done is left. A loop that is left early goes on in the background until
    Python closes its iterator: put that into :func:`contextlib.aclosing`.

    Attributes:
        progress: How far it is; counted from nothing each time.
        failures: The files that could not be moved.
    """

    def __init__(
        self,
        sessions: Sessions,
        parts: tuple[Kind, ...],
        transfer: Transfer,
        *,
        concurrency: int,
        max_failures: int,
    ) -> None:
        for label, number in (("concurrency", concurrency), ("max_failures", max_failures)):
            if number < 1:
                raise ValueError(f"{label}: expected at least 1, got {number}")
        self._sessions = sessions
        self._kinds = parts
        self._transfer = transfer
        self._concurrency = concurrency
        self._max_failures = max_failures
        self.progress: Progress = Progress()
        self.failures: list[Failure] = []

    def __repr__(self) -> str:
        names = ", ".join(kind.cls.__name__ for kind in self._kinds)
        return f"<MigrationPlan of {names} from {self._transfer.source!r} to {self._transfer.destination!r}>"

    async def execute(self, callback: Callable[[Migrated], object] | None = None) -> Progress:
        """Do it; return what was done.

        Args:
            callback: Called with each file that is in the destination now; awaited, if it is asynchronous. An error
                of it ends the migration.

        Raises:
            MigrationError: Some files could not be moved; all others were, unless there were too many.
        """
        await carry_out(self.__aiter__(), callback)
        return self.progress

    async def __aiter__(self) -> AsyncGenerator[Migrated, None]:
        """Copy, and yield each file that is in the destination now, in the order in which they arrive.

        Raises:
            MigrationError: At the end, if some files could not be moved; at once, if there are too many of them.
        """
        self.failures = []
        self.progress = Progress(total=sum([await count(self._sessions, kind) for kind in self._kinds]))
        async with aclosing(at_once(self._attempts(), self._concurrency)) as attempts:
            async for attempt in attempts:
                migrated = await self._note(attempt)
                if migrated is not None:
                    yield migrated
                if len(self.failures) >= self._max_failures:
                    raise self._error(" at least, and it was stopped")
        if self.failures:
            raise self._error("")

    async def _attempts(self) -> AsyncGenerator[Coroutine[Any, Any, _Attempt], None]:
        """What is to be tried. Rows are read here alone, where nobody else uses the database."""
        for kind in self._kinds:
            async for reference in references(self._sessions, kind):
                yield self._attempt(kind, reference)

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
            else:
                progress.copied += 1
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
        now = await reread(self._sessions, attempt.kind, attempt.reference.identity)
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
    moved = tuple(kind for kind in kinds(base) if not _share_a_place(kind, source, destination))
    if not moved:
        raise ValueError(
            f"destination: expected a store in another place than {source!r}, got {destination!r}, which has its files"
        )
    transfer = Transfer(source, destination, deep=deep, dry_run=dry_run)
    return MigrationPlan(session, moved, transfer, concurrency=concurrency, max_failures=max_failures)


def _share_a_place(kind: Kind, source: Store, destination: Store) -> bool:
    """Whether both stores keep files of a kind in one place, so that a copy would find its own source."""
    return any(
        not source.location_of(one).isdisjoint(destination.location_of(one)) for one in kind.object_types or (None,)
    )


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
    )
