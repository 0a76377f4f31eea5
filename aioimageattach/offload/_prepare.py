"""Encode, check and compress values before any upload."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from .._batches import batched
from .._tasks import map_concurrently
from .._threads import run_pixels
from .._transaction.files import CONCURRENCY
from ..exc import StoreFileNotFoundError
from ..file import Spool
from ..store import KeyedStore
from ._codec import compress
from ._fetch import HOP
from ._files import StoredFile
from ._reference import Inline, Reference, format_inline, make_reference
from ._values import Settings, Stored, check_size, content_of, sha256_of, size_of

__all__ = ["Prepared", "Wanted", "prepare_all"]

_BATCH: Final = 32
"""Number of values that are processed in one call to a worker thread."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A handle to write.

    Args:
        handle: The handle. Its value is loaded, or is stored for another row.
        settings: The settings of the column.
        old: The previous value of the row; ``None`` if there was none or it is unknown.
        store: The store that contains the file, if the value is stored for another row.
        shared: ``True`` if other rows may reference the file, too.
    """

    handle: Stored[Any]
    settings: Settings
    old: Stored[Any] | None
    store: KeyedStore
    shared: bool


@dataclass(frozen=True, slots=True)
class Prepared:
    """The content to write for a handle.

    Args:
        content: The new content of the column; ``None`` if the value is unchanged.
        data: The bytes of the file, if there is one.
    """

    content: Reference | Inline | None
    data: bytes | Spool = b""

    @property
    def raw(self) -> str:
        """The new content of the column as a string."""
        return format_inline(self.content.data) if isinstance(self.content, Inline) else str(self.content)


async def prepare_all(wanted: Sequence[Wanted]) -> list[Prepared]:
    """Return the content to write for each handle; large amounts are processed in worker threads.

    Raises:
        OffloadError: A value cannot be encoded, or is too large.
        StoreFileNotFoundError: The file of a value that is stored for another row is not in the store where it is
            looked for.
        StoreError: It could not be read.
    """
    turn = asyncio.Semaphore(CONCURRENCY)

    async def plain(one: Wanted) -> bytes | Spool | None:
        """Return the bytes of a value that is not loaded, because it is stored for another row."""
        content = None if one.handle.loaded else one.handle._read()
        if not isinstance(content, Reference):
            return None
        check_size(content.size, one.settings)
        async with turn:
            try:
                return await one.handle._fetch_payload(one.store, content)
            except StoreFileNotFoundError as error:
                raise StoreFileNotFoundError(
                    f"{one.settings.place}: expected the file {content.name!r} in {one.store!r}, to copy it for this "
                    "row, found none: it was deleted, or it is in another store; for the latter, `await "
                    "handle.load(store)` before the flush",
                    store=repr(one.store),
                    name=content.name,
                ) from error

    async def batch(some: Sequence[Wanted]) -> list[Prepared]:
        found = await map_concurrently(plain, some, limit=CONCURRENCY)
        jobs = list(zip(some, found, strict=True))
        if sum(_weight(one) for one in some) < HOP:
            return [_prepare(*job) for job in jobs]
        return await run_pixels(lambda: [_prepare(*job) for job in jobs])

    batches = list(batched(wanted, _BATCH))
    return [one for some in await map_concurrently(batch, batches, limit=CONCURRENCY) for one in some]


def _weight(wanted: Wanted) -> int:
    """Return the number of bytes to process, or a threshold value if it is not known yet."""
    if isinstance(wanted.handle, StoredFile):
        return 0  # its checksum is known
    value = wanted.handle.value if wanted.handle.loaded else None
    return len(value) if isinstance(value, (str, bytes)) else HOP


def _prepare(wanted: Wanted, plain: bytes | Spool | None) -> Prepared:
    handle, settings = wanted.handle, wanted.settings
    if plain is None:
        plain = handle._encode()
    size, sha256 = size_of(plain), sha256_of(plain)
    check_size(size, settings)
    if wanted.old is not None and _holds(wanted.old, handle, settings, size, sha256):
        return Prepared(None)
    if isinstance(handle, StoredFile):
        return Prepared(handle._reference(settings.object_type or "", size, sha256), plain)
    assert isinstance(plain, bytes)
    if size < settings.inline_below:
        return Prepared(Inline(plain))
    data, compression = compress(plain, settings.compression), settings.compression
    if len(data) >= size:
        data, compression = plain, None
    reference = make_reference(
        settings.object_type or "",
        size=size,
        stored=len(data),
        sha256=sha256,
        kind=settings.cls.kind,
        compression=compression,
        shared=wanted.shared,
    )
    return Prepared(reference, data)


def _holds(old: Stored[Any], handle: Stored[Any], settings: Settings, size: int, sha256: str) -> bool:
    """Return whether a row already holds this value in the place that the current settings require."""
    content = content_of(old)
    if isinstance(handle, StoredFile):
        return isinstance(content, Reference) and old == handle
    if content is None or isinstance(content, Inline) != (size < settings.inline_below):
        return False
    return old.size == size and old.sha256 == sha256
