"""taskiq workers on RabbitMQ: losses when they are killed, the speed of two, and the effect on commits.

``python -m tests.bench.fleet killed|throughput|commit``. ``killed`` pauses for ``--restarted`` seconds after half of
the files, so that RabbitMQ can be restarted by hand; ``--url`` selects another RabbitMQ.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import aio_pika
import psycopg
from sqlalchemy import ForeignKey
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from aioimageattach import Image, Srcset, image_attachment, set_default_store
from aioimageattach._declared.maker import Original
from aioimageattach.store import KeyedStore
from aioimageattach.stores.fs import FileSystemStore
from aioimageattach.taskiq import ThumbnailTasks
from aioimageattach.thumbnails._maker import ThumbnailMaker
from aioimageattach.thumbnails._turns import Priority
from tests import photos
from tests.thumbnails.broker import URL, Relay, broker_of, own_name
from tests.thumbnails.fleet import CLASSES, Poster, Snapshot, Worker, thumbnails_of, wrong_files
from tests.thumbnails.models import all_thumbnails, put

from .measure import percentile, say

SIZES = {"chelsea": (451, 300), "coffee": (600, 400), "rocket": (640, 427)}


@dataclass(slots=True)
class Site:
    """A store with originals, and a queue."""

    store: FileSystemStore
    queue: str
    url: str
    originals: dict[str, bytes]

    @property
    def files(self) -> Path:
        """The directory of the store."""
        return Path(self.store.path)

    def made(self) -> int:
        """The number of files made so far."""
        return sum(1 for path in self.files.glob("*.t/**/*") if path.suffix in (".webp", ".jpg"))

    async def enqueue(self) -> None:
        """Send a job for each original."""
        broker, maker = broker_of(self.queue, self.url), ThumbnailMaker(self.store, CLASSES)
        tasks = ThumbnailTasks(broker, self.store, CLASSES)
        async with broker:
            for name in self.originals:
                await tasks.enqueue(name, [one.stem for one in thumbnails_of(maker, name)[1]])

    async def ready(self) -> int:
        """Return the number of jobs that no worker has received."""
        async with await aio_pika.connect(self.url) as connection:
            queue = await (await connection.channel()).declare_queue(self.queue, passive=True)
            return queue.declaration_result.message_count or 0


@contextlib.asynccontextmanager
async def site(
    url: str, blobs: Sequence[tuple[bytes, tuple[int, int]]], count: int, cls: type[Image] = Snapshot
) -> AsyncIterator[Site]:
    """Yield a store with originals, made from the given images in turn."""
    folder = Path(tempfile.mkdtemp(prefix="fleet"))
    found = Site(FileSystemStore(folder, "/", fsync=False), own_name(), url, {})
    try:
        for number in range(count):
            blob, (width, height) = blobs[number % len(blobs)]
            original = await put(cls, found.store, blob, width=width, height=height)
            found.originals[found.store.name_of(original.key)] = blob
        yield found
    finally:
        shutil.rmtree(folder)
        with contextlib.suppress(Exception):
            async with await aio_pika.connect(url) as connection:
                channel = await connection.channel()
                for queue in (found.queue, f"{found.queue}.dead"):
                    await channel.queue_delete(queue)
                await channel.exchange_delete(found.queue)


async def in_one_process(store: KeyedStore, names: Sequence[str]) -> tuple[float, float]:
    """Return the time and the CPU time for all images in one process."""
    maker = ThumbnailMaker(store, CLASSES)
    started, cpu = time.perf_counter(), time.process_time()
    turn = asyncio.Semaphore(maker.concurrency)

    async def make(name: str) -> None:
        async with turn:
            original = Original.parse(name)
            assert original is not None
            await maker.make_missing(original, all_thumbnails(maker, original), Priority.NEW)

    await asyncio.gather(*(make(name) for name in names))
    return time.perf_counter() - started, time.process_time() - cpu


def cpu_of(worker: Worker) -> float:
    """Return the CPU time of a worker and its child so far, in seconds."""
    process = worker._process
    assert process is not None
    total = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[2]) == process.pid:  # a member of its process group
                total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


def small() -> list[tuple[bytes, tuple[int, int]]]:
    """Return small photographs."""
    return [(photos.photo(name), size) for name, size in SIZES.items()]


async def killed(url: str, count: int, kills: int, pause: float) -> None:
    """Run two workers, one of which is repeatedly killed at random; then run them again with an empty queue."""
    async with site(url, small(), count) as alone:
        seconds, cpu = await in_one_process(alone.store, list(alone.originals))
        say(f"{count} pictures, {alone.made()} files in one process: {seconds:.1f} s, {cpu:.1f} s of CPU")
    async with site(url, small(), count) as found:
        expected = 5 * count
        await found.enqueue()
        workers = [Worker(found.queue, found.files, url) for _ in range(2)]
        started, done, waited = time.perf_counter(), 0, 0.0
        try:
            while (made := found.made()) < expected:
                if done < kills - 1 and made > expected * (done + random.random()) / (kills + 1):
                    worker = random.choice(workers)
                    worker.stop()
                    worker.start()
                    done += 1
                    say(f"killed number {done} at {time.perf_counter() - started:.1f} s, with {made} files")
                if pause and made > expected / 2:
                    say(f"restart RabbitMQ now; {made} files")
                    await asyncio.sleep(pause)
                    pause, waited = 0.0, pause
                if done == kills - 1 and made > expected * 0.8 and not await found.ready():
                    workers[0].stop()  # it has received the last jobs, and the queue is empty
                    workers[0].start()
                    done += 1
                    say(f"killed number {done} with an empty queue, with {made} files")
                await asyncio.sleep(0.05)
            seconds = time.perf_counter() - started
        finally:
            for worker in workers:
                worker.stop()
        wrong = [path for name, blob in found.originals.items() for path in wrong_files(found.store, name, blob)]
        say(f"two workers, {done} killed: {seconds:.1f} s (of which {waited:.0f} s to restart), {len(wrong)} wrong")


async def throughput(url: str, count: int) -> None:
    """Measure one worker on a core, and two on two cores, with images of 12 megapixels."""
    blobs = [(photos.large(), (4000, 3000))]
    for cores in ((0,), (0, 1), (0,), (0, 1)):
        async with site(url, blobs, count, Poster) as found:
            await found.enqueue()
            workers = [Worker(found.queue, found.files, url, core) for core in cores]
            try:
                while found.made() < 10:
                    await asyncio.sleep(0.02)
                before, started, cpu = found.made(), time.perf_counter(), sum(map(cpu_of, workers))
                while (made := found.made()) < 4 * (count - 2):
                    await asyncio.sleep(0.02)
                seconds, cpu = time.perf_counter() - started, sum(map(cpu_of, workers)) - cpu
            finally:
                for worker in workers:
                    worker.stop()
            files = made - before
            say(f"{len(cores)} worker: {files / 4 / seconds:.2f} pictures/s, {cpu / files * 4000:.1f} ms of CPU each")
    async with site(url, blobs, count, Poster) as found:
        os.sched_setaffinity(0, {0})
        seconds, cpu = await in_one_process(found.store, list(found.originals))
        say(f"the same without an engine: {count / seconds:.2f} pictures/s, {cpu / count * 1000:.1f} ms of CPU each")


class Base(DeclarativeBase):
    """The declarative base of the models of :func:`commit`."""


class Album(Base):
    """An album with an image."""

    __tablename__ = "album"
    id: Mapped[int] = mapped_column(primary_key=True)
    cover = image_attachment["AlbumCover"]("AlbumCover")


class AlbumCover(Base, Image):
    """An image with one declared thumbnail."""

    __tablename__ = "album_cover"
    __thumbnails__ = {"card": Srcset([60], fallback=None)}
    album_id: Mapped[int] = mapped_column(ForeignKey(Album.id), primary_key=True)


async def commit(url: str, count: int) -> None:
    """Measure commits in turn while the broker is up and while it is down."""
    name = f"aioimageattach_fleet_{os.getpid()}"
    with psycopg.connect("host=127.0.0.1 user=postgres dbname=postgres", autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")  # type: ignore[arg-type]

    relay = Relay(url)
    await relay.open()
    engine = create_async_engine(f"postgresql+asyncpg://postgres@127.0.0.1/{name}")
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    sessions = async_sessionmaker(engine, expire_on_commit=False)
    times: dict[bool, list[float]] = {True: [], False: []}
    photo = photos.photo("chelsea")
    async with site(url, [], 0) as found:
        set_default_store(found.store)
        broker = broker_of(found.queue, relay.url)
        async with broker, ThumbnailTasks(broker, found.store, [AlbumCover], shutdown_timeout=60) as tasks:
            for number in range(2 * count):
                is_up = number // 25 % 2 == 0
                if number and number % 25 == 0:
                    if is_up:
                        await relay.open()
                        await tasks.join()
                    else:
                        relay.cut()
                async with sessions() as session:
                    session.add(album := Album())
                    await album.cover.from_blob(photo)
                    started = time.perf_counter()
                    await session.commit()
                    times[is_up].append(time.perf_counter() - started)
            if not is_up:
                await relay.open()
            await tasks.join()
        ready = await found.ready()
    for is_up, some in times.items():
        say(
            f"broker {'up' if is_up else 'down'}: {len(some)} commits, "
            f"median {percentile(some, 0.5) * 1000:.1f} ms, p99 {percentile(some, 0.99) * 1000:.1f} ms"
        )
    say(f"{ready} of {2 * count} pictures are in the queue")
    relay.close()
    await engine.dispose()
    with psycopg.connect("host=127.0.0.1 user=postgres dbname=postgres", autocommit=True) as admin:
        admin.execute(f"DROP DATABASE {name}")  # type: ignore[arg-type]


def main() -> None:
    """Run the part that the arguments name."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.fleet", description="Workers of taskiq.")
    parser.add_argument("what", choices=["killed", "throughput", "commit"])
    parser.add_argument("--count", type=int, help="number of pictures")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--restarted", type=float, default=0.0, help="time to restart RabbitMQ by hand, in seconds")
    parser.add_argument("--url", default=URL)
    options = parser.parse_args()
    if options.what == "killed":
        asyncio.run(killed(options.url, options.count or 2000, options.kills, options.restarted))
    elif options.what == "throughput":
        asyncio.run(throughput(options.url, options.count or 100))
    else:
        asyncio.run(commit(options.url, options.count or 300))


if __name__ == "__main__":
    main()
