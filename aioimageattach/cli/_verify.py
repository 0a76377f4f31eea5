"""``aioimageattach verify``."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any, NoReturn

import click

from ..maintenance import Mismatch
from ..maintenance import verify as plan_verification
from . import _options as options
from ._database import open_sessions
from ._output import Output, error_text, fields, row_label
from ._running import DONE, FOUND, make_plan, run, with_warnings
from ._stores import open_store

__all__ = ["verify"]


def _describe(mismatch: Mismatch) -> str:
    text = f"{'repaired' if mismatch.repaired else mismatch.problem} {row_label(mismatch.reference)}"
    if mismatch.expected is not None:
        text += f": expected {mismatch.expected}, got {mismatch.actual}"
    return text if mismatch.error is None else f"{text}: {error_text(mismatch.error)}"


@click.command(short_help="Find rows whose files are missing or altered.")
@options.models
@options.database
@options.store
@options.deep()
@click.option(
    "--repair", is_flag=True, help="Render mismatched thumbnails again from their originals, and remove false marks."
)
@options.force
@options.concurrency()
@options.output
def verify(
    models: Any,
    database: Any,
    store: Any,
    deep: bool,
    repair: bool,
    force: bool,
    concurrency: int,
    out: Output,
) -> NoReturn:
    """Check that the files that rows name exist and match the rows.

    MODELS is MODULE:NAME of a declarative base or one class. The application may continue to run.
    """

    async def work(stack: AsyncExitStack) -> int:
        plan = make_plan(
            plan_verification,
            await open_sessions(stack, database),
            models,
            await open_store(stack, store),
            deep=deep,
            repair=repair,
            concurrency=concurrency,
            force=force,
        )
        async with out.tracked("verify", plan):
            async for mismatch in plan:
                if out.verbose or not mismatch.repaired:
                    out.emit("mismatch", _describe(mismatch), **fields(mismatch))
        counts = plan.progress.counts
        found = counts["mismatched"] + counts["mismarked"]
        return with_warnings(out, plan, FOUND if found > counts["repaired"] else DONE)

    run(out, work, resume="Repaired files stay repaired; run the same command again, it starts from the beginning.")
