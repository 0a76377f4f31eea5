"""Merge sorted listings of stores."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from .store import ObjectInfo


async def merged(listings: Sequence[AsyncIterator[ObjectInfo]]) -> AsyncIterator[dict[int, ObjectInfo]]:
    """Merge sorted listings: yield, for each name, a dict from the index of the listing to its entry."""
    try:
        heads: dict[int, ObjectInfo] = {}
        for number, listing in enumerate(listings):
            head = await anext(listing, None)
            if head is not None:
                heads[number] = head
        while heads:
            name = min(head.name for head in heads.values())
            found = {number: head for number, head in heads.items() if head.name == name}
            yield found
            for number in found:
                head = await anext(listings[number], None)
                if head is None:
                    del heads[number]
                else:
                    heads[number] = head
    finally:
        for listing in listings:
            close = getattr(listing, "aclose", None)
            if close is not None:
                await close()
