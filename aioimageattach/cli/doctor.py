"""``aioimageattach doctor``."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any, NoReturn

import click

from . import options
from .checks import Check, check_formats, check_ownership, check_rights, check_store, check_tables, versions
from .database import DatabaseParameter, open_sessions
from .output import Output
from .running import DONE, FOUND, is_refusal, run, said
from .stores import open_store

__all__ = ["doctor"]

_MARKS = {"ok": "✓", "note": "·", "trouble": "✗"}


@click.command(short_help="Look whether formats, database, tables and store work.")
@click.option("--models", "-m", type=options.MODELS, help="MODULE:NAME of a declarative base or one class.")
@click.option(
    "--database", "-d", type=DatabaseParameter(), envvar="DATABASE_URL", show_envvar=True, metavar="URL",
    help="The database, or MODULE:NAME of an AsyncEngine or async_sessionmaker.",
)  # fmt: skip
@click.option(
    "--store", "-s", type=options.STORE, envvar="AIOIMAGEATTACH_STORE", show_envvar=True, metavar="STORE",
    help="Write, read, list and delete a small file there.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Write one JSON document a line.")
def doctor(models: Any, database: Any, store: Any, as_json: bool) -> NoReturn:
    """Look whether all that pictures need is there and works.

    Versions and picture formats always; the database, its tables, and a store where they are given. Passwords and keys
    are not shown.
    """
    out = Output(as_json=as_json)

    async def work() -> int:
        trouble = False
        async with AsyncExitStack() as stack:
            async for check in _checks(stack, models, database, store):
                trouble = trouble or check.status == "trouble"
                text = f"{_MARKS[check.status]} {check.name:<12} {check.text}"
                out.emit("check", text, **options.fields(check))
        return FOUND if trouble else DONE

    run(out, work, resume="Nothing was changed but a small file under aioimageattach-doctor/, which may be left.")


async def _checks(stack: AsyncExitStack, models: Any, database: Any, store: Any) -> AsyncIterator[Check]:
    for check in versions():
        yield check
    async for check in check_formats():
        yield check
    sessions = None
    if database is not None:
        try:
            sessions = await open_sessions(stack, database)
            async for check in check_tables(sessions, models):
                yield check
        except Exception as error:
            yield _trouble("database", error)
    if store is not None:
        try:
            found = await open_store(stack, store)
            async for check in check_store(found):
                yield check
            async for check in check_rights(found):
                yield check
            if models is not None and sessions is not None:
                async for check in check_ownership(sessions, models, found):
                    yield check
        except Exception as error:
            yield _trouble("store", error)


def _trouble(name: str, error: Exception) -> Check:
    if not is_refusal(error):
        raise error
    return Check(name, "trouble", said(error))
