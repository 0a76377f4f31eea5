"""Shared parts of the tests of the marketplace: settings for each database and store, and visitors."""

from __future__ import annotations

import shutil
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy.ext.asyncio import async_sessionmaker

from aioimageattach import KeyedStore
from aioimageattach.stores import SplitStore
from examples.marketplace.app import create_app, open_stores
from examples.marketplace.models import Base, Product, create_engine, create_tables
from tests import photos
from tests.databases import REQUIRED
from tests.servers.gate import ACCESS_KEY, SECRET_KEY, Gate
from tests.servers.ministack import BIND, ENVIRONMENT, Ministack

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PASSWORD = "correct horse"
REGION = "us-east-1"


@dataclass(frozen=True, slots=True)
class Buckets:
    """An S3 server that checks signatures, with two buckets; thumbnails can be read without signatures, as on a CDN."""

    endpoint: str
    thumbnails_url: str

    def settings(self) -> dict[str, str]:
        """The settings of the marketplace that are not in the environment."""
        return {
            "ORIGINALS_BUCKET": "originals",
            "THUMBNAILS_BUCKET": "thumbnails",
            "THUMBNAILS_URL": self.thumbnails_url,
        }

    def environment(self) -> dict[str, str]:
        """The environment variables that the S3 store reads."""
        return {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_REGION": REGION,
            "AWS_ENDPOINT_URL_S3": self.endpoint,
        }


@contextmanager
def buckets() -> Iterator[Buckets]:
    """Start the server, or skip the test if it is not installed."""
    if not ENVIRONMENT.exists():
        (pytest.fail if REQUIRED else pytest.skip)(f"{ENVIRONMENT} is missing; `make test` makes it")
    with TemporaryDirectory() as folder:
        backend = Ministack(Path(folder))
        gate = Gate(backend)
        try:
            for name in ("originals", "thumbnails"):
                backend.create_bucket(name, REGION)
            yield Buckets(gate.url, f"http://{BIND}:{backend.port}/thumbnails/")
        finally:
            gate.close()
            backend.close()


def need_browser() -> str:
    """Return the browser, or skip the test."""
    if CHROMIUM is None:
        (pytest.fail if REQUIRED else pytest.skip)("a browser is needed: apt-get install chromium")
    return str(CHROMIUM)


@dataclass
class Market:
    """A marketplace in this process, with a visitor who is not signed in."""

    app: FastAPI
    settings: dict[str, str]
    client: httpx.AsyncClient

    @property
    def sessions(self) -> async_sessionmaker[Any]:
        """The sessions of the application."""
        found: async_sessionmaker[Any] = self.app.state.sessions
        return found

    async def sign_up(self, name: str = "Mia") -> httpx.Response:
        """Sign the visitor up."""
        return await self.client.post("/api/users", json={"name": name, "password": PASSWORD})

    async def offer(self, *names: str, title: str = "A cat") -> str:
        """Offer a product with images; return its address in the API."""
        answer = await self.client.post("/api/products", json={"title": title, "price": "3.50"})
        assert answer.status_code == 201, answer.text
        address = f"/api/products/{answer.json()['id']}"
        if names:
            assert (await self.upload(address, *names)).status_code == 201
        return address

    async def upload(self, address: str, *names: str) -> httpx.Response:
        """Add images to a product."""
        files = [("photos", (f"{name}.jpg", photos.photo(name))) for name in names]
        return await self.client.post(f"{address}/photos", files=files)

    async def photos(self, address: str) -> list[dict[str, Any]]:
        """Return the images of a product, as the API shows them."""
        answer = await self.client.get(address)
        assert answer.status_code == 200
        found: list[dict[str, Any]] = answer.json()["photos"]
        return found


def store_of(settings: dict[str, str]) -> tuple[SplitStore, tuple[KeyedStore, KeyedStore]]:
    """Return a store of the same files, to inspect them without the application."""
    parts = open_stores(settings)
    return SplitStore(*parts), parts


@asynccontextmanager
async def market(settings: dict[str, str]) -> AsyncGenerator[Market, None]:
    """Run a marketplace in this process."""
    await create_tables(create_engine(settings["DATABASE_URL"]))
    app = create_app(settings)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://testserver") as client,
    ):
        yield Market(app, settings, client)


__all__ = ["PASSWORD", "Base", "Buckets", "Market", "Product", "buckets", "market", "need_browser", "store_of"]
