"""The options of an S3 client, and the description of an object."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TypedDict

from ._encryption import Encryption
from ._errors import SignatureVersion
from ._http.chunked import Algorithm
from ._http.transport import ConnectorFactory
from ._objects import META
from ._upload import CreateOnly

__all__ = ["ClientOptions", "Description", "object_headers"]


class ClientOptions(TypedDict, total=False):
    """Keyword arguments that :class:`~aioimageattach.stores.s3.S3Store` passes to its ``S3Client``.

    :class:`~aioimageattach.stores.s3.S3Client` documents each of them.
    """

    endpoint_url: str | None
    path_style: bool | None
    dual_stack: bool | None
    fips: bool | None
    accelerate: bool
    requester_pays: bool
    signature_version: SignatureVersion
    sign_payload: bool | None
    create_only: CreateOnly
    bulk_delete: bool
    checksum: Algorithm | None
    encryption: Encryption | None
    multipart_threshold: int
    part_size: int
    parallel_parts: int
    timeout: float
    connect_timeout: float
    read_timeout: float
    max_connections: int
    ssl_context: ssl.SSLContext | None
    proxy: str | None
    trust_env: bool
    connector: ConnectorFactory | None
    clock: Callable[[], datetime]


class Description(TypedDict, total=False):
    """The description of an object; see ``create()`` of :class:`~aioimageattach.stores.s3.S3Client`."""

    content_type: str
    cache_control: str | None
    content_disposition: str | None
    metadata: Mapping[str, str]
    storage_class: str | None
    acl: str | None


def object_headers(description: Description) -> dict[str, str]:
    """Return the headers that describe an object.

    Raises:
        ValueError: A value contains a control character, or is not ASCII.
    """
    given = {
        "Content-Type": description.get("content_type", "application/octet-stream"),
        "Cache-Control": description.get("cache_control"),
        "Content-Disposition": description.get("content_disposition"),
        "x-amz-storage-class": description.get("storage_class"),
        "x-amz-acl": description.get("acl"),
        **{META + name: value for name, value in description.get("metadata", {}).items()},
    }
    headers = {name: value for name, value in given.items() if value is not None}
    text = "".join(headers.values())
    if not (text.isascii() and text.isprintable()):
        name = next(name for name, value in headers.items() if not (value.isascii() and value.isprintable()))
        raise ValueError(f"headers: expected printable ASCII in the value of {name}; encode it")
    return headers
