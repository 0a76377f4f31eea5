"""A recipe is changed under load, while old and new processes run side by side and receive any request."""

from __future__ import annotations

import asyncio
import io
import json
import secrets
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest
from PIL import Image as PillowImage

from aioimageattach import store_context
from aioimageattach.store import KeyedStore
from aioimageattach.thumbnails import ThumbnailServer
from tests.faults.conftest import bucket_server as bucket_server
from tests.faults.kill.worker import store_of
from tests.photos import saved
from tests.servers.asgi import serving
from tests.servers.ministack import BIND
from tests.thumbnails.models import put, row
from tests.thumbnails.rollout import VERSIONS

CLIENTS = 8
COLOURS = ((0, 0, 0), (0, 0, 255), (0, 255, 0), (255, 0, 0), (255, 255, 255))
POINTS = (None, (0.2, 0.7))


@pytest.fixture(params=["directory", pytest.param("bucket", marks=pytest.mark.thorough)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """Return the location of a store, in the form in which it is passed to another process."""
    if request.param == "directory":
        return {"folder": str(tmp_path)}
    port = request.getfixturevalue("bucket_server").port
    return {"url": f"http://{BIND}:{port}", "bucket": "pictures", "prefix": secrets.token_hex(8)}


@pytest.fixture
async def store(place: dict[str, str]) -> AsyncIterator[KeyedStore]:
    """The same store in this process."""
    async with store_of(place) as store:
        yield store


def urls_of(store: KeyedStore, original: Any) -> dict[str, list[str]]:
    """Return the URLs that each version generates for an image."""
    found: dict[str, list[str]] = {}
    for version, cls in VERSIONS.items():
        same = row(cls, store, revision=original.revision, width=original.width, height=original.height)
        same.mimetype, same.focal_point = original.mimetype, original.focal_point
        with store_context(store, thumbnails=ThumbnailServer(store, [cls], base_url="/thumbnails/")):
            found[version] = [one.url for name in cls.__thumbnails__ for one in same.candidates(name)]
    return found


async def look(http: httpx.AsyncClient, url: str, servers: list[str], colour: tuple[int, ...]) -> None:
    """Assert that a URL shows an image of a colour, with at most one redirect, which the next server receives."""
    told = await http.get(servers[0] + url)
    if told.status_code == 302:
        told = await http.get(servers[-1] + told.headers["location"])
    assert told.status_code == 200, (url, told.status_code, told.headers)
    with PillowImage.open(io.BytesIO(told.content)) as image:
        pixel: Any = image.convert("RGB").getpixel((image.width // 2, image.height // 2))
    assert all(abs(one - other) < 30 for one, other in zip(pixel, colour, strict=True)), (url, pixel, colour)


async def test_a_recipe_is_changed_under_load(place: dict[str, str], store: KeyedStore) -> None:
    """Each URL of either version shows its image, also if the other version receives the redirect."""
    random = Random(7)
    asked: list[tuple[str, tuple[int, ...]]] = []
    given: dict[str, list[tuple[str, tuple[int, ...]]]] = {"old": [], "new": []}
    for number, colour in enumerate(COLOURS):
        blob = saved(PillowImage.new("RGB", (300, 200), colour), "PNG")
        original = await put(VERSIONS["old"], store, blob, width=300, height=200, mimetype="image/png")
        original.focal_point = POINTS[number % len(POINTS)]
        for version, urls in urls_of(store, original).items():
            given[version] += [(url, colour) for url in urls]
            asked += [(url, colour) for url in urls] * 2
    random.shuffle(asked)
    waiting = iter(asked)
    options: dict[str, Any] = {"app": "tests.thumbnails.rollout:app", "STORE": json.dumps(place)}
    with serving("uvicorn", Path(), **options, VERSION="new") as new:
        async with httpx.AsyncClient(timeout=30) as http:
            with serving("uvicorn", Path(), **options, VERSION="old") as old:

                async def client() -> None:
                    for url, colour in waiting:
                        await look(http, url, random.choice([[old, new], [new, old]]), colour)

                async with asyncio.TaskGroup() as group:
                    for _ in range(CLIENTS):
                        group.create_task(client())
            server = ThumbnailServer(store, [VERSIONS["new"]], base_url="/thumbnails/")
            kept = {url for url, _ in given["new"]}
            pruned = {f"/thumbnails/{info.name}" async for info in server.prune(grace=timedelta(0), delete=True)}
            assert pruned
            assert pruned <= {url for url, _ in given["old"]} - kept
            for url, colour in given["old"] + given["new"]:
                await look(http, url, [new], colour)
