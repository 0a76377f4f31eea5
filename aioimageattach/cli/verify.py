"""``aioimageattach verify``."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any, NoReturn

import click

from ..maintenance import Mismatch
from ..maintenance import verify as plan_verification
from . import options
from .database import open_sessions
from .output import Output
from .running import DONE, FOUND, finished, planned, run
from .stores import open_store

__all__ = ["verify"]


def _say(mismatch: Mismatch) -> str:
    text = f"{'repaired' if mismatch.repaired else mismatch.problem} {options.whose(mismatch.reference)}"
    if mismatch.expected is not None:
        text += f": expected {mismatch.expected}, got {mismatch.actual}"
    return text if mismatch.error is None else f"{text}: {mismatch.error}"


@click.command(short_help="Find rows whose files are lost or altered.")
@options.models
@options.database
@options.store
@click.option("--deep", is_flag=True, help="Read the files and compare fingerprints, not only sizes.")
@click.option("--repair", is_flag=True, help="Make flawed thumbnails again from their originals.")
@click.option("--force", is_flag=True, help="Go on even if the database may hide rows, as a replica does.")
@options.concurrency(16)
@options.output
def verify(
    models: Any,
    database: Any,
    store: Any,
    deep: bool,
    repair: bool,
    force: bool,
    concurrency: int,
    verbose: bool,
    every: float,
    as_json: bool,
) -> NoReturn:
    """Look whether the files that rows name are there, and are what the rows say.

    MODELS is MODULE:NAME of a declarative base or of one class. The application may go on meanwhile.
    """
    out = Output(as_json=as_json, every=every)

    async def work() -> int:
        async with AsyncExitStack() as stack:
            sessions, where = await open_sessions(stack, database), await open_store(stack, store)
            plan = planned(
                plan_verification,
                sessions,
                models,
                where,
                deep=deep,
                repair=repair,
                concurrency=concurrency,
                force=force,
            )
            async with out.tracked("verify", plan):
                async for mismatch in plan:
                    if verbose or not mismatch.repaired:
                        out.emit("mismatch", _say(mismatch), **options.fields(mismatch))
        return finished(out, plan, FOUND if plan.progress.flawed > plan.progress.repaired else DONE)

    run(out, work, resume="What was repaired stays; run the same command again, it begins from the start.")
