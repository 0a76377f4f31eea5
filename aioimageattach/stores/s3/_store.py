"""A store that keeps files in an S3 bucket."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator, Hashable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Final, Unpack
from urllib.parse import quote

from ..._http.disposition import attachment
from ..._names import check_mimetype, check_name, is_own_name
from ..._telemetry import GET, PUT, log_fields
from ...exc import (
    DeclarationError,
    InvalidKeyError,
    StoreError,
    StoreFileExistsError,
    StoreFileNotFoundError,
    StoreUnavailableError,
)
from ...file import Source as FileSource
from ...key import ImageKey, guess_extension
from ...store import KeyedStore, ObjectInfo
from ._client import S3Client
from ._credentials.sources import CredentialProvider, Credentials, CredentialSource
from ._errors import is_unsupported
from ._http.endpoint import BASE_URL_FORMAT
from ._options import ClientOptions, Description, object_headers
from ._reader import ObjectFile
from ._signing.presigner import Window

__all__ = ["DEFAULT_MAX_AGE", "INLINE_TYPES", "S3Store"]

_log = logging.getLogger("aioimageattach.stores.s3")

DEFAULT_MAX_AGE: Final = 365 * 24 * 60 * 60
"""How long browsers and proxies may cache a file, in seconds: one year, because files never change."""

INLINE_TYPES: Final = frozenset(
    {"image/avif", "image/gif", "image/heic", "image/jpeg", "image/png", "image/tiff", "image/webp"}
)
"""MIME types that browsers may display. Other types may contain scripts, so their files are stored as downloads."""

_MAX_DESCRIBED: Final = 64
_BASE_URL: Final = re.compile(
    r"https?://(?:[A-Za-z0-9][A-Za-z0-9.-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?(?:/[A-Za-z0-9._~%!$&'()*+,;=:@/-]*)?",
    re.ASCII,
)


def _given_credentials(
    credentials: CredentialSource | CredentialProvider | None,
    access_key: str | None,
    secret_key: str | None,
    token: str | None,
) -> CredentialSource | CredentialProvider | None:
    """Return the credentials given in the arguments of a store, or ``None``."""
    if credentials is not None:
        if access_key is not None or secret_key is not None or token is not None:
            raise ValueError("credentials: expected None with access_key, secret_key or token")
        return credentials
    if access_key is not None and secret_key is not None:
        return Credentials(access_key, secret_key, token)
    if access_key is not None or secret_key is not None or token is not None:
        raise ValueError("access_key and secret_key: expected both or neither, and token only with both")
    return None


def _checked_base_url(url: str) -> str:
    if not _BASE_URL.fullmatch(url):
        raise ValueError(
            "public_base_url: expected http(s)://host[:port][/path], percent-encoded, without a user and a query, such "
            f"as 'https://img.example.com', got {url.rpartition('@')[2]!r:.120}"
        )
    return url.rstrip("/")


class S3Store(KeyedStore):
    """A store that keeps files in a bucket on Amazon S3 or an S3-compatible server.

    Connections are opened on demand and closed by ``async with`` or :meth:`aclose`.

    Args:
        bucket: The name of the bucket, or the alias of an access point.
        access_key: The access key ID; requires ``secret_key``. ``None`` means that ``credentials`` is used.
        secret_key: The secret access key; requires ``access_key``.
        max_age: How long browsers and proxies may cache a file, in seconds; ``None`` omits ``Cache-Control``.
        prefix: A folder in the bucket that all files are kept in.
        public_base_url: The URL that names are appended to, such as that of a CDN.
        region: The bucket's region; ``None`` detects it, see :class:`~aioimageattach.stores.s3.S3Client`.
        max_retry: How often a request is retried after a transient error.
        credentials: One of the sources of this module, or an asynchronous callable that returns
            :class:`~aioimageattach.stores.s3.Credentials`, instead of ``access_key`` and ``secret_key``. ``None`` means
            the environment, the shared files, and whatever botocore finds.
        token: The session token, if ``access_key`` is temporary.
        url_expires_in: Sign URLs, as a private bucket requires, and keep them valid for at least this long, in seconds.
            ``None`` returns unsigned URLs.
        url_window: How long a signed URL stays the same, in seconds, so that caches can reuse it; ``None`` means
            ``url_expires_in``.
        storage_class: The storage class of files, such as ``"STANDARD_IA"``; ``None`` means the bucket's default.
        reproducible_storage_class: The storage class of files that can be created again, such as thumbnails, for
            example ``"ONEZONE_IA"`` or ``"REDUCED_REDUNDANCY"``; ``None`` means ``storage_class``.
        acl: The canned ACL of files, such as ``"public-read"``; buckets reject ACLs unless they are configured to
            accept them.
        options: Options of the server and of the connections; see :class:`~aioimageattach.stores.s3.S3Client`.

    Raises:
        ValueError: An argument is out of range, or two arguments are incompatible.
    """

    def __init__(
        self,
        bucket: str,
        access_key: str | None = None,
        secret_key: str | None = None,
        max_age: int | None = DEFAULT_MAX_AGE,
        prefix: str = "",
        public_base_url: str | None = None,
        region: str | None = None,
        max_retry: int = 5,
        *,
        credentials: CredentialSource | CredentialProvider | None = None,
        token: str | None = None,
        url_expires_in: int | None = None,
        url_window: int | None = None,
        storage_class: str | None = None,
        reproducible_storage_class: str | None = None,
        acl: str | None = None,
        **options: Unpack[ClientOptions],
    ) -> None:
        credentials = _given_credentials(credentials, access_key, secret_key, token)
        if public_base_url is not None and url_expires_in is not None:
            raise ValueError("public_base_url: expected None with url_expires_in, because its URLs are not signed")
        if max_age is not None and max_age < 0:
            raise ValueError(f"max_age: expected at least 0 seconds, got {max_age!r}")
        self._window = None if url_expires_in is None else Window(url_expires_in, url_window)
        if self._window is None and url_window is not None:
            raise ValueError("url_window: expected None without url_expires_in, because it applies to signed URLs only")
        self.max_age = max_age
        self.max_retry = max_retry
        self.prefix: str = prefix.strip("/")
        if self.prefix:
            check_name(self.prefix)
        self.public_base_url = public_base_url
        self._base_url = None if public_base_url is None else _checked_base_url(public_base_url)
        self._storage_class = storage_class
        self._reproducible_storage_class = reproducible_storage_class or storage_class
        self._acl = acl
        self.client: S3Client = S3Client(
            bucket,
            credentials,
            region=region,
            prefix=f"{self.prefix}/" if self.prefix else "",
            max_retry=max_retry,
            **options,
        )
        self.has_signed_urls: bool = self._window is not None
        self._warned: set[str] = set()
        self._described: dict[tuple[str, bool], Mapping[str, str]] = {}

    @property
    def bucket(self) -> str:
        """The name of the bucket."""
        return self.client.bucket

    @property
    def region(self) -> str:
        """The region that requests are signed for."""
        return self.client.region

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.bucket!r}{f' under {self.prefix!r}' if self.prefix else ''}>"

    # --- life cycle --------------------------------------------------------------------------------------------------

    async def connect(self) -> None:
        """Fetch the credentials and the region, unless they are known; signed URLs need both.

        Raises:
            StoreError: There are no credentials, or the server does not respond.

        Effects: Credentials that expire are renewed in the background from now on, until :meth:`aclose` is called.
        """
        await self.client.connect()

    async def aclose(self) -> None:
        """Close the connections of this event loop, and stop renewing credentials; the store can be used again."""
        await self.client.aclose()

    # --- files by name -----------------------------------------------------------------------------------------------

    async def put_object(
        self, name: str, data: FileSource, *, mimetype: str = "application/octet-stream", reproducible: bool = False
    ) -> None:
        """Create a file atomically; never overwrite an existing one.

        Args:
            name: The name; at most 1,024 bytes, including the prefix.
            data: The content. Bytes and spooled files are sent directly; any other source is read to its end first.
            mimetype: The ``Content-Type`` of the file; types that are not in :data:`INLINE_TYPES` are stored as
                downloads.
            reproducible: ``True`` if the file can be created again; if so, ``reproducible_storage_class`` applies.

        Raises:
            StoreFileExistsError: The name is taken; the existing file is unchanged.
            InvalidKeyError: The name is invalid; nothing was read.
            StoreUnavailableError: Every attempt failed, or the responses were not those of an S3 server.
            StorePermissionError: The server denied access.

        Effects: On return, the file is visible to all clients. After an error or a cancellation, no file has the name,
        unless the server stopped responding: then the file may be left behind.
        """
        check_name(name)
        with PUT(store="s3"):
            await self.client.create_described(name, data, self._object_headers(mimetype, reproducible))

    def _object_headers(self, mimetype: str, reproducible: bool) -> Mapping[str, str]:
        """Return the headers that describe a file; they depend only on the arguments, so they are cached."""
        found = self._described.get((mimetype, reproducible))
        if found is None:
            found = object_headers(self.describe(mimetype, reproducible))
            if len(self._described) < _MAX_DESCRIBED:
                self._described[mimetype, reproducible] = found
        return found

    def describe(self, mimetype: str, reproducible: bool) -> Description:
        """Return the description that a file of this MIME type is stored with."""
        scope = "private" if self.has_signed_urls else "public"
        return {
            "content_type": check_mimetype(mimetype),
            "cache_control": None if self.max_age is None else f"{scope}, max-age={self.max_age}, immutable",
            "content_disposition": None if mimetype in INLINE_TYPES else "attachment",
            "storage_class": self._reproducible_storage_class if reproducible else self._storage_class,
            "acl": self._acl,
        }

    async def get_object(self, name: str, *, start: int = 0, end: int | None = None) -> ObjectFile:
        """Open a file, or its bytes from ``start`` up to but not including ``end``; the caller closes it.

        The file occupies a connection until it is closed.

        Raises:
            StoreFileNotFoundError: The file does not exist.
            InvalidKeyError: The name is invalid.
            ValueError: ``start`` is negative or greater than ``end``.
        """
        check_name(name)
        with GET(store="s3"):
            return await self.client.open(name, start=start, end=end)

    async def head_object(self, name: str) -> ObjectInfo:
        """Return a file's size and modification time.

        Raises:
            StoreFileNotFoundError: The file does not exist.
        """
        head = await self.client.head(check_name(name))
        return ObjectInfo(name, head.size, head.modified_at)

    async def delete_object(self, name: str) -> None:
        """Delete a file; do nothing if it does not exist."""
        await self.client.delete(check_name(name))

    async def delete_objects(self, names: Iterable[str]) -> dict[str, StoreError]:
        """Delete many files, up to 1,000 per request; return the errors of those that were not deleted, by name."""
        failed: dict[str, StoreError] = {}

        def valid() -> Iterable[str]:
            for name in names:
                try:
                    yield check_name(name)
                except InvalidKeyError as error:
                    failed[name] = error

        return {**await self.client.delete_many(valid()), **failed}

    async def list_objects(self, prefix: str = "", *, start_after: str = "") -> AsyncIterator[ObjectInfo]:
        """Iterate over the files whose names start with ``prefix``, in order of name, 1,000 per request.

        Keys that are not valid names, such as those of empty folders, are skipped.

        Args:
            prefix: Compared by character, so ``"a"`` also matches ``"ab"``; empty matches all names.
            start_after: Return only names after this one; it need not exist.
        """
        async for found in self.client.list(prefix, start_after=start_after):
            try:
                check_name(found.key)
            except InvalidKeyError:
                continue
            yield ObjectInfo(found.key, found.size, found.modified_at.replace(microsecond=0))

    async def copy_from(
        self,
        source: KeyedStore,
        source_name: str,
        name: str,
        *,
        mimetype: str = "application/octet-stream",
        reproducible: bool = False,
    ) -> bool:
        """Copy a file within the server; return whether that was possible.

        It is possible if the other store is on the same server and this store's credentials may read from it. The copy
        gets the headers and the storage class that :meth:`put_object` would give it.

        Raises:
            StoreFileExistsError: The name is taken.
            StoreFileNotFoundError: The source does not exist.
            StoreUnavailableError: Every attempt failed.

        Effects: After an error or a cancellation, no copy is left, unless the server stopped responding.
        """
        check_name(name)
        check_name(source_name)
        if not isinstance(source, S3Store) or not self.client.can_read(source.client):
            return False
        try:
            await self.client.copy(
                source_name,
                name,
                source_client=source.client,
                only_new=True,
                **self.describe(mimetype, reproducible),
            )
        except (StoreFileExistsError, StoreFileNotFoundError, StoreUnavailableError):
            raise
        except StoreError as error:  # no read permission, copies not supported, or the file is too large
            self._warn("copies", "this process reads and puts the files, because the server does not copy them", error)
            return False
        return True

    def _warn(self, topic: str, text: str, error: StoreError) -> None:
        """Log a feature that the server lacks, as a warning the first time and at level DEBUG from then on."""
        level = logging.DEBUG if topic in self._warned else logging.WARNING
        self._warned.add(topic)
        _log.log(level, "%r: %s: %s", self, text, error, extra=log_fields("s3.unsupported", error))

    async def abort_uploads(self, older_than: timedelta = timedelta(days=1), prefix: str = "") -> int:
        """Abort the multipart uploads that killed processes left behind, and free their parts; return their number.

        Uploads with names that this library does not generate belong to other programs and are left alone. If the
        server cannot list uploads, a warning is logged and nothing is aborted.

        Args:
            older_than: Minimum age of an upload; newer ones may still be in progress.
            prefix: Abort only uploads of files whose names start with this.
        """
        latest = self.client.now() - older_than
        aborted = 0
        try:
            async for upload in self.client.list_uploads(prefix):
                if upload.initiated_at < latest and is_own_name(upload.key):
                    await self.client.abort_upload(upload.key, upload.upload_id)
                    aborted += 1
        except StoreError as error:
            if not is_unsupported(error):
                raise
            self._warn(
                "uploads", "unfinished uploads are not aborted; configure a lifecycle rule for the bucket", error
            )
        return aborted

    async def discard_unfinished(self, before: datetime, prefix: str = "") -> int:
        """Abort the multipart uploads that were started before a time; see :meth:`abort_uploads`."""
        return await self.abort_uploads(self.client.now() - before, prefix)

    async def _copy_within(self, old: str, new: str) -> None:
        """Copy a file within the server."""
        await self.client.copy(check_name(old), check_name(new), only_new=True)

    def location_of(self, object_type: str | None = None) -> frozenset[Hashable]:
        """Return the server, the bucket and the prefix."""
        return frozenset({("s3", self.client.endpoint.server, self.bucket, self.prefix)})

    # --- URLs and old names ------------------------------------------------------------------------------------------

    def url_of(self, name: str) -> str:
        """Return the URL of a file, without I/O; it is signed if the store has ``url_expires_in``.

        Unsigned URLs of a bucket at Amazon use the host of its region. While the region is unknown they use the global
        host, which works only for regions that existed before March 2019; pass ``region=`` to avoid this.

        Raises:
            StoreError: The URL must be signed, but the credentials or the region are not known; see :meth:`connect`.
        """
        check_name(name)
        if self._window is not None:
            return self.client.presign("GET", name, expires_in=self._window.expires_in, window=self._window.width)
        if self._base_url is not None:
            return f"{self._base_url}/{quote(self.client.prefix + name, safe='/~')}"
        if self.client.is_region_known or self.client.endpoint.path_style:
            return self.client.url(name)
        return f"{BASE_URL_FORMAT.format(self.bucket)}/{quote(self.client.prefix + name, safe='/~')}"

    def download_url_of(self, name: str, filename: str) -> str:
        """Return a signed URL that makes browsers save the file instead of displaying it, without I/O.

        Args:
            name: The name of the file.
            filename: The name that browsers save it under, such as ``"cat.jpg"``.

        Raises:
            DeclarationError: The store has no ``url_expires_in``; S3 accepts a download name only in signed URLs.
            ValueError: ``filename`` is not a valid file name.
            StoreError: The credentials or the region are not known; see :meth:`connect`.
        """
        check_name(name)
        if self._window is None:
            raise DeclarationError(f"{self!r}: expected url_expires_in, because only signed URLs can name a download")
        return self.client.presign(
            "GET",
            name,
            expires_in=self._window.expires_in,
            window=self._window.width,
            query={"response-content-disposition": attachment(filename)},
        )

    def legacy_name(self, key: ImageKey) -> str:
        """Return the name that SQLAlchemy-ImageAttach gave to the file of a key, relative to its prefix.

        Raises:
            InvalidKeyError: The key has no ``object_id``, which is part of that name.
        """
        if key.object_id is None:
            raise InvalidKeyError(
                f"key: expected an object_id, which is part of the name without a revision, got {key!r}",
                store=repr(self),
            )
        return f"{key.object_type}/{key.object_id}/{key.width}x{key.height}{guess_extension(key.mimetype)}"
