"""The plan of a migration, which copies files concurrently and counts the results."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from traceback import format_exception
from typing import Any

from .._inventory import FileReference, Kind, Sessions, kinds, reread
from .._inventory.ownership import own_kinds
from .._inventory.plan import RowPlan
from ..context._current import resolve_store
from ..exc import ImageAttachError, MigrationError, RefusedError
from ..store import KeyedStore, Store
from ._transfer import Copy, Transfer, share_files

__all__ = ["MigrationPlan", "migrate", "migrate_class"]


class MigrationPlan(RowPlan[Copy]):
    """A :class:`~aioimageattach.maintenance.Plan` to migrate files.

    It yields each file that is in the destination, or that a dry run would copy, in order of completion. Each run
    starts from the beginning, and skips files that are already in the destination. An error or a cancellation stops the
    copies that are in progress, and leaves no partial file.

    A run raises :exc:`~aioimageattach.exc.MigrationError` at its end if some files could not be copied, or immediately
    if there are too many of them. An outage of a store ends the run with
    :exc:`~aioimageattach.exc.StoreUnavailableError`.

    Its progress counts the rows that were processed: files that were ``copied``; those that were ``present`` in the
    destination; in a dry run, those that are ``missing`` there; and those that are ``gone``, because their rows were
    replaced or deleted in the meantime. ``bytes`` is the total size of the files that were copied, or would be.
    """

    _outcomes = ("copied", "missing", "present", "gone")

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

    def __repr__(self) -> str:
        names = ", ".join(kind.cls.__name__ for kind in self._kinds)
        return f"<MigrationPlan of {names} from {self._transfer.source!r} to {self._transfer.destination!r}>"

    async def _run(self) -> AsyncGenerator[Copy, None]:
        is_first = await self._check_owner(claim=False)
        async with aclosing(self._results(self._attempt)) as attempts:
            async for kind, copy in attempts:
                if await self._record(kind, copy):
                    yield copy
                if self.progress.failed >= self._max_failures:
                    raise self._error(", and the migration was stopped")
        if self.failures:
            raise self._error("")
        self._require_all_rows()
        await self._check_owner(claim=not self._transfer.dry_run)
        if is_first and self.progress.counts["present"] == self.progress.done > 0:
            self.warnings.append(
                "every file was in the destination before the first migration to it: is it another name of the source?"
            )

    async def _check_owner(self, *, claim: bool) -> bool:
        """Check to which database the files in the destination belong; return whether they had no owner.

        Args:
            claim: ``True`` to record that files without an owner belong to this database.

        Raises:
            RefusedError: The files belong to another database.
        """
        destination = self._transfer.destination
        if not isinstance(destination, KeyedStore):
            return False
        owned = await own_kinds(self._sessions, self._kinds, destination, claim=claim)
        if conflicts := [f"{one.object_type}/ in {one.store!r}: {one.conflict}" for one in owned if one.conflict]:
            raise RefusedError(f"nothing was copied: {'; '.join(conflicts)}")
        return all(one.changed or one.owner is None for one in owned)

    async def _attempt(self, kind: Kind, reference: FileReference) -> tuple[Kind, Copy]:
        result = await self._try(self._transfer.run(reference))
        return kind, Copy(reference, "failed", error=result) if isinstance(result, Exception) else result

    async def _record(self, kind: Kind, copy: Copy) -> bool:
        """Count a result; return ``True`` if the file is in the destination, or would be copied."""
        progress, error = self.progress, copy.error
        if error is None:
            progress.counts[copy.outcome] += 1
            progress.bytes += 0 if copy.outcome == "present" else copy.size
        elif isinstance(error, FileNotFoundError) and await self._is_gone(kind, copy.reference):
            progress.counts["gone"] += 1
        else:
            error.add_note(f"the file of {copy.reference.cls.__name__} {copy.reference.identity!r}")
            _drop_frames(error)
            self._add_failures([copy])
        return error is None

    async def _is_gone(self, kind: Kind, reference: FileReference) -> bool:
        """Return ``True`` if the row was replaced or deleted since it was read, so that it no longer names the file."""
        now = await reread(self._sessions, kind, reference)
        return now is None or (now.key, now.name) != (reference.key, reference.name)

    def _error(self, more: str) -> MigrationError:
        errors = [copy.error for copy in self.failures if copy.error is not None]
        return MigrationError(f"{self.progress.failed:,} files could not be copied{more}", errors)


def _drop_frames(error: Exception) -> None:
    """Remove the frames, which hold the bytes of files, from an error that is kept.

    An error that is not from this library keeps its traceback as text, in a note.
    """
    if not isinstance(error, ImageAttachError):
        error.add_note("".join(format_exception(error)).rstrip())
    seen = set[int]()
    pending: list[BaseException | None] = [error]
    while pending:
        one = pending.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            one.__traceback__ = None
            pending += [one.__cause__, one.__context__, *getattr(one, "exceptions", ())]


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

    Each file is read once, its size and SHA-256 are compared with the row, and it is put if they match. Within one S3
    server, the server copies the file. A file that is already in the destination, with the right size, is skipped, so a
    migration that was stopped can be run again and continues. Memory and the duration of transactions do not depend on
    the number of rows. The application may continue to write; see :doc:`/howto/move`.

    Args:
        session: Factory of sessions: an ``async_sessionmaker``, or an ``AsyncSession``, which is not used itself.
        base: The declarative base of the classes, or their :class:`sqlalchemy.orm.registry`.
        source: The store with the files.
        destination: The store to which the files are copied.
        concurrency: Number of files that are copied concurrently.
        deep: ``True`` to read files that are already in the destination, or that a server has copied, and compare their
            checksums.
        dry_run: ``True`` to copy nothing, and only report what would be copied.
        max_failures: Number of files that could not be copied after which the migration stops.
        force: ``True`` to continue if the database may hide rows.

    Returns:
        The plan: iterate over it, or await its method ``execute()``.

    Raises:
        DeclarationError: No class of the base has files, or an argument is not a store.
        ContextError: One of the stores is ``current_store``, and there is no current store.
        ValueError: Both stores keep all files in the same place, for example a store and a mirror of it. If this is the
            case for some classes only, as with a routing store, those classes are skipped. Or a number is less than 1.
        RefusedError: From the plan: the files in the destination belong to another database; or the database may hide
            rows, and ``force`` is not set.
        MigrationError: From the plan: some files could not be copied.
        StoreMissingError: From the plan: a bucket does not exist.
        StoreUnavailableError: From the plan: a store has not responded for many consecutive files.
        IncompleteError: From the plan, at its end: not all rows were read.
    """
    source, destination = resolve_store(source), resolve_store(destination)
    moved = tuple(kind for kind in kinds(base) if not share_files(kind, source, destination))
    if not moved:
        raise ValueError(
            f"destination: expected a store in another place than {source!r}, got {destination!r}, which has the same "
            "files"
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
    """Plan to copy the files of one class and its subclasses; otherwise the same as :func:`migrate`."""
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
