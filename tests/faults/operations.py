"""What applications do with pictures and values, each a transaction of its own that can be done again and again."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable

from sqlalchemy.ext.asyncio import AsyncSession

from aioimageattach.context import bind_store
from aioimageattach.offload import StoredBinary
from tests import photos
from tests.faults.models import Post, User
from tests.faults.rig import PNG, SIZE, GivenUp

PHOTO = photos.saved(photos.opened("coffee", (60, 40)), "JPEG")
Operation = Callable[[AsyncSession, bytes], Awaitable[None]]
"""Given a session that has a store, and other bytes each time; the caller commits."""


async def somebody(session: AsyncSession) -> User:
    """The user with number 1, a new one if there is none."""
    user = await session.get(User, 1) or User(id=1)
    session.add(user)
    return user


async def replace(session: AsyncSession, content: bytes) -> None:
    """A picture and its thumbnail take the place of others."""
    user = await somebody(session)
    await user.picture.from_raw_file(content, None, SIZE, PNG)
    await user.picture.from_raw_file(b"small " + content, None, (3, 2), PNG, original=False)


async def take_away(session: AsyncSession, content: bytes) -> None:
    """A picture is deleted, or attached where there is none."""
    user = await somebody(session)
    await user.picture.load()
    if user.picture:
        await user.picture.delete()
    else:
        await replace(session, content)


async def delete_owner(session: AsyncSession, content: bytes) -> None:
    """A user goes with his pictures, and another comes in his place."""
    old = await session.get(User, 1)
    if old is not None:
        await session.delete(old)
        await session.flush()
    await replace(session, content)


async def savepoints(session: AsyncSession, content: bytes) -> None:
    """One is released, one is rolled back."""
    user = await somebody(session)
    async with session.begin_nested():
        await user.picture.from_raw_file(b"released " + content, None, SIZE, PNG)
    with contextlib.suppress(GivenUp):
        async with session.begin_nested():
            await user.picture.from_raw_file(b"rolled back " + content, None, SIZE, PNG)
            await session.flush()
            raise GivenUp


async def several(session: AsyncSession, content: bytes) -> None:
    """A post has all of its photos replaced by one flush."""
    post = await session.get(Post, 1) or Post(id=1)
    session.add(post)
    for place in range(3):
        await post.photos.get_image_set(place=place).from_raw_file(b"%d " % place + content, None, SIZE, PNG)


async def photograph(session: AsyncSession, content: bytes) -> None:
    """A real one, with thumbnails that are made of it before and after it is in the store."""
    user = await somebody(session)
    await user.picture.from_blob(PHOTO + content)
    await user.picture.generate_thumbnails([30, 20])
    await session.flush()
    await user.picture.get_or_generate_thumbnail(10)


async def values(session: AsyncSession, content: bytes) -> None:
    """Offloaded values: one is read and replaced twice, one comes and goes by turns."""
    user = await somebody(session)
    if user.body is not None:
        await user.body.load()
    user.body = StoredBinary(content)
    user.small = StoredBinary(b"small " + content) if user.small is None else None
    await session.flush()
    user.body = StoredBinary(b"again " + content)


OPERATIONS: dict[str, Operation] = {
    operation.__name__: operation
    for operation in (replace, take_away, delete_owner, savepoints, several, photograph, values)
}


def with_store(operation: Operation, store: object) -> Operation:
    """The same in a session that is bound to a store first."""

    async def work(session: AsyncSession, content: bytes) -> None:
        bind_store(session, store)  # type: ignore[arg-type]
        await operation(session, content)

    return work
