"""What a server says of an object. Pure."""

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
"""How the headers of metadata begin."""

_META_SIZE: Final = len(META)


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


def _cut_off() -> StoreUnavailableError:
    return StoreUnavailableError("the server's answer has no Last-Modified or no Content-Length")


def read_size(headers: Mapping[str, str]) -> int:
    """Return how many bytes the headers of an answer announce.

    Raises:
        StoreUnavailableError: They do not tell: such an answer may be cut off, and nobody would see it.
    """
    try:
        return int(headers["Content-Length"])
    except (KeyError, ValueError):
        raise _cut_off() from None


def read_etag(headers: Mapping[str, str]) -> str:
    """Return the tag without its quotes; empty where there is none."""
    return headers.get("ETag", "").strip('"')


def read_head(headers: Mapping[str, str]) -> ObjectHead:
    """Return what the headers of an answer tell; they find their values in any case.

    Raises:
        StoreUnavailableError: A header that has to be there is missing, or makes no sense.
    """
    try:
        modified_at = read_date(headers["Last-Modified"])
    except (KeyError, ValueError):
        raise _cut_off() from None
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
