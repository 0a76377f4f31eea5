"""Plans: operations that are defined first, then run item by item with bounded concurrency."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Generic, TypeVar

from .._tasks import as_completed
from ..exc import IncompleteError, RefusedError, StoreMissingError, StoreUnavailableError
from .database import unsafe_reasons
from .kind import FileReference, Kind
from .reader import Reader, Sessions
from .scan import Scan, count

__all__ = ["Objection", "Outage", "Plan", "Progress", "RowPlan"]

R = TypeVar("R")
ItemT = TypeVar("ItemT")

_OUTAGE: Final = 16
"""Consecutive files, beyond those in progress, for which a store may fail to respond before a run ends."""


_FAILURES_KEPT: Final = 10_000


@dataclass(slots=True)
class Progress:
    """The progress of a :class:`Plan`.

    Args:
        total: Number of rows or images at the start, and of rows that were read at the end; ``None`` if not known.
        done: Number of rows, files or images that were processed.
        counts: Numbers by outcome, such as ``counts["removed"]``. Each function that returns a plan lists its outcomes.
        failed: Number of those that could not be processed; see :attr:`Plan.failures`.
        bytes: Total size of the files that the counts are about.
        missed: Number of rows that the database counted but did not return; if there are any, the run fails.
        position: The last name or image that was processed. Another run can start after it, if the function that
            returns the plan has the argument ``start_after``.
    """

    total: int | None = None
    done: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    failed: int = 0
    bytes: int = 0
    missed: int = 0
    position: str = ""


@dataclass(frozen=True, slots=True)
class Objection:
    """A reason not to continue.

    Args:
        object_type: The object type of the files; empty if it concerns the database.
        reason: The problem.
        can_be_forced: ``True`` if ``force=True`` continues nevertheless.
    """

    object_type: str
    reason: str
    can_be_forced: bool

    def __str__(self) -> str:
        return f"{self.object_type}/: {self.reason}" if self.object_type else self.reason


class Plan(ABC, Generic[ItemT]):
    """An operation to run: iterate over it with ``async for``, or call :meth:`execute`.

    Each iteration is a new run. A loop that is left early continues in the background until Python closes its
    iterator; use :func:`contextlib.aclosing` to stop it immediately.

    Attributes:
        progress: The :class:`Progress` of the current run, or of the last one; reset when a run starts.
        failures: The items that could not be processed, at most 10,000 of them. Each has an ``error``.
        objections: Reasons to refuse to continue, each with ``object_type``, ``reason`` and ``can_be_forced``.
        warnings: Signs that the last run was incomplete or used the wrong database or classes, although nothing failed.
        id: Identifies the last run for :func:`~aioimageattach.maintenance.undo` if it moved files to quarantine;
            otherwise ``None``.
    """

    _outcomes: ClassVar[tuple[str, ...]] = ()

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self.progress: Progress = Progress(counts=dict.fromkeys(self._outcomes, 0))
        self.failures: list[ItemT] = []
        self.objections: list[Objection] = []
        self.warnings: list[str] = []
        self.id: str | None = None

    async def execute(self, callback: Callable[[ItemT], object] | None = None) -> Progress:
        """Run the plan and return its progress.

        Args:
            callback: Called with each item, and awaited if it is asynchronous. An error that it raises ends the run.
        """
        async with aclosing(self.__aiter__()) as items:
            async for item in items:
                result = None if callback is None else callback(item)
                if inspect.isawaitable(result):
                    await result
        return self.progress

    def __aiter__(self) -> AsyncGenerator[ItemT, None]:
        """Start a run, and yield each item as soon as it is finished."""
        self._reset()
        return self._run()

    def _add_failures(self, failures: Sequence[ItemT]) -> None:
        """Count items that could not be processed, and keep them if they are not too many."""
        self.progress.failed += len(failures)
        self.failures += failures[: _FAILURES_KEPT - len(self.failures)]

    @abstractmethod
    def _run(self) -> AsyncGenerator[ItemT, None]: ...


class Outage:
    """Detects that a store has stopped responding, to end the run.

    Args:
        concurrency: Number of files in progress.
    """

    def __init__(self, concurrency: int) -> None:
        self._concurrency = concurrency
        self._unavailable = 0

    def note(self, error: Exception | None) -> None:
        """Note the result for one file.

        Raises:
            StoreMissingError: The bucket does not exist.
            StoreUnavailableError: The store has not responded for many consecutive files.
        """
        if isinstance(error, StoreMissingError):
            raise error  # every file would fail with it
        self._unavailable = self._unavailable + 1 if isinstance(error, ConnectionError | TimeoutError) else 0
        if self._unavailable > self._concurrency + _OUTAGE:
            raise StoreUnavailableError(
                f"the store did not respond for {self._unavailable} consecutive files, so the run was stopped; "
                f"the last error was {type(error).__name__}: {error}"
            ) from error


class RowPlan(Plan[ItemT]):
    """A plan that processes all rows of some kinds.

    Args:
        sessions: Factory of sessions.
        kinds: The kinds.
        concurrency: Number of rows that are processed concurrently.
        force: ``True`` to continue if the database may hide rows.
    """

    def __init__(self, sessions: Sessions, kinds: Sequence[Kind], *, concurrency: int, force: bool = False) -> None:
        super().__init__()
        if concurrency < 1:
            raise ValueError(f"concurrency: expected at least 1, got {concurrency}")
        self._sessions = sessions
        self._kinds = kinds
        self._concurrency = concurrency
        self._force = force
        self._outage = Outage(concurrency)

    async def _results(self, work: Callable[[Kind, FileReference], Coroutine[Any, Any, R]]) -> AsyncGenerator[R, None]:
        """Call a function for the rows concurrently; yield its results in the order of completion, and count them.

        Raises:
            RefusedError: The database may hide rows, and the plan is not forced.
        """
        self._outage = Outage(self._concurrency)
        self.progress.total = sum([await count(self._sessions, kind) for kind in self._kinds])
        async with aclosing(as_completed(self._read(work), self._concurrency)) as results:
            async for result in results:
                self.progress.done += 1
                yield result

    async def _read(
        self, work: Callable[[Kind, FileReference], Coroutine[Any, Any, R]]
    ) -> AsyncGenerator[Coroutine[Any, Any, R], None]:
        """Yield one coroutine per row. Only this generator reads rows, one page at a time."""
        for kind in self._kinds:
            scan = Scan(self._sessions, kind, check=self._check(kind))
            async for reference in scan:
                yield work(kind, reference)
            self.progress.missed += scan.missed

    async def _try(self, work: Awaitable[R]) -> R | Exception:
        """Await the store operations for one row; return the error if only this row is affected.

        The error may be of any class, because third-party stores and their callbacks raise their own.

        Raises:
            StoreMissingError: The bucket does not exist.
            StoreUnavailableError: The store has not responded for many consecutive rows.
        """
        try:
            result = await work
        except Exception as error:
            self._outage.note(error)
            return error
        self._outage.note(None)
        return result

    def _check(self, kind: Kind) -> Callable[[Reader], None]:
        def check(reader: Reader) -> None:
            reasons = unsafe_reasons(reader, kind.tables)
            found = [Objection("", reason, True) for reason in reasons]
            self.objections += [one for one in found if one not in self.objections]
            if reasons and not self._force:
                raise RefusedError(
                    f"the database may hide rows: {'; '.join(reasons)}. force=True continues with the visible rows"
                )

        return check

    def _require_all_rows(self) -> None:
        """Compare the number of rows that were read with the number in the database.

        Raises:
            IncompleteError: The database has more.
        """
        progress = self.progress
        progress.total = max(progress.total or 0, progress.done + progress.missed) if progress.missed else progress.done
        if progress.missed:
            raise IncompleteError(
                f"{progress.missed:,} of {progress.total:,} rows were not read, although the database counts them: it "
                "may sort the columns of a primary key in a different order than it compares them"
            )
        if not progress.done:
            self.warnings.append("there were no rows: is it the right database, and are these the right classes?")
