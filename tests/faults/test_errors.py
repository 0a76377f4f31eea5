"""After an error, the original error is raised, and files match the rows."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from sqlalchemy import Column, ForeignKey, Integer, create_engine, event, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from aioimageattach.context import bind_store, store_context
from aioimageattach.entity import Image, image_attachment
from aioimageattach.exc import DeclarationError, StoreError, StoreUnavailableError
from aioimageattach.key import ImageKey
from tests.databases import Database
from tests.faults.models import Post, User
from tests.faults.rig import GivenUp, Rig, Style, check, get
from tests.faults.stores import FaultyStore, breaks, fails, hangs

# --- in the flush ----------------------------------------------------------------------------------------------------


async def test_a_violated_constraint(rig: Rig, style: Style) -> None:
    """Another row breaks the flush: the database's error is raised, new files are deleted, and the old one stays."""
    await rig.user()
    with pytest.raises(IntegrityError):
        async with style(rig.sessions) as session:
            await rig.attach((await get(session)).picture, b"new")
            other = User(id=2, name="user 1")
            session.add(other)
            await rig.attach(other.picture, b"other")
    await rig.check(b"old")


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_hook_of_the_application_raises(rig: Rig, style: Style, when: str) -> None:
    """A hook raises before or after the library's own work in the flush: its error is raised."""
    await rig.user()

    def refuse(*_: object) -> None:
        raise GivenUp

    with pytest.raises(GivenUp):
        async with style(rig.sessions) as session:
            event.listen(session.sync_session, f"{when}_flush", refuse)
            await rig.attach((await get(session)).picture, b"new")
    await rig.check(b"old")


async def test_a_session_goes_on_after_a_hook_refused_once(sqlite_rig: Rig) -> None:
    """Files uploaded for the refused flush are used by the next one, and not uploaded twice."""
    rig = sqlite_rig
    async with rig.sessions() as session:
        session.add(user := User(id=1))
        await rig.attach(user.picture, b"new")
        refusals = [GivenUp()]

        def refuse(*_: object) -> None:
            if refusals:
                raise refusals.pop()

        event.listen(session.sync_session, "before_flush", refuse)
        with pytest.raises(GivenUp):
            await session.flush()
        await session.commit()
    assert rig.store.counts["put"] == 1
    await rig.check(b"new")


async def test_an_error_in_the_handler(rig: Rig, style: Style) -> None:
    """After a flush, uploads are deleted and the old file stays, even with the same size and type."""
    await rig.user()
    with pytest.raises(GivenUp):
        async with style(rig.sessions) as session:
            await rig.attach((await get(session)).picture, b"new")
            await session.flush()
            assert len(await rig.store.names()) == 2
            raise GivenUp
    await rig.check(b"old")


# --- at COMMIT -------------------------------------------------------------------------------------------------------


class Deferring(DeclarativeBase):
    """Models whose foreign keys are checked at COMMIT."""


class Citizen(Deferring):
    """An owner whose country must exist at COMMIT."""

    __tablename__ = "citizen"
    id: Mapped[int] = mapped_column(primary_key=True)
    country_id = Column(Integer, ForeignKey("country.id", deferrable=True, initially="DEFERRED"))
    portrait = image_attachment["Portrait"]("Portrait")


class Country(Deferring):
    """A country that never exists."""

    __tablename__ = "country"
    id: Mapped[int] = mapped_column(primary_key=True)


class Portrait(Deferring, Image):
    """The image of a citizen."""

    __tablename__ = "portrait"
    citizen_id: Mapped[int] = mapped_column(ForeignKey("citizen.id"), primary_key=True)


async def test_a_refused_commit(database: Database, style: Style) -> None:
    """A deferred constraint raises IntegrityError unchanged; no row remains, and at worst an orphaned file."""
    if database.name == "mariadb":
        pytest.skip("MariaDB has no deferred constraints")
    await database.create(Deferring.metadata)
    store = FaultyStore()
    sessions = async_sessionmaker(database.engine(), expire_on_commit=False)
    with pytest.raises(IntegrityError):
        async with style(sessions) as session:
            session.add(citizen := Citizen(id=1, country_id=7))
            await citizen.portrait.from_raw_file(b"new", store, (3, 2), "image/png")
            await session.flush()
    assert await check(database, store, Deferring, orphans=True) == set()


async def test_a_serialization_failure_and_the_retry(rig: Rig, style: Style) -> None:
    """The database refuses one of two transactions; its handler runs again: one file per row."""
    if rig.database.name == "sqlite":
        pytest.skip("SQLite serializes by its lock")
    engine = rig.database.engine(isolation_level="SERIALIZABLE")
    sessions = async_sessionmaker(engine, expire_on_commit=False)
    await rig.user(1)
    await rig.user(2, b"two")
    meeting = asyncio.Barrier(2)
    refused = []

    async def replace(mine: int, other: int) -> None:
        for attempt in range(5):
            try:
                async with style(sessions) as session:
                    names = list(await session.scalars(select(User.name).order_by(User.id)))
                    if not attempt:
                        await meeting.wait()
                    user = await get(session, mine)
                    user.name = f"{names[other - 1]} seen by {mine}"[:60]
                    await rig.attach(user.picture, b"new %d" % mine)
                return
            except DBAPIError as error:
                refused.append(error)

    await asyncio.gather(replace(1, 2), replace(2, 1))
    assert refused
    await rig.check(b"new 1", b"new 2", orphans=True)


async def test_a_deadlock_and_the_retry(rig: Rig) -> None:
    """One of two transactions is the victim; nothing of it remains, and its retry uses another file name."""
    if rig.database.name == "sqlite":
        pytest.skip("SQLite has one writer at a time")
    await rig.user(1)
    await rig.user(2, b"two")
    meeting = asyncio.Barrier(2)
    victims = []

    async def replace(first: int, second: int) -> None:
        for attempt in range(5):
            try:
                async with rig.sessions() as session, session.begin():
                    if rig.database.name == "postgresql":
                        await session.execute(text("SET LOCAL deadlock_timeout = '20ms'"))
                    await rig.attach((await get(session, first)).picture, b"%d by %d" % (first, first))
                    await session.flush()
                    if not attempt:
                        await meeting.wait()
                    await rig.attach((await get(session, second)).picture, b"%d by %d" % (second, first))
                return
            except DBAPIError as error:
                victims.append(error)

    await asyncio.gather(replace(1, 2), replace(2, 1))
    assert victims
    contents = await check(rig.database, rig.store)
    assert contents in ({b"1 by 1", b"2 by 1"}, {b"1 by 2", b"2 by 2"})


KILL = {
    "postgresql": ("SELECT pg_backend_pid()", "SELECT pg_terminate_backend(%d)"),
    "mariadb": ("SELECT CONNECTION_ID()", "KILL %d"),
}


async def test_the_backend_is_killed_before_commit(any_driver_rig: Rig, style: Style) -> None:
    """The database's error is raised, no row remains, and the old image is intact."""
    rig = any_driver_rig
    if rig.database.name == "sqlite":
        pytest.skip("SQLite has no backend")
    ask, kill = KILL[rig.database.name]
    await rig.user()
    with pytest.raises(DBAPIError):
        async with style(rig.sessions) as session:
            await rig.attach((await get(session)).picture, b"new")
            await session.flush()
            number = await session.scalar(text(ask))
            async with rig.engine.connect() as other:
                await other.execute(text(kill % number))
    await rig.check(b"old", orphans=True)


# --- in the store ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fault", "cause"), [(fails, type(None)), (breaks, OSError)])
async def test_a_put_fails(rig: Rig, style: Style, fault: Any, cause: type) -> None:
    """A StoreError with its cause is raised; no row and no file remain."""
    await rig.user()
    rig.store.at("put", fault)
    with pytest.raises(StoreError, match="told to") as caught:
        async with style(rig.sessions) as session:
            await rig.attach((await get(session)).picture, b"new")
    assert isinstance(caught.value.__cause__, cause)
    await rig.check(b"old")


@pytest.mark.parametrize("after", [False, True])
async def test_whichever_of_many_puts_fails(rig: Rig, after: bool) -> None:
    """No file of the flush remains, including those stored before the failure; then the flush succeeds."""
    for failing in range(1, 5):
        async with rig.sessions() as session:
            session.add(post := Post(id=failing))
            for place in range(4):
                await rig.attach(post.photos.get_image_set(place=place), b"%d/%d" % (failing, place))
            before = await rig.store.names()
            rig.store.at("put", fails, failing, after=after)
            with pytest.raises(StoreUnavailableError):
                await session.flush()
            assert await rig.store.names() == before
            rig.store.heal()
            await session.commit()
    await rig.check(*(b"%d/%d" % (post, place) for post in range(1, 5) for place in range(4)))


async def test_a_put_that_cannot_be_stopped(sqlite_rig: Rig) -> None:
    """A put in progress completes after another has failed: it is awaited, and its file is deleted, too."""
    rig = sqlite_rig

    async def stubborn(name: str) -> None:
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            await asyncio.sleep(0.05)

    rig.store.at("put", stubborn, 1)
    rig.store.at("put", fails, 2)
    async with rig.sessions() as session:
        session.add(post := Post(id=1))
        for place in range(2):
            await rig.attach(post.photos.get_image_set(place=place), b"%d" % place)
        with pytest.raises(StoreUnavailableError):
            await session.flush()
        await asyncio.sleep(0.1)
        assert await rig.store.names() == set()


async def test_a_deadline_around_a_put_that_hangs(rig: Rig, style: Style) -> None:
    """A timeout of the application raises TimeoutError, and nothing remains."""
    await rig.user()
    rig.store.at("put", hangs)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2), style(rig.sessions) as session:
            await rig.attach((await get(session)).picture, b"new")
    await rig.check(b"old")


async def test_a_name_that_is_taken_is_left_alone(sqlite_rig: Rig) -> None:
    """A put that finds an existing name fails the flush, and does not delete the existing file."""
    rig = sqlite_rig
    await rig.user()
    [name] = await rig.store.names()
    async with rig.sessions() as session:
        user = await get(session)
        taken = user.picture.require_original().revision
        session.add(other := User(id=2))
        (await rig.attach(other.picture, b"new")).revision = taken
        with pytest.raises(StoreError, match="never overwritten"):
            await session.commit()
        assert await rig.store.names() == {name}
        await session.commit()
    await rig.check(b"old", b"new")


@pytest.mark.parametrize("fault", [fails, breaks])
async def test_a_delete_fails_after_the_commit(
    rig: Rig, style: Style, fault: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The commit succeeds without an error; the failure is logged, and the old file is orphaned."""
    await rig.user()
    rig.store.at("delete", fault)
    with caplog.at_level(logging.WARNING, "aioimageattach._transaction"):
        async with style(rig.sessions) as session:
            await rig.attach((await get(session)).picture, b"new")
            await session.flush()
            if style.__name__ == "plain":
                await session.commit()
                assert (await get(session)).picture  # the session is fully usable
    assert "could not delete" in caplog.text
    await rig.check(b"new", orphans=True)
    assert len(await rig.store.names()) == 2


async def test_a_store_that_cancels_itself_does_not_cancel_us(
    sqlite_rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    """A CancelledError raised by a delete is a failure of the store, not a cancellation of the caller."""
    rig = sqlite_rig
    await rig.user()

    async def cancelled(name: str) -> None:
        raise asyncio.CancelledError

    rig.store.at("delete", cancelled)
    async with rig.sessions() as session:
        await rig.attach((await get(session)).picture, b"new")
        await session.commit()
    assert "could not delete" in caplog.text
    await rig.check(b"new", orphans=True)


async def test_a_delete_that_hangs_has_a_limit(
    sqlite_rig: Rig, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commit does not wait forever; files deleted by then are counted."""
    monkeypatch.setattr("aioimageattach._transaction.files.DISCARD_TIMEOUT", 0.1)
    rig = sqlite_rig
    await rig.user(thumbnail=b"small")
    rig.store.at("delete", hangs, 1)
    async with rig.sessions() as session:
        await rig.attach((await get(session)).picture, b"new")
        await session.commit()
    assert "1 files were not deleted within 0.1 s" in caplog.text
    assert len(await rig.store.names()) == 2
    await rig.check(b"new", orphans=True)


async def test_a_file_that_is_gone_already(rig: Rig) -> None:
    """If another worker has already deleted the file, neither an error nor a warning is raised."""
    await rig.user()
    for name in await rig.store.names():
        await rig.store.inner.delete_object(name)
    async with rig.sessions() as session, session.begin():
        bind_store(session, rig.store)
        await session.delete(await get(session))
    await rig.check()


# --- a store whose names are made of the owner's key -----------------------------------------------------------------


class NeedyStore(FaultyStore):
    """A third-party store that cannot name a file without an object id."""

    needs_object_id = True

    async def put(self, key: ImageKey, file: Any, *, reproducible: bool) -> None:
        assert key.object_id is not None
        await super().put(key, file, reproducible=reproducible)


async def test_a_file_that_waits_for_its_row(rig: Rig, style: Style) -> None:
    """If the database generates the key, the file is put after the INSERT, in the same flush."""
    store = rig.store = NeedyStore()
    async with style(rig.sessions) as session:
        session.add(user := User())
        await rig.attach(user.picture, b"new")
        await session.flush()
        assert len(await store.names()) == 1
    await rig.check(b"new")


async def test_a_file_that_waits_for_its_row_and_fails(rig: Rig, style: Style) -> None:
    """The inserted row is rolled back with the flush; attaching again succeeds."""
    rig.store = NeedyStore()
    rig.store.at("put", fails, after=True)
    with pytest.raises(StoreUnavailableError):
        async with style(rig.sessions) as session:
            session.add(user := User(name="somebody"))
            await rig.attach(user.picture, b"new")
    await rig.check()
    rig.store.heal()
    async with style(rig.sessions) as session:
        assert list(await session.scalars(select(User))) == []
        session.add(user)
        assert user.picture.require_original().width == 30
    await rig.check(b"new")


async def test_deleting_needs_a_store(rig: Rig) -> None:
    """If the store is unknown, the deletion is refused before a statement is sent, and the session is usable."""
    await rig.user()
    async with rig.sessions() as session:
        await session.delete(await get(session))
        with pytest.raises(LookupError):
            await session.commit()
        with store_context(rig.store):
            await session.commit()
    await rig.check()


async def test_a_plain_session_deletes(sqlite_rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """Without an event loop, the row is deleted, the file is orphaned, and the log says so."""
    rig = sqlite_rig
    await rig.user()

    def delete() -> None:
        engine = create_engine(rig.database.url.set(drivername="sqlite"))
        with Session(engine) as session:
            session.delete(session.get_one(User, 1))
            session.commit()
        engine.dispose()

    with store_context(rig.store):
        await asyncio.to_thread(delete)
    assert "1 files are left for the sweep" in caplog.text
    await rig.check(orphans=True)
    assert len(await rig.store.names()) == 1


async def test_a_plain_session_does_not_upload(sqlite_rig: Rig) -> None:
    """The flush is refused before a statement is sent, with a message that states the remedy."""
    rig = sqlite_rig
    user = User(id=1)
    await rig.attach(user.picture, b"new")

    def add() -> None:
        engine = create_engine(rig.database.url.set(drivername="sqlite"))
        with Session(engine) as session:
            session.add(user)
            with pytest.raises(DeclarationError, match="AsyncSession"):
                session.commit()
        engine.dispose()

    await asyncio.to_thread(add)
    await rig.check()
