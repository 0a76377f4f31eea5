"""A client for one bucket: it signs, streams, retries and corrects what can be corrected."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial
from types import MappingProxyType, TracebackType
from typing import Final, Self, Unpack
from urllib.parse import quote

import aiohttp

from ...exc import InvalidKeyError, StoreError, StoreFileNotFoundError, StoreMissingError
from ...file import Source as FileSource
from ._copying import CopySource, receive_source
from ._credentials.cache import CredentialCache
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
from ._http.sender import Progress, Request, Sender, Signer, utc_now
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
    """A client of one bucket, or of the part of it under a prefix. Several event loops may use it.

    Connections are opened when they are needed; :meth:`aclose` or ``async with`` closes those of an event loop.

    Args:
        bucket: Its name, or the alias of an access point.
        credentials: A :class:`~aioimageattach.stores.s3.CredentialSource`, or an asynchronous callable
            that returns credentials. ``None`` means
            :class:`~aioimageattach.stores.s3.DefaultCredentials`.
        region: The bucket's region; ``None`` means ``AWS_REGION``, ``AWS_DEFAULT_REGION``, that of the profile, or
            else ``us-east-1`` until the server names another, which is then used.
        prefix: The part that the keys of all names begin with.
        max_retry: How often a request is retried after a transient error.
        endpoint_url: The server; ``{region}`` in it stands for the region. ``None`` means ``AWS_ENDPOINT_URL_S3`` or
            ``AWS_ENDPOINT_URL`` (unless ``AWS_IGNORE_CONFIGURED_ENDPOINT_URLS`` is ``true``), or else Amazon.
        path_style: See :class:`~aioimageattach.stores.s3._http.endpoint.Endpoint`.
        dual_stack: Whether Amazon's hosts with IPv6 addresses are used; ``None`` means ``AWS_USE_DUALSTACK_ENDPOINT``.
        fips: Whether Amazon's hosts with validated cryptography are used; ``None`` means ``AWS_USE_FIPS_ENDPOINT``.
        accelerate: Whether Amazon's Transfer Acceleration is used, which the bucket must allow.
        requester_pays: Whether requests, and those who use signed URLs, agree to pay for a bucket that asks for it.
        signature_version: ``"v2"`` for old servers that know no other.
        sign_payload: Whether signatures cover bodies, which costs their SHA-256; ``None`` means only without TLS.
        create_only: How :meth:`create` and copies refuse a taken name: ``"if-none-match"`` leaves it to the server;
            ``"head"`` is for servers that do not know this header, and is not safe if two put the same name
            concurrently.
        bulk_delete: Whether the server can delete many keys by one request; one that refuses is not asked again.
        checksum: The checksum that the server compares and confirms when something is put, and that the client compares
            when a whole object is read; ``None`` for none, which all servers know. ``"crc32c"`` and ``"crc64nvme"``
            need awscrt.
        encryption: How the server encrypts.
        multipart_threshold: Smallest size that is put in parts, in bytes.
        part_size: Size of a part, in bytes; most servers want at least 5 MiB.
        parallel_parts: How many parts of one object are sent concurrently.
        timeout: Limit on all attempts of a request together, in seconds; each part is a request.
        connect_timeout: Limit on connecting, in seconds.
        read_timeout: How long the server may send and take nothing, in seconds.
        max_connections: Largest number of connections in an event loop.
        ssl_context: Verifies certificates; ``None`` means those of the file ``AWS_CA_BUNDLE``, or else as Python does.
        proxy: The URL of an HTTP proxy, with its user and password if it wants them.
        trust_env: Whether the proxies that ``HTTPS_PROXY``, ``HTTP_PROXY`` and ``NO_PROXY`` name are used; credentials
            are never taken from ``.netrc``.
        connector: Makes aiohttp's connector, in place of ``max_connections`` and ``ssl_context``.
        clock: Returns the current time.

    Raises:
        ValueError: An argument is out of range, or no URL can be made of it.
        DeclarationError: The library for the checksum is not installed.
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
        self._key = partial(_key, prefix, self._label)  # not a method, which would keep the client alive
        self._checksum: Algorithm | None = checksum
        self._encryption = encryption or _UNENCRYPTED
        if self._encryption.read and not endpoint.is_encrypted:
            raise ValueError("encryption: a customer key must not be sent without TLS")
        source = DefaultCredentials(region=region) if credentials is None else to_source(credentials)
        self.credentials: CredentialCache = CredentialCache(source, clock=clock)

        def make_signer(name: str) -> Signer:
            return SignerV4(name) if signature_version == "v4" else SignerV2(name, bucket=bucket)

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

    # --- life --------------------------------------------------------------------------------------------------------

    @property
    def region(self) -> str:
        """The region that requests are signed for."""
        return self._sender.region

    def now(self) -> datetime:
        """Return the current time by the server's clock, as far as it is known."""
        return self._sender.now()

    @property
    def is_region_known(self) -> bool:
        """Whether the region was given, configured or found, or is not needed for URLs."""
        return self._sender.is_region_known

    async def connect(self) -> None:
        """Fetch the credentials, and find the bucket's region if none was given: both are needed for signed URLs.

        Raises:
            StorePermissionError: There are no credentials.
            StoreError: The server does not name the region.

        Effects: The credentials are renewed in the background from now on, until :meth:`aclose`.
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
        """Put an object whole or not at all, under a name that no object has yet; return its ETag.

        Args:
            name: The name.
            data: Bytes, or anything that bytes can be read from; not closed.
            description: ``content_type`` (by default ``"application/octet-stream"``), ``cache_control`` and
                ``content_disposition`` are headers of responses; ``metadata`` is kept with the object;
                ``storage_class`` is such as ``"STANDARD_IA"``, ``acl`` such as ``"public-read"``, which many buckets
                refuse today.

        Raises:
            StoreFileExistsError: The name is taken; that object is unchanged.
            StoreError: The put failed.

        Effects: On an error or a cancellation no object is left, as far as the server can be asked.
        """
        return await self.create_described(name, data, object_headers(description))

    async def create_described(self, name: str, data: FileSource, headers: Mapping[str, str]) -> str:
        """Put an object as :meth:`create` does, with the headers that describe it; they can be used many times.

        Args:
            name: The name.
            data: Bytes, or anything that bytes can be read from; not closed.
            headers: Those of :func:`~aioimageattach.stores.s3._options.object_headers`.
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
        """Put an object over one that may exist; return its ETag. The arguments are those of :meth:`create`.

        Args:
            if_match: The ETag of the object to replace; if there is another by then, nothing is done.

        Raises:
            StoreFileExistsError: The existing object has another ETag than ``if_match``.
            StoreError: The put failed; after a network error it may have been done all the same.
        """
        key, headers = self._key(name), object_headers(description)
        return await self._uploader.replace(key, name, await Body.of(data), headers, if_match)

    async def open(self, name: str, *, start: int = 0, end: int | None = None) -> ObjectFile:
        """Open an object, or the bytes from ``start`` up to but not including ``end`` of it; the caller closes it.

        It is read as it arrives; if the connection breaks, reading continues after the last byte, provided that the
        object is still the same.

        Raises:
            StoreFileNotFoundError: There is no such object.
            ValueError: ``start`` is negative or beyond ``end``.
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
        # Some servers refuse a range that goes beyond the end.
        return await open_object(self._sender, request, start=start, end=head.size, checksum=None)

    async def head(self, name: str) -> ObjectHead:
        """Return the description of an object.

        Raises:
            StoreFileNotFoundError: There is no such object.
            StoreMissingError: There is no such bucket.
        """
        request = Request("HEAD", "look for", self._key(name), headers=self._encryption.read, name=name)
        try:
            return await look_up(self._sender, request)
        except StoreFileNotFoundError:
            await self._check_bucket()
            raise

    async def _check_bucket(self) -> None:
        """Tell a missing bucket from a missing object, once: the response to ``HEAD`` is the same for both."""
        if self._sender.has_bucket:
            return

        async def receive(response: aiohttp.ClientResponse, progress: Progress) -> bool:
            return response.status != 404

        request = Request("HEAD", "look for the bucket", accepted=frozenset({200, 403, 404}))
        if not await self._sender.send(request, receive):
            raise StoreMissingError(
                f"there is no bucket {self.bucket!r}: create it, or correct its name, region and endpoint_url",
                store=self._label,
                status=404,
                code="NoSuchBucket",
            )
        self._sender.has_bucket = True

    async def delete(self, name: str) -> None:
        """Delete an object; one that does not exist is not an error."""
        await self._deleter.delete(name)

    async def delete_many(self, names: Iterable[str]) -> dict[str, StoreError]:
        """Delete many objects, up to a thousand per request; return the errors of those that were not deleted."""
        return await self._deleter.delete_many(names)

    def list(self, prefix: str = "", *, start_after: str = "") -> AsyncIterator[ListedObject]:
        """Iterate over the objects whose names begin with ``prefix``, in the order of their names in UTF-8.

        Args:
            prefix: Compared by character; empty for all.
            start_after: Only names after this one, which need not exist.

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

        An object that is too large for one request, which at Amazon is one of over 5 GiB, is copied in parts.

        Args:
            source: The name of the object to copy.
            name: The name of the copy.
            source_client: The client of the source's bucket; ``None`` means this one.
            only_new: Whether a taken name is refused, as ``create_only`` says. Since many servers do not know
                ``If-None-Match`` for copies, they are asked before as well.
            description: As for :meth:`create`. Without a ``content_type`` the description of the source is kept, and
                only ``storage_class`` and ``acl`` count.

        Raises:
            StoreFileNotFoundError: There is no such source.
            StoreFileExistsError: The name is taken.

        Effects: With ``only_new`` and a ``content_type``, no copy is left on an error or a cancellation, as far as the
        server can be asked. Otherwise there may be one.
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
        """Whether a copy by this client may have the other's bucket as its source, as far as this client can know."""
        same_server = other.endpoint.server == self.endpoint.server
        return same_server and other._encryption.read == self._encryption.read

    # --- multipart uploads -------------------------------------------------------------------------------------------

    def list_uploads(self, prefix: str = "") -> AsyncIterator[ListedUpload]:
        """Iterate over the multipart uploads that were started and neither completed nor aborted.

        Returns: Uploads whose ``key`` is the name, without the client's own prefix.
        """
        return list_uploads(self._sender, self.prefix, prefix)

    async def abort_upload(self, name: str, upload_id: str) -> None:
        """Abort an upload and delete its parts; one that does not exist is not an error."""
        await self._uploader.abort(self._key(name), name, upload_id)

    # --- URLs --------------------------------------------------------------------------------------------------------

    def url(self, name: str) -> str:
        """Return the URL of an object, without a signature."""
        return self._sender.endpoint.url(self.region, self._key(name))

    def _ready(self) -> Credentials:
        found = self.credentials.peek()
        if found is not None and self.is_region_known:
            return found
        reason = (
            self.credentials.explain()
            if found is None
            else "the region of the bucket is not known: await connect() when the program starts, or give region="
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
        """Return a URL that lets its holder make one kind of request; a calculation.

        Args:
            method: Such as ``"GET"`` or ``"PUT"``.
            name: The object's name.
            expires_in: How long it is valid at least, in seconds; it expires with temporary credentials in any case.
            window: How long the URL stays the same, in seconds; see
                :class:`~aioimageattach.stores.s3._signing.presigner.Window`.
            query: Further parameters, such as ``{"response-content-disposition": "attachment"}``.
            headers: The headers that the request must have, such as ``{"Content-Type": "image/png"}``.

        Raises:
            StoreError: The credentials or the region are not known; :meth:`connect` finds them.
            ValueError: ``expires_in`` and ``window`` are together more than seven days.
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
        """Return the URL and the fields of a browser form that uploads one file; a calculation.

        Args:
            name: The object's name; one that ends in ``${filename}`` lets the browser fill in the file's.
            expires_in: How long it is valid, in seconds.
            fields: Further fields, which the form must send as they are.
            conditions: Further rules, such as ``["content-length-range", 1, 5_000_000]``.

        Raises:
            StoreError: The credentials or the region are not known; :meth:`connect` finds them.
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
