"""A store that looks like the production bucket and never writes to it."""

from __future__ import annotations

from types import TracebackType
from typing import ClassVar, Self, Unpack

from .._overlay import DELETED_MARK_MIMETYPE, OverlayStore
from ._credentials.sources import CredentialProvider, CredentialSource
from ._options import ClientOptions
from ._store import DEFAULT_MAX_AGE, S3Store

__all__ = ["S3SandboxStore"]


class S3SandboxStore(OverlayStore):
    """An :class:`~aioimageattach.stores.OverlayStore` of two buckets.

    A deleted file of the bucket below is hidden by an empty object of the type :attr:`DELETED_MARK_MIMETYPE` above.
    Keys that may only read are enough for the bucket below.

    Args:
        underlying: The bucket to read from: its name, or a store.
        overriding: The bucket to write to: its name, or a store.
        access_key: For both buckets, where they are given by name; as with
            :class:`~aioimageattach.stores.s3.S3Store`.
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

    DELETED_MARK_MIMETYPE: ClassVar[str] = DELETED_MARK_MIMETYPE
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
        credentials: CredentialSource | CredentialProvider | None = None,
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
        places = {(one.bucket, one.prefix, one.client.endpoint.server) for one in (self.underlying, self.overriding)}
        if len(places) == 1:
            raise ValueError(f"overriding: expected another bucket or prefix than underlying, got {self.overriding!r}")
        super().__init__(self.overriding, self.underlying)

    async def connect(self) -> None:
        """Fetch what signed URLs need; see :meth:`S3Store.connect() <aioimageattach.stores.s3._store.S3Store.connect>`.

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
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.aclose()
