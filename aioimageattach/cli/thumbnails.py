"""``aioimageattach thumbnails``."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any, NoReturn, get_args

import click

from ..imaging.recipe import FORMATS, GRAVITIES, Fit, Recipe
from ..thumbnails import BATCH, CONCURRENCY, generate
from . import options
from .database import open_sessions
from .output import Output
from .running import DONE, FOUND, planned, run
from .stores import open_store

__all__ = ["thumbnails"]


def _whose(item: Any) -> str:
    key = ", ".join(map(str, (*item.identity, *item.picture.values())))
    return f"{item.owner.__name__} {key}"


def _recipes(widths: tuple[int, ...], heights: tuple[int, ...], fit: Any, **look: Any) -> list[Recipe]:
    """One for each width and each height, or for each pair of them where the box is to be filled."""
    if fit is not None:
        if not widths or len(widths) != len(heights):
            raise click.UsageError("--fit needs as many --height as --width")
        pairs = zip(widths, heights, strict=True)
        return [Recipe(width=width, height=height, fit=fit, **look) for width, height in pairs]
    if not widths and not heights:
        raise click.UsageError("expected a size: --width or --height")
    return [*(Recipe(width=width, **look) for width in widths), *(Recipe(height=height, **look) for height in heights)]


@click.command(short_help="Make the thumbnails that are missing.")
@click.argument("attachment", type=options.MODELS)
@options.database
@options.store
@click.option("--width", "-w", type=click.IntRange(min=1), multiple=True, help="In pixels; give it for each size.")
@click.option("--height", type=click.IntRange(min=1), multiple=True, help="In pixels; give it for each size.")
@click.option("--fit", type=click.Choice(get_args(Fit)), help="How a box of width and height is filled.")
@click.option("--gravity", type=click.Choice(tuple(GRAVITIES)), help="What --fit cover keeps.  [default: centre]")
@click.option(
    "--enlarge/--no-enlarge", default=True, show_default=True, help="Whether thumbnails may be larger than originals."
)
@click.option(
    "--format", "form", type=click.Choice(sorted(FORMATS)), help="That of the thumbnails.  [default: as it is]"
)
@click.option("--batch", type=click.IntRange(min=1), default=BATCH, show_default=True, help="Owners per transaction.")
@options.concurrency(CONCURRENCY)
@options.output
def thumbnails(
    attachment: Any,
    database: Any,
    store: Any,
    width: tuple[int, ...],
    height: tuple[int, ...],
    fit: Any,
    gravity: Any,
    enlarge: bool,
    form: str | None,
    batch: int,
    concurrency: int,
    verbose: bool,
    every: float,
    as_json: bool,
) -> NoReturn:
    """Make the thumbnails that are missing, for all owners of an ATTACHMENT.

    ATTACHMENT is MODULE:CLASS.ATTRIBUTE, such as app.models:User.picture. What is there is not made anew: run it again
    after it was stopped. The application may go on meanwhile.
    """
    out = Output(as_json=as_json, every=every)
    if gravity is not None and fit != "cover":
        raise click.UsageError("--gravity needs --fit cover")
    recipes = _recipes(width, height, fit, gravity=gravity, enlarge=enlarge, format=form)

    async def work() -> int:
        async with AsyncExitStack() as stack:
            sessions, where = await open_sessions(stack, database), await open_store(stack, store)
            plan = planned(generate, sessions, attachment, recipes, store=where, batch=batch, concurrency=concurrency)
            async with out.tracked("thumbnails", plan):
                async for made in plan:
                    if verbose:
                        sizes = ", ".join(f"{key.width}x{key.height}" for key in made.keys)
                        out.emit("thumbnails", f"made {_whose(made)}: {sizes}", **options.fields(made))
            for failure in plan.failures:
                out.emit("failure", f"failed {_whose(failure)}: {failure.error}", **options.fields(failure))
        return FOUND if plan.failures else DONE

    run(out, work, resume="What was made stays; run the same command again to go on.")
