"""Files of rows that are replaced, deleted, copied, moved and added again."""

from __future__ import annotations

import logging

import pytest
from sqlalchemy import delete, event, update
from sqlalchemy.orm import Session, make_transient

from aioimageattach.context import store_context
from aioimageattach.exc import UsageError
from aioimageattach.key import make_revision
from tests.faults.models import User, UserPicture
from tests.faults.rig import Rig, get


async def test_bulk_deletes_of_loaded_rows_remove_files(rig: Rig) -> None:
    """A bulk DELETE that the session can match with loaded rows deletes their files."""
    await rig.user()
    async with rig.sessions() as session:
        user = await get(session)
        with store_context(rig.store):
            await session.execute(delete(UserPicture).where(UserPicture.user_id == 1))
        await session.commit()
        assert not user.picture
    await rig.check()


async def test_deletes_behind_our_back_leave_orphans_only(rig: Rig) -> None:
    """Raw SQL and cascades orphan files, but no row loses its file."""
    await rig.user()
    await rig.user(2, b"two")
    async with rig.sessions() as session, session.begin():
        await session.execute(delete(User.__table__).where(User.__table__.c.id == 1))
    await rig.check(b"two", orphans=True)


async def test_replaced_again_and_again(rig: Rig) -> None:
    """After three replacements with flushes, a deletion and another attachment, only the last file exists."""
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
    """An image that is replaced before its flush is never uploaded."""
    async with rig.sessions() as session:
        user = User(id=1)
        session.add(user)
        await rig.attach(user.picture, b"1")
        await rig.attach(user.picture, b"2", (5, 5))
        await session.commit()
    assert rig.store.counts["put"] == 1
    await rig.check(b"2")


async def test_a_changed_primary_key_changes_no_file(rig: Rig) -> None:
    """File names do not depend on primary keys."""
    await rig.user()
    async with rig.sessions() as session, session.begin():
        user = await get(session)
        user.id = 77
    await rig.check(b"old")
    async with rig.sessions() as session:
        assert await (await get(session, 77)).picture.make_blob(rig.store) == b"old"


async def test_attached_inside_the_context_and_committed_outside(rig: Rig) -> None:
    """The store that an image was attached with is remembered."""
    async with rig.sessions() as session:
        user = User(id=1)
        session.add(user)
        with store_context(rig.store):
            await user.picture.from_raw_file(b"new", size=(3, 3), mimetype="image/png")
        await session.commit()
    await rig.check(b"new")


async def test_a_row_whose_upload_was_undone_is_not_added_again(rig: Rig) -> None:
    """Its bytes were discarded with the transaction; the error says so, and attaching again works."""
    async with rig.sessions() as session:
        user = User(id=1)
        session.add(user)
        await rig.attach(user.picture, b"new")
        await session.flush()
        await session.rollback()
        session.add(user)
        with pytest.raises(UsageError, match="attach the image again"):
            await session.commit()
        await rig.attach(user.picture, b"again")
        await session.commit()
    await rig.check(b"again")


async def test_a_listener_that_attaches_while_we_flush(sqlite_rig: Rig) -> None:
    """A row added after the library's own hook has its file before the flush ends."""
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
    """An UPDATE of other columns changes no file."""
    await rig.user()
    async with rig.sessions() as session, session.begin():
        await session.execute(update(User).values(name="other"))
    await rig.check(b"old")


@pytest.mark.parametrize("expired", [False, True])
async def test_bulk_deletes_that_nobody_can_follow_are_logged(
    rig: Rig, expired: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a store, or with expired columns, the file is orphaned, and the log says so."""
    await rig.user()
    async with rig.sessions() as session:
        user = await get(session)
        picture = user.picture.require_original()
        if expired:
            session.expire(picture)
        with caplog.at_level(logging.WARNING, "aioimageattach._transaction"):
            await session.execute(delete(UserPicture), execution_options={"synchronize_session": "fetch"})
        await session.commit()
    assert "is left for the sweep" in caplog.text
    await rig.check(orphans=True)


async def test_an_expired_row_is_deleted_with_its_file(rig: Rig) -> None:
    """The necessary columns are read before the row is deleted."""
    await rig.user()
    async with rig.sessions() as session:
        picture = (await get(session)).picture.require_original()
        session.expire(picture)
        await session.delete(picture)
        with store_context(rig.store):
            await session.commit()
    await rig.check()


async def test_an_expired_row_that_is_gone_is_let_go(rig: Rig) -> None:
    """The row was deleted by another transaction: nothing is done, and no error is raised."""
    await rig.user()
    async with rig.sessions() as session:
        picture = (await get(session)).picture.require_original()
        await session.execute(delete(UserPicture.__table__))
        session.expire(picture)
        await session.delete(picture)
        with store_context(rig.store):
            await session.commit()
    await rig.check(orphans=True)


async def test_a_row_deleted_and_added_again_keeps_its_file(rig: Rig) -> None:
    """A row that is deleted, flushed and inserted again in one transaction keeps its file."""
    await rig.user()
    async with rig.sessions() as session:
        picture = (await get(session)).picture.require_original()
        with store_context(rig.store):
            await session.delete(picture)
            await session.flush()
            make_transient(picture)
            session.add(picture)
            await session.commit()
    await rig.check(b"old")


async def test_a_row_of_the_predecessor_needs_no_store_to_be_inserted(rig: Rig) -> None:
    """A row without a revision is accepted: its file was stored by the predecessor."""
    await rig.user(1, None)
    async with rig.sessions() as session, session.begin():
        session.add(UserPicture(user_id=1, width=3, height=2, mimetype="image/png", original=True))
    async with rig.sessions() as session:
        assert (await get(session)).picture.size == (3, 2)


async def test_a_row_made_by_hand_is_refused(rig: Rig) -> None:
    """A row with a revision that was never uploaded would have no file."""
    await rig.user(1, None)
    async with rig.sessions() as session:
        row = UserPicture(user_id=1, width=3, height=2, mimetype="image/png", original=True, revision=make_revision())
        session.add(row)
        with pytest.raises(UsageError, match="has no file"):
            await session.commit()
    await rig.check()


async def test_a_savepoint_within_a_flush(sqlite_rig: Rig) -> None:
    """A hook of the application may open a savepoint, whose rollback undoes only its own changes."""
    rig = sqlite_rig
    await rig.user(2, b"two")

    def inside(session: Session, context: object) -> None:
        nested = session.begin_nested()
        session.execute(update(User).where(User.id == 2).values(name="undone"))
        nested.rollback()

    async with rig.sessions() as session:
        event.listen(session.sync_session, "after_flush", inside)
        user = User(id=1)
        session.add(user)
        await rig.attach(user.picture, b"one")
        await session.commit()
    await rig.check(b"one", b"two")
