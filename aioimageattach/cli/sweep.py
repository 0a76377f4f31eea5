"""``aioimageattach sweep``."""

from __future__ import annotations

from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any, NoReturn

import click

from ..maintenance import sweep as plan_sweep
from ..maintenance.sweep import MAX_SHARE
from . import options
from .database import open_sessions
from .output import Output
from .running import DONE, FOUND, planned, run
from .stores import open_store

__all__ = ["sweep"]


@click.command(short_help="Find files that no row names, and remove them.")
@options.models
@options.database
@options.store
@click.option("--delete", is_flag=True, help="Remove what is found; without it, it is only told.")
@click.option("--grace", type=click.FloatRange(min=0), metavar="HOURS", help="How old a file has to be.  [default: 24]")
@click.option(
    "--max-share",
    type=click.FloatRange(0, 1),
    default=MAX_SHARE,
    show_default=True,
    help="What share of the files of one kind may be removed.",
)
@click.option("--force", is_flag=True, help="Remove more than that, too, or with an empty table, or a shorter grace.")
@click.option("--start-after", default="", metavar="NAME", help="Go on after this name, where another sweep stopped.")
@options.output
def sweep(
    models: Any,
    database: Any,
    store: Any,
    delete: bool,
    grace: float | None,
    max_share: float,
    force: bool,
    start_after: str,
    verbose: bool,
    every: float,
    as_json: bool,
) -> NoReturn:
    """Find the files that no row names, and remove them with --delete.

    Orphans come from bulk deletes, raw SQL, and processes that were killed. Run it every night, without --delete first.
    MODELS is MODULE:NAME of a declarative base or of one class; files of other classes are left alone.
    """
    out = Output(as_json=as_json, every=every)

    async def work() -> int:
        async with AsyncExitStack() as stack:
            plan = planned(
                plan_sweep,
                await open_sessions(stack, database),
                models,
                await open_store(stack, store),
                grace=None if grace is None else timedelta(hours=grace),
                delete=delete,
                max_share=max_share,
                force=force,
                start_after=start_after,
            )
            async with out.tracked("sweep", plan, done="listed"):
                async for orphan in plan:
                    word = "removed" if orphan.removed else "orphan" if orphan.error is None else "failed"
                    text = f"{word} {orphan.name}" + ("" if orphan.error is None else f": {orphan.error}")
                    if verbose or not orphan.removed:
                        out.emit("orphan", text, **options.fields(orphan))
            for objection in plan.objections:
                out.complain("objection", f"--delete would be refused: {objection}", objection=objection)
            left = plan.progress.orphans - plan.progress.removed
        return FOUND if left else DONE

    run(out, work, resume="What was removed stays removed; run the same command again to go on.")
