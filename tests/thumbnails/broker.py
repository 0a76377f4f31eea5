"""A broker of taskiq on a real RabbitMQ, with a separate queue for each test."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import aio_pika
import pytest
from taskiq_aio_pika import AioPikaBroker, Exchange, Queue

from tests.databases import REQUIRED

URL = os.environ.get("TEST_RABBITMQ_URL", "amqp://guest:guest@127.0.0.1:5672/")


def require_rabbitmq() -> None:
    """Skip the test if RabbitMQ cannot be reached; fail with ``CI=true``."""
    address = urlsplit(URL)
    try:
        socket.create_connection((address.hostname or "127.0.0.1", address.port or 5672), timeout=3).close()
    except OSError as error:
        if REQUIRED:
            raise
        pytest.skip(f"RabbitMQ cannot be reached (TEST_RABBITMQ_URL names it): {error}")


def own_name() -> str:
    """Return a name for a queue that no other test uses."""
    return f"aioimageattach.{os.getpid()}.{secrets.token_hex(4)}"


def broker_of(name: str, url: str = URL) -> AioPikaBroker:
    """Return a broker with one queue of this name."""
    queue = Queue(name=name, arguments={"x-delivery-limit": 20})
    return AioPikaBroker(
        url, exchange=Exchange(name=name), task_queues=[queue], dead_letter_queue=Queue(name=f"{name}.dead")
    )


class Relay:
    """A relay for connections to a broker, which can be interrupted and resumed at the same address.

    Args:
        url: URL of the broker.
    """

    def __init__(self, url: str) -> None:
        self._broker = urlsplit(url)
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._port = 0

    @property
    def url(self) -> str:
        """The URL of the broker through the relay."""
        return f"amqp://{self._broker.username}:{self._broker.password}@127.0.0.1:{self._port}/"

    async def open(self) -> None:
        """Accept connections."""
        self._server = await asyncio.start_server(self._pass_on, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    def close(self) -> None:
        """Accept no more connections."""
        assert self._server is not None
        self._server.close()

    def cut(self) -> None:
        """Accept no more connections, and break those that are open."""
        self.close()
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, to_there = await asyncio.open_connection(self._broker.hostname, self._broker.port or 5672)
        self._writers.update((writer, to_there))

        async def pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            while piece := await source.read(65536):
                target.write(piece)
            target.transport.abort()

        await asyncio.gather(pump(reader, to_there), pump(there, writer), return_exceptions=True)


@asynccontextmanager
async def own_queue() -> AsyncIterator[str]:
    """Yield the name of a queue that is deleted afterwards."""
    require_rabbitmq()
    name = own_name()
    try:
        yield name
    finally:
        async with await aio_pika.connect(URL) as connection:
            channel = await connection.channel()
            for queue in (name, f"{name}.dead"):
                await channel.queue_delete(queue)
            await channel.exchange_delete(name)


async def waiting(name: str) -> int:
    """Return the number of messages in a queue that no worker has received."""
    async with await aio_pika.connect(URL) as connection:
        queue = await (await connection.channel()).declare_queue(name, passive=True)
        return queue.declaration_result.message_count or 0
