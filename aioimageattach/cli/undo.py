"""``aioimageattach undo``."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any, NoReturn

import click

from ..maintenance import sweeps as find_sweeps
from ..maintenance import undo as plan_undo
from . import options
from .output import Output
from .running import DONE, FOUND, finished, planned, run
from .stores import open_store

__all__ = ["undo"]


@click.command(short_help="Restore the files that a sweep removed.")
@options.models
@click.argument("sweep", required=False, metavar="[SWEEP]")
@options.store
@options.object_types
@click.option("--list", "as_list", is_flag=True, help="Only list the sweeps that can be undone.")
@options.output
def undo(
    models: Any,
    sweep: str | None,
    store: Any,
    object_type: tuple[str, ...],
    as_list: bool,
    verbose: bool,
    every: float,
    as_json: bool,
) -> NoReturn:
    """Give the files that a sweep removed their names again.

    SWEEP is the identifier that the sweep printed; without it, the last sweep is undone. MODELS is MODULE:NAME of a
    declarative base or of one class.
    """
    out = Output(as_json=as_json, every=every)

    async def work() -> int:
        async with AsyncExitStack() as stack:
            where = await open_store(stack, store)
            if as_list:
                for past in await find_sweeps(models, where):
                    out.emit("sweep", f"{past.id} of {past.swept_at:%Y-%m-%d %H:%M:%S} UTC", **options.fields(past))
                return DONE
            plan = planned(plan_undo, models, where, sweep=sweep, object_types=list(object_type) or None)
            async with out.tracked("undo", plan):
                async for one in plan:
                    if verbose or one.error is not None:
                        text = "restored" if one.error is None else "failed"
                        why = "" if one.error is None else f": {one.error}"
                        out.emit("restored", f"{text} {one.name}{why}", **options.fields(one))
            return finished(out, plan, FOUND if plan.progress.failed else DONE)

    run(out, work, resume="Restored files stay; run the same command again to continue.")
