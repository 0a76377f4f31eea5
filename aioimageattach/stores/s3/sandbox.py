"""A store that looks like the production bucket and never writes to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from types import TracebackType
from typing import ClassVar, Final, Self, Unpack

from ...exc import InvalidKeyError, StoreError, StoreFileExistsError, StoreFileNotFoundError
from ...file import Source as FileSource
from ...key import ImageKey, check_name, make_revision
from ...store import KeyedStore, ObjectInfo
from .client import ClientOptions
from .credentials import CredentialProvider, Source
from .objects import ObjectHead
from .reader import ObjectFile
from .store import DEFAULT_MAX_AGE, S3Store

__all__ = ["S3SandboxStore"]

_MARK: Final = "-sandbox"
_PARALLEL: Final = 8


class S3SandboxStore(KeyedStore):
    """Reads fall through to one bucket, writes and deletions stay in another: development on production's pictures.

    What is uploaded here gets a revision that ends in ``-sandbox``, so the URL of a file is known without asking where
    it is. A deleted file of the bucket below is hidden by a mark above: an empty object of the type
    :attr:`DELETED_MARK_MIMETYPE` under its name. Keys that may only read are enough for the bucket below.

    Args:
        underlying: The bucket to read from: its name, or a store.
        overriding: The bucket to write to: its name, or a store.
        access_key: For both buckets, where they are given by name; as with
            :class:`~aioimageattach.stores.s3.store.S3Store`.
        secret_key: Likewise.
        max_age: Likewise.
        underlying_prefix: The prefix in the bucket below.
        overriding_prefix: The prefix in the bucket above.
        underlying_region: Where the bucket below is.
        overriding_region: Where the bucket above is.
        max_retry: For both buckets, where they are given by name.
        credentials: Likewise.
        token: Likewise.
        url_expires_in: Likewise.
        options: Likewise.

    Raises:
        ValueError: Both are the same bucket and prefix.
    """

    DELETED_MARK_MIMETYPE: ClassVar[str] = "application/x-sqlalchemy-imageattach-sandbox-deleted"
    """The type of the objects that mark a file as deleted."""

    def __init__(
        self,
        underlying: str | S3Store,
        overriding: str | S3Store,
        access_key: str | None = None,
        secret_key: str | None = None,
        max_age: int | None = DEFAULT_MAX_AGE,
        underlying_prefix: str = "",
        overriding_prefix: str = "",
        underlying_region: str | None = None,
        overriding_region: str | None = None,
        max_retry: int = 5,
        *,
        credentials: Source | CredentialProvider | None = None,
        token: str | None = None,
        url_expires_in: int | None = None,
        **options: Unpack[ClientOptions],
    ) -> None:
        def make(bucket: str | S3Store, prefix: str, region: str | None) -> S3Store:
            if isinstance(bucket, S3Store):
                return bucket
            return S3Store(
                bucket,
                access_key,
                secret_key,
                max_age,
                prefix,
                region=region,
                max_retry=max_retry,
                credentials=credentials,
                token=token,
                url_expires_in=url_expires_in,
                **options,
            )

        self.underlying: S3Store = make(underlying, underlying_prefix, underlying_region)
        self.overriding: S3Store = make(overriding, overriding_prefix, overriding_region)
        places = {(one.bucket, one.prefix, one.client.endpoint.template) for one in (self.underlying, self.overriding)}
        if len(places) == 1:
            raise ValueError(f"overriding: expected another bucket or prefix than underlying, got {self.overriding!r}")
        self.has_signed_urls: bool = self.underlying.has_signed_urls or self.overriding.has_signed_urls

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.overriding!r} over {self.underlying!r}>"

    # --- life --------------------------------------------------------------------------------------------------------

    async def connect(self) -> None:
        """Fetch what signed URLs need; see :meth:`S3Store.connect() <aioimageattach.stores.s3.store.S3Store.connect>`.

        Raises:
            StoreError: There are no credentials, or a server does not answer.
        """
        await self.underlying.connect()
        await self.overriding.connect()

    async def aclose(self) -> None:
        """Close the connections of this event loop to both buckets."""
        await self.underlying.aclose()
        await self.overriding.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    # --- where a file is ---------------------------------------------------------------------------------------------

    def make_revision(self) -> str:
        """Return a new revision, which says that its file is above."""
        return make_revision() + _MARK

    @staticmethod
    def _is_own(name: str) -> bool:
        """Whether the name says that its file can only be above."""
        return name.rpartition("/")[2].partition(".")[0].endswith(_MARK)

    def _is_mark(self, head: ObjectHead) -> bool:
        return head.content_type == self.DELETED_MARK_MIMETYPE

    def _missing(self, name: str) -> StoreFileNotFoundError:
        return StoreFileNotFoundError(f"{name!r} was deleted in the sandbox", store=repr(self), name=name)

    @staticmethod
    async def _look(store: S3Store, name: str) -> ObjectHead | None:
        try:
            return await store.client.head(name)
        except StoreFileNotFoundError:
            return None

    def url_of(self, name: str) -> str:
        """Return the URL of a name by calculation alone: above if the name says so, otherwise below."""
        return (self.overriding if self._is_own(check_name(name)) else self.underlying).url_of(name)

    def legacy_name(self, key: ImageKey) -> str:
        """Return the name that SQLAlchemy-ImageAttach gave the file of a key."""
        return self.underlying.legacy_name(key)

    # --- files by name -----------------------------------------------------------------------------------------------

    async def put_object(
        self, name: str, data: FileSource, *, mimetype: str = "application/octet-stream", reproducible: bool = False
    ) -> None:
        """Put a file above, under a name that no file has yet, here or below.

        Raises:
            StoreFileExistsError: The name is taken.
            StoreError: It could not be done.
        """
        mark = None
        if not self._is_own(check_name(name)):
            mark = await self._look(self.overriding, name)
            taken = not self._is_mark(mark) if mark else await self._look(self.underlying, name) is not None
            if taken:
                raise StoreFileExistsError(
                    f"there is {name!r} already; a file is never overwritten", store=repr(self), name=name
                )
        if mark is None:
            await self.overriding.put_object(name, data, mimetype=mimetype, reproducible=reproducible)
        else:
            description = self.overriding.describe(mimetype, reproducible)
            await self.overriding.client.replace(name, data, if_match=mark.etag, **description)

    async def get_object(self, name: str, *, start: int = 0, end: int | None = None) -> ObjectFile:
        """Open a file, from above if it is there; the arguments are those of :class:`~aioimageattach.store.KeyedStore`.

        Raises:
            StoreFileNotFoundError: It is in neither bucket, or was deleted here.
        """
        if self._is_own(check_name(name)):
            return await self.overriding.get_object(name, start=start, end=end)
        try:
            file = await self.overriding.get_object(name, start=start, end=end)
        except StoreFileNotFoundError:
            return await self.underlying.get_object(name, start=start, end=end)
        if self._is_mark(file.head):
            await file.aclose()
            raise self._missing(name)
        return file

    async def head_object(self, name: str) -> ObjectInfo:
        """Return a file's size and time of change.

        Raises:
            StoreFileNotFoundError: It is in neither bucket, or was deleted here.
        """
        if self._is_own(check_name(name)):
            return await self.overriding.head_object(name)
        head = await self._look(self.overriding, name)
        if head is None:
            return await self.underlying.head_object(name)
        if self._is_mark(head):
            raise self._missing(name)
        return ObjectInfo(name, head.size, head.modified_at)

    async def delete_object(self, name: str) -> None:
        """Delete a file above, and hide one below; one that is not there is no error."""
        if self._is_own(check_name(name)) or await self._look(self.underlying, name) is None:
            await self.overriding.delete_object(name)
        else:
            await self.overriding.client.replace(name, b"", content_type=self.DELETED_MARK_MIMETYPE)

    async def delete_objects(self, names: Iterable[str]) -> dict[str, StoreError]:
        """Delete many files, those above a thousand by a request; return the error of each that failed."""
        own: list[str] = []
        others: list[str] = []
        failed: dict[str, StoreError] = {}
        for name in names:
            try:
                (own if self._is_own(check_name(name)) else others).append(name)
            except InvalidKeyError as error:
                failed[name] = error
        turn = asyncio.Semaphore(_PARALLEL)

        async def delete(name: str) -> None:
            async with turn:
                try:
                    await self.delete_object(name)
                except StoreError as error:
                    failed[name] = error

        await asyncio.gather(*(delete(name) for name in others))
        return failed | await self.overriding.delete_objects(own)

    async def list_objects(self, prefix: str = "", *, start_after: str = "") -> AsyncIterator[ObjectInfo]:
        """Iterate over the files of both buckets whose names begin with ``prefix``, in order of name.

        Args:
            prefix: Compared by character; empty for all.
            start_after: Only names after this one, which need not exist.
        """
        above = aiter(self.overriding.list_objects(prefix, start_after=start_after))
        below = aiter(self.underlying.list_objects(prefix, start_after=start_after))
        upper, lower = await anext(above, None), await anext(below, None)
        while upper is not None or lower is not None:
            if upper is None or (lower is not None and lower.name < upper.name):
                assert lower is not None
                yield lower
                lower = await anext(below, None)
                continue
            if not await self._hides(upper):
                yield upper
            if lower is not None and lower.name == upper.name:
                lower = await anext(below, None)
            upper = await anext(above, None)

    async def _hides(self, found: ObjectInfo) -> bool:
        """Whether an object above is a mark; only empty ones can be, so only they cost a request."""
        if found.size:
            return False
        head = await self._look(self.overriding, found.name)
        return head is None or self._is_mark(head)
