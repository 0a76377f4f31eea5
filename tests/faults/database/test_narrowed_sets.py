"""Image sets that a query has loaded partially: changes apply to the whole set."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import contains_eager, selectinload, with_loader_criteria

from tests import photos
from tests.databases import Servers
from tests.faults.database.conftest import DRIVERS, bound_rig
from tests.faults.models import Post, PostPhoto, User, UserPicture
from tests.faults.rig import Rig, get

PHOTO = photos.saved(photos.opened("coffee", (60, 40)), "JPEG")
OTHER = photos.saved(photos.opened("chelsea", (60, 40)), "JPEG")


async def photographed(rig: Rig) -> None:
    """Commit a user with a photograph and a thumbnail."""
    async with rig.sessions() as session, session.begin():
        session.add(user := User(id=1))
        await user.picture.from_blob(PHOTO)
        await user.picture.generate_thumbnail(width=20)


async def by_a_condition(session: AsyncSession) -> User:
    query = select(User).options(selectinload(User.picture.and_(UserPicture.width == 20)))
    return (await session.scalars(query)).one()


async def by_a_criterion(session: AsyncSession) -> User:
    query = select(User).options(with_loader_criteria(UserPicture, UserPicture.width == 20))
    return (await session.scalars(query)).one()


async def by_a_join(session: AsyncSession) -> User:
    query = select(User).join(User.picture).where(UserPicture.width == 20).options(contains_eager(User.picture))
    return (await session.scalars(query)).unique().one()


async def by_a_condition_that_nothing_meets(session: AsyncSession) -> User:
    query = select(User).options(selectinload(User.picture.and_(UserPicture.width == 1)))
    return (await session.scalars(query)).one()


NARROW: dict[str, Any] = {
    function.__name__: function
    for function in (by_a_condition, by_a_criterion, by_a_join, by_a_condition_that_nothing_meets)
}


@pytest.fixture(params=[*(f"aiosqlite {name}" for name in NARROW), *(f"{one} by_a_condition" for one in DRIVERS[1:])])
async def narrow_rig(
    request: pytest.FixtureRequest, servers: Servers, tmp_path: Path
) -> AsyncIterator[tuple[Rig, Callable[[AsyncSession], Awaitable[User]]]]:
    """Each way to load part of a set, and the first one with each driver."""
    driver, _, name = request.param.partition(" ")
    rig = await bound_rig(servers, tmp_path, driver)
    yield rig, NARROW[name]
    await rig.database.aclose()


Narrow = tuple[Rig, Callable[[AsyncSession], Awaitable[User]]]


async def test_deleted(narrow_rig: Narrow) -> None:
    """The original is deleted with the loaded thumbnail."""
    rig, narrow = narrow_rig
    await photographed(rig)
    async with rig.sessions() as session, session.begin():
        user = await narrow(session)
        await user.picture.delete()
        assert not user.picture
    await rig.check()


async def test_a_thumbnail(narrow_rig: Narrow) -> None:
    """The thumbnail is made from the unloaded original, and only once."""
    rig, narrow = narrow_rig
    await photographed(rig)
    async with rig.sessions() as session, session.begin():
        user = await narrow(session)
        await user.picture.generate_thumbnail(width=20)
        await user.picture.generate_thumbnail(width=10)
        await user.picture.get_or_generate_thumbnail(width=5)
    async with rig.sessions() as session:
        assert sorted(row.width for row in (await get(session)).picture) == [5, 10, 20, 60]


async def test_replaced(narrow_rig: Narrow) -> None:
    """The new image has the same size as the unloaded original."""
    rig, narrow = narrow_rig
    await photographed(rig)
    async with rig.sessions() as session, session.begin():
        user = await narrow(session)
        await user.picture.from_blob(OTHER)
    await rig.check(OTHER)


async def test_read(picture_rig: Rig) -> None:
    """The file of the original is read, whatever part of the set is loaded."""
    rig = picture_rig
    await photographed(rig)
    async with rig.sessions() as session:
        assert await (await by_a_condition(session)).picture.make_blob() == PHOTO


@pytest.mark.parametrize("what", ["one", "all", "the owner"])
async def test_a_gallery(picture_rig: Rig, what: str) -> None:
    """Only the second photo is loaded."""
    rig = picture_rig
    async with rig.sessions() as session, session.begin():
        session.add(post := Post(id=1))
        for place in (1, 2, 3):
            await rig.attach(post.photos.get_image_set(place=place), b"photo %d" % place)
    async with rig.sessions() as session, session.begin():
        query = select(Post).options(selectinload(Post.photos.and_(PostPhoto.place == 2)))
        post = (await session.scalars(query)).one()
        if what == "one":
            await post.photos.get_image_set(place=1).delete()
        elif what == "all":
            await post.photos.delete()
        else:
            await post.photos.load()
            await session.delete(post)
    await rig.check(*([b"photo 2", b"photo 3"] if what == "one" else []))
