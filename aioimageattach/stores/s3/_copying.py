"""Copies within the server: in one request, or in parts if the object is too large for that."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

import aiohttp

from ...exc import StoreError
from ._http.sender import Progress
from ._objects import META, ObjectHead, read_head

__all__ = ["COPY_FACTOR", "MAX_COPY", "PUT_ID", "CopySource", "SourceHead", "is_too_large", "receive_source"]

COPY_FACTOR: Final = 16
"""Size of a copied part as a multiple of that of an uploaded part; its bytes do not pass through this process."""

MAX_COPY: Final = 5 * 1024**3
"""Largest copy that Amazon permits in one request, in bytes."""

PUT_ID: Final = "put-id"
"""The metadata key that identifies the put that created an object.

If the response to a put is lost, it shows whether that put succeeded.
"""

_DESCRIPTION: Final = (
    "Cache-Control",
    "Content-Disposition",
    "Content-Encoding",
    "Content-Language",
    "Content-Type",
    "Expires",
)


@dataclass(frozen=True, slots=True)
class SourceHead:
    """The description of an object, and the headers that give a copy the same description."""

    head: ObjectHead
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class CopySource:
    """The source object of a copy.

    Args:
        headers: The headers that name the source and permit the server to decrypt it.
        look_up: Returns the description of the source; called only if it is copied in parts.
    """

    headers: Mapping[str, str]
    look_up: Callable[[], Awaitable[SourceHead]]


async def receive_source(response: aiohttp.ClientResponse, progress: Progress) -> SourceHead:
    """Return the description of the source of a copy, from the response to a ``HEAD`` request."""
    head = read_head(response.headers)
    described = {name: response.headers[name] for name in _DESCRIPTION if name in response.headers}
    metadata = {META + name: value for name, value in head.metadata.items() if name != PUT_ID}
    return SourceHead(head, {**described, **metadata})


def is_too_large(error: StoreError) -> bool:
    """Return whether the server rejected a copy because the source exceeds the limit per request (5 GiB at Amazon)."""
    return error.code == "EntityTooLarge" or (
        error.code == "InvalidRequest" and "larger than the maximum" in str(error)
    )
