"""The image set: one image of one owner, as an original and the thumbnails made from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from sqlalchemy.orm.attributes import set_attribute

from .._telemetry import ATTACH
from .._threads import run_pixels
from ..exc import DeclarationError, InvalidKeyError, UnreadableImageError
from ..fetch import MAX_REDIRECTS, TIMEOUT, Address, fetch
from ..file import AsyncFile, Source, Spool
from ..imaging._limits import ImageLimits
from ..imaging._metadata import strip_probed
from ..imaging._preview import Preview
from ..imaging._probe import Probe, probe
from ..imaging._reduction import reduction
from ..imaging._render import Rendering, render, render_with_preview
from ..store import KeyedStore, Store
from ._image import Image
from ._looks import look_of, variant_of
from ._mixins import Placeholder, set_values, values_of
from ._thumbnails import ThumbnailSet

__all__ = ["BaseImageSet"]

I = TypeVar("I", bound=Image)  # noqa: E741


class BaseImageSet(ThumbnailSet[I]):
    """One image of an owner: an original, and the thumbnails made from it.

    Coroutine methods load the rows that they need. All other methods read the loaded rows without a query, so they can
    be used in templates. An image set is a view and holds no data. Two views of the same image are equal.
    """

    __slots__ = ()

    async def load(self) -> None:
        """Load the rows from the database, even if they are already loaded. Pending changes are kept, not flushed."""
        await self._rows.load(again=True)

    async def from_file(
        self,
        file: Source | Image,
        store: Store | None = None,
        extra_args: Sequence[Any] | None = None,
        extra_kwargs: Mapping[str, Any] | None = None,
        *,
        strip_metadata: bool | None = None,
    ) -> I:
        """Attach an image. It replaces the previous image and its thumbnails.

        The application's columns, such as a caption or a position, keep their values unless ``extra_kwargs`` overrides
        them.

        Args:
            file: Bytes, a sync or async file, a response's stream or an async iterator. It is read once, from its
                current position to its end; the caller closes it. Pass an image to copy another owner's image.
            store: The store for the file; ``None`` for the current store.
            extra_args: Positional arguments for the image class's constructor.
            extra_kwargs: Keyword arguments for the image class's constructor.
            strip_metadata: ``True`` to remove EXIF, GPS, XMP and comments. Pixels are not changed. ``None`` means the
                image class's ``__strip_metadata__``.

        Returns:
            The new image, pending in the session.

        Raises:
            ContextError: No store is given or set; nothing was read.
            UnreadableImageError: The file is not an image, or is damaged.
            UnsupportedImageError: The image class does not allow its type, or its metadata cannot be removed.
            ImageTooLargeError: It exceeds a limit of the image class.
            ImageTooSmallError: It is smaller than the image class allows.
            ImageProportionsError: The image class does not allow its proportions.
            TooManyPicturesError: The owner would have more images than allowed.
            UsageError: The owner is detached from its session, or deleted.

        Effects: The bytes are spooled, in memory up to 4 MiB and in a temporary file beyond that. The next flush
        uploads them to the store. An error or a cancellation changes nothing. If the image class has the limit
        ``reduce_to``, a larger image is first resized and encoded again.
        """
        store = self._store(store)
        cls: type[Image] = self._rows.cls
        with ATTACH():
            spool = await self._spool(file, defer_hash=True)
            found = await self._probe(spool)
            size, mimetype = (found.width, found.height), found.mimetype
            reduced, preview = await self._reduce(spool, found)
            if reduced is not None:
                spool = await Spool.fill(reduced.blob)
                size, mimetype = (reduced.width, reduced.height), reduced.mimetype
            elif cls.__strip_metadata__ if strip_metadata is None else strip_metadata:
                spool = await Spool.fill(await run_pixels(strip_probed, spool.view, found))
        row = await self._attach(spool, size, mimetype, store, True, extra_args, extra_kwargs)
        set_values(row, values_of(preview))
        return row

    async def from_blob(
        self,
        blob: bytes | bytearray | memoryview,
        store: Store | None = None,
        extra_args: Sequence[Any] | None = None,
        extra_kwargs: Mapping[str, Any] | None = None,
        *,
        strip_metadata: bool | None = None,
    ) -> I:
        """Attach an image from its bytes; see :meth:`from_file`."""
        return await self.from_file(blob, store, extra_args, extra_kwargs, strip_metadata=strip_metadata)

    async def from_url(
        self,
        url: str,
        store: Store | None = None,
        extra_args: Sequence[Any] | None = None,
        extra_kwargs: Mapping[str, Any] | None = None,
        *,
        strip_metadata: bool | None = None,
        timeout: float = TIMEOUT,
        max_redirects: int = MAX_REDIRECTS,
        is_allowed: Callable[[Address], bool] | None = None,
    ) -> I:
        """Download an image from a URL provided by a user, and attach it; see :meth:`from_file`.

        By default, only public addresses are allowed. The file may be as large as the image class allows.

        Args:
            url: An ``http`` or ``https`` URL.
            store: As for :meth:`from_file`.
            extra_args: As for :meth:`from_file`.
            extra_kwargs: As for :meth:`from_file`.
            strip_metadata: As for :meth:`from_file`.
            timeout: Maximum duration of the whole download, in seconds.
            max_redirects: Maximum number of redirects to follow.
            is_allowed: Function that returns whether connecting to an address that is not public is allowed; called
                before each such connection. ``None`` to allow public addresses only.

        Raises:
            ForbiddenAddressError: The URL, or a redirect, leads to an address that is not allowed.
            FetchError: The URL is invalid, or the server did not respond with a file, or not within ``timeout``.
            Error: Any error of :meth:`from_file`.
        """
        store = self._store(store)
        self._rows.session()
        spool = await fetch(
            url,
            max_bytes=self._limits.max_bytes,
            timeout=timeout,
            max_redirects=max_redirects,
            is_allowed=is_allowed,
        )
        async with spool.open() as file:
            return await self.from_file(file, store, extra_args, extra_kwargs, strip_metadata=strip_metadata)

    async def from_raw_file(
        self,
        raw_file: Source | Image,
        store: Store | None = None,
        size: tuple[int, int] | None = None,
        mimetype: str | None = None,
        original: bool = True,
        extra_args: Sequence[Any] | None = None,
        extra_kwargs: Mapping[str, Any] | None = None,
    ) -> I:
        """Attach a file of known size and type without examining it; see :meth:`from_file`.

        Args:
            raw_file: As for :meth:`from_file`.
            store: The store for the file; ``None`` for the current store.
            size: Width and height in pixels, as displayed; ``None`` to detect them from the content.
            mimetype: MIME type; ``None`` to detect it from the content.
            original: ``True`` if the file is the original, ``False`` for a thumbnail made elsewhere, which is served
                unchanged.
            extra_args: Positional arguments for the image class's constructor.
            extra_kwargs: Keyword arguments for the image class's constructor.
        """
        store = self._store(store)
        spool = await self._spool(raw_file)
        if not spool.size:
            raise UnreadableImageError(
                "expected an image, got no bytes; if the file was read before, call seek(0) first"
            )
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
        """Attach a file that is already in a store, without copying it. The file is read once.

        The file must have exactly the name that the store generates for its row:
        ``object_type/rrrrr/rr/REVISION.WxH.ext``, or for a row without a revision the name used by
        SQLAlchemy-ImageAttach. A file with any other name must be copied: open it, and pass it to :meth:`from_file`. Do
        not run a sweep before the commit: it would treat the file as orphaned.

        Args:
            name: The name of the file.
            store: The store that contains it; ``None`` for the current store. It must be a
                :class:`~aioimageattach.store.KeyedStore`.
            original: ``True`` if the file is the original, ``False`` for a thumbnail made elsewhere.
            extra_args: Positional arguments for the image class's constructor.
            extra_kwargs: Keyword arguments for the image class's constructor.

        Returns:
            The new image, pending in the session. If an image of this set already has this file, that image.

        Raises:
            DeclarationError: The store is not a :class:`~aioimageattach.store.KeyedStore`.
            InvalidKeyError: A file of that name cannot be adopted by this image set.
            StoreFileNotFoundError: The store has no such file.
            Error: Any error that :meth:`from_file` raises because of the content or the image set.

        Effects: A rollback leaves the file in place. After a commit the file is treated like any other: it is deleted
        with its row.
        """
        keyed = self._store(store)
        if not isinstance(keyed, KeyedStore):
            raise DeclarationError(f"store: expected a KeyedStore, got {keyed!r}")
        self._rows.session()
        async with await keyed.get_object(name) as file:
            spool = await Spool.fill(file, limit=self._limits.max_bytes)
        found = await self._probe(spool)
        size = found.width, found.height
        await self._rows.load(self._set_key, again=True)
        template = await self._template(original)
        row = self._row(
            spool, size, found.mimetype, keyed, original, "", extra_args, extra_kwargs, adopted=name, template=template
        )
        expected = keyed.name_of(row.key)
        if expected != name:
            raise InvalidKeyError(
                f"{self!r} cannot adopt {name!r}, because its row would reference {expected!r}; to copy the file, open "
                "it and pass it to from_file()",
                store=repr(keyed),
                name=name,
            )
        same = next((one for one in self.images if one.key == row.key), None)
        if not original:
            set_attribute(row, "variant", variant_of(self.original, look_of(self.original, found.mimetype), size))
        if same is None and original:
            await self._rows.check_max_pictures(self._set_key)
        return self._append(row) if same is None else same

    async def delete(self) -> None:
        """Delete the image and its thumbnails: the rows with the next flush, and the files after the commit."""
        await self._rows.load(self._set_key, again=True)
        await self._rows.remove(self.images)

    async def open_file(self, store: Store | None = None, use_seek: bool = False) -> AsyncFile:
        """Open the file of the original; see :meth:`Image.open_file`."""
        await self._load_original()
        return await self.require_original().open_file(store, use_seek)

    async def make_blob(self, store: Store | None = None) -> bytes:
        """Return the bytes of the original; see :meth:`Image.open_file`."""
        await self._load_original()
        return await self.require_original().make_blob(store)

    async def _spool(self, file: Source | Image, *, defer_hash: bool = False) -> Spool:
        if not isinstance(file, Image):
            return await Spool.fill(file, limit=self._limits.max_bytes, defer_hash=defer_hash)
        async with await file.open_file() as opened:
            return await Spool.fill(opened, limit=self._limits.max_bytes)

    async def _template(self, original: bool) -> I | None:
        """Return the row from which a new one copies the application's columns, after loading them."""
        template = self.original
        if template is not None:
            await self._rows.complete(template, original=original)
        return template

    async def _probe(self, spool: Spool) -> Probe:
        try:
            return await run_pixels(_examine, spool, self._limits)
        finally:
            spool.forget()

    async def _reduce(self, spool: Spool, found: Probe) -> tuple[Rendering | None, Preview | None]:
        """Return the reduced original and its preview, each if the image class requests it, from one decode."""
        cls: type[Image] = self._rows.cls
        recipe = reduction(found, self._limits)
        recipes = [] if recipe is None else [recipe]
        preview = None
        try:
            if issubclass(cls, Placeholder) and cls.__placeholder_on_attach__:
                made, preview = await run_pixels(render_with_preview, spool.view, recipes, self._limits)
            elif recipes:
                made = await run_pixels(render, spool.view, recipes, self._limits)
            else:
                made = []
        finally:
            spool.forget()
        return next(iter(made), None), preview

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
        await self._rows.load(self._set_key)
        if original:
            await self._rows.check_max_pictures(self._set_key)
        template = await self._template(original)
        variant = "" if original else variant_of(template, look_of(template, mimetype), size)
        return self._append(
            self._row(spool, size, mimetype, store, original, variant, extra_args, extra_kwargs, template=template)
        )

    def _append(self, row: I) -> I:
        """Add a new row in place of those that it replaces.

        Only rows that have not been flushed are removed immediately. The flush determines the rows to delete in the
        database. If the application expires or expunges the new row before that, nothing is deleted.
        """
        self._rows.remove_pending(self._set_key, replaced_by=row)
        self._rows.append(row)
        return row


def _examine(spool: Spool, limits: ImageLimits) -> Probe:
    """Probe the header and, if the file is accepted, complete its SHA-256 in the same worker thread."""
    found = probe(spool.view, limits)
    spool.complete_hash()
    return found
