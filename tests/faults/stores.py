"""A store that fails on demand, and otherwise delegates to a real one."""

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
    """Delegates every call to a real store; an action may run before or after selected calls.

    Args:
        inner: The real store; by default a new one of the usual kind.

    Attributes:
        usual: Creates the real store if a test does not pass one; in memory by default.
    """

    usual: ClassVar[Callable[[], KeyedStore]] = MemoryStore

    def __init__(self, inner: KeyedStore | None = None) -> None:
        self.inner = type(self).usual() if inner is None else inner
        self.counts = {"put": 0, "delete": 0, "get": 0}
        self._faults: dict[tuple[str, int | None, bool], Action] = {}

    def at(self, method: str, action: Action, number: int | None = None, *, after: bool = False) -> None:
        """Run an action at a call.

        Args:
            method: ``"put"``, ``"delete"`` or ``"get"``.
            action: Awaited with the name of the file.
            number: The number of the call from now on, starting with 1; ``None`` for all calls.
            after: ``True`` to run it after the real call.
        """
        self._faults[method, None if number is None else self.counts[method] + number, after] = action

    def heal(self) -> None:
        """Remove all actions."""
        self._faults.clear()

    async def names(self) -> set[str]:
        """Return the names of all files, without those in quarantine and the records of ownership."""
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
    """Raise the error of an unavailable store."""
    raise StoreUnavailableError(f"told to fail at {name}", name=name)


async def breaks(name: str) -> None:
    """Raise an exception of the backend itself."""
    raise OSError(5, "told to break", name)


async def hangs(name: str) -> None:
    """Never return."""
    await asyncio.Event().wait()


class Stop:
    """A point at which a call waits until it is released.

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
