"""A client for one bucket: it signs, streams, tries again and puts right what can be put right."""

from __future__ import annotations

import os
import ssl
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial
from types import MappingProxyType, TracebackType
from typing import Final, Self, Unpack
from urllib.parse import quote

import aiohttp

from ...exc import InvalidKeyError, StoreError
from ...file import Source as FileSource
from .body import Body
from .chunked import Algorithm, new_hash
from .credentials import CredentialCache, CredentialProvider, Credentials, Source, callback, default
from .deletion import Deleter
from .encryption import Encryption
from .endpoint import AWS, Endpoint
from .listing import list_objects, list_uploads
from .objects import ObjectHead
from .options import Description, SignatureVersion, described
from .policy import Condition
from .presigner import PostForm, Window
from .reader import ObjectFile, open_object
from .retry import RetryPolicy
from .sender import Progress, Request, Sender, Signer, utc_now
from .signer import SignerV4
from .signer_v2 import SignerV2
from .transport import ConnectorFactory, Transport, read_whole
from .upload import CreateOnly, Uploader, receive_head
from .urls import quote_key
from .xml import Completed, ListedObject, ListedUpload, parse_copy

__all__ = ["S3Client"]

_NONE: Final[Mapping[str, str]] = MappingProxyType({})
_UNENCRYPTED: Final = Encryption({})


def _key(prefix: str, label: str, name: str) -> str:
    if not isinstance(name, str):
        raise InvalidKeyError(f"name: expected a text, got {name!r:.80}", store=label)
    key = prefix + name
    quote_key(key)
    return key


class S3Client:
    """Speaks to one bucket, or to the part of it under a prefix. Several event loops may use it, each by itself.

    Connections are opened when they are needed; :meth:`aclose` or ``async with`` closes those of an event loop.

    Args:
        bucket: Its name.
        credentials: Where the credentials come from: a :class:`~aioimageattach.stores.s3.credentials.Source`, or a
            callable as :func:`~aioimageattach.stores.s3.credentials.callback` takes it. ``None`` means the environment,
            the shared files, and what botocore finds.
        region: Where the bucket is; ``None`` means ``AWS_REGION`` or ``AWS_DEFAULT_REGION``, or else ``us-east-1``
            until the server names another, which is then used.
        prefix: What the keys of all names begin with.
        max_retry: How often a request is sent again after a fault that may pass.
        endpoint_url: The server; ``{region}`` in it stands for the region. ``None`` means ``AWS_ENDPOINT_URL_S3`` or
            ``AWS_ENDPOINT_URL``, or else Amazon.
        path_style: See :class:`~aioimageattach.stores.s3.endpoint.Endpoint`.
        signature_version: ``"v2"`` for old servers that know no other.
        sign_payload: Whether signatures cover the bodies, which costs their SHA-256; ``None`` means where there is no
            TLS to protect them.
        create_only: How :meth:`create` refuses a name that is taken: ``"if-none-match"`` leaves it to the server;
            ``"head"`` is for servers that do not know this header, and is not safe when two put the same name at once.
        bulk_delete: Whether the server can delete many keys by one request.
        checksum: Which checksum the server compares when something is put, and the client when a whole object is read;
            ``None`` for none, which is what all servers know. ``"crc32c"`` and ``"crc64nvme"`` need awscrt.
        encryption: How the server is to encrypt.
        multipart_threshold: From how many bytes on objects go up in parts.
        part_size: How many bytes a part has; most servers want 5 MiB at least.
        parallel_parts: How many parts of one object are on their way at once.
        timeout: How long a request may take with all its attempts, in seconds; each part is a request.
        connect_timeout: How long it may take to connect, in seconds.
        read_timeout: How long the server may do nothing, in seconds.
        max_connections: How many connections there may be at once in an event loop.
        ssl_context: What TLS is to accept; ``None`` means what Python does.
        proxy: The URL of an HTTP proxy.
        trust_env: Whether the proxies that the environment names are used.
        connector: Makes aiohttp's connector, in place of ``max_connections`` and ``ssl_context``.
        clock: Returns the present time.

    Raises:
        ValueError: An argument is out of range, or no URL can be made of it.
        DeclarationError: The library for the checksum is not installed.
    """

    def __init__(
        self,
        bucket: str,
        credentials: Source | CredentialProvider | None = None,
        *,
        region: str | None = None,
        prefix: str = "",
        max_retry: int = 5,
        endpoint_url: str | None = None,
        path_style: bool | None = None,
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
        if endpoint_url is None:
            endpoint_url = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or AWS
        endpoint = Endpoint(bucket, endpoint_url, path_style)
        found = region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
        self._region_known = bool(found) or not endpoint.has_region
        self.bucket = bucket
        self.prefix = prefix
        self.endpoint = endpoint
        self._label = f"<S3 bucket {bucket!r} at {endpoint.template}>"
        self._key = partial(_key, prefix, self._label)  # no method, which would keep the client alive
        self._checksum: Algorithm | None = checksum
        self._encryption = encryption or _UNENCRYPTED
        if self._encryption.read and not endpoint.is_encrypted:
            raise ValueError("encryption: a key of one's own may not go over the wire without TLS")
        source = default() if credentials is None else credentials
        self.credentials: CredentialCache = CredentialCache(
            source if isinstance(source, Source) else callback(source), clock=clock
        )

        def make_signer(name: str) -> Signer:
            return SignerV4(name) if signature_version == "v4" else SignerV2(name, bucket=bucket)

        self._sender = Sender(
            endpoint,
            found or "us-east-1",
            make_signer,
            self.credentials,
            policy=RetryPolicy(max_retry=max_retry, timeout=timeout),
            transport=Transport(
                connect_timeout=connect_timeout,
                max_connections=max_connections,
                ssl_context=ssl_context,
                proxy=proxy,
                trust_env=trust_env,
                connector=connector,
                label=self._label,
            ),
            read_timeout=read_timeout,
            sign_payload=not endpoint.is_encrypted if sign_payload is None else sign_payload,
            clock=clock,
            label=self._label,
        )
        self._uploader = Uploader(
            self._sender,
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
        """Return the present time by the server's clock, as far as it is known."""
        return self._sender.now()

    async def connect(self) -> None:
        """Fetch the credentials, and find the bucket's region if none was given: what signed URLs need.

        Raises:
            StorePermissionError: There are no credentials.
            StoreError: The server does not tell the region.
        """
        await self.credentials.get()
        if self._region_known:
            return

        async def receive(response: aiohttp.ClientResponse, progress: Progress) -> str | None:
            return response.headers.get("x-amz-bucket-region")

        accepted = frozenset({200, 403, 404})
        region = await self._sender.send(Request("HEAD", "find the region of the bucket", accepted=accepted), receive)
        if region is not None and region != self.region:
            self._sender.move(region)
        self._region_known = True

    async def aclose(self) -> None:
        """Close the connections of this event loop; the client can be used again after."""
        await self._sender.transport.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    # --- objects -----------------------------------------------------------------------------------------------------

    async def create(self, name: str, data: FileSource, **description: Unpack[Description]) -> str:
        """Put an object whole or not at all, under a name that has none yet; return its tag.

        Args:
            name: The name.
            data: Bytes, or anything that bytes can be read from; not closed.
            description: ``content_type`` (by default ``"application/octet-stream"``), ``cache_control`` and
                ``content_disposition`` are what the server says of it; ``metadata`` is kept with it by name;
                ``storage_class`` is one such as ``"STANDARD_IA"``, ``acl`` one such as ``"public-read"``, which many
                buckets of today refuse.

        Raises:
            StoreFileExistsError: The name is taken; the object there is unchanged.
            StoreError: It could not be done.

        Effects: On an error or a cancellation nothing stands under the name, as far as the server can be asked.
        """
        key = self._key(name)
        headers = described(description)
        return await self._uploader.create(key, name, await Body.of(data), headers)

    async def replace(
        self,
        name: str,
        data: FileSource,
        *,
        if_match: str | None = None,
        **description: Unpack[Description],
    ) -> str:
        """Put an object over what may stand there; return its tag. The arguments are those of :meth:`create`.

        Args:
            if_match: The tag of what is to be replaced; if something else stands there by then, nothing is done.

        Raises:
            StoreFileExistsError: Something else stands there than ``if_match`` says.
            StoreError: It could not be done; after a fault of the network it may have been done all the same.
        """
        key = self._key(name)
        headers = described(description)
        return await self._uploader.replace(key, name, await Body.of(data), headers, if_match)

    async def open(self, name: str, *, start: int = 0, end: int | None = None) -> ObjectFile:
        """Open an object, or the bytes from ``start`` up to but not including ``end`` of it; the caller closes it.

        It is read as it arrives, and where it breaks off it goes on, if it is still the same object.

        Raises:
            StoreFileNotFoundError: There is none.
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
            if error.status != 416:
                raise
            return ObjectFile(_empty(await self.head(name)))

    async def head(self, name: str) -> ObjectHead:
        """Return what is known of an object.

        Raises:
            StoreFileNotFoundError: There is none.
        """
        request = Request("HEAD", "look for", self._key(name), headers=self._encryption.read, name=name)
        return await self._sender.send(request, receive_head)

    async def delete(self, name: str) -> None:
        """Delete an object; one that is not there is no error."""
        await self._deleter.delete(name)

    async def delete_many(self, names: Iterable[str]) -> dict[str, StoreError]:
        """Delete many objects, a thousand by a request; return the error of each that could not be deleted."""
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
        source_bucket: str | None = None,
        only_new: bool = False,
        **description: Unpack[Description],
    ) -> str:
        """Copy an object within the server; return the tag of the copy.

        Args:
            source: The name of what to copy; with ``source_bucket`` its whole key there.
            name: The name of the copy.
            source_bucket: Where it is; ``None`` means here.
            only_new: Whether to ask the server to refuse a name that is taken. Many do not know this of copies, and
                replace what stands there.
            description: As for :meth:`create`. Without a ``content_type`` the server goes on saying what it says of the
                source, and only ``storage_class`` and ``acl`` count.

        Raises:
            StoreFileNotFoundError: There is nothing to copy.
            StoreFileExistsError: The name is taken.
        """
        key = self._key(source) if source_bucket is None else source
        headers = described(description)
        if "content_type" in description:
            headers["x-amz-metadata-directive"] = "REPLACE"
        else:
            del headers["Content-Type"]
        headers |= {
            "x-amz-copy-source": f"/{quote(source_bucket or self.bucket, safe='')}/{quote_key(key)}",
            "Content-Length": "0",
            **({"If-None-Match": "*"} if only_new else {}),
            **self._encryption.write,
            **self._encryption.copy_source,
        }

        async def receive(response: aiohttp.ClientResponse, progress: Progress) -> Completed:
            return parse_copy(await read_whole(response, progress))

        request = Request("PUT", f"copy {source!r} to", self._key(name), headers=headers, name=name)
        return (await self._sender.send(request, receive)).etag

    def can_read(self, other: S3Client) -> bool:
        """Whether a copy by this client may have the other's bucket as its source, as far as can be told from here."""
        same_server = other.endpoint.template == self.endpoint.template
        return same_server and other._encryption.read == self._encryption.read

    # --- uploads in parts --------------------------------------------------------------------------------------------

    def list_uploads(self, prefix: str = "") -> AsyncIterator[ListedUpload]:
        """Iterate over the uploads in parts that were begun and neither completed nor aborted.

        Returns: Uploads whose ``key`` is the name, without the client's own prefix.
        """
        return list_uploads(self._sender, self.prefix, prefix)

    async def abort_upload(self, name: str, upload_id: str) -> None:
        """Forget an upload and its parts; one that is not there is no error."""
        await self._uploader.abort(self._key(name), name, upload_id)

    # --- URLs --------------------------------------------------------------------------------------------------------

    def url(self, name: str) -> str:
        """Return the URL of an object, without a signature."""
        return self._sender.endpoint.url(self.region, self._key(name))

    def _ready(self) -> Credentials:
        found = self.credentials.peek()
        if found is None or not self._region_known:
            what = "credentials are" if found is None else "region of the bucket is"
            raise StoreError(
                f"a signed URL cannot be calculated while the {what} not known: await connect() when the program starts"
                + ("" if found is None else ", or give region="),
                store=self._label,
            )
        return found

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
        """Return a URL by which whoever has it may make one kind of request; a calculation.

        Args:
            method: Such as ``"GET"`` or ``"PUT"``.
            name: Of the object.
            expires_in: For how many seconds it is valid at least; it ends with temporary credentials in any case.
            window: For how many seconds the URL stays the same; see
                :class:`~aioimageattach.stores.s3.presigner.Window`.
            query: What else is asked, such as ``{"response-content-disposition": "attachment"}``.
            headers: What the request must carry, such as ``{"Content-Type": "image/png"}``.

        Raises:
            StoreError: The credentials or the region are not known yet; :meth:`connect` finds them.
            ValueError: ``expires_in`` and ``window`` are together more than seven days.
        """
        begins_at, seconds = Window(expires_in, window).begin(self._sender.now(), name)
        request = Request(method, "presign", self._key(name), query=query)
        return self._sender.signer.presign(
            method, self._sender.url(request), self._ready(), now=begins_at, expires_in=seconds, headers=headers
        )

    def presign_post(
        self,
        name: str,
        *,
        expires_in: int = 3600,
        fields: Mapping[str, str] = _NONE,
        conditions: Sequence[Condition] = (),
    ) -> PostForm:
        """Return what a browser's form needs to upload one file; a calculation.

        Args:
            name: Of the object; one that ends in ``${filename}`` lets the browser fill in the file's.
            expires_in: For how many seconds it is valid.
            fields: Further fields, which the form must send as they are.
            conditions: Further rules, such as ``["content-length-range", 1, 5_000_000]``.

        Raises:
            StoreError: The credentials or the region are not known yet; :meth:`connect` finds them.
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
