"""Receivers, which turn responses into results and verify that each response really reports a success.

Proxies, consoles and broken gateways may respond with 200 to any request. So each kind of response must contain
evidence: an ETag in the headers for a put (and the checksum, if one was sent), an ETag in the body for a copy or a
completed upload, an identifier for a started upload, an empty body for a deletion.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import aiohttp

from ....exc import StoreError, StoreUnavailableError
from .._objects import ObjectHead, read_etag, read_head
from .._xml import MAX_ERROR, UnexpectedResponse, expect_document
from .responses import (
    DeleteResult,
    ListPage,
    UploadsPage,
    parse_delete_result,
    parse_etag,
    parse_list,
    parse_upload_id,
    parse_uploads,
)
from .sender import Progress, Receiver, Request, Sender
from .transport import read_whole

__all__ = [
    "look_up",
    "receive_copied",
    "receive_delete_result",
    "receive_deleted",
    "receive_head",
    "receive_objects",
    "receive_put",
    "receive_upload_id",
    "receive_uploads",
    "verify_checksum",
]

R = TypeVar("R")


async def receive_head(response: aiohttp.ClientResponse, progress: Progress) -> ObjectHead:
    """Return the description of an object from the response to a ``HEAD`` request."""
    return read_head(response.headers)


async def _receive_first_byte(response: aiohttp.ClientResponse, progress: Progress) -> ObjectHead:
    """Return the description of an object from the response to a request for its first byte; 416 means it is empty."""
    await read_whole(response, progress, MAX_ERROR)
    size = response.headers.get("Content-Range", "").rpartition("/")[2]
    if not (size.isascii() and size.isdecimal()):
        raise UnexpectedResponse("expected a Content-Range header with the size of the object")
    return read_head({**response.headers, "Content-Length": size})


async def look_up(sender: Sender, request: Request) -> ObjectHead:
    """Send a ``HEAD`` request for an object; return its description.

    For a missing object, Swift sends a body after the response to ``HEAD``, which breaks the connection. Such servers
    are sent a request for the first byte instead.

    Raises:
        StoreFileNotFoundError: The object does not exist.
    """
    try:
        return await sender.send(request, receive_head)
    except StoreUnavailableError as error:
        if not isinstance(error.__cause__, aiohttp.ClientResponseError):
            raise
    headers = {**request.headers, "Range": "bytes=0-0"}
    return await sender.send(
        request._replace(method="GET", headers=headers, accepted=frozenset({206, 416})), _receive_first_byte
    )


async def receive_deleted(response: aiohttp.ClientResponse, progress: Progress) -> None:
    """Verify that the response has no body.

    Raises:
        S3ErrorInResponse: The body is an error.
        UnexpectedResponse: The response has another body, such as a proxy's page.
    """
    body = await read_whole(response, progress)
    if body and not body.isspace():
        root = expect_document(body)
        raise UnexpectedResponse(f"expected an empty body, got <{root.tag:.40}>")


async def receive_put(response: aiohttp.ClientResponse, progress: Progress) -> str:
    """Return the ETag of an uploaded object or part, without quotes.

    Raises:
        S3ErrorInResponse: The body is an error.
        UnexpectedResponse: The response has another body, or no ETag.
    """
    if not response.content.at_eof():
        await receive_deleted(response, progress)
    etag = read_etag(response.headers)
    if not etag:
        raise UnexpectedResponse("expected an ETag header")
    return etag


def verify_checksum(algorithm: str, expected: str, *, store: str, name: str) -> Receiver[str]:
    """Return a receiver for an object or part that was uploaded with a checksum.

    The receiver raises :class:`~aioimageattach.exc.StoreError` if the server does not return the expected checksum, in
    base64.
    """
    header = f"x-amz-checksum-{algorithm}"

    async def receive(response: aiohttp.ClientResponse, progress: Progress) -> str:
        etag = await receive_put(response, progress)
        found = response.headers.get(header)
        if found is None:
            raise StoreError(
                f"put {name!r}: expected the header {header}, which confirms the checksum, got none: the server does "
                f"not support checksum={algorithm!r}; set checksum=None, or an algorithm that it supports",
                store=store,
                name=name,
            )
        if found != expected:
            raise UnexpectedResponse(f"expected {header}: {expected}, got {found:.100}")
        return etag

    return receive


def _receiver(parse: Callable[[bytes], R]) -> Receiver[R]:
    async def receive(response: aiohttp.ClientResponse, progress: Progress) -> R:
        return parse(await read_whole(response, progress))

    return receive


receive_objects: Receiver[ListPage] = _receiver(parse_list)
"""Return a page of a listing of objects."""

receive_uploads: Receiver[UploadsPage] = _receiver(parse_uploads)
"""Return a page of a listing of multipart uploads."""

receive_delete_result: Receiver[DeleteResult] = _receiver(parse_delete_result)
"""Return the outcome of a request that deletes many keys."""

receive_upload_id: Receiver[str] = _receiver(parse_upload_id)
"""Return the identifier of the upload that was started."""

receive_copied: Receiver[str] = _receiver(parse_etag)
"""Return the ETag of the object that a copy or a completed upload created."""
