"""Deletions that a hook of the application undoes: rows and files stay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import event, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import ORMExecuteState, Session, with_loader_criteria

from aioimageattach.entity import Image
from tests.faults.models import Post, User, UserPicture
from tests.faults.rig import Rig, StoredRig, get, swept


def take_all_back(session: Session, *_: object) -> None:
    """Convert deletions to updates, as in the usual recipe."""
    for row in list(session.deleted):
        session.add(row)
        if isinstance(row, User):
            row.name = "deleted"


def take_pictures_back(session: Session, *_: object) -> None:
    """Delete owners, but move their images to another owner."""
    for row in list(session.deleted):
        if isinstance(row, UserPicture):
            session.add(row)
            row.user_id = 2


Listen = Callable[[AsyncSession, Callable[..., None]], None]


def on_the_session(session: AsyncSession, hook: Callable[..., None]) -> None:
    event.listen(session.sync_session, "before_flush", hook)


def on_the_session_first(session: AsyncSession, hook: Callable[..., None]) -> None:
    event.listen(session.sync_session, "before_flush", hook, insert=True)


LISTEN: dict[str, Listen] = {"after ours": on_the_session, "before ours": on_the_session_first}


@pytest.mark.parametrize("listen", LISTEN)
async def test_an_owner_is_taken_back(rig: Rig, listen: str) -> None:
    """The owner is kept with everything that was deleted with it: all sizes of images, and values."""
    await rig.user(thumbnail=b"small")
    async with rig.sessions() as session, session.begin():
        LISTEN[listen](session, take_all_back)
        await session.delete(await get(session))
    await rig.check(b"old", b"small")
    async with rig.sessions() as session:
        user = await get(session)
        assert user.name == "deleted"
        assert await rig.read(user) == b"old"


async def test_a_hook_of_all_sessions(picture_rig: Rig) -> None:
    """The hook is registered for the class of sessions, as applications do at start-up."""
    rig = picture_rig
    await rig.user(thumbnail=b"small")
    event.listen(Session, "before_flush", take_all_back)
    try:
        async with rig.sessions() as session, session.begin():
            await session.delete(await get(session))
    finally:
        event.remove(Session, "before_flush", take_all_back)
    await rig.check(b"old", b"small")


async def test_a_deleted_picture_is_taken_back(picture_rig: Rig) -> None:
    """``picture.delete()`` is undone by the application."""
    rig = picture_rig
    await rig.user(thumbnail=b"small")
    async with rig.sessions() as session:
        event.listen(session.sync_session, "before_flush", take_all_back)
        user = await get(session)
        await user.picture.delete()
        await session.commit()
    await rig.check(b"old", b"small")


async def test_only_the_original_is_taken_back(picture_rig: Rig) -> None:
    """Rows that are not restored are deleted with their files."""
    rig = picture_rig
    await rig.user(thumbnail=b"small")

    def take_back(session: Session, *_: object) -> None:
        for row in list(session.deleted):
            if isinstance(row, UserPicture) and row.original:
                session.add(row)

    async with rig.sessions() as session, session.begin():
        event.listen(session.sync_session, "before_flush", take_back)
        user = await get(session)
        await user.picture.delete()
    await rig.check(b"old")


async def test_only_the_owner_is_taken_back(picture_rig: Rig) -> None:
    """The owner is kept without its images."""
    rig = picture_rig
    await rig.user(thumbnail=b"small")

    def take_back(session: Session, *_: object) -> None:
        for row in list(session.deleted):
            if isinstance(row, User):
                session.add(row)

    async with rig.sessions() as session, session.begin():
        event.listen(session.sync_session, "before_flush", take_back)
        await session.delete(await get(session))
    await rig.check()


async def test_the_replaced_picture_is_taken_back(picture_rig: Rig) -> None:
    """A hook that undoes every deletion keeps the old image, too, and every row has its file."""
    rig = picture_rig
    await rig.user()
    async with rig.sessions() as session:
        event.listen(session.sync_session, "before_flush", take_all_back)
        await rig.attach((await get(session)).picture, b"new", (8, 8))
        await session.commit()
    await rig.check(*(await contents(rig)))
    assert b"new" in await contents(rig)


async def contents(rig: Rig) -> set[bytes]:
    """Return the contents of the files of all images."""
    async with rig.sessions() as session:
        return {await row.make_blob(rig.store) for row in await session.scalars(select(UserPicture))}


async def test_a_gallery_is_taken_back(picture_rig: Rig) -> None:
    """All photos of one owner are kept."""
    rig = picture_rig
    async with rig.sessions() as session, session.begin():
        session.add(post := Post(id=1))
        for place in (1, 2):
            await rig.attach(post.photos.get_image_set(place=place), b"photo %d" % place)
    async with rig.sessions() as session, session.begin():
        event.listen(session.sync_session, "before_flush", take_all_back)
        await session.delete(await session.get_one(Post, 1))
    await rig.check(b"photo 1", b"photo 2")


async def test_taken_back_once_and_deleted_then(rig: Rig) -> None:
    """The next deletion, without the hook, takes effect."""
    await rig.user(thumbnail=b"small")
    async with rig.sessions() as session:
        event.listen(session.sync_session, "before_flush", take_all_back)
        await session.delete(await get(session))
        await session.flush()
        event.remove(session.sync_session, "before_flush", take_all_back)
        await session.delete(await get(session))
        await session.commit()
    await rig.check()


# --- filters of soft-deleted rows ------------------------------------------------------------------------------------


def hide(session: AsyncSession, what: type[Any] = UserPicture) -> None:
    """Hide images from the queries of a session, as in the recipe for soft deletion."""

    @event.listens_for(session.sync_session, "do_orm_execute")
    def add_criteria(state: ORMExecuteState) -> None:
        if state.is_select and not state.execution_options.get("all", False):
            state.statement = state.statement.options(
                with_loader_criteria(what, lambda cls: cls.hidden.is_(False), include_aliases=True)
            )


async def hidden(rig: Rig) -> None:
    """Commit a user whose image is hidden, with a visible thumbnail."""
    await rig.user(thumbnail=b"small")
    async with rig.sessions() as session, session.begin():
        (await get(session)).picture.require_original().hidden = True


async def test_soft_deleted_pictures_are_purged(picture_rig: Rig) -> None:
    """Rows that are hidden from the application's queries can be deleted explicitly."""
    rig = picture_rig
    await hidden(rig)
    async with rig.sessions() as session, session.begin():
        hide(session)
        for row in await session.scalars(select(UserPicture).execution_options(all=True)):
            await session.delete(row)
    await rig.check()


@pytest.mark.parametrize("size", [(30, 20), (8, 8)], ids=["same size", "other size"])
async def test_a_soft_deleted_picture_is_replaced(picture_rig: Rig, size: tuple[int, int]) -> None:
    """The new image replaces all rows of its set, including hidden ones."""
    rig = picture_rig
    await hidden(rig)
    async with rig.sessions() as session, session.begin():
        hide(session)
        await rig.attach((await get(session)).picture, b"new", size)
    await rig.check(b"new")


async def test_the_owner_of_a_soft_deleted_picture_is_deleted(picture_rig: Rig) -> None:
    """The database cascades to the hidden rows; a sweep removes their files."""
    rig = picture_rig
    await hidden(rig)
    async with rig.sessions() as session, session.begin():
        hide(session)
        await session.delete(await get(session))
    await rig.check(orphans=True)
    await swept(rig.database, rig.store)
    await rig.check()


async def test_criteria_on_all_image_classes(picture_rig: Rig) -> None:
    """Criteria on the mixin, as for tenants, do not apply to the library's own statements."""
    rig = picture_rig
    await rig.user(thumbnail=b"small")
    async with rig.sessions() as session, session.begin():
        user = await get(session)

        @event.listens_for(session.sync_session, "do_orm_execute")
        def add_criteria(state: ORMExecuteState) -> None:
            state.statement = state.statement.options(with_loader_criteria(Image, lambda cls: cls.width < 0))

        await rig.attach(user.picture, b"new", (8, 8))
    await rig.check(b"new")
    assert not isinstance(rig, StoredRig)
