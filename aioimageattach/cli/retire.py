"""``aioimageattach retire``."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any, NoReturn

import click

from ..migration import retire as plan_retirement
from . import options
from .database import open_sessions
from .output import Output
from .running import DONE, FOUND, finished, planned, run
from .stores import open_store

__all__ = ["retire"]


@click.command(short_help="Remove the copies that a move has left in the old store.")
@options.models
@click.argument("old", type=options.STORE)
@click.argument("new", type=options.STORE)
@options.database
@click.option("--delete", is_flag=True, help="Remove the copies; without it, they are only looked at.")
@click.option("--deep", is_flag=True, help="Read the files in NEW and compare checksums, not only sizes.")
@options.concurrency(16)
@options.output
def retire(
    models: Any,
    old: Any,
    new: Any,
    database: Any,
    delete: bool,
    deep: bool,
    concurrency: int,
    verbose: bool,
    every: float,
    as_json: bool,
) -> NoReturn:
    """Remove the files from OLD that NEW has, after a move from one to the other.

    A file that NEW does not have, or has with another size, is kept in OLD and named. MODELS is MODULE:NAME of a
    declarative base or of one class.
    """
    out = Output(as_json=as_json, every=every)

    async def work() -> int:
        async with AsyncExitStack() as stack:
            plan = planned(
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
                async for one in plan:
                    if verbose or one.error is not None:
                        word = "kept" if one.error is not None else "removed" if one.removed else "safe"
                        why = "" if one.error is None else f": {one.error}"
                        out.emit("copy", f"{word} {options.whose(one.reference)}{why}", **options.fields(one))
            return finished(out, plan, FOUND if plan.progress.kept else DONE)

    run(out, work, resume="Removed copies stay removed; run the same command again to continue.")
