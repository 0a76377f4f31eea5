"""Copies within the server, and migrations that use them."""

from __future__ import annotations

import asyncio
import os
from urllib.parse import quote

import aiohttp
import pytest
from yarl import URL

from aioimageattach.exc import (
    InvalidKeyError,
    MigrationError,
    StoreError,
    StoreFileExistsError,
    StoreFileMismatchError,
    StoreFileNotFoundError,
    StoreUnavailableError,
)
from aioimageattach.migration import migrate
from aioimageattach.stores import MemoryStore, RoutingStore
from aioimageattach.stores.s3 import S3Client, S3Store
from tests.databases import Database
from tests.migration.models import Base, add_users, contents, counted, tables
from tests.servers.gate import Answer, Gate, Noted, changed
from tests.servers.judge import Asked, Refusal
from tests.servers.ministack import authorization
from tests.stores.s3.conftest import REGION, MakeClient, MakeStore

OTHER = "other"


@pytest.fixture
def there(gate: Gate, make_store: MakeStore) -> S3Store:
    """A store in another bucket of the same server."""
    gate.backend.create_bucket(OTHER, REGION)
    return make_store(gate.url, OTHER, prefix="new", max_age=60)


def methods_of(requests: list[Noted]) -> list[str]:
    """Return the methods of the requests for files, without records of ownership and listings."""
    return [one.asked.method for one in requests if one.asked.key and "/.aioimageattach/" not in f"/{one.asked.key}"]


def refuse_copies(gate: Gate, status: int, code: str) -> None:
    def check(asked: Asked) -> Refusal | None:
        return Refusal(status, code) if "x-amz-copy-source" in asked.headers else None

    gate.before.append(check)


async def test_the_server_copies(gate: Gate, s3_store: S3Store, there: S3Store) -> None:
    """No bytes are sent to this process, the source is unchanged, and the copy has the headers of a put."""
    await s3_store.put_object("a b/ü.jpg", b"picture", mimetype="image/png")
    with gate.noting() as requests:
        assert await there.copy_from(s3_store, "a b/ü.jpg", "copy.svg", mimetype="image/svg+xml")
    assert [(one.asked.method, one.asked.headers.get("if-none-match")) for one in requests] == [
        ("HEAD", None),
        ("PUT", "*"),
    ]
    assert await contents(there) == {"copy.svg": b"picture"}
    assert await contents(s3_store) == {"a b/ü.jpg": b"picture"}
    head = await there.client.head("copy.svg")
    assert head.content_type == "image/svg+xml"
    put = requests[-1].asked.headers
    assert put["cache-control"] == "public, max-age=60, immutable"
    assert put["content-disposition"] == "attachment"


async def test_a_name_that_is_taken_is_not_replaced(gate: Gate, s3_store: S3Store, there: S3Store) -> None:
    """An existing file is not overwritten, although many servers would do so."""
    await s3_store.put_object("a", b"new")
    await there.put_object("a", b"old")
    with pytest.raises(StoreFileExistsError):
        await there.copy_from(s3_store, "a", "a")
    assert await contents(there) == {"a": b"old"}


async def test_errors_of_copies(gate: Gate, s3_store: S3Store, there: S3Store, make_store: MakeStore) -> None:
    """Errors that reading and putting the file would cause, too, are raised."""
    with pytest.raises(StoreFileNotFoundError):
        await there.copy_from(s3_store, "a", "a")
    with pytest.raises(InvalidKeyError):
        await there.copy_from(s3_store, "../a", "a")
    await s3_store.put_object("a", b"x")
    refuse_copies(gate, 503, "SlowDown")
    hasty = make_store(gate.url, OTHER, max_retry=0)
    with pytest.raises(StoreUnavailableError):
        await hasty.copy_from(s3_store, "a", "a")


@pytest.mark.parametrize(("status", "code"), [(403, "AccessDenied"), (501, "NotImplemented"), (400, "InvalidRequest")])
async def test_copies_that_the_server_refuses(
    gate: Gate, s3_store: S3Store, there: S3Store, status: int, code: str
) -> None:
    """``copy_from`` returns ``False`` for foreign buckets, servers without copies, and very large objects."""
    await s3_store.put_object("a", b"x")
    refuse_copies(gate, status, code)
    assert not await there.copy_from(s3_store, "a", "a")
    assert await contents(there) == {}


async def test_another_server_cannot_copy(gate: Gate, s3_store: S3Store, make_store: MakeStore) -> None:
    """A store of another server or kind is rejected without a request."""
    elsewhere = make_store("http://127.0.0.1:9")
    with gate.noting() as requests:
        assert not await s3_store.copy_from(elsewhere, "a", "a")
        assert not await s3_store.copy_from(MemoryStore(), "a", "a")
        assert not await RoutingStore({}, s3_store).copy_from(MemoryStore(), "a/b", "a/b")
    assert requests == []


@pytest.mark.parametrize("deep", [False, True])
async def test_a_migration_within_one_server(
    gate: Gate, s3_store: S3Store, there: S3Store, sqlite_database: Database, deep: bool
) -> None:
    """No bytes are transferred unless they are compared, and existing files are skipped."""
    sessions = await tables(sqlite_database)
    await add_users(sessions, s3_store, [b"1", b"22", b"333"])
    plan = migrate(sessions, Base, s3_store, there, deep=deep)
    with gate.noting() as requests:
        assert counted(await plan.execute()) == {"total": 3, "done": 3, "copied": 3, "bytes": 6}
    assert methods_of(requests).count("GET") == (3 if deep else 0)
    assert await contents(there) == await contents(s3_store)
    assert counted(await plan.execute()) == {"total": 3, "done": 3, "present": 3}


async def test_a_damaged_file_that_the_server_copied(
    gate: Gate, s3_store: S3Store, there: S3Store, sqlite_database: Database
) -> None:
    """A copy that does not match its row is deleted."""
    sessions = await tables(sqlite_database)
    await add_users(sessions, s3_store, [b"right"])
    (name,) = await contents(s3_store)
    await s3_store.client.replace(name, b"wrong by size")
    plan = migrate(sessions, Base, s3_store, there)
    with pytest.raises(MigrationError) as caught:
        await plan.execute()
    assert isinstance(caught.value.exceptions[0], StoreFileMismatchError)
    assert await contents(there) == {}
    await s3_store.client.replace(name, b"WRONG")
    with pytest.raises(MigrationError):
        await migrate(sessions, Base, s3_store, there, deep=True).execute()
    assert await contents(there) == {}


async def test_a_migration_to_a_bucket(gate: Gate, s3_store: S3Store, sqlite_database: Database) -> None:
    """A migration from another kind of store sends one PUT per file, and one HEAD per file that exists."""
    sessions = await tables(sqlite_database)
    memory = MemoryStore()
    await add_users(sessions, memory, [b"%d" % number for number in range(30)])
    plan = migrate(sessions, Base, memory, s3_store, concurrency=4)
    with gate.noting() as requests:
        assert (await plan.execute()).counts["copied"] == 30
    methods = methods_of(requests)
    assert (methods.count("PUT"), methods.count("GET")) == (30, 0)
    assert methods.count("HEAD") <= 8
    with gate.noting() as requests:
        assert (await migrate(sessions, Base, memory, s3_store).execute()).counts["present"] == 30
    assert set(methods_of(requests)) == {"HEAD"}
    back = MemoryStore()
    assert (await migrate(sessions, Base, s3_store, back).execute()).counts["copied"] == 30
    assert await contents(back) == await contents(memory)


# --- in parts --------------------------------------------------------------------------------------------------------

LARGE = os.urandom(40_000)
TOO_LARGE = "The specified copy source is larger than the maximum allowable size for a copy source: 5368709120"


def refuse_whole_copies(gate: Gate, code: str = "InvalidRequest") -> None:
    """Refuse to copy an object with one request, as Amazon does for objects over 5 GiB."""

    def check(asked: Asked) -> Refusal | None:
        is_whole = "x-amz-copy-source" in asked.headers and "partNumber" not in asked.query
        return Refusal(400, code, TOO_LARGE) if is_whole else None

    gate.before.append(check)


def part_copies(requests: list[Noted]) -> list[str]:
    """Return the ranges of the parts that the server copied."""
    headers = [one.asked.headers for one in requests if "partNumber" in one.asked.query]
    assert all("x-amz-copy-source" in one for one in headers)
    return sorted(one["x-amz-copy-source-range"] for one in headers)


@pytest.fixture
async def source(gate: Gate, make_client: MakeClient) -> S3Client:
    """A client of another bucket, with an object that is too large for one request."""
    gate.backend.create_bucket(OTHER, REGION)
    refuse_whole_copies(gate)
    client = make_client(gate.url, OTHER, prefix="p/")
    await client.create(
        "a b/ü",
        LARGE,
        content_type="image/png",
        cache_control="public, max-age=5",
        content_disposition="attachment",
        metadata={"origin": "scanner"},
    )
    return client


@pytest.mark.parametrize("code", ["InvalidRequest", "EntityTooLarge"])
async def test_a_large_object_is_copied_in_parts(gate: Gate, make_client: MakeClient, code: str) -> None:
    """The server copies parts of one version of the source, no bytes are transferred, and the copy is verified."""
    gate.backend.create_bucket(OTHER, REGION)
    refuse_whole_copies(gate, code)
    client, source = make_client(gate.url, part_size=1000), make_client(gate.url, OTHER, prefix="p/")
    await source.create("a", LARGE)
    with gate.noting() as requests:
        etag = await client.copy("a", "copy", source_client=source, only_new=True, content_type="image/jpeg")
    assert part_copies(requests) == ["bytes=0-15999", "bytes=16000-31999", "bytes=32000-39999"]
    parts = [one.asked.headers for one in requests if "partNumber" in one.asked.query]
    found = await source.head("a")
    assert {one["x-amz-copy-source-if-match"] for one in parts} == {f'"{found.etag}"'}
    assert {one["x-amz-copy-source"] for one in parts} == {f"/{OTHER}/p/a"}
    assert sum(len(one.asked.body) for one in requests) < 2000
    head = await client.head("copy")
    assert (head.etag, head.size, head.content_type) == (etag, len(LARGE), "image/jpeg")
    assert await (await client.open("copy")).read() == LARGE
    with pytest.raises(StoreFileExistsError):
        await client.copy("a", "copy", source_client=source, only_new=True, content_type="image/jpeg")
    assert [upload async for upload in client.list_uploads()] == []


async def test_a_copy_in_parts_is_described_as_its_source(
    gate: Gate, source: S3Client, make_client: MakeClient
) -> None:
    """Without other headers, the copy has the description of its source, except the identifier of the put."""
    client = make_client(gate.url, part_size=1000)
    await client.copy("a b/ü", "copy", source_client=source, storage_class="STANDARD_IA")
    async with (
        aiohttp.ClientSession() as session,
        session.get(URL(client.presign("GET", "copy"), encoded=True)) as told,
    ):
        headers = told.headers
        assert await told.read() == LARGE
    names = ("Content-Type", "Cache-Control", "Content-Disposition", "x-amz-storage-class")
    assert [headers[name] for name in names] == ["image/png", "public, max-age=5", "attachment", "STANDARD_IA"]
    assert (await client.head("copy")).metadata == {"origin": "scanner"}


async def test_a_store_copies_large_files(gate: Gate, s3_store: S3Store, there: S3Store) -> None:
    """Migrations and renames within a bucket copy large files in parts."""
    refuse_whole_copies(gate)
    await s3_store.put_object("a/b.jpg", LARGE)
    with gate.noting() as requests:
        assert await there.copy_from(s3_store, "a/b.jpg", "a/b.jpg", mimetype="image/jpeg")
    assert part_copies(requests) == ["bytes=0-39999"]
    assert await there.move_objects({"a/b.jpg": "c/d.jpg"}) == {}
    assert await contents(there) == {"c/d.jpg": LARGE}


def spoil(gate: Gate, answer: Answer | None) -> None:
    """Replace the response to the copy of the second part."""

    def change(asked: Asked, given: Answer) -> Answer | None:
        return answer if asked.query.get("partNumber") == "2" else given

    gate.after.append(change)


PAGE = Answer(200, {"content-type": "text/html"}, b"<html><body>Please log in</body></html>")
LATE = Answer(200, {"content-type": "application/xml"}, Refusal(200, "AccessDenied").body)
UNNAMED = Answer(200, {"content-type": "application/xml"}, b"<CopyPartResult><ETag></ETag></CopyPartResult>")
ABSENT = Answer(501, {"content-type": "application/xml"}, Refusal(501, "NotImplemented").body)


@pytest.mark.parametrize("answer", [PAGE, LATE, UNNAMED, ABSENT, None], ids=["page", "late", "no tag", "501", "break"])
async def test_a_part_without_evidence(
    gate: Gate, source: S3Client, make_client: MakeClient, answer: Answer | None
) -> None:
    """A status of 200 is not sufficient: the upload is aborted, and there is no copy."""
    client = make_client(gate.url, part_size=1000, max_retry=0)
    spoil(gate, answer)
    with pytest.raises(StoreError, match="copy part 2 of 'copy'"):
        await client.copy("a b/ü", "copy", source_client=source, only_new=True, content_type="image/png")
    gate.after.clear()
    assert [upload async for upload in client.list_uploads()] == []
    with pytest.raises(StoreFileNotFoundError):
        await client.head("copy")


async def test_a_source_that_changes_during_the_copy(gate: Gate, source: S3Client, make_client: MakeClient) -> None:
    """There is no copy, because its parts would be of different versions, and the error states this."""
    client = make_client(gate.url, part_size=1000, parallel_parts=1)

    def change(asked: Asked) -> None:
        if asked.query.get("partNumber") == "2":
            path, headers = f"/{OTHER}/p/{quote('a b/ü')}", {"Authorization": authorization(REGION)}
            assert gate.backend.request("PUT", path, os.urandom(40_000), headers) == 200

    gate.before.append(change)
    with pytest.raises(StoreError, match="source was replaced while it was copied") as caught:
        await client.copy("a b/ü", "copy", source_client=source, only_new=True, content_type="image/png")
    assert not isinstance(caught.value, StoreFileExistsError)
    assert [upload async for upload in client.list_uploads()] == []
    with pytest.raises(StoreFileNotFoundError):
        await client.head("copy")


@pytest.mark.parametrize("size", ["39999", None])
async def test_a_copy_of_another_size(gate: Gate, source: S3Client, make_client: MakeClient, size: str | None) -> None:
    """A copy whose size differs from the source, or that is missing, is an error in spite of the response."""
    client = make_client(gate.url, part_size=1000)
    completed: list[Asked] = []

    def change(asked: Asked, answer: Answer) -> Answer:
        if "uploadId" in asked.query and asked.method == "POST":
            completed.append(asked)
        if asked.method != "HEAD" or not completed or OTHER in asked.target:
            return answer
        if size is None:
            return Answer(404, {})
        return changed(answer, headers={**answer.headers, "content-length": size})

    gate.after.append(change)
    with pytest.raises(StoreError, match=r"expected an object of 40,000 bytes, found (none|one of 39,999)"):
        await client.copy("a b/ü", "copy", source_client=source, only_new=True, content_type="image/png")
    gate.after.clear()
    if size is not None:
        with pytest.raises(StoreFileNotFoundError):
            await client.head("copy")


async def test_a_copy_in_parts_that_is_cancelled(gate: Gate, source: S3Client, make_client: MakeClient) -> None:
    """The call ends soon, and leaves neither parts nor a copy."""
    client = make_client(gate.url, part_size=1000)
    reached = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def wait(asked: Asked, answer: Answer) -> Answer:
        if "partNumber" in asked.query:
            loop.call_soon_threadsafe(reached.set)
            await asyncio.sleep(0.2)
        return answer

    gate.after.append(wait)
    copying = client.copy("a b/ü", "copy", source_client=source, only_new=True, content_type="image/png")
    task = asyncio.create_task(copying)
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [upload async for upload in client.list_uploads()] == []
    with pytest.raises(StoreFileNotFoundError):
        await client.head("copy")
