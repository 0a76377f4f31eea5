"""Plans: work that is described first, then carried out item by item, with bounded concurrency."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import aclosing
from typing import Any, Generic, Protocol, TypeVar

from ..exc import IncompleteError, UnsafeDatabaseError
from .database import unsafe_reasons
from .kinds import Kind, Reference
from .reader import Reader, Sessions
from .scan import Scan, count

__all__ = ["Plan", "RowPlan", "RowProgress"]

R = TypeVar("R")
ItemT = TypeVar("ItemT")
ProgressT = TypeVar("ProgressT")


class Plan(ABC, Generic[ItemT, ProgressT]):
    """Work that is yet to be done: iterate over it with ``async for``, or :meth:`execute` it.

    Attributes:
        progress: What was done so far; reset at each start.
        warnings: After a run, reasons to doubt that it did what was wanted, although nothing failed.
    """

    progress: ProgressT

    def __init__(self) -> None:
        self.warnings: list[str] = []

    async def execute(self, callback: Callable[[ItemT], object] | None = None) -> ProgressT:
        """Do the work and return its progress.

        Args:
            callback: Called with each item; awaited, if it is asynchronous. An error that it raises ends the work.
        """
        async with aclosing(self.__aiter__()) as items:
            async for item in items:
                result = None if callback is None else callback(item)
                if inspect.isawaitable(result):
                    await result
        return self.progress

    @abstractmethod
    def __aiter__(self) -> AsyncGenerator[ItemT, None]: ...


class RowProgress(Protocol):
    """The progress of a plan that goes through rows."""

    total: int | None
    done: int
    missed: int


RowProgressT = TypeVar("RowProgressT", bound=RowProgress)


class RowPlan(Plan[ItemT, RowProgressT]):
    """A plan that goes through all rows of some kinds.

    Args:
        sessions: Makes sessions.
        parts: The kinds.
        concurrency: Number of rows that are worked on concurrently.
        force: Whether to go on if the database may hide rows.
    """

    def __init__(self, sessions: Sessions, parts: Sequence[Kind], *, concurrency: int, force: bool) -> None:
        super().__init__()
        self.objections: list[str] = []
        if concurrency < 1:
            raise ValueError(f"concurrency: expected at least 1, got {concurrency}")
        self._sessions = sessions
        self._kinds = parts
        self._concurrency = concurrency
        self._force = force

    async def _count(self) -> int:
        return sum([await count(self._sessions, kind) for kind in self._kinds])

    async def _each(
        self, work: Callable[[Kind, Reference], Coroutine[Any, Any, R]]
    ) -> AsyncGenerator[Coroutine[Any, Any, R], None]:
        """Yield the work on each row. Rows are read only here, where nothing else uses the database.

        Raises:
            UnsafeDatabaseError: The database may hide rows, and the plan is not forced.
        """
        self.objections.clear()
        for kind in self._kinds:
            scan = Scan(self._sessions, kind, check=self._check(kind))
            async for reference in scan:
                yield work(kind, reference)
            self.progress.missed += scan.missed

    def _check(self, kind: Kind) -> Callable[[Reader], None]:
        def check(reader: Reader) -> None:
            reasons = unsafe_reasons(reader, kind.tables)
            self.objections += [reason for reason in reasons if reason not in self.objections]
            if reasons and not self._force:
                raise UnsafeDatabaseError(
                    f"rows may be hidden: {'; '.join(reasons)}. force=True goes on with those that can be seen"
                )

        return check

    def _end(self) -> None:
        """Compare the number of rows that were read with the number that there are.

        Raises:
            IncompleteError: There are more.
        """
        progress = self.progress
        progress.total = max(progress.total or 0, progress.done + progress.missed) if progress.missed else progress.done
        if progress.missed:
            raise IncompleteError(
                f"{progress.missed:,} of {progress.total:,} rows were not read, although the database counts them: the "
                "columns of a primary key may be sorted in another order than they are compared in"
            )
        if not progress.done:
            self.warnings.append("there were no rows: is it the right database, and are these the right classes?")
