"""The interface of every store: by key, and by the fields of a key."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable
from types import TracebackType
from typing import Any, Protocol, Self, final

from ..exc import DeclarationError
from ..file import AsyncFile, Source, Spool
from ..key import ImageKey, make_revision

__all__ = ["Store", "StoredImage", "cannot_download"]


class StoredImage(Protocol):
    """The attributes of an image row that a store uses."""

    @property
    def key(self) -> ImageKey: ...
    @property
    def reproducible(self) -> bool: ...
    @property
    def created_at(self) -> Any: ...  # a datetime; typed as Any because type checkers see a mapped column


class Store(ABC):
    """The place where files are kept. A new backend implements four methods.

    Files are immutable: every upload has a new ``revision``, which must be part of the name under which the backend
    keeps the file. A backend that leaves it out overwrites files, and then a rollback loses one.

    The library itself calls :meth:`put`, :meth:`get`, :meth:`url_for` and :meth:`discard`, which take the key as one
    object. The default implementations call the four methods that take its fields one by one.
    """

    needs_object_id: bool = True
    """``True`` if names contain ``object_id``. If so, a file whose owner has no identifier yet is uploaded after its
    INSERT; otherwise all files of a flush are uploaded before its first statement."""

    has_signed_urls: bool = False
    """``True`` if URLs are signed, so that nothing can be appended to them."""

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
        """Put a file; either the whole file is put or none of it.

        Args:
            file: Bytes, or a sync or async readable; read from its current position, not closed.
                :func:`~aioimageattach.file.as_reader` provides the same interface for all of them.
            object_type: The kind of image.
            object_id: Identifier of the owner; ``None`` only if :attr:`needs_object_id` is false.
            width: Width in pixels.
            height: Height in pixels.
            mimetype: MIME type, such as ``"image/jpeg"``.
            reproducible: ``True`` if the file can be generated again, as thumbnails can.
            revision: Identifies the upload; must be part of the name.

        Raises:
            StoreError: The file could not be put, and there is no file of that name.

        Effects: On an error or a cancellation there is no file of that name, and none appears later. If the work is
        done in a thread, use :func:`finish` to wait for it.
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

        Args:
            object_type: As for :meth:`put_file`, like all other arguments.
            object_id: See there.
            width: See there.
            height: See there.
            mimetype: See there.
            revision: See there; ``None`` for a file in the layout of SQLAlchemy-ImageAttach.

        Raises:
            StoreFileNotFoundError: The file does not exist.
            StoreError: The file could not be opened.
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
        """Return the URL of a file, which need not exist; for the arguments, see :meth:`get_file`. No I/O."""

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
        """Delete a file; for the arguments, see :meth:`get_file`. A missing file is not an error.

        Raises:
            StoreError: The file could not be deleted.

        Effects: On return, the file no longer exists. After an error or a cancellation, it may or may not exist.
        """

    async def connect(self) -> None:  # noqa: B027 - most stores need not override it
        """Fetch the data that URLs of this store require, such as credentials. By default, do nothing.

        Raises:
            StoreError: The data could not be fetched.
        """

    async def aclose(self) -> None:  # noqa: B027 - most stores need not override it
        """Close the connections of this store. By default, do nothing.

        Effects: The store can be used again, which opens new connections. Closing it twice is not an error.
        """

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.aclose()

    def make_revision(self) -> str:
        """Return a new revision; see :func:`aioimageattach.key.make_revision`."""
        return make_revision()

    def revision_for(self, object_type: str, *, reproducible: bool) -> str:
        """Return a new revision for a file of an object type.

        A store that keeps originals and thumbnails in different places marks the revisions, so that it can tell from
        the name of a file where it is. Other stores return :meth:`make_revision`.

        Args:
            object_type: The object type.
            reproducible: ``True`` if the file is a thumbnail.
        """
        return self.make_revision()

    @property
    @final
    def location(self) -> frozenset[Hashable]:
        """The places where this store keeps files. No I/O.

        A store that does not combine others has one place. Two stores can contain the same file if their locations
        intersect.
        """
        return self.location_of()

    def location_of(self, object_type: str | None = None) -> frozenset[Hashable]:
        """Return the places where the files of an object type are kept; ``None`` for all types. See :attr:`location`.

        Override it if two objects can keep the same files, such as two stores of the same directory.
        """
        return frozenset({self})

    # --- by key ------------------------------------------------------------------------------------------------------

    async def put(self, key: ImageKey, file: Source, *, reproducible: bool) -> None:
        """Put the file of a key; see :meth:`put_file`."""
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

    async def get(self, key: ImageKey) -> AsyncFile:
        """Open the file of a key; see :meth:`get_file`."""
        return await self.get_file(
            key.object_type, key.object_id, key.width, key.height, key.mimetype, revision=key.revision
        )

    def url_for(self, key: ImageKey) -> str:
        """Return the URL of the file of a key; see :meth:`get_url`."""
        return self.get_url(key.object_type, key.object_id, key.width, key.height, key.mimetype, revision=key.revision)

    def download_url_for(self, key: ImageKey, filename: str) -> str:
        """Return a URL under which browsers save a file instead of displaying it. No I/O.

        Override it if the backend can name a download, for example in signed URLs.

        Args:
            key: The key of the file.
            filename: The name that browsers save it under, such as ``"cat.jpg"``.

        Raises:
            DeclarationError: This store cannot name downloads.
            ValueError: ``filename`` is not the name of a file.
        """
        raise cannot_download(self)

    async def discard(self, key: ImageKey) -> None:
        """Delete the file of a key; see :meth:`delete_file`."""
        await self.delete_file(
            key.object_type, key.object_id, key.width, key.height, key.mimetype, revision=key.revision
        )

    # --- by row ------------------------------------------------------------------------------------------------------

    @final
    async def store(self, image: StoredImage, file: Source) -> None:
        """Put the file of an image; see :meth:`put_file`."""
        await self.put(_key_of(image), file, reproducible=image.reproducible)

    @final
    async def open(self, image: StoredImage, use_seek: bool = False) -> AsyncFile:
        """Open the file of an image: an async context manager and iterator with ``read`` and ``readline``.

        Args:
            image: The image.
            use_seek: ``True`` if the file must have ``seek`` and ``tell``; one without them is first read into a spool.

        Raises:
            StoreFileNotFoundError: The store has no such file.
        """
        file = await self.get(_key_of(image))
        if not use_seek or hasattr(file, "seek"):
            return file
        async with file:
            return (await Spool.fill(file)).open()

    @final
    async def delete(self, image: StoredImage) -> None:
        """Delete the file of an image; see :meth:`delete_file`."""
        await self.discard(_key_of(image))

    @final
    def locate(self, image: StoredImage, *, download: str | None = None) -> str:
        """Return the URL of an image. No query and no I/O.

        If the URL does not contain the revision, the parameter ``_ts`` is appended, so that caches do not return an old
        file. Nothing is appended to a signed URL, because that would make the signature invalid.

        Args:
            image: The image.
            download: File name under which browsers save the file instead of displaying it, such as ``"cat.jpg"``; see
                :meth:`download_url_for`.

        Raises:
            DeclarationError: ``download`` is given, and this store cannot name downloads.
            ValueError: ``download`` is not the name of a file.
        """
        key = _key_of(image)
        if download is not None:
            return self.download_url_for(key, download)
        url = self.url_for(key)
        if self.has_signed_urls or (key.revision is not None and key.revision in url):
            return url
        url, hash_, fragment = url.partition("#")
        stamp = image.created_at.strftime("%Y%m%d%H%M%S%f")
        return f"{url}{'&' if '?' in url else '?'}_ts={stamp}{hash_}{fragment}"


def _key_of(image: StoredImage) -> ImageKey:
    if not hasattr(type(image), "key") and "key" not in getattr(image, "__dict__", ()):
        raise DeclarationError(
            f"expected an image, got {image!r:.80}; use put_object(), get_object() and delete_object() for names"
        )
    return image.key


def cannot_download(store: Store) -> DeclarationError:
    return DeclarationError(
        "expected a store with signed URLs, such as S3Store(url_expires_in=...) or "
        f"HttpExposedFileSystemStore(url_secret=...), because only they can name a download, got {store!r}"
    )
