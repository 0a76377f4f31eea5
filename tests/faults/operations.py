"""Operations of applications with images and values, each in a transaction that can be repeated."""

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
"""An operation, given a session with a store, and different bytes each time; the caller commits."""


async def somebody(session: AsyncSession) -> User:
    """Return the user with number 1, or a new one."""
    user = await session.get(User, 1) or User(id=1)
    session.add(user)
    return user


async def replace(session: AsyncSession, content: bytes) -> None:
    """Replace an image and its thumbnail."""
    user = await somebody(session)
    await user.picture.from_raw_file(content, None, SIZE, PNG)
    await user.picture.from_raw_file(b"small " + content, None, (3, 2), PNG, original=False)


async def take_away(session: AsyncSession, content: bytes) -> None:
    """Delete an image, or attach one if there is none."""
    user = await somebody(session)
    await user.picture.load()
    if user.picture:
        await user.picture.delete()
    else:
        await replace(session, content)


async def delete_owner(session: AsyncSession, content: bytes) -> None:
    """Delete a user with all images, and insert another user."""
    old = await session.get(User, 1)
    if old is not None:
        await session.delete(old)
        await session.flush()
    await replace(session, content)


async def savepoints(session: AsyncSession, content: bytes) -> None:
    """Release one savepoint and roll back another."""
    user = await somebody(session)
    async with session.begin_nested():
        await user.picture.from_raw_file(b"released " + content, None, SIZE, PNG)
    with contextlib.suppress(GivenUp):
        async with session.begin_nested():
            await user.picture.from_raw_file(b"rolled back " + content, None, SIZE, PNG)
            await session.flush()
            raise GivenUp


async def several(session: AsyncSession, content: bytes) -> None:
    """Replace all photos of a post in one flush."""
    post = await session.get(Post, 1) or Post(id=1)
    session.add(post)
    for place in range(3):
        await post.photos.get_image_set(place=place).from_raw_file(b"%d " % place + content, None, SIZE, PNG)


async def photograph(session: AsyncSession, content: bytes) -> None:
    """Attach a real photograph, with thumbnails made before and after it is stored."""
    user = await somebody(session)
    await user.picture.from_blob(PHOTO + content)
    await user.picture.generate_thumbnails([30, 20])
    await session.flush()
    await user.picture.get_or_generate_thumbnail(10)


async def values(session: AsyncSession, content: bytes) -> None:
    """Read and replace an offloaded value twice, and set or delete another in turn."""
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
    """Do the same with a store bound to the session."""

    async def work(session: AsyncSession, content: bytes) -> None:
        bind_store(session, store)  # type: ignore[arg-type]
        await operation(session, content)

    return work
