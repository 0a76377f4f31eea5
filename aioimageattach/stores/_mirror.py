"""A store that keeps the same files in several stores during a move from one to another."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Iterable
from datetime import datetime
from typing import Final, Generic, TypeVar

from .._batches import batched
from .._listings import merged
from .._names import check_name
from .._tasks import finish
from .._telemetry import log_fields
from ..exc import StoreError, StoreFileNotFoundError
from ..file import AsyncFile, Source, Spool
from ..file._spool import SpoolFile
from ..key import ImageKey
from ..store import KeyedStore, ObjectInfo, Store
from ..store._keyed import KeyLevelStore
from ._combined import CombinedStore, S, check_places, check_stores, joined

__all__ = ["MirrorStore", "PlainMirrorStore"]

R = TypeVar("R")

_BATCH: Final = 1000
_log = logging.getLogger("aioimageattach.stores.mirror")


class PlainMirrorStore(CombinedStore, KeyLevelStore, Generic[S]):
    """A mirror of stores that need not be a :class:`~aioimageattach.store.KeyedStore`; see :class:`MirrorStore`."""

    def __init__(self, first: S, *others: S) -> None:
        self.stores: tuple[S, ...] = (first, *others)
        check_stores(self.stores, keyed=isinstance(self, KeyedStore))
        check_places(self.stores)
        self.needs_object_id: bool = any(store.needs_object_id for store in self.stores)
        self.has_signed_urls: bool = first.has_signed_urls

    def _combined(self) -> Iterable[Store]:
        return self.stores

    def make_revision(self) -> str:
        """Return a new revision of the first store."""
        return self.stores[0].make_revision()

    def revision_for(self, object_type: str, *, reproducible: bool) -> str:
        """Return a new revision of the first store for a file of an object type."""
        return self.stores[0].revision_for(object_type, reproducible=reproducible)

    def location_of(self, object_type: str | None = None) -> frozenset[Hashable]:
        """Return the places of all stores."""
        return joined(self.stores, object_type)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {', '.join(map(repr, self.stores))}>"

    async def put(self, key: ImageKey, file: Source, *, reproducible: bool) -> None:
        """Put a file into all stores, or into none. Each store derives the name from the key."""
        await self._put_in_all(
            file,
            lambda store, again: store.put(key, again, reproducible=reproducible),
            lambda store: store.discard(key),
        )

    async def get(self, key: ImageKey) -> AsyncFile:
        """Open a file in the first store that has it."""
        return await self._first_that_has(lambda store: store.get(key))

    def url_for(self, key: ImageKey) -> str:
        """Return the URL of the file in the first store."""
        return self.stores[0].url_for(key)

    def download_url_for(self, key: ImageKey, filename: str) -> str:
        """Return a URL of the first store under which browsers save a file."""
        return self.stores[0].download_url_for(key, filename)

    async def discard(self, key: ImageKey) -> None:
        """Delete a file in all stores, also if one of them fails; then raise the first error."""
        await self._in_all(lambda store: store.discard(key))

    async def _put_in_all(
        self,
        data: Source,
        put: Callable[[S, Source], Awaitable[None]],
        undo_put: Callable[[S], Awaitable[None]],
    ) -> None:
        """Put into one store after the other: if two tasks put the same name, the first store rejects one of them."""
        file = data if isinstance(data, SpoolFile) else (await Spool.fill(data, checksum=False)).open()
        begin = await file.tell()
        done: list[S] = []
        try:
            for store in self.stores:
                again = file.spool.open()
                await again.seek(begin)
                await put(store, again)
                done.append(store)
        except BaseException:
            await finish(self._undo_put(done, undo_put))
            raise

    async def _undo_put(self, stores: Iterable[S], undo_put: Callable[[S], Awaitable[None]]) -> None:
        for store in stores:
            try:
                await undo_put(store)
            except Exception as error:
                _log.warning(
                    "a file that another store of the mirror rejected could not be deleted from %r: %s",
                    store,
                    error,
                    extra=log_fields("files.left", error, count=1),
                )

    async def _first_that_has(self, call: Callable[[S], Awaitable[R]]) -> R:
        missing: StoreFileNotFoundError | None = None
        for store in self.stores:
            try:
                return await call(store)
            except StoreFileNotFoundError as error:
                missing = missing or error
        assert missing is not None
        raise missing

    async def _in_all(self, call: Callable[[S], Awaitable[R]]) -> list[R]:
        """Call every store, also if one of them fails; then raise the first error."""
        results = await asyncio.gather(*(call(store) for store in self.stores), return_exceptions=True)
        found: list[R] = []
        for result in results:
            if isinstance(result, BaseException):
                raise result
            found.append(result)
        return found


class MirrorStore(PlainMirrorStore[KeyedStore], KeyedStore):
    """Writes to all of its stores, reads from the first one that has the file, and deletes in all of them.

    Use it while files are moved from one store to another; see :doc:`/howto/move`. It does not make the application
    independent of the failure of a store: an error of any of its stores is raised, except that a missing file is read
    from the next one. Opening, connecting and closing it applies to all its stores.

    Args:
        first: The store that is read first, and that provides URLs and revisions.
        others: Read in this order if the file is missing in the first store.

    Raises:
        DeclarationError: A store is not a :class:`~aioimageattach.store.KeyedStore`.
        ValueError: Two of them keep the same files.
    """

    @staticmethod
    def plain(first: S, *others: S) -> PlainMirrorStore[S]:
        """Return a mirror of stores that are not a :class:`~aioimageattach.store.KeyedStore`, and so is not one itself.

        Args:
            first: As for the class.
            others: As for the class.
        """
        return PlainMirrorStore(first, *others)

    async def put_object(
        self, name: str, data: Source, *, mimetype: str = "application/octet-stream", reproducible: bool = False
    ) -> None:
        """Put a file into all stores, one after the other, or into none.

        Args:
            name: The name.
            data: Read once, into a spool.
            mimetype: See :meth:`KeyedStore.put_object <aioimageattach.store.KeyedStore.put_object>`.
            reproducible: See there.

        Raises:
            StoreFileExistsError: One of the stores has a file of that name; it is unchanged.
            StoreError: One of the stores could not put the file.

        Effects: On an error or a cancellation, the file is deleted again in the stores that already have it, shielded
        from cancellation. If that fails, the file stays there and a warning is logged.
        """
        check_name(name)
        await self._put_in_all(
            data,
            lambda store, again: store.put_object(name, again, mimetype=mimetype, reproducible=reproducible),
            lambda store: store.delete_object(name),
        )

    async def get_object(self, name: str, *, start: int = 0, end: int | None = None) -> AsyncFile:
        """Open a file, or its bytes from ``start`` up to but not including ``end``, in the first store that has it."""
        return await self._first_that_has(lambda store: store.get_object(name, start=start, end=end))

    async def head_object(self, name: str) -> ObjectInfo:
        """Return a file's size and modification time in the first store that has it."""
        return await self._first_that_has(lambda store: store.head_object(name))

    async def delete_object(self, name: str) -> None:
        """Delete a file in all stores, also if one of them fails; then raise the first error."""
        await self._in_all(lambda store: store.delete_object(name))

    async def delete_objects(self, names: Iterable[str]) -> dict[str, StoreError]:
        """Delete many files in all stores; return an error for each that some store could not delete."""
        failed: dict[str, StoreError] = {}
        for batch in batched(names, _BATCH):
            for found in await self._in_all(lambda store, batch=batch: store.delete_objects(batch)):  # type: ignore[misc]
                failed = found | failed
        return failed

    async def list_objects(self, prefix: str = "", *, start_after: str = "") -> AsyncIterator[ObjectInfo]:
        """Iterate over the files of all stores whose names begin with ``prefix``, in order of name, each name once.

        Args:
            prefix: Compared character by character; empty for all files.
            start_after: Only names after this one are listed; a file of this name need not exist.
        """
        async for found in merged([store.list_objects(prefix, start_after=start_after) for store in self.stores]):
            yield next(iter(found.values()))

    async def discard_unfinished(self, before: datetime, prefix: str = "") -> int:
        """Delete the temporary data of killed puts in all stores; return their number."""
        return sum(await self._in_all(lambda store: store.discard_unfinished(before, prefix)))

    def url_of(self, name: str) -> str:
        """Return the URL of a name in the first store. No I/O."""
        return self.stores[0].url_of(name)

    def download_url_of(self, name: str, filename: str) -> str:
        """Return a URL of the first store under which browsers save a file."""
        return self.stores[0].download_url_of(name, filename)

    def legacy_name(self, key: ImageKey) -> str:
        """Return the name of a key without a revision in the first store; the others may use another name."""
        return self.stores[0].legacy_name(key)

    def legacy_names(self, key: ImageKey) -> tuple[str, ...]:
        """Return the names of a key without a revision in all stores."""
        return tuple({name: None for store in self.stores for name in store.legacy_names(key)})

    def parts(self, object_type: str) -> tuple[KeyedStore, ...]:
        """Return all stores; a store that combines others is replaced by its parts."""
        return tuple(part for store in self.stores for part in store.parts(object_type))

    async def head(self, key: ImageKey) -> ObjectInfo:
        """Return the size and modification time of the file of a key in the first store that has it."""
        return await self._first_that_has(lambda store: store.head(key))
