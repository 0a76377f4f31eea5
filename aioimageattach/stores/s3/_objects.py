"""The description of an object in the headers of a response. Does no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Final

from ..._http.dates import read_date
from ...exc import StoreUnavailableError

__all__ = ["META", "ObjectHead", "read_etag", "read_head", "read_size"]

META: Final = "x-amz-meta-"
"""The prefix of metadata headers."""

_META_SIZE: Final = len(META)


@dataclass(frozen=True, slots=True)
class ObjectHead:
    """The description of an object, without its content.

    Args:
        size: The size, in bytes.
        modified_at: The modification time, to the second.
        etag: The ETag without quotes; it changes with the object.
        content_type: The MIME type, such as ``"image/jpeg"``.
        metadata: The metadata, by lower-case name without ``x-amz-meta-``.
    """

    size: int
    modified_at: datetime
    etag: str = ""
    content_type: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)


def _incomplete_response() -> StoreUnavailableError:
    return StoreUnavailableError("expected the headers Last-Modified and Content-Length, got an incomplete response")


def read_size(headers: Mapping[str, str]) -> int:
    """Return the size of a response's body, in bytes, from its headers.

    Raises:
        StoreUnavailableError: The headers do not contain the size, so a truncated response could not be detected.
    """
    try:
        return int(headers["Content-Length"])
    except (KeyError, ValueError):
        raise _incomplete_response() from None


def read_etag(headers: Mapping[str, str]) -> str:
    """Return the ETag without quotes; empty if the header is missing."""
    return headers.get("ETag", "").strip('"')


def read_head(headers: Mapping[str, str]) -> ObjectHead:
    """Return the description of an object from response headers, whose lookup must be case-insensitive.

    Raises:
        StoreUnavailableError: A required header is missing or malformed.
    """
    try:
        modified_at = read_date(headers["Last-Modified"])
    except (KeyError, ValueError):
        raise _incomplete_response() from None
    return ObjectHead(
        size=read_size(headers),
        modified_at=modified_at,
        etag=read_etag(headers),
        content_type=headers.get("Content-Type", ""),
        metadata=MappingProxyType(
            {
                name[_META_SIZE:].lower(): value
                for name, value in headers.items()
                if name[0] in "xX" and name[:_META_SIZE].lower() == META
            }
        ),
    )
