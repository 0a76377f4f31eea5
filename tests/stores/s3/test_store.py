"""``S3Store``."""

from __future__ import annotations

import asyncio
import copy
import pickle
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from yarl import URL

from aioimageattach.exc import InvalidKeyError, StoreError, StorePermissionError
from aioimageattach.key import ImageKey, make_revision
from aioimageattach.stores.s3 import BASE_URL_FORMAT, DEFAULT_MAX_AGE, Credentials, S3Client, S3Store
from aioimageattach.testing import StoreContract
from tests.servers.gate import ACCESS_KEY, SECRET_KEY, Gate
from tests.servers.judge import Key, Refusal
from tests.stores.s3.conftest import BUCKET, REGION, MakeStore


class TestS3Store(StoreContract):
    @pytest.fixture
    def store(self, s3_store: S3Store) -> S3Store:
        return s3_store


async def put(store: S3Store, mimetype: str = "image/jpeg", *, reproducible: bool = False) -> ImageKey:
    key = ImageKey("user", 1, 30, 20, mimetype, store.make_revision())
    await store.put(key, b"this", reproducible=reproducible)
    return key


async def fetch(url: str) -> tuple[int, bytes, Mapping[str, str]]:
    async with aiohttp.ClientSession() as session, session.get(URL(url, encoded=True)) as answer:
        return answer.status, await answer.read(), answer.headers


AWS = {"access_key": "key", "secret_key": "secret"}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "https://pictures.s3.amazonaws.com/a/b%20c%2B~"),
        ({"prefix": "x y"}, "https://pictures.s3.amazonaws.com/x%20y/a/b%20c%2B~"),
        ({"region": "eu-south-1"}, "https://pictures.s3.eu-south-1.amazonaws.com/a/b%20c%2B~"),
        ({"region": "cn-north-1"}, "https://pictures.s3.cn-north-1.amazonaws.com.cn/a/b%20c%2B~"),
        ({"region": "us-gov-west-1"}, "https://pictures.s3.us-gov-west-1.amazonaws.com/a/b%20c%2B~"),
        (
            {"region": "eu-west-1", "dual_stack": True},
            "https://pictures.s3.dualstack.eu-west-1.amazonaws.com/a/b%20c%2B~",
        ),
        (
            {"region": "eu-west-1", "bucket": "Upper_Case"},
            "https://s3.eu-west-1.amazonaws.com/Upper_Case/a/b%20c%2B~",
        ),
        ({"prefix": "/x/"}, "https://pictures.s3.amazonaws.com/x/a/b%20c%2B~"),
        (
            {"bucket": "my.pictures", "region": "eu-west-1"},
            "https://s3.eu-west-1.amazonaws.com/my.pictures/a/b%20c%2B~",
        ),
        ({"public_base_url": "https://cdn.example.com/"}, "https://cdn.example.com/a/b%20c%2B~"),
        ({"public_base_url": "https://cdn.example.com/i", "prefix": "x"}, "https://cdn.example.com/i/x/a/b%20c%2B~"),
        ({"endpoint_url": "http://127.0.0.1:9000"}, "http://127.0.0.1:9000/pictures/a/b%20c%2B~"),
    ],
)
def test_plain_urls(options: dict[str, Any], expected: str) -> None:
    """Unsigned URLs are those of the bucket or the server, or start with the public base URL."""
    assert S3Store(**{"bucket": "pictures", **AWS, **options}).url_of("a/b c+~") == expected


def test_the_arguments_of_the_predecessor() -> None:
    """The arguments have the same order and defaults, and are kept as attributes."""
    store = S3Store("pictures", "key", "secret", 60, "pre", "https://cdn.example.com", "eu-west-1", 2)
    assert (store.bucket, store.max_age, store.prefix) == ("pictures", 60, "pre")
    assert (store.public_base_url, store.region, store.max_retry) == ("https://cdn.example.com", "eu-west-1", 2)
    assert S3Store("pictures", "key", "secret").max_age == DEFAULT_MAX_AGE == 31536000
    assert S3Store("pictures", "key", "secret").max_retry == 5
    assert BASE_URL_FORMAT == "https://{0}.s3.amazonaws.com"
    assert repr(store) == "<S3Store 'pictures' under 'pre'>"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"access_key": "key"}, "access_key and secret_key"),
        ({"credentials": Credentials("a", "b"), **AWS}, "credentials: expected None with"),
        ({"url_expires_in": 60, "public_base_url": "https://x", **AWS}, "public_base_url"),
        ({"url_window": 60, **AWS}, "url_window"),
        ({"url_expires_in": 0, **AWS}, "url_expires_in"),
        ({"max_age": -1, **AWS}, "max_age"),
        ({"prefix": "a/../b", **AWS}, "segment"),
        ({"bucket": "a/b", **AWS}, "bucket"),
        ({"public_base_url": "cdn.example.com", **AWS}, "public_base_url: expected"),
        ({"public_base_url": "https://cdn.example.com/?x=1", **AWS}, "public_base_url: expected"),
        ({"public_base_url": "https://", **AWS}, "public_base_url: expected"),
        ({"public_base_url": "https://cdn.example.com/a b", **AWS}, "public_base_url: expected"),
        ({"public_base_url": "https://cdn.example.com:port", **AWS}, "public_base_url: expected"),
        ({"public_base_url": "https://cdn.example.com/#a", **AWS}, "public_base_url: expected"),
        ({"public_base_url": "https://cdn.example.com/\r\nX: y", **AWS}, "public_base_url: expected"),
        ({"public_base_url": "https://user:canary@cdn.example.com", **AWS}, "got 'cdn.example.com'"),
        ({"secret_key": "secret"}, "access_key and secret_key"),
        ({"token": "token"}, "access_key and secret_key"),
    ],
    ids=str,
)
def test_incompatible_arguments(options: dict[str, Any], message: str) -> None:
    """Incompatible arguments are rejected, and the error names them."""
    with pytest.raises(ValueError, match=message):
        S3Store(**{"bucket": "pictures", **options})


async def test_legacy_files(s3_store: S3Store) -> None:
    """Keys without a revision have the names of SQLAlchemy-ImageAttach, below the prefix."""
    await s3_store.put(ImageKey("user", 7, 30, 20, "image/jpeg"), b"old", reproducible=False)
    await s3_store.put(ImageKey("user", 7, 30, 20, "image/webp"), b"odd", reproducible=False)
    assert [found.name async for found in s3_store.list_objects()] == ["user/7/30x20.jpe", "user/7/30x20None"]
    async with await s3_store.get_file("user", 7, 30, 20, "image/jpeg") as file:
        assert await file.read() == b"old"
    with pytest.raises(InvalidKeyError, match="object_id"):
        s3_store.name_of(ImageKey("user", None, 30, 20, "image/jpeg"))


async def test_headers_of_files(gate: Gate, make_store: MakeStore) -> None:
    """Images can be cached for a year, active content is downloaded, and private files are not shared."""
    store = make_store(gate.url, url_expires_in=60)
    for mimetype, disposition in (("image/png", None), ("image/svg+xml", "attachment"), ("text/html", "attachment")):
        key = await put(store, mimetype)
        status, body, headers = await fetch(store.url_of(store.name_of(key)))
        assert (status, body, headers["Content-Type"]) == (200, b"this", mimetype)
        assert headers.get("Content-Disposition") == disposition
        assert headers["Cache-Control"] == "private, max-age=31536000, immutable"
    for max_age, expected in ((60, "public, max-age=60, immutable"), (None, None)):
        await put(make_store(gate.url, max_age=max_age))
        assert gate.log[-1].asked.headers.get("cache-control") == expected
    with pytest.raises(InvalidKeyError):
        await store.put_object("a", b"x", mimetype="image/png\r\nX: 1")


async def test_storage_classes(gate: Gate, make_store: MakeStore) -> None:
    """Reproducible files can have another storage class; without an option, none is sent."""

    async def classes(**options: Any) -> list[str | None]:
        store = make_store(gate.url, **options)
        with gate.noting() as requests:
            await put(store)
            await put(store, reproducible=True)
        return [request.asked.headers.get("x-amz-storage-class") for request in requests]

    assert await classes() == [None, None]
    assert await classes(storage_class="STANDARD_IA") == ["STANDARD_IA", "STANDARD_IA"]
    assert await classes(reproducible_storage_class="REDUCED_REDUNDANCY") == [None, "REDUCED_REDUNDANCY"]
    assert await classes(storage_class="STANDARD", reproducible_storage_class="ONEZONE_IA") == [
        "STANDARD",
        "ONEZONE_IA",
    ]


async def test_private_files(gate: Gate, make_store: MakeStore) -> None:
    """Signed URLs stay the same for a while and expire, and unsigned requests are rejected."""
    store = make_store(gate.url, url_expires_in=60)
    key = await put(store)
    name = store.name_of(key)
    assert (await fetch(store.client.url(name)))[0] == 403
    url = store.url_of(name)
    assert (await fetch(url))[:2] == (200, b"this")
    row = SimpleNamespace(key=key, reproducible=False, created_at=datetime(2020, 1, 2, tzinfo=UTC))
    assert "_ts" not in store.locate(row)
    old = SimpleNamespace(
        key=ImageKey("user", 7, 30, 20, "image/jpeg"), reproducible=False, created_at=datetime(2020, 1, 2, tzinfo=UTC)
    )
    await store.put(old.key, b"old", reproducible=False)
    assert (await fetch(store.locate(old)))[:2] == (200, b"old")
    changing = {make_store(gate.url, url_expires_in=60, url_window=0).url_of(name)}
    await asyncio.sleep(1.1)
    changing.add(make_store(gate.url, url_expires_in=60, url_window=0).url_of(name))
    assert len(changing) == 2
    gate.ahead = timedelta(minutes=3)
    assert (await fetch(url))[0] == 403


async def test_urls_of_public_legacy_files_have_a_timestamp(s3_store: S3Store) -> None:
    """The URLs have ``_ts``, as in SQLAlchemy-ImageAttach, so that caches do not return old files."""
    old = SimpleNamespace(
        key=ImageKey("user", 7, 30, 20, "image/jpeg"), reproducible=False, created_at=datetime(2020, 1, 2, tzinfo=UTC)
    )
    assert s3_store.locate(old).endswith("/user/7/30x20.jpe?_ts=20200102000000000000")


async def test_listings_contain_only_files_of_stores(gate: Gate, make_store: MakeStore) -> None:
    """Listings leave out empty folders, invalid names, and everything outside of the prefix."""
    store = make_store(gate.url, prefix="p")
    for key in ("p/", "p/folder/", "p//x", "q/a", "pa"):
        async with S3Client(
            BUCKET, Credentials(ACCESS_KEY, SECRET_KEY), region=REGION, endpoint_url=gate.url
        ) as client:
            await client.create(key, b"x")
    await store.put_object("a", b"x")
    assert [found.name async for found in store.list_objects()] == ["a"]


async def test_custom_credentials(gate: Gate, make_store: MakeStore) -> None:
    """A callable is called when credentials are needed, and temporary credentials are sent with their token."""

    async def provide() -> Credentials:
        return Credentials(ACCESS_KEY, SECRET_KEY)

    async with make_store(gate.url, credentials=provide, url_expires_in=60) as store:
        with pytest.raises(StoreError, match="connect"):
            store.url_of("a")
        await store.connect()
        assert (await fetch(store.url_of("a")))[0] == 404
    gate.judge.keys["ASIA"] = Key("secret", "token")
    await put(make_store(gate.url, access_key="ASIA", secret_key="secret", token="token"))


async def test_uploads_of_killed_processes(gate: Gate, make_store: MakeStore) -> None:
    """Old uploads are aborted, but not young ones, which may be in progress, and not those of other programs."""
    store = make_store(gate.url, multipart_threshold=1, prefix="p")
    gate.before.append(lambda asked: Refusal(403, "AccessDenied") if "uploadId" in asked.target else None)
    for n in range(3):
        with pytest.raises(StorePermissionError):
            await store.put_object(ImageKey(f"kind-{n}", None, 1, 1, "image/png", make_revision()).file_name(), b"x")
        with pytest.raises(StorePermissionError):
            await store.put_object(f"backup/{n}", b"x")
    gate.before.clear()
    assert await store.abort_uploads() == 0
    assert await store.discard_unfinished(datetime.now(UTC) - timedelta(hours=1)) == 0
    assert len([one async for one in store.client.list_uploads()]) == 6
    assert await store.discard_unfinished(datetime.now(UTC) + timedelta(minutes=1), "kind-1/") == 1
    assert await store.abort_uploads(timedelta(seconds=-60)) == 2
    assert [one.key async for one in store.client.list_uploads()] == ["backup/0", "backup/1", "backup/2"]


def test_importing_loads_no_botocore() -> None:
    """botocore, which is slow to import, is loaded only to find credentials."""
    code = (
        "import sys, aioimageattach.stores.s3 as s3; s3.S3Store, s3.S3SandboxStore\n"
        "print([name for name in ('botocore', 'boto3', 'aiobotocore') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


async def test_downloads_under_a_file_name(gate: Gate, make_store: MakeStore) -> None:
    """The server sends the signed file name in a header, and rejects another name."""
    store = make_store(gate.url, url_expires_in=600)
    key = await put(store)
    url = store.download_url_for(key, "Кот 1.jpg")
    status, body, headers = await fetch(url)
    assert (status, body) == (200, b"this")
    assert headers["Content-Disposition"] == (
        "attachment; filename=\"___ 1.jpg\"; filename*=UTF-8''%D0%9A%D0%BE%D1%82%201.jpg"
    )
    assert store.download_url_for(key, "Кот 1.jpg") == url
    assert (await fetch(url.replace("1.jpg", "2.jpg")))[0] == 403
    assert "Content-Disposition" not in (await fetch(store.url_for(key)))[2]


async def test_files_of_very_many_types(gate: Gate, make_store: MakeStore) -> None:
    """Each file has its own type, regardless of the number of different types."""
    store = make_store(gate.url)
    types = [f"image/x-{number}" for number in range(70)]
    for mimetype in types * 2:
        await store.put_object(f"a/{store.make_revision()}", b"x", mimetype=mimetype)
    assert [one.asked.headers["content-type"] for one in gate.log] == types * 2


async def test_copies_share_the_connections(gate: Gate, s3_store: S3Store) -> None:
    """A copy, as dataclasses.asdict() makes one, works and is closed with the store; nothing is pickled."""
    for number, twin in enumerate((copy.copy(s3_store), copy.deepcopy(s3_store))):
        await twin.put_object(f"{number}", b"x")
        assert twin.client is s3_store.client is copy.copy(s3_store.client)
    assert len([found async for found in s3_store.list_objects()]) == 2
    with pytest.raises(
        TypeError, match=r"<S3 bucket .*> cannot be pickled, because it has connections and credentials"
    ):
        pickle.dumps(s3_store)
