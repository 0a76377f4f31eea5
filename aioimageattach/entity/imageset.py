"""What every image set can do: one original and its thumbnails, attached to one owner."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final, Generic, TypeVar, cast

from sqlalchemy import inspect
from sqlalchemy.exc import IntegrityError, NoResultFound
from sqlalchemy.ext.asyncio import AsyncSession

from .._threads import picture_slot, run_pixels
from ..context import resolve_store
from ..exc import DeclarationError, ImageTooLargeError, InvalidKeyError, NoOriginalError, UnreadableImageError
from ..file import AsyncFile, Source, Spool
from ..imaging.limits import ImageLimits
from ..imaging.metadata import strip_probed
from ..imaging.probe import Probe, probe
from ..imaging.recipe import Fit, Recipe
from ..imaging.render import Rendering, render
from ..key import revision_of
from ..store import KeyedStore, Store
from ..transaction.hooks import session_lock
from ..transaction.rows import Record, SourceRow, keep, record_of
from ._flight import single_flight
from .image import Image, utcnow
from .rows import Rows

__all__ = ["BaseImageSet"]

KEEP: Final = 3.0
"""Seconds for which a thumbnail that was to be made once is there for other transactions, which cannot see it yet."""

I = TypeVar("I", bound=Image)  # noqa: E741


class BaseImageSet(ABC, Generic[I]):
    """One picture in its sizes: an original, and the thumbnails made of it.

    What waits is awaited and loads what it needs; everything else works on the rows that are loaded, without a query,
    and so in templates. An image set is a view: it holds nothing, and two of the same owner are equal.
    """

    __slots__ = ("_rows",)

    def __init__(self, rows: Rows[I]) -> None:
        self._rows = rows

    @property
    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """The key attributes that tell this set from others of the same owner."""

    # --- without waiting ---------------------------------------------------------------------------------------------

    @property
    def images(self) -> list[I]:
        """The original and its thumbnails."""
        identity = self.identity.items()
        return [row for row in self._rows.all() if all(getattr(row, name) == value for name, value in identity)]

    @property
    def original(self) -> I | None:
        """The original image, ``None`` where none is attached; of several that met in the database, the last."""
        return _original(self.images)

    def require_original(self) -> I:
        """Return the original image.

        Raises:
            NoOriginalError: None is attached.
        """
        original = self.original
        if original is None:
            raise NoOriginalError(f"{self!r} has no original image yet; attach one with from_file() or from_blob()")
        return original

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
            found = _match(images, width, height, _look(_original(images), Recipe(width=width, format=format)))
        if found is None:
            raise NoResultFound(f"{self!r} has no image for {_describe(recipe)}; generate_thumbnail() makes it")
        return found

    def locate(self, store: Store | None = None) -> str:
        """Return the URL of the original; see :meth:`Image.locate`.

        Raises:
            NoOriginalError: None is attached.
        """
        return self.require_original().locate(store)

    @property
    def width(self) -> int:
        """Width of the original in pixels."""
        return self.require_original().width

    @property
    def height(self) -> int:
        """Height of the original in pixels."""
        return self.require_original().height

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the original in pixels."""
        return self.require_original().size

    @property
    def mimetype(self) -> str:
        """Type of the original."""
        return self.require_original().mimetype

    def __iter__(self) -> Iterator[I]:
        return iter(self.images)

    def __len__(self) -> int:
        return len(self.images)

    def __bool__(self) -> bool:
        return self.original is not None

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        same = self._rows.owner is other._rows.owner and self._rows.name == other._rows.name
        return same and self.identity == other.identity

    def __hash__(self) -> int:
        return hash((id(self._rows.owner), self._rows.name))

    def __html__(self) -> str:
        """Return an ``<img>`` element of the original, for templates; empty where none is attached."""
        original = self.original
        return "" if original is None else original.__html__()

    def __repr__(self) -> str:
        key = "".join(f" {name}={value!r}" for name, value in self.identity.items())
        return f"<{type(self).__name__} {type(self._rows.owner).__name__}.{self._rows.name}{key}>"

    # --- attaching ---------------------------------------------------------------------------------------------------

    async def load(self) -> None:
        """Load the rows from the database, also where they are loaded already; pending changes are not flushed."""
        await self._rows.load(again=True)

    async def from_file(
        self,
        file: Source,
        store: Store | None = None,
        extra_args: Sequence[Any] | None = None,
        extra_kwargs: Mapping[str, Any] | None = None,
        *,
        strip_metadata: bool = False,
    ) -> I:
        """Attach a picture; it takes the place of the one attached before, and of its thumbnails.

        Args:
            file: Bytes, a sync or async file, a response's stream or an async iterator; read once, from where it
                stands to its end, and yours to close.
            store: Where it is to be stored; ``None`` for the current store.
            extra_args: Passed to the image class's constructor.
            extra_kwargs: Passed to the image class's constructor.
            strip_metadata: Whether to take EXIF, GPS, XMP and comments out of it, without touching a pixel.

        Returns:
            The new image, pending in the session.

        Raises:
            ContextError: No store is named anywhere; nothing was read.
            UnreadableImageError: It is no picture, or a broken one.
            UnsupportedImageError: Its type is not among those the image class allows.
            ImageTooLargeError: It is beyond a limit of the image class.
            DetachedError: The owner is in no session any more.

        Effects: The bytes are spooled: in memory up to 4 MiB, beyond that in a temporary file. They go to the store
        with the next flush. On an error or a cancellation everything is as before.
        """
        store = self._store(store)
        spool = await Spool.fill(file, limit=self._limits.max_bytes)
        found = await self._probe(spool)
        if strip_metadata:
            spool = await Spool.fill(await run_pixels(strip_probed, spool.view, found))
        return await self._attach(
            spool, (found.width, found.height), found.mimetype, store, True, extra_args, extra_kwargs
        )

    async def from_blob(
        self,
        blob: bytes | bytearray | memoryview,
        store: Store | None = None,
        extra_args: Sequence[Any] | None = None,
        extra_kwargs: Mapping[str, Any] | None = None,
        *,
        strip_metadata: bool = False,
    ) -> I:
        """Attach a picture from its bytes; see :meth:`from_file`."""
        return await self.from_file(blob, store, extra_args, extra_kwargs, strip_metadata=strip_metadata)

    async def from_raw_file(
        self,
        raw_file: Source,
        store: Store | None = None,
        size: tuple[int, int] | None = None,
        mimetype: str | None = None,
        original: bool = True,
        extra_args: Sequence[Any] | None = None,
        extra_kwargs: Mapping[str, Any] | None = None,
    ) -> I:
        """Attach a file whose size and type you know, unexamined; see :meth:`from_file`.

        Args:
            raw_file: As for :meth:`from_file`.
            store: Where it is to be stored; ``None`` for the current store.
            size: Width and height in pixels, as displayed; ``None`` to look.
            mimetype: Its type; ``None`` to look.
            original: Whether it is the original, or a thumbnail made elsewhere.
            extra_args: Passed to the image class's constructor.
            extra_kwargs: Passed to the image class's constructor.
        """
        store = self._store(store)
        spool = await Spool.fill(raw_file, limit=self._limits.max_bytes)
        if not spool.size:
            raise UnreadableImageError("the file is empty")
        if size is None or mimetype is None:
            found = await self._probe(spool)
            size, mimetype = size or (found.width, found.height), mimetype or found.mimetype
        return await self._attach(spool, size, mimetype, store, original, extra_args, extra_kwargs)

    async def adopt(
        self,
        name: str,
        store: Store | None = None,
        original: bool = True,
        extra_args: Sequence[Any] | None = None,
        extra_kwargs: Mapping[str, Any] | None = None,
    ) -> I:
        """Attach a file that is in a store already, where it stands; it is read once, and not copied.

        Only a file that has the very name the store gives its row can be: ``object_type/rrrrr/rr/REVISION.WxH.ext``,
        or for a row without a revision the name of SQLAlchemy-ImageAttach. Another one has to be copied: open it, and
        give it to :meth:`from_file`. No sweep may run meanwhile: to it the file is one that nobody names.

        Args:
            name: Of the file.
            store: Where it is; ``None`` for the current store. It has to be a store by name.
            original: Whether it is the original, or a thumbnail made elsewhere.
            extra_args: Passed to the image class's constructor.
            extra_kwargs: Passed to the image class's constructor.

        Returns:
            The new image, pending in the session; the one that has this file, if it is in this set already.

        Raises:
            InvalidKeyError: A file of that name cannot be adopted here.
            StoreFileNotFoundError: There is none.
            Error: What :meth:`from_file` raises of its content, and of the set.

        Effects: A rollback leaves the file where it is. After a commit it is as any other: it goes with its row.
        """
        keyed = self._store(store)
        if not isinstance(keyed, KeyedStore):
            raise DeclarationError(f"store: expected a store by name, a KeyedStore, got {keyed!r}")
        self._rows.session()
        async with await keyed.get_object(name) as file:
            spool = await Spool.fill(file, limit=self._limits.max_bytes)
        found = await self._probe(spool)
        size = found.width, found.height
        row = self._row(spool, size, found.mimetype, keyed, original, "", extra_args or (), extra_kwargs or {}, name)
        expected = keyed.name_of(row.key)
        if expected != name:
            raise InvalidKeyError(
                f"{name!r} cannot be adopted by {self!r}, as its row would name {expected!r}; open it, and give it to "
                "from_file(), which copies it",
                store=repr(keyed),
                name=name,
            )
        await self._rows.load()
        same = next((one for one in self.images if one.key == row.key), None)
        return await self._take_place(row, keyed) if same is None else same

    async def delete(self) -> None:
        """Take the picture and its thumbnails away; the rows go with the next flush, the files after the commit."""
        await self._rows.load()
        for row in self.images:
            await self._rows.remove(row)

    # --- thumbnails --------------------------------------------------------------------------------------------------

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
        await self._rows.load()
        original = self.require_original()
        store = self._store(store, original)
        found = {recipe: _find(self.images, recipe) for recipe in wanted}
        missing = [recipe for recipe, row in found.items() if row is None]
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
        await self._rows.load()
        session = self._rows.session()
        original = self.require_original()
        found = _find(self.images, recipe)
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
            await self._rows.load_locked(session)
            found = self._made(rendering)
            if found is None:
                raise
            return found
        self._rows.inserted(row)
        return row

    async def open_file(self, store: Store | None = None, use_seek: bool = False) -> AsyncFile:
        """Open the file of the original; see :meth:`Image.open_file`."""
        await self._rows.load()
        return await self.require_original().open_file(store, use_seek)

    async def make_blob(self, store: Store | None = None) -> bytes:
        """Return the bytes of the original; see :meth:`Image.open_file`."""
        await self._rows.load()
        return await self.require_original().make_blob(store)

    # --- behind it ---------------------------------------------------------------------------------------------------

    @property
    def _limits(self) -> ImageLimits:
        return self._rows.cls.__image_limits__

    def _store(self, store: Store | None, original: Image | None = None) -> Store:
        known = None if original is None else record_of(original).store
        return resolve_store(store, known, session=self._rows.state.session)

    async def _probe(self, spool: Spool) -> Probe:
        try:
            return await run_pixels(probe, spool.view, self._limits)
        finally:
            spool.forget()

    async def _attach(
        self,
        spool: Spool,
        size: tuple[int, int],
        mimetype: str,
        store: Store,
        original: bool,
        extra_args: Sequence[Any] | None,
        extra_kwargs: Mapping[str, Any] | None,
    ) -> I:
        self._rows.session()
        await self._rows.load()
        row = self._row(spool, size, mimetype, store, original, "", extra_args or (), extra_kwargs or {})
        return await self._take_place(row, store)

    async def _take_place(self, row: I, store: Store) -> I:
        """Let a new row take the place of those that it replaces."""
        while old := [one for one in self.images if row.original or (one.size == row.size and one.variant == "")]:
            for one in old:
                record = record_of(one)
                record.store = record.store or store
                await self._rows.remove(one)
        self._rows.append(row)
        return row

    def _row(
        self,
        spool: Spool,
        size: tuple[int, int],
        mimetype: str,
        store: Store,
        original: bool,
        variant: str,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        adopted: str | None = None,
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
        row = self._rows.build(values, args, kwargs or {})
        record = Record(store, None if adopted else spool, reproducible=not original, adopted=adopted is not None)
        keep(row, revision, record)
        return row

    async def _render(self, original: I, recipes: Sequence[Recipe], store: Store, keep: float = 0.0) -> list[Rendering]:
        """Make thumbnails of the original; tasks that want the same ones at the same time share the work."""
        if not recipes:
            return []
        work = partial(self._decode, original, recipes, store)
        return await single_flight((id(store), original.key, tuple(recipes)), work, keep=keep)

    async def _decode(self, original: I, recipes: Sequence[Recipe], store: Store) -> list[Rendering]:
        async with picture_slot():
            spool = record_of(original).spool
            if spool is None:
                async with await store.open(original) as file:
                    spool = await Spool.fill(file, limit=self._limits.max_bytes, fingerprint=False)
            return await run_pixels(render, spool.view, recipes, self._limits)

    def _thumbnail(self, original: I, rendering: Rendering, store: Store, spool: Spool) -> I:
        look = _look(self.original, rendering.recipe)
        row = self._row(spool, (rendering.width, rendering.height), rendering.mimetype, store, False, look)
        record_of(row).source = SourceRow(original, original.key)
        return row

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


def _original(images: Sequence[I]) -> I | None:
    return max((row for row in images if row.original), key=lambda row: row.revision or "", default=None)


def _look(original: Image | None, recipe: Recipe) -> str:
    return recipe.look("" if original is None else original.mimetype)


def _find(images: Sequence[I], recipe: Recipe) -> I | None:
    """The image that a recipe makes, if it is there."""
    original = _original(images)
    look = _look(original, recipe)
    if original is not None and (recipe.ratio is not None or recipe.fit is not None):
        return _match(images, *recipe.target(original.size), look)
    return None if recipe.ratio is not None else _match(images, recipe.width, recipe.height, look)


def _match(images: Sequence[I], width: int | None, height: int | None, look: str) -> I | None:
    matches = [
        row for row in images if row.variant == look and width in (None, row.width) and height in (None, row.height)
    ]
    return min(matches, key=lambda row: row.original, default=None)


def _describe(recipe: Recipe) -> str:
    words = ((name, getattr(recipe, name)) for name in ("width", "height", "ratio", "fit", "format", "variant"))
    return ", ".join(f"{name}={value!r}" for name, value in words if value is not None)
