"""The sandbox over a bucket that may only be read."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from aioimageattach.exc import StoreFileExistsError, StoreFileNotFoundError, StorePermissionError
from aioimageattach.key import ImageKey
from aioimageattach.stores.s3 import S3SandboxStore, S3Store
from aioimageattach.testing import StoreContract
from tests.servers.gate import ACCESS_KEY, SECRET_KEY, Gate
from tests.servers.judge import Asked, Refusal
from tests.stores.s3.conftest import BUCKET, REGION, MakeStore

OWN = "sandbox"


@pytest.fixture
def production(gate: Gate, make_store: MakeStore) -> S3Store:
    """The store that the sandbox is over."""
    return make_store(gate.url)


@pytest.fixture
def sandbox(gate: Gate, make_store: MakeStore) -> S3SandboxStore:
    """The sandbox; its keys may write to the bucket above alone."""
    gate.backend.create_bucket(OWN, REGION)
    return S3SandboxStore(make_store(gate.url), make_store(gate.url, OWN))


@pytest.fixture
def read_only(gate: Gate, production: S3Store) -> Iterator[None]:
    """Let the bucket below refuse to be written to, and fail if somebody tried."""
    refused = []

    def check(asked: Asked) -> Refusal | None:
        if asked.path.startswith(f"/{BUCKET}") and asked.method not in ("GET", "HEAD"):
            refused.append(asked)
            return Refusal(403, "AccessDenied")
        return None

    gate.before.append(check)
    yield
    assert not refused


class TestS3SandboxStore(StoreContract):
    @pytest.fixture
    def store(self, sandbox: S3SandboxStore, read_only: None) -> S3SandboxStore:
        return sandbox


async def read(store: S3Store | S3SandboxStore, name: str) -> bytes:
    async with await store.get_object(name) as file:
        return await file.read()


async def names(store: S3Store | S3SandboxStore, prefix: str = "", start_after: str = "") -> list[str]:
    return [found.name async for found in store.list_objects(prefix, start_after=start_after)]


async def test_files_below_are_seen(production: S3Store, sandbox: S3SandboxStore) -> None:
    """They can be read, whole and in part, told and listed among those above, in order."""
    for name in ("b/1", "b/3", "b/5"):
        await production.put_object(name, name.encode())
    for name in ("b/0", "b/2", "b/4", "c"):
        await sandbox.put_object(name, name.encode())
    assert await read(sandbox, "b/3") == b"b/3"
    async with await sandbox.get_object("b/3", start=1, end=2) as file:
        assert await file.read() == b"/"
    assert await sandbox.head_object("b/3") == await production.head_object("b/3")
    assert await names(sandbox) == ["b/0", "b/1", "b/2", "b/3", "b/4", "b/5", "c"]
    assert await names(sandbox, "b/", "b/2") == ["b/3", "b/4", "b/5"]
    assert await names(production) == ["b/1", "b/3", "b/5"]


async def test_a_deleted_file_is_gone_here_and_stands_below(
    gate: Gate, production: S3Store, sandbox: S3SandboxStore
) -> None:
    """It is missing for every method of the sandbox, whose mark has the type that says so."""
    for name in ("a", "b", "c"):
        await production.put_object(name, b"production")
    await sandbox.put_object("empty", b"")
    await sandbox.delete_object("b")
    assert await sandbox.delete_objects(["b", "missing", "c", "../x"]) != {}
    for call in (sandbox.get_object("b"), sandbox.get_object("b", start=3), sandbox.head_object("b")):
        with pytest.raises(StoreFileNotFoundError):
            await call
    assert await names(sandbox) == ["a", "empty"]
    assert await names(production) == ["a", "b", "c"]
    assert await read(production, "b") == b"production"
    mark = await sandbox.overriding.client.head(".deleted-below/b")
    assert (mark.size, mark.content_type) == (0, S3SandboxStore.DELETED_MARK_MIMETYPE)
    assert mark.content_type == "application/x-sqlalchemy-imageattach-sandbox-deleted"


async def test_a_name_below_is_taken_until_it_is_deleted(production: S3Store, sandbox: S3SandboxStore) -> None:
    """A put over a file below is refused; over a mark it is done, and a later deletion hides the file below again."""
    await production.put_object("a", b"production")
    with pytest.raises(StoreFileExistsError):
        await sandbox.put_object("a", b"mine")
    await sandbox.delete_object("a")
    await sandbox.put_object("a", b"mine", mimetype="image/png")
    assert await read(sandbox, "a") == b"mine"
    assert (await sandbox.head_object("a")).size == 4
    with pytest.raises(StoreFileExistsError):
        await sandbox.put_object("a", b"again")
    await sandbox.delete_object("a")
    assert await names(sandbox) == []
    assert await read(production, "a") == b"production"


async def test_the_revision_says_where_a_file_is(gate: Gate, production: S3Store, sandbox: S3SandboxStore) -> None:
    """URLs are calculated: what is uploaded here is above, everything else below, and nobody is asked."""
    below = ImageKey("user", 1, 30, 20, "image/png", production.make_revision())
    above = ImageKey("user", 1, 30, 20, "image/png", sandbox.make_revision())
    old = ImageKey("user", 1, 30, 20, "image/jpeg")
    await production.put(below, b"below", reproducible=False)
    with gate.noting() as requests:
        await sandbox.put(above, b"above", reproducible=False)
        async with await sandbox.get_file("user", 1, 30, 20, "image/png", revision=above.revision) as file:
            assert await file.read() == b"above"
        assert await sandbox.head_object(sandbox.name_of(above))
        await sandbox.discard(above)
        urls = [sandbox.url_of(sandbox.name_of(key)) for key in (below, above, old)]
    assert [request.asked.method for request in requests] == ["PUT", "GET", "HEAD", "DELETE"]
    assert urls == [
        f"{gate.url}/{BUCKET}/{production.name_of(below)}",
        f"{gate.url}/{OWN}/{sandbox.name_of(above)}",
        f"{gate.url}/{BUCKET}/user/1/30x20.jpe",
    ]


async def test_buckets_by_name(gate: Gate, make_store: MakeStore) -> None:
    """Names make stores of the common arguments, each with its own prefix and region."""
    async with S3SandboxStore(
        BUCKET,
        BUCKET,
        ACCESS_KEY,
        SECRET_KEY,
        60,
        "live",
        "test",
        REGION,
        REGION,
        2,
        endpoint_url=gate.url,
        url_expires_in=60,
    ) as sandbox:
        await make_store(gate.url, prefix="live").put_object("a", b"live")
        await sandbox.connect()
        assert await read(sandbox, "a") == b"live"
        await sandbox.put_object("b", b"test")
        assert await names(sandbox) == ["a", "b"]
        assert (sandbox.underlying.prefix, sandbox.overriding.prefix) == ("live", "test")
        assert sandbox.overriding.max_age == 60
        assert sandbox.overriding.max_retry == 2
        assert sandbox.has_signed_urls
        assert repr(sandbox) == (
            "<S3SandboxStore <S3Store 'pictures' under 'test'> over <S3Store 'pictures' under 'live'>>"
        )


def test_one_bucket_cannot_be_both() -> None:
    """A sandbox over itself would write to production."""
    with pytest.raises(ValueError, match="another bucket or prefix"):
        S3SandboxStore("same-bucket", "same-bucket", "key", "secret")


async def test_what_cannot_be_deleted_is_told(gate: Gate, production: S3Store, sandbox: S3SandboxStore) -> None:
    """An error of one file does not hinder the others."""
    await production.put_object("a", b"production")
    await production.put_object("b", b"production")
    gate.before.append(
        lambda asked: Refusal(403, "AccessDenied") if asked.method == "PUT" and asked.key.endswith("/a") else None
    )
    failed = await sandbox.delete_objects(["a", "b"])
    assert list(failed) == ["a"]
    assert isinstance(failed["a"], StorePermissionError)
    assert await names(sandbox) == ["a"]


def test_stamps(sandbox: S3SandboxStore) -> None:
    """Rows of the old library get a stamp in their URLs, as everywhere."""

    class Row:
        key = ImageKey("user", 1, 30, 20, "image/jpeg")
        reproducible = False
        created_at = datetime(2020, 1, 2, tzinfo=UTC)

    assert sandbox.locate(Row()).endswith("/user/1/30x20.jpe?_ts=20200102000000000000")
