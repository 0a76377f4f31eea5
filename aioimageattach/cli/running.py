"""How a command runs, is stopped, and ends: the exit codes."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable
from types import FrameType
from typing import Any, Final, NoReturn, ParamSpec, TypeVar

import click
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from ..exc import DeclarationError, ImageAttachError, IncompleteError
from ..inventory.plan import Plan
from .output import Output

__all__ = ["DONE", "DOUBTFUL", "FAILED", "FOUND", "finished", "is_refusal", "planned", "run", "said"]

P = ParamSpec("P")
R = TypeVar("R")

DONE: Final = 0
"""Everything was done, and nothing is wrong."""
FOUND: Final = 1
"""Some files failed, or something was found that is not as it should be."""
FAILED: Final = 3
"""It was not done: the database or a store does not respond, or refuses. 2 is click's, for wrong arguments."""

DOUBTFUL: Final = 4
"""Nothing failed, but there are reasons to doubt that everything was done."""

_DRIVERS: Final = frozenset({"aiomysql", "aiosqlite", "asyncmy", "asyncpg", "psycopg", "pymysql", "sqlite3"})
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class _StoppedError(Exception):
    def __init__(self, number: int) -> None:
        self.number = number


def planned(make: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Return a plan; what it refuses are wrong arguments of the command.

    Raises:
        UsageError: They do not go together.
    """
    try:
        return make(*args, **kwargs)
    except (ValueError, DeclarationError) as error:
        raise click.UsageError(str(error)) from error


def finished(out: Output, plan: Plan[Any, Any], code: int) -> int:
    """Write the reasons to doubt that a plan did everything, and return the exit code."""
    for warning in plan.warnings:
        out.complain("warning", f"Warning: {warning}", warning=warning)
    return DOUBTFUL if plan.warnings and code == DONE else code


def run(out: Output, work: Callable[[], Awaitable[int]], *, resume: str | Callable[[], str]) -> NoReturn:
    """Do the work in an event loop of its own, and exit with its code.

    Args:
        out: Where it is told how it ended.
        work: Returns the exit code.
        resume: How to continue after it was stopped; called then, if it is a function.
    """
    try:
        code = asyncio.run(_stoppable(work))
    except _StoppedError as stopped:
        then = resume if isinstance(resume, str) else resume()
        out.complain("stopped", f"Stopped. {then}", resume=then)
        code = 128 + stopped.number
    except Exception as error:
        if not is_refusal(error):
            raise
        text = said(error)
        out.complain("error", f"Error: {text}", type=type(error).__name__, message=text)
        code = DOUBTFUL if isinstance(error, IncompleteError) else FAILED
    sys.exit(code)


async def _stoppable(work: Callable[[], Awaitable[int]]) -> int:
    """Cancel the work at the first signal; whatever it awaits undoes or ends what it has begun."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    came: list[int] = []

    def stop(number: int, _frame: FrameType | None) -> None:
        came.append(number)
        loop.call_soon_threadsafe(task.cancel)

    before = {number: signal.signal(number, stop) for number in _SIGNALS}
    try:
        return await work()
    except asyncio.CancelledError:
        raise _StoppedError(came[0]) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def is_refusal(error: Exception) -> bool:
    """Whether a database or a store says so; SQLAlchemy 2.0 lets errors of drivers through while it connects."""
    driver = type(error).__module__.partition(".")[0] in _DRIVERS
    return driver or isinstance(error, (ImageAttachError, SQLAlchemyError, OSError))


def said(error: BaseException) -> str:
    """Return what a driver says, without the statement that SQLAlchemy puts beside it."""
    text = str(error.orig if isinstance(error, DBAPIError) else error)
    return text or type(error).__name__
