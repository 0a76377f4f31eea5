"""Stores by URL."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest
from click import BadParameter

from aioimageattach.cli.database import DatabaseParameter
from aioimageattach.cli.loading import ModelsParameter
from aioimageattach.cli.stores import StoreParameter, credentials_of
from aioimageattach.stores.fs import FileSystemStore
from aioimageattach.stores.memory import MemoryStore
from aioimageattach.stores.s3 import S3Store
from tests.servers.gate import Gate

SECRET = "hunter2"


def read(url: str) -> Any:
    return StoreParameter().convert(url, None, None)


def test_a_directory(folder: Path) -> None:
    """Its URLs begin with what is said, else with its own."""
    (folder / "a b").mkdir()
    store = read(f"file://{folder}/a%20b?base_url=https://example.com/&fsync=no")
    assert isinstance(store, FileSystemStore)
    assert (store.path, store.base_url) == (f"{folder}/a b", "https://example.com/")
    assert read(f"file://localhost{folder}").base_url == f"file://{folder}/"


def test_a_bucket() -> None:
    """What the URL may say reaches the store."""
    store = read(
        "s3://pictures/old%20ones/?region=eu-central-1&endpoint_url=http://127.0.0.1:9000&path_style=yes&max_retry=2"
        "&public_base_url=https://cdn.example.com&bulk_delete=false"
    )
    assert isinstance(store, S3Store)
    assert (store.bucket, store.prefix, store.region, store.max_retry) == ("pictures", "old ones", "eu-central-1", 2)
    assert store.url_of("a") == "https://cdn.example.com/old%20ones/a" or store.public_base_url


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://example.com/", "expected file:///path"),
        ("memory://", "expected file:///path"),
        ("file://media", "three slashes"),
        ("file://", "three slashes"),
        ("file:///no/such/place", "there is no directory"),
        ("file:///tmp?base=1", "unknown: base; expected some of base_url, fsync"),
        ("file:///tmp?fsync=perhaps", "fsync: expected yes or no"),
        ("file:///tmp?fsync", "cannot be read; expected one such as"),
        ("s3://", "expected a bucket"),
        ("s3://b?secret_key=x", "unknown: secret_key"),
        ("s3://b?max_retry=many", "max_retry: expected a number"),
        (f"s3://key:{SECRET}@b", "no secret"),
        (f"s3://key:ab?{SECRET}@b", "cannot be read"),
        (f"s3://key:{SECRET}[@b", "cannot be read"),
        (f"s3://key:{SECRET}/x@b", "no secret"),
        (f"s3://pictures?endpoint_url=https://key:{SECRET}@host", "no secret"),
        (f"file:///tmp?base_url=https%3A%2F%2Fkey%3A{SECRET}%40host%2F", "no secret"),
        (f"file://{SECRET}@[/x", "cannot be read"),
        ("s3://b?url_expires_in=60&public_base_url=https://x/", "do not go with it|does not go with it"),
    ],
)
def test_wrong_urls_are_refused(url: str, message: str) -> None:
    """The message says what is expected, and repeats no secret."""
    with pytest.raises(BadParameter, match=message.replace("?", r"\?")) as caught:
        read(url)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("parameter", [StoreParameter(), DatabaseParameter(), ModelsParameter()], ids=lambda p: p.name)
def test_what_is_loaded_already_stays(parameter: Any) -> None:
    """Default values may be the things themselves."""
    thing = object()
    assert parameter.convert(thing, None, None) is thing


def test_the_extra_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """S3 wants aiohttp."""
    for name in [name for name in sys.modules if name.startswith("aioimageattach.stores.s3.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    with pytest.raises(BadParameter, match=r"aiohttp is missing: pip install 'aioimageattach\[s3\]'"):
        read("s3://pictures")


def test_a_profile_is_chosen(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Of the files that Amazon's own tools read; what is said of it shows no secret."""
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(folder / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(folder / "config"))
    (folder / "credentials").write_text(
        f"[backup]\naws_access_key_id = AKIDEXAMPLE\naws_secret_access_key = {SECRET}\naws_session_token = {SECRET}\n"
    )
    said = asyncio.run(credentials_of(read("s3://pictures?region=eu-central-1&profile=backup")))
    assert said == "found: the access key ends in MPLE, a session token"
    assert asyncio.run(credentials_of(MemoryStore())) is None


def test_the_time_of_temporary_credentials_is_said(gate: Gate) -> None:
    """Where it is known."""
    from datetime import UTC, datetime

    from aioimageattach.stores.s3 import Credentials

    async def provide() -> Credentials:
        return Credentials("AKIDEXAMPLE", SECRET, None, datetime(2100, 1, 2, tzinfo=UTC))

    async def ask() -> str | None:
        async with S3Store("pictures", credentials=provide, region="eu-central-1") as store:
            return await credentials_of(store)

    assert asyncio.run(ask()) == "found: the access key ends in MPLE, no session token, until 2100-01-02 00:00:00 UTC"


def test_without_the_s3_room_there_are_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asking for them does not load it."""
    monkeypatch.delitem(sys.modules, "aioimageattach.stores.s3.store")
    assert asyncio.run(credentials_of(MemoryStore())) is None
    assert "aioimageattach.stores.s3.store" not in sys.modules
