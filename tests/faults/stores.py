"""A store that misbehaves when it is told to; all else it does by a real one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime
from typing import ClassVar

from aioimageattach.exc import StoreUnavailableError
from aioimageattach.file import AsyncFile, Source
from aioimageattach.store import KeyedStore, ObjectInfo
from aioimageattach.stores import MemoryStore

Action = Callable[[str], Awaitable[object]]


class FaultyStore(KeyedStore):
    """Passes every call on to the store behind it; at the calls it was told of, something happens first, or after.

    Args:
        inner: The real store; a new one of the usual kind if none is given.

    Attributes:
        usual: Makes what is behind it where a test does not say; in memory, unless somebody has the time for more.
    """

    usual: ClassVar[Callable[[], KeyedStore]] = MemoryStore

    def __init__(self, inner: KeyedStore | None = None) -> None:
        self.inner = type(self).usual() if inner is None else inner
        self.counts = {"put": 0, "delete": 0, "get": 0}
        self._faults: dict[tuple[str, int | None, bool], Action] = {}

    def at(self, method: str, action: Action, number: int | None = None, *, after: bool = False) -> None:
        """Do something at a call.

        Args:
            method: ``"put"``, ``"delete"`` or ``"get"``.
            action: Awaited with the name of the file.
            number: Which call from now on, beginning with 1; ``None`` for all of them.
            after: Whether the real store does its work before it.
        """
        self._faults[method, None if number is None else self.counts[method] + number, after] = action

    def heal(self) -> None:
        """Behave from now on."""
        self._faults.clear()

    async def names(self) -> set[str]:
        """The names of all files, without those in quarantine and the records of ownership."""
        return {found.name async for found in self.inner.list_objects() if not found.name.startswith(".")}

    async def _reach(self, method: str, number: int, name: str, after: bool) -> None:
        for which in (number, None):
            action = self._faults.get((method, which, after))
            if action is not None:
                await action(name)

    def _count(self, method: str) -> int:
        self.counts[method] += 1
        return self.counts[method]

    async def put_object(
        self, name: str, data: Source, *, mimetype: str = "application/octet-stream", reproducible: bool = False
    ) -> None:
        number = self._count("put")
        await self._reach("put", number, name, False)
        await self.inner.put_object(name, data, mimetype=mimetype, reproducible=reproducible)
        await self._reach("put", number, name, True)

    async def get_object(self, name: str, *, start: int = 0, end: int | None = None) -> AsyncFile:
        number = self._count("get")
        await self._reach("get", number, name, False)
        file = await self.inner.get_object(name, start=start, end=end)
        try:
            await self._reach("get", number, name, True)
        except BaseException:
            await file.aclose()
            raise
        return file

    async def delete_object(self, name: str) -> None:
        number = self._count("delete")
        await self._reach("delete", number, name, False)
        await self.inner.delete_object(name)
        await self._reach("delete", number, name, True)

    async def head_object(self, name: str) -> ObjectInfo:
        return await self.inner.head_object(name)

    def list_objects(self, prefix: str = "", *, start_after: str = "") -> AsyncIterator[ObjectInfo]:
        return self.inner.list_objects(prefix, start_after=start_after)

    async def discard_unfinished(self, before: datetime, prefix: str = "") -> int:
        return await self.inner.discard_unfinished(before, prefix)

    def url_of(self, name: str) -> str:
        return self.inner.url_of(name)

    def legacy_name(self, key: object) -> str:
        return self.inner.legacy_name(key)  # type: ignore[arg-type]

    def __repr__(self) -> str:
        return f"<FaultyStore of {self.inner!r}>"


async def fails(name: str) -> None:
    """The store is not there."""
    raise StoreUnavailableError(f"told to fail at {name}", name=name)


async def breaks(name: str) -> None:
    """The backend raises something of its own."""
    raise OSError(5, "told to break", name)


async def hangs(name: str) -> None:
    """The store never answers."""
    await asyncio.Event().wait()


class Stop:
    """A place where a call waits until it is let go.

    ::

        stop = Stop()
        store.at("put", stop, 1)
        task = asyncio.create_task(...)
        await stop.reached.wait()
        stop.go.set()
    """

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.go = asyncio.Event()

    async def __call__(self, name: str) -> None:
        self.reached.set()
        await self.go.wait()
