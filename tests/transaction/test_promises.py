"""Files follow their rows through every ending of a transaction, on three databases and in three styles."""

from __future__ import annotations

import asyncio
import gc
import logging

import pytest
from sqlalchemy import delete, event, select, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from aioimageattach.context import store_context
from aioimageattach.exc import ContextError, DeclarationError, ImageError, StoreError, StoreUnavailableError
from tests.transaction.kit import Album, Base, Owner, Picture, Rig, Style


class Stop(Exception):
    """Raised by a test."""


async def one(session: AsyncSession, number: int = 1) -> Owner:
    """The owner of that number."""
    return (await session.scalars(select(Owner).where(Owner.id == number))).one()


# --- endings -------------------------------------------------------------------------------------------------------


async def test_committed_means_stored(rig: Rig, style: Style) -> None:
    """When the commit has returned, every row has its file."""
    async with style(rig.sessions) as session:
        owner = Owner(id=1)
        session.add(owner)
        await rig.attach(owner.picture, b"new")
        assert not await rig.store.names()
    await rig.check(b"new")


async def test_replacing_removes_the_old_file_after_the_commit(rig: Rig, style: Style) -> None:
    """A picture of the same size and type takes the place of another; the old file goes with the commit, not before."""
    await rig.owner()
    async with style(rig.sessions) as session:
        owner = await one(session)
        await rig.attach(owner.picture, b"new")
        await session.flush()
        assert len(await rig.store.names()) == 2
    await rig.check(b"new")


async def test_an_error_after_the_flush_leaves_the_old_picture(rig: Rig, style: Style) -> None:
    """What was uploaded goes, what was to be replaced stays."""
    await rig.owner()
    with pytest.raises(Stop):
        async with style(rig.sessions) as session:
            owner = await one(session)
            await rig.attach(owner.picture, b"new")
            await session.flush()
            raise Stop
    await rig.check(b"old")


async def test_a_violated_constraint_leaves_nothing(rig: Rig, style: Style) -> None:
    """The error is the database's own, and the file of the refused row goes."""
    await rig.owner()
    with pytest.raises(IntegrityError):
        async with style(rig.sessions) as session:
            other = Owner(id=2, name="owner 1")
            session.add(other)
            await rig.attach(other.picture, b"new")
    await rig.check(b"old")


@pytest.mark.parametrize("ending", ["rollback", "close", "reset", "invalidate", "expunge", "block"])
async def test_every_way_to_give_up_undoes(rig: Rig, ending: str) -> None:
    """Rollback, close, reset, invalidate, expunge and leaving the block: uploads go, the old file stays."""
    await rig.owner()
    async with rig.sessions() as session:
        owner = await one(session)
        await rig.attach(owner.picture, b"new")
        await session.flush()
        assert len(await rig.store.names()) == 2
        match ending:
            case "rollback":
                await session.rollback()
            case "close":
                await session.close()
            case "reset":
                await session.reset()
            case "invalidate":
                await session.invalidate()
            case "expunge":
                session.expunge_all()
                await session.close()
    await rig.check(b"old")


async def test_a_dropped_session_leaves_only_an_orphan(sqlite_rig: Rig) -> None:
    """A session that is collected says nothing: its upload stays behind, and no coroutine is left unawaited."""
    rig = sqlite_rig
    await rig.owner()

    async def forget() -> None:
        session = rig.sessions()
        owner = await one(session)
        await rig.attach(owner.picture, b"new")
        await session.flush()
        await (await session.connection()).invalidate()

    await forget()
    gc.collect()
    await rig.check(b"old", orphans=True)
    assert len(await rig.store.names()) == 2


async def test_another_sessions_rollback_touches_nothing_of_ours(rig: Rig) -> None:
    """Each session has a journal of its own."""
    await rig.owner()
    await rig.owner(2, None)
    async with rig.sessions() as ours, rig.sessions() as theirs:
        mine = await one(ours)
        await rig.attach(mine.picture, b"mine")
        await ours.flush()
        other = Owner(id=3)
        theirs.add(other)
        await rig.attach(other.picture, b"theirs")
        if rig.database.name != "sqlite":  # which has one writer at a time
            await theirs.flush()
        await theirs.rollback()
        await ours.commit()
    await rig.check(b"mine")


async def test_a_store_that_fails_fails_the_flush_and_not_the_session(rig: Rig) -> None:
    """Whichever of four uploads fails, none is left, and the same flush succeeds once the store is back."""
    for failing in (1, 2, 3, 4):
        async with rig.sessions() as session:
            album = Album(id=failing)
            session.add(album)
            for place in range(4):
                await rig.attach(album.photos.get_image_set(place=place), b"%d %d" % (failing, place))
            before = await rig.store.names()
            first = rig.store.puts
            rig.store.fail_put = lambda number, at=first + failing: number == at
            with pytest.raises(StoreUnavailableError):
                await session.flush()
            assert await rig.store.names() == before
            await session.commit()
    await rig.check(*(b"%d %d" % (failing, place) for failing in (1, 2, 3, 4) for place in range(4)))


async def test_a_stores_own_error_is_ours_with_its_cause(sqlite_rig: Rig) -> None:
    """An error of a backend that is not of our tree comes as a StoreError, which names the file."""
    rig = sqlite_rig

    async def broken() -> None:
        raise OSError("the cable")

    rig.store.before_put = broken
    async with rig.sessions() as session:
        owner = Owner(id=1)
        session.add(owner)
        await rig.attach(owner.picture, b"new")
        with pytest.raises(StoreError, match="the cable") as caught:
            await session.commit()
    assert isinstance(caught.value.__cause__, OSError)
    await rig.check()


async def test_a_delete_that_fails_fails_no_commit(rig: Rig, style: Style, caplog: pytest.LogCaptureFixture) -> None:
    """The commit succeeds, the failure is logged, the old file stays behind, and the session goes on."""
    await rig.owner()
    rig.store.fail_delete = lambda number: True
    with caplog.at_level(logging.WARNING, "aioimageattach.transaction"):
        async with style(rig.sessions) as session:
            owner = await one(session)
            await rig.attach(owner.picture, b"new")
    assert "could not delete" in caplog.text
    await rig.check(b"new", orphans=True)


# --- savepoints ----------------------------------------------------------------------------------------------------


async def test_a_savepoint_rolled_back_undoes_its_own(rig: Rig) -> None:
    """Two deep: what was replaced and uploaded inside comes back and goes; what was done outside stays."""
    await rig.owner(1, b"one")
    await rig.owner(2, b"two")
    async with rig.sessions() as session, session.begin():
        first = await one(session, 1)
        await rig.attach(first.picture, b"ONE")
        outer = await session.begin_nested()
        second = await one(session, 2)
        await rig.attach(second.picture, b"TWO")
        inner = await session.begin_nested()
        await second.picture.delete()
        await session.flush()
        await inner.rollback()
        assert len(await rig.store.names()) == 4
        await outer.rollback()
        assert len(await rig.store.names()) == 3
    await rig.check(b"ONE", b"two")


async def test_a_released_savepoint_hands_its_files_to_the_transaction(rig: Rig) -> None:
    """Released and then rolled back with the rest, nothing of it happened; released and committed, all of it did."""
    await rig.owner()
    for commit in (False, True):
        async with rig.sessions() as session:
            owner = await one(session)
            async with session.begin_nested():
                await rig.attach(owner.picture, b"new")
            assert len(await rig.store.names()) == 2
            await (session.commit() if commit else session.rollback())
        await rig.check(b"new" if commit else b"old")


async def test_an_error_caught_around_a_savepoint(rig: Rig) -> None:
    """The refused row's file goes at once, the rest is committed."""
    await rig.owner(1, None)
    async with rig.sessions() as session, session.begin():
        owner = await one(session)
        await rig.attach(owner.picture, b"kept")
        with pytest.raises(IntegrityError):
            async with session.begin_nested():
                other = Owner(id=2, name="owner 1")
                session.add(other)
                await rig.attach(other.picture, b"refused")
        assert len(await rig.store.names()) == 1
    await rig.check(b"kept")


# --- who else has a say --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["conditional_savepoint", "rollback_only", "control_fully", "create_savepoint"])
@pytest.mark.parametrize("ending", ["rollback", "commit"])
async def test_a_session_in_somebody_elses_transaction_keeps_files(rig: Rig, mode: str, ending: str) -> None:
    """A test suite's outer transaction decides after the session is over: no file of either outcome is removed."""
    await rig.owner()
    engine = rig.sessions.kw["bind"]
    async with engine.connect() as connection:
        outer = await connection.begin()
        session = AsyncSession(connection, join_transaction_mode=mode, expire_on_commit=False)
        owner = await one(session)
        await rig.attach(owner.picture, b"new")
        await session.commit()
        await session.close()
        assert len(await rig.store.names()) == 2
        if outer.is_active:
            await (outer.rollback() if ending == "rollback" else outer.commit())
    [content] = await rig.contents()
    assert content in (b"old", b"new")
    if mode != "control_fully":
        assert content == (b"old" if ending == "rollback" else b"new")


async def test_autocommit_keeps_the_files_of_rows_that_stay(rig: Rig) -> None:
    """Where every statement is permanent at once, a rollback takes no file away."""
    engine = rig.database.engine(isolation_level="AUTOCOMMIT")
    async with AsyncSession(engine) as session:
        owner = Owner(id=1)
        session.add(owner)
        await rig.attach(owner.picture, b"new")
        await session.flush()
        await session.rollback()
    await rig.check(b"new")


async def test_autocommit_by_execution_option(rig: Rig) -> None:
    """The same where the session's own connection was made so."""
    engine = rig.database.engine().execution_options(isolation_level="AUTOCOMMIT")
    async with AsyncSession(engine) as session:
        owner = Owner(id=1)
        session.add(owner)
        await rig.attach(owner.picture, b"new")
        await session.flush()
        await session.rollback()
    await rig.check(b"new")


async def test_bulk_deletes_of_loaded_rows_remove_files(rig: Rig) -> None:
    """A bulk DELETE that the session can match with loaded rows takes their files along."""
    await rig.owner()
    async with rig.sessions() as session:
        await one(session)
        await session.execute(delete(Picture).where(Picture.owner_id == 1))
        with store_context(rig.store):
            await session.commit()
    await rig.check(orphans=True)


async def test_deletes_behind_our_back_leave_orphans_only(rig: Rig) -> None:
    """Raw SQL and cascades leave files behind: no row is without its file."""
    await rig.owner()
    await rig.owner(2, b"two")
    async with rig.sessions() as session, session.begin():
        await session.execute(text("DELETE FROM owner WHERE id = 1"))
    await rig.check(b"two", orphans=True)


# --- rows that come and go -----------------------------------------------------------------------------------------


async def test_deleting_an_owner_deletes_its_files(rig: Rig, style: Style) -> None:
    """The rows and files of an owner go with it."""
    await rig.owner()
    with store_context(rig.store):
        async with style(rig.sessions) as session:
            await session.delete(await one(session))
            await session.flush()
            assert await rig.store.names()
    await rig.check()


async def test_replaced_again_and_again(rig: Rig) -> None:
    """Three times with flushes in between, deleted and attached again: exactly the last is there."""
    await rig.owner()
    async with rig.sessions() as session:
        owner = await one(session)
        for content in (b"1", b"2", b"3"):
            await rig.attach(owner.picture, content)
            await session.flush()
        await owner.picture.delete()
        await session.flush()
        await rig.attach(owner.picture, b"last", (9, 9))
        await session.commit()
    await rig.check(b"last")


async def test_replaced_before_it_was_ever_flushed(rig: Rig) -> None:
    """A picture that was attached and replaced at once is never uploaded."""
    async with rig.sessions() as session:
        owner = Owner(id=1)
        session.add(owner)
        await rig.attach(owner.picture, b"1")
        await rig.attach(owner.picture, b"2", (5, 5))
        await session.commit()
    assert rig.store.puts == 1
    await rig.check(b"2")


async def test_a_changed_primary_key_changes_no_file(rig: Rig) -> None:
    """Names are made of no key of the database."""
    await rig.owner()
    async with rig.sessions() as session, session.begin():
        owner = await one(session)
        owner.id = 77
    await rig.check(b"old")
    async with rig.sessions() as session:
        assert await (await one(session, 77)).picture.make_blob(rig.store) == b"old"


async def test_attached_inside_the_context_and_committed_outside(rig: Rig) -> None:
    """The store a picture was attached with is remembered."""
    async with rig.sessions() as session:
        owner = Owner(id=1)
        session.add(owner)
        with store_context(rig.store):
            await owner.picture.from_raw_file(b"new", size=(3, 3), mimetype="image/png")
        await session.commit()
    await rig.check(b"new")


async def test_no_store_is_an_error_before_anything_happens(rig: Rig) -> None:
    """Neither attaching nor deleting goes on where nobody knows the store."""
    await rig.owner()
    async with rig.sessions() as session:
        owner = await one(session)
        with pytest.raises(ContextError):
            await owner.picture.from_raw_file(b"new", size=(3, 3), mimetype="image/png")
        await session.delete(owner)
        with pytest.raises(ContextError):
            await session.commit()
    await rig.check(b"old")


async def test_a_row_whose_upload_was_undone_is_not_added_again(rig: Rig) -> None:
    """Its bytes are gone with the transaction; the error says so, and attaching again works."""
    async with rig.sessions() as session:
        owner = Owner(id=1)
        session.add(owner)
        await rig.attach(owner.picture, b"new")
        await session.flush()
        await session.rollback()
        session.add(owner)
        with pytest.raises(ImageError, match="attach the picture again"):
            await session.commit()
        await rig.attach(owner.picture, b"again")
        await session.commit()
    await rig.check(b"again")


async def test_a_listener_that_raises_after_us_undoes_nothing_it_should_not(sqlite_rig: Rig) -> None:
    """An application's own before_flush hook that fails once: the uploads wait for the next flush."""
    rig = sqlite_rig
    async with rig.sessions() as session:
        failing = [True]

        def fail(*args: object) -> None:
            if failing:
                failing.clear()
                raise Stop

        owner = Owner(id=1)
        session.add(owner)
        await rig.attach(owner.picture, b"new")
        event.listen(session.sync_session, "before_flush", fail)
        with pytest.raises(Stop):
            await session.flush()
        await session.commit()
    assert rig.store.puts == 1
    await rig.check(b"new")


async def test_a_listener_that_attaches_while_we_flush(sqlite_rig: Rig) -> None:
    """A row that appears after our own hook has its file before the flush is over."""
    rig = sqlite_rig
    async with rig.sessions() as session:
        late = Owner(id=2)
        await rig.attach(late.picture, b"late")
        owner = Owner(id=1)
        session.add(owner)
        event.listen(session.sync_session, "before_flush", lambda *args: session.add(late))
        await session.commit()
    await rig.check(b"late")


async def test_a_plain_session_is_refused(sqlite_rig: Rig) -> None:
    """Uploads need an AsyncSession; the error says so."""
    rig = sqlite_rig
    async with rig.sessions() as session:
        owner = Owner(id=1)
        await rig.attach(owner.picture, b"new")
        session.sync_session.add(owner)
        with pytest.raises(DeclarationError, match="AsyncSession"):
            session.sync_session.flush()


# --- cancellation --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("moment", ["before", "after"])
async def test_cancelled_while_uploading(sqlite_rig: Rig, moment: str, times: int) -> None:
    """A cancelled commit leaves nothing, also when it is cancelled again while it cleans up."""
    rig = sqlite_rig
    await rig.owner()
    reached = asyncio.Event()

    async def hang() -> None:
        reached.set()
        await asyncio.sleep(5)

    setattr(rig.store, f"{moment}_put", hang)

    async def work() -> None:
        async with rig.sessions() as session, session.begin():
            owner = await one(session)
            await rig.attach(owner.picture, b"new")

    task = asyncio.create_task(work())
    await reached.wait()
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await task
    await rig.check(b"old")


async def test_cancelled_at_every_await(sqlite_rig: Rig) -> None:
    """Wherever replacing a picture is cancelled, it happened whole or not at all."""
    rig = sqlite_rig
    await rig.owner()

    async def work(content: bytes) -> None:
        async with rig.sessions() as session, session.begin():
            owner = await one(session)
            await rig.attach(owner.picture, content)

    steps = 0
    finished = False
    while not finished:
        content = b"new %d" % steps
        task = asyncio.create_task(work(content))
        for _ in range(steps):
            await asyncio.sleep(0)
        finished = task.done()
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            pass
        [found] = await rig.contents()
        named = {rig.store.name_of(row.key) for row in await rig.rows()}
        assert named <= await rig.store.names()
        if found != content:
            assert task.cancelled()
        steps += 1
    assert steps > 5


# --- two at once ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [((30, 20), (30, 20)), ((8, 8), (9, 9))])
@pytest.mark.parametrize("first", ["replace", "attach"])
async def test_two_sessions_replace_one_picture(rig: Rig, first: str, sizes: tuple[tuple[int, int], ...]) -> None:
    """The last one wins, and one picture is left, whole; a database that cannot serialise says so to the other."""
    if rig.database.name == "sqlite":
        pytest.skip("SQLite has one writer at a time, and refuses the second")
    rig.sessions.configure(bind=rig.database.engine(isolation_level="READ COMMITTED"))
    await rig.owner(1, b"old" if first == "replace" else None)
    barrier = asyncio.Barrier(2)

    async def work(content: bytes, size: tuple[int, int]) -> None:
        async with rig.sessions() as session, session.begin():
            owner = await one(session)
            await barrier.wait()
            await rig.attach(owner.picture, content, size)

    await asyncio.gather(work(b"A", sizes[0]), work(b"B", sizes[1]))
    rows = await rig.rows()
    assert len(rows) == 1
    [content] = await rig.contents()
    assert content in (b"A", b"B")
    await rig.check(content)


async def test_one_replaces_while_another_deletes(rig: Rig) -> None:
    """Whoever comes second sees what the first did."""
    if rig.database.name == "sqlite":
        pytest.skip("SQLite has one writer at a time, and refuses the second")
    await rig.owner()
    barrier = asyncio.Barrier(2)

    async def replace() -> None:
        async with rig.sessions() as session, session.begin():
            owner = await one(session)
            await barrier.wait()
            await rig.attach(owner.picture, b"new", (7, 7))

    async def remove() -> None:
        with store_context(rig.store):
            async with rig.sessions() as session, session.begin():
                owner = await one(session)
                await barrier.wait()
                await owner.picture.delete()

    await asyncio.gather(replace(), remove())
    contents = await rig.contents()
    await rig.check(*contents)
    assert contents <= {b"new"}


async def test_bulk_updates_are_nobodys_files(rig: Rig) -> None:
    """An UPDATE that touches no file column changes no file."""
    await rig.owner()
    async with rig.sessions() as session, session.begin():
        await session.execute(update(Owner).values(name="other"))
    await rig.check(b"old")


def test_the_models_are_complete() -> None:
    """The tables these tests stand on."""
    assert set(Base.metadata.tables) == {"owner", "picture", "album", "photo"}
    assert async_sessionmaker is not None
