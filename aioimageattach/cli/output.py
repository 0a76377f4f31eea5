"""What a command says, and how: to a terminal, into a log, or to a program."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Final, Protocol

import click

from .._tasks import cancel_and_wait
from .bar import Bar

__all__ = ["EVERY", "Measured", "Output", "clock", "plain", "size", "spell"]

EVERY: Final = 10.0
"""Seconds between two lines of progress, where there is no terminal."""

_SMOOTH: Final = 0.2


class Measured(Protocol):
    """A plan: its progress is a dataclass of numbers."""

    @property
    def progress(self) -> Any: ...


class Output:
    """Findings go to the standard output, everything else to the standard error; with JSON all to the first.

    Args:
        as_json: Whether to write one JSON document a line.
        every: Seconds between two lines of progress, where there is no terminal.
    """

    def __init__(self, *, as_json: bool = False, every: float = EVERY) -> None:
        self._as_json = as_json
        self._every = every
        self._bar: Bar | None = None

    def emit(self, event: str, text: str, /, **fields: Any) -> None:
        """Write what was asked for."""
        self._write(event, text, fields, err=False)

    def complain(self, event: str, text: str, /, **fields: Any) -> None:
        """Write what went wrong."""
        self._write(event, text, fields, err=True)

    def _write(self, event: str, text: str, fields: dict[str, Any], *, err: bool) -> None:
        if self._as_json:
            click.echo(json.dumps({"event": event, **plain(fields)}, ensure_ascii=False))
        elif self._bar is not None and (sys.stderr if err else sys.stdout).isatty():
            self._bar.above(text)
        else:
            click.echo(text, err=err)

    @asynccontextmanager
    async def tracked(self, label: str, plan: Measured, done: str = "done") -> AsyncGenerator[None, None]:
        """Tell how far a plan is while the block runs, and once more at its end.

        Args:
            label: What is done.
            plan: What does it.
            done: Which number of its progress grows to ``total``, if it has that.
        """
        started = time.monotonic()
        ticking = asyncio.create_task(self._tick(label, plan, done, started))
        begun = True
        try:
            yield
        except Exception:
            begun = getattr(plan.progress, done) > 0
            raise
        finally:
            await cancel_and_wait([ticking])
            if begun:
                self._tell("end", label, plan.progress, done, time.monotonic() - started)

    async def _tick(self, label: str, plan: Measured, done: str, started: float) -> None:
        if self._as_json or not sys.stderr.isatty():
            while True:
                await asyncio.sleep(self._every)
                self._tell("progress", label, plan.progress, done, time.monotonic() - started)
        with Bar(label) as self._bar:
            try:
                while True:
                    self._draw(plan.progress, done)
                    await asyncio.sleep(_SMOOTH)
            finally:
                self._draw(plan.progress, done)
                self._bar = None

    def _draw(self, progress: Any, done: str) -> None:
        assert self._bar is not None
        self._bar.show(getattr(progress, done), getattr(progress, "total", None), spell(progress, done))

    def _tell(self, event: str, label: str, progress: Any, done: str, seconds: float) -> None:
        number, total = getattr(progress, done), getattr(progress, "total", None)
        rate = number / seconds
        parts = [f"{label}: {number:,}{'' if total is None else f' of {total:,}'}", f"{rate:,.0f}/s"]
        if event == "end":
            parts.append(clock(seconds))
        elif total is not None and number:
            parts.append(f"{clock(max(0, total - number) / rate)} left")
        text = ", ".join([*parts, spell(progress, done)]).removesuffix(", ")
        measured = {"label": label, **plain(progress), "seconds": round(seconds, 3), "rate": round(rate, 1)}
        self._write(event, text, measured, err=True)


def spell(progress: Any, *besides: str) -> str:
    """Say the numbers of a progress that are not 0."""
    words: list[str] = []
    for field in dataclasses.fields(progress):
        value = getattr(progress, field.name)
        if field.name in ("total", *besides) or not isinstance(value, int) or not value:
            continue
        name, _, unit = field.name.rpartition("_")
        if unit == "bytes":
            words.append(f"{name} {size(value)}".strip())
        else:
            words.append(f"{value:,} {field.name.replace('_', ' ')}")
    return ", ".join(words)


def size(number: float) -> str:
    """Say a number of bytes, in the units of disks."""
    for unit in ("B", "kB", "MB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:,.1f} GB"


def clock(seconds: float) -> str:
    """Say a time as a clock does."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


def plain(value: Any) -> Any:
    """Return what JSON can hold of a value."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, dict):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(one) for one in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, BaseException):
        return {"type": type(value).__name__, "message": str(value)}
    if isinstance(value, datetime):
        return value.isoformat()
    return value.__qualname__ if isinstance(value, type) else str(value)
