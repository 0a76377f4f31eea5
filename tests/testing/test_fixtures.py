"""The fixtures for pytest."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import httpx
import pytest
from fastapi import FastAPI, Request

from aioimageattach.asgi import StoreContextMiddleware
from aioimageattach.context import bind_store, get_current_store, set_default_store
from aioimageattach.context._current import overriding_store
from aioimageattach.stores import MemoryStore
from aioimageattach.testing import FaultyStore
from aioimageattach.testing.fixtures import faulty_image_store as faulty_image_store
from aioimageattach.testing.fixtures import image_store as image_store
from tests import photos
from tests.databases import Database
from tests.entity.models import Base, User, started

CONFTEST: Final = """
import pytest

pytest_plugins = ["aioimageattach.testing.fixtures"]

@pytest.fixture
def anyio_backend():
    return "asyncio"
"""
USES: Final = """
import asyncio
import pytest
from aioimageattach.context import get_current_store
from aioimageattach.context._current import overriding_store

async def name():
    return get_current_store()

def test_it(image_store):
    assert get_current_store() is image_store
    assert asyncio.run(name()) is image_store

def test_it_is_empty_again(image_store):
    assert repr(image_store) == "<MemoryStore of 0 files>"

def test_faulty(faulty_image_store):
    assert get_current_store() is faulty_image_store
    faulty_image_store.fail("put")

@pytest.mark.anyio
async def test_in_anyio(image_store):
    assert get_current_store() is image_store

def test_no_store_is_left():
    assert overriding_store() is None
"""


async def test_the_store_is_the_current_one(image_store: MemoryStore) -> None:
    """The fixture is an empty store, and the current store."""
    assert get_current_store() is image_store
    assert [one async for one in image_store.list_objects()] == []


async def test_the_faulty_store_is_the_current_one(faulty_image_store: FaultyStore) -> None:
    """The faulty store is the current store, and has no rules yet."""
    assert get_current_store() is faulty_image_store
    await faulty_image_store.put_object("a", b"x")


async def put_through(app: FastAPI) -> None:
    """Send an image to an application that runs in separate tasks, as on a real server."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        response = await client.put("/users/1/picture", content=photos.png())
    assert response.status_code == 204


@pytest.mark.parametrize("way", ["bind", "default", "middleware"])
async def test_the_store_of_an_application_is_replaced(
    way: str, image_store: MemoryStore, sqlite_database: Database
) -> None:
    """The fixture replaces the store of the application, in whatever way the application sets it."""
    own = MemoryStore()
    sessions = await started(sqlite_database, Base.metadata, expire_on_commit=False)
    app = FastAPI()
    if way == "bind":
        bind_store(sessions, own)
    elif way == "default":
        set_default_store(own)
    else:
        app.add_middleware(StoreContextMiddleware, store=own)

    @app.put("/users/{user_id}/picture", status_code=204)
    async def set_picture(user_id: int, request: Request) -> None:
        async with sessions.begin() as session:
            session.add(user := User(id=user_id))
            await user.picture.from_file(request.stream())

    try:
        await asyncio.create_task(put_through(app))
    finally:
        set_default_store(None)
    counts = [len([one async for one in store.list_objects()]) for store in (image_store, own)]
    assert counts == [1, 0]


def test_no_store_is_left() -> None:
    """After the tests, no store is set."""
    assert overriding_store() is None


def test_in_a_separate_run(tmp_path: Path) -> None:
    """The store is the current one in the test and in tasks that it starts."""
    (tmp_path / "test_it.py").write_text(USES)
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    (tmp_path / "conftest.py").write_text(CONFTEST)
    plugins = ["-p", "anyio.pytest_plugin", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", "-q", *plugins, "test_it.py"]
    env = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
