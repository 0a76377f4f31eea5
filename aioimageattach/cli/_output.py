"""The output of a command: for a terminal, for a log, or for a program."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import datetime
from types import TracebackType
from typing import Any, Final, Self

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text
from sqlalchemy.exc import DBAPIError

from .._inventory import FileReference
from .._inventory.plan import Plan
from .._inventory.plan import Progress as Counts
from .._tasks import cancel_and_wait
from .._telemetry import redacted

__all__ = [
    "EVERY",
    "Bar",
    "Output",
    "error_text",
    "fields",
    "flattened",
    "format_counts",
    "format_duration",
    "format_size",
    "plain",
    "row_label",
]

EVERY: Final = 10.0
"""Interval between lines of progress if there is no terminal, in seconds."""

_REDRAW: Final = 0.2


class Output:
    """Writes results to the standard output, and all other lines to the standard error.

    JSON is written only to the standard output.

    Args:
        as_json: ``True`` to write one JSON document per line.
        every: Interval between lines of progress if there is no terminal, in seconds.
        verbose: ``True`` to write a line for each file.
    """

    def __init__(self, *, as_json: bool = False, every: float = EVERY, verbose: bool = False) -> None:
        self.verbose: bool = verbose
        self._as_json = as_json
        self._every = every
        self._bar: Bar | None = None
        self._plan: Plan[Any] | None = None

    @property
    def position(self) -> str:
        """The position after which another run of the tracked plan can start; empty if there is none."""
        return "" if self._plan is None else self._plan.progress.position

    def emit(self, event: str, text: str, /, **fields: Any) -> None:
        """Write a result."""
        self._write(event, text, fields, err=False)

    def warn(self, event: str, text: str, /, **fields: Any) -> None:
        """Write a warning, an error or a hint."""
        self._write(event, text, fields, err=True)

    def _write(self, event: str, text: str, fields: dict[str, Any], *, err: bool) -> None:
        if self._as_json:
            click.echo(json.dumps({"event": event, **plain(fields)}, ensure_ascii=False))
        elif self._bar is not None and (sys.stderr if err else sys.stdout).isatty():
            self._bar.print_above(text)
        else:
            click.echo(text, err=err)

    @asynccontextmanager
    async def tracked(self, label: str, plan: Plan[Any]) -> AsyncGenerator[None, None]:
        """Write the progress of a plan while the block runs, and a summary at its end.

        Args:
            label: The name of the operation.
            plan: The plan.
        """
        self._plan = plan
        started = time.monotonic()
        ticking = asyncio.create_task(self._tick(label, plan, started))
        has_begun = True
        try:
            yield
        except Exception:
            has_begun = plan.progress.done > 0
            raise
        finally:
            await cancel_and_wait([ticking])
            if has_begun:
                self._report("end", label, plan.progress, time.monotonic() - started)

    async def _tick(self, label: str, plan: Plan[Any], started: float) -> None:
        if self._as_json or not sys.stderr.isatty():
            while True:
                await asyncio.sleep(self._every)
                self._report("progress", label, plan.progress, time.monotonic() - started)
        with Bar(label) as bar:
            self._bar = bar
            try:
                while True:
                    _draw(bar, plan.progress)
                    await asyncio.sleep(_REDRAW)
            finally:
                _draw(bar, plan.progress)
                self._bar = None

    def _report(self, event: str, label: str, progress: Counts, seconds: float) -> None:
        number, total = progress.done, progress.total
        rate = number / seconds
        parts = [f"{label}: {number:,}{'' if total is None else f' of {total:,}'}", f"{rate:,.0f}/s"]
        if event == "end":
            parts.append(format_duration(seconds))
        elif total is not None and number:
            parts.append(f"{format_duration(max(0, total - number) / rate)} left")
        text = ", ".join([*parts, format_counts(progress)]).removesuffix(", ")
        measured = {"label": label, **flattened(progress), "seconds": round(seconds, 3), "rate": round(rate, 1)}
        self._write(event, text, measured, err=True)


# --- the progress bar ------------------------------------------------------------------------------------------------


class _Rate(ProgressColumn):
    """The recent number of steps per second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f}/s", style="progress.data.speed")


class Bar:
    """A progress bar at the bottom of the terminal, with lines above it.

    Args:
        label: The name of the operation.
        console: The terminal; ``None`` for the standard error.
    """

    def __init__(self, label: str, console: Console | None = None) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(),
            TimeRemainingColumn(elapsed_when_finished=True),
            TextColumn("{task.fields[details]}", style="dim"),
            console=console or Console(stderr=True),
            auto_refresh=False,
        )
        self._task = self._progress.add_task(label, total=None, details="")

    def show(self, done: int, total: int | None, details: str) -> None:
        """Redraw the bar."""
        self._progress.update(self._task, completed=done, total=total, details=details, refresh=True)

    def print_above(self, text: str) -> None:
        """Write a line above the bar."""
        self._progress.console.print(text, markup=False, highlight=False)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._progress.stop()


def _draw(bar: Bar, progress: Counts) -> None:
    bar.show(progress.done, progress.total, format_counts(progress))


# --- formatting ------------------------------------------------------------------------------------------------------


def row_label(reference: FileReference) -> str:
    """Return the class and primary key of the row that names a file, and for an offloaded value its attribute."""
    row = f"{reference.cls.__name__} {', '.join(map(str, reference.identity))}".rstrip(" ,")
    return row if reference.key is not None else f"{row} ({reference.object_type})"


def error_text(error: BaseException) -> str:
    """Return the message of an error.

    The statement that SQLAlchemy appends to a driver's message and the passwords of URLs are removed. For an error of
    taskiq, which says only that a task was not sent, the message of its cause is returned.
    """
    cause: BaseException | None = error.orig if isinstance(error, DBAPIError) else None
    if type(error).__module__.partition(".")[0] == "taskiq":
        cause = error.__cause__
    return redacted(cause or error) or type(error).__name__


def format_counts(progress: Counts) -> str:
    """Return the counts of a progress that are not 0."""
    numbers = {**progress.counts, "failed": progress.failed, "missed": progress.missed}
    words = [f"{number:,} {name}" for name, number in numbers.items() if number]
    return ", ".join([*words, *([format_size(progress.bytes)] if progress.bytes else [])])


def flattened(progress: Counts) -> dict[str, Any]:
    """Return the fields of a progress and its counts in one dictionary."""
    values = fields(progress)
    return {"total": values.pop("total"), "done": values.pop("done"), **values.pop("counts"), **values}


def format_size(number: float) -> str:
    """Return a number of bytes with a decimal unit."""
    for unit in ("B", "kB", "MB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:,.1f} GB"


def format_duration(seconds: float) -> str:
    """Return a duration as hours, minutes and seconds."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


def fields(item: Any) -> dict[str, Any]:
    """Return the values of a dataclass, by field name."""
    return {field.name: getattr(item, field.name) for field in dataclasses.fields(item)}


def plain(value: Any) -> Any:
    """Convert a value to one that JSON can represent."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, dict):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(one) for one in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {name: plain(one) for name, one in fields(value).items()}
    if isinstance(value, BaseException):
        return {"type": type(value).__name__, "message": redacted(value)}
    if isinstance(value, datetime):
        return value.isoformat()
    return value.__qualname__ if isinstance(value, type) else str(value)
