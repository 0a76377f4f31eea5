"""What stores that are made of other stores have in common."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime

import pytest

from aioimageattach.store import ObjectInfo
from aioimageattach.stores.combined import merged


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
