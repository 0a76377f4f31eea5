"""``aioimageattach migrate``."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any, NoReturn

import click

from ..exc import MigrationError
from ..migration import migrate as plan_migration
from . import options
from .database import open_sessions
from .output import Output
from .running import DONE, FOUND, finished, planned, run
from .stores import open_store

__all__ = ["migrate"]


@click.command(short_help="Copy all files to another store.")
@options.models
@click.argument("source", type=options.STORE)
@click.argument("destination", type=options.STORE)
@options.database
@click.option("--dry-run", is_flag=True, help="Copy nothing, only tell what would be copied.")
@click.option("--deep", is_flag=True, help="Read and compare what is in the destination already, too.")
@click.option("--max-failures", type=click.IntRange(min=1), default=1000, show_default=True, help="Stop after so many.")
@click.option("--force", is_flag=True, help="Go on even if the database may hide rows, as a replica does.")
@options.concurrency(16)
@options.output
def migrate(
    models: Any,
    source: Any,
    destination: Any,
    database: Any,
    dry_run: bool,
    deep: bool,
    max_failures: int,
    force: bool,
    concurrency: int,
    verbose: bool,
    every: float,
    as_json: bool,
) -> NoReturn:
    """Copy the files that rows name from SOURCE to DESTINATION, and delete none.

    What is in the destination already, with the right size, is passed over: run it again after it was stopped, or for
    what has come meanwhile. MODELS is MODULE:NAME of a declarative base or of one class.
    """
    out = Output(as_json=as_json, every=every)

    async def work() -> int:
        async with AsyncExitStack() as stack:
            plan = planned(
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
                    async for moved in plan:
                        if verbose or (dry_run and moved.outcome != "present"):
                            word = "would copy" if moved.outcome == "missing" else moved.outcome
                            out.emit("file", f"{word} {options.whose(moved.reference)}", **options.fields(moved))
            except MigrationError:
                for failure in plan.failures:
                    text = f"failed {options.whose(failure.reference)}: {failure.error}"
                    out.emit("failure", text, **options.fields(failure))
                return FOUND
            return finished(out, plan, DONE)

    run(out, work, resume="What was copied stays; run the same command again to go on.")
