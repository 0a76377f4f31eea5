"""A store that keeps each object type in its own store."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from datetime import datetime
from itertools import islice
from typing import Final, Generic, TypeVar

from ..exc import InvalidKeyError, StoreError
from ..file import AsyncFile, Source
from ..key import DERIVED, ImageKey, check_name
from ..store import KeyedStore, KeyLevelStore, Location, ObjectInfo, Store, merged
from .combined import check_stores, joined

__all__ = ["PlainRoutingStore", "RoutingStore"]

S = TypeVar("S", bound=Store)

_BATCH: Final = 1000


class PlainRoutingStore(KeyLevelStore, Generic[S]):
    """A :class:`RoutingStore` for stores that are not a :class:`~aioimageattach.store.KeyedStore`.

    Args:
        stores: As for :class:`RoutingStore`.
        default: As for :class:`RoutingStore`.
    """

    def __init__(self, stores: Mapping[str, S], default: S | None = None) -> None:
        self._stores: dict[str, S] = {}
        for object_type, store in stores.items():
            ImageKey(object_type, None, 1, 1, "image/png")
            if self._stores.setdefault(_plain(object_type), store) is not store:
                raise ValueError(f"object_type {object_type!r} is the same as another one: '_' and '-' are equal here")
        self._default = default
        check_stores(self.stores, keyed=isinstance(self, KeyedStore))
        self.needs_object_id: bool = any(store.needs_object_id for store in self.stores)
        self.has_signed_urls: bool = any(store.has_signed_urls for store in self.stores)

    @property
    def stores(self) -> list[S]:
        """All stores, each once."""
        found = [*self._stores.values(), *([] if self._default is None else [self._default])]
        return list({id(store): store for store in found}.values())

    def unknown_types(self, object_types: Iterable[str]) -> list[str]:
        """Return the object types that have a store of their own here, but are not among those of an application.

        Their files would silently go to the default store if a name is misspelled. ``aioimageattach doctor`` asks this.
        """
        known = set(map(_plain, object_types))
        return sorted(object_type for object_type in self._stores if object_type not in known)

    def store_of(self, object_type: str) -> S:
        """Return the store of an object type.

        Raises:
            InvalidKeyError: The object type has no store, and there is no default.
        """
        found = self._find(object_type)
        if found is None:
            raise InvalidKeyError(
                f"object_type {object_type!r:.80} has no store: expected one of {sorted(self._stores)}, or a default",
                store=repr(self),
            )
        return found

    def _find(self, object_type: str) -> S | None:
        found = self._stores.get(_plain(object_type))
        if found is None and object_type.endswith(DERIVED):  # thumbnails are as private as their originals
            found = self._stores.get(_plain(object_type.removesuffix(DERIVED)))
        return self._default if found is None else found

    def location_of(self, object_type: str | None = None) -> Location:
        """Return the places of the store of an object type, or of all stores."""
        if object_type is None:
            return joined(self.stores, None)
        found = self._find(object_type)
        return frozenset() if found is None else found.location_of(object_type)

    def __repr__(self) -> str:
        routes = [f"{object_type}: {store!r}" for object_type, store in self._stores.items()]
        return f"<{type(self).__name__} {', '.join([*routes, f'else {self._default!r}'])}>"

    async def put(self, key: ImageKey, file: Source, *, reproducible: bool) -> None:
        """Put a file into the store of its object type."""
        await self.store_of(key.object_type).put(key, file, reproducible=reproducible)

    async def get(self, key: ImageKey) -> AsyncFile:
        """Open a file in the store of its object type."""
        return await self.store_of(key.object_type).get(key)

    def url_for(self, key: ImageKey) -> str:
        """Return the URL in the store of the object type."""
        return self.store_of(key.object_type).url_for(key)

    def download_url_for(self, key: ImageKey, filename: str) -> str:
        """Return a URL of the store of the object type under which browsers save a file."""
        return self.store_of(key.object_type).download_url_for(key, filename)

    async def discard(self, key: ImageKey) -> None:
        """Delete a file in the store of its object type."""
        await self.store_of(key.object_type).discard(key)


class RoutingStore(PlainRoutingStore[KeyedStore], KeyedStore):
    """Keeps each object type in its own store, such as portraits in a private bucket.

    The object type of a name is the part before the first ``/``. The caller closes the stores.

    Args:
        stores: The store of each object type. By default, the object type of an image class is the name of its table
            with ``-`` for ``_``. The two characters are equal here, so the name of the table works, too.
        default: The store of all other object types; ``None`` to refuse them.

    Raises:
        InvalidKeyError: An object type is not valid.
        DeclarationError: A store is not a :class:`~aioimageattach.store.KeyedStore`.
        ValueError: Two object types are equal apart from ``_`` and ``-``.
    """

    def _of(self, name: str) -> KeyedStore:
        return self.store_of(check_name(name).partition("/")[0])

    async def put_object(
        self, name: str, data: Source, *, mimetype: str = "application/octet-stream", reproducible: bool = False
    ) -> None:
        """Put a file into the store of its object type."""
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
        rest = iter(names)
        while batch := list(islice(rest, _BATCH)):
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

        If the prefix names an object type, only its store is listed. Otherwise the listings of all stores are merged.
        A file in another store than that of its object type is left out.

        Args:
            prefix: Compared character by character; empty for all files.
            start_after: Only names after this one are listed; a file of this name need not exist.
        """
        object_type, slash, _ = prefix.partition("/")
        stores = self.stores
        if slash:
            found = self._find(object_type)
            stores = [] if found is None else [found]
        listings = [self._listed(store, prefix, start_after) for store in stores]
        async for infos in merged(listings):
            for info in infos.values():
                yield info

    async def _listed(self, store: KeyedStore, prefix: str, start_after: str) -> AsyncIterator[ObjectInfo]:
        async for info in store.list_objects(prefix, start_after=start_after):
            if self._find(info.name.partition("/")[0]) is store:
                yield info

    async def discard_unfinished(self, before: datetime, prefix: str = "") -> int:
        """Delete the temporary data of killed puts in all stores; return their number."""
        return sum([await store.discard_unfinished(before, prefix) for store in self.stores])

    def url_of(self, name: str) -> str:
        """Return the URL of a name: a calculation."""
        return self._of(name).url_of(name)

    def download_url_of(self, name: str, filename: str) -> str:
        """Return a URL under which browsers save a file."""
        return self._of(name).download_url_of(name, filename)

    def legacy_name(self, key: ImageKey) -> str:
        """Return the name of a key without a revision in the store of its object type."""
        return self.store_of(key.object_type).legacy_name(key)

    def legacy_names(self, key: ImageKey) -> tuple[str, ...]:
        """Return the names of a key without a revision in the store of its object type."""
        return self.store_of(key.object_type).legacy_names(key)

    def parts(self, object_type: str) -> tuple[KeyedStore, ...]:
        """Return the store of an object type, or its parts if it combines others."""
        return self.store_of(object_type).parts(object_type)

    async def head(self, key: ImageKey) -> ObjectInfo:
        """Return the size and modification time of the file of a key."""
        return await self.store_of(key.object_type).head(key)

    async def copy_from(
        self,
        source: KeyedStore,
        source_name: str,
        name: str,
        *,
        mimetype: str = "application/octet-stream",
        reproducible: bool = False,
    ) -> bool:
        """Copy a file on the server, if the store of its object type can do so."""
        store = self._of(name)
        return await store.copy_from(source, source_name, name, mimetype=mimetype, reproducible=reproducible)


def _plain(object_type: str) -> str:
    """Return the form in which object types are compared, so that the name of a table finds the store, too."""
    return object_type.replace("_", "-")
