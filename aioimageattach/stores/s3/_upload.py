"""Atomic creation of objects: in one request, in parts if they are large, or by a copy within the server."""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Final, Literal, TypeAlias

from ..._tasks import begin, finish, map_concurrently
from ..._telemetry import log_fields
from ...exc import StoreError, StoreFileExistsError, StoreFileNotFoundError, StoreUnavailableError
from ._copying import COPY_FACTOR, MAX_COPY, PUT_ID, CopySource, SourceHead, is_too_large
from ._documents import MAX_PARTS, Part, build_complete
from ._encryption import Encryption
from ._http.body import Body, Watch
from ._http.chunked import Algorithm
from ._http.receivers import (
    look_up,
    receive_copied,
    receive_deleted,
    receive_put,
    receive_upload_id,
    verify_checksum,
)
from ._http.responses import ListedUpload
from ._http.sender import Receiver, Request, Sender
from ._objects import META, ObjectHead
from ._xml import UnexpectedResponse

__all__ = ["CreateOnly", "Uploader", "part_size_for"]

_log = logging.getLogger("aioimageattach.stores.s3")

CreateOnly: TypeAlias = Literal["if-none-match", "head"]
"""How a taken name is detected: by the server itself, or by a ``HEAD`` request before the put."""

_PUT_ID_HEADER: Final = META + PUT_ID
_GRACE: Final = 5.0
_CLEAN_UP: Final = 15.0
_SKEW: Final = timedelta(minutes=16)  # servers accept a clock skew of 15 minutes
_DELETED: Final = frozenset({200, 202, 204})
_ABSENT: Final = frozenset({"NoSuchKey", "NoSuchUpload", "NoSuchVersion", "NotFound"})


_SendPart: TypeAlias = Callable[[str, int], Awaitable[Part]]


@dataclass(slots=True)
class _Put:
    """One put or copy.

    Args:
        key: The object's key.
        name: The object's name in error messages.
        body: The content; empty for a copy.
        headers: The headers that describe the object.
        conditions: The headers that make the request conditional.
        put_id: An identifier that is stored with the object, if the put must not replace another object.
        source: The source object, for a copy.
        watch: Records whether the server may have processed the request.
    """

    key: str
    name: str
    body: Body
    headers: Mapping[str, str]
    conditions: Mapping[str, str]
    put_id: str | None = None
    source: CopySource | None = None
    watch: Watch = field(default_factory=Watch)


def part_size_for(size: int, wanted: int) -> int:
    """Return the size of a part, in bytes: ``wanted``, or more if there would be over 10,000 parts."""
    return max(wanted, -(-size // MAX_PARTS))


class Uploader:
    """An uploader, which creates, replaces and copies objects.

    Args:
        sender: Sends the requests.
        list_uploads: Lists the unfinished uploads whose keys start with a prefix.
        threshold: Smallest object that is uploaded in parts, in bytes.
        part_size: Size of a part, in bytes; increased if there would be over 10,000 parts.
        parallel: How many parts of one object are sent concurrently.
        checksum: The algorithm of the checksum that the server verifies.
        encryption: The server-side encryption of objects.
        create_only: How a taken name is detected.
    """

    def __init__(
        self,
        sender: Sender,
        list_uploads: Callable[[str], AsyncIterator[ListedUpload]],
        *,
        threshold: int,
        part_size: int,
        parallel: int,
        checksum: Algorithm | None,
        encryption: Encryption,
        create_only: CreateOnly,
    ) -> None:
        self._sender = sender
        self._list_uploads = list_uploads
        self._threshold = threshold
        self._part_size = part_size
        self._parallel = parallel
        self._checksum: Algorithm | None = checksum
        self._encryption = encryption
        self._only_new: Mapping[str, str] = {"If-None-Match": "*"} if create_only == "if-none-match" else {}
        self._active: set[str] = set()

    async def replace(self, key: str, name: str, body: Body, headers: Mapping[str, str], if_match: str | None) -> str:
        """Put an object, replacing any that has the key; return its ETag.

        Args:
            key: The object's key.
            name: The object's name in error messages.
            body: The content.
            headers: The headers that describe the object.
            if_match: The ETag that the existing object must have; ``None`` replaces any object, or none.
        """
        conditions = {} if if_match is None else {"If-Match": f'"{if_match}"'}
        return await self._send(_Put(key, name, body, headers, conditions))

    async def create(self, key: str, name: str, body: Body, headers: Mapping[str, str]) -> str:
        """Create an object, never overwriting an existing one; return its ETag.

        Raises:
            StoreFileExistsError: The name is taken; the existing object is unchanged.
            StoreError: The upload failed.

        Effects: After an error or a cancellation, no object is left, unless the server stopped responding. If the
        cancellation arrives after the last byte was sent, the call waits a few seconds for the response and then
        deletes the object.
        """
        put_id = secrets.token_hex(8)
        put = _Put(key, name, body, headers, self._only_new, put_id)
        return await self._create(put, ask_first=not self._only_new)

    async def copy(self, key: str, name: str, headers: Mapping[str, str], source: CopySource, *, only_new: bool) -> str:
        """Copy an object within the server, in parts if it is too large for one request; return the ETag of the copy.

        Args:
            key: The copy's key.
            name: The copy's name in error messages.
            headers: The headers that describe the copy; without a ``Content-Type``, it keeps the source's description.
            source: The source object.
            only_new: ``True`` to fail if the name is taken. Many servers ignore ``If-None-Match`` for copies, so the
                name is also checked first.
        """
        if not only_new:
            return await self._send(_Put(key, name, Body(), headers, {}, source=source))
        put_id = secrets.token_hex(8)
        put = _Put(key, name, Body(), headers, self._only_new, put_id, source)
        return await self._create(put, ask_first=True)

    async def _create(self, put: _Put, *, ask_first: bool) -> str:
        task, ended = begin(self._create_or_undo(put, ask_first=ask_first))

        def stop() -> None:
            if put.watch.all_sent:
                asyncio.get_running_loop().call_later(_GRACE, task.cancel)
            else:
                task.cancel()

        return await finish(task, stop=stop, undo=lambda etag: self._undo_put(put, etag), ended=ended)

    async def _create_or_undo(self, put: _Put, *, ask_first: bool) -> str:
        if ask_first and await self._head(put) is not None:
            raise StoreFileExistsError(
                f"{put.name!r} already exists; a file is never overwritten", store=self._sender.label, name=put.name
            )
        try:
            return await self._send(put)
        except StoreFileExistsError:
            raise
        except BaseException as error:
            if put.watch.all_sent and not _is_definite(error):
                await finish(self._undo_put(put))
            raise

    async def _send(self, put: _Put) -> str:
        try:
            if put.source is not None:
                return await self._copy(put, put.source)
            if put.body.size >= self._threshold:
                return await self._send_body(put)
            return await self._send_whole(put)
        except StoreError as error:
            if put.put_id is None or not (isinstance(error, StoreFileExistsError) or error.code == "NoSuchUpload"):
                raise
            # If the response to an earlier attempt was lost, the existing object may be the one that we created.
            head = await self._head(put)
            if head is not None and head.metadata.get(PUT_ID) == put.put_id:
                return head.etag
            if head is None and put.source is not None and isinstance(error, StoreFileExistsError):
                raise StoreError(
                    f"copy to {put.name!r}: the server responded with {error.status} {error.code}, although there is "
                    "no such object: it compares If-None-Match with the source; set create_only='head'",
                    store=self._sender.label,
                    name=put.name,
                    code="NotImplemented",
                ) from error
            raise

    async def _send_whole(self, put: _Put) -> str:
        headers = self._object_headers(put)
        headers.update(put.conditions)
        headers["Content-Length"] = str(put.body.size)
        receive = receive_put if self._checksum is None else await self._add_checksum(headers, put.body, put.name)
        request = Request("PUT", "put", put.key, headers=headers, body=put.body, name=put.name, watch=put.watch)
        return await self._sender.send(request, receive)

    def _object_headers(self, put: _Put) -> dict[str, str]:
        """Return the headers that describe the object."""
        headers = {**put.headers, **self._encryption.write}
        if put.put_id is not None:
            headers[_PUT_ID_HEADER] = put.put_id
        return headers

    async def _add_checksum(self, headers: dict[str, str], body: Body, name: str) -> Receiver[str]:
        """Add the checksum of a body to its headers; return the receiver that verifies the server's confirmation."""
        if self._checksum is None:
            return receive_put
        checksum = await body.checksum(self._checksum)
        headers[f"x-amz-checksum-{self._checksum}"] = checksum
        return verify_checksum(self._checksum, checksum, store=self._sender.label, name=name)

    # --- copies ------------------------------------------------------------------------------------------------------

    async def _copy(self, put: _Put, source: CopySource) -> str:
        directive = {"x-amz-metadata-directive": "REPLACE"} if "Content-Type" in put.headers else {}
        headers = {**self._object_headers(put), **directive, **source.headers, **put.conditions, "Content-Length": "0"}
        request = Request("PUT", "copy to", put.key, headers=headers, name=put.name, watch=put.watch)
        try:
            return await self._sender.send(request, receive_copied)
        except StoreError as error:
            if not is_too_large(error):
                raise
        put.watch.all_sent = False  # the server rejected the request
        return await self._copy_parts(put, source, await source.look_up())

    async def _copy_parts(self, put: _Put, source: CopySource, found: SourceHead) -> str:
        """Copy an object in parts.

        The ETag of each part proves that it was copied, and ``x-amz-copy-source-if-match`` ensures that all parts are
        of the same version of the source.
        """
        size = found.head.size
        part_size = part_size_for(size, min(self._part_size * COPY_FACTOR, MAX_COPY))
        starts = range(0, size, part_size)
        if "Content-Type" not in put.headers:
            put.headers = {**found.headers, **put.headers}
        headers = {
            **self._encryption.read,
            **source.headers,
            "x-amz-copy-source-if-match": f'"{found.head.etag}"',
            "Content-Length": "0",
        }

        async def copy(upload_id: str, index: int) -> Part:
            last = min(starts[index] + part_size, size) - 1
            request = Request(
                "PUT",
                f"copy part {index + 1} of",
                put.key,
                query={"partNumber": str(index + 1), "uploadId": upload_id},
                headers={**headers, "x-amz-copy-source-range": f"bytes={starts[index]}-{last}"},
                name=put.name,
            )
            try:
                return Part(index + 1, await self._sender.send(request, receive_copied))
            except StoreFileExistsError as error:
                raise StoreError(
                    f"{request}: the source was replaced while it was copied", store=self._sender.label, name=put.name
                ) from error

        etag = await self._send_parts(put, len(starts), copy, checksum=None)
        head = await self._head(put)
        if head is None or head.size != size:
            raise StoreError(
                f"copy to {put.name!r}: expected an object of {size:,} bytes, found "
                f"{'none' if head is None else f'one of {head.size:,}'}",
                store=self._sender.label,
                name=put.name,
            )
        return etag

    # --- parts -------------------------------------------------------------------------------------------------------

    async def _send_body(self, put: _Put) -> str:
        part_size = part_size_for(put.body.size, self._part_size)
        starts = range(0, put.body.size, part_size)

        async def send(upload_id: str, index: int) -> Part:
            body = put.body.part(starts[index], starts[index] + part_size)
            return await self._send_part(put, upload_id, index + 1, body)

        return await self._send_parts(put, len(starts), send, checksum=self._checksum)

    async def _send_parts(self, put: _Put, count: int, send: _SendPart, *, checksum: Algorithm | None) -> str:
        """Create an object from parts, or abort the upload; return the object's ETag.

        Args:
            put: The put or copy.
            count: The number of parts.
            send: Uploads or copies one part, given the identifier of the upload and the index of the part.
            checksum: The algorithm of the checksum that each part has.
        """
        upload_id = await self._start(put, checksum)
        self._active.add(upload_id)
        try:
            parts = await map_concurrently(partial(send, upload_id), range(count), limit=self._parallel)
            return await self._complete(put, upload_id, parts)
        except BaseException:
            await finish(self._abort(put, upload_id))
            raise
        finally:
            self._active.discard(upload_id)

    async def _start(self, put: _Put, checksum: Algorithm | None) -> str:
        """Start a multipart upload; return its identifier.

        If the response is lost, the upload may have been started, so it is aborted before the request is retried.
        """
        headers = self._object_headers(put)
        if checksum is not None:
            headers["x-amz-checksum-algorithm"] = checksum.upper()
        request = Request(
            "POST",
            "start the upload of",
            put.key,
            query={"uploads": None},
            headers=headers,
            name=put.name,
            is_repeatable=False,
        )
        policy, loop = self._sender.policy, asyncio.get_running_loop()
        deadline = loop.time() + policy.timeout
        started_at = self._sender.now()
        attempt = 0
        while True:
            attempt += 1
            try:
                return await self._sender.send(request, receive_upload_id)
            except asyncio.CancelledError:
                await finish(self._abort_started(put, started_at))
                raise
            except StoreUnavailableError as error:
                is_clean = await finish(self._abort_started(put, started_at))
                pause = policy.pause(attempt, deadline - loop.time(), jitter=random.random())
                if not is_clean or pause is None or isinstance(error.__cause__, UnexpectedResponse):
                    raise
                extra = log_fields("s3.retry", error, pause=pause)
                _log.info("%s; the next attempt is in %.2f s", error, pause, extra=extra)
            await asyncio.sleep(pause)

    async def _abort_started(self, put: _Put, started_at: datetime) -> bool:
        """Abort an upload that was started by a request whose response was lost; return whether none is left."""
        try:
            async with asyncio.timeout(_CLEAN_UP):
                found = [
                    upload
                    async for upload in self._list_uploads(put.key)
                    if upload.key == put.key
                    and upload.initiated_at >= started_at - _SKEW
                    and upload.upload_id not in self._active
                ]
                if len(found) == 1:
                    await self.abort(put.key, put.name, found[0].upload_id)
        except (StoreError, TimeoutError) as error:
            extra = log_fields("s3.left_behind", error)
            _log.warning(
                "an unfinished upload of %r may be left in the bucket: %s",
                put.name,
                str(error) or type(error).__name__,
                extra=extra,
            )
            return False
        if len(found) > 1:
            extra = log_fields("s3.left_behind", count=len(found))
            _log.warning(
                "an unfinished upload of %r may be left in the bucket: %d are in progress",
                put.name,
                len(found),
                extra=extra,
            )
        return len(found) <= 1

    async def _send_part(self, put: _Put, upload_id: str, number: int, body: Body) -> Part:
        headers = {**self._encryption.read, "Content-Length": str(body.size)}
        receive = await self._add_checksum(headers, body, put.name)
        query = {"partNumber": str(number), "uploadId": upload_id}
        request = Request(
            "PUT", f"put part {number} of", put.key, query=query, headers=headers, body=body, name=put.name
        )
        etag = await self._sender.send(request, receive)
        given = None if self._checksum is None else (self._checksum, headers[f"x-amz-checksum-{self._checksum}"])
        return Part(number, etag, given)

    async def _complete(self, put: _Put, upload_id: str, parts: list[Part]) -> str:
        body = Body(build_complete(parts))
        headers = {
            **put.conditions,
            **self._encryption.read,
            "Content-Length": str(body.size),
            "Content-Type": "application/xml",
        }
        request = Request(
            "POST",
            "complete the upload of",
            put.key,
            query={"uploadId": upload_id},
            headers=headers,
            body=body,
            name=put.name,
            watch=put.watch,
        )
        return await self._sender.send(request, receive_copied)

    async def _abort(self, put: _Put, upload_id: str) -> None:
        try:
            async with asyncio.timeout(_CLEAN_UP):
                await self.abort(put.key, put.name, upload_id)
        except (StoreError, TimeoutError) as error:
            extra = log_fields("s3.left_behind", error)
            _log.warning(
                "the parts of an unfinished upload of %r may be left in the bucket: %s",
                put.name,
                str(error) or type(error).__name__,
                extra=extra,
            )

    async def abort(self, key: str, name: str, upload_id: str) -> None:
        """Abort an upload and delete its parts; do nothing if it does not exist."""
        request = Request("DELETE", "abort the upload of", key, query={"uploadId": upload_id}, name=name)
        await self._delete(request)

    # --- clean-up ----------------------------------------------------------------------------------------------------

    async def _undo_put(self, put: _Put, etag: str | None = None) -> None:
        """Delete the object that a failed or cancelled put created nevertheless, and no other object.

        Args:
            put: The put, which may have succeeded.
            etag: The ETag of the object, if the put is known to have succeeded; some servers do not keep the metadata
                that identifies it.
        """
        try:
            async with asyncio.timeout(_CLEAN_UP):
                head = await self._head(put)
                if head is not None and head.metadata.get(PUT_ID, head.etag) in (put.put_id, etag):
                    await self._delete(Request("DELETE", "undo the put of", put.key, name=put.name))
        except (StoreError, TimeoutError) as error:
            extra = log_fields("s3.left_behind", error)
            _log.warning("%r may be left in the bucket: %s", put.name, str(error) or type(error).__name__, extra=extra)

    async def _delete(self, request: Request) -> None:
        try:
            await self._sender.send(request._replace(accepted=_DELETED), receive_deleted)
        except StoreError as error:
            if error.code not in _ABSENT:
                raise

    async def _head(self, put: _Put) -> ObjectHead | None:
        request = Request("HEAD", "look for", put.key, headers=self._encryption.read, name=put.name)
        try:
            return await look_up(self._sender, request)
        except StoreFileNotFoundError:
            return None


def _is_definite(error: BaseException) -> bool:
    """Return whether the server rejected the request in a single attempt, so that it cannot have taken effect."""
    return (
        isinstance(error, StoreError) and error.attempts == 1 and error.status is not None and 400 <= error.status < 500
    )
