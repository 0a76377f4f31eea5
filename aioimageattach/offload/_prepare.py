"""From a value to the bytes of its file: what is done before anything goes up."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from .._tasks import map_concurrently
from .._threads import run_pixels
from .._transaction.files import CONCURRENCY
from ..store import KeyedStore
from ._codec import compress
from ._fetch import HOP, fetch
from ._reference import Inline, Reference, format_inline, make_reference
from ._values import Settings, Stored, check_size, content_of

__all__ = ["Prepared", "Wanted", "prepare_all"]

_BATCH: Final = 32
"""How many values one thread works on before it looks whether it is still wanted."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A handle that is to be written.

    Args:
        handle: Its value is loaded, or it is that of another row.
        settings: Of the column.
        old: What the row held before; ``None`` where it held nothing, or nobody knows.
        store: Has the file of another row's handle.
        shared: Whether the file may be one that other rows name, too.
    """

    handle: Stored[Any]
    settings: Settings
    old: Stored[Any] | None
    store: KeyedStore
    shared: bool


@dataclass(frozen=True, slots=True)
class Prepared:
    """What is to be written.

    Args:
        content: What the column will hold; ``None`` where that is what it holds already.
        data: The bytes of the file, if there is to be one.
    """

    content: Reference | Inline | None
    data: bytes = b""

    @property
    def raw(self) -> str:
        """What the column will hold, as it stands there."""
        return format_inline(self.content.data) if isinstance(self.content, Inline) else str(self.content)


async def prepare_all(wanted: Sequence[Wanted]) -> list[Prepared]:
    """Return what is to be written of each handle; the work is done in threads where it is much.

    Raises:
        OffloadError: A value has no bytes, or too many of them.
        StoreError: The value of another row's handle could not be read.
    """
    turn = asyncio.Semaphore(CONCURRENCY)

    async def plain(one: Wanted) -> bytes | None:
        """The bytes of a value that is not loaded: that of another row."""
        content = None if one.handle.loaded else one.handle._read()
        if not isinstance(content, Reference):
            return None
        check_size(content.size, one.settings)
        async with turn:
            return await fetch(one.store, content, bytes)

    async def batch(some: Sequence[Wanted]) -> list[Prepared]:
        found = await map_concurrently(plain, some, limit=CONCURRENCY)
        jobs = list(zip(some, found, strict=True))
        if sum(_weight(one) for one in some) < HOP:
            return [_prepare(*job) for job in jobs]
        return await run_pixels(lambda: [_prepare(*job) for job in jobs])

    batches = [wanted[start : start + _BATCH] for start in range(0, len(wanted), _BATCH)]
    return [one for some in await map_concurrently(batch, batches, limit=CONCURRENCY) for one in some]


def _weight(wanted: Wanted) -> int:
    """How many bytes there are to work on, as far as that can be told at once."""
    value = wanted.handle.value if wanted.handle.loaded else None
    return len(value) if isinstance(value, (str, bytes)) else HOP


def _prepare(wanted: Wanted, plain: bytes | None) -> Prepared:
    settings = wanted.settings
    if plain is None:
        plain = wanted.handle._encode()
    size = len(plain)
    check_size(size, settings)
    sha256 = hashlib.sha256(plain).hexdigest()
    if wanted.old is not None and _holds(wanted.old, settings, size, sha256):
        return Prepared(None)
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


def _holds(old: Stored[Any], settings: Settings, size: int, sha256: str) -> bool:
    """Whether a row holds these bytes already, and where the column has them by now."""
    content = content_of(old)
    if content is None or isinstance(content, Inline) != (size < settings.inline_below):
        return False
    return old.size == size and old.sha256 == sha256
