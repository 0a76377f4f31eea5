"""Thumbnail workers in separate processes, with PostgreSQL and RabbitMQ. The workers import this module, too."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Coroutine, Generator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aio_pika
from sqlalchemy import URL, NullPool, make_url, text
from sqlalchemy.ext.asyncio import create_async_engine
from taskiq import AsyncBroker, TaskiqEvents
from taskiq_aio_pika import AioPikaBroker, Exchange, Queue

from aioimageattach import KeyedStore
from aioimageattach.stores.s3 import S3Store
from aioimageattach.taskiq import ThumbnailTasks

from .bucket import open_bucket
from .models import Photo

POSTGRESQL_URL = os.environ.get("GALLERY_POSTGRESQL_URL", "postgresql+asyncpg://postgres@127.0.0.1:5432/postgres")
RABBITMQ_URL = os.environ.get("GALLERY_RABBITMQ_URL", "amqp://guest:guest@127.0.0.1:5672/")
COMMAND = ["-m", "taskiq", "worker", "examples.gallery.fleet:worker", "--workers=1", "--log-level=WARNING"]
TIMEOUT = 10.0
"""Time that a service may take to respond at the start and at the end, in seconds."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """The services of one gallery while it runs: a database and a queue, which have the same name."""

    name: str

    @property
    def database(self) -> URL:
        """The URL of the database."""
        return make_url(POSTGRESQL_URL).set(database=self.name)

    def broker(self) -> AioPikaBroker:
        """Return a broker with the queue."""
        queue = Queue(name=self.name, arguments={"x-delivery-limit": 5})
        dead = Queue(name=f"{self.name}.dead_letter")
        exchange = Exchange(name=self.name)
        return AioPikaBroker(RABBITMQ_URL, exchange=exchange, task_queues=[queue], dead_letter_queue=dead)

    @asynccontextmanager
    async def tasks(self, store: KeyedStore) -> AsyncGenerator[ThumbnailTasks]:
        """Send each photograph to the workers after its commit, while the block runs."""
        broker = self.broker()
        async with broker, ThumbnailTasks(broker, store, [Photo]) as tasks:
            yield tasks

    async def execute(self, statement: str) -> None:
        """Execute a statement while connected to another database."""
        engine = create_async_engine(POSTGRESQL_URL, isolation_level="AUTOCOMMIT", poolclass=NullPool)
        async with asyncio.timeout(TIMEOUT), engine.connect() as connection:
            await connection.execute(text(statement))

    async def delete_queues(self) -> None:
        """Delete the queues, if they exist."""
        async with asyncio.timeout(TIMEOUT), await aio_pika.connect(RABBITMQ_URL) as connection:
            channel = await connection.channel()
            for queue in (self.name, f"{self.name}.dead_letter"):
                await channel.queue_delete(queue)
            await channel.exchange_delete(self.name)

    @contextmanager
    def workers(self, bucket: S3Store) -> Generator[list[int]]:
        """Start workers that make the thumbnails in a bucket, yield their process ids, and stop them at the end."""
        place = str(bucket.client.endpoint.template)
        environment = {**os.environ, "GALLERY_QUEUE": self.name, "GALLERY_BUCKET": place}
        root = Path(__file__).parents[2]
        processes = [
            # In a new session, Ctrl+C does not reach the workers, so that they end after the application.
            subprocess.Popen([sys.executable, *COMMAND], env=environment, cwd=root, start_new_session=True)
            for _ in range(2)
        ]
        try:
            yield [process.pid for process in processes]
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                try:
                    process.wait(2 * TIMEOUT)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()


@contextmanager
def services() -> Generator[Fleet]:
    """Create the database, and delete it and the queues at the end.

    Raises:
        ConnectionError: PostgreSQL or RabbitMQ cannot be used.
    """
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)  # the errors that it logs are also raised
    fleet = Fleet(f"aioimageattach_gallery_{secrets.token_hex(4)}")
    with ExitStack() as stack:
        _use("RabbitMQ", fleet.delete_queues())
        _use("PostgreSQL", fleet.execute(f"CREATE DATABASE {fleet.name}"))
        stack.callback(lambda: asyncio.run(fleet.execute(f"DROP DATABASE {fleet.name} WITH (FORCE)")))
        stack.callback(lambda: asyncio.run(fleet.delete_queues()))
        yield fleet


def _use(service: str, work: Coroutine[Any, Any, None]) -> None:
    try:
        asyncio.run(work)
    except Exception as error:  # each driver has its own errors
        # errors about a URL may quote a part of it, which may be a part of the password
        reason = "the URL is not valid" if isinstance(error, ValueError) else str(error) or type(error).__name__
        variable = f"GALLERY_{service.upper()}_URL"
        raise ConnectionError(f"{service} cannot be used ({variable} is its URL): {reason}") from None


def worker() -> AsyncBroker:
    """Return the broker of a worker: ``taskiq worker examples.gallery.fleet:worker``."""
    broker = Fleet(os.environ["GALLERY_QUEUE"]).broker()
    bucket = open_bucket(os.environ["GALLERY_BUCKET"])
    ThumbnailTasks(broker, bucket, [Photo])

    async def close(_state: object) -> None:
        await bucket.aclose()

    broker.add_event_handler(TaskiqEvents.WORKER_SHUTDOWN, close)
    return broker
