"""What stores that are made of other stores have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

from ..exc import DeclarationError
from ..file import AsyncFile, Source
from ..key import ImageKey
from ..store import KeyedStore, ObjectInfo, Store

__all__ = ["CombinedStore", "check_stores", "find_url", "merged", "open_file"]


def check_stores(stores: Iterable[Any], *, keyed: bool) -> None:
    """Refuse what is no store, or not one by name where it has to be.

    Raises:
        DeclarationError: One of them is no :class:`~aioimageattach.store.Store`, or where ``keyed`` no
            :class:`~aioimageattach.store.KeyedStore`.
    """
    for store in stores:
        if not isinstance(store, Store):
            raise DeclarationError(f"expected a Store, got {type(store).__name__}")
        if keyed and not isinstance(store, KeyedStore):
            raise DeclarationError(
                f"expected a KeyedStore, got {type(store).__name__}; the class of the same name with Plain before it "
                "takes stores that know no names"
            )


async def merged(listings: Sequence[AsyncIterator[ObjectInfo]]) -> AsyncIterator[dict[int, ObjectInfo]]:
    """Merge listings in order of name: yield for each name what those say that have it, by their number."""
    try:
        heads: dict[int, ObjectInfo] = {}
        for number, listing in enumerate(listings):
            head = await anext(listing, None)
            if head is not None:
                heads[number] = head
        while heads:
            name = min(head.name for head in heads.values())
            found = {number: head for number, head in heads.items() if head.name == name}
            yield found
            for number in found:
                head = await anext(listings[number], None)
                if head is None:
                    del heads[number]
                else:
                    heads[number] = head
    finally:
        for listing in listings:
            close = getattr(listing, "aclose", None)
            if close is not None:
                await close()


async def open_file(store: Store, key: ImageKey) -> AsyncFile:
    """:meth:`Store.get_file <aioimageattach.store.Store.get_file>` by key."""
    return await store.get_file(
        key.object_type, key.object_id, key.width, key.height, key.mimetype, revision=key.revision
    )


def find_url(store: Store, key: ImageKey) -> str:
    """:meth:`Store.get_url <aioimageattach.store.Store.get_url>` by key."""
    return store.get_url(key.object_type, key.object_id, key.width, key.height, key.mimetype, revision=key.revision)


class CombinedStore(Store):
    """A store that passes keys on to other stores."""

    @abstractmethod
    async def _put(self, key: ImageKey, file: Source, reproducible: bool) -> None: ...

    @abstractmethod
    async def _open(self, key: ImageKey) -> AsyncFile: ...

    @abstractmethod
    def _url(self, key: ImageKey) -> str: ...

    @abstractmethod
    async def _delete(self, key: ImageKey) -> None: ...

    async def put_file(
        self,
        file: Source,
        object_type: str,
        object_id: int | None,
        width: int,
        height: int,
        mimetype: str,
        reproducible: bool,
        *,
        revision: str | None = None,
    ) -> None:
        """See :meth:`Store.put_file <aioimageattach.store.Store.put_file>`."""
        await self._put(ImageKey(object_type, object_id, width, height, mimetype, revision), file, reproducible)

    async def get_file(
        self,
        object_type: str,
        object_id: int | None,
        width: int,
        height: int,
        mimetype: str,
        *,
        revision: str | None = None,
    ) -> AsyncFile:
        """See :meth:`Store.get_file <aioimageattach.store.Store.get_file>`."""
        return await self._open(ImageKey(object_type, object_id, width, height, mimetype, revision))

    def get_url(
        self,
        object_type: str,
        object_id: int | None,
        width: int,
        height: int,
        mimetype: str,
        *,
        revision: str | None = None,
    ) -> str:
        """See :meth:`Store.get_url <aioimageattach.store.Store.get_url>`."""
        return self._url(ImageKey(object_type, object_id, width, height, mimetype, revision))

    async def delete_file(
        self,
        object_type: str,
        object_id: int | None,
        width: int,
        height: int,
        mimetype: str,
        *,
        revision: str | None = None,
    ) -> None:
        """See :meth:`Store.delete_file <aioimageattach.store.Store.delete_file>`."""
        await self._delete(ImageKey(object_type, object_id, width, height, mimetype, revision))
