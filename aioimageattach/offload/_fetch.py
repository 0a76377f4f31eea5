"""Read offloaded values, completely or as a stream, but never more bytes than their names state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from .._threads import run_pixels
from ..exc import DamagedValueError, DeclarationError
from ..file import AsyncFile, FileProxy
from ..store import KeyedStore, Store
from ._codec import BLOCK, Decoder, decompress
from ._reference import Reference

__all__ = ["HOP", "fetch", "keyed", "read", "stream"]

V = TypeVar("V")

HOP: Final = 64 * 1024
"""Size, in bytes, above which a value is processed in a worker thread. Below, switching threads would cost more."""


def keyed(store: Store) -> KeyedStore:
    """Return the store if it is a :class:`~aioimageattach.store.KeyedStore`.

    Raises:
        DeclarationError: The store is of another class.
    """
    if isinstance(store, KeyedStore):
        return store
    raise DeclarationError(
        f"store: expected a KeyedStore, which keeps files by name, for offloaded values; got {store!r}"
    )


async def read(store: KeyedStore, reference: Reference) -> bytes:
    """Return the bytes of a file, still compressed.

    Raises:
        StoreFileNotFoundError: The store has no such file.
        DamagedValueError: Its size differs from the size in its name.
    """
    pieces: list[bytes] = []
    left = reference.stored + 1
    async with await store.get_object(reference.name) as file:
        while left and (piece := await file.read(left)):
            pieces.append(piece)
            left -= len(piece)
    if left != 1:
        raise _wrong_size(reference)
    return b"".join(pieces)


async def fetch(store: KeyedStore, reference: Reference, decode: Callable[[bytes], V]) -> V:
    """Return the value stored in a file.

    Args:
        store: The store that contains the file.
        reference: The file.
        decode: Decodes the value from its bytes; called in a worker thread if there are many.

    Raises:
        StoreFileNotFoundError: The store has no such file.
        DamagedValueError: The content of the file is not what was stored.
    """
    data = await read(store, reference)

    def unpack() -> V:
        plain = decompress(data, reference.size, reference.sha256, reference.compression, reference.name)
        return decode(plain)

    return await run_pixels(unpack) if reference.size > HOP else unpack()


async def stream(store: KeyedStore, reference: Reference) -> AsyncFile:
    """Open the value stored in a file as a stream, which the caller closes.

    The bytes are checked as they are read. Completeness and SHA-256 can only be checked at the end.

    Raises:
        StoreFileNotFoundError: The store has no such file.
    """
    reader = _Reader(await store.get_object(reference.name), reference)
    return FileProxy(reader, close=reader.aclose)


class _Reader:
    """A file-like object that decompresses while it is read, in constant memory."""

    def __init__(self, file: AsyncFile, reference: Reference) -> None:
        self._file = file
        self._reference = reference
        self._decoder = Decoder(reference.size, reference.sha256, reference.compression, reference.name)
        self._ready = b""
        self._waiting = b""  # kept until it is fed, because a cancellation may come before the worker thread starts
        self._taken = 0
        self._dry = True  # the decoder has returned the output for all its input
        self._ended = False

    async def read(self, size: int = -1, /) -> bytes:
        """Return up to ``size`` bytes; empty at the end.

        Raises:
            DamagedValueError: The content of the file is not what was stored.
        """
        while not self._ready and not self._ended:
            if self._dry and not self._waiting:
                self._waiting = await self._take()
                if not self._waiting:
                    self._decoder.finish()
                    self._ended = True
                    break
            await run_pixels(self._feed)
        found, self._ready = self._ready[:size], self._ready[size:]
        return found

    async def _take(self) -> bytes:
        data = await self._file.read(BLOCK)
        self._taken += len(data)
        if self._taken > self._reference.stored:
            raise _wrong_size(self._reference)
        return data

    def _feed(self) -> None:
        data, self._waiting = self._waiting, b""
        self._ready = self._decoder.feed(data)
        self._dry = not self._ready

    async def aclose(self) -> None:
        await self._file.aclose()


def _wrong_size(reference: Reference) -> DamagedValueError:
    return DamagedValueError(
        f"the file {reference.name!r} is not what was stored: its size is not the expected {reference.stored:,} bytes"
    )
