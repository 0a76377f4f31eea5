"""A store that wraps another one and injects faults."""

from __future__ import annotations

import asyncio
import io
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, TypeAlias

from ..exc import StoreUnavailableError
from ..file import AsyncFile, FileProxy, SeekableFileProxy, Source, Spool
from ..key import ImageKey
from ..store import KeyedStore, ObjectInfo, Store
from ..store._keyed import KeyLevelStore
from ..stores._combined import CombinedStore
from ..stores._memory import MemoryStore

__all__ = ["Action", "FaultyStore", "Method", "PlainFaultyStore"]

Method: TypeAlias = Literal["put", "get", "head", "delete", "list", "listed"]
"""A method of a store; ``"list"`` is the call of ``list_objects``, ``"listed"`` is each name that it yields."""

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

    def matches(self, method: str, number: int, name: str) -> bool:
        return self.method == method and self.number in (None, number) and (self.name is None or self.name(name))


class _Faults:
    """The rules of a faulty store, and the number of calls of each method."""

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
        """Await an action in calls of a method.

        Args:
            method: The method; see :data:`Method`.
            action: Coroutine function that is called with the name of the file, or the prefix of a listing. Errors that
                it raises are raised by the call.
            at: The number of the call, counted from now on; 1 is the next one. ``None`` for every call.
            name: A predicate that selects the names; ``None`` for all names.
            after: ``True`` if the action runs after the wrapped store has done its work, instead of before.

        Raises:
            ValueError: There is no such method, or ``at`` is less than 1.
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
        """Raise an error in calls of a method.

        Args:
            method: The method; see :data:`Method`.
            error: The error; ``None`` for a :class:`~aioimageattach.exc.StoreUnavailableError`.
            at: As for :meth:`on`.
            name: As for :meth:`on`.
            after: As for :meth:`on`.
        """

        async def action(which: str) -> None:
            raise StoreUnavailableError(f"injected failure of {method} {which}", name=which) if error is None else error

        self._add(method, at, name, after, action=action)

    def hang(
        self,
        method: Method,
        *,
        at: int | None = None,
        name: Callable[[str], bool] | None = None,
        after: bool = False,
    ) -> None:
        """Let calls of a method wait until they are cancelled. The arguments are those of :meth:`on`."""

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
        """Delay calls of a method.

        Args:
            method: The method; see :data:`Method`.
            seconds: The delay.
            at: As for :meth:`on`.
            name: As for :meth:`on`.
            after: As for :meth:`on`.
        """

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
        """Put or return only the first bytes of a file, without an error.

        Args:
            method: The method.
            size: Number of bytes.
            at: As for :meth:`on`.
            name: As for :meth:`on`.
        """
        self._add(method, at, name, False, size=size)

    def heal(self) -> None:
        """Remove all rules."""
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
            raise ValueError(f"at: expected 1 (the next call) or more, got {at}")
        number = None if at is None else self.calls[method] + at
        self._rules.append(_Rule(method, number, name, after, action, size))

    async def _reach(self, method: str, name: str) -> int:
        """Count a call and run the actions before it; return its number."""
        self.calls[method] += 1
        number = self.calls[method]
        await self._act(method, number, name, after=False)
        return number

    async def _act(self, method: str, number: int, name: str, *, after: bool) -> None:
        for rule in tuple(self._rules):
            if rule.action is not None and rule.after is after and rule.matches(method, number, name):
                await rule.action(name)

    def _size(self, method: str, number: int, name: str) -> int | None:
        """Return the number of bytes to which a file is truncated; ``None`` if it is not."""
        sizes = [rule.size for rule in self._rules if rule.size is not None and rule.matches(method, number, name)]
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


class FaultyStore(_Faults, CombinedStore, KeyedStore):
    """A store that delegates each call to another store, and injects faults into the calls that match a rule.

    ::

        store.fail("put", at=2)                                    # the second put from now on fails
        store.fail("delete", name=lambda name: name.endswith(".png"))
        store.fail("put", after=True)                              # the file is put, but the response is lost
        store.hang("get")
        store.truncate("put", 100)                                 # only 100 bytes are kept, without an error

    Args:
        inner: The store to wrap; ``None`` for a new :class:`~aioimageattach.stores.MemoryStore`.

    Attributes:
        inner: The wrapped store.
        calls: Number of calls of each method; see :data:`Method`.
    """

    def __init__(self, inner: KeyedStore | None = None) -> None:
        super().__init__()
        self.inner: KeyedStore = MemoryStore() if inner is None else inner
        self.has_signed_urls: bool = self.inner.has_signed_urls

    def _combined(self) -> Iterable[Store]:
        return (self.inner,)

    @staticmethod
    def plain(inner: Store) -> PlainFaultyStore:
        """Return a faulty store for a store that is not a ``KeyedStore``. Rules match the revision, not the name.

        Args:
            inner: The store to wrap.
        """
        return PlainFaultyStore(inner)

    async def names(self, prefix: str = "") -> set[str]:
        """Return the names of the files in the wrapped store. No rule applies.

        Names that begin with ``.`` are left out unless the prefix does so, too: files that a sweep has moved to
        quarantine, and the records of ownership.
        """
        found = {info.name async for info in self.inner.list_objects(prefix)}
        return found if prefix.startswith(".") else {name for name in found if not name.startswith(".")}

    async def put_object(
        self, name: str, data: Source, *, mimetype: str = "application/octet-stream", reproducible: bool = False
    ) -> None:
        """Put a file, subject to the rules of ``"put"``."""

        async def put(source: Source) -> None:
            await self.inner.put_object(name, source, mimetype=mimetype, reproducible=reproducible)

        await self._put(name, data, put)

    async def get_object(self, name: str, *, start: int = 0, end: int | None = None) -> AsyncFile:
        """Open a file, subject to the rules of ``"get"``."""
        return await self._get(name, lambda: self.inner.get_object(name, start=start, end=end))

    async def head_object(self, name: str) -> ObjectInfo:
        """Return a file's size and modification time, subject to the rules of ``"head"``."""
        number = await self._reach("head", name)
        found = await self.inner.head_object(name)
        await self._act("head", number, name, after=True)
        return found

    async def delete_object(self, name: str) -> None:
        """Delete a file, subject to the rules of ``"delete"``."""
        number = await self._reach("delete", name)
        await self.inner.delete_object(name)
        await self._act("delete", number, name, after=True)

    async def list_objects(self, prefix: str = "", *, start_after: str = "") -> AsyncIterator[ObjectInfo]:
        """Iterate over files, subject to the rules of ``"list"`` and ``"listed"``."""
        number = await self._reach("list", prefix)
        async for found in self.inner.list_objects(prefix, start_after=start_after):
            await self._reach("listed", found.name)
            yield found
        await self._act("list", number, prefix, after=True)

    async def discard_unfinished(self, before: datetime, prefix: str = "") -> int:
        """Call the wrapped store."""
        return await self.inner.discard_unfinished(before, prefix)

    def location_of(self, object_type: str | None = None) -> frozenset[Hashable]:
        """Return the result of the wrapped store."""
        return self.inner.location_of(object_type)

    def url_of(self, name: str) -> str:
        """Return the result of the wrapped store."""
        return self.inner.url_of(name)

    def download_url_of(self, name: str, filename: str) -> str:
        """Return the result of the wrapped store."""
        return self.inner.download_url_of(name, filename)

    def legacy_name(self, key: ImageKey) -> str:
        """Return the result of the wrapped store."""
        return self.inner.legacy_name(key)

    def make_revision(self) -> str:
        """Return the result of the wrapped store."""
        return self.inner.make_revision()

    def revision_for(self, object_type: str, *, reproducible: bool) -> str:
        """Return the result of the wrapped store."""
        return self.inner.revision_for(object_type, reproducible=reproducible)

    def __repr__(self) -> str:
        return f"<FaultyStore of {self.inner!r}>"


class PlainFaultyStore(_Faults, CombinedStore, KeyLevelStore):
    """A faulty store for a store that need not be a ``KeyedStore``; see :class:`FaultyStore`."""

    def __init__(self, inner: Store) -> None:
        super().__init__()
        self.inner: Store = inner
        self.needs_object_id: bool = inner.needs_object_id
        self.has_signed_urls: bool = inner.has_signed_urls

    def _combined(self) -> Iterable[Store]:
        return (self.inner,)

    async def put(self, key: ImageKey, file: Source, *, reproducible: bool) -> None:
        """Put a file, subject to the rules of ``"put"``."""

        async def put(source: Source) -> None:
            await self.inner.put(key, source, reproducible=reproducible)

        await self._put(key.revision or "", file, put)

    async def get(self, key: ImageKey) -> AsyncFile:
        """Open a file, subject to the rules of ``"get"``."""
        return await self._get(key.revision or "", lambda: self.inner.get(key))

    async def discard(self, key: ImageKey) -> None:
        """Delete a file, subject to the rules of ``"delete"``."""
        number = await self._reach("delete", key.revision or "")
        await self.inner.discard(key)
        await self._act("delete", number, key.revision or "", after=True)

    def url_for(self, key: ImageKey) -> str:
        """Return the result of the wrapped store."""
        return self.inner.url_for(key)

    def download_url_for(self, key: ImageKey, filename: str) -> str:
        """Return the result of the wrapped store."""
        return self.inner.download_url_for(key, filename)

    def make_revision(self) -> str:
        """Return the result of the wrapped store."""
        return self.inner.make_revision()

    def revision_for(self, object_type: str, *, reproducible: bool) -> str:
        """Return the result of the wrapped store."""
        return self.inner.revision_for(object_type, reproducible=reproducible)

    def __repr__(self) -> str:
        return f"<PlainFaultyStore of {self.inner!r}>"
