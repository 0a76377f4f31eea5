"""A store for changes, over another store that is only read."""

from __future__ import annotations

from collections.abc import AsyncIterator, Hashable, Iterable
from datetime import datetime
from typing import Final, Generic

from .._batches import batched
from .._listings import merged
from .._names import SANDBOX, check_name
from .._tasks import map_concurrently
from ..exc import InvalidKeyError, StoreError, StoreFileExistsError, StoreFileNotFoundError
from ..file import AsyncFile, Source
from ..key import ImageKey
from ..store import KeyedStore, ObjectInfo, Store
from ..store._keyed import KeyLevelStore
from ._combined import CombinedStore, S, check_places, check_stores, joined

__all__ = ["DELETED_MARK_MIMETYPE", "OverlayStore", "PlainOverlayStore"]


DELETED_MARK_MIMETYPE: Final = "application/x-sqlalchemy-imageattach-sandbox-deleted"
"""MIME type of the empty files that mark deleted files of the store below, visible in listings of a server."""

_MARKS: Final = ".deleted-below/"
_BATCH: Final = 1000
_PARALLEL: Final = 8


class PlainOverlayStore(CombinedStore, KeyLevelStore, Generic[S]):
    """An overlay of stores that need not be a :class:`~aioimageattach.store.KeyedStore`; see :class:`OverlayStore`."""

    def __init__(self, above: S, below: S) -> None:
        check_stores((above, below), keyed=isinstance(self, KeyedStore))
        check_places((above, below))
        self.above: S = above
        self.below: S = below
        self.needs_object_id: bool = above.needs_object_id
        self.has_signed_urls: bool = above.has_signed_urls or below.has_signed_urls

    def _combined(self) -> Iterable[Store]:
        return self.above, self.below

    def make_revision(self) -> str:
        """Return a new revision, whose suffix marks files of the store above."""
        return self.above.make_revision() + SANDBOX

    def revision_for(self, object_type: str, *, reproducible: bool) -> str:
        """Return a new revision for a file of an object type, with the same suffix."""
        return self.above.revision_for(object_type, reproducible=reproducible) + SANDBOX

    def location_of(self, object_type: str | None = None) -> frozenset[Hashable]:
        """Return the places of both stores."""
        return joined((self.above, self.below), object_type)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.above!r} over {self.below!r}>"

    async def put(self, key: ImageKey, file: Source, *, reproducible: bool) -> None:
        """Put a file into the store above."""
        await self.above.put(key, file, reproducible=reproducible)

    async def get(self, key: ImageKey) -> AsyncFile:
        """Open a file in the store above, or, if it is missing there, in the store below."""
        try:
            return await self.above.get(key)
        except StoreFileNotFoundError:
            if _has_mark(key.revision):
                raise
            return await self.below.get(key)

    def url_for(self, key: ImageKey) -> str:
        """Return the URL of the file in the store above if the revision has its suffix, else in the store below."""
        return (self.above if _has_mark(key.revision) else self.below).url_for(key)

    def download_url_for(self, key: ImageKey, filename: str) -> str:
        """Return a URL under which browsers save a file, of the store that :meth:`url_for` chooses."""
        return (self.above if _has_mark(key.revision) else self.below).download_url_for(key, filename)

    async def discard(self, key: ImageKey) -> None:
        """Delete a file in the store above."""
        await self.above.discard(key)


class OverlayStore(KeyedStore, PlainOverlayStore[KeyedStore]):
    """Reads files from two stores, and writes and deletes only in the one above.

    Use it to work on a copy of the production database without changing the files of production; read permissions
    are enough for the store below. New files get a revision that ends in ``-sandbox``, so the URL of a file can be
    calculated without knowing which store has it. If a file of the store below is deleted, an empty file
    ``.deleted-below/NAME`` in the store above hides it.

    Use an overlay as the outermost store. In particular, a mirror takes revisions only from its first store. Opening,
    connecting and closing it applies to both stores.

    Args:
        above: The store for new files and for marks of deleted ones.
        below: The store that is only read.

    Raises:
        ValueError: The two stores keep the same files.
        DeclarationError: A store is not a :class:`~aioimageattach.store.KeyedStore`.
    """

    has_certain_urls = False

    @staticmethod
    def plain(above: S, below: S) -> PlainOverlayStore[S]:
        """Return an overlay of stores that are not a :class:`~aioimageattach.store.KeyedStore`.

        It is not one itself, and cannot record that a file of the store below was deleted. Such a file stays readable
        by its key, which no row contains any longer.

        Args:
            above: As for the class.
            below: As for the class.
        """
        return PlainOverlayStore(above, below)

    async def _is_hidden(self, name: str) -> bool:
        """Return ``True`` if a name must not be read from the store below: the file is new or was deleted."""
        if _is_own(name):
            return True
        try:
            await self.above.head_object(_MARKS + name)
        except StoreFileNotFoundError:
            return False
        return True

    async def _find_below(self, name: str) -> ObjectInfo | None:
        """Return the size and modification time of a file of the store below, unless it is hidden."""
        if await self._is_hidden(name):
            return None
        try:
            return await self.below.head_object(name)
        except StoreFileNotFoundError:
            return None

    async def put_object(
        self, name: str, data: Source, *, mimetype: str = "application/octet-stream", reproducible: bool = False
    ) -> None:
        """Put a file into the store above, under a name that no file of either store has yet.

        Raises:
            StoreFileExistsError: A file of that name exists.
            StoreError: The file could not be put.
        """
        if await self._find_below(_check(name)) is not None:
            raise StoreFileExistsError(
                f"{name!r} already exists; a file is never overwritten", store=repr(self), name=name
            )
        await self.above.put_object(name, data, mimetype=mimetype, reproducible=reproducible)

    async def get_object(self, name: str, *, start: int = 0, end: int | None = None) -> AsyncFile:
        """Open a file, or its bytes from ``start`` up to but not including ``end``; first try the store above.

        Raises:
            StoreFileNotFoundError: The file is in neither store, or was deleted.
        """
        try:
            return await self.above.get_object(_check(name), start=start, end=end)
        except StoreFileNotFoundError:
            if await self._is_hidden(name):
                raise
            return await self.below.get_object(name, start=start, end=end)

    async def head_object(self, name: str) -> ObjectInfo:
        """Return a file's size and modification time.

        Raises:
            StoreFileNotFoundError: The file is in neither store, or was deleted.
        """
        try:
            return await self.above.head_object(_check(name))
        except StoreFileNotFoundError:
            if await self._is_hidden(name):
                raise
            return await self.below.head_object(name)

    async def delete_object(self, name: str) -> None:
        """Delete a file in the store above, and hide one in the store below; a missing one is not an error."""
        if await self._find_below(_check(name)) is not None:
            try:
                await self.above.put_object(_MARKS + name, b"", mimetype=DELETED_MARK_MIMETYPE)
            except StoreFileExistsError:
                pass  # another process has deleted it meanwhile
        await self.above.delete_object(name)  # after the mark, or readers would see the file below in between

    async def delete_objects(self, names: Iterable[str]) -> dict[str, StoreError]:
        """Delete many files; return the error of each that could not be deleted."""
        failed: dict[str, StoreError] = {}

        async def delete(name: str) -> None:
            try:
                await self.delete_object(name)
            except StoreError as error:
                failed[name] = error

        for batch in batched(names, _BATCH):
            own = [name for name in batch if _is_own(name)]
            failed |= await self.above.delete_objects(own)
            await map_concurrently(delete, [name for name in batch if not _is_own(name)], limit=_PARALLEL)
        return failed

    async def list_objects(self, prefix: str = "", *, start_after: str = "") -> AsyncIterator[ObjectInfo]:
        """Iterate over the files of both stores whose names begin with ``prefix``, in order of name.

        Args:
            prefix: Compared character by character; empty for all files.
            start_after: Only names after this one are listed; a file of this name need not exist.
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
        """Delete the temporary data of killed puts in the store above; return their number."""
        return await self.above.discard_unfinished(before, prefix)

    def url_of(self, name: str) -> str:
        """Return the URL of a name: in the store above if its revision has the suffix, else in the store below."""
        return (self.above if _is_own(_check(name)) else self.below).url_of(name)

    def download_url_of(self, name: str, filename: str) -> str:
        """Return a URL under which browsers save a file, of the store that :meth:`url_of` chooses."""
        return (self.above if _is_own(_check(name)) else self.below).download_url_of(name, filename)

    def legacy_name(self, key: ImageKey) -> str:
        """Return the name of a key without a revision in the store below."""
        return self.below.legacy_name(key)

    def legacy_names(self, key: ImageKey) -> tuple[str, ...]:
        """Return the names of a key without a revision in both stores."""
        return tuple(dict.fromkeys((*self.below.legacy_names(key), *self.above.legacy_names(key))))

    def parts(self, object_type: str) -> tuple[KeyedStore, ...]:
        """Return the store above, or its parts if it combines others; the store below is never written to."""
        return self.above.parts(object_type)


def _has_mark(revision: str | None) -> bool:
    return revision is not None and revision.endswith(SANDBOX)


def _is_own(name: str) -> bool:
    """Return ``True`` if the revision in a name has the suffix of files of the store above."""
    return not name.startswith(_MARKS) and _has_mark(name.rpartition("/")[2].partition(".")[0])


def _check(name: str) -> str:
    if check_name(name).startswith(_MARKS):
        raise InvalidKeyError(
            f"name: expected one that does not begin with {_MARKS!r}, which is reserved, got {name!r:.80}"
        )
    return name


async def _unreserved(listing: AsyncIterator[ObjectInfo]) -> AsyncIterator[ObjectInfo]:
    async for info in listing:
        if not info.name.startswith(_MARKS):
            yield info


async def _marked(above: KeyedStore, prefix: str, start_after: str) -> AsyncIterator[ObjectInfo]:
    """Yield the marks of deleted files, each under the name of the file that it hides."""
    async for info in above.list_objects(_MARKS + prefix, start_after=_MARKS + start_after if start_after else ""):
        yield ObjectInfo(info.name.removeprefix(_MARKS), info.size, info.modified_at)
