"""Concurrent uploads of files to stores, and deletions from them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, cast

from .._tasks import finish, map_concurrently
from .._telemetry import LEFT, log_fields
from ..exc import ImageAttachError, StoreError, StoreFileExistsError
from ..file import Source, Spool
from ..key import ImageKey
from ..store import KeyedStore
from .references import TrackedFile

__all__ = ["CONCURRENCY", "DISCARD_TIMEOUT", "Upload", "discard_all", "put_all"]

CONCURRENCY: Final = 8
"""Maximum number of files that one flush or one clean-up transfers concurrently."""

DISCARD_TIMEOUT: Final = 30.0
"""Maximum duration of the clean-up at the end of a transaction, in seconds."""

_ORIGINALS: Final = 100
"""Number of originals whose thumbnails are deleted together; a bucket deletes up to 1,000 files in one request."""

_log = logging.getLogger("aioimageattach.transaction")


@dataclass(frozen=True, slots=True)
class Upload:
    """A file to put.

    Args:
        file: The store and the name of the file.
        data: The bytes.
        mimetype: The MIME type; not used for image keys, which contain it.
        reproducible: ``True`` if the bytes can be generated again.
        shared: ``True`` if other rows may reference the file, too. A shared file may already exist, and no transaction
            deletes it.
    """

    file: TrackedFile
    data: bytes | Spool
    mimetype: str = "application/octet-stream"
    reproducible: bool = False
    shared: bool = False

    async def put(self) -> None:
        """Put the file.

        Raises:
            StoreError: The file could not be put. Other exceptions of a store become the cause of a ``StoreError``.
        """
        try:
            if isinstance(self.data, Spool):
                async with self.data.open() as data:
                    await self._put(data)
            else:
                await self._put(self.data)
        except StoreFileExistsError:
            if not self.shared:
                raise
        except ImageAttachError:
            raise
        except Exception as error:
            store = self.file.store
            raise StoreError(f"{store!r} could not put {self.file.key!r}: {error}", store=repr(store)) from error

    async def _put(self, data: Source) -> None:
        store, key = self.file.store, self.file.key
        if isinstance(key, ImageKey):
            await store.put(key, data, reproducible=self.reproducible)
        else:
            await cast("KeyedStore", store).put_object(
                key, data, mimetype=self.mimetype, reproducible=self.reproducible
            )


async def put_all(uploads: Sequence[Upload]) -> None:
    """Put files concurrently.

    Effects: On an error or a cancellation, all of them are deleted again except shared ones.
    """
    begun: list[TrackedFile] = []

    async def put(upload: Upload) -> None:
        if not upload.shared:
            begun.append(upload.file)
        try:
            await upload.put()
        except StoreFileExistsError:
            begun.remove(upload.file)  # the existing file belongs to another upload: do not delete it
            raise

    try:
        await map_concurrently(put, uploads, limit=CONCURRENCY)
    except BaseException:
        await finish(discard_all(begun))
        raise


async def discard_all(files: Sequence[TrackedFile]) -> None:
    """Delete files, then the files that were made from them; log failures.

    Originals are deleted first, because code that makes a thumbnail checks for the original after putting the
    thumbnail.
    """
    left = set(files)
    deleted: list[TrackedFile] = []  # those whose thumbnails are still to be deleted

    async def delete(file: TrackedFile) -> None:
        try:
            await _discard(file)
            deleted.append(file)
        except (Exception, asyncio.CancelledError) as error:
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                raise
            extra = log_fields(LEFT, error, count=1)
            _log.warning(
                "%r could not delete %r, which is left for the sweep: %r", file.store, file.key, error, extra=extra
            )
        left.discard(file)
        if len(deleted) >= _ORIGINALS:  # while other originals are being deleted
            some = deleted.copy()
            deleted.clear()
            await _discard_derived(some)

    try:
        async with asyncio.timeout(DISCARD_TIMEOUT):
            await map_concurrently(delete, files, limit=CONCURRENCY)
            await _discard_derived(deleted)
    except TimeoutError:
        extra = log_fields(LEFT, count=len(left))
        _log.warning(
            "%d files were not deleted within %g s, and are left for the sweep", len(left), DISCARD_TIMEOUT, extra=extra
        )


async def _discard_derived(originals: Sequence[TrackedFile]) -> None:
    names: dict[int, tuple[KeyedStore, list[str]]] = {}
    for original in originals:
        if original.derived is not None:
            store = cast("KeyedStore", original.store)
            names.setdefault(id(store), (store, []))[1].extend(original.derived.names())
    for store, some in names.values():
        try:
            failed = await store.delete_objects(some)
        except Exception as error:
            failed = dict.fromkeys(some, StoreError(repr(error)))
        for reason in list(failed.values())[:1]:
            extra = log_fields(LEFT, count=len(failed))
            _log.warning(
                "%r could not delete %d thumbnails, which are left for the sweep: %s",
                store,
                len(failed),
                reason,
                extra=extra,
            )


async def _discard(file: TrackedFile) -> None:
    if isinstance(file.key, ImageKey):
        await file.store.discard(file.key)
    else:
        await cast("KeyedStore", file.store).delete_object(file.key)
