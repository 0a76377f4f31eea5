"""Thumbnails made by taskiq workers, with a real RabbitMQ."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aio_pika
import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from taskiq import BrokerMessage, InMemoryBroker
from taskiq.api import run_receiver_task

import aioimageattach.taskiq as module
from aioimageattach._declared.maker import Original
from aioimageattach.entity._derived import declared_files
from aioimageattach.exc import DeclarationError, StoreUnavailableError, UnreadableImageError
from aioimageattach.key import ImageKey
from aioimageattach.store import KeyedStore
from aioimageattach.stores import MemoryStore
from aioimageattach.stores.fs import FileSystemStore
from aioimageattach.taskiq import ThumbnailTasks
from aioimageattach.thumbnails._maker import ThumbnailMaker
from tests.databases import Database
from tests.entity.models import started
from tests.entity.test_derived import store as store
from tests.photos import photo
from tests.thumbnails.broker import URL, Relay, broker_of, own_queue, waiting
from tests.thumbnails.fleet import Snapshot, Worker, thumbnails_of, wrong_files
from tests.thumbnails.models import Photo, all_thumbnails, declared, names, put, row
from tests.thumbnails.test_server import Troubled
from tests.thumbnails.test_worker import Base, Cover, attached


@pytest.fixture
async def sessions(sqlite_database: Database) -> async_sessionmaker[AsyncSession]:
    """Sessions on SQLite."""
    return await started(sqlite_database, Base.metadata, expire_on_commit=False)


@pytest.fixture
async def queue() -> AsyncIterator[str]:
    """The name of a queue for this test."""
    async with own_queue() as name:
        yield name


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the pauses between attempts."""
    monkeypatch.setattr(module, "_FIRST_DELAY", 0.01)
    monkeypatch.setattr(module, "_LAST_DELAY", 0.02)


@asynccontextmanager
async def working(name: str, store: KeyedStore, *classes: type[Any], **options: Any) -> AsyncIterator[None]:
    """A worker in this process."""
    broker = broker_of(name)
    broker.is_worker_process = True
    ThumbnailTasks(broker, store, classes, **options)
    task = asyncio.create_task(run_receiver_task(broker, run_startup=True))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await broker.shutdown()


async def until(condition: Callable[[], bool]) -> None:
    """Wait until a condition is true."""
    while not condition():
        await asyncio.sleep(0.02)


def in_memory(store: KeyedStore, *classes: type[Any], **options: Any) -> ThumbnailTasks:
    """Return tasks that run as soon as they are sent."""
    return ThumbnailTasks(InMemoryBroker(await_inplace=True), store, classes or [Photo], **options)


async def job_of(store: KeyedStore, blob: bytes | None = None) -> tuple[str, list[str]]:
    """Return the job for a new image."""
    original = Original.parse(store.name_of((await put(Photo, store, blob)).key))
    assert original is not None
    return original.name, [one.stem for one in all_thumbnails(ThumbnailMaker(store, [Photo]), original)]


# --- thumbnails of committed images ---------------------------------------------------------------------------------


async def test_workers_make_the_thumbnails(
    sessions: async_sessionmaker[AsyncSession], store: FileSystemStore, queue: str
) -> None:
    """Workers need only the store and the classes; with a database, they also mark the row."""
    broker = broker_of(queue)
    tasks = ThumbnailTasks(broker, store, [Cover])
    async with broker, tasks, working(queue, store, Cover, sessions=sessions):
        product = await attached(sessions)
        expected = declared(product.cover.original, store)
        await until(lambda: all((Path(store.path) / name).exists() for name in expected))
        while True:
            async with sessions() as session:
                cover = await session.scalar(select(Cover))
            if cover is not None and cover.thumbnail_marks:
                break
        assert cover.url("card").startswith("/files/")
    assert await waiting(queue) == 0


async def test_a_job_consists_of_names(
    sessions: async_sessionmaker[AsyncSession], store: FileSystemStore, queue: str
) -> None:
    """A job is JSON that contains no recipes and no pickles."""
    broker = broker_of(queue)
    tasks = ThumbnailTasks(broker, store, [Cover])
    async with broker, tasks:
        product = await attached(sessions)
        await tasks.join()
        async with await aio_pika.connect(URL) as connection:
            channel = await connection.channel()
            message = await (await channel.get_queue(queue)).get(no_ack=True)
        body = json.loads(message.body)
    original = product.cover.original
    key = original.key
    assert isinstance(key, ImageKey)
    name = store.name_of(key)
    assert body["task_name"] == "aioimageattach:thumbnails"
    assert body["kwargs"] == {}
    [first, stems] = body["args"]
    assert first == name
    assert {stem.split("-")[1] for stem in stems} == {"icon", "card"}
    assert message.delivery_mode == aio_pika.DeliveryMode.PERSISTENT
    assert repr(tasks) == f"<ThumbnailTasks 'aioimageattach:thumbnails' of {store!r}>"


async def test_a_broker_that_is_down(
    sessions: async_sessionmaker[AsyncSession],
    store: FileSystemStore,
    queue: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Commits are not delayed; images wait in memory, and are sent when the broker is available again."""
    monkeypatch.setattr(module, "_SEND_TIMEOUT", 0.2)
    relay = Relay(URL)
    await relay.open()
    broker = broker_of(queue, f"{relay.url}?reconnect_interval=1")
    tasks = ThumbnailTasks(broker, store, [Cover])
    async with broker, tasks:
        with caplog.at_level(logging.INFO, "aioimageattach"):
            relay.cut()
            products = [await attached(sessions, number) for number in (1, 2)]
            assert tasks._waiting == 2
            await until(lambda: "the broker cannot be reached" in caplog.text)
            await relay.open()
            await tasks.join()
            assert caplog.text.count("the broker cannot be reached") == 1
            assert "the broker can be reached again" in caplog.text
        async with working(queue, store, Cover):
            wanted = [name for product in products for name in declared(product.cover.original, store)]
            await until(lambda: all((Path(store.path) / name).exists() for name in wanted))
    relay.close()


async def test_passwords_of_brokers_are_not_logged(
    sessions: async_sessionmaker[AsyncSession], store: FileSystemStore, caplog: pytest.LogCaptureFixture
) -> None:
    """The cause of an error is logged, without the password of a URL in it."""

    class Refusing(InMemoryBroker):
        async def kick(self, message: BrokerMessage) -> None:
            raise ConnectionError("redis://:hunter2@host/0 cannot be reached")

    tasks = ThumbnailTasks(Refusing(), store, [Cover], shutdown_timeout=0)
    async with tasks:
        with caplog.at_level(logging.INFO, "aioimageattach"):
            await attached(sessions, 1)
            await until(lambda: "the broker cannot be reached" in caplog.text)
    assert "wait in memory: ConnectionError: redis://***@host/0 cannot be reached" in caplog.text
    assert "hunter2" not in caplog.text


async def test_killed_workers_lose_nothing(store: FileSystemStore, queue: str) -> None:
    """After workers were killed or stopped, every declared file exists and is correct."""
    blobs = {}
    broker = broker_of(queue)
    tasks = ThumbnailTasks(broker, store, [Snapshot])
    maker = ThumbnailMaker(store, [Snapshot])
    async with broker:
        for number in range(24):
            blob = photo(("chelsea", "coffee", "rocket")[number % 3])
            size = {"chelsea": (451, 300), "coffee": (600, 400), "rocket": (640, 427)}
            width, height = size[("chelsea", "coffee", "rocket")[number % 3]]
            original = await put(Snapshot, store, blob, width=width, height=height)
            name = store.name_of(original.key)
            blobs[name] = blob
            await tasks.enqueue(name, [one.stem for one in thumbnails_of(maker, name)[1]])
    workers = [await asyncio.to_thread(Worker, queue, Path(store.path)) for _ in range(2)]
    try:
        for killed, number in enumerate((signal.SIGKILL, signal.SIGTERM)):
            made = len(await names(store, "snapshot.t/"))
            while len(await names(store, "snapshot.t/")) < min(made + 5, 100):
                await asyncio.sleep(random.uniform(0, 0.2))
            await asyncio.to_thread(workers[killed].stop, number)
            await asyncio.to_thread(workers[killed].start)
        while len(await names(store, "snapshot.t/")) < 24 * 5:
            await asyncio.sleep(0.1)
    finally:
        for worker in workers:
            await asyncio.to_thread(worker.stop)
    for name, blob in blobs.items():
        assert await asyncio.to_thread(wrong_files, store, name, blob) == []


# --- jobs ------------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["directory", "memory"])
def any_store(request: pytest.FixtureRequest, tmp_path: Path) -> KeyedStore:
    """A store in a directory, and one that is not."""
    return MemoryStore() if request.param == "memory" else FileSystemStore(tmp_path, "/", fsync=False)


async def test_jobs_are_idempotent(any_store: KeyedStore) -> None:
    """The same job can run twice, also concurrently."""
    tasks = in_memory(any_store)
    name, stems = await job_of(any_store)
    await asyncio.gather(tasks.enqueue(name, stems), tasks.enqueue(name, stems))
    await tasks.enqueue(name, stems)
    assert len(await names(any_store, "photo.t/")) == 8


async def test_pictures_that_do_not_exist(any_store: KeyedStore, caplog: pytest.LogCaptureFixture) -> None:
    """A job for a missing image or with invalid names does nothing."""
    tasks = in_memory(any_store)
    name, stems = await job_of(any_store)
    legacy = row(Photo, any_store, revision=None, id=7)
    [url] = [one.key_for(legacy).revision for one in declared_files(legacy)[:1]]
    await any_store.delete_object(name)
    for job in ((name, stems), (name, []), ("photo/7/0/7.451x300.jpe", [url]), ("a name", stems), ("", ["nothing"])):
        await tasks.enqueue(*job)
    assert await names(any_store) == []
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.parametrize("attempts", [1, 3])
async def test_a_picture_that_fails_every_time(attempts: int, caplog: pytest.LogCaptureFixture) -> None:
    """After the configured attempts, the error is in the log and in the result of the task."""
    store = Troubled()
    tasks = in_memory(store, attempts=attempts)
    name, stems = await job_of(store)
    store.failing = "get"
    result = await (await tasks._task.kiq(name, stems)).wait_result()
    assert isinstance(result.error, StoreUnavailableError)
    assert f"could not be made in {attempts} attempts" in caplog.text
    store.failing = ""
    await tasks.enqueue(name, stems)
    assert len(await names(store, "photo.t/")) == 8


async def test_a_transient_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next attempt makes the thumbnails, also if the lookup of a legacy original failed."""
    store = Troubled()
    tasks = in_memory(store)
    name, stems = await job_of(store)
    legacy = await put(Photo, store, revision=None, id=7)
    sleep = asyncio.sleep

    async def repaired(delay: float) -> None:
        store.failing = ""
        await sleep(0)

    monkeypatch.setattr(module.asyncio, "sleep", repaired)
    store.failing = "put"
    await tasks.enqueue(name, stems)
    assert len(await names(store, "photo.t/")) == 8
    store.failing = "head"
    old = [one.key_for(legacy).revision or "" for one in declared_files(legacy)]
    await tasks.enqueue(store.legacy_name(legacy.key), [*dict.fromkeys(old)])
    assert len(await names(store, "photo.t/")) == 16


async def test_a_broken_picture_is_not_retried(any_store: KeyedStore, caplog: pytest.LogCaptureFixture) -> None:
    """An image that cannot be decoded is not tried again."""
    tasks = in_memory(any_store)
    name, stems = await job_of(any_store, b"not a picture" * 99)
    result = await (await tasks._task.kiq(name, stems)).wait_result()
    assert isinstance(result.error, UnreadableImageError)
    assert "could not be made in 1 attempts" in caplog.text


def test_invalid_arguments_are_refused() -> None:
    """Each message states what was expected; the task has the given name and labels."""
    with pytest.raises(ValueError, match="attempts: expected at least 1, got 0"):
        in_memory(MemoryStore(), attempts=0)
    tasks = in_memory(MemoryStore(), task_name="own", labels={"queue_name": "thumbnails"})
    assert tasks._task.task_name == "own"
    with pytest.raises(DeclarationError, match="task_name: the broker has a task 'own' already"):
        ThumbnailTasks(tasks.broker, MemoryStore(), [Cover], task_name="own")
    assert tasks._task.labels == {"ack_type": "when_saved", "queue_name": "thumbnails"}
