"""What stores that are made of other stores have in common."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from aioimageattach.store import KeyedStore, ObjectInfo
from aioimageattach.stores.combined import merged
from aioimageattach.stores.fs import FileSystemStore
from aioimageattach.stores.fs.paths import SIDE_PREFIX
from aioimageattach.stores.memory import MemoryStore
from aioimageattach.stores.mirror import MirrorStore, PlainMirrorStore
from aioimageattach.stores.overlay import OverlayStore, PlainOverlayStore
from aioimageattach.stores.routing import PlainRoutingStore, RoutingStore
from tests.stores.plain import PlainStore


class Listing:
    """A listing that is no generator, and has nothing to close."""

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
    """Each name comes once, with the numbers of the listings that have it, in their order."""
    found = [
        next(iter(infos.values())).name + "".join(map(str, infos)) async for infos in merged([*map(Listing, listings)])
    ]
    assert found == expected


async def test_listings_are_closed_when_the_merge_is_left() -> None:
    """Each, so that none holds a directory or a connection."""
    closed: list[bool] = []
    merging = merged([generated("ab", closed), generated("bc", closed)])
    await anext(merging)
    await merging.aclose()  # type: ignore[attr-defined]
    assert closed == [True, True]


async def test_what_killed_puts_have_left_is_removed(tmp_path: Path) -> None:
    """In each store that is written to, and nowhere else."""
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


def test_whose_files_are_seen() -> None:
    """Copying a file from there would do nothing."""
    first, second, third = MemoryStore(), MemoryStore(), MemoryStore()
    plain, other = PlainStore(), PlainStore()
    for store, expected in (
        (first, [first]),
        (MirrorStore(first, second), [first, second]),
        (RoutingStore({"a": first}, second), []),
        (RoutingStore({"a": first, "b": MirrorStore(second, first)}), [first]),
        (RoutingStore({}), []),
        (OverlayStore(first, MirrorStore(second, third)), [first, second, third]),
        (PlainMirrorStore(plain, other), [plain, other]),
        (PlainOverlayStore(plain, other), [plain, other]),
        (PlainRoutingStore({"a": plain}), [plain]),
    ):
        assert store.reads_from(store)
        assert [one for one in (first, second, third, plain, other) if store.reads_from(one)] == expected
