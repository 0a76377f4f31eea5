"""``aioimageattach migrate``."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any, NoReturn

import click

from ..exc import MigrationError
from ..migration import migrate as plan_migration
from . import _options as options
from ._database import open_sessions
from ._output import Output, error_text, fields, row_label
from ._running import DONE, FOUND, make_plan, run, with_warnings
from ._stores import open_store

__all__ = ["migrate"]


@click.command(short_help="Copy all files to another store.")
@click.option("--dry-run", is_flag=True, help="Copy nothing, only report what would be copied.")
@click.option(
    "--max-failures",
    type=click.IntRange(min=1),
    default=1000,
    show_default=True,
    help="Stop after this many files that could not be copied.",
)
@options.force
@options.two_stores("source", "destination", fills=True)
def migrate(
    dry_run: bool,
    max_failures: int,
    force: bool,
    models: Any,
    source: Any,
    destination: Any,
    database: Any,
    deep: bool,
    concurrency: int,
    out: Output,
) -> NoReturn:
    """Copy the files that rows name from SOURCE to DESTINATION; nothing is deleted.

    Files that are already in DESTINATION, with the right size, are skipped: run the command again after it was stopped,
    or to copy newer files. MODELS is MODULE:NAME of a declarative base or one class.
    """

    async def work(stack: AsyncExitStack) -> int:
        plan = make_plan(
            plan_migration,
            await open_sessions(stack, database),
            models,
            await open_store(stack, source),
            await open_store(stack, destination),
            concurrency=concurrency,
            deep=deep,
            dry_run=dry_run,
            max_failures=max_failures,
            force=force,
        )
        try:
            async with out.tracked("migrate", plan):
                async for copy in plan:
                    if out.verbose or (dry_run and copy.outcome != "present"):
                        word = "would copy" if copy.outcome == "missing" else copy.outcome
                        out.emit("file", f"{word} {row_label(copy.reference)}", **fields(copy))
        except MigrationError:
            for failure in plan.failures:
                assert failure.error is not None
                text = f"failed {row_label(failure.reference)}: {error_text(failure.error)}"
                out.emit("failure", text, **fields(failure))
            return FOUND
        return with_warnings(out, plan, DONE)

    run(out, work, resume="Copied files stay; run the same command again to continue.")
