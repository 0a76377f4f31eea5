"""Helpers of the stores that combine other stores."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator, Hashable, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack
from datetime import datetime
from itertools import combinations
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeVar

from .._batches import batched
from .._listings import merged
from ..exc import DeclarationError, InvalidKeyError, StoreError
from ..file import AsyncFile, Source
from ..key import ImageKey
from ..store import KeyedStore, ObjectInfo, Store
from ..store._keyed import KeyLevelStore

__all__ = ["CombinedStore", "KeyRoutingStore", "NameRoutingStore", "S", "check_places", "check_stores", "joined"]

_BATCH: Final = 1000

S = TypeVar("S", bound=Store)


def check_stores(stores: Iterable[Any], *, keyed: bool) -> None:
    """Check the types of stores.

    Raises:
        DeclarationError: One of them is not a :class:`~aioimageattach.store.Store`, or, if ``keyed``, not a
            :class:`~aioimageattach.store.KeyedStore`.
    """
    for store in stores:
        if not isinstance(store, Store):
            raise DeclarationError(f"expected a Store, got {type(store).__name__}")
        if keyed and not isinstance(store, KeyedStore):
            raise DeclarationError(
                f"expected a KeyedStore, got {type(store).__name__}; for other stores, call the method plain() of the "
                "class"
            )


def check_places(stores: Iterable[Store]) -> None:
    """Check that no two stores keep the same files.

    Raises:
        ValueError: Two of them do, although they may be different objects.
    """
    for one, other in combinations(stores, 2):
        if not one.location.isdisjoint(other.location):
            raise ValueError(
                f"expected stores in different places, got {one!r} and {other!r}, which keep the same files"
            )


def joined(stores: Iterable[Store], object_type: str | None) -> frozenset[Hashable]:
    """Return the union of the places of several stores."""
    return frozenset[Any]().union(*(store.location_of(object_type) for store in stores))


class CombinedStore(Store):
    """Base class of the stores that combine other stores: they are opened and closed together."""

    @abstractmethod
    def _combined(self) -> Iterable[Store]:
        """Return the stores that this one combines."""

    async def connect(self) -> None:
        """Prepare the URLs of all stores."""
        for store in self._combined():
            await store.connect()

    async def aclose(self) -> None:
        """Close the connections of all stores, also if one of them fails; then raise the last error."""
        async with AsyncExitStack() as stack:
            for store in self._combined():
                stack.push_async_callback(store.aclose)

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            for store in self._combined():
                await stack.enter_async_context(store)
            stack.pop_all()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        async with AsyncExitStack() as stack:
            for store in self._combined():
                stack.push_async_exit(store)


class KeyRoutingStore(CombinedStore, KeyLevelStore, Generic[S]):
    """Base class of the stores that keep a file in one of several stores, depending on its key."""

    @abstractmethod
    def _of_key(self, key: ImageKey) -> S:
        """Return the store to which a key belongs.

        Raises:
            InvalidKeyError: It belongs to none.
        """

    async def put(self, key: ImageKey, file: Source, *, reproducible: bool) -> None:
        """Put a file into the store to which its key belongs."""
        await self._of_key(key).put(key, file, reproducible=reproducible)

    async def get(self, key: ImageKey) -> AsyncFile:
        """Open a file in the store to which its key belongs."""
        return await self._of_key(key).get(key)

    def url_for(self, key: ImageKey) -> str:
        """Return the URL in the store to which the key belongs."""
        return self._of_key(key).url_for(key)

    def download_url_for(self, key: ImageKey, filename: str) -> str:
        """Return a URL of the store to which the key belongs, under which browsers save a file."""
        return self._of_key(key).download_url_for(key, filename)

    async def discard(self, key: ImageKey) -> None:
        """Delete a file in the store to which its key belongs."""
        await self._of_key(key).discard(key)


class NameRoutingStore(KeyRoutingStore[KeyedStore], KeyedStore):
    """Base class of the stores that keep a file in one of several stores, depending on its name."""

    async def head(self, key: ImageKey) -> ObjectInfo:
        """Return the size and modification time of the file of a key."""
        return await self._of_key(key).head(key)

    def legacy_name(self, key: ImageKey) -> str:
        """Return the name of a key without a revision in the store to which it belongs."""
        return self._of_key(key).legacy_name(key)

    def legacy_names(self, key: ImageKey) -> tuple[str, ...]:
        """Return the names of a key without a revision in the store to which it belongs."""
        return self._of_key(key).legacy_names(key)

    @abstractmethod
    def _of(self, name: str) -> KeyedStore:
        """Return the store to which a name belongs.

        Raises:
            InvalidKeyError: It belongs to none.
        """

    @abstractmethod
    def _candidates(self, prefix: str) -> Sequence[KeyedStore]:
        """Return the stores to which names with a prefix may belong."""

    async def put_object(
        self, name: str, data: Source, *, mimetype: str = "application/octet-stream", reproducible: bool = False
    ) -> None:
        """Put a file into the store to which its name belongs."""
        await self._of(name).put_object(name, data, mimetype=mimetype, reproducible=reproducible)

    async def get_object(self, name: str, *, start: int = 0, end: int | None = None) -> AsyncFile:
        """Open a file, or its bytes from ``start`` up to but not including ``end``."""
        return await self._of(name).get_object(name, start=start, end=end)

    async def head_object(self, name: str) -> ObjectInfo:
        """Return a file's size and modification time."""
        return await self._of(name).head_object(name)

    async def delete_object(self, name: str) -> None:
        """Delete a file; a missing one is not an error."""
        await self._of(name).delete_object(name)

    async def delete_objects(self, names: Iterable[str]) -> dict[str, StoreError]:
        """Delete many files, with one call per store; return the error of each that could not be deleted."""
        failed: dict[str, StoreError] = {}
        for batch in batched(names, _BATCH):
            for store, routed in self._split(batch, failed):
                failed |= await store.delete_objects(routed)
        return failed

    def _split(self, names: Iterable[str], failed: dict[str, StoreError]) -> Iterator[tuple[KeyedStore, list[str]]]:
        routed: dict[int, tuple[KeyedStore, list[str]]] = {}
        for name in names:
            try:
                store = self._of(name)
            except InvalidKeyError as error:
                failed[name] = error
            else:
                routed.setdefault(id(store), (store, []))[1].append(name)
        yield from routed.values()

    async def list_objects(self, prefix: str = "", *, start_after: str = "") -> AsyncIterator[ObjectInfo]:
        """Iterate over the files whose names begin with ``prefix``, in order of name.

        The listings of all stores that can have such files are merged. Files in a store to which their name does not
        belong are left out.

        Args:
            prefix: Compared character by character; empty for all files.
            start_after: Only names after this one are listed; a file of this name need not exist.
        """
        listings = [self._listed(store, prefix, start_after) for store in self._candidates(prefix)]
        async for infos in merged(listings):
            for info in infos.values():
                yield info

    async def _listed(self, store: KeyedStore, prefix: str, start_after: str) -> AsyncIterator[ObjectInfo]:
        async for info in store.list_objects(prefix, start_after=start_after):
            if self._is_in(store, info.name):
                yield info

    def _is_in(self, store: KeyedStore, name: str) -> bool:
        try:
            return self._of(name) is store
        except InvalidKeyError:
            return False

    async def discard_unfinished(self, before: datetime, prefix: str = "") -> int:
        """Delete the temporary data of killed puts; return their number."""
        return sum([await store.discard_unfinished(before, prefix) for store in self._candidates(prefix)])

    def url_of(self, name: str) -> str:
        """Return the URL of a name. No I/O."""
        return self._of(name).url_of(name)

    def download_url_of(self, name: str, filename: str) -> str:
        """Return a URL under which browsers save a file."""
        return self._of(name).download_url_of(name, filename)

    async def copy_from(
        self,
        source: KeyedStore,
        source_name: str,
        name: str,
        *,
        mimetype: str = "application/octet-stream",
        reproducible: bool = False,
    ) -> bool:
        """Copy a file on the server, if the store of the name supports this."""
        store = self._of(name)
        return await store.copy_from(source, source_name, name, mimetype=mimetype, reproducible=reproducible)
