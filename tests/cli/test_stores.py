"""Stores by URL."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest
from click import BadParameter

from aioimageattach.cli._database import DatabaseParameter
from aioimageattach.cli._loading import ModelsParameter
from aioimageattach.cli._stores import StoreParameter, as_s3_store, describe_credentials
from aioimageattach.stores import MemoryStore
from aioimageattach.stores.fs import FileSystemStore
from aioimageattach.stores.s3 import S3Store
from tests.servers.gate import Gate

SECRET = "hunter2"


def read(url: str) -> Any:
    return StoreParameter().convert(url, None, None)


def test_a_directory(folder: Path) -> None:
    """The base URL of a directory is the given one, or a ``file:`` URL."""
    (folder / "a b").mkdir()
    store = read(f"file://{folder}/a%20b?base_url=https://example.com/&fsync=no")
    assert isinstance(store, FileSystemStore)
    assert (store.path, store.base_url) == (f"{folder}/a b", "https://example.com/")
    assert read(f"file://localhost{folder}").base_url == f"file://{folder}/"


def test_a_bucket() -> None:
    """The options of the URL are passed to the store."""
    store = read(
        "s3://pictures/old%20ones/?region=eu-central-1&endpoint_url=http://127.0.0.1:9000&path_style=yes&max_retry=2"
        "&public_base_url=https://cdn.example.com&bulk_delete=false"
    )
    assert isinstance(store, S3Store)
    assert (store.bucket, store.prefix, store.region, store.max_retry) == ("pictures", "old ones", "eu-central-1", 2)
    assert store.url_of("a") == "https://cdn.example.com/old%20ones/a" or store.public_base_url


@pytest.mark.parametrize(
    ("query", "scope"),
    [
        ("public=yes", "public"),
        ("public_base_url=https://cdn.example.com", "public"),
        ("acl=public-read", "public"),
        ("public=no", "private"),
        ("url_expires_in=60", "private"),
        ("url_expires_in=60&public=no", "private"),
        ("public=yes&acl=private", "public"),
    ],
)
def test_public_and_private_objects(query: str, scope: str) -> None:
    """The URL of a bucket to be filled states whether objects are public, and this is recorded with each object."""
    store = StoreParameter(writes=True).convert(f"s3://pictures?region=eu-central-1&{query}", None, None)
    assert store.describe("image/png", False)["cache_control"] == f"{scope}, max-age=31536000, immutable"
    assert read(f"s3://pictures?region=eu-central-1&{query}").has_signed_urls is (scope == "private")


@pytest.mark.parametrize("query", ["", "?acl=private", "?region=eu-central-1"])
def test_public_or_private_is_required(query: str) -> None:
    """A command that puts files rejects a bucket's URL that does not state whether objects are public."""
    assert isinstance(read(f"s3://pictures{query}"), S3Store)
    with pytest.raises(BadParameter, match="public: expected public=yes or public=no"):
        StoreParameter(writes=True).convert(f"s3://pictures{query}", None, None)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("s3://b?public=yes&url_expires_in=60", "url_expires_in is for private objects"),
        ("s3://b?public=perhaps", "public: expected yes or no"),
        ("http://example.com/", "expected file:///path"),
        ("memory://", "expected file:///path"),
        ("file://media", "three slashes"),
        ("file://", "three slashes"),
        ("file:///no/such/place", "expected an existing directory"),
        ("file:///tmp?base=1", "expected only the options base_url, fsync, got base"),
        ("file:///tmp?fsync=perhaps", "fsync: expected yes or no"),
        ("file:///tmp?fsync", "expected a URL such as"),
        ("s3://", "expected a bucket"),
        ("s3://b?secret_key=x", "got secret_key"),
        ("s3://b?max_retry=many", "max_retry: expected a number"),
        (f"s3://key:{SECRET}@b", "without a user and a secret"),
        (f"s3://key:ab?{SECRET}@b", "got an invalid one"),
        (f"s3://key:{SECRET}[@b", "got an invalid one"),
        (f"s3://key:{SECRET}/x@b", "without a user and a secret"),
        (f"s3://pictures?endpoint_url=https://key:{SECRET}@host", "without a user and a secret"),
        (f"file:///tmp?base_url=https%3A%2F%2Fkey%3A{SECRET}%40host%2F", "without a user and a secret"),
        (f"file://{SECRET}@[/x", "got an invalid one"),
        ("s3://b?url_expires_in=60&public_base_url=https://x/", "expected None with"),
    ],
)
def test_invalid_urls(url: str, message: str) -> None:
    """The message states what was expected, and contains no secret."""
    with pytest.raises(BadParameter, match=message.replace("?", r"\?")) as caught:
        read(url)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("parameter", [StoreParameter(), DatabaseParameter(), ModelsParameter()], ids=lambda p: p.name)
def test_values_that_are_not_strings(parameter: Any) -> None:
    """Objects are returned unchanged, as click requires for default values."""
    thing = object()
    assert parameter.convert(thing, None, None) is thing


def test_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bucket's URL without aiohttp is an error that names the extra."""
    for name in [name for name in sys.modules if name.startswith("aioimageattach.stores.s3.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("aioimageattach.stores.s3.S3Store", raising=False)  # kept from an earlier access
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    with pytest.raises(BadParameter, match=r"S3 requires aiohttp: pip install 'aioimageattach\[s3\]'"):
        read("s3://pictures")


def test_profile(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Credentials are read from the files of the AWS command line, and their description contains no secret."""
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(folder / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(folder / "config"))
    (folder / "credentials").write_text(
        f"[backup]\naws_access_key_id = AKIDEXAMPLE\naws_secret_access_key = {SECRET}\naws_session_token = {SECRET}\n"
    )
    text = asyncio.run(describe_credentials(read("s3://pictures?region=eu-central-1&profile=backup")))
    assert text == "found: the access key ends in MPLE, a session token"
    assert as_s3_store(MemoryStore()) is None


def test_expiry_of_temporary_credentials(gate: Gate) -> None:
    """The description of temporary credentials contains their expiry, if it is known."""
    from datetime import UTC, datetime

    from aioimageattach.stores.s3 import Credentials

    async def provide() -> Credentials:
        return Credentials("AKIDEXAMPLE", SECRET, None, datetime(2100, 1, 2, tzinfo=UTC))

    async def describe() -> str:
        async with S3Store("pictures", credentials=provide, region="eu-central-1") as store:
            return await describe_credentials(store)

    assert (
        asyncio.run(describe()) == "found: the access key ends in MPLE, no session token, until 2100-01-02 00:00:00 UTC"
    )


def test_credentials_without_s3(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check does not import the S3 store."""
    monkeypatch.delitem(sys.modules, "aioimageattach.stores.s3._store")
    assert as_s3_store(MemoryStore()) is None
    assert "aioimageattach.stores.s3._store" not in sys.modules
