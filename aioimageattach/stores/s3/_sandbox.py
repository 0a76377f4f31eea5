"""A store that reads from the production bucket and never writes to it."""

from __future__ import annotations

from typing import ClassVar, Unpack

from .._overlay import DELETED_MARK_MIMETYPE, OverlayStore
from ._credentials.sources import CredentialProvider, CredentialSource
from ._options import ClientOptions
from ._store import DEFAULT_MAX_AGE, S3Store

__all__ = ["S3SandboxStore"]


class S3SandboxStore(OverlayStore):
    """An :class:`~aioimageattach.stores.OverlayStore` that consists of two buckets.

    It reads from both buckets and writes only to the overriding one. To delete a file of the underlying bucket, it
    creates an empty object of the MIME type :attr:`DELETED_MARK_MIMETYPE` in the overriding one, which hides the file.
    Read-only credentials suffice for the underlying bucket.

    Options other than the prefixes and regions apply to each bucket that is given by name; see
    :class:`~aioimageattach.stores.s3.S3Store`.

    Args:
        underlying: The bucket to read from: its name, or a store.
        overriding: The bucket to write to: its name, or a store.
        access_key: As for ``S3Store``.
        secret_key: As for ``S3Store``.
        max_age: As for ``S3Store``.
        underlying_prefix: The prefix in the underlying bucket.
        overriding_prefix: The prefix in the overriding bucket.
        underlying_region: The region of the underlying bucket.
        overriding_region: The region of the overriding bucket.
        max_retry: As for ``S3Store``.
        credentials: As for ``S3Store``.
        token: As for ``S3Store``.
        url_expires_in: As for ``S3Store``.
        options: As for ``S3Store``.

    Raises:
        ValueError: Both stores have the same bucket and prefix on the same server.
    """

    DELETED_MARK_MIMETYPE: ClassVar[str] = DELETED_MARK_MIMETYPE
    """The MIME type of the objects that mark a file as deleted."""

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
