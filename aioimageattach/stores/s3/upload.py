"""Puts objects whole or not at all: in one request, or in parts where they are large."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

import aiohttp

from ..._threads import finish
from ...exc import StoreError, StoreFileExistsError, StoreFileNotFoundError
from .body import Body
from .chunked import Algorithm
from .encryption import Encryption
from .objects import META, ObjectHead, read_head
from .sender import Progress, Request, Sender, Watch
from .transport import read_whole
from .xml import MAX_PARTS, Part, build_complete, parse_complete, parse_initiate_multipart

__all__ = ["PUT_ID", "CreateOnly", "Uploader", "receive_etag", "receive_head", "size_of_parts"]

_log = logging.getLogger(__name__)

CreateOnly: TypeAlias = Literal["if-none-match", "head"]
"""How a name that is taken is refused: by the server itself, or by asking it before."""

PUT_ID: Final = "put-id"
"""The metadata that tells which put an object is of: after a lost answer it says whether the put was done."""

_GRACE: Final = 5.0
_TAKE_BACK: Final = 15.0


async def receive_head(response: aiohttp.ClientResponse, progress: Progress) -> ObjectHead:
    """Return what the answer to ``HEAD`` says."""
    return read_head(response.headers)


async def receive_etag(response: aiohttp.ClientResponse, progress: Progress) -> str:
    """Return the object's tag, without quotes, when the answer is complete."""
    await read_whole(response, progress)
    return response.headers.get("ETag", "").strip('"')


async def _receive_upload_id(response: aiohttp.ClientResponse, progress: Progress) -> str:
    return parse_initiate_multipart(await read_whole(response, progress))


async def _receive_completed(response: aiohttp.ClientResponse, progress: Progress) -> str:
    return parse_complete(await read_whole(response, progress)).etag


@dataclass(slots=True)
class _Put:
    """One put.

    Args:
        key: Where to.
        name: What messages call it.
        body: What.
        headers: What else is said of it.
        conditions: When it is to be refused.
        watch: Whether the server may have done it.
        put_id: By which to know it again, if it is not to replace anything.
    """

    key: str
    name: str
    body: Body
    headers: Mapping[str, str]
    conditions: Mapping[str, str]
    put_id: str | None
    watch: Watch = field(default_factory=Watch)


def size_of_parts(size: int, wanted: int) -> int:
    """Return how many bytes a part has to have: as wanted, or more where there would be over 10,000 parts."""
    return max(wanted, -(-size // MAX_PARTS))


class Uploader:
    """Puts objects.

    Args:
        sender: What asks the server.
        threshold: From how many bytes on a body goes up in parts.
        part_size: How many bytes a part has; more where there would be over 10,000 of them.
        parallel: How many parts of one object are on their way at once.
        checksum: Which checksum the server is to compare.
        encryption: How the server is to encrypt.
        create_only: How a name that is taken is refused.
    """

    def __init__(
        self,
        sender: Sender,
        *,
        threshold: int,
        part_size: int,
        parallel: int,
        checksum: Algorithm | None,
        encryption: Encryption,
        create_only: CreateOnly,
    ) -> None:
        self._sender = sender
        self._threshold = threshold
        self._part_size = part_size
        self._parallel = parallel
        self._checksum: Algorithm | None = checksum
        self._encryption = encryption
        self._create_only = create_only

    async def replace(self, key: str, name: str, body: Body, headers: Mapping[str, str], if_match: str | None) -> str:
        """Put an object, over what may stand there; return its tag.

        Args:
            key: Where to.
            name: What messages call it.
            body: What.
            headers: What else is said of it.
            if_match: The tag that what stands there must have; ``None`` for any, or nothing.
        """
        conditions = {} if if_match is None else {"If-Match": f'"{if_match}"'}
        return await self._send(_Put(key, name, body, headers, conditions, None))

    async def create(self, key: str, name: str, body: Body, headers: Mapping[str, str]) -> str:
        """Put an object where none stands yet; return its tag.

        Raises:
            StoreFileExistsError: One does; it is unchanged.
            StoreError: It could not be done.

        Effects: On an error or a cancellation nothing is left, as far as the server can be asked. When a cancellation
        comes after the last byte was sent, the answer is waited for, some seconds at most, and the object removed.
        """
        put_id = secrets.token_hex(8)
        conditions = {"If-None-Match": "*"} if self._create_only == "if-none-match" else {}
        put = _Put(key, name, body, {**headers, META + PUT_ID: put_id}, conditions, put_id)
        task = asyncio.ensure_future(self._create(put))

        def stop() -> None:
            if put.watch.all_sent:
                asyncio.get_running_loop().call_later(_GRACE, task.cancel)
            else:
                task.cancel()

        return await finish(task, stop=stop, undo=lambda _: self._take_back(put))

    async def _create(self, put: _Put) -> str:
        if self._create_only == "head" and await self._head(put) is not None:
            raise StoreFileExistsError(
                f"there is {put.name!r} already; a file is never overwritten", store=self._sender.label, name=put.name
            )
        try:
            return await self._send(put)
        except StoreFileExistsError:
            raise
        except BaseException as error:
            if put.watch.all_sent and not _is_definite(error):
                await finish(self._take_back(put))
            raise

    async def _send(self, put: _Put) -> str:
        try:
            if put.body.size >= self._threshold:
                return await self._send_parts(put)
            return await self._send_whole(put)
        except StoreError as error:
            # The answer to an earlier attempt may have been lost: then it is our own object that is in the way.
            if put.put_id is not None and (isinstance(error, StoreFileExistsError) or error.code == "NoSuchUpload"):
                head = await self._head(put)
                if head is not None and head.metadata.get(PUT_ID) == put.put_id:
                    return head.etag
            raise

    async def _send_whole(self, put: _Put) -> str:
        headers = {**put.headers, **put.conditions, **self._encryption.write, **await self._describe(put.body)}
        request = Request("PUT", "put", put.key, headers=headers, body=put.body, name=put.name, watch=put.watch)
        return await self._sender.send(request, receive_etag)

    async def _describe(self, body: Body) -> dict[str, str]:
        headers = {"Content-Length": str(body.size)}
        if self._checksum is not None:
            headers[f"x-amz-checksum-{self._checksum}"] = await body.checksum(self._checksum)
        return headers

    async def _send_parts(self, put: _Put) -> str:
        headers = {**put.headers, **self._encryption.write}
        if self._checksum is not None:
            headers["x-amz-checksum-algorithm"] = self._checksum.upper()
        begin = Request("POST", "put", put.key, query={"uploads": None}, headers=headers, name=put.name)
        upload_id = await self._sender.send(begin, _receive_upload_id)
        try:
            parts = await self._send_each(put, upload_id)
            return await self._complete(put, upload_id, parts)
        except BaseException:
            await finish(self._abort(put, upload_id))
            raise

    async def _send_each(self, put: _Put, upload_id: str) -> list[Part]:
        part_size = size_of_parts(put.body.size, self._part_size)
        starts = enumerate(range(0, put.body.size, part_size), 1)
        parts: list[Part] = []

        async def work() -> None:
            for number, start in starts:
                parts.append(await self._send_part(put, upload_id, number, put.body.part(start, start + part_size)))

        workers = [asyncio.ensure_future(work()) for _ in range(self._parallel)]
        try:
            await asyncio.gather(*workers)
        except BaseException:
            for worker in workers:
                worker.cancel()
            await finish(asyncio.wait(workers))
            raise
        return parts

    async def _send_part(self, put: _Put, upload_id: str, number: int, body: Body) -> Part:
        headers = {**self._encryption.read, **await self._describe(body)}
        query = {"partNumber": str(number), "uploadId": upload_id}
        request = Request(
            "PUT", f"put part {number} of", put.key, query=query, headers=headers, body=body, name=put.name
        )
        etag = await self._sender.send(request, receive_etag)
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
        return await self._sender.send(request, _receive_completed)

    async def _abort(self, put: _Put, upload_id: str) -> None:
        try:
            async with asyncio.timeout(_TAKE_BACK):
                await self.abort(put.key, put.name, upload_id)
        except (StoreError, TimeoutError) as error:
            _log.warning("The parts of an upload of %r may be left: %s", put.name, str(error) or type(error).__name__)

    async def abort(self, key: str, name: str, upload_id: str) -> None:
        """Forget an upload and its parts; one that is not there is no error."""
        request = Request(
            "DELETE",
            "abort the upload of",
            key,
            query={"uploadId": upload_id},
            name=name,
            accepted=frozenset({200, 204, 404}),
        )
        await self._sender.send(request, receive_etag)

    async def _take_back(self, put: _Put) -> None:
        """Remove what was put after all, and nothing else."""
        try:
            async with asyncio.timeout(_TAKE_BACK):
                head = await self._head(put)
                if head is not None and head.metadata.get(PUT_ID) == put.put_id:
                    request = Request(
                        "DELETE", "take back", put.key, name=put.name, accepted=frozenset({200, 204, 404})
                    )
                    await self._sender.send(request, receive_etag)
        except (StoreError, TimeoutError) as error:
            _log.warning("%r may be left behind: %s", put.name, str(error) or type(error).__name__)

    async def _head(self, put: _Put) -> ObjectHead | None:
        request = Request("HEAD", "look for", put.key, headers=self._encryption.read, name=put.name)
        try:
            return await self._sender.send(request, receive_head)
        except StoreFileNotFoundError:
            return None


def _is_definite(error: BaseException) -> bool:
    """Whether a server has refused a request that was sent once."""
    return (
        isinstance(error, StoreError) and error.attempts == 1 and error.status is not None and 400 <= error.status < 500
    )
