"""A store over another one that is never written to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from datetime import datetime
from itertools import islice
from typing import Final, Generic, TypeVar

from .._tasks import map_concurrently
from ..exc import InvalidKeyError, StoreError, StoreFileExistsError, StoreFileNotFoundError
from ..file import AsyncFile, Source
from ..key import ImageKey, check_name
from ..store import KeyedStore, KeyLevelStore, Location, ObjectInfo, Store, merged
from .combined import check_places, check_stores, joined

__all__ = ["DELETED_MARK_MIMETYPE", "OverlayStore", "PlainOverlayStore"]

S = TypeVar("S", bound=Store)

DELETED_MARK_MIMETYPE: Final = "application/x-sqlalchemy-imageattach-sandbox-deleted"
"""The type of the empty files that hide what was deleted; a server shows it."""

_OWN: Final = "-sandbox"
_MARKS: Final = ".deleted-below/"
_BATCH: Final = 1000
_PARALLEL: Final = 8


class PlainOverlayStore(KeyLevelStore, Generic[S]):
    """:class:`OverlayStore` for stores that know the four methods of :class:`~aioimageattach.store.Store` alone.

    It has nowhere to note that a file below is deleted: such a file stays readable, by a key that no row has any more.

    Args:
        above: As for :class:`OverlayStore`.
        below: As for :class:`OverlayStore`.
    """

    def __init__(self, above: S, below: S) -> None:
        _check_stores(above, below, keyed=False)
        self.above: S = above
        self.below: S = below
        self.needs_object_id: bool = above.needs_object_id
        self.has_signed_urls: bool = above.has_signed_urls or below.has_signed_urls

    def make_revision(self) -> str:
        """Return a new revision, which says that its file is above."""
        return self.above.make_revision() + _OWN

    def location_of(self, object_type: str | None = None) -> Location:
        """Return the places of both stores."""
        return joined((self.above, self.below), object_type)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.above!r} over {self.below!r}>"

    async def put(self, key: ImageKey, file: Source, *, reproducible: bool) -> None:
        """Put a file above."""
        await self.above.put(key, file, reproducible=reproducible)

    async def get(self, key: ImageKey) -> AsyncFile:
        """Open a file, from above if it is there."""
        try:
            return await self.above.get(key)
        except StoreFileNotFoundError:
            if _has_mark(key.revision):
                raise
            return await self.below.get(key)

    def url_for(self, key: ImageKey) -> str:
        """Return the URL above if the revision says so, otherwise below."""
        return (self.above if _has_mark(key.revision) else self.below).url_for(key)

    async def discard(self, key: ImageKey) -> None:
        """Delete a file above."""
        await self.above.discard(key)


class OverlayStore(KeyedStore):
    """Reads fall through to the store below; writes and deletions stay above. For development on production's pictures.

    What is uploaded here gets a revision that ends in ``-sandbox``, so the URL of a file is known without asking where
    it is. A deleted file of the store below is hidden by an empty file above, named after it under ``.deleted-below/``.
    Rights to read are enough for the store below. The overlay is to be the outermost store: made part of a mirror or of
    a routing store, it would not be asked for revisions. The stores stay yours to close.

    Args:
        above: Written to.
        below: Only read.

    Raises:
        ValueError: The two stores have a place in common.
        DeclarationError: One of them is no :class:`~aioimageattach.store.KeyedStore`.
    """

    def __init__(self, above: KeyedStore, below: KeyedStore) -> None:
        _check_stores(above, below, keyed=True)
        self.above: KeyedStore = above
        self.below: KeyedStore = below
        self.has_signed_urls: bool = above.has_signed_urls or below.has_signed_urls

    def make_revision(self) -> str:
        """Return a new revision, which says that its file is above."""
        return self.above.make_revision() + _OWN

    def location_of(self, object_type: str | None = None) -> Location:
        """Return the places of both stores."""
        return joined((self.above, self.below), object_type)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.above!r} over {self.below!r}>"

    async def _is_hidden(self, name: str) -> bool:
        """Whether a file below cannot be seen: its name says that it is above, or it was deleted here."""
        if _is_own(name):
            return True
        try:
            await self.above.head_object(_MARKS + name)
        except StoreFileNotFoundError:
            return False
        return True

    async def _find_below(self, name: str) -> ObjectInfo | None:
        """What the store below says of a file that can be seen."""
        if await self._is_hidden(name):
            return None
        try:
            return await self.below.head_object(name)
        except StoreFileNotFoundError:
            return None

    async def put_object(
        self, name: str, data: Source, *, mimetype: str = "application/octet-stream", reproducible: bool = False
    ) -> None:
        """Put a file above, under a name that no file has yet, here or below.

        Raises:
            StoreFileExistsError: The name is taken.
            StoreError: It could not be done.
        """
        if await self._find_below(_check(name)) is not None:
            raise StoreFileExistsError(
                f"there is {name!r} already; a file is never overwritten", store=repr(self), name=name
            )
        await self.above.put_object(name, data, mimetype=mimetype, reproducible=reproducible)

    async def get_object(self, name: str, *, start: int = 0, end: int | None = None) -> AsyncFile:
        """Open a file, from above if it is there; the arguments are those of :class:`~aioimageattach.store.KeyedStore`.

        Raises:
            StoreFileNotFoundError: It is in neither store, or was deleted here.
        """
        try:
            return await self.above.get_object(_check(name), start=start, end=end)
        except StoreFileNotFoundError:
            if await self._is_hidden(name):
                raise
            return await self.below.get_object(name, start=start, end=end)

    async def head_object(self, name: str) -> ObjectInfo:
        """Return a file's size and time of change.

        Raises:
            StoreFileNotFoundError: It is in neither store, or was deleted here.
        """
        try:
            return await self.above.head_object(_check(name))
        except StoreFileNotFoundError:
            if await self._is_hidden(name):
                raise
            return await self.below.head_object(name)

    async def delete_object(self, name: str) -> None:
        """Delete a file above, and hide one below; one that is not there is no error."""
        if await self._find_below(_check(name)) is not None:
            try:
                await self.above.put_object(_MARKS + name, b"", mimetype=DELETED_MARK_MIMETYPE)
            except StoreFileExistsError:
                pass  # somebody else deleted it meanwhile
        await self.above.delete_object(name)  # after the mark, so that the file below is not seen in between

    async def delete_objects(self, names: Iterable[str]) -> dict[str, StoreError]:
        """Delete many files; return the error of each that failed."""
        failed: dict[str, StoreError] = {}

        async def delete(name: str) -> None:
            try:
                await self.delete_object(name)
            except StoreError as error:
                failed[name] = error

        rest = iter(names)
        while batch := list(islice(rest, _BATCH)):
            own = [name for name in batch if _is_own(name)]
            failed |= await self.above.delete_objects(own)
            await map_concurrently(delete, [name for name in batch if not _is_own(name)], limit=_PARALLEL)
        return failed

    async def list_objects(self, prefix: str = "", *, start_after: str = "") -> AsyncIterator[ObjectInfo]:
        """Iterate over the files of both stores whose names begin with ``prefix``, in order of name.

        Args:
            prefix: Compared by character; empty for all.
            start_after: Only names after this one, which need not exist.
        """
        listings = [
            _unreserved(self.above.list_objects(prefix, start_after=start_after)),
            _marked(self.above, prefix, start_after),
            _unreserved(self.below.list_objects(prefix, start_after=start_after)),
        ]
        async for found in merged(listings):
            if 0 in found:
                yield found[0]
            elif 1 not in found:
                yield found[2]

    async def discard_unfinished(self, before: datetime, prefix: str = "") -> int:
        """Remove what killed puts have left above; return how many there were."""
        return await self.above.discard_unfinished(before, prefix)

    def url_of(self, name: str) -> str:
        """Return the URL of a name by calculation alone: above if the name says so, otherwise below."""
        return (self.above if _is_own(_check(name)) else self.below).url_of(name)

    def legacy_name(self, key: ImageKey) -> str:
        """Return the name that the store below gives a key without a revision."""
        return self.below.legacy_name(key)

    def legacy_names(self, key: ImageKey) -> tuple[str, ...]:
        """Return the names that the two stores give a key without a revision."""
        return tuple(dict.fromkeys((*self.below.legacy_names(key), *self.above.legacy_names(key))))

    def parts(self, object_type: str) -> tuple[KeyedStore, ...]:
        """Return the store above, or those that it consists of; the store below is never written to."""
        return self.above.parts(object_type)


def _check_stores(above: Store, below: Store, *, keyed: bool) -> None:
    check_stores((above, below), keyed=keyed)
    check_places((above, below))


def _has_mark(revision: str | None) -> bool:
    return revision is not None and revision.endswith(_OWN)


def _is_own(name: str) -> bool:
    """Whether the name says that its file can only be above."""
    return not name.startswith(_MARKS) and _has_mark(name.rpartition("/")[2].partition(".")[0])


def _check(name: str) -> str:
    if check_name(name).startswith(_MARKS):
        raise InvalidKeyError(f"name {name!r:.80}: names beginning with {_MARKS!r} are reserved")
    return name


async def _unreserved(listing: AsyncIterator[ObjectInfo]) -> AsyncIterator[ObjectInfo]:
    async for info in listing:
        if not info.name.startswith(_MARKS):
            yield info


async def _marked(above: KeyedStore, prefix: str, start_after: str) -> AsyncIterator[ObjectInfo]:
    """The marks, under the names of the files that they hide."""
    async for info in above.list_objects(_MARKS + prefix, start_after=_MARKS + start_after if start_after else ""):
        yield ObjectInfo(info.name.removeprefix(_MARKS), info.size, info.modified_at)
