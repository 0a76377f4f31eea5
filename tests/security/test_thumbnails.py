"""A client that can request thumbnails of any size exhausts neither the store nor the memory."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from aioimageattach import _threads
from aioimageattach.exc import ImageAttachError, ImageTooLargeError
from aioimageattach.file import AsyncFile, FileProxy
from tests import photos
from tests.entity.models import CountingStore, User

Sessions = async_sessionmaker[AsyncSession]


async def user_of(session: AsyncSession, blob: bytes, key: int = 1) -> User:
    user = User(id=key)
    session.add(user)
    await user.picture.from_blob(blob)
    await session.commit()
    return user


@pytest.mark.parametrize("call", ["generate_thumbnail", "get_or_generate_thumbnail"])
async def test_a_picture_has_no_more_thumbnails_than_allowed(
    call: str, session: AsyncSession, store: CountingStore
) -> None:
    """A thumbnail beyond the limit is rejected before the original is read; existing ones are still returned."""
    user = await user_of(session, photos.webp())
    await user.picture.generate_thumbnails([*range(1, 101)])
    await session.commit()
    store.calls.clear()
    with pytest.raises(ImageTooLargeError, match=r"at most 100 thumbnails of .* \(max_thumbnails\), got 101") as caught:
        await getattr(user.picture, call)(width=101)
    assert (caught.value.limit, caught.value.actual) == (100, 101)
    assert (await getattr(user.picture, call)(width=50)).width == 50
    assert store.calls == []
    assert len(user.picture) == 101


@pytest.mark.parametrize(
    "arguments",
    [
        {"width": 0},
        {"width": -1},
        {"width": 10**9},
        {"width": 10**30},
        {"width": math.nan},
        {"width": "1e9"},
        {"height": 0},
        {"width": 1, "height": 10**9, "fit": "fill"},
        {"ratio": 0},
        {"ratio": -1.0},
        {"ratio": 1e9},
        {"ratio": math.inf},
        {"ratio": math.nan},
        {"width": 30_000, "height": 30_000, "fit": "cover"},
        {"width": 30_000, "height": 30_000, "fit": "contain"},
        {"width": 20_000, "format": "webp", "height": 1, "fit": "fill"},
    ],
)
async def test_absurd_sizes_are_refused(arguments: dict[str, Any], session: AsyncSession) -> None:
    """Sizes of 0, beyond the limits, or that are not numbers raise an error and add no row."""
    user = await user_of(session, photos.webp())
    with pytest.raises((ImageAttachError, ValueError)):
        await user.picture.generate_thumbnail(**arguments)
    assert len(user.picture) == 1


@pytest.mark.parametrize(("size", "expected"), [((1, 9_000), (1, 100)), ((9_000, 1), (900, 1))])
async def test_extreme_proportions(size: tuple[int, int], expected: tuple[int, int], session: AsyncSession) -> None:
    """The most extreme proportions result in a thumbnail of at least one pixel per side."""
    from PIL import Image

    user = await user_of(session, photos.saved(Image.new("RGB", size), "PNG"))
    made = await user.picture.generate_thumbnail(**({"height": 100} if size[0] == 1 else {"width": 900}))
    assert (made.width, made.height) == expected


async def test_a_tiny_ratio_is_one_pixel(session: AsyncSession) -> None:
    """For any ratio, the thumbnail has at least one pixel."""
    user = await user_of(session, photos.webp())
    made = await user.picture.generate_thumbnail(ratio=1e-300)
    assert (made.width, made.height) == (1, 1)


class SlowStore(CountingStore):
    """A store that counts the files that are open concurrently, and delays each read."""

    opened = most = 0

    async def get_object(self, name: str, *, start: int = 0, end: int | None = None) -> AsyncFile:
        file = await super().get_object(name, start=start, end=end)
        self.opened += 1
        self.most = max(self.most, self.opened)
        await asyncio.sleep(0.02)  # rows are looked up one after the other, so reads must take a while to overlap

        async def close() -> None:
            self.opened -= 1
            await file.aclose()

        return FileProxy(file, close=close)


async def test_few_originals_are_in_memory(sessions: Sessions) -> None:
    """For many concurrent thumbnails, only a few originals are in memory, and all thumbnails are made."""
    store = SlowStore()
    async with sessions() as session:
        users = [User(id=number) for number in range(60)]
        for user in users:
            session.add(user)
            await user.picture.from_blob(photos.photo("coffee"), store)
        await session.commit()
    async with sessions() as session:
        found = [await session.get_one(User, user.id) for user in users]
        made = await asyncio.gather(*(user.picture.generate_thumbnail(width=20, store=store) for user in found))
    assert {image.width for image in made} == {20}
    assert 1 < store.most <= 2 * (_threads.cores() + 1)
