"""Fixtures: a directory with a database and images, and the program, which runs in this directory."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from aioimageattach.cli._app import app
from aioimageattach.context import bind_store
from tests.cli import models
from tests.stores.s3.conftest import gate as gate
from tests.stores.s3.conftest import s3_server as s3_server

USERS = 7
Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def blocking_guard() -> None:
    """Disable the guard, because a command runs its own event loop, in which drivers may read settings from disk."""


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the environment of the test run from affecting the tests."""
    for name in ("AIOIMAGEATTACH_STORE", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_PROFILE", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current directory. Paths that imports prepend to ``sys.path`` are removed afterwards."""
    path = list(sys.path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / models.MEDIA).mkdir()
    (tmp_path / "new").mkdir()
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{models.DATABASE}")
    yield tmp_path
    sys.path[:] = path


async def fill() -> None:
    """Create seven users with one image each."""
    engine = models.engine()
    async with engine.begin() as connection:
        await connection.run_sync(models.Base.metadata.create_all)
    sessions = await models.sessions()
    bind_store(sessions, models.media())
    async with sessions.begin() as session:
        for number in range(1, USERS + 1):
            session.add(user := models.User(id=number))
            await user.picture.from_blob(models.SMALL)
    await sessions.kw["bind"].dispose()
    await engine.dispose()


@pytest.fixture
def filled(folder: Path) -> Path:
    """The directory, with a database and images."""
    asyncio.run(fill())
    return folder


@pytest.fixture
def run() -> Run:
    """Return a function that runs the program in this process."""

    def invoke(*arguments: str, **environment: str) -> Result:
        result = CliRunner().invoke(app, list(arguments), env=environment)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return invoke


def documents(result: Result) -> list[dict[str, Any]]:
    """Return the JSON documents that a command has written."""
    return [json.loads(line) for line in result.stdout.splitlines()]


def files(folder: Path) -> list[str]:
    """Return the names of all files below a directory, except quarantined ones and records of ownership."""
    found = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
    return sorted(name for name in found if not name.startswith("."))
