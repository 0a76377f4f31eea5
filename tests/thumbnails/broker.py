"""A broker of taskiq on the RabbitMQ of this machine, with a queue of the test's own."""

from __future__ import annotations

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
    """The name of a queue that no other test has."""
    return f"aioimageattach.{os.getpid()}.{secrets.token_hex(4)}"


def broker_of(name: str, url: str = URL) -> AioPikaBroker:
    """A broker with one queue of that name."""
    queue = Queue(name=name, arguments={"x-delivery-limit": 20})
    return AioPikaBroker(
        url, exchange=Exchange(name=name), task_queues=[queue], dead_letter_queue=Queue(name=f"{name}.dead")
    )


@asynccontextmanager
async def own_queue() -> AsyncIterator[str]:
    """The name of a queue, which is deleted afterwards."""
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
    """The number of messages in a queue that no worker has received."""
    async with await aio_pika.connect(URL) as connection:
        queue = await (await connection.channel()).declare_queue(name, passive=True)
        return queue.declaration_result.message_count or 0
