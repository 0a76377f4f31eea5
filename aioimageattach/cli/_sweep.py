"""``aioimageattach sweep``."""

from __future__ import annotations

from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any, NoReturn

import click

from ..exc import RefusedError
from ..maintenance import Orphan
from ..maintenance import sweep as plan_sweep
from ..maintenance._sweep import MAX_SHARE, RETENTION
from . import _options as options
from ._database import open_sessions
from ._output import Output, error_text, fields
from ._running import DONE, FOUND, make_plan, run, with_warnings
from ._stores import open_store

__all__ = ["sweep"]


def _describe(orphan: Orphan) -> str:
    if orphan.error is not None:
        return f"failed {orphan.name}: {error_text(orphan.error)}"
    return f"{'removed' if orphan.removed else 'orphan'} {orphan.name}"


@click.command(short_help="Find files that no row names, and remove them.")
@options.models
@options.database
@options.store
@options.object_types
@click.option("--delete", is_flag=True, help="Remove the orphans; without this option, they are only reported.")
@click.option("--permanently", is_flag=True, help="Delete files immediately, without quarantine.")
@click.option(
    "--retention",
    type=click.FloatRange(min=0),
    default=RETENTION / timedelta(days=1),
    show_default=True,
    metavar="DAYS",
    help="How long removed files stay in quarantine.",
)
@click.option("--grace", type=click.FloatRange(min=0), metavar="HOURS", help="Minimum age of orphans.  [default: 24]")
@click.option(
    "--max-share",
    type=click.FloatRange(0, 1),
    default=MAX_SHARE,
    show_default=True,
    help="Largest share of the files of one object type that may be removed.",
)
@click.option("--limit", type=click.IntRange(min=1), metavar="NUMBER", help="Largest number of files to remove.")
@click.option(
    "--force", is_flag=True, help="Remove more than --max-share, or with an empty table, or a shorter grace time."
)
@click.option("--start-after", default="", metavar="NAME", help="Start after this name, where another sweep stopped.")
@options.output
def sweep(
    models: Any,
    database: Any,
    store: Any,
    object_types: tuple[str, ...],
    delete: bool,
    permanently: bool,
    retention: float,
    grace: float | None,
    max_share: float,
    limit: int | None,
    force: bool,
    start_after: str,
    out: Output,
) -> NoReturn:
    """Find the files that no row names (orphans), and remove them with --delete.

    Bulk deletes, raw SQL and killed processes leave orphans. Run the command every night, at first without --delete.
    MODELS is MODULE:NAME of a declarative base or one class; files of other classes are not touched. Removed files stay
    in quarantine for a while, and `aioimageattach undo` restores them.
    """

    async def work(stack: AsyncExitStack) -> int:
        plan = make_plan(
            plan_sweep,
            await open_sessions(stack, database),
            models,
            await open_store(stack, store),
            object_types=object_types or None,
            grace=None if grace is None else timedelta(hours=grace),
            delete=delete,
            permanently=permanently,
            retention=timedelta(days=retention),
            max_share=max_share,
            limit=limit,
            force=force,
            start_after=start_after,
        )
        refused = None
        try:
            async with out.tracked("sweep", plan):
                async for orphan in plan:
                    if out.verbose or not orphan.removed:
                        out.emit("orphan", _describe(orphan), **fields(orphan))
        except RefusedError as error:
            refused = error
        if plan.id is not None:
            text = f"Removed files are in quarantine; `aioimageattach undo` with {plan.id} restores them."
            out.warn("quarantine", text, sweep=plan.id)
        for objection in plan.objections:
            text = f"{'refused' if delete else '--delete would be refused'}: {objection}"
            out.warn("objection", text, **fields(objection))
        if refused is not None:
            raise refused
        left = plan.progress.counts["orphans"] - plan.progress.counts["removed"]
        return with_warnings(out, plan, FOUND if left else DONE)

    run(out, work, resume="Removed files stay removed; run the same command again{start_after} to continue.")
