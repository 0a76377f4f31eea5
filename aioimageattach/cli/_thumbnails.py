"""``aioimageattach thumbnails``."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any, NoReturn, get_args

import click

from ..imaging._recipe import FORMATS, GRAVITIES, Fit, Recipe
from ..thumbnails import ThumbnailFailure, Thumbnails, generate
from ..thumbnails._rows import BATCH, CONCURRENCY
from . import _options as options
from ._database import open_sessions
from ._output import Output, fields
from ._running import DONE, FOUND, make_plan, run
from ._stores import open_store

__all__ = ["thumbnails"]


def _picture_label(item: Thumbnails | ThumbnailFailure) -> str:
    key = ", ".join(map(str, (*item.identity, *item.picture.values())))
    return f"{item.owner.__name__} {key}"


def _recipes(widths: tuple[int, ...], heights: tuple[int, ...], fit: Any, **look: Any) -> list[Recipe]:
    """Return a recipe for each width and each height, or with a fit, for each pair of them."""
    if fit is not None:
        if not widths or len(widths) != len(heights):
            raise click.UsageError("--fit: expected as many --height as --width")
        pairs = zip(widths, heights, strict=True)
        return [Recipe(width=width, height=height, fit=fit, **look) for width, height in pairs]
    if not widths and not heights:
        raise click.UsageError("expected at least one --width or --height")
    return [*(Recipe(width=width, **look) for width in widths), *(Recipe(height=height, **look) for height in heights)]


@click.command(short_help="Make missing thumbnails.")
@click.argument("attachment", type=options.MODELS)
@options.database
@options.store_to_fill
@click.option("--width", "-w", type=click.IntRange(min=1), multiple=True, help="In pixels; can be given several times.")
@click.option("--height", type=click.IntRange(min=1), multiple=True, help="In pixels; can be given several times.")
@click.option("--fit", type=click.Choice(get_args(Fit)), help="How to fit images into a box of width and height.")
@click.option(
    "--gravity", type=click.Choice(tuple(GRAVITIES)), help="The part that --fit cover keeps.  [default: centre]"
)
@click.option(
    "--enlarge/--no-enlarge",
    default=True,
    show_default=True,
    help="Whether thumbnails may be larger than their originals.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(sorted(FORMATS)),
    help="The format of the thumbnails.  [default: that of the original]",
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
    out: Output,
) -> NoReturn:
    """Make the missing thumbnails for all owners of an ATTACHMENT.

    ATTACHMENT is MODULE:CLASS.ATTRIBUTE, such as app.models:User.picture. Existing thumbnails are kept, so run the
    command again after it was stopped. The application may continue to run.
    """
    if gravity is not None and fit != "cover":
        raise click.UsageError("--gravity requires --fit cover")
    recipes = _recipes(width, height, fit, gravity=gravity, enlarge=enlarge, format=form)

    async def work() -> int:
        async with AsyncExitStack() as stack:
            sessions, where = await open_sessions(stack, database), await open_store(stack, store)
            plan = make_plan(generate, sessions, attachment, recipes, store=where, batch=batch, concurrency=concurrency)
            async with out.tracked("thumbnails", plan):
                async for made in plan:
                    if out.verbose:
                        sizes = ", ".join(f"{key.width}x{key.height}" for key in made.keys)
                        out.emit("thumbnails", f"made {_picture_label(made)}: {sizes}", **fields(made))
            for failure in plan.failures:
                out.emit("failure", f"failed {_picture_label(failure)}: {failure.error}", **fields(failure))
        return FOUND if plan.failures else DONE

    run(out, work, resume="Thumbnails that were made stay; run the same command again to continue.")
