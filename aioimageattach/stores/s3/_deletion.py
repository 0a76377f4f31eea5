"""Deletion of objects, one by one or up to 1,000 per request."""

from __future__ import annotations

import base64
import hashlib
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from ..._batches import batched
from ..._tasks import map_concurrently
from ..._telemetry import log_fields
from ...exc import InvalidKeyError, StoreError, StoreFileNotFoundError, StorePermissionError
from ._documents import MAX_DELETES, build_delete, is_writable
from ._errors import is_unsupported
from ._http.body import Body
from ._http.receivers import receive_delete_result, receive_deleted
from ._http.sender import Request, Sender
from ._retry import is_transient

__all__ = ["Deleter"]

_log = logging.getLogger("aioimageattach.stores.s3")

_DELETED: Final = frozenset({200, 202, 204})
_SINGLES: Final = 8


class Deleter:
    """A helper that deletes the objects of one bucket.

    Args:
        sender: Sends the requests.
        key_of: Returns the key of a name, or raises :class:`~aioimageattach.exc.InvalidKeyError`.
        prefix: The part of each key that precedes the name.
        bulk: ``True`` if the server supports deleting many keys in one request; reset if the server rejects that.
    """

    def __init__(self, sender: Sender, key_of: Callable[[str], str], *, prefix: str, bulk: bool) -> None:
        self._sender = sender
        self._key_of = key_of
        self._prefix = prefix
        self._bulk = bulk

    async def delete(self, name: str) -> None:
        """Delete an object; do nothing if it does not exist."""
        request = Request("DELETE", "delete", self._key_of(name), name=name, accepted=_DELETED)
        try:
            await self._sender.send(request, receive_deleted)
        except StoreFileNotFoundError:
            return  # some servers return 404 instead of 204

    async def delete_many(self, names: Iterable[str]) -> dict[str, StoreError]:
        """Delete many objects, up to 1,000 per request; return the errors of those that were not deleted, by name."""
        failed: dict[str, StoreError] = {}
        for batch in batched(names, MAX_DELETES):
            single: list[str] = []
            many: dict[str, str] = {}
            for name in dict.fromkeys(batch):
                try:
                    key = self._key_of(name)
                except InvalidKeyError as error:
                    failed[name] = error
                    continue
                if self._bulk and is_writable(key):
                    many[name] = key
                else:  # a key that XML cannot represent can still be deleted in a separate request
                    single.append(name)
            if many:
                single += await self._delete_batch(many, failed)
            failed |= await self._delete_singly(single)
        return failed

    async def _delete_batch(self, keys: Mapping[str, str], failed: dict[str, StoreError]) -> list[str]:
        """Delete many objects in one request, given their keys; return the names to retry in separate requests."""
        body = Body(build_delete([*keys.values()]))
        headers = {
            "Content-Length": str(body.size),
            "Content-MD5": base64.b64encode(hashlib.md5(body.view, usedforsecurity=False).digest()).decode(),
            "Content-Type": "application/xml",
        }
        request = Request("POST", "delete many", query={"delete": None}, headers=headers, body=body)
        try:
            result = await self._sender.send(request, receive_delete_result)
        except StoreError as error:
            if is_unsupported(error):
                self._bulk = False
                extra = log_fields("s3.unsupported", error)
                _log.warning("%s; objects are deleted one by one; set bulk_delete=False", error, extra=extra)
                return [*keys]
            failed |= dict.fromkeys(keys, error)
            return []
        again: list[str] = []
        for failure in result.failures:
            name = failure.key.removeprefix(self._prefix)
            if is_transient(200, failure.code):
                again.append(name)
            else:
                kind = StorePermissionError if failure.code == "AccessDenied" else StoreError
                failed[name] = kind(
                    f"delete {name!r}: the server responded with {failure.code}: {failure.message}",
                    store=self._sender.label,
                    name=name,
                    code=failure.code,
                )
        return again

    async def _delete_singly(self, names: Sequence[str]) -> dict[str, StoreError]:
        failed: dict[str, StoreError] = {}

        async def delete(name: str) -> None:
            try:
                await self.delete(name)
            except StoreError as error:
                failed[name] = error

        await map_concurrently(delete, names, limit=_SINGLES)
        return failed
