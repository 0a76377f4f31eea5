"""Listings, page by page."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp

from .sender import Progress, Request, Sender
from .transport import read_whole
from .xml import ListedObject, ListedUpload, ListPage, UploadsPage, parse_list, parse_uploads

__all__ = ["list_objects", "list_uploads"]


async def _receive_objects(response: aiohttp.ClientResponse, progress: Progress) -> ListPage:
    return parse_list(await read_whole(response, progress))


async def _receive_uploads(response: aiohttp.ClientResponse, progress: Progress) -> UploadsPage:
    return parse_uploads(await read_whole(response, progress))


async def list_objects(sender: Sender, own: str, prefix: str, start_after: str) -> AsyncIterator[ListedObject]:
    """Iterate over objects, a thousand by a request.

    Args:
        sender: What asks.
        own: What all keys begin with, and no name.
        prefix: What the names begin with.
        start_after: Only names after this one; empty for all.
    """
    query = {"list-type": "2", "encoding-type": "url", "max-keys": "1000"}
    if own + prefix:
        query["prefix"] = own + prefix
    if start_after:
        query["start-after"] = own + start_after
    while True:
        page = await sender.send(Request("GET", "list", query=query), _receive_objects)
        for found in page.objects:
            yield ListedObject(found.key.removeprefix(own), found.size, found.modified_at, found.etag)
        if not page.truncated or not (page.next_token or page.objects):
            return
        query.pop("continuation-token", None)
        if page.next_token:
            query["continuation-token"] = page.next_token
        else:
            query["start-after"] = page.objects[-1].key


async def list_uploads(sender: Sender, own: str, prefix: str) -> AsyncIterator[ListedUpload]:
    """Iterate over uploads in parts that are not complete, a thousand by a request; as :func:`list_objects`."""
    query: dict[str, str | None] = {"uploads": None, "encoding-type": "url", "max-uploads": "1000"}
    if own + prefix:
        query["prefix"] = own + prefix
    while True:
        page = await sender.send(Request("GET", "list the uploads", query=query), _receive_uploads)
        for found in page.uploads:
            yield ListedUpload(found.key.removeprefix(own), found.upload_id, found.initiated_at)
        if not page.truncated or page.next_key_marker is None:
            return
        query["key-marker"] = page.next_key_marker
        query["upload-id-marker"] = page.next_upload_id_marker or ""
