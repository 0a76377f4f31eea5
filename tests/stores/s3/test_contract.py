"""The conformance suite with S3-compatible servers of other projects."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from aioimageattach.exc import StoreFileExistsError
from aioimageattach.stores.s3 import S3Store
from aioimageattach.testing import StoreContract
from tests.databases import REQUIRED
from tests.servers.gate import ACCESS_KEY, SECRET_KEY
from tests.servers.others import BUCKET, REGION, SERVERS, OtherServer


@pytest.fixture(scope="session", params=SERVERS)
def other_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OtherServer]:
    """Each server of this run."""
    try:
        server = SERVERS[request.param](tmp_path_factory.mktemp(request.param))
    except FileNotFoundError as error:
        if REQUIRED:
            raise
        pytest.skip(str(error))
    yield server
    server.close()


def options_of(server: OtherServer) -> dict[str, Any]:
    """Return the options that the guide names for a server."""
    return {"create_only": "head"} if server.program == "rclone" else {}


@pytest.fixture
async def other_store(other_server: OtherServer) -> AsyncIterator[S3Store]:
    """A store in an empty bucket."""
    await other_server.create_bucket()
    sizes = {"multipart_threshold": 5 * 2**20, "part_size": 5 * 2**20}
    options = {"endpoint_url": other_server.url, "region": REGION, **sizes, **options_of(other_server)}
    async with S3Store(BUCKET, ACCESS_KEY, SECRET_KEY, **options) as store:
        yield store
        await store.delete_objects([found.name async for found in store.list_objects()])


class TestOtherServers(StoreContract):
    """The store passes the conformance suite with the options in the guide."""

    @pytest.fixture
    async def store(self, other_store: S3Store) -> S3Store:
        return other_store

    @pytest.fixture(autouse=True)
    def _known_gaps(self, request: pytest.FixtureRequest, other_server: OtherServer) -> None:
        name = request.node.originalname
        if other_server.program == "rclone" and name == "test_one_of_many_puts_of_a_name_wins":
            pytest.skip("rclone cannot refuse a name, so of several puts at the same time each may win")


async def test_an_upload_in_parts(other_store: S3Store) -> None:
    """A multipart upload can be read, is rejected for a taken name, and leaves no unfinished upload."""
    blob = bytes(range(256)) * 50_000
    await other_store.put_object("large", blob, mimetype="image/png")
    async with await other_store.get_object("large") as file:
        assert await file.read() == blob
    async with await other_store.get_object("large", start=6_000_000, end=6_000_010) as file:
        assert await file.read() == blob[6_000_000:6_000_010]
    with pytest.raises(StoreFileExistsError):
        await other_store.put_object("large", blob)
    assert [upload async for upload in other_store.client.list_uploads()] == []


async def test_a_copy_within_the_server(other_store: S3Store) -> None:
    """A copy has the headers of a put, and is rejected for a taken name."""
    await other_store.put_object("a", b"x", mimetype="image/png")
    assert await other_store.copy_from(other_store, "a", "b", mimetype="image/gif")
    assert (await other_store.client.head("b")).content_type == "image/gif"
    with pytest.raises(StoreFileExistsError):
        await other_store.copy_from(other_store, "a", "b", mimetype="image/gif")
