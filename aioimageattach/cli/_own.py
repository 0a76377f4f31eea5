"""``aioimageattach own``."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any, NoReturn

import click

from ..maintenance import Ownership
from ..maintenance import own as record_owner
from . import _options as options
from ._database import open_sessions
from ._output import Output, fields
from ._running import DONE, FOUND, run
from ._stores import open_store

__all__ = ["own"]


def _describe(one: Ownership) -> str:
    where = f"{one.object_type}/ in {one.store!r}"
    if one.owner is None:
        return f"{where}: no owner"
    if one.conflict is not None:
        return f"{where}: {one.conflict}"
    return f"{where}: {'now owned' if one.changed else 'owned'} by the {one.owner.description}"


@click.command(short_help="Show, claim or transfer the ownership of a store's files.")
@options.models
@options.database
@options.store
@options.object_types
@click.option("--claim", is_flag=True, help="Claim files without an owner for this database.")
@click.option("--transfer", is_flag=True, help="Claim files that belong to another database, too.")
@options.json_output
def own(
    models: Any,
    database: Any,
    store: Any,
    object_types: tuple[str, ...],
    claim: bool,
    transfer: bool,
    out: Output,
) -> NoReturn:
    """Show to which database the files in a store belong, and claim or transfer them.

    A sweep refuses files that belong to another database, to the original of a copy, or to a later state of this
    database. Transfer them only after you have verified that this database has the rows of all files.
    """

    async def work(stack: AsyncExitStack) -> int:
        found = await record_owner(
            await open_sessions(stack, database),
            models,
            await open_store(stack, store),
            object_types=object_types or None,
            claim=claim or transfer,
            transfer=transfer,
        )
        for one in found:
            out.emit("ownership", _describe(one), **fields(one))
        return FOUND if any(one.conflict is not None for one in found) else DONE

    run(out, work, resume="Recorded owners stay recorded; run the same command again to continue.")
