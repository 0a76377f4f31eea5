"""What a store is: the four methods that serve pictures, and the richer interface by name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, final

from ._threads import finish
from .exc import InvalidKeyError, StoreError
from .file import AsyncFile, Source, Spool
from .key import ImageKey, file_name, make_revision

__all__ = ["KeyedStore", "ObjectInfo", "Store", "Stored", "finish"]


class Stored(Protocol):
    """What a store has to know of an image row."""

    @property
    def key(self) -> ImageKey: ...
    @property
    def reproducible(self) -> bool: ...
    @property
    def created_at(self) -> Any: ...  # a datetime; type checkers take a mapped column for something else


class Store(ABC):
    """Where files live. Four methods are all a new backend has to write.

    A file is never overwritten: every upload has a ``revision`` of its own, which has to be part of the name under
    which the backend keeps the file. A backend that leaves it out overwrites files, and then a rollback loses one.
    """

    needs_object_id: bool = True
    """Whether names are made of ``object_id``. Then a file whose owner has no identifier yet is uploaded after its
    INSERT; otherwise all files of a flush go up before its first statement."""

    has_signed_urls: bool = False
    """Whether URLs carry a signature, to which nothing can be appended."""

    @abstractmethod
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
        """Put a file, whole or not at all.

        Args:
            file: Bytes, or a sync or async readable; read from where it stands, not closed.
                :func:`~aioimageattach.file.as_reader` makes one kind of all of them.
            object_type: What kind of picture.
            object_id: Whose; ``None`` only where :attr:`needs_object_id` is false.
            width: In pixels.
            height: In pixels.
            mimetype: Such as ``"image/jpeg"``.
            reproducible: Whether the file can be made again, as thumbnails can.
            revision: Which upload; has to be part of the name.

        Raises:
            StoreError: It could not be done, and nothing stands under the name.

        Effects: On an error or a cancellation nothing stands under the name, and nothing will appear there later;
        :func:`finish` helps where the work goes on in a thread.
        """

    @abstractmethod
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
        """Open a file; the caller closes it.

        Raises:
            StoreFileNotFoundError: There is none.
            StoreError: It could not be opened.
        """

    @abstractmethod
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
        """Return the file's URL by calculation alone, whether the file is there or not."""

    @abstractmethod
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
        """Delete a file; one that is not there is no error.

        Raises:
            StoreError: It could not be done.
        """

    def make_revision(self) -> str:
        """Return a new revision; see :func:`aioimageattach.key.make_revision`."""
        return make_revision()

    def reads_from(self, other: Store) -> bool:
        """Whether a file of another store is seen here by itself, so that copying it here would do nothing."""
        return other is self

    @final
    async def store(self, image: Stored, file: Source) -> None:
        """Put the file of an image; see :meth:`put_file`."""
        await self.put(image.key, file, reproducible=image.reproducible)

    @final
    async def open(self, image: Stored, use_seek: bool = False) -> AsyncFile:
        """Open the file of an image: an async context manager and iterator with ``read`` and ``readline``.

        Args:
            image: The image.
            use_seek: Whether to have ``seek`` and ``tell`` too; a file that has none is read into a spool first.

        Raises:
            StoreFileNotFoundError: The store has no such file.
        """
        key = image.key
        file = await self.get_file(
            key.object_type, key.object_id, key.width, key.height, key.mimetype, revision=key.revision
        )
        if not use_seek or hasattr(file, "seek"):
            return file
        async with file:
            return (await Spool.fill(file)).open()

    @final
    async def delete(self, image: Stored) -> None:
        """Delete the file of an image; see :meth:`delete_file`."""
        await self.discard(image.key)

    @final
    def locate(self, image: Stored) -> str:
        """Return the URL of an image: a calculation, with no query and no I/O.

        Where the revision does not stand in the URL, ``_ts`` is appended, so that a cache lets go of the old file;
        not to a signed URL, which would no longer be valid.
        """
        key = image.key
        url = self.get_url(key.object_type, key.object_id, key.width, key.height, key.mimetype, revision=key.revision)
        if self.has_signed_urls or (key.revision is not None and key.revision in url):
            return url
        url, hash_, fragment = url.partition("#")
        stamp = image.created_at.strftime("%Y%m%d%H%M%S%f")
        return f"{url}{'&' if '?' in url else '?'}_ts={stamp}{hash_}{fragment}"

    @final
    async def put(self, key: ImageKey, file: Source, *, reproducible: bool) -> None:
        """:meth:`put_file` by key."""
        await self.put_file(
            file,
            key.object_type,
            key.object_id,
            key.width,
            key.height,
            key.mimetype,
            reproducible,
            revision=key.revision,
        )

    @final
    async def discard(self, key: ImageKey) -> None:
        """:meth:`delete_file` by key."""
        await self.delete_file(
            key.object_type, key.object_id, key.width, key.height, key.mimetype, revision=key.revision
        )


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What a store says of a file of a name."""

    name: str
    size: int
    modified_at: datetime


class KeyedStore(Store):
    """A store of files by name, which images are one use of.

    Names are segments joined by ``/``; see :func:`~aioimageattach.key.check_name`. The four methods of
    :class:`Store` are written here over the six below.
    """

    needs_object_id = False

    @abstractmethod
    async def put_object(
        self, name: str, data: Source, *, mimetype: str = "application/octet-stream", reproducible: bool = False
    ) -> None:
        """Put a file whole or not at all, under a name that no file has yet.

        Args:
            name: The name.
            data: See :data:`~aioimageattach.file.Source`; not closed.
            mimetype: What a server is to say of it.
            reproducible: Whether it can be made again.

        Raises:
            StoreFileExistsError: The name is taken; the file there is unchanged.
            InvalidKeyError: No file may have that name; nothing was read.
            StoreError: It could not be done.

        Effects: On return the file is there for everybody, and on disk. On an error or a cancellation nothing stands
        under the name, and nothing will appear there later.
        """

    @abstractmethod
    async def get_object(self, name: str, *, start: int = 0, end: int | None = None) -> AsyncFile:
        """Open a file, or the bytes from ``start`` up to but not including ``end`` of it; the caller closes it.

        Raises:
            StoreFileNotFoundError: There is none.
            InvalidKeyError: No file may have that name.
            ValueError: ``start`` is negative or beyond ``end``.
        """

    @abstractmethod
    async def head_object(self, name: str) -> ObjectInfo:
        """Return a file's size and time of change.

        Raises:
            StoreFileNotFoundError: There is none.
        """

    @abstractmethod
    async def delete_object(self, name: str) -> None:
        """Delete a file; one that is not there is no error."""

    @abstractmethod
    def list_objects(self, prefix: str = "", *, start_after: str = "") -> AsyncIterator[ObjectInfo]:
        """Iterate over the files whose names begin with ``prefix``, in order of name, in constant memory.

        Args:
            prefix: Compared by character, so ``"a"`` finds ``"ab"`` too; empty for all.
            start_after: Only names after this one, which need not exist.
        """

    @abstractmethod
    def url_of(self, name: str) -> str:
        """Return the URL of a name by calculation alone."""

    async def delete_objects(self, names: Iterable[str]) -> dict[str, StoreError]:
        """Delete many files; return the error of each that could not be deleted."""
        failed: dict[str, StoreError] = {}
        for name in names:
            try:
                await self.delete_object(name)
            except StoreError as error:
                failed[name] = error
        return failed

    async def copy_from(
        self,
        source: KeyedStore,
        source_name: str,
        name: str,
        *,
        mimetype: str = "application/octet-stream",
        reproducible: bool = False,
    ) -> bool:
        """Copy a file of another store where its bytes need not come by here, as within one server.

        Args:
            source: The other store.
            source_name: The name of the file there.
            name: The name of the copy, which no file has yet.
            mimetype: As for :meth:`put_object`.
            reproducible: As for :meth:`put_object`.

        Returns:
            Whether that was done. If not, nothing was: read the file and put it.

        Raises:
            StoreFileExistsError: The name is taken.
            StoreFileNotFoundError: There is nothing to copy.
            StoreError: It could not be done, and reading and putting would not help.
        """
        return False

    async def discard_unfinished(self, before: datetime) -> int:
        """Remove what puts have left that were killed, if the store keeps such things; return how many there were.

        Args:
            before: Later ones may still be under way.
        """
        return 0

    def legacy_name(self, key: ImageKey) -> str:
        """Return the name of a key without a revision: the layout of SQLAlchemy-ImageAttach, if the store has one."""
        raise InvalidKeyError(f"this store has no files without a revision: {key!r}", store=repr(self))

    @final
    def name_of(self, key: ImageKey) -> str:
        """Return the name of the file of a key."""
        return self.legacy_name(key) if key.revision is None else file_name(key)

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
        """Put a file under the name of its key; see :meth:`put_object`."""
        name = self.name_of(ImageKey(object_type, object_id, width, height, mimetype, revision))
        await self.put_object(name, file, mimetype=mimetype, reproducible=reproducible)

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
        """Open the file of a key; see :meth:`get_object`."""
        return await self.get_object(self.name_of(ImageKey(object_type, object_id, width, height, mimetype, revision)))

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
        """Return the URL of the file of a key; see :meth:`url_of`."""
        return self.url_of(self.name_of(ImageKey(object_type, object_id, width, height, mimetype, revision)))

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
        """Delete the file of a key; see :meth:`delete_object`."""
        await self.delete_object(self.name_of(ImageKey(object_type, object_id, width, height, mimetype, revision)))
