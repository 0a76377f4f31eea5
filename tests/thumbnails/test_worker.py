"""Images that are handed over after the commit, and the worker in the process."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.pool import StaticPool

from aioimageattach import (
    ThumbnailWorker,
    set_default_store,
)
from aioimageattach._transaction.handover import Receiver, add_receiver, receivers, remove_receiver
from aioimageattach._transaction.references import TrackedFile, committed
from aioimageattach.exc import DeclarationError, UsageError
from aioimageattach.store import KeyedStore
from aioimageattach.stores import MemoryStore
from aioimageattach.stores.fs import FileSystemStore
from aioimageattach.testing.fixtures import image_store as image_store
from aioimageattach.testing.fixtures import thumbnails_made as thumbnails_made
from aioimageattach.thumbnails._dispatch import Dispatcher, Job
from tests.databases import Database, Servers
from tests.entity.models import started, statements
from tests.entity.test_derived import Base, Cover, Photo, Plain, Product
from tests.entity.test_derived import store as store
from tests.faults.proxy import Fault, Proxy
from tests.photos import photo
from tests.thumbnails.models import declared, names
from tests.thumbnails.test_server import Gate, Troubled


class Collector(Dispatcher):
    """A receiver that records the images and makes no thumbnails."""

    def __init__(self, store: KeyedStore) -> None:
        super().__init__(store, [Cover, Photo, Plain], 1000, 10.0, 1)
        self.jobs: list[Job] = []

    async def _process(self, job: Job) -> None:
        self.jobs.append(job)

    async def originals(self) -> list[str]:
        """The names of the images received so far."""
        await self.join()
        return [job.original for job in self.jobs]


class Handed(Receiver):
    """A receiver that keeps the files."""

    def __init__(self) -> None:
        self.files: list[TrackedFile] = []
        self.certain: list[bool] = []

    def accepts(self, file: TrackedFile) -> bool:
        return True

    def receive(self, files: Sequence[TrackedFile], certain: bool) -> None:
        self.files += files
        self.certain.append(certain)


@pytest.fixture
async def sessions(database: Database) -> async_sessionmaker[AsyncSession]:
    """Sessions on each kind of database."""
    return await started(database, Base.metadata, expire_on_commit=False)


@pytest.fixture
async def sqlite(sqlite_database: Database) -> async_sessionmaker[AsyncSession]:
    """Sessions on SQLite."""
    return await started(sqlite_database, Base.metadata, expire_on_commit=False)


@pytest.fixture
async def postgresql(servers: Servers, tmp_path: Path) -> AsyncIterator[async_sessionmaker[AsyncSession]]:
    """Sessions on PostgreSQL."""
    database = servers.database("asyncpg", tmp_path)
    yield await started(database, Base.metadata, expire_on_commit=False)
    await database.aclose()


@pytest.fixture
async def collector(store: KeyedStore) -> AsyncIterator[Collector]:
    """A registered collector."""
    async with Collector(store) as collector:
        yield collector
    assert receivers() == []


@pytest.fixture
async def handed(store: KeyedStore) -> AsyncIterator[Handed]:
    """The files that are handed over during the test."""
    handed = Handed()
    add_receiver(handed)
    yield handed
    remove_receiver(handed)


async def attached(sessions: async_sessionmaker[AsyncSession], number: int = 1) -> Product:
    """Commit a product with a cover, and return it."""
    async with sessions.begin() as session:
        session.add(product := Product(id=number))
        await product.cover.from_blob(photo("chelsea"))
    return product


def original(row: Any, store: KeyedStore) -> str:
    """Return the name of the original of a set."""
    return store.name_of(row.original.key)


# --- after the commit ------------------------------------------------------------------------------------------------


async def test_thumbnails_are_made_after_the_commit(
    sessions: async_sessionmaker[AsyncSession], store: KeyedStore
) -> None:
    """All declared files exist, and the row is marked, so its URLs point to the store."""
    async with ThumbnailWorker(store, [Cover, Photo], sessions=sessions) as worker:
        product = await attached(sessions)
        await worker.join()
        assert await names(store, "cover.t/") == declared(product.cover.original, store)
        async with sessions() as session:
            cover = await session.scalar(select(Cover))
        assert cover is not None
        assert cover.url("card").startswith("/files/")
        assert cover.url("icon").startswith("/files/")


async def test_each_picture_is_handed_over_once(
    sessions: async_sessionmaker[AsyncSession], collector: Collector
) -> None:
    """An image is handed over after the root commit, never after a rollback, with its focal point at that time."""
    store = collector._store
    async with sessions() as session:
        session.add(product := Product(id=1))
        await product.cover.from_blob(photo("chelsea"))
        product.cover.original.focal_point = (0.25, 0.5)
        await session.flush()
        async with session.begin_nested():
            await product.photos.get_image_set(order_index=1).from_blob(photo("coffee"))
        with contextlib.suppress(ZeroDivisionError):
            async with session.begin_nested():
                await product.photos.get_image_set(order_index=2).from_blob(photo("rocket"))
                await session.flush()
                raise ZeroDivisionError
        await product.plain.from_blob(photo("rocket"))
        await session.flush()
        assert await collector.originals() == []
        await session.commit()
        for loaded in (product.photos, product.cover):
            await loaded.load()
        [first] = product.photos.image_sets
        expected = {original(product.cover, store), original(first, store)}
        assert {*await collector.originals()} == expected
        product.cover.original.focal_point = None
        await session.commit()
    assert len(await collector.originals()) == 2
    icons = [stem for job in collector.jobs for stem in job.thumbnails if "-icon-" in stem]
    assert len(icons) == 1
    assert "-icon-025050-" in icons[0]


async def test_nothing_is_handed_over_after_a_rollback(
    sessions: async_sessionmaker[AsyncSession], collector: Collector
) -> None:
    """This holds for an explicit rollback, a closed session, and a refused COMMIT."""
    for end in ("rollback", "close"):
        async with sessions() as session:
            session.add(product := Product(id=1))
            await product.cover.from_blob(photo("chelsea"))
            await session.flush()
            await getattr(session, end)()
    with contextlib.suppress(DBAPIError):
        async with sessions.begin() as session:
            session.add(product := Product(id=2))
            await product.cover.from_blob(photo("chelsea"))
            await session.flush()
            await session.execute(text("SELECT * FROM nowhere"))
    assert await collector.originals() == []
    assert collector._waiting == 0


async def test_postgresql_may_answer_commit_with_rollback(
    postgresql: async_sessionmaker[AsyncSession], collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    """The session reports a commit, but the database has no committed row, so nothing is handed over."""
    async with postgresql.begin() as session:
        session.add(product := Product(id=1))
        await product.cover.from_blob(photo("chelsea"))
        await session.flush()
        with contextlib.suppress(DBAPIError):
            await session.execute(text("SELECT * FROM nowhere"))
    with caplog.at_level(logging.INFO):
        assert await collector.originals() == []
    assert "1 images get no thumbnails in the background: no committed row references them" in caplog.text


@pytest.mark.parametrize("fault", ["lose the reply", "swallow"])
async def test_a_commit_whose_outcome_is_unknown(
    servers: Servers, tmp_path: Path, collector: Collector, fault: Fault
) -> None:
    """The database is asked, and the image of a committed row is handed over."""
    database, proxy = servers.database("asyncpg", tmp_path), Proxy()
    await database.create(Base.metadata)
    async with proxy.before(database.url) as url:
        engine = create_async_engine(url)
        with contextlib.suppress(DBAPIError, ConnectionError):
            async with async_sessionmaker(engine)() as session:
                session.add(product := Product(id=1))
                await product.cover.from_blob(photo("chelsea"))
                await session.flush()
                name = original(product.cover, collector._store)
                proxy.fault = fault
                await session.commit()
        proxy.fault = None
        assert await collector.originals() == ([name] if fault == "lose the reply" else [])
        await engine.dispose()
    await database.aclose()


async def test_a_picture_that_is_gone_again(sqlite: async_sessionmaker[AsyncSession], handed: Handed) -> None:
    """An image that is deleted before the lookup is not handed over."""
    await attached(sqlite)
    assert handed.certain == [True]
    assert await committed(dict.fromkeys(handed.files, True)) == handed.files
    async with sqlite.begin() as session:
        await session.delete(await session.get_one(Product, 1))
    assert await committed(dict.fromkeys(handed.files, True)) == []


async def test_pictures_that_have_their_thumbnails(
    sqlite: async_sessionmaker[AsyncSession], collector: Collector
) -> None:
    """Images whose thumbnails were made in the transaction are not handed over."""
    async with sqlite.begin() as session:
        session.add(product := Product(id=1))
        await product.cover.from_blob(photo("chelsea"))
        await product.cover.generate_thumbnails()
    assert await collector.originals() == []


async def test_adopted_pictures(sqlite: async_sessionmaker[AsyncSession], collector: Collector) -> None:
    """Adopted images are handed over, because their thumbnails may not exist."""
    product = await attached(sqlite)
    name = original(product.cover, collector._store)
    assert await collector.originals() == [name]
    async with sqlite.begin() as session:
        await session.execute(text("DELETE FROM cover"))
    async with sqlite.begin() as session:
        product = await session.get_one(Product, 1)
        await product.cover.adopt(name)
    assert await collector.originals() == [name, name]


async def test_an_error_of_a_receiver_does_not_affect_the_commit(
    sqlite: async_sessionmaker[AsyncSession], store: KeyedStore, caplog: pytest.LogCaptureFixture
) -> None:
    """An error that a receiver raises is logged."""

    class Broken(Handed):
        """A receiver that raises an error."""

        def receive(self, files: Sequence[TrackedFile], certain: bool) -> None:
            raise ZeroDivisionError

    broken = Broken()
    add_receiver(broken)
    try:
        await attached(sqlite)
    finally:
        remove_receiver(broken)
    assert "did not accept 1 images, whose thumbnails will be made on request: ZeroDivisionError()" in caplog.text


async def test_each_picture_goes_to_one_receiver(
    sqlite: async_sessionmaker[AsyncSession], collector: Collector
) -> None:
    """Only the last registered receiver that accepts the class and the store gets the image."""
    store = collector._store
    other = Collector(MemoryStore())
    async with other, ThumbnailWorker(store, [Photo]):
        product = await attached(sqlite)
        assert await other.originals() == []
        async with Collector(store) as last:
            await attached(sqlite, 2)
            assert len(await last.originals()) == 1
    assert await collector.originals() == [original(product.cover, store)]


# --- databases -------------------------------------------------------------------------------------------------------


async def test_a_pool_with_one_connection_is_not_disturbed(collector: Collector) -> None:
    """The session's report is trusted, because a query would become part of the application's transaction."""
    engine = create_async_engine("sqlite+aiosqlite://", poolclass=StaticPool)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    sessions = async_sessionmaker(engine, expire_on_commit=False)
    with_open = sessions()
    product = await attached(sessions)
    with_open.add(Product(id=2))
    await with_open.flush()
    assert await collector.originals() == [original(product.cover, collector._store)]
    await with_open.commit()
    await with_open.close()
    async with sessions() as session:
        assert await session.get(Product, 2) is not None
    await engine.dispose()


async def test_a_session_that_was_given_its_connection(
    sqlite: async_sessionmaker[AsyncSession], collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    """Its images are not handed over, because the application controls the transaction."""
    async with sqlite.kw["bind"].connect() as connection:
        with caplog.at_level(logging.INFO):
            async with AsyncSession(connection, expire_on_commit=False) as session:
                session.add(product := Product(id=1))
                await product.cover.from_blob(photo("chelsea"))
                await session.commit()
            assert await collector.originals() == []
        await connection.rollback()
    assert "1 images get no thumbnails in the background: the session was created with a connection" in caplog.text


async def test_a_database_that_cannot_be_queried(
    sqlite: async_sessionmaker[AsyncSession], handed: Handed, caplog: pytest.LogCaptureFixture
) -> None:
    """Thumbnails of the images are made on request."""
    await attached(sqlite)
    async with sqlite.begin() as session:
        await session.execute(text("DROP TABLE cover"))
    assert await committed(dict.fromkeys(handed.files, True)) == []
    assert (
        "1 images get no thumbnails in the background: the query for their rows failed: OperationalError" in caplog.text
    )


async def test_many_pictures_are_looked_up_together(
    sqlite: async_sessionmaker[AsyncSession], collector: Collector
) -> None:
    """Many images are looked up with one query."""
    async with sqlite.begin() as session:
        session.add_all(products := [Product(id=number) for number in range(20)])
        for product in products:
            await product.cover.from_blob(photo("chelsea"))
    with statements(sqlite) as sent:
        assert len(await collector.originals()) == 20
    assert len([one for one in sent if "SELECT" in one]) == 1


# --- the worker ------------------------------------------------------------------------------------------------------


async def test_a_session_in_another_event_loop(sqlite: async_sessionmaker[AsyncSession], collector: Collector) -> None:
    """Its images are left to requests, because the connections of its engine belong to another loop."""
    url = sqlite.kw["bind"].url

    async def attach() -> None:
        engine = create_async_engine(url)
        await attached(async_sessionmaker(engine, expire_on_commit=False))
        await engine.dispose()

    thread = threading.Thread(target=asyncio.run, args=(attach(),))
    thread.start()
    await asyncio.to_thread(thread.join)
    assert await collector.originals() == []


async def test_too_many_pictures(
    sqlite: async_sessionmaker[AsyncSession], store: KeyedStore, caplog: pytest.LogCaptureFixture
) -> None:
    """The number of waiting images is limited; further ones are logged, and made on request."""
    async with ThumbnailWorker(store, [Cover], max_waiting=1) as worker:
        async with sqlite.begin() as session:
            session.add_all(products := [Product(id=number) for number in (1, 2, 3)])
            for product in products:
                await product.cover.from_blob(photo("chelsea"))
        await worker.join()
        await attached(sqlite, 4)
    assert (
        "the thumbnails of 2 images will be made on request, because 1 images are waiting (max_waiting)" in caplog.text
    )
    assert len(await names(store, "cover.t/")) == 2 * len(declared(products[0].cover.original, store))


async def test_the_end_of_the_application(
    sqlite: async_sessionmaker[AsyncSession],
    store: KeyedStore,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Waiting images are finished, or dropped after the configured time; the worker can be started again."""
    worker = ThumbnailWorker(store, [Cover])
    async with worker:
        product = await attached(sqlite)
        with pytest.raises(UsageError, match="is already running"):
            await worker.__aenter__()
    assert await names(store, "cover.t/") == declared(product.cover.original, store)
    assert worker.loop is None
    async with worker:
        pass
    assert caplog.text == ""
    gate = Gate(monkeypatch)
    async with ThumbnailWorker(store, [Cover], shutdown_timeout=0):
        await attached(sqlite, 2)
        await gate.entered.wait()
    assert "shutdown: the thumbnails of 1 images will be made on request" in caplog.text
    assert receivers() == []


async def test_a_store_that_fails(sqlite: async_sessionmaker[AsyncSession], caplog: pytest.LogCaptureFixture) -> None:
    """Failures of the store, and of a database whose rows cannot be marked, are logged, and the worker continues."""
    store = Troubled()
    set_default_store(store)
    try:
        async with ThumbnailWorker(store, [Cover]) as worker:
            await attached(sqlite)
            store.failing = "get"
            await worker.join()
            assert "were not made in the background: StoreUnavailableError" in caplog.text
            store.failing = ""
            product = await attached(sqlite, 2)
            await worker.join()
        assert await names(store, "cover.t/") == declared(product.cover.original, store)
    finally:
        set_default_store(None)


async def test_a_row_that_cannot_be_marked(
    sqlite: async_sessionmaker[AsyncSession], store: KeyedStore, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """The files are made even if the row cannot be marked."""
    empty = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'empty.db'}")
    async with ThumbnailWorker(store, [Cover], sessions=async_sessionmaker(empty)) as worker:
        async with sqlite.begin() as session:
            session.add_all(products := [Product(id=number) for number in range(4)])
            for product in products:
                await product.cover.from_blob(photo("chelsea"))
        await worker.join()
    await empty.dispose()
    assert "no such table: cover" in caplog.text
    assert len(await names(store, "cover.t/")) == 4 * len(declared(products[0].cover.original, store))


async def test_several_processes(tmp_path: Path) -> None:
    """Each process of uvicorn makes the thumbnails of its own uploads, and finishes them when it is stopped."""
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'app.db'}")
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "tests.thumbnails.worker_app:app", "--workers=2", f"--port={port}"]
    root = str(Path(__file__).parent.parent.parent)
    environment = {**os.environ, "WORKER_APP": str(tmp_path), "PYTHONPATH": root}
    process = await asyncio.create_subprocess_exec(*command, "--log-level=warning", cwd=root, env=environment)
    processes: set[int] = set()
    async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(retries=60)) as client:
        for number in range(1, 200):
            response = await client.put(
                f"http://127.0.0.1:{port}/covers/{number}", content=photo("chelsea"), headers={"connection": "close"}
            )
            processes.add(response.json())
            if len(processes) == 2:
                break
    process.send_signal(signal.SIGTERM)
    assert await process.wait() in (0, -signal.SIGTERM)
    async with async_sessionmaker(engine)() as session:
        covers = (await session.scalars(select(Cover))).all()
    await engine.dispose()
    assert len(covers) == number
    own = FileSystemStore(tmp_path, "/files/", fsync=False)
    assert await names(own, "cover.t/") == sorted(name for cover in covers for name in declared(cover, own))
    assert all(cover.thumbnail_marks for cover in covers)


async def test_tests_of_applications(
    sqlite: async_sessionmaker[AsyncSession],
    store: KeyedStore,
    image_store: MemoryStore,
    thumbnails_made: Any,
    handed: Handed,
) -> None:
    """Tests can wait for the thumbnails, which are in the store of the test."""
    async with ThumbnailWorker(store, [Cover]):
        product = await attached(sqlite)
        await thumbnails_made()
        assert await names(image_store, "cover.t/") == declared(product.cover.original, image_store)
    await thumbnails_made()
    assert handed.files == []
    assert await names(store) == []


def test_invalid_arguments_are_refused() -> None:
    """Each message states what was expected."""
    store = MemoryStore()
    with pytest.raises(DeclarationError, match="expected image classes"):
        ThumbnailWorker(store, [Product])  # type: ignore[list-item]
    with pytest.raises(DeclarationError, match="expected a list of image classes"):
        ThumbnailWorker(store, Cover)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="max_waiting: expected at least 1, got 0"):
        ThumbnailWorker(store, [Cover], max_waiting=0)
    with pytest.raises(ValueError, match="shutdown_timeout: expected at least 0, got -1"):
        ThumbnailWorker(store, [Cover], shutdown_timeout=-1)
    assert repr(ThumbnailWorker(store, [Cover])) == "<ThumbnailWorker of <MemoryStore of 0 files>>"
