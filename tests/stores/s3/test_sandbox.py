"""``S3SandboxStore``, which never writes to the production bucket."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from aioimageattach.exc import StoreFileNotFoundError
from aioimageattach.key import ImageKey
from aioimageattach.stores.s3 import S3SandboxStore, S3Store
from aioimageattach.testing import StoreContract
from tests.servers.gate import ACCESS_KEY, SECRET_KEY, Gate
from tests.servers.judge import Asked, Refusal
from tests.stores.s3.conftest import BUCKET, REGION, MakeStore

OWN = "sandbox"


@pytest.fixture
def production(gate: Gate, make_store: MakeStore) -> S3Store:
    """The store below the sandbox."""
    return make_store(gate.url)


@pytest.fixture
def sandbox(gate: Gate, make_store: MakeStore) -> S3SandboxStore:
    """A sandbox whose credentials may write only to the bucket above."""
    gate.backend.create_bucket(OWN, REGION)
    return S3SandboxStore(make_store(gate.url), make_store(gate.url, OWN))


@pytest.fixture
def read_only(gate: Gate, production: S3Store) -> Iterator[None]:
    """Make the bucket below reject writes, and fail the test if there were any."""
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


async def test_both_buckets_are_listed_as_one(gate: Gate, production: S3Store, sandbox: S3SandboxStore) -> None:
    """The pages of both listings are merged in order, and files deleted in the sandbox are hidden."""
    below = [f"b/{number:02}" for number in range(0, 20, 2)]
    for name in (*below, "a"):
        await production.put_object(name, b"below")
    for name in ("b/01", "b/11", "c"):
        await sandbox.put_object(name, b"above")
    assert await sandbox.delete_objects([*below[3:8], "missing", "c"]) == {}
    await sandbox.put_object("b/08", b"above, again")
    gate.page = 2
    listed = ["a", "b/00", "b/01", "b/02", "b/04", "b/08", "b/11", "b/16", "b/18"]
    assert await names(sandbox) == listed
    assert await names(sandbox, "b/", "b/04") == listed[5:]
    assert await names(sandbox, "b/1") == listed[6:]
    assert [found.size async for found in sandbox.list_objects("b/08")] == [12]
    with gate.noting() as requests:
        listing = sandbox.list_objects("b/")
        assert (await anext(listing)).name == "b/00"
        await listing.aclose()  # type: ignore[attr-defined]
    assert len(requests) == 3
    assert await names(production) == ["a", *below]


async def test_reads_fall_through(gate: Gate, production: S3Store, sandbox: S3SandboxStore) -> None:
    """A read sends three requests: to the bucket above, for the mark there, and to the bucket below."""
    await production.put_object("a", b"production")
    with gate.noting() as requests:
        assert await read(sandbox, "a") == b"production"
        assert (await sandbox.head_object("a")).size == 10
    asked = [f"{one.asked.method} {one.asked.path} {one.status}" for one in requests]
    assert asked == [
        f"GET /{OWN}/a 404",
        f"HEAD /{OWN}/.deleted-below/a 404",
        f"GET /{BUCKET}/a 200",
        f"HEAD /{OWN}/a 404",
        f"HEAD /{OWN}/.deleted-below/a 404",
        f"HEAD /{BUCKET}/a 200",
    ]


async def test_the_mimetype_of_a_mark(production: S3Store, sandbox: S3SandboxStore) -> None:
    """A mark is an empty object with a special MIME type, and the file below is unchanged."""
    await production.put_object("a/b", b"production")
    await sandbox.delete_object("a/b")
    with pytest.raises(StoreFileNotFoundError):
        await sandbox.get_object("a/b")
    mark = await sandbox.overriding.client.head(".deleted-below/a/b")
    assert (mark.size, mark.content_type) == (0, S3SandboxStore.DELETED_MARK_MIMETYPE)
    assert mark.content_type == "application/x-sqlalchemy-imageattach-sandbox-deleted"
    assert await read(production, "a/b") == b"production"


async def test_the_revision_determines_the_bucket(gate: Gate, production: S3Store, sandbox: S3SandboxStore) -> None:
    """URLs are calculated without a request: new revisions belong to the bucket above, all others to the one below."""
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
    """Bucket names become stores with the common arguments, each with its own prefix and region."""
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
    """A sandbox over the same bucket is rejected, because it would write to production."""
    with pytest.raises(ValueError, match="another bucket or prefix"):
        S3SandboxStore("same-bucket", "same-bucket", "key", "secret")
