"""Objects deleted, one by one and a thousand at once."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Final

import aiohttp

from ...exc import InvalidKeyError, StoreError, StoreFileNotFoundError, StorePermissionError
from .body import Body
from .retry import is_passing
from .sender import Progress, Request, Sender
from .transport import read_whole
from .upload import receive_etag
from .xml import MAX_DELETES, DeleteResult, build_delete, parse_delete_result

__all__ = ["Deleter"]

_DELETED: Final = frozenset({200, 202, 204})
_SINGLES: Final = 8


async def _receive(response: aiohttp.ClientResponse, progress: Progress) -> DeleteResult:
    return parse_delete_result(await read_whole(response, progress))


class Deleter:
    """Deletes objects.

    Args:
        sender: What asks the server.
        key_of: Returns the key of a name, or raises :class:`~aioimageattach.exc.InvalidKeyError`.
        prefix: What keys have before the names.
        bulk: Whether the server can delete many keys by one request.
    """

    def __init__(self, sender: Sender, key_of: Callable[[str], str], *, prefix: str, bulk: bool) -> None:
        self._sender = sender
        self._key_of = key_of
        self._prefix = prefix
        self._bulk = bulk

    async def delete(self, name: str) -> None:
        """Delete an object; one that is not there is no error."""
        request = Request("DELETE", "delete", self._key_of(name), name=name, accepted=_DELETED)
        try:
            await self._sender.send(request, receive_etag)
        except StoreFileNotFoundError:
            return  # some servers say so

    async def delete_many(self, names: Iterable[str]) -> dict[str, StoreError]:
        """Delete many objects, a thousand by a request; return the error of each that could not be deleted."""
        failed: dict[str, StoreError] = {}
        rest = iter(names)
        while batch := list(islice(rest, MAX_DELETES)):
            single: list[str] = []
            many: list[str] = []
            for name in dict.fromkeys(batch):
                try:
                    build_delete([self._key_of(name)])
                except InvalidKeyError as error:
                    # What XML cannot write may still be deleted by a request of its own.
                    if error.name is None:
                        failed[name] = error
                    else:
                        single.append(name)
                else:
                    (many if self._bulk else single).append(name)
            if many:
                single += await self._delete_batch(many, failed)
            failed |= await self._delete_singly(single)
        return failed

    async def _delete_batch(self, names: Sequence[str], failed: dict[str, StoreError]) -> list[str]:
        """Delete by one request; return those that are worth another attempt."""
        body = Body(build_delete([self._key_of(name) for name in names]))
        headers = {
            "Content-Length": str(body.size),
            "Content-MD5": base64.b64encode(hashlib.md5(body.view, usedforsecurity=False).digest()).decode(),
            "Content-Type": "application/xml",
        }

        request = Request("POST", "delete many", query={"delete": None}, headers=headers, body=body)
        try:
            result = await self._sender.send(request, _receive)
        except StoreError as error:
            failed |= dict.fromkeys(names, error)
            return []
        again: list[str] = []
        for failure in result.failures:
            name = failure.key.removeprefix(self._prefix)
            if is_passing(200, failure.code):
                again.append(name)
            else:
                kind = StorePermissionError if failure.code == "AccessDenied" else StoreError
                failed[name] = kind(
                    f"delete {name!r}: the server answered {failure.code}: {failure.message}",
                    store=self._sender.label,
                    name=name,
                    code=failure.code,
                )
        return again

    async def _delete_singly(self, names: Sequence[str]) -> dict[str, StoreError]:
        turn = asyncio.Semaphore(_SINGLES)
        failed: dict[str, StoreError] = {}

        async def delete(name: str) -> None:
            async with turn:
                try:
                    await self.delete(name)
                except StoreError as error:
                    failed[name] = error

        await asyncio.gather(*(delete(name) for name in names))
        return failed
