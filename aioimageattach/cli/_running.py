"""Run and stop a command, and determine its exit code."""

from __future__ import annotations

import asyncio
import shlex
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from types import FrameType
from typing import Any, Final, NoReturn, ParamSpec, TypeVar

import click
from sqlalchemy.exc import SQLAlchemyError

from .._inventory.plan import Plan
from ..exc import DeclarationError, ImageAttachError, IncompleteError
from ._output import Output, error_text

__all__ = ["DONE", "FAILED", "FOUND", "UNCERTAIN", "is_expected", "make_plan", "run", "with_warnings"]

P = ParamSpec("P")
R = TypeVar("R")

DONE: Final = 0
"""Success, no problems found."""
FOUND: Final = 1
"""Some files failed, or problems were found."""
FAILED: Final = 3
"""The database or a store failed or did not respond, or the command refused to run. (2 is click's, for arguments.)"""
UNCERTAIN: Final = 4
"""Nothing failed, but the run may be incomplete."""

_LIBRARIES: Final = frozenset(
    {"aiomysql", "aiosqlite", "asyncmy", "asyncpg", "psycopg", "pymysql", "sqlite3", "taskiq"}
)
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class _StoppedError(Exception):
    def __init__(self, number: int) -> None:
        self.number = number


def make_plan(make: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Return a plan, and report arguments that the library rejects as wrong arguments of the command.

    Raises:
        UsageError: The arguments are wrong.
    """
    try:
        return make(*args, **kwargs)
    except (ValueError, DeclarationError) as error:
        raise click.UsageError(error_text(error)) from error


def with_warnings(out: Output, plan: Plan[Any], code: int) -> int:
    """Write the warnings of a plan; return the exit code, :data:`UNCERTAIN` if there are warnings and no problem."""
    for warning in plan.warnings:
        out.warn("warning", f"Warning: {warning}", warning=warning)
    return UNCERTAIN if plan.warnings and code == DONE else code


def run(out: Output, work: Callable[[AsyncExitStack], Awaitable[int]], *, resume: str) -> NoReturn:
    """Run a coroutine in a new event loop, and exit with its result.

    Args:
        out: The output for errors and hints.
        work: Factory of the coroutine, which returns the exit code. What it opens is closed with the stack.
        resume: A hint for the user of a stopped command; ``{start_after}`` stands for the option to continue there.

    Raises:
        UsageError: The arguments are wrong, which was detected only during the run.
    """
    try:
        code = asyncio.run(_stoppable(work))
    except _StoppedError as stopped:
        start_after = f" with --start-after {shlex.quote(out.position)}" if out.position else ""
        hint = resume.format(start_after=start_after)
        out.warn("stopped", f"Stopped. {hint}", resume=hint)
        code = 128 + stopped.number
    except DeclarationError as error:
        raise click.UsageError(error_text(error)) from error
    except Exception as error:
        if not is_expected(error):
            raise
        text = error_text(error)
        out.warn("error", f"Error: {text}", type=type(error).__name__, message=text)
        code = UNCERTAIN if isinstance(error, IncompleteError) else FAILED
    sys.exit(code)


async def _stoppable(work: Callable[[AsyncExitStack], Awaitable[int]]) -> int:
    """Cancel the work at the first signal, so that it can finish or undo what is in progress."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    received: list[int] = []

    def stop(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        loop.call_soon_threadsafe(task.cancel)

    before = {number: signal.signal(number, stop) for number in _SIGNALS}
    try:
        async with AsyncExitStack() as stack:
            return await work(stack)
    except asyncio.CancelledError:
        raise _StoppedError(received[0]) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def is_expected(error: Exception) -> bool:
    """Return ``True`` if an error comes from this library, a database, a store or a queue, and needs no traceback."""
    # SQLAlchemy 2.0 does not wrap errors that drivers raise while they connect.
    known = type(error).__module__.partition(".")[0] in _LIBRARIES
    return known or isinstance(error, (ImageAttachError, SQLAlchemyError, OSError))
