"""The common behaviour of stores that combine other stores."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

import pytest

from aioimageattach._listings import merged
from aioimageattach.key import ImageKey
from aioimageattach.store import KeyedStore, ObjectInfo
from aioimageattach.stores import MemoryStore, MirrorStore, OverlayStore, RoutingStore
from aioimageattach.stores.fs import FileSystemStore
from aioimageattach.stores.fs._paths import SIDE_PREFIX
from tests.stores.plain import PlainStore


class Listing:
    """A listing that is not a generator and has no ``aclose``."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = iter(names)

    def __aiter__(self) -> Listing:
        return self

    async def __anext__(self) -> ObjectInfo:
        for name in self._names:
            return ObjectInfo(name, 0, datetime.now(UTC))
        raise StopAsyncIteration


async def generated(names: Sequence[str], closed: list[bool]) -> AsyncIterator[ObjectInfo]:
    try:
        for name in names:
            yield ObjectInfo(name, 0, datetime.now(UTC))
    finally:
        closed.append(True)


@pytest.mark.parametrize(
    ("listings", "expected"),
    [
        ([], []),
        ([""], []),
        (["ac", "bd"], ["a0", "b1", "c0", "d1"]),
        (["abc", "bc", "c"], ["a0", "b01", "c012"]),
        (["c", "", "ab"], ["a2", "b2", "c0"]),
    ],
)
async def test_listings_are_merged_in_order(listings: list[str], expected: list[str]) -> None:
    """Each name is yielded once, with the indices of the listings that have it."""
    found = [
        next(iter(infos.values())).name + "".join(map(str, infos)) async for infos in merged([*map(Listing, listings)])
    ]
    assert found == expected


async def test_listings_are_closed_when_the_merge_is_left() -> None:
    """All listings are closed, so that none keeps a directory or a connection open."""
    closed: list[bool] = []
    merging = merged([generated("ab", closed), generated("bc", closed)])
    await anext(merging)
    await merging.aclose()  # type: ignore[attr-defined]
    assert closed == [True, True]


async def test_unfinished_puts_are_discarded(tmp_path: Path) -> None:
    """The temporary data of killed puts is deleted in each store that is written to, and in no other."""
    stores = [FileSystemStore(tmp_path / name, "/", fsync=False) for name in "abc"]
    first, second, third = stores

    async def left(combined: KeyedStore) -> tuple[int, list[bool]]:
        files = [Path(store.path) / f"{SIDE_PREFIX}left" for store in stores]
        for file in files:
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(b"x")
        removed = await combined.discard_unfinished(datetime.now(UTC) + timedelta(minutes=1))
        return removed, [file.exists() for file in files]

    assert await left(MirrorStore(first, second)) == (2, [False, False, True])
    assert await left(RoutingStore({"a": first, "b": second}, second)) == (2, [False, False, True])
    assert await left(OverlayStore(first, third)) == (1, [False, True, True])


def test_the_places_of_a_store() -> None:
    """A combined store has the places of its stores; a routing store can return those of one object type."""
    first, second, third = MemoryStore(), MemoryStore(), MemoryStore()
    plain, other = PlainStore(), PlainStore()
    for store, expected in (
        (first, [first]),
        (MirrorStore(first, second), [first, second]),
        (RoutingStore({"a": first}, second), [first, second]),
        (RoutingStore({}), []),
        (OverlayStore(first, MirrorStore(second, third)), [first, second, third]),
        (MirrorStore.plain(plain, other), [plain, other]),
        (OverlayStore.plain(plain, other), [plain, other]),
        (RoutingStore.plain({"a": plain}), [plain]),
    ):
        assert store.location == frozenset[object]().union(*(one.location for one in expected))
    routing = RoutingStore({"a": first}, MirrorStore(second, third))
    assert routing.location_of("a") == first.location
    assert routing.location_of("b") == second.location | third.location
    assert RoutingStore({"a": first}).location_of("b") == frozenset()


def test_a_directory_is_the_same_place_by_any_path(tmp_path: Path) -> None:
    """A directory is the same place with a trailing slash, through a symbolic link, and before it exists."""
    (real := tmp_path / "real").mkdir()
    (link := tmp_path / "link").symlink_to(real)
    store = FileSystemStore(real, "/")
    assert FileSystemStore(f"{link}/", "/other/").location == store.location
    assert hash(FileSystemStore(link, "/").location) == hash(store.location)
    assert FileSystemStore(tmp_path, "/").location != store.location
    late, other = FileSystemStore(link / "late", "/"), FileSystemStore(real / "late", "/")
    assert late.location == other.location != store.location
    (real / "late").mkdir()
    assert late.location == other.location == FileSystemStore(real / "late", "/").location
    (tmp_path / "file").write_bytes(b"")
    assert FileSystemStore(tmp_path / "file" / "below", "/").location != store.location


@pytest.mark.parametrize(
    "combine",
    [
        lambda one, other: MirrorStore(one, other),
        lambda one, other: OverlayStore(one, other),
        lambda one, other: OverlayStore(one, MirrorStore(MemoryStore(), other)),
        lambda one, other: MirrorStore.plain(one, RoutingStore.plain({"a": other})),
        lambda one, other: OverlayStore.plain(one, other),
    ],
)
def test_the_same_place_twice_is_refused(tmp_path: Path, combine: Callable[[KeyedStore, KeyedStore], object]) -> None:
    """Two stores of one directory cannot be combined, even with different paths."""
    (tmp_path / "media").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "media")
    one, other = FileSystemStore(tmp_path / "media", "/"), FileSystemStore(f"{tmp_path}/link/", "/media/")
    with pytest.raises(ValueError, match="which keep the same files"):
        combine(one, other)


async def test_names_of_a_key_in_each_store(tmp_path: Path) -> None:
    """For a key without a revision, a combined store returns the name in each of its stores."""
    directory, bucket = FileSystemStore(tmp_path, "/", fsync=False), MemoryStore()
    key = ImageKey("user-picture", 1234, 30, 20, "image/png")
    names = ("user-picture/234/1/1234.30x20.png", "user-picture/1234/30x20.png")
    new = replace(key, revision="01k9z3xbcdefghjkmnpqrstvwx")
    for store, expected in (
        (MirrorStore(directory, bucket), names),
        (MirrorStore(bucket, directory), names[::-1]),
        (RoutingStore({"user-picture": MirrorStore(directory, bucket)}), names),
        (OverlayStore(bucket, directory), names),
        (directory, names[:1]),
    ):
        assert store.names_of(key) == expected
        assert store.name_of(key) == expected[0]
        assert store.names_of(new) == (store.name_of(new),)
    mirror = MirrorStore(directory, bucket)
    await mirror.put(key, b"blob", reproducible=False)
    assert [one.name async for one in directory.list_objects()] == [names[0]]
    assert [one.name async for one in bucket.list_objects()] == [names[1]]
    assert (await mirror.head(key)).name == names[0]
    await directory.discard(key)
    for store in (mirror, RoutingStore({}, mirror)):
        assert (await store.head(key)).name == names[1]


def test_the_stores_that_are_written_to() -> None:
    """An overlay writes only to the store above, a routing store to the store of the object type."""
    first, second, third = MemoryStore(), MemoryStore(), MemoryStore()
    assert first.parts("a") == (first,)
    assert MirrorStore(first, OverlayStore(second, third)).parts("a") == (first, second)
    routing = RoutingStore({"a": MirrorStore(first, second)}, third)
    assert (routing.parts("a"), routing.parts("b")) == ((first, second), (third,))


class Pooled(PlainStore):
    """A store of a third party that opens something when it is entered.

    Args:
        name: Its name in the record of events.
        events: The record.
        fails: The event that raises an error.
    """

    def __init__(self, name: str, events: list[str], fails: str = "") -> None:
        super().__init__(f"{name}:/")
        self.name = name
        self.events = events
        self.fails = fails

    def _happens(self, event: str) -> None:
        self.events.append(f"{event} {self.name}")
        if event == self.fails:
            raise ConnectionError(self.name)

    async def connect(self) -> None:
        self._happens("connect")

    async def aclose(self) -> None:
        self._happens("close")

    async def __aenter__(self) -> Self:
        self._happens("open")
        return self


async def test_stores_are_opened_and_closed_together() -> None:
    """Stores are opened in order and closed in reverse order."""
    events: list[str] = []
    async with MirrorStore.plain(
        Pooled("a", events), MirrorStore.plain(Pooled("b", events), Pooled("c", events))
    ) as store:
        await store.connect()
    assert " ".join(events) == "open a open b open c connect a connect b connect c close c close b close a"


async def test_a_store_that_cannot_be_opened() -> None:
    """The stores that were opened before it are closed."""
    events: list[str] = []
    store = MirrorStore.plain(Pooled("a", events), Pooled("b", events, "open"), Pooled("c", events))
    with pytest.raises(ConnectionError, match="b"):
        await store.__aenter__()
    assert events == ["open a", "open b", "close a"]


async def test_a_store_that_cannot_be_closed() -> None:
    """The others are closed all the same, and the error is raised."""
    events: list[str] = []
    store = MirrorStore.plain(Pooled("a", events), Pooled("b", events, "close"), Pooled("c", events))
    with pytest.raises(ConnectionError, match="b"):
        await store.aclose()
    assert events == ["close c", "close b", "close a"]
    with pytest.raises(ConnectionError, match="b"):
        async with store:
            events.clear()
    assert events == ["close c", "close b", "close a"]


async def test_any_store_can_be_opened_and_closed(tmp_path: Path) -> None:
    """A program need not know which store it has."""
    for store in (MemoryStore(), FileSystemStore(tmp_path, "/"), PlainStore()):
        async with store as opened:
            assert opened is store
            await store.connect()
        await store.aclose()
