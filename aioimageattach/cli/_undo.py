"""``aioimageattach undo``."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any, NoReturn

import click

from ..maintenance import sweeps as find_sweeps
from ..maintenance import undo as plan_undo
from . import _options as options
from ._output import Output, error_text, fields
from ._running import DONE, FOUND, make_plan, run, with_warnings
from ._stores import open_store

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
    object_types: tuple[str, ...],
    as_list: bool,
    out: Output,
) -> NoReturn:
    """Give the files that a sweep removed their original names again.

    SWEEP is the identifier that the sweep printed; without it, the last sweep is undone. MODELS is MODULE:NAME of a
    declarative base or one class.
    """

    async def work(stack: AsyncExitStack) -> int:
        where = await open_store(stack, store)
        if as_list:
            for past, swept_at in (await find_sweeps(models, where)).items():
                out.emit("sweep", f"{past} of {swept_at:%Y-%m-%d %H:%M:%S} UTC", id=past, swept_at=swept_at)
            return DONE
        plan = make_plan(plan_undo, models, where, sweep=sweep, object_types=object_types or None)
        async with out.tracked("undo", plan):
            async for restored in plan:
                if out.verbose or restored.error is not None:
                    word = "restored" if restored.error is None else "failed"
                    why = "" if restored.error is None else f": {error_text(restored.error)}"
                    out.emit("restored", f"{word} {restored.name}{why}", **fields(restored))
        return with_warnings(out, plan, FOUND if plan.progress.failed else DONE)

    run(out, work, resume="Restored files stay restored; run the same command again to continue.")
