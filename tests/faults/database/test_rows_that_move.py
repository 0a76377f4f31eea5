"""Image rows that move while others take their position: rows that move are not replaced."""

from __future__ import annotations

import pytest
from sqlalchemy import select, update

from tests.faults.models import Post, PostPhoto, User
from tests.faults.rig import Rig, get

# Until the end of the flush, SQLAlchemy has the moved row under its old key; it writes both rows correctly.
pytestmark = pytest.mark.filterwarnings("ignore:New instance")


async def gallery(rig: Rig, *places: int, thumbnails: bool = True) -> None:
    """Commit a post with a photo at each index."""
    async with rig.sessions() as session, session.begin():
        session.add(post := Post(id=1))
        for place in places:
            photo = post.photos.get_image_set(place=place)
            await rig.attach(photo, b"photo %d" % place)
            if thumbnails:
                await rig.attach(photo, b"small %d" % place, (3, 2), original=False)


async def places(rig: Rig) -> dict[int, set[bytes]]:
    """Return the contents of the files of the photos at each index."""
    found: dict[int, set[bytes]] = {}
    async with rig.sessions() as session:
        for row in await session.scalars(select(PostPhoto)):
            found.setdefault(row.place, set()).add(await row.make_blob(rig.store))
    return found


async def check_places(rig: Rig, expected: dict[int, set[bytes]]) -> None:
    """Assert which photos are at which index, and that each has its files."""
    assert await places(rig) == expected
    await rig.check(*(blob for blobs in expected.values() for blob in blobs))


def photo(number: int) -> set[bytes]:
    """Return the contents of a photo as :func:`gallery` makes it."""
    return {b"photo %d" % number, b"small %d" % number}


@pytest.mark.parametrize("size", [(30, 20), (8, 8)], ids=["same size", "other size"])
async def test_a_gallery_is_shifted_for_a_new_first_photo(picture_rig: Rig, size: tuple[int, int]) -> None:
    """All rows move by one, and a photo is attached at the first index, in one flush."""
    rig = picture_rig
    await gallery(rig, 1)
    async with rig.sessions() as session, session.begin():
        post = await session.get_one(Post, 1)
        for row in await session.scalars(select(PostPhoto)):
            row.place += 1
        await rig.attach(post.photos.get_image_set(place=1), b"new", size)
    await check_places(rig, {1: {b"new"}, 2: photo(1)})


async def test_attached_before_the_gallery_is_shifted(picture_rig: Rig) -> None:
    """The index was in use when the photo was attached, so the photo there is replaced."""
    rig = picture_rig
    await gallery(rig, 1, 5)
    async with rig.sessions() as session, session.begin():
        post = await session.get_one(Post, 1)
        with session.no_autoflush:
            await rig.attach(post.photos.get_image_set(place=1), b"new", (8, 8))
            for row in await session.scalars(select(PostPhoto).where(PostPhoto.place == 5)):
                row.place = 6
    await check_places(rig, {1: {b"new"}, 6: photo(5)})


async def test_a_gallery_of_many_is_shifted(picture_rig: Rig) -> None:
    """Each photo moves to a free index, and new photos are attached at all the old ones."""
    rig = picture_rig
    await gallery(rig, 1, 2, 3)
    async with rig.sessions() as session, session.begin():
        post = await session.get_one(Post, 1)
        for row in await session.scalars(select(PostPhoto)):
            row.place += 10
        for place in (1, 2, 3):
            await rig.attach(post.photos.get_image_set(place=place), b"new %d" % place)
    await check_places(
        rig, {place: {b"new %d" % place} for place in (1, 2, 3)} | {place + 10: photo(place) for place in (1, 2, 3)}
    )


async def test_a_place_is_emptied_and_deleted(picture_rig: Rig) -> None:
    """Deleting the photo at the old index does not delete the one that has moved away."""
    rig = picture_rig
    await gallery(rig, 1, 2)
    async with rig.sessions() as session, session.begin():
        post = await session.get_one(Post, 1)
        with session.no_autoflush:
            for row in await session.scalars(select(PostPhoto).where(PostPhoto.place == 1)):
                row.place = 9
            await post.photos.get_image_set(place=2).delete()
    await check_places(rig, {9: photo(1)})


async def test_the_original_moves_alone(picture_rig: Rig) -> None:
    """The remaining thumbnails are a set without an original; a new original replaces them."""
    rig = picture_rig
    await gallery(rig, 1)
    async with rig.sessions() as session, session.begin():
        post = await session.get_one(Post, 1)
        post.photos.get_image_set(place=1).require_original().place = 2
        await rig.attach(post.photos.get_image_set(place=1), b"new")
    await check_places(rig, {1: {b"new"}, 2: {b"photo 1"}})


async def test_moved_by_a_statement(picture_rig: Rig) -> None:
    """An UPDATE that the session does not see moves the rows; the new photo then replaces nothing."""
    rig = picture_rig
    await gallery(rig, 1)
    async with rig.sessions() as session, session.begin():
        await session.execute(update(PostPhoto.__table__).values(place=2))
        post = await session.get_one(Post, 1)
        await rig.attach(post.photos.get_image_set(place=1), b"new")
    await check_places(rig, {1: {b"new"}, 2: photo(1)})


# --- to another owner ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(30, 20), (8, 8)], ids=["same size", "other size"])
@pytest.mark.parametrize("by", ["key", "collection"])
async def test_a_picture_moves_and_another_takes_its_place(picture_rig: Rig, by: str, size: tuple[int, int]) -> None:
    """The foreign key or the relationship is changed; the thumbnail moves, too."""
    rig = picture_rig
    await rig.user(1, thumbnail=b"small")
    await rig.user(2, None)
    async with rig.sessions() as session, session.begin():
        one, two = await get(session, 1), await get(session, 2)
        with session.no_autoflush:
            for row in one.picture.images:
                if by == "key":
                    row.user_id = 2
                else:
                    two.picture_images.append(row)  # type: ignore[attr-defined]
                    one.picture_images.remove(row)  # type: ignore[attr-defined]
            await rig.attach(one.picture, b"new", size)
    await rig.check(b"old", b"small", b"new")
    async with rig.sessions() as session:
        assert await rig.read(await get(session, 1)) == b"new"
        assert await rig.read(await get(session, 2)) == b"old"


@pytest.mark.parametrize("by", ["key", "collection"])
async def test_a_picture_moves_and_its_owner_is_deleted(picture_rig: Rig, by: str) -> None:
    """In one flush, the image moves to another owner, and the old owner is deleted."""
    rig = picture_rig
    await rig.user(1, thumbnail=b"small")
    await rig.user(2, None)
    async with rig.sessions() as session, session.begin():
        one, two = await get(session, 1), await get(session, 2)
        with session.no_autoflush:
            for row in one.picture.images:
                if by == "key":
                    row.user_id = 2
                else:
                    two.picture_images.append(row)  # type: ignore[attr-defined]
                    one.picture_images.remove(row)  # type: ignore[attr-defined]
            if by == "key":
                await session.flush()
                await session.refresh(one)
            await session.delete(one)
    await rig.check(b"old", b"small")


async def test_a_picture_moves_onto_another(picture_rig: Rig) -> None:
    """The new owner already has an image of another size: the newest is kept, or both are."""
    rig = picture_rig
    await rig.user(1)
    async with rig.sessions() as session, session.begin():
        session.add(two := User(id=2))
        await rig.attach(two.picture, b"two", (8, 8))
    async with rig.sessions() as session, session.begin():
        (await get(session, 1)).picture.require_original().user_id = 2
    async with rig.sessions() as session:
        rows = (await get(session, 2)).picture.images
        contents = {await row.make_blob(rig.store) for row in rows}
    assert contents in ({b"old", b"two"}, {b"two"}, {b"old"})
    await rig.check(*contents)
