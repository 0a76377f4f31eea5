"""The gallery with PostgreSQL, a bucket, RabbitMQ and two workers, started with one command."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from pathlib import Path

import aio_pika
import httpx
import pytest
from aio_pika.exceptions import ChannelNotFoundEntity
from sqlalchemy import text

from examples.gallery.bucket import open_bucket
from tests import photos
from tests.databases import PASSWORD, REQUIRED, Database, Servers
from tests.servers.ministack import ENVIRONMENT, free_port
from tests.thumbnails.broker import URL, require_rabbitmq, waiting

ROOT = Path(__file__).parents[2]
STARTED = re.compile(r"is at (\S+)/ and .* bucket at (\S+), .* processes (\d+) and (\d+) make")
DECLARED = re.compile(r'/thumbnails/(photo\.t/[^\s"]+)')
PATIENCE = 60


async def start(postgresql: str, rabbitmq: str) -> asyncio.subprocess.Process:
    settings = {"GALLERY_POSTGRESQL_URL": postgresql, "GALLERY_RABBITMQ_URL": rabbitmq}
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "examples.gallery", "--fleet", "--no-browser", "--port", "0",
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT), **settings},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip


async def exists(database: Database, name: str) -> bool:
    async with database.reader.connect() as connection:
        query = text("SELECT count(*) FROM pg_database WHERE datname = :name")
        return bool(await connection.scalar(query, {"name": name}))


@pytest.mark.skipif(not REQUIRED and not ENVIRONMENT.exists(), reason=f"{ENVIRONMENT} is missing; `make test` makes it")
@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.thorough)])
async def test_workers_make_the_thumbnails_and_end_with_the_gallery(
    number: signal.Signals, servers: Servers, tmp_path: Path
) -> None:
    """All declared files of an upload appear in the bucket without a request; afterwards, nothing is left."""
    require_rabbitmq()
    database = servers.database("asyncpg", tmp_path)
    process = await start(database.url.render_as_string(hide_password=False), URL)
    try:
        assert process.stdout is not None
        line = (await asyncio.wait_for(process.stdout.readline(), PATIENCE)).decode()
        started = STARTED.search(line)
        assert started, line
        url, endpoint, *workers = started.groups()
        settings = [set(Path(f"/proc/{worker}/environ").read_text().split("\0")) for worker in workers]
        [name] = [one.partition("=")[2] for one in settings[0] & settings[1] if one.startswith("GALLERY_QUEUE=")]
        async with httpx.AsyncClient(base_url=url, timeout=PATIENCE) as client, asyncio.timeout(PATIENCE):
            files = [("photos", photos.photo("chelsea")), ("photos", photos.photo("coffee"))]
            answer = await client.post("/posts", data={"author": "Somebody", "title": "A title"}, files=files)
            assert answer.status_code == 303
            declared = set(DECLARED.findall((await client.get("/")).text))
            assert len(declared) > 2
            async with open_bucket(endpoint) as bucket:
                while declared - {found.name async for found in bucket.list_objects("photo.t/")}:
                    await asyncio.sleep(0.1)
        children = [Path(f"/proc/{worker}/task/{worker}/children").read_text().split() for worker in workers]
        assert [len(one) for one in children] == [1, 1]
        assert await waiting(name) == 0
        assert await exists(database, name)
    finally:
        process.send_signal(number)
        _, errors = await asyncio.wait_for(process.communicate(), PATIENCE)
    assert (process.returncode, errors) == (0, b"")
    for one in [*workers, *children[0], *children[1]]:
        assert not Path(f"/proc/{one}").exists()
    assert not await exists(database, name)
    await database.aclose()
    for queue in (name, f"{name}.dead_letter"):
        with pytest.raises(ChannelNotFoundEntity):
            await waiting(queue)
    async with await aio_pika.connect(URL) as connection:
        with pytest.raises(ChannelNotFoundEntity):
            await (await connection.channel()).get_exchange(name)


@pytest.mark.parametrize("service", ["PostgreSQL", "RabbitMQ"])
async def test_an_unreachable_service_is_named(service: str, servers: Servers, tmp_path: Path) -> None:
    """The command ends with exit code 2 and one sentence that names the service and not the password."""
    require_rabbitmq()
    address = f"{PASSWORD}@127.0.0.1:{free_port()}/"
    if service == "PostgreSQL":
        process = await start(f"postgresql+asyncpg://postgres:{address}postgres", URL)
    else:
        url = servers.database("asyncpg", tmp_path).url
        process = await start(url.render_as_string(hide_password=False), f"amqp://guest:{address}")
    output, errors = await asyncio.wait_for(process.communicate(), PATIENCE)
    assert (process.returncode, output) == (2, b"")
    [line] = errors.decode().splitlines()
    assert f"{service} cannot be used (GALLERY_{service.upper()}_URL is its URL)" in line
    assert PASSWORD not in line
