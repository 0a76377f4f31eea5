"""The part of an image set that makes thumbnails."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, TypeVar, cast

from sqlalchemy import inspect, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm.attributes import set_attribute, set_committed_value

from .._declared.maker import put as put_derived
from .._names import revision_of
from .._tasks import single_flight
from .._threads import picture_slot, run_pixels
from ..context._current import resolve_store
from ..exc import DeclarationError, ImageTooLargeError, NoOriginalError
from ..file import Spool
from ..imaging._limits import ImageLimits
from ..imaging._preview import Preview
from ..imaging._recipe import Fit, Gravity, Recipe
from ..imaging._render import Rendering, render, render_with_preview
from ..store import Store
from ._collection import session_lock
from ._derived import MARKS, check_original, declared_files, keyed, marks_of
from ._finding import ThumbnailFinder
from ._image import Image, utcnow
from ._looks import applied, as_recipes, find, match, variant_of
from ._mixins import ThumbnailMarks, set_values, values_of, wants_preview
from ._record import Attached, Origin, attach, known_store, record_of

__all__ = ["ThumbnailSet"]

KEEP: Final = 3.0
"""Time, in seconds, for which a new rendering is kept for other transactions, which cannot see its row yet."""

_QUIETLY: Final = {"autoflush": False, "synchronize_session": False}

I = TypeVar("I", bound=Image)  # noqa: E741


class ThumbnailSet(ThumbnailFinder[I]):
    """The part of an image set that makes thumbnails."""

    __slots__ = ()

    async def generate_thumbnail(
        self,
        ratio: float | None = None,
        width: int | None = None,
        height: int | None = None,
        filter: str | None = None,
        store: Store | None = None,
        *,
        fit: Fit | None = None,
        enlarge: bool = True,
        gravity: Gravity | tuple[float, float] | None = None,
        crop: tuple[float, float, float, float] | None = None,
        format: str | None = None,
        quality: int | None = None,
        animated: bool = False,
        background: tuple[int, int, int] = (255, 255, 255),
        variant: str | None = None,
        preprocess: Callable[[Any], Any] | None = None,
        postprocess: Callable[[Any], Any] | None = None,
        extra_kwargs: Mapping[str, Any] | None = None,
    ) -> I:
        """Return the thumbnail with the given size and look; make it from the original if it does not exist yet.

        The result is never the original, even if it has the same size. It contains no metadata of the original.

        Args:
            ratio: Scale factor for both sides of the original; cannot be combined with ``width`` or ``height``.
            width: Width in pixels; without ``height``, the height follows from the proportions.
            height: Height in pixels; without ``width``, the width follows from the proportions.
            filter: The resampling kernel; see :class:`~aioimageattach.imaging.Recipe` for this and the other options.
            store: The store that contains the original and receives the thumbnail; ``None`` for the store with which
                the original was attached in this session, or else the current store.
            fit: How the image fits into a box of ``width`` and ``height``; ``None`` means ``"cover"``.
            enlarge: ``False`` to make the thumbnail at most as large as the original.
            gravity: The part that ``"cover"`` keeps, if the original has no focal point.
            crop: The part of the original, or of its crop box, to use: left, top, width and height, as fractions.
            format: The format of the thumbnail; ``None`` keeps the original's.
            quality: 1 to 100; ``None`` means the format's default.
            animated: ``True`` to keep all frames of an animation.
            background: The colour of bars, and behind transparent parts in JPEG.
            variant: A name of your choice for the look; required with a callable.
            preprocess: Function called with the complete ``pyvips.Image`` in a worker thread.
            postprocess: Function called with the resized ``pyvips.Image`` in a worker thread.
            extra_kwargs: Keyword arguments for the image class's constructor if a thumbnail is made. Other columns of
                the application are copied from the original.

        Returns:
            The existing thumbnail, or a new one that is pending in the session.

        Raises:
            NoOriginalError: No image is attached.
            StoreFileNotFoundError: The original's file is missing in the store.
            ImageTooLargeError: The thumbnail would exceed a limit, or there would be too many thumbnails.
            ValueError: An argument is out of range.
        """
        recipe = Recipe(
            ratio=ratio,
            width=width,
            height=height,
            filter=filter,
            fit=fit,
            enlarge=enlarge,
            gravity=gravity,
            crop=crop,
            format=format,
            quality=quality,
            animated=animated,
            background=background,
            variant=variant,
            preprocess=preprocess,
            postprocess=postprocess,
        )
        return (await self.generate_thumbnails([recipe], store=store, extra_kwargs=extra_kwargs))[0]

    async def generate_thumbnails(
        self,
        recipes: Sequence[int | Recipe] | None = None,
        store: Store | None = None,
        *,
        enlarge: bool = True,
        extra_kwargs: Mapping[str, Any] | None = None,
    ) -> list[I]:
        """Return several thumbnails; make those that do not exist yet from one decode of the original.

        Without recipes, make all declared thumbnails. They have no rows, so the result is an empty list. If the
        original has not been flushed yet, the same flush stores its declared thumbnails. If the class has the mixin
        :class:`~aioimageattach.entity.ThumbnailMarks`, their URLs then point directly to the store.

        Args:
            recipes: Widths in pixels, or recipes; ``None`` for the declared thumbnails.
            store: As for :meth:`generate_thumbnail`.
            enlarge: ``False`` to limit a width in pixels to that of the original; recipes have their own setting.
            extra_kwargs: As for :meth:`generate_thumbnail`.

        Raises:
            Error: Any error of :meth:`generate_thumbnail`.
        """
        if recipes is None:
            await self._generate_declared(store)
            return []
        wanted, found = await self._look_up(as_recipes(recipes, enlarge=enlarge))
        original = self.require_original()
        store = self._store(store, original)
        missing = [recipe for recipe, row in found.items() if row is None]
        if missing:
            self._rows.session()
            self._check_max_thumbnails(len(missing))
        made, preview = await self._render(original, missing, store)
        spools = [await Spool.fill(rendering.blob) for rendering in made]
        if made:
            await self._rows.complete(original, original=False)
        self._check_original(original)
        await self._write(original, values_of(preview))
        for rendering, spool in zip(made, spools, strict=True):
            row = self._existing_row(original, rendering)
            if row is None:
                row = self._thumbnail_row(original, rendering, store, spool, extra_kwargs)
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
        extra_kwargs: Mapping[str, Any] | None = None,
        **look: Any,
    ) -> I:
        """Return the thumbnail with the given size and look; if it does not exist yet, make and insert it.

        Unlike :meth:`generate_thumbnail`, it is safe if other tasks, transactions or processes request the same
        thumbnail concurrently: all get the same row, and none fails because the row already exists. It flushes the
        session, and waits for any other transaction that is inserting the same row.

        Args:
            width: Width in pixels; without ``height``, the height follows from the proportions.
            height: Height in pixels; without ``width``, the width follows from the proportions.
            ratio: As for :meth:`generate_thumbnail`.
            fit: As for :meth:`generate_thumbnail`.
            format: As for :meth:`generate_thumbnail`.
            store: As for :meth:`generate_thumbnail`.
            extra_kwargs: As for :meth:`generate_thumbnail`.
            look: The other arguments of :class:`~aioimageattach.imaging.Recipe`.

        Raises:
            Error: Any error of :meth:`generate_thumbnail`.
            DBAPIError: The database could not serialise the transactions. SQLite reports "database is locked" if
                two transactions have read and then both write, unless they begin with ``BEGIN IMMEDIATE``.
            IntegrityError: The row violates a constraint of the image class, such as a column that requires a value.
        """
        recipe = Recipe(width=width, height=height, ratio=ratio, fit=fit, format=format, **look)
        return (await self.get_or_generate_thumbnails([recipe], store, extra_kwargs=extra_kwargs))[0]

    async def get_or_generate_thumbnails(
        self,
        recipes: Sequence[int | Recipe],
        store: Store | None = None,
        *,
        enlarge: bool = True,
        extra_kwargs: Mapping[str, Any] | None = None,
    ) -> list[I]:
        """Return several thumbnails; make and insert those that do not exist; see :meth:`get_or_generate_thumbnail`.

        Missing thumbnails are made from one decode of the original.

        Args:
            recipes: Widths in pixels, or recipes.
            store: As for :meth:`generate_thumbnail`.
            enlarge: ``False`` to limit a width in pixels to that of the original; recipes have their own setting.
            extra_kwargs: As for :meth:`generate_thumbnail`.
        """
        wanted, found = await self._look_up(as_recipes(recipes, enlarge=enlarge))
        session = self._rows.session()
        original = self.require_original()
        missing = [recipe for recipe, row in found.items() if row is None]
        if session is None:
            return await self.generate_thumbnails(wanted, store, extra_kwargs=extra_kwargs)
        if not missing and all(inspect(row).key is not None for row in found.values()):
            return [cast("I", found[recipe]) for recipe in wanted]
        made: list[tuple[Rendering, Spool]] = []
        preview = None
        if missing:
            self._check_max_thumbnails(len(missing))
            store = self._store(store, original)
            renderings, preview = await self._render(original, missing, store, keep=KEEP)
            made = [(rendering, await Spool.fill(rendering.blob)) for rendering in renderings]
        async with session_lock(session.sync_session):
            await session.flush()  # errors of the application's own changes are raised unchanged
            if made:
                await self._rows.complete(original, original=False)
                found.update(await self._insert(session, original, made, cast("Store", store), extra_kwargs or {}))
                # Not earlier: the flush that inserts the rows has locked the owner, so no other transaction is
                # changing the original.
                set_values(original, values_of(preview))
        return [cast("I", found[recipe]) for recipe in wanted]

    async def _generate_declared(self, store: Store | None) -> None:
        await self._load_original()
        original = self.require_original()
        check_original(original)
        keyed_store = keyed(self._store(store, original), type(original))
        files = declared_files(original)
        if not files:
            raise DeclarationError(
                f"expected declared thumbnails in {type(original).__name__}.__thumbnails__, got none; pass recipes"
            )
        made, preview = await self._render(original, [one.recipe for one in files], keyed_store)
        self._check_original(original)
        values = values_of(preview)
        attached = record_of(original).attached
        is_markable = isinstance(original, ThumbnailMarks) and original.__dict__["revision"] is not None
        if attached is not None and inspect(original).key is None and attached.spool is not None:
            attached.derived = list(zip(files, made, strict=True))
            if is_markable:
                values[MARKS] = marks_of(files, keyed_store, original.object_type)
            return set_values(original, values)
        names = [keyed_store.name_of(one.key_for(original)) for one in files]
        await put_derived(keyed_store, keyed_store.name_of(original.key), dict(zip(names, made, strict=True)))
        # after the put, because a directory has no identity before its first file
        marks = marks_of(files, keyed_store, original.object_type) if is_markable else None
        if marks is not None and self._rows.state.session is not None:
            values[MARKS] = marks
        await self._write(original, values)

    async def _write(self, original: I, values: Mapping[str, str | None]) -> None:
        """Write values that were derived from the image, unless another transaction has replaced it.

        The UPDATE of a flush finds the row by its primary key, which a new image of the same size has, too.
        """
        if not values:
            return
        session = None if inspect(original).key is None else self._rows.session()
        if session is None or original.__dict__["revision"] is None:
            return set_values(original, values)
        cls: Any = type(original)
        statement = update(cls).where(cls.revision == original.revision).values(dict(values))
        async with session_lock(session.sync_session):
            await session.execute(statement, execution_options=_QUIETLY)
        for name, value in values.items():
            set_committed_value(original, name, value)

    async def _load_original(self) -> None:
        """Load the rows; load them again if the original is missing, because a loader condition may have hidden it."""
        await self._rows.load(self._set_key)
        if self.original is None and self._rows.state.persistent:
            await self._rows.load(self._set_key, again=True)

    async def _look_up(self, recipes: Sequence[Recipe]) -> tuple[list[Recipe], dict[Recipe, I | None]]:
        """Return the recipes as applied to the original, and the thumbnail of each, or ``None`` if it is missing.

        If one is missing, the whole set is loaded again, because a loader condition may have hidden some of its rows.
        """
        await self._load_original()
        original = self.original
        wanted = applied(recipes, original)
        missing = any(find(self.images, original, recipe) is None for recipe in wanted)
        if missing and original is not None and inspect(original).persistent:
            await self._rows.load(self._set_key, again=True)
            original = self.original
            wanted = applied(recipes, original)
        return wanted, {recipe: find(self.images, original, recipe) for recipe in wanted}

    async def _insert(
        self,
        session: AsyncSession,
        original: I,
        made: Sequence[tuple[Rendering, Spool]],
        store: Store,
        kwargs: Mapping[str, Any],
    ) -> dict[Recipe, I]:
        """Return the rows of thumbnails, inserted or found. The caller has flushed the session and holds its lock."""
        found = {rendering.recipe: self._existing_row(original, rendering) for rendering, _ in made}
        missing = [(rendering, spool) for rendering, spool in made if found[rendering.recipe] is None]
        if missing:
            self._check_original(original)
            new = {one.recipe: self._thumbnail_row(original, one, store, spool, kwargs) for one, spool in missing}
            try:
                async with session.begin_nested():
                    session.add_all(new.values())
            except IntegrityError:  # another transaction has inserted one of them and committed
                await self._rows.load_locked(session, self._set_key)
                if missing[1:]:
                    for one in missing:
                        found.update(await self._insert(session, original, [one], store, kwargs))
                else:
                    [(rendering, _)] = missing
                    found[rendering.recipe] = self._existing_row(original, rendering)
                    if found[rendering.recipe] is None:
                        raise
            else:
                for row in new.values():
                    self._rows.inserted(row)
                found.update(new)
        return cast("dict[Recipe, I]", found)

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
        origin: Origin | None = None,
        template: I | None = None,
    ) -> I:
        values = {
            **self.identity,
            "width": size[0],
            "height": size[1],
            "variant": variant,
            "mimetype": mimetype,
            "original": original,
            "created_at": utcnow(),
            "revision": None,
            "byte_size": spool.size,
            "sha256": spool.sha256,
        }
        row = self._rows.build(values, args or (), kwargs or {}, template)
        if adopted is None:
            revision: str | None = store.revision_for(row.object_type, reproducible=not original)
        else:
            revision = revision_of(adopted)
        set_attribute(row, "revision", revision)
        bytes_ = None if adopted is not None else spool
        replaces = origin is None and not original
        attach(row, Attached(store, bytes_, reproducible=not original, replaces=replaces), origin)
        return row

    async def _render(
        self, original: I, recipes: Sequence[Recipe], store: Store, keep: float = 0.0
    ) -> tuple[list[Rendering], Preview | None]:
        """Make thumbnails of the original, and its preview if it has none yet.

        Concurrent tasks that request the same thumbnails share the work.
        """
        attached = self._rows.state.session is not None or inspect(original).key is None
        preview = wants_preview(original) and attached
        if not recipes and not preview:
            return [], None
        work = partial(self._decode, original, recipes, store, preview)
        return await single_flight((store.location, original.key, tuple(recipes), preview), work, keep=keep)

    async def _decode(
        self, original: I, recipes: Sequence[Recipe], store: Store, preview: bool
    ) -> tuple[list[Rendering], Preview | None]:
        async with picture_slot():
            attached = record_of(original).attached
            spool = None if attached is None else attached.spool
            if spool is None:
                async with await store.open(original) as file:
                    spool = await Spool.fill(file, limit=self._limits.max_bytes, checksum=False)
            if preview:
                return await run_pixels(render_with_preview, spool.view, recipes, self._limits)
            return await run_pixels(render, spool.view, recipes, self._limits), None

    def _thumbnail_row(
        self, original: I, rendering: Rendering, store: Store, spool: Spool, kwargs: Mapping[str, Any] | None
    ) -> I:
        size = rendering.width, rendering.height
        variant = variant_of(original, rendering.recipe.look(original.mimetype, original.size), size)
        origin = Origin(original, original.key)
        return self._row(
            spool,
            size,
            rendering.mimetype,
            store,
            False,
            variant,
            kwargs=kwargs,
            origin=origin,
            template=original,
        )

    def _existing_row(self, original: I, rendering: Rendering) -> I | None:
        """Return the existing row with the primary key that a thumbnail would have."""
        size = rendering.width, rendering.height
        variant = variant_of(original, rendering.recipe.look(original.mimetype, original.size), size)
        return match(self.images, None, *size, variant)

    def _check_max_thumbnails(self, more: int) -> None:
        limit, count = self._limits.max_thumbnails, more + sum(not row.original for row in self.images)
        if count > limit:
            raise ImageTooLargeError(
                f"expected at most {limit:,} thumbnails of {self!r} (max_thumbnails), got {count:,}; let clients "
                "choose sizes from a list",
                limit=limit,
                actual=count,
            )

    def _check_original(self, original: I) -> None:
        if self.original is not original:
            raise NoOriginalError(
                f"the original of {self!r} was replaced while a thumbnail was made; make the thumbnail again"
            )
