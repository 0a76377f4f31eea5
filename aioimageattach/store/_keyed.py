"""The interface of stores that keep each file under a name, and its basis for stores that work with whole keys."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, final

from .._tasks import map_concurrently
from ..exc import InvalidKeyError, StoreError
from ..file import AsyncFile, Source
from ..key import ImageKey
from ._store import Store, cannot_download

__all__ = ["KeyLevelStore", "KeyedStore", "ObjectInfo"]

_PARALLEL: Final = 16


class KeyLevelStore(Store):
    """A store that works with whole keys. It implements the methods that take the fields of a key one by one."""

    @abstractmethod
    async def put(self, key: ImageKey, file: Source, *, reproducible: bool) -> None:
        """Put the file of a key; see :meth:`Store.put_file`."""

    @abstractmethod
    async def get(self, key: ImageKey) -> AsyncFile:
        """Open the file of a key; see :meth:`Store.get_file`."""

    @abstractmethod
    def url_for(self, key: ImageKey) -> str:
        """Return the URL of the file of a key; see :meth:`Store.get_url`."""

    @abstractmethod
    async def discard(self, key: ImageKey) -> None:
        """Delete the file of a key; see :meth:`Store.delete_file`."""

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
        """Put a file; see :meth:`Store.put_file`."""
        key = ImageKey(object_type, object_id, width, height, mimetype, revision)
        await self.put(key, file, reproducible=reproducible)

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
        """Open a file; see :meth:`Store.get_file`."""
        return await self.get(ImageKey(object_type, object_id, width, height, mimetype, revision))

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
        """Return the URL of a file; see :meth:`Store.get_url`."""
        return self.url_for(ImageKey(object_type, object_id, width, height, mimetype, revision))

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
        """Delete a file; see :meth:`Store.delete_file`."""
        await self.discard(ImageKey(object_type, object_id, width, height, mimetype, revision))


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """Name, size and modification time of a file in a store.

    Args:
        name: The name.
        size: Size in bytes.
        modified_at: The time at which the file was put, according to the store's clock.
    """

    name: str
    size: int
    modified_at: datetime


class KeyedStore(KeyLevelStore):
    """A store that keeps files by name. Copying, listing and verifying files requires such a store.

    Names consist of segments joined by ``/``. A segment is not empty, ``.`` or ``..``, and contains neither control
    characters nor backslashes. A name has at most 1,024 bytes in UTF-8. The methods of :class:`Store` are implemented
    with the six abstract methods below.
    """

    needs_object_id = False

    has_certain_urls: bool = True
    """``True`` if the URL of a name always returns the file that was put under this name."""

    @abstractmethod
    async def put_object(
        self, name: str, data: Source, *, mimetype: str = "application/octet-stream", reproducible: bool = False
    ) -> None:
        """Put a file under a name that no file has yet; either the whole file is put or none of it.

        Args:
            name: The name.
            data: See :data:`~aioimageattach.file.Source`; not closed.
            mimetype: MIME type with which the file is served.
            reproducible: ``True`` if the file can be generated again.

        Raises:
            StoreFileExistsError: A file of that name exists; it is unchanged.
            InvalidKeyError: The name is not valid; nothing was read.
            StoreError: The file could not be put.

        Effects: On return, the file is durable and visible to every reader. On an error or a cancellation, there is no
        file of that name, and none appears later.
        """

    @abstractmethod
    async def get_object(self, name: str, *, start: int = 0, end: int | None = None) -> AsyncFile:
        """Open a file, or its bytes from ``start`` up to but not including ``end``; the caller closes it.

        Args:
            name: The name.
            start: Offset of the first byte. If it is beyond the end of the file, no bytes are read.
            end: Offset just past the last byte; ``None``, or an offset beyond the end of the file, means its end.

        Raises:
            StoreFileNotFoundError: The file does not exist.
            InvalidKeyError: The name is not valid.
            ValueError: ``start`` is negative or greater than ``end``.
            StoreError: The file could not be opened.
        """

    @abstractmethod
    async def head_object(self, name: str) -> ObjectInfo:
        """Return a file's size and modification time.

        Raises:
            StoreFileNotFoundError: The file does not exist.
            InvalidKeyError: The name is not valid.
            StoreError: The store failed.
        """

    @abstractmethod
    async def delete_object(self, name: str) -> None:
        """Delete a file; a missing one is not an error.

        Raises:
            InvalidKeyError: The name is not valid.
            StoreError: The file could not be deleted.

        Effects: On return, the file no longer exists. After an error or a cancellation, it may or may not exist.
        """

    @abstractmethod
    def list_objects(self, prefix: str = "", *, start_after: str = "") -> AsyncIterator[ObjectInfo]:
        """Iterate over the files whose names begin with ``prefix``, in order of name, in constant memory.

        Args:
            prefix: Compared character by character, so ``"a"`` also finds ``"ab"``; empty for all files.
            start_after: Only names after this one are listed; a file of this name need not exist.

        Raises:
            StoreError: While iterating: the files could not be listed.
        """

    @abstractmethod
    def url_of(self, name: str) -> str:
        """Return the URL of a name. No I/O."""

    def download_url_of(self, name: str, filename: str) -> str:
        """Return a URL under which browsers save a file instead of displaying it; see :meth:`download_url_for`."""
        raise cannot_download(self)

    async def delete_objects(self, names: Iterable[str]) -> dict[str, StoreError]:
        """Delete many files; return the error of each that could not be deleted, by name.

        This implementation deletes the files one by one. Override it if the backend can delete many with one request.

        Args:
            names: The names. Missing files are not errors.
        """
        failed: dict[str, StoreError] = {}
        for name in names:
            try:
                await self.delete_object(name)
            except (StoreError, OSError) as error:
                failed[name] = _as_store_error(error, self, name)
        return failed

    async def move_objects(self, names: Mapping[str, str]) -> dict[str, StoreError]:
        """Rename many files; return the error of each that could not be renamed, by its old name.

        This implementation reads, puts and deletes each file. Override it if the backend can rename or copy files.

        Args:
            names: The new name of each file, by its old name.

        Effects: Each file is deleted under its old name after it was put under the new one. After an error or a
        cancellation, a file may have both names, but none is lost.
        """
        failed: dict[str, StoreError] = {}

        async def move(item: tuple[str, str]) -> None:
            old, new = item
            try:
                await self._copy_within(old, new)
                await self.delete_object(old)
            except (StoreError, OSError) as error:
                failed[old] = _as_store_error(error, self, old)

        await map_concurrently(move, list(names.items()), limit=_PARALLEL)
        return failed

    async def _copy_within(self, old: str, new: str) -> None:
        """Copy a file under a new name, for :meth:`move_objects`."""
        async with await self.get_object(old) as file:
            await self.put_object(new, file)

    async def copy_from(
        self,
        source: KeyedStore,
        source_name: str,
        name: str,
        *,
        mimetype: str = "application/octet-stream",
        reproducible: bool = False,
    ) -> bool:
        """Copy a file of another store on the server, if it can do so without sending the bytes to this process.

        Args:
            source: The other store.
            source_name: The name of the file there.
            name: The name of the copy, which no file has yet.
            mimetype: As for :meth:`put_object`.
            reproducible: As for :meth:`put_object`.

        Returns:
            ``True`` if the file was copied. If not, nothing has changed: read the file and put it.

        Raises:
            StoreFileExistsError: A file of that name exists.
            StoreFileNotFoundError: The other store has no such file.
            StoreError: The file could not be copied, and reading and putting it would fail, too.
        """
        return False

    async def discard_unfinished(self, before: datetime, prefix: str = "") -> int:
        """Delete the temporary data of interrupted puts, such as unfinished uploads; return the number deleted.

        The data of other programs are never deleted.

        Args:
            before: Only puts that began before this time are considered, because later ones may still be in progress.
            prefix: Only puts of files whose names begin with this are considered.
        """
        return 0

    def legacy_name(self, key: ImageKey) -> str:
        """Return the name of a key without a revision, in the layout of SQLAlchemy-ImageAttach.

        Raises:
            InvalidKeyError: The store does not support that layout.
        """
        raise InvalidKeyError(
            "key: expected a revision, because this store does not support the layout of SQLAlchemy-ImageAttach, got "
            f"{key!r}",
            store=repr(self),
        )

    @final
    def name_of(self, key: ImageKey) -> str:
        """Return the name under which this store puts the file of a key."""
        return self.legacy_name(key) if key.revision is None else key.file_name()

    @final
    def names_of(self, key: ImageKey) -> tuple[str, ...]:
        """Return all names that the file of a key may have: several if this store combines other stores."""
        return self.legacy_names(key) if key.revision is None else (key.file_name(),)

    def legacy_names(self, key: ImageKey) -> tuple[str, ...]:
        """Return the names of a key without a revision: several if this store combines other stores."""
        return (self.legacy_name(key),)

    def parts(self, object_type: str) -> tuple[KeyedStore, ...]:
        """Return the stores to which files of an object type are written: only this one, unless it combines others."""
        return (self,)

    async def head(self, key: ImageKey) -> ObjectInfo:
        """Return the size and modification time of the file of a key; see :meth:`head_object`."""
        return await self.head_object(self.name_of(key))

    async def put(self, key: ImageKey, file: Source, *, reproducible: bool) -> None:
        """Put a file under the name of its key; see :meth:`put_object`."""
        await self.put_object(self.name_of(key), file, mimetype=key.mimetype, reproducible=reproducible)

    async def get(self, key: ImageKey) -> AsyncFile:
        """Open the file of a key; see :meth:`get_object`."""
        return await self.get_object(self.name_of(key))

    def url_for(self, key: ImageKey) -> str:
        """Return the URL of the file of a key; see :meth:`url_of`."""
        return self.url_of(self.name_of(key))

    def download_url_for(self, key: ImageKey, filename: str) -> str:
        """Return a URL under which browsers save the file of a key; see :meth:`download_url_of`."""
        return self.download_url_of(self.name_of(key), filename)

    async def discard(self, key: ImageKey) -> None:
        """Delete the file of a key; see :meth:`delete_object`."""
        await self.delete_object(self.name_of(key))


def _as_store_error(error: StoreError | OSError, store: Store, name: str) -> StoreError:
    """Convert an error of a third-party store to an error of this library."""
    if isinstance(error, StoreError):
        return error
    wrapper = StoreError(f"{store!r}: {name!r}: {type(error).__name__}: {error}", store=repr(store), name=name)
    wrapper.__cause__ = error
    return wrapper
