"""What a server says of an object. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import MappingProxyType
from typing import Final

from ...exc import StoreUnavailableError

__all__ = ["META", "ObjectHead", "read_head"]

META: Final = "x-amz-meta-"
"""How the headers of metadata begin."""


@dataclass(frozen=True, slots=True)
class ObjectHead:
    """What is known of an object without reading it.

    Args:
        size: In bytes.
        modified_at: When it was put, to the second.
        etag: Without quotes; another one after each change.
        content_type: Such as ``"image/jpeg"``.
        metadata: By name in lower case, without ``x-amz-meta-``.
    """

    size: int
    modified_at: datetime
    etag: str = ""
    content_type: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)


def read_head(headers: Mapping[str, str]) -> ObjectHead:
    """Return what the headers of an answer tell; they find their values in any case.

    Raises:
        StoreUnavailableError: A header that has to be there is missing, or makes no sense.
    """
    try:
        modified_at = parsedate_to_datetime(headers["Last-Modified"])
        size = int(headers["Content-Length"])
    except (KeyError, ValueError):
        raise StoreUnavailableError("the server's answer has no Last-Modified or no Content-Length") from None
    return ObjectHead(
        size=size,
        modified_at=modified_at.replace(tzinfo=UTC) if modified_at.tzinfo is None else modified_at,
        etag=headers.get("ETag", "").strip('"'),
        content_type=headers.get("Content-Type", ""),
        metadata=MappingProxyType(
            {name.lower().removeprefix(META): value for name, value in headers.items() if name.lower().startswith(META)}
        ),
    )
