"""The same files in several stores, above all while an application moves from one to another."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from datetime import datetime
from itertools import islice
from typing import Final, Generic, TypeVar

from .._tasks import finish
from ..exc import StoreError, StoreFileNotFoundError
from ..file import AsyncFile, Source, Spool, SpoolFile
from ..key import ImageKey, check_name
from ..store import KeyedStore, KeyLevelStore, Location, ObjectInfo, Store, merged
from .combined import check_places, check_stores, joined

__all__ = ["MirrorStore", "PlainMirrorStore"]

S = TypeVar("S", bound=Store)
R = TypeVar("R")

_BATCH: Final = 1000
_log = logging.getLogger("aioimageattach.stores.mirror")


class PlainMirrorStore(KeyLevelStore, Generic[S]):
    """:class:`MirrorStore` for stores that know the four methods of :class:`~aioimageattach.store.Store` alone.

    Args:
        first: As for :class:`MirrorStore`.
        others: As for :class:`MirrorStore`.
    """

    def __init__(self, first: S, *others: S) -> None:
        self.stores: tuple[S, ...] = (first, *others)
        check_stores(self.stores, keyed=isinstance(self, KeyedStore))
        check_places(self.stores)
        self.needs_object_id: bool = any(store.needs_object_id for store in self.stores)
        self.has_signed_urls: bool = first.has_signed_urls

    def make_revision(self) -> str:
        """Return a new revision of the first store."""
        return self.stores[0].make_revision()

    def location_of(self, object_type: str | None = None) -> Location:
        """Return the places of all stores."""
        return joined(self.stores, object_type)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {', '.join(map(repr, self.stores))}>"

    async def put(self, key: ImageKey, file: Source, *, reproducible: bool) -> None:
        """Put a file into all stores, or into none; each gives it its own name."""
        await self._put_in_all(
            file,
            lambda store, again: store.put(key, again, reproducible=reproducible),
            lambda store: store.discard(key),
        )

    async def get(self, key: ImageKey) -> AsyncFile:
        """Open a file in the first store that has it."""
        return await self._first_that_has(lambda store: store.get(key))

    def url_for(self, key: ImageKey) -> str:
        """Return the URL in the first store."""
        return self.stores[0].url_for(key)

    async def discard(self, key: ImageKey) -> None:
        """Delete a file in all stores, even if one of them fails, whose error is then raised."""
        await self._in_all(lambda store: store.discard(key))

    async def _put_in_all(
        self,
        data: Source,
        put: Callable[[S, Source], Awaitable[None]],
        take_back: Callable[[S], Awaitable[None]],
    ) -> None:
        """Put in one store after the other: of two that put the same name, the first store lets one go on."""
        file = data if isinstance(data, SpoolFile) else (await Spool.fill(data, fingerprint=False)).open()
        begin = await file.tell()
        done: list[S] = []
        try:
            for store in self.stores:
                again = file.spool.open()
                await again.seek(begin)
                await put(store, again)
                done.append(store)
        except BaseException:
            await finish(self._take_back(done, take_back))
            raise

    async def _take_back(self, stores: Iterable[S], take_back: Callable[[S], Awaitable[None]]) -> None:
        for store in stores:
            try:
                await take_back(store)
            except Exception as error:
                _log.warning("a file that not every store took is left behind in %r: %s", store, error)

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
        """Call every store, also where one fails; then raise the first error."""
        results = await asyncio.gather(*(call(store) for store in self.stores), return_exceptions=True)
        found: list[R] = []
        for result in results:
            if isinstance(result, BaseException):
                raise result
            found.append(result)
        return found


class MirrorStore(PlainMirrorStore[KeyedStore], KeyedStore):
    """Writes to all of its stores, reads from the first that has the file, and deletes in all.

    It is for the time of a move: see :doc:`/howto/move`. A store that fails is an error of the mirror, also where
    another could help: it makes files safe to move, not servers safe to lose. URLs and revisions are those of the first
    store. The stores stay yours to close.

    Args:
        first: Asked first, and where URLs lead.
        others: Asked where the first does not have a file.

    Raises:
        DeclarationError: One of them is no :class:`~aioimageattach.store.KeyedStore`.
    """

    async def put_object(
        self, name: str, data: Source, *, mimetype: str = "application/octet-stream", reproducible: bool = False
    ) -> None:
        """Put a file into all stores, one after the other, or into none.

        Args:
            name: The name.
            data: Read once, into a spool.
            mimetype: See :meth:`KeyedStore.put_object <aioimageattach.store.KeyedStore.put_object>`.
            reproducible: Likewise.

        Raises:
            StoreFileExistsError: The name is taken in one of them; that file is unchanged.
            StoreError: One of them could not do it.

        Effects: On an error or a cancellation the stores that have it already are told to delete it again, shielded
        from cancellation. A store that cannot is logged, and the file is left there.
        """
        check_name(name)
        await self._put_in_all(
            data,
            lambda store, again: store.put_object(name, again, mimetype=mimetype, reproducible=reproducible),
            lambda store: store.delete_object(name),
        )

    async def get_object(self, name: str, *, start: int = 0, end: int | None = None) -> AsyncFile:
        """Open a file, or the bytes from ``start`` up to but not including ``end`` of it, where it is first found."""
        return await self._first_that_has(lambda store: store.get_object(name, start=start, end=end))

    async def head_object(self, name: str) -> ObjectInfo:
        """Return a file's size and time of change, where it is first found."""
        return await self._first_that_has(lambda store: store.head_object(name))

    async def delete_object(self, name: str) -> None:
        """Delete a file in all stores, also where one of them fails, whose error is then raised."""
        await self._in_all(lambda store: store.delete_object(name))

    async def delete_objects(self, names: Iterable[str]) -> dict[str, StoreError]:
        """Delete many files in all stores; return the error of each that one of them could not delete."""
        failed: dict[str, StoreError] = {}
        rest = iter(names)
        while batch := list(islice(rest, _BATCH)):
            for found in await self._in_all(lambda store, batch=batch: store.delete_objects(batch)):  # type: ignore[misc]
                failed = found | failed
        return failed

    async def list_objects(self, prefix: str = "", *, start_after: str = "") -> AsyncIterator[ObjectInfo]:
        """Iterate over the files of all stores whose names begin with ``prefix``, in order of name, each once.

        Args:
            prefix: Compared by character; empty for all.
            start_after: Only names after this one, which need not exist.
        """
        async for found in merged([store.list_objects(prefix, start_after=start_after) for store in self.stores]):
            yield next(iter(found.values()))

    async def discard_unfinished(self, before: datetime, prefix: str = "") -> int:
        """Remove what killed puts have left in all stores; return how many there were."""
        return sum(await self._in_all(lambda store: store.discard_unfinished(before, prefix)))

    def url_of(self, name: str) -> str:
        """Return the URL of a name in the first store by calculation alone."""
        return self.stores[0].url_of(name)

    def legacy_name(self, key: ImageKey) -> str:
        """Return the name that the first store gives a key without a revision; by key, each store uses its own."""
        return self.stores[0].legacy_name(key)

    def legacy_names(self, key: ImageKey) -> tuple[str, ...]:
        """Return the names that the stores give a key without a revision."""
        return tuple({name: None for store in self.stores for name in store.legacy_names(key)})

    def parts(self, object_type: str) -> tuple[KeyedStore, ...]:
        """Return all stores."""
        return tuple(part for store in self.stores for part in store.parts(object_type))

    async def head(self, key: ImageKey) -> ObjectInfo:
        """Return the size and modification time of the file of a key in the first store that has it."""
        return await self._first_that_has(lambda store: store.head(key))
