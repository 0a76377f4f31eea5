"""Copies that the server makes: of whole objects, and in parts of those that are too large for one request."""

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
"""How many times larger a part is that the server copies than one that is sent: its bytes do not pass through here."""

MAX_COPY: Final = 5 * 1024**3
"""Largest number of bytes that a request may copy at Amazon."""

PUT_ID: Final = "put-id"
"""The metadata that tells which put made an object: after a lost response it shows whether the put was done."""

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
    """What an object is, and the headers that describe a copy of it in the same way."""

    head: ObjectHead
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class CopySource:
    """The object that a copy is made of.

    Args:
        headers: Name it, and let the server read it.
        look_up: Returns what it is; needed only if it is copied in parts.
    """

    headers: Mapping[str, str]
    look_up: Callable[[], Awaitable[SourceHead]]


async def receive_source(response: aiohttp.ClientResponse, progress: Progress) -> SourceHead:
    """Return what a response to ``HEAD`` says of the source of a copy."""
    head = read_head(response.headers)
    described = {name: response.headers[name] for name in _DESCRIPTION if name in response.headers}
    metadata = {META + name: value for name, value in head.metadata.items() if name != PUT_ID}
    return SourceHead(head, {**described, **metadata})


def is_too_large(error: StoreError) -> bool:
    """Whether a server refuses a copy because its source is too large for one request: over 5 GiB at Amazon."""
    return error.code == "EntityTooLarge" or (
        error.code == "InvalidRequest" and "larger than the maximum" in str(error)
    )
