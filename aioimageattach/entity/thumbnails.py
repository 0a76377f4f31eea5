"""The part of an image set that finds and makes thumbnails."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, TypeVar, cast

from sqlalchemy import inspect
from sqlalchemy.exc import IntegrityError, NoResultFound
from sqlalchemy.ext.asyncio import AsyncSession

from .._tasks import single_flight
from .._threads import picture_slot, run_pixels
from ..context import resolve_store
from ..exc import ImageTooLargeError, NoOriginalError
from ..file import Spool
from ..imaging.limits import ImageLimits
from ..imaging.recipe import Fit, Recipe
from ..imaging.render import Rendering, render
from ..key import revision_of
from ..store import Store
from .collection import session_lock
from .image import Image, utcnow
from .record import Attached, Source, attach, known_store, record_of
from .view import ImageView, newest

__all__ = ["ThumbnailSet"]

KEEP: Final = 3.0
"""How long a fresh rendering is kept for other transactions, which cannot see its row yet, in seconds."""

I = TypeVar("I", bound=Image)  # noqa: E741


class ThumbnailSet(ImageView[I]):
    """The part of an image set that finds and makes thumbnails."""

    __slots__ = ()

    def find_thumbnail(
        self,
        width: int | None = None,
        height: int | None = None,
        *,
        ratio: float | None = None,
        fit: Fit | None = None,
        format: str | None = None,
        variant: str | None = None,
        store: Store | None = None,
    ) -> I:
        """Return the image of that size, which may be the original; a look in memory.

        Args:
            width: In pixels; alone, any height.
            height: In pixels; alone, any width.
            ratio: As it was made with; needs the original.
            fit: As it was made with.
            format: As it was made with.
            variant: As it was made with.
            store: Not needed; accepted because every method of a set takes one.

        Raises:
            NoResultFound: There is no image of that size and look.
            NotLoadedError: The rows are not loaded.
        """
        recipe = Recipe(width=width, height=height, ratio=ratio, fit=fit, format=format, variant=variant)
        images = self.images
        found = _find(images, recipe)
        if found is None and fit is None and variant is None and width is not None and height is not None:
            found = _match(images, width, height, _look(newest(images), Recipe(width=width, format=format)))
        if found is None:
            raise NoResultFound(f"{self!r} has no image for {_describe(recipe)}; generate_thumbnail() makes it")
        return found

    async def generate_thumbnail(
        self,
        ratio: float | None = None,
        width: int | None = None,
        height: int | None = None,
        filter: str | None = None,
        store: Store | None = None,
        *,
        fit: Fit | None = None,
        format: str | None = None,
        quality: int | None = None,
        animated: bool = False,
        background: tuple[int, int, int] = (255, 255, 255),
        variant: str | None = None,
        preprocess: Callable[[Any], Any] | None = None,
        postprocess: Callable[[Any], Any] | None = None,
    ) -> I:
        """Return the thumbnail of that size and look, made from the original if it is not there yet.

        Args:
            ratio: Times the original's sides; alone.
            width: In pixels; alone, the height follows.
            height: In pixels; alone, the width follows.
            filter: The kernel that resizes; see :class:`~aioimageattach.imaging.Recipe` for this and what follows.
            store: Where the original is, and the thumbnail is to be; ``None`` for the one the original was attached
                with in this session, or the current one.
            fit: How to fill the box where both sides are given; ``None`` means ``"cover"``.
            format: ``None`` keeps the original's.
            quality: 1 to 100; ``None`` means the format's default.
            animated: Whether an animation keeps its frames.
            background: The colour of bars, and of clear parts in JPEG.
            variant: Your name for the look.
            preprocess: Called with the whole ``pyvips.Image``, in a worker thread.
            postprocess: Called with the resized one.

        Returns:
            The image: one that was there, or a new one pending in the session.

        Raises:
            NoOriginalError: No picture is attached.
            StoreFileNotFoundError: The original's file is missing in the store.
            ImageTooLargeError: The thumbnail would be beyond a limit, or one too many.
            ValueError: An argument is out of range.
        """
        recipe = Recipe(
            ratio=ratio,
            width=width,
            height=height,
            filter=filter,
            fit=fit,
            format=format,
            quality=quality,
            animated=animated,
            background=background,
            variant=variant,
            preprocess=preprocess,
            postprocess=postprocess,
        )
        return (await self.generate_thumbnails([recipe], store=store))[0]

    async def generate_thumbnails(self, recipes: Sequence[int | Recipe], store: Store | None = None) -> list[I]:
        """Return several thumbnails, those that are not there yet made from one decode of the original.

        Args:
            recipes: Widths in pixels, or recipes.
            store: As for :meth:`generate_thumbnail`, whose errors it raises.
        """
        wanted = [recipe if isinstance(recipe, Recipe) else Recipe(width=recipe) for recipe in recipes]
        found, missing = await self._look_up(wanted)
        original = self.require_original()
        store = self._store(store, original)
        if missing:
            self._rows.session()
            self._check_room(len(missing))
        made = await self._render(original, missing, store)
        spools = [await Spool.fill(rendering.blob) for rendering in made]
        self._check_original(original)
        for rendering, spool in zip(made, spools, strict=True):
            row = self._made(rendering)
            if row is None:
                row = self._thumbnail(original, rendering, store, spool)
                self._rows.append(row)
            found[rendering.recipe] = row
        return [cast("I", found[recipe]) for recipe in wanted]

    async def get_or_generate_thumbnail(
        self,
        width: int | None = None,
        height: int | None = None,
        *,
        ratio: float | None = None,
        fit: Fit | None = None,
        format: str | None = None,
        store: Store | None = None,
        **look: Any,
    ) -> I:
        """Return the thumbnail of that size and look, in the database already when this returns.

        Unlike :meth:`generate_thumbnail` it is safe where other tasks, transactions or processes want the same one at
        the same time: all get the same row, and nobody's transaction fails for it. It flushes the session, and waits
        for another transaction that is about to insert the same row.

        Args:
            width: In pixels; alone, the height follows.
            height: In pixels; alone, the width follows.
            ratio: Times the original's sides; alone.
            fit: As for :meth:`generate_thumbnail`.
            format: As for :meth:`generate_thumbnail`.
            store: As for :meth:`generate_thumbnail`.
            look: The other arguments of :class:`~aioimageattach.imaging.Recipe`.

        Raises:
            Error: What :meth:`generate_thumbnail` raises, and what the database does where it cannot serialise: on
                SQLite "database is locked" where two transactions have read and then both write, unless they begin
                with ``BEGIN IMMEDIATE``.
            IntegrityError: The row lacks what a column of the image class wants.
        """
        recipe = Recipe(width=width, height=height, ratio=ratio, fit=fit, format=format, **look)
        found = (await self._look_up([recipe]))[0][recipe]
        session = self._rows.session()
        original = self.require_original()
        if session is None:
            return (await self.generate_thumbnails([recipe], store))[0] if found is None else found
        if found is not None and inspect(found).key is not None:
            return found
        made = None
        if found is None:
            self._check_room(1)
            store = self._store(store, original)
            [rendering] = await self._render(original, [recipe], store, keep=KEEP)
            made = rendering, await Spool.fill(rendering.blob)
        async with session_lock(session.sync_session):
            await session.flush()  # what fails here is not ours, and is to be raised as it is
            if made is None:
                return cast("I", found)
            return await self._insert(session, original, *made, cast("Store", store))

    async def _load_original(self) -> None:
        """Load the rows, and load them again if the original is not among them: a condition may have hidden it."""
        await self._rows.load(self._place)
        if self.original is None and self._rows.state.persistent:
            await self._rows.load(self._place, again=True)

    async def _look_up(self, wanted: Sequence[Recipe]) -> tuple[dict[Recipe, I | None], list[Recipe]]:
        """Return the images that are there, and the recipes of those that are not.

        If one is missing, the whole set is loaded again: its rows may have been loaded with a condition.
        """
        await self._load_original()
        original = self.original
        missing = any(_find(self.images, recipe) is None for recipe in wanted)
        if missing and original is not None and inspect(original).persistent:
            await self._rows.load(self._place, again=True)
        found = {recipe: _find(self.images, recipe) for recipe in wanted}
        return found, [recipe for recipe, row in found.items() if row is None]

    async def _insert(self, session: AsyncSession, original: I, rendering: Rendering, spool: Spool, store: Store) -> I:
        """Return the row of a thumbnail, inserted or found; the session is flushed and its lock held."""
        found = self._made(rendering)
        if found is not None:
            return found
        self._check_original(original)
        row = self._thumbnail(original, rendering, store, spool)
        try:
            async with session.begin_nested():
                session.add(row)
        except IntegrityError:  # somebody else was first, and has committed meanwhile
            await self._rows.load_locked(session, self._place)
            found = self._made(rendering)
            if found is None:
                raise
            return found
        self._rows.inserted(row)
        return row

    @property
    def _limits(self) -> ImageLimits:
        return self._rows.cls.__image_limits__

    def _store(self, store: Store | None, original: Image | None = None) -> Store:
        known = None if original is None else known_store(original)
        return resolve_store(store, known, session=self._rows.state.session)

    def _row(
        self,
        spool: Spool,
        size: tuple[int, int],
        mimetype: str,
        store: Store,
        original: bool,
        variant: str,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        *,
        adopted: str | None = None,
        source: Source | None = None,
    ) -> I:
        revision = store.make_revision() if adopted is None else revision_of(adopted)
        values = {
            **self.identity,
            "width": size[0],
            "height": size[1],
            "variant": variant,
            "mimetype": mimetype,
            "original": original,
            "created_at": utcnow(),
            "revision": revision,
            "byte_size": spool.size,
            "sha256": spool.sha256,
        }
        row = self._rows.build(values, args or (), kwargs or {})
        bytes_ = None if adopted is not None else spool
        replaces = source is None and not original
        attach(row, Attached(store, bytes_, reproducible=not original, replaces=replaces), source)
        return row

    async def _render(self, original: I, recipes: Sequence[Recipe], store: Store, keep: float = 0.0) -> list[Rendering]:
        """Make thumbnails of the original; tasks that want the same ones at the same time share the work."""
        if not recipes:
            return []
        work = partial(self._decode, original, recipes, store)
        return await single_flight((store.location, original.key, tuple(recipes)), work, keep=keep)

    async def _decode(self, original: I, recipes: Sequence[Recipe], store: Store) -> list[Rendering]:
        async with picture_slot():
            attached = record_of(original).attached
            spool = None if attached is None else attached.spool
            if spool is None:
                async with await store.open(original) as file:
                    spool = await Spool.fill(file, limit=self._limits.max_bytes, fingerprint=False)
            return await run_pixels(render, spool.view, recipes, self._limits)

    def _thumbnail(self, original: I, rendering: Rendering, store: Store, spool: Spool) -> I:
        look = _look(self.original, rendering.recipe)
        size = (rendering.width, rendering.height)
        source = Source(original, original.key)
        return self._row(spool, size, rendering.mimetype, store, False, look, source=source)

    def _made(self, rendering: Rendering) -> I | None:
        """The image that stands where a thumbnail belongs."""
        return _match(self.images, rendering.width, rendering.height, _look(self.original, rendering.recipe))

    def _check_room(self, more: int) -> None:
        limit, count = self._limits.max_thumbnails, more + sum(not row.original for row in self.images)
        if count > limit:
            raise ImageTooLargeError(
                f"{self!r} would have {count:,} thumbnails: {limit:,} are allowed (max_thumbnails); let sizes be "
                "chosen from a list",
                limit=limit,
                actual=count,
            )

    def _check_original(self, original: I) -> None:
        if self.original is not original:
            raise NoOriginalError(f"the original of {self!r} was replaced while a thumbnail was made of it")


def _look(original: Image | None, recipe: Recipe) -> str:
    return recipe.look("" if original is None else original.mimetype)


def _find(images: Sequence[I], recipe: Recipe) -> I | None:
    """The image that a recipe makes, if it is there."""
    original = newest(images)
    look = _look(original, recipe)
    if original is not None and (recipe.ratio is not None or recipe.fit is not None):
        return _match(images, *recipe.target(original.size), look)
    return None if recipe.ratio is not None else _match(images, recipe.width, recipe.height, look)


def _match(images: Sequence[I], width: int | None, height: int | None, look: str) -> I | None:
    found = None
    for row in images:
        values = row.__dict__  # loaded, and many times as fast as its attributes
        if values["variant"] == look and width in (None, values["width"]) and height in (None, values["height"]):
            if not values["original"]:
                return row
            found = row
    return found


def _describe(recipe: Recipe) -> str:
    words = ((name, getattr(recipe, name)) for name in ("width", "height", "ratio", "fit", "format", "variant"))
    return ", ".join(f"{name}={value!r}" for name, value in words if value is not None)
