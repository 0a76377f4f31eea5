"""A store that misbehaves when it is told to; all else it does by a real one."""

from __future__ import annotations

import asyncio
import io
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, TypeAlias

from ..exc import StoreUnavailableError
from ..file import AsyncFile, FileProxy, SeekableFileProxy, Source, Spool
from ..key import ImageKey
from ..store import KeyedStore, KeyLevelStore, Location, ObjectInfo, Store
from ..stores.memory import MemoryStore

__all__ = ["Action", "FaultyStore", "Method", "PlainFaultyStore"]

Method: TypeAlias = Literal["put", "get", "head", "delete", "list", "listed"]
"""What a store is asked: ``"list"`` is the call, ``"listed"`` each name that it gives."""

Action: TypeAlias = Callable[[str], Awaitable[object]]

_METHODS: Final = ("put", "get", "head", "delete", "list", "listed")


@dataclass(frozen=True, slots=True)
class _Rule:
    method: str
    number: int | None
    name: Callable[[str], bool] | None
    after: bool
    action: Action | None = None
    size: int | None = None

    def fits(self, method: str, number: int, name: str) -> bool:
        return self.method == method and self.number in (None, number) and (self.name is None or self.name(name))


class _Faults:
    """Rules, and the calls that they are about."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self._rules: list[_Rule] = []

    def on(
        self,
        method: Method,
        action: Action,
        *,
        at: int | None = None,
        name: Callable[[str], bool] | None = None,
        after: bool = False,
    ) -> None:
        """Await something at a call.

        Args:
            method: At which; see :data:`Method`.
            action: Called with the name of the file, or the prefix of a listing; what it raises, the call raises.
            at: At which of these calls from now on, beginning with 1; ``None`` for each.
            name: Says of a name whether it is meant; ``None`` for every name.
            after: Whether the real store does its work before.
        """
        self._add(method, at, name, after, action=action)

    def fail(
        self,
        method: Method,
        error: BaseException | None = None,
        *,
        at: int | None = None,
        name: Callable[[str], bool] | None = None,
        after: bool = False,
    ) -> None:
        """Raise an error at a call, by default :class:`StoreUnavailableError`; see :meth:`on`."""

        async def action(which: str) -> None:
            raise StoreUnavailableError(f"told to fail at {method} {which}", name=which) if error is None else error

        self._add(method, at, name, after, action=action)

    def hang(
        self,
        method: Method,
        *,
        at: int | None = None,
        name: Callable[[str], bool] | None = None,
        after: bool = False,
    ) -> None:
        """Never return from a call, until it is cancelled; see :meth:`on`."""

        async def action(which: str) -> None:
            await asyncio.Event().wait()

        self._add(method, at, name, after, action=action)

    def delay(
        self,
        method: Method,
        seconds: float,
        *,
        at: int | None = None,
        name: Callable[[str], bool] | None = None,
        after: bool = False,
    ) -> None:
        """Let a call take longer; see :meth:`on`."""

        async def action(which: str) -> None:
            await asyncio.sleep(seconds)

        self._add(method, at, name, after, action=action)

    def truncate(
        self,
        method: Literal["put", "get"],
        size: int,
        *,
        at: int | None = None,
        name: Callable[[str], bool] | None = None,
    ) -> None:
        """Keep, or give, no more than the first bytes of a file, and say nothing of it.

        Args:
            method: Which.
            size: In bytes.
            at: As for :meth:`on`.
            name: As for :meth:`on`.
        """
        self._add(method, at, name, False, size=size)

    def heal(self) -> None:
        """Behave from now on."""
        self._rules.clear()

    def _add(
        self,
        method: str,
        at: int | None,
        name: Callable[[str], bool] | None,
        after: bool,
        *,
        action: Action | None = None,
        size: int | None = None,
    ) -> None:
        if method not in _METHODS:
            raise ValueError(f"method: expected one of {', '.join(_METHODS)}, got {method!r}")
        if at is not None and at < 1:
            raise ValueError(f"at: expected 1 for the next call, or a later one, got {at}")
        number = None if at is None else self.calls[method] + at
        self._rules.append(_Rule(method, number, name, after, action, size))

    async def _reach(self, method: str, name: str) -> int:
        """Count a call, and do what is to be done before it; return its number."""
        self.calls[method] += 1
        number = self.calls[method]
        await self._act(method, number, name, after=False)
        return number

    async def _act(self, method: str, number: int, name: str, *, after: bool) -> None:
        for rule in tuple(self._rules):
            if rule.action is not None and rule.after is after and rule.fits(method, number, name):
                await rule.action(name)

    def _size(self, method: str, number: int, name: str) -> int | None:
        """How many bytes of a file are left."""
        sizes = [rule.size for rule in self._rules if rule.size is not None and rule.fits(method, number, name)]
        return min(sizes, default=None)

    async def _put(self, name: str, data: Source, put: Callable[[Source], Awaitable[None]]) -> None:
        number = await self._reach("put", name)
        size = self._size("put", number, name)
        if size is None:
            await put(data)
        else:
            spool = await Spool.fill(data)
            async with spool.open() as file:
                await put(await file.read(size))
        await self._act("put", number, name, after=True)

    async def _get(self, name: str, get: Callable[[], Awaitable[AsyncFile]]) -> AsyncFile:
        number = await self._reach("get", name)
        file = await get()
        try:
            await self._act("get", number, name, after=True)
        except BaseException:
            await file.aclose()
            raise
        size = self._size("get", number, name)
        if size is None:
            return file
        async with file:
            return SeekableFileProxy(io.BytesIO(await FileProxy(file).read(size)))


class FaultyStore(_Faults, KeyedStore):
    """Passes every call on to the store behind it; at the calls it was told of, it misbehaves.

    ::

        store.fail("put", at=2)                                    # the second put from now on
        store.fail("delete", name=lambda name: name.endswith(".png"))
        store.fail("put", after=True)                              # it is done, and the answer is lost
        store.hang("get")
        store.truncate("put", 100)                                 # the disk says nothing, and keeps 100 bytes

    Args:
        inner: The real store; ``None`` for a new one in memory.

    Attributes:
        inner: The real store.
        calls: How often it was asked what; see :data:`Method`.
    """

    def __init__(self, inner: KeyedStore | None = None) -> None:
        super().__init__()
        self.inner: KeyedStore = MemoryStore() if inner is None else inner
        self.has_signed_urls: bool = self.inner.has_signed_urls

    async def names(self, prefix: str = "") -> set[str]:
        """Return the names of the files in the real store; no rule applies.

        Files that a sweep put into quarantine, and the records of ownership, are left out unless the prefix names them.
        """
        found = {info.name async for info in self.inner.list_objects(prefix)}
        return found if prefix.startswith(".") else {name for name in found if not name.startswith(".")}

    async def put_object(
        self, name: str, data: Source, *, mimetype: str = "application/octet-stream", reproducible: bool = False
    ) -> None:
        """Put a file, or do what ``"put"`` was told."""

        async def put(source: Source) -> None:
            await self.inner.put_object(name, source, mimetype=mimetype, reproducible=reproducible)

        await self._put(name, data, put)

    async def get_object(self, name: str, *, start: int = 0, end: int | None = None) -> AsyncFile:
        """Open a file, or do what ``"get"`` was told."""
        return await self._get(name, lambda: self.inner.get_object(name, start=start, end=end))

    async def head_object(self, name: str) -> ObjectInfo:
        """Return a file's size and time of change, or do what ``"head"`` was told."""
        number = await self._reach("head", name)
        found = await self.inner.head_object(name)
        await self._act("head", number, name, after=True)
        return found

    async def delete_object(self, name: str) -> None:
        """Delete a file, or do what ``"delete"`` was told."""
        number = await self._reach("delete", name)
        await self.inner.delete_object(name)
        await self._act("delete", number, name, after=True)

    async def list_objects(self, prefix: str = "", *, start_after: str = "") -> AsyncIterator[ObjectInfo]:
        """Iterate over files, or do what ``"list"`` and ``"listed"`` were told."""
        number = await self._reach("list", prefix)
        async for found in self.inner.list_objects(prefix, start_after=start_after):
            await self._reach("listed", found.name)
            yield found
        await self._act("list", number, prefix, after=True)

    async def discard_unfinished(self, before: datetime, prefix: str = "") -> int:
        """As the store behind it."""
        return await self.inner.discard_unfinished(before, prefix)

    def location_of(self, object_type: str | None = None) -> Location:
        """As the store behind it."""
        return self.inner.location_of(object_type)

    def url_of(self, name: str) -> str:
        """As the store behind it."""
        return self.inner.url_of(name)

    def legacy_name(self, key: ImageKey) -> str:
        """As the store behind it."""
        return self.inner.legacy_name(key)

    def make_revision(self) -> str:
        """As the store behind it."""
        return self.inner.make_revision()

    def __repr__(self) -> str:
        return f"<FaultyStore of {self.inner!r}>"


class PlainFaultyStore(_Faults, KeyLevelStore):
    """:class:`FaultyStore` for a store that has no names; rules get the revision of a file for its name.

    Args:
        inner: The real store.
    """

    def __init__(self, inner: Store) -> None:
        super().__init__()
        self.inner: Store = inner
        self.needs_object_id: bool = inner.needs_object_id
        self.has_signed_urls: bool = inner.has_signed_urls

    async def put(self, key: ImageKey, file: Source, *, reproducible: bool) -> None:
        """Put a file, or do what ``"put"`` was told."""

        async def put(source: Source) -> None:
            await self.inner.put(key, source, reproducible=reproducible)

        await self._put(key.revision or "", file, put)

    async def get(self, key: ImageKey) -> AsyncFile:
        """Open a file, or do what ``"get"`` was told."""
        return await self._get(key.revision or "", lambda: self.inner.get(key))

    async def discard(self, key: ImageKey) -> None:
        """Delete a file, or do what ``"delete"`` was told."""
        number = await self._reach("delete", key.revision or "")
        await self.inner.discard(key)
        await self._act("delete", number, key.revision or "", after=True)

    def url_for(self, key: ImageKey) -> str:
        """As the store behind it."""
        return self.inner.url_for(key)

    def make_revision(self) -> str:
        """As the store behind it."""
        return self.inner.make_revision()

    def __repr__(self) -> str:
        return f"<PlainFaultyStore of {self.inner!r}>"
