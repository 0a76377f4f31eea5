"""The marketplace with two workers, which are killed in turn while sellers upload."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import async_sessionmaker

from aioimageattach.maintenance import sweep
from aioimageattach.testing import assert_consistent
from examples.marketplace.models import create_engine
from tests import photos
from tests.databases import Servers
from tests.examples.market import PASSWORD, Base, Product, store_of

ROOT = Path(__file__).parents[2]
SELLERS, KILLS = 4, 5
NAMES = ("chelsea", "coffee", "rocket")


def children(parent: int) -> list[int]:
    """Return the worker processes of uvicorn."""
    found = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    commands = {int(child): Path(f"/proc/{child}/cmdline") for child in found}
    return [child for child, command in commands.items() if command.exists() and b"spawn_main" in command.read_bytes()]


@asynccontextmanager
async def workers(settings: dict[str, str]) -> AsyncGenerator[tuple[str, int], None]:
    """Start the program with two workers; yield its URL and its process."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "examples.marketplace", "--port", str(port), "--workers", "2", "--log-level", "critical",
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT), **settings},
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield f"http://127.0.0.1:{port}", process.pid
    finally:
        process.send_signal(signal.SIGINT)
        await asyncio.wait_for(process.wait(), 30)


async def answered(client: httpx.AsyncClient, method: str, url: str, **options: object) -> httpx.Response | None:
    """Send a request; return ``None`` if its worker was killed, or no worker was running."""
    try:
        return await client.request(method, url, **options)  # type: ignore[arg-type]
    except httpx.TransportError:
        await asyncio.sleep(0.05)
        return None


@pytest.mark.parametrize("driver", ["aiosqlite", pytest.param("asyncpg", marks=pytest.mark.thorough)])
async def test_nothing_is_lost_when_workers_are_killed(driver: str, servers: Servers, tmp_path: Path) -> None:
    """Each picture of a confirmed upload exists, each row has its file, and a sweep removes the other files."""
    database = servers.database(driver, tmp_path)
    url = database.url.render_as_string(hide_password=False)
    settings = {"DATABASE_URL": url, "DATA_DIR": str(tmp_path), "SECRET_KEY": "a secret of the tests"}
    confirmed: dict[str, set[str]] = {}
    tried = 0
    over = asyncio.Event()

    async def sell(number: int) -> None:
        nonlocal tried
        async with httpx.AsyncClient(
            base_url=base, timeout=60, limits=httpx.Limits(max_keepalive_connections=0)
        ) as client:
            body = {"name": f"Seller {number}", "password": PASSWORD}
            while (answer := await answered(client, "POST", "/api/users", json=body)) is None or answer.is_error:
                body["name"] += "x"
            address = None
            while not over.is_set():
                tried += 1
                if address is None or len(confirmed[address]) >= 6:
                    answer = await answered(client, "POST", "/api/products", json={"title": "A", "price": 1})
                    if answer is not None:
                        assert answer.status_code == 201, answer.text
                        address = f"/api/products/{answer.json()['id']}"
                        confirmed[address] = set()
                    continue
                files = [("photos", photos.photo(NAMES[tried % len(NAMES)]))]
                answer = await answered(client, "POST", f"{address}/photos", files=files)
                if answer is not None and answer.status_code == 422:  # those of killed workers count, too
                    address = None
                elif answer is not None:
                    assert answer.status_code == 201, answer.text
                    confirmed[address] |= {photo["photo_id"] for photo in answer.json()}

    async with workers(settings) as (base, parent):
        async with httpx.AsyncClient(base_url=base) as client, asyncio.timeout(60):
            while await answered(client, "GET", "/api/products") is None:
                pass
        async with asyncio.TaskGroup() as group:
            for number in range(SELLERS):
                group.create_task(sell(number))
            killed: set[int] = set()
            async with asyncio.timeout(120):
                while len(killed) < KILLS:
                    before = sum(map(len, confirmed.values()))
                    while sum(map(len, confirmed.values())) < before + 2:
                        await asyncio.sleep(0.02)
                    for child in children(parent)[:1]:
                        os.kill(child, signal.SIGKILL)
                        killed.add(child)
            over.set()

    sessions = async_sessionmaker(engine := create_engine(url), expire_on_commit=False)
    store, _ = store_of(settings)
    async with sessions() as session:
        products = (await session.scalars(select(Product))).all()
    there = {f"/api/products/{one.id}": {str(photo.identity["photo_id"]) for photo in one.photos} for one in products}
    assert sum(map(len, confirmed.values())) >= 2 * KILLS
    assert {
        address: ids - there.get(address, set()) for address, ids in confirmed.items() if ids - there[address]
    } == {}
    options = {"delete": True, "permanently": True, "max_share": 1.0, "force": True}
    await sweep(sessions, Base, store, grace=timedelta(0), **options).execute()
    await assert_consistent(sessions, Base, store)
    await engine.dispose()
    await database.aclose()
