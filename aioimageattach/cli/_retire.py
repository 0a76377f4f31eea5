"""``aioimageattach retire``."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any, NoReturn

import click

from ..migration import retire as plan_retirement
from . import _options as options
from ._database import open_sessions
from ._output import Output, error_text, fields, row_label
from ._running import DONE, FOUND, make_plan, run, with_warnings
from ._stores import open_store

__all__ = ["retire"]


@click.command(short_help="Remove the copies that a migration has left in the old store.")
@click.option("--delete", is_flag=True, help="Remove the copies; without this option, they are only checked.")
@options.two_stores("old", "new")
def retire(
    delete: bool,
    models: Any,
    old: Any,
    new: Any,
    database: Any,
    deep: bool,
    concurrency: int,
    out: Output,
) -> NoReturn:
    """Remove the files from OLD that NEW has, after a migration from one to the other.

    A file that is missing in NEW, or has another size there, is kept in OLD and reported. MODELS is MODULE:NAME of a
    declarative base or one class.
    """

    async def work(stack: AsyncExitStack) -> int:
        plan = make_plan(
            plan_retirement,
            await open_sessions(stack, database),
            models,
            await open_store(stack, old),
            await open_store(stack, new),
            delete=delete,
            deep=deep,
            concurrency=concurrency,
        )
        async with out.tracked("retire", plan):
            async for copy in plan:
                if out.verbose or copy.error is not None:
                    word, why = (copy.outcome, "") if copy.error is None else ("kept", f": {error_text(copy.error)}")
                    out.emit("copy", f"{word} {row_label(copy.reference)}{why}", **fields(copy))
        return with_warnings(out, plan, FOUND if plan.progress.failed else DONE)

    run(out, work, resume="Removed copies stay removed; run the same command again to continue.")
