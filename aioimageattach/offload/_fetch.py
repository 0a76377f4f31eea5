"""Reading the files of offloaded values: whole, or as a stream, and never more than their names say."""

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
"""Beyond so many bytes the work on a value is done in a thread: that costs what a hop there costs."""


def keyed(store: Store) -> KeyedStore:
    """Return a store if it keeps files by name.

    Raises:
        DeclarationError: It does not.
    """
    if isinstance(store, KeyedStore):
        return store
    raise DeclarationError(
        f"offloaded values need a store of files by name, a KeyedStore; {store!r} keeps images alone"
    )


async def read(store: KeyedStore, reference: Reference) -> bytes:
    """Return the bytes of a file as they stand in the store.

    Raises:
        StoreFileNotFoundError: There is no such file.
        DamagedValueError: It is longer or shorter than its name says.
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
    """Return the value in a file.

    Args:
        store: Has the file.
        reference: Which file.
        decode: Makes the value of its bytes; in a thread, where these are many.

    Raises:
        StoreFileNotFoundError: There is no such file.
        DamagedValueError: It does not hold what was stored.
    """
    data = await read(store, reference)

    def unpack() -> V:
        plain = decompress(data, reference.size, reference.sha256, reference.compression, reference.name)
        return decode(plain)

    return await run_pixels(unpack) if reference.size > HOP else unpack()


async def stream(store: KeyedStore, reference: Reference) -> AsyncFile:
    """Open the value in a file; the caller closes it.

    Its bytes are checked as they come. That they are all there, and the right ones, is known at their end.

    Raises:
        StoreFileNotFoundError: There is no such file.
    """
    reader = _Reader(await store.get_object(reference.name), reference)
    return FileProxy(reader, close=reader.aclose)


class _Reader:
    """Decompresses as it is read; in constant memory."""

    def __init__(self, file: AsyncFile, reference: Reference) -> None:
        self._file = file
        self._reference = reference
        self._decoder = Decoder(reference.size, reference.sha256, reference.compression, reference.name)
        self._ready = b""
        self._waiting = b""  # kept until it is fed, which may be interrupted before it begins
        self._taken = 0
        self._dry = True  # all that was fed is given
        self._ended = False

    async def read(self, size: int = -1, /) -> bytes:
        """Return up to ``size`` bytes, none at the end.

        Raises:
            DamagedValueError: These are not the bytes that were stored.
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
        f"the file {reference.name!r} is not what was stored: it does not have the {reference.stored:,} bytes it is "
        "said to have"
    )
