"""``aioimageattach thumbnails``."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Collection, Iterator, Sequence
from contextlib import AsyncExitStack, aclosing
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn, Protocol, get_args, runtime_checkable

import click
from sqlalchemy.ext.asyncio import async_sessionmaker

from .._inventory import ImageKind, related
from .._inventory.plan import Plan
from ..entity import Image
from ..entity._mapping import mapper_of
from ..entity._references import object_types as types_of
from ..exc import DeclarationError
from ..imaging._recipe import FORMATS, GRAVITIES, Fit, Recipe
from ..store import ObjectInfo
from ..thumbnails import Thumbnails, backfill, generate
from ..thumbnails._backfill import Enqueue, image_class
from ..thumbnails._maker import ThumbnailMaker
from ..thumbnails._prune import prune
from ..thumbnails._rows import BATCH, CONCURRENCY
from . import _options as options
from ._database import open_sessions
from ._loading import resolve
from ._output import Output, error_text, fields
from ._running import DONE, FOUND, make_plan, run
from ._stores import open_store

__all__ = ["thumbnails"]


@runtime_checkable
class ThumbnailTasks(Protocol):
    """The interface of :class:`aioimageattach.taskiq.ThumbnailTasks` that the command uses."""

    def enqueue(self, original: str, thumbnails: Sequence[str], /) -> Awaitable[object]: ...


@runtime_checkable
class _Broker(Protocol):
    async def startup(self) -> object: ...
    async def shutdown(self) -> object: ...


class _PrunePlan(Plan[ObjectInfo]):
    """Deletes the thumbnail files of a class that are no longer declared."""

    def __init__(
        self,
        sessions: async_sessionmaker[Any],
        store: Any,
        cls: type[Image],
        types: Sequence[str],
        grace: float,
        dry_run: bool,
    ) -> None:
        super().__init__()
        known = types_of(mapper_of(cls).self_and_descendants)
        if known is None and not types:
            raise click.UsageError(f"--object-type is required: the object types of {cls.__name__} depend on the row")
        self._types = types or sorted(known or ())
        self._maker = ThumbnailMaker(store, dict.fromkeys([cls, *_sharing(cls, self._types)]))
        self._before = datetime.now(UTC) - timedelta(hours=grace)
        self._dry_run = dry_run
        self._sessions = sessions

    async def _run(self) -> AsyncGenerator[ObjectInfo, None]:
        found = prune(self._maker, self._types, self._before, delete=not self._dry_run, sessions=self._sessions)
        async with aclosing(found) as outdated:
            async for info in outdated:
                self.progress.done += 1
                self.progress.bytes += info.size
                yield info


def _declaring_class(target: Any) -> type[Image]:
    try:
        return image_class(target)
    except DeclarationError as error:
        raise click.UsageError(f"{error_text(error)}, or give a --width or --height") from error


def _sharing(cls: type[Image], types: Collection[str]) -> Iterator[type[Image]]:
    """Yield the classes that have, or may have, originals with some object types; they declare thumbnails of them."""
    own = mapper_of(cls).registry
    for kind in related(cls):
        known = kind.object_types
        if isinstance(kind, ImageKind) and (kind.mapper.registry is own if known is None else known & {*types}):
            yield kind.cls


async def _prune(out: Output, plan: _PrunePlan, dry_run: bool) -> int:
    async with out.tracked("prune", plan):
        async for info in plan:
            if out.verbose or dry_run:
                out.emit("outdated", f"{'outdated' if dry_run else 'deleted'} {info.name}", **fields(info))
    return FOUND if dry_run and plan.progress.done else DONE


async def _open_queue(stack: AsyncExitStack, target: Any) -> Enqueue:
    """Return the function that sends work to workers. Its broker is started, and shut down with the stack."""
    tasks = await resolve(stack, target, ThumbnailTasks)
    enqueue: Enqueue = tasks.enqueue
    if not callable(enqueue):
        raise click.UsageError(f"expected ThumbnailTasks, got {type(tasks).__name__}, whose enqueue is not a method")
    broker = getattr(tasks, "broker", None)
    if isinstance(broker, _Broker):
        await broker.startup()
        stack.push_async_callback(broker.shutdown)
    return enqueue


def _picture_label(item: Thumbnails) -> str:
    key = ", ".join(map(str, (*item.identity, *item.picture.values())))
    return f"{item.owner.__name__} {key}".rstrip(" ,")


def _recipes(widths: tuple[int, ...], heights: tuple[int, ...], fit: Any, **look: Any) -> list[Recipe]:
    """Return a recipe for each width and each height, or with a fit, for each pair of them."""
    if fit is not None:
        if not widths or len(widths) != len(heights):
            raise click.UsageError("--fit: expected as many --height as --width")
        pairs = zip(widths, heights, strict=True)
        return [Recipe(width=width, height=height, fit=fit, **look) for width, height in pairs]
    return [*(Recipe(width=width, **look) for width in widths), *(Recipe(height=height, **look) for height in heights)]


@click.command(short_help="Make missing thumbnails.")
@click.argument("target", type=options.MODELS)
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
@click.option(
    "--concurrency",
    type=click.IntRange(min=1),
    help=f"Number of originals in progress.  [default: {CONCURRENCY}; for declared thumbnails, that of the CPU cores]",
)
@click.option(
    "--enqueue",
    type=options.MODELS,
    metavar="MODULE:NAME",
    help="Declared thumbnails: send jobs to the workers of this ThumbnailTasks.",
)
@click.option(
    "--rate",
    type=click.FloatRange(min=0, min_open=True),
    metavar="NUMBER",
    help="Declared thumbnails: largest number of originals per second that lack files or their placeholder.",
)
@click.option(
    "--start-after",
    default="",
    metavar="POSITION",
    help="Declared thumbnails: continue at this position, which an interrupted run prints.",
)
@click.option(
    "--prune", "prunes", is_flag=True, help="Only delete the files of thumbnails that are not declared any more."
)
@click.option(
    "--grace",
    type=click.FloatRange(min=0),
    default=24.0,
    show_default=True,
    metavar="HOURS",
    help="With --prune: keep younger files.",
)
@click.option("--dry-run", is_flag=True, help="With --prune: delete nothing, only report what would be deleted.")
@options.object_types
@options.output
def thumbnails(
    target: Any,
    database: Any,
    store: Any,
    width: tuple[int, ...],
    height: tuple[int, ...],
    fit: Any,
    gravity: Any,
    enlarge: bool,
    form: str | None,
    batch: int,
    concurrency: int | None,
    enqueue: Any,
    rate: float | None,
    start_after: str,
    prunes: bool,
    grace: float,
    dry_run: bool,
    object_types: tuple[str, ...],
    out: Output,
) -> NoReturn:
    """Make the missing thumbnails of all images of TARGET.

    Without sizes, the thumbnails are made that the image class declares in __thumbnails__. TARGET is MODULE:CLASS of an
    image class, or MODULE:CLASS.ATTRIBUTE of an attachment, such as app.models:User.picture. With --width or --height,
    thumbnails with rows are made, and TARGET is an attachment.

    Existing thumbnails are kept, so run the command again after it was stopped. The application may continue to run.
    """
    has_sizes = bool(width or height)
    if has_sizes and (enqueue or rate or start_after or prunes):
        raise click.UsageError(
            "--enqueue, --rate, --start-after and --prune are for declared thumbnails: remove --width and --height"
        )
    if prunes and (enqueue or rate or start_after or concurrency):
        raise click.UsageError("--prune makes nothing: remove --enqueue, --rate, --start-after and --concurrency")
    if not prunes and (dry_run or object_types):
        raise click.UsageError("--dry-run and --object-type are for --prune")
    if not has_sizes and (fit or gravity or form):
        raise click.UsageError(
            "expected at least one --width or --height, which --fit, --gravity and --format refer to"
        )
    if gravity is not None and fit != "cover":
        raise click.UsageError("--gravity requires --fit cover")
    recipes = _recipes(width, height, fit, gravity=gravity, enlarge=enlarge, format=form)
    cls = None if has_sizes else _declaring_class(target)

    async def make_plan_of(stack: AsyncExitStack) -> Plan[Thumbnails]:
        sessions, where = await open_sessions(stack, database), await open_store(stack, store)
        if cls is None:
            concurrent = concurrency or CONCURRENCY
            return make_plan(generate, sessions, target, recipes, store=where, batch=batch, concurrency=concurrent)
        return make_plan(
            backfill,
            sessions,
            cls,
            store=where,
            enqueue=None if enqueue is None else await _open_queue(stack, enqueue),
            concurrency=concurrency,
            rate=rate,
            start_after=start_after,
        )

    async def work(stack: AsyncExitStack) -> int:
        if cls is not None and prunes:
            sessions, where = await open_sessions(stack, database), await open_store(stack, store)
            pruning = make_plan(_PrunePlan, sessions, where, cls, object_types, grace, dry_run)
            return await _prune(out, pruning, dry_run)
        plan = await make_plan_of(stack)
        async with out.tracked("thumbnails", plan):
            async for made in plan:
                if out.verbose:
                    sizes = ", ".join(f"{key.width}x{key.height}" for key in made.keys)
                    out.emit("thumbnails", f"made {_picture_label(made)}: {sizes}", **fields(made))
        for failure in plan.failures:
            assert failure.error is not None
            out.emit("failure", f"failed {_picture_label(failure)}: {error_text(failure.error)}", **fields(failure))
        return FOUND if plan.progress.failed else DONE

    run(out, work, resume="Thumbnails that were made stay; run the same command again{start_after} to continue.")
