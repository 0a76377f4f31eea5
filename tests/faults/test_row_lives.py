"""Files follow rows that are replaced, deleted, copied, moved and added again."""

from __future__ import annotations

import logging

import pytest
from sqlalchemy import delete, event, text, update
from sqlalchemy.orm import make_transient

from aioimageattach.context import store_context
from aioimageattach.exc import ImageError
from aioimageattach.key import make_revision
from tests.faults.models import User, UserPicture
from tests.faults.rig import Rig, get


async def test_bulk_deletes_of_loaded_rows_remove_files(rig: Rig) -> None:
    """A bulk DELETE that the session can match with loaded rows takes their files along."""
    await rig.user()
    async with rig.sessions() as session:
        await get(session)
        await session.execute(delete(UserPicture).where(UserPicture.user_id == 1))
        with store_context(rig.store):
            await session.commit()
    await rig.check(orphans=True)


async def test_deletes_behind_our_back_leave_orphans_only(rig: Rig) -> None:
    """Raw SQL and cascades leave files behind: no row is without its file."""
    await rig.user()
    await rig.user(2, b"two")
    async with rig.sessions() as session, session.begin():
        await session.execute(text("DELETE FROM {table} WHERE id = 1"))
    await rig.check(b"two", orphans=True)


async def test_replaced_again_and_again(rig: Rig) -> None:
    """Three times with flushes in between, deleted and attached again: exactly the last is there."""
    await rig.user()
    async with rig.sessions() as session:
        user = await get(session)
        for content in (b"1", b"2", b"3"):
            await rig.attach(user.picture, content)
            await session.flush()
        await user.picture.delete()
        await session.flush()
        await rig.attach(user.picture, b"last", (9, 9))
        await session.commit()
    await rig.check(b"last")


async def test_replaced_before_it_was_ever_flushed(rig: Rig) -> None:
    """A picture that was attached and replaced at once is never uploaded."""
    async with rig.sessions() as session:
        user = User(id=1)
        session.add(user)
        await rig.attach(user.picture, b"1")
        await rig.attach(user.picture, b"2", (5, 5))
        await session.commit()
    assert rig.store.puts == 1
    await rig.check(b"2")


async def test_a_changed_primary_key_changes_no_file(rig: Rig) -> None:
    """Names are made of no key of the database."""
    await rig.user()
    async with rig.sessions() as session, session.begin():
        user = await get(session)
        user.id = 77
    await rig.check(b"old")
    async with rig.sessions() as session:
        assert await (await get(session, 77)).picture.make_blob(rig.store) == b"old"


async def test_attached_inside_the_context_and_committed_outside(rig: Rig) -> None:
    """The store a picture was attached with is remembered."""
    async with rig.sessions() as session:
        user = User(id=1)
        session.add(user)
        with store_context(rig.store):
            await user.picture.from_raw_file(b"new", size=(3, 3), mimetype="image/png")
        await session.commit()
    await rig.check(b"new")


async def test_a_row_whose_upload_was_undone_is_not_added_again(rig: Rig) -> None:
    """Its bytes are gone with the transaction; the error says so, and attaching again works."""
    async with rig.sessions() as session:
        user = User(id=1)
        session.add(user)
        await rig.attach(user.picture, b"new")
        await session.flush()
        await session.rollback()
        session.add(user)
        with pytest.raises(ImageError, match="attach the picture again"):
            await session.commit()
        await rig.attach(user.picture, b"again")
        await session.commit()
    await rig.check(b"again")


async def test_a_listener_that_attaches_while_we_flush(sqlite_rig: Rig) -> None:
    """A row that appears after our own hook has its file before the flush is over."""
    rig = sqlite_rig
    async with rig.sessions() as session:
        late = User(id=2)
        await rig.attach(late.picture, b"late")
        user = User(id=1)
        session.add(user)
        event.listen(session.sync_session, "before_flush", lambda *args: session.add(late))
        await session.commit()
    await rig.check(b"late")


async def test_bulk_updates_are_nobodys_files(rig: Rig) -> None:
    """An UPDATE that touches no file column changes no file."""
    await rig.user()
    async with rig.sessions() as session, session.begin():
        await session.execute(update(User).values(name="other"))
    await rig.check(b"old")
