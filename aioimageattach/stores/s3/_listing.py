"""Iteration over listings, page by page."""

from __future__ import annotations

from collections.abc import AsyncIterator, Hashable

from ...exc import StoreError
from ._http.receivers import receive_objects, receive_uploads
from ._http.responses import ListedObject, ListedUpload
from ._http.sender import Request, Sender

__all__ = ["list_objects", "list_uploads"]

_MAX_EMPTY = 1000


class _Cycle:
    """A detector of listings that do not end, in constant memory (Brent's algorithm).

    A server that ignores the continuation parameter returns the same page again and again.
    """

    def __init__(self, sender: Sender) -> None:
        self._sender = sender
        self._seen: Hashable = object()
        self._steps = 0
        self._limit = 1
        self._empty = 0

    def check(self, position: Hashable, *, is_empty: bool) -> None:
        """Record the position at which a page ends.

        Raises:
            StoreError: An earlier page ended at the same position, or a thousand consecutive pages were empty.
        """
        self._empty = self._empty + 1 if is_empty else 0
        if position == self._seen or self._empty > _MAX_EMPTY:
            raise self.error("the server repeats a page")
        self._steps += 1
        if self._steps == self._limit:
            self._seen, self._steps, self._limit = position, 0, 2 * self._limit

    def error(self, problem: str) -> StoreError:
        """Return the error for a listing that cannot be continued."""
        return StoreError(
            f"list: expected a complete listing, but {problem}",
            store=self._sender.label,
        )


async def list_objects(sender: Sender, own: str, prefix: str, start_after: str) -> AsyncIterator[ListedObject]:
    """Iterate over objects, 1,000 per request.

    A server that returns no continuation token supports only version 1 of the listing API, which is used from then on.

    Args:
        sender: Sends the requests.
        own: The client's own prefix, which is part of keys but not of names.
        prefix: The prefix of the names.
        start_after: Return only names after this one; empty for all.

    Raises:
        StoreError: A request failed, or the listing makes no progress.
    """
    query = {"list-type": "2", "encoding-type": "url", "max-keys": "1000"}
    if own + prefix:
        query["prefix"] = own + prefix
    if start_after:
        query["start-after"] = own + start_after
    cycle = _Cycle(sender)
    while True:
        page = await sender.send(Request("GET", "list", query=query), receive_objects)
        last = page.objects[-1].key if page.objects else None
        if page.truncated:
            cycle.check(last or page.next_token or page.next_marker, is_empty=last is None)
        for found in page.objects:
            name = found.key.removeprefix(own)
            # Some servers ignore start-after, others ignore prefix.
            if name > start_after and found.key.startswith(own + prefix):
                yield ListedObject(name, found.size, found.modified_at, found.etag)
        if not page.truncated:
            return
        if page.next_token:
            query["continuation-token"] = page.next_token
            continue
        marker = page.next_marker or last
        if marker is None:
            raise cycle.error("the page is truncated and has no marker of the next one")
        for name in ("list-type", "start-after", "continuation-token"):
            query.pop(name, None)
        # If the server ignored start-after, the marker skips the names before it.
        query["marker"] = max(marker, own + start_after)


async def list_uploads(sender: Sender, own: str, prefix: str) -> AsyncIterator[ListedUpload]:
    """Iterate over unfinished multipart uploads, 1,000 per request, like :func:`list_objects`."""
    query: dict[str, str | None] = {"uploads": None, "encoding-type": "url", "max-uploads": "1000"}
    if own + prefix:
        query["prefix"] = own + prefix
    cycle = _Cycle(sender)
    while True:
        page = await sender.send(Request("GET", "list the uploads", query=query), receive_uploads)
        last = page.uploads[-1] if page.uploads else None
        if page.truncated:
            position = (last.key, last.upload_id) if last else (page.next_key_marker, page.next_upload_id_marker)
            cycle.check(position, is_empty=last is None)
        for found in page.uploads:
            if found.key.startswith(own + prefix):
                yield ListedUpload(found.key.removeprefix(own), found.upload_id, found.initiated_at)
        if not page.truncated:
            return
        if page.next_key_marker is not None:
            query["key-marker"] = page.next_key_marker
            query["upload-id-marker"] = page.next_upload_id_marker or ""
        elif last is not None:
            query["key-marker"], query["upload-id-marker"] = last.key, last.upload_id
        else:
            raise cycle.error("the page is truncated and has no marker of the next one")
