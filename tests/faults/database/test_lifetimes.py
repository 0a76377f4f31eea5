"""Lifetimes of session listeners, owners, event loops, handles and bound stores."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import textwrap
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import ForeignKey
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
from sqlalchemy.pool import NullPool

from aioimageattach.context import bind_store
from aioimageattach.entity import Image, image_attachment
from aioimageattach.stores import MemoryStore
from aioimageattach.stores.s3 import S3Store
from tests import photos
from tests.databases import Database
from tests.descriptors import count_all, falls_to
from tests.entity.models import started
from tests.faults.models import Base, User
from tests.faults.rig import PNG, SIZE, Rig, check, get
from tests.faults.stores import FaultyStore
from tests.servers.gate import ACCESS_KEY, SECRET_KEY
from tests.servers.ministack import BIND, Ministack

ROOT = Path(__file__).parents[3]
PHOTO = photos.saved(photos.opened("coffee", (60, 40)), "JPEG")

# --- imported late ---------------------------------------------------------------------------------------------------


def run(program: str) -> str:
    """Run a program in a process that has not imported the library, and return its output."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


LATE = """
    import {extra}sys
    from sqlalchemy import create_engine, text
    from sqlalchemy.orm import Session
    engine = create_engine("sqlite://")
    with Session(engine) as session:
        session.execute(text("CREATE TABLE t (x)"))
        {before}
        import aioimageattach
        {load}
        session.execute(text("INSERT INTO t VALUES (1)"))
        {end}
        print(session.scalar(text("SELECT count(*) FROM t")))
    assert "aioimageattach.entity" in sys.modules
"""
ALL = "import aioimageattach.entity, aioimageattach.offload"


@pytest.mark.parametrize(
    ("before", "end"),
    [
        ("pass", "session.commit()"),
        ("session.commit(); session.begin()", "session.rollback(); session.execute(text('INSERT INTO t VALUES (1)'))"),
        ("nested = session.begin_nested()", "nested.commit(); session.commit()"),
        ("nested = session.begin_nested()", "session.commit()"),
        ("pass", "session.begin_nested(); session.commit()"),
        ("pass", "session.close(); session.execute(text('CREATE TABLE IF NOT EXISTS t (x)')); "
                 "session.execute(text('DELETE FROM t')); session.execute(text('INSERT INTO t VALUES (1)'))"),
        ("session.flush()", "session.flush(); session.commit()"),
    ],
)  # fmt: skip
def test_imported_while_a_session_is_open(before: str, end: str) -> None:
    """An import by a handler, a plug-in or another thread does not affect open sessions."""
    assert run(LATE.format(extra="", before=before, load=ALL, end=end)) == "1"


def test_imported_by_a_hook_in_a_flush() -> None:
    """A hook imports the library in the middle of a flush."""
    program = """
        from sqlalchemy import create_engine, event
        from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
        class Base(DeclarativeBase): ...
        class Row(Base):
            __tablename__ = "row"
            id: Mapped[int] = mapped_column(primary_key=True)
        engine = create_engine("sqlite://")
        Base.metadata.create_all(engine)
        with Session(engine) as session:
            @event.listens_for(session, "before_flush")
            def hook(*args):
                import aioimageattach.entity, aioimageattach.offload
            session.add(Row(id=1))
            session.commit()
            session.delete(session.get(Row, 1))
            session.commit()
            print(session.query(Row).count())
    """
    assert run(program) == "0"


def test_used_in_the_session_that_was_open() -> None:
    """A session whose transaction was open during the import can attach images."""
    program = """
        import asyncio
        from sqlalchemy import ForeignKey, text
        from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
        from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

        async def main():
            engine = create_async_engine("sqlite+aiosqlite://")
            async with AsyncSession(engine, expire_on_commit=False) as session:
                await session.execute(text("SELECT 1"))
                from aioimageattach.entity import Image, image_attachment
                from aioimageattach.stores import MemoryStore
                class Base(DeclarativeBase): ...
                class User(Base):
                    __tablename__ = "user"
                    id: Mapped[int] = mapped_column(primary_key=True)
                    picture = image_attachment("Picture")
                class Picture(Base, Image):
                    __tablename__ = "picture"
                    user_id: Mapped[int] = mapped_column(ForeignKey("user.id"), primary_key=True)
                await (await session.connection()).run_sync(Base.metadata.create_all)
                store = MemoryStore()
                session.add(user := User(id=1))
                await user.picture.from_raw_file(b"one", store, (3, 2), "image/png")
                await session.commit()
                await user.picture.from_raw_file(b"two", store, (3, 2), "image/png")
                await session.commit()
                print(len([one async for one in store.list_objects()]))
            await engine.dispose()
        asyncio.run(main())
    """
    assert run(program) == "1"


# --- owners ----------------------------------------------------------------------------------------------------------


class Words(DeclarativeBase):
    """Models as in the guide, whose images know their owner."""


class Reader(Words):
    """An owner of a portrait."""

    __tablename__ = "reader"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(default="Mia")
    portrait = image_attachment["ReaderPortrait"]("ReaderPortrait")


class ReaderPortrait(Words, Image):
    """A portrait whose alternative text is the name of its owner."""

    __tablename__ = "reader_portrait"
    reader_id: Mapped[int] = mapped_column(ForeignKey(Reader.id), primary_key=True)
    reader: Mapped[Reader] = relationship(Reader, overlaps="__*")

    @property
    def alt(self) -> str:
        """The name of the owner."""
        return f"Portrait of {self.reader.name}"


CALLS: dict[str, Callable[[Any], Any]] = {
    "get_or_generate_thumbnail": lambda one: one.portrait.get_or_generate_thumbnail(width=20),
    "generate_thumbnail": lambda one: one.portrait.generate_thumbnail(width=20),
    "from_raw_file": lambda one: one.portrait.from_raw_file(b"small", None, (3, 2), PNG, original=False),
    "from_blob": lambda one: one.portrait.from_blob(PHOTO),
    "delete": lambda one: one.portrait.delete(),
}


@pytest.mark.parametrize("end", ["commit", "rollback", "close"])
@pytest.mark.parametrize("call", CALLS)
async def test_nothing_outlives_its_session(sqlite_database: Database, call: str, end: str) -> None:
    """Owners that are referenced by their images are released with the session."""
    sessions = await started(sqlite_database, Words.metadata, MemoryStore("http://test/"), expire_on_commit=False)
    async with sessions() as session, session.begin():
        for number in range(5):
            session.add(one := Reader(id=number))
            await one.portrait.from_blob(PHOTO)
    references: list[weakref.ref[Any]] = [weakref.ref(one)]

    async def work(number: int) -> None:
        async with sessions() as session:
            one = await session.get_one(Reader, number)
            references.append(weakref.ref(one))
            made = await CALLS[call](one)
            if made is not None:
                references.append(weakref.ref(made))
            await session.flush()
            if one.portrait:
                one.portrait.require_original().reader = one
                assert "Mia" in one.portrait.require_original().alt
            references.append(weakref.ref(session.sync_session))
            await getattr(session, end)()

    for number in range(5):
        await work(number)
    del one
    assert await left(*references) == []


async def left(*references: weakref.ref[Any]) -> list[Any]:
    """Return the objects that are still in memory when the loop and its threads have forgotten their last calls."""
    for _ in range(500):
        gc.collect()
        if all(reference() is None for reference in references):
            break
        await asyncio.sleep(0.01)
    return [found for reference in references if (found := reference()) is not None]


# --- event loops -----------------------------------------------------------------------------------------------------


def loops() -> int:
    """Return the number of event loops in memory."""
    gc.collect()
    return sum(isinstance(one, asyncio.AbstractEventLoop) for one in gc.get_objects())


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Callable[[Callable[[AsyncSession, int], Any]], None]]:
    """Run twenty jobs, each in a new event loop, and compare the end with the state after five."""
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'jobs.sqlite'}", poolclass=NullPool)
    sessions = async_sessionmaker(engine, expire_on_commit=False)
    bind_store(sessions, MemoryStore())

    async def begin() -> None:
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        async with sessions() as session, session.begin():
            for number in range(20):
                session.add(user := User(id=number))
                await user.picture.from_blob(PHOTO)

    async def job(work: Callable[[AsyncSession, int], Any], number: int) -> None:
        async with sessions() as session, session.begin():
            await work(session, number)

    async def count() -> tuple[int, int]:
        return loops(), count_all()

    async def check(alive: int, files: int) -> None:
        assert await falls_to(alive, loops)
        assert await falls_to(files)

    def run_all(work: Callable[[AsyncSession, int], Any]) -> None:
        asyncio.run(begin())
        for number in range(5):
            asyncio.run(job(work, number))
        before = asyncio.run(count())
        for number in range(5, 20):
            asyncio.run(job(work, number))
        asyncio.run(check(*before))

    return run_all


def test_thumbnails_in_many_loops(jobs: Callable[[Callable[[AsyncSession, int], Any]], None]) -> None:
    """Each job runs with ``asyncio.run()``, as in a worker."""

    async def work(session: AsyncSession, number: int) -> None:
        await (await get(session, number)).picture.get_or_generate_thumbnail(width=20)

    jobs(work)


def test_uploads_in_many_loops(jobs: Callable[[Callable[[AsyncSession, int], Any]], None]) -> None:
    """Images and values can be uploaded in many event loops, one after another."""

    async def work(session: AsyncSession, number: int) -> None:
        user = await get(session, number)
        await user.picture.from_blob(PHOTO)
        user.body = b"value"  # type: ignore[assignment]

    jobs(work)


def test_a_bucket_in_many_loops(
    bucket_server: Ministack, jobs: Callable[[Callable[[AsyncSession, int], Any]], None]
) -> None:
    """All jobs share one client, which is never closed in between."""
    address = f"http://{BIND}:{bucket_server.port}"
    store = S3Store("pictures", ACCESS_KEY, SECRET_KEY, prefix="loops", region="eu-central-1", endpoint_url=address)

    async def work(session: AsyncSession, number: int) -> None:
        user = await get(session, number)
        await user.picture.from_raw_file(b"by a job", store, SIZE, PNG)
        await session.flush()
        assert await user.picture.make_blob(store) == b"by a job"

    jobs(work)
    asyncio.run(store.aclose())


# --- stores of sessions ----------------------------------------------------------------------------------------------


async def test_a_store_bound_to_scoped_sessions(database: Database) -> None:
    """The sessions of all tasks, existing and future, have the store."""
    sessions = await started(database, Base.metadata, expire_on_commit=False)
    scoped = async_scoped_session(sessions, scopefunc=asyncio.current_task)
    store = FaultyStore()
    bind_store(scoped, store)

    async def attach(number: int) -> None:
        scoped.add(user := User(id=number))
        await user.picture.from_raw_file(b"new", None, SIZE, PNG)
        await scoped.commit()
        await scoped.remove()

    await attach(1)
    for number in (2, 3):
        await asyncio.create_task(attach(number))
    assert len(await store.names()) == 3
    assert await check(database, store) == {b"new"}


async def test_a_store_bound_to_scoped_sessions_that_exist(sqlite_database: Database) -> None:
    """A task that already has a session uses the store, too."""
    sessions = await started(sqlite_database, Base.metadata, expire_on_commit=False)
    scoped = async_scoped_session(sessions, scopefunc=asyncio.current_task)
    store = FaultyStore()
    scoped.add(user := User(id=1))
    bind_store(scoped, store)
    await user.picture.from_raw_file(b"new", None, SIZE, PNG)
    await scoped.commit()
    await scoped.remove()
    assert await check(sqlite_database, store) == {b"new"}


# --- handles ---------------------------------------------------------------------------------------------------------


async def test_a_handle_whose_row_is_forgotten(value_rig: Rig) -> None:
    """The handle loads from the store of its session while the session exists."""
    rig = value_rig
    await rig.user()
    async with rig.sessions() as session:
        assert await (await get(session)).body.load() == b"old"  # type: ignore[union-attr]
        session.expunge_all()
        handle = (await get(session)).body
        assert handle is not None
        gc.collect()
        async with await handle.open() as file:
            assert await file.read() == b"old"


async def test_a_handle_keeps_no_session(value_rig: Rig) -> None:
    """A handle that is kept longer keeps neither its row nor its session in memory."""
    rig = value_rig
    await rig.user()

    async def handle() -> tuple[Any, weakref.ref[Any], weakref.ref[Any]]:
        async with rig.sessions() as session:
            user = await get(session)
            return user.body, weakref.ref(user), weakref.ref(session.sync_session)

    body, user, session = await handle()
    assert await left(user, session) == []
    assert await body.load(rig.store) == b"old"
