"""A client for one bucket, which signs, streams and retries requests."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial
from types import MappingProxyType, TracebackType
from typing import Final, NoReturn, Self, Unpack
from urllib.parse import quote

import aiohttp

from ...exc import InvalidKeyError, StoreError, StoreFileNotFoundError, StoreMissingError
from ...file import Source as FileSource
from ._copying import CopySource, receive_source
from ._credentials.cache import CredentialCache, utc_now
from ._credentials.profiles import DefaultCredentials
from ._credentials.sources import CredentialProvider, Credentials, CredentialSource, to_source
from ._deletion import Deleter
from ._encryption import Encryption
from ._environment import find_ca_bundle, find_endpoint_url, find_region, find_switch
from ._errors import SignatureVersion
from ._http.body import Body
from ._http.chunked import Algorithm, new_hash
from ._http.endpoint import Endpoint
from ._http.receivers import look_up
from ._http.responses import ListedObject, ListedUpload
from ._http.sender import Progress, Request, Sender, Signer
from ._http.transport import ConnectorFactory, Transport
from ._listing import list_objects, list_uploads
from ._objects import ObjectHead
from ._options import Description, object_headers
from ._reader import ObjectFile, open_object
from ._retry import RetryPolicy
from ._signing.policy import Condition
from ._signing.presigner import PostForm, Window
from ._signing.urls import quote_key
from ._signing.v2 import SignerV2
from ._signing.v4 import SignerV4
from ._upload import CreateOnly, Uploader

__all__ = ["S3Client"]

_NONE: Final[Mapping[str, str]] = MappingProxyType({})
_UNENCRYPTED: Final = Encryption({})
_REQUESTER_PAYS: Final[Mapping[str, str]] = MappingProxyType({"x-amz-request-payer": "requester"})


def _key(prefix: str, label: str, name: str) -> str:
    if not isinstance(name, str):
        raise InvalidKeyError(f"name: expected a str, got {name!r:.80}", store=label)
    key = prefix + name
    quote_key(key)
    return key


class S3Client:
    """A client for one bucket, or for the objects under a prefix. Several event loops may share it.

    Connections are opened on demand; :meth:`aclose` or ``async with`` closes those of the current event loop.

    Args:
        bucket: The name of the bucket, or the alias of an access point.
        credentials: The :class:`~aioimageattach.stores.s3.Credentials`, one of the sources of this module, or an
            asynchronous callable that returns credentials. ``None`` means
            :class:`~aioimageattach.stores.s3.DefaultCredentials`.
        region: The bucket's region. ``None`` means ``AWS_REGION``, ``AWS_DEFAULT_REGION`` or the region of the profile;
            failing these, ``us-east-1`` until the server reports another region, which is used from then on.
        prefix: A string that is prepended to each name to form the object's key.
        max_retry: How often a request is retried after a transient error.
        endpoint_url: The URL of the server; ``{region}`` in it is replaced by the region. ``None`` means
            ``AWS_ENDPOINT_URL_S3`` or ``AWS_ENDPOINT_URL`` (unless ``AWS_IGNORE_CONFIGURED_ENDPOINT_URLS`` is
            ``true``), or else Amazon.
        path_style: See :class:`~aioimageattach.stores.s3._http.endpoint.Endpoint`.
        dual_stack: Use Amazon's endpoints with IPv6 addresses; ``None`` means ``AWS_USE_DUALSTACK_ENDPOINT``.
        fips: Use Amazon's endpoints with FIPS-validated cryptography; ``None`` means ``AWS_USE_FIPS_ENDPOINT``.
        accelerate: Use Amazon's Transfer Acceleration, which must be enabled for the bucket.
        requester_pays: Agree to pay for requests to a requester-pays bucket; signed URLs then include this agreement.
        signature_version: ``"v4"``, or ``"v2"`` for old servers that support only that.
        sign_payload: ``True`` if signatures cover request bodies, which requires their SHA-256; ``None`` means only
            without TLS.
        create_only: How :meth:`create` and copies detect that a name is taken. ``"if-none-match"`` lets the server
            check. ``"head"`` is for servers that do not support this header; with it, two clients that put the same
            name concurrently may overwrite each other's object.
        bulk_delete: ``True`` if the server supports deleting many keys in one request. If it rejects such a request as
            unsupported, the client deletes keys one by one from then on.
        checksum: The checksum that the server verifies and returns on each upload, and that the client verifies when it
            reads a whole object. ``None`` disables checksums, which works with every server. ``"crc32c"`` and
            ``"crc64nvme"`` require awscrt.
        encryption: The server-side encryption of objects.
        multipart_threshold: Smallest object that is uploaded in parts, in bytes.
        part_size: Size of a part, in bytes; most servers require at least 5 MiB.
        parallel_parts: How many parts of one object are sent concurrently.
        timeout: Limit on all attempts of a request together, in seconds; each part is a separate request.
        connect_timeout: Limit on establishing a connection, in seconds.
        read_timeout: How long a connection may make no progress in either direction, in seconds.
        max_connections: Largest number of connections per event loop.
        ssl_context: The SSL context that verifies certificates; ``None`` means the certificates in the file
            ``AWS_CA_BUNDLE``, or else Python's defaults.
        proxy: The URL of an HTTP proxy, including its user name and password if it requires them.
        trust_env: ``True`` to use the proxies in ``HTTPS_PROXY``, ``HTTP_PROXY`` and ``NO_PROXY``; credentials are
            never read from ``.netrc``.
        connector: A callable that returns aiohttp's connector, instead of ``max_connections`` and ``ssl_context``.
        clock: Returns the current time.

    Raises:
        ValueError: An argument is out of range, or does not form a valid URL.
        DeclarationError: The library that computes the checksum is not installed.
    """

    def __init__(
        self,
        bucket: str,
        credentials: CredentialSource | CredentialProvider | None = None,
        *,
        region: str | None = None,
        prefix: str = "",
        max_retry: int = 5,
        endpoint_url: str | None = None,
        path_style: bool | None = None,
        dual_stack: bool | None = None,
        fips: bool | None = None,
        accelerate: bool = False,
        requester_pays: bool = False,
        signature_version: SignatureVersion = "v4",
        sign_payload: bool | None = None,
        create_only: CreateOnly = "if-none-match",
        bulk_delete: bool = True,
        checksum: Algorithm | None = None,
        encryption: Encryption | None = None,
        multipart_threshold: int = 16 * 1024 * 1024,
        part_size: int = 8 * 1024 * 1024,
        parallel_parts: int = 3,
        timeout: float = 120.0,
        connect_timeout: float = 5.0,
        read_timeout: float = 30.0,
        max_connections: int = 100,
        ssl_context: ssl.SSLContext | None = None,
        proxy: str | None = None,
        trust_env: bool = False,
        connector: ConnectorFactory | None = None,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        for label, value in (
            ("multipart_threshold", multipart_threshold),
            ("part_size", part_size),
            ("parallel_parts", parallel_parts),
            ("connect_timeout", connect_timeout),
            ("read_timeout", read_timeout),
            ("max_connections", max_connections),
        ):
            if not value > 0:
                raise ValueError(f"{label}: expected more than 0, got {value!r}")
        for label, choice, choices in (
            ("signature_version", signature_version, ("v4", "v2")),
            ("create_only", create_only, ("if-none-match", "head")),
        ):
            if choice not in choices:
                raise ValueError(f"{label}: expected one of {', '.join(map(repr, choices))}, got {choice!r}")
        if checksum is not None:
            new_hash(checksum)
        if endpoint_url is None and not (dual_stack or fips or accelerate):
            endpoint_url = find_endpoint_url()
        if endpoint_url is None:
            dual_stack = find_switch("AWS_USE_DUALSTACK_ENDPOINT") if dual_stack is None else dual_stack
            fips = find_switch("AWS_USE_FIPS_ENDPOINT") if fips is None else fips
        region = region or find_region()
        endpoint = Endpoint(bucket, endpoint_url, path_style, bool(dual_stack), bool(fips), accelerate)
        self.bucket = bucket
        self.prefix = prefix
        self.endpoint = endpoint
        self._label = f"<S3 bucket {bucket!r} at {endpoint.label}>"
        self._key = partial(_key, prefix, self._label)  # not a method: a bound method would keep the client alive
        self._checksum: Algorithm | None = checksum
        self._encryption = encryption or _UNENCRYPTED
        if self._encryption.read and not endpoint.is_encrypted:
            raise ValueError("encryption: expected an https endpoint_url with a customer key, got an http one")
        source = DefaultCredentials(region=region) if credentials is None else to_source(credentials)
        self.credentials: CredentialCache = CredentialCache(source, clock=clock)

        def make_signer(name: str) -> Signer:
            return SignerV4(name) if signature_version == "v4" else SignerV2(bucket)

        self._sender = Sender(
            endpoint,
            region,
            make_signer,
            self.credentials,
            policy=RetryPolicy(max_retry=max_retry, timeout=timeout),
            transport=Transport(
                connect_timeout=connect_timeout,
                max_connections=max_connections,
                ssl_context=find_ca_bundle() if ssl_context is None and connector is None else ssl_context,
                proxy=proxy,
                trust_env=trust_env,
                connector=connector,
                label=self._label,
            ),
            read_timeout=read_timeout,
            sign_payload=not endpoint.is_encrypted if sign_payload is None else sign_payload,
            headers=_REQUESTER_PAYS if requester_pays else _NONE,
            clock=clock,
            label=self._label,
        )
        self._uploader = Uploader(
            self._sender,
            partial(list_uploads, self._sender, ""),
            threshold=multipart_threshold,
            part_size=part_size,
            parallel=parallel_parts,
            checksum=checksum,
            encryption=self._encryption,
            create_only=create_only,
        )
        self._deleter = Deleter(self._sender, self._key, prefix=prefix, bulk=bulk_delete)

    def __repr__(self) -> str:
        return self._label

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"{self._label} cannot be pickled, because it has connections and credentials: create the client or the "
            "store in the process that uses it"
        )

    # --- life --------------------------------------------------------------------------------------------------------

    @property
    def region(self) -> str:
        """The region that requests are signed for."""
        return self._sender.region

    def now(self) -> datetime:
        """Return the current time, corrected by the server's clock if its offset is known."""
        return self._sender.now()

    @property
    def is_region_known(self) -> bool:
        """``True`` if the region was given, configured or detected, or is not needed for URLs."""
        return self._sender.is_region_known

    async def connect(self) -> None:
        """Fetch the credentials, and detect the bucket's region if none was given; signed URLs need both.

        Raises:
            StorePermissionError: There are no credentials.
            StoreError: The request for the region failed.

        Effects: The credentials are renewed in the background from now on, until :meth:`aclose` is called.
        """
        await self.credentials.get()
        await self._sender.find_region()
        if self.is_region_known:
            return

        async def receive(response: aiohttp.ClientResponse, progress: Progress) -> str | None:
            return response.headers.get("x-amz-bucket-region")

        accepted = frozenset({200, 403, 404})
        region = await self._sender.send(Request("HEAD", "find the region of the bucket", accepted=accepted), receive)
        self._sender.set_region(region or self.region)

    async def aclose(self) -> None:
        """Close the connections of this event loop, and stop renewing credentials; the client can be used again."""
        await self.credentials.aclose()
        await self._sender.transport.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.aclose()

    # --- objects -----------------------------------------------------------------------------------------------------

    async def create(self, name: str, data: FileSource, **description: Unpack[Description]) -> str:
        """Create an object atomically, never overwriting an existing one; return its ETag.

        Args:
            name: The name.
            data: Bytes, or a source that bytes can be read from; it is not closed.
            description: The description of the object. ``content_type`` (by default ``"application/octet-stream"``),
                ``cache_control`` and ``content_disposition`` are sent as headers of responses. ``metadata`` is kept
                with the object. ``storage_class`` is a storage class such as ``"STANDARD_IA"``. ``acl`` is a canned ACL
                such as ``"public-read"``, which many buckets reject.

        Raises:
            StoreFileExistsError: The name is taken; the existing object is unchanged.
            StoreError: The upload failed.

        Effects: After an error or a cancellation, no object is left, unless the server stopped responding.
        """
        return await self.create_described(name, data, object_headers(description))

    async def create_described(self, name: str, data: FileSource, headers: Mapping[str, str]) -> str:
        """Create an object like :meth:`create`, with headers that were built before and can be reused.

        Args:
            name: The name.
            data: Bytes, or a source that bytes can be read from; it is not closed.
            headers: The result of :func:`~aioimageattach.stores.s3._options.object_headers`.
        """
        return await self._uploader.create(self._key(name), name, await Body.of(data), headers)

    async def replace(
        self,
        name: str,
        data: FileSource,
        *,
        if_match: str | None = None,
        **description: Unpack[Description],
    ) -> str:
        """Put an object, replacing any that has the name; return its ETag. Other arguments are those of :meth:`create`.

        Args:
            if_match: The ETag of the object to replace; if the current object has another ETag, it is not replaced.

        Raises:
            StoreFileExistsError: The ETag of the existing object differs from ``if_match``.
            StoreError: The upload failed; after a network error the object may have been replaced nevertheless.
        """
        key, headers = self._key(name), object_headers(description)
        return await self._uploader.replace(key, name, await Body.of(data), headers, if_match)

    async def open(self, name: str, *, start: int = 0, end: int | None = None) -> ObjectFile:
        """Open an object, or its bytes from ``start`` up to but not including ``end``; the caller closes it.

        The content is streamed. If the connection breaks, reading resumes after the last byte received, provided that
        the object has not changed.

        Raises:
            StoreFileNotFoundError: The object does not exist.
            ValueError: ``start`` is negative or greater than ``end``.
        """
        if start < 0 or (end is not None and end < start):
            raise ValueError(f"expected 0 <= start <= end, got start={start} and end={end}")
        if start == end:
            return ObjectFile(_empty(await self.head(name)))
        request = Request("GET", "read", self._key(name), headers=self._encryption.read, name=name)
        try:
            return await open_object(self._sender, request, start=start, end=end, checksum=self._checksum)
        except StoreError as error:
            if error.status != 416 and error.code != "InvalidArgument":
                raise
            head = await self.head(name)
            if start >= head.size:
                return ObjectFile(_empty(head))
            if end is None or end <= head.size:
                raise
        # Some servers reject a range that extends beyond the end of the object.
        return await open_object(self._sender, request, start=start, end=head.size, checksum=None)

    async def head(self, name: str) -> ObjectHead:
        """Return the size, modification time and headers of an object.

        Raises:
            StoreFileNotFoundError: The object does not exist.
            StoreMissingError: The bucket does not exist.
        """
        request = Request("HEAD", "look for", self._key(name), headers=self._encryption.read, name=name)
        try:
            return await look_up(self._sender, request)
        except StoreFileNotFoundError:
            await self._check_bucket()
            raise

    async def _check_bucket(self) -> None:
        """Raise an error if the bucket does not exist; ``HEAD`` responses do not distinguish it from a missing object.

        Once the bucket has been found, it is not checked again.
        """
        if self._sender.has_bucket:
            return

        async def receive(response: aiohttp.ClientResponse, progress: Progress) -> bool:
            return response.status != 404

        request = Request("HEAD", "look for the bucket", accepted=frozenset({200, 403, 404}))
        if not await self._sender.send(request, receive):
            raise StoreMissingError(
                f"the bucket {self.bucket!r} does not exist: create it, or correct its name, region and endpoint_url",
                store=self._label,
                status=404,
                code="NoSuchBucket",
            )
        self._sender.has_bucket = True

    async def delete(self, name: str) -> None:
        """Delete an object; do nothing if it does not exist."""
        await self._deleter.delete(name)

    async def delete_many(self, names: Iterable[str]) -> dict[str, StoreError]:
        """Delete many objects, up to 1,000 per request; return the errors of those that were not deleted, by name."""
        return await self._deleter.delete_many(names)

    def list(self, prefix: str = "", *, start_after: str = "") -> AsyncIterator[ListedObject]:
        """Iterate over the objects whose names start with ``prefix``, ordered by the UTF-8 bytes of their names.

        Args:
            prefix: Compared by character; empty matches all names.
            start_after: Return only names after this one; it need not exist.

        Returns: Objects whose ``key`` is the name, without the client's own prefix.
        """
        return list_objects(self._sender, self.prefix, prefix, start_after)

    async def copy(
        self,
        source: str,
        name: str,
        *,
        source_client: S3Client | None = None,
        only_new: bool = False,
        **description: Unpack[Description],
    ) -> str:
        """Copy an object within the server; return the ETag of the copy.

        An object that is too large for one request (over 5 GiB at Amazon) is copied in parts.

        Args:
            source: The name of the object to copy.
            name: The name of the copy.
            source_client: The client of the source's bucket; ``None`` means this one.
            only_new: ``True`` to fail if the name is taken, in the way that ``create_only`` selects. Many servers
                ignore ``If-None-Match`` for copies, so the client also checks the name first.
            description: As for :meth:`create`. Without a ``content_type``, the copy keeps the description of the
                source, and only ``storage_class`` and ``acl`` apply.

        Raises:
            StoreFileNotFoundError: The source does not exist.
            StoreFileExistsError: The name is taken.

        Effects: With ``only_new`` and a ``content_type``, no copy is left after an error or a cancellation, unless the
        server stopped responding. Otherwise a copy may be left.
        """
        headers = object_headers(description)
        if "content_type" not in description:
            del headers["Content-Type"]
        origin = (source_client or self)._copy_source(source)
        return await self._uploader.copy(self._key(name), name, headers, origin, only_new=only_new)

    def _copy_source(self, name: str) -> CopySource:
        key = self._key(name)
        request = Request("HEAD", "look for", key, headers=self._encryption.read, name=name)
        named = {"x-amz-copy-source": f"/{quote(self.bucket, safe='')}/{quote_key(key)}"}
        return CopySource(
            {**named, **self._encryption.copy_source}, partial(self._sender.send, request, receive_source)
        )

    def can_read(self, other: S3Client) -> bool:
        """Return whether this client may be able to copy from the other client's bucket.

        Both must use the same server and the same encryption for reading. Permissions are not checked.
        """
        same_server = other.endpoint.server == self.endpoint.server
        return same_server and other._encryption.read == self._encryption.read

    # --- multipart uploads -------------------------------------------------------------------------------------------

    def list_uploads(self, prefix: str = "") -> AsyncIterator[ListedUpload]:
        """Iterate over the multipart uploads that have been neither completed nor aborted.

        Returns: Uploads whose ``key`` is the name, without the client's own prefix.
        """
        return list_uploads(self._sender, self.prefix, prefix)

    async def abort_upload(self, name: str, upload_id: str) -> None:
        """Abort a multipart upload and delete its parts; do nothing if it does not exist."""
        await self._uploader.abort(self._key(name), name, upload_id)

    # --- URLs --------------------------------------------------------------------------------------------------------

    def url(self, name: str) -> str:
        """Return the unsigned URL of an object."""
        return self._sender.object_url(self._key(name))

    def _ready(self) -> Credentials:
        found = self.credentials.peek()
        if found is not None and self.is_region_known:
            return found
        reason = (
            self.credentials.explain()
            if found is None
            else "the region of the bucket is not known: await connect() when the program starts, or pass region="
        )
        raise StoreError(f"a signed URL cannot be calculated: {reason}", store=self._label)

    def presign(
        self,
        method: str,
        name: str,
        *,
        expires_in: int = 3600,
        window: int | None = 0,
        query: Mapping[str, str] = _NONE,
        headers: Mapping[str, str] = _NONE,
    ) -> str:
        """Return a presigned URL, which permits one kind of request for one object, without I/O.

        Args:
            method: The HTTP method, such as ``"GET"`` or ``"PUT"``.
            name: The object's name.
            expires_in: Minimum lifetime of the URL, in seconds; the URL expires earlier if temporary credentials do.
            window: How long the URL stays the same, in seconds; see
                :class:`~aioimageattach.stores.s3._signing.presigner.Window`.
            query: Additional query parameters, such as ``{"response-content-disposition": "attachment"}``.
            headers: The headers that the request must have, such as ``{"Content-Type": "image/png"}``.

        Raises:
            StoreError: The credentials or the region are not known; call :meth:`connect` first.
            ValueError: The sum of ``expires_in`` and ``window`` exceeds seven days.
        """
        begins_at, seconds = Window(expires_in, window).begin(self._sender.now(), name)
        request = Request(method, "presign", self._key(name), query={**query, **self._sender.headers})
        return self._sender.signer.presign(
            method, self._sender.target(request).url, self._ready(), now=begins_at, expires_in=seconds, headers=headers
        )

    def presign_post(
        self,
        name: str,
        *,
        expires_in: int = 3600,
        fields: Mapping[str, str] = _NONE,
        conditions: Sequence[Condition] = (),
    ) -> PostForm:
        """Return the URL and the fields of a browser form that uploads one file, without I/O.

        Args:
            name: The object's name; S3 replaces a trailing ``${filename}`` by the name of the uploaded file.
            expires_in: Lifetime of the form, in seconds.
            fields: Additional fields, which the form must send unchanged.
            conditions: Additional policy conditions, such as ``["content-length-range", 1, 5_000_000]``.

        Raises:
            StoreError: The credentials or the region are not known; call :meth:`connect` first.
        """
        sent = self._sender.signer.presign_post(
            self.bucket,
            self._key(name),
            self._ready(),
            now=self._sender.now(),
            expires_in=expires_in,
            fields=fields,
            conditions=conditions,
        )
        return PostForm(self._sender.endpoint.url(self.region), sent)


def _empty(head: ObjectHead) -> ObjectHead:
    return ObjectHead(0, head.modified_at, head.etag, head.content_type, head.metadata)
