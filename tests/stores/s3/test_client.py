"""``S3Client`` with a real server, behind a gateway that checks each request."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import aiohttp
import pytest
from yarl import URL

from aioimageattach.exc import (
    InvalidKeyError,
    StoreError,
    StoreFileExistsError,
    StoreFileNotFoundError,
    StorePermissionError,
)
from aioimageattach.stores.s3 import AuthMechanismError, Credentials, Encryption, S3Client
from aioimageattach.stores.s3._http.transport import KEEP_ALIVE
from aioimageattach.version import VERSION
from tests.servers.gate import ACCESS_KEY, SECRET_KEY, Gate
from tests.servers.judge import Key, Refusal
from tests.stores.s3.conftest import BUCKET, REGION, Certificate, MakeClient

AWKWARD = [
    "a//b",
    "//a",
    "/leading",
    "trailing/",
    "a b",
    " a ",
    "a+b",
    "100%",
    "a%2Fb",
    "a%20b",
    "#1",
    "what?x=1",
    "~home",
    "x=1&y=2",
    "...",
    "a:b@c;d,e$f!",
    "[a]{b}|<c>^`\"'\\",
    "über/straße",
    "e\u0301/é",
    "日本/画像.png",
    "🖼️.jpg",
    "x/" * 511 + "xy",
]
BLOB = bytes(range(256)) * 400


async def read(client: S3Client, name: str, **options: Any) -> bytes:
    async with await client.open(name, **options) as file:
        return await file.read()


async def listed(client: S3Client, prefix: str = "", **options: Any) -> list[str]:
    return [found.key async for found in client.list(prefix, **options)]


async def fetch(url: str, method: str = "GET", **options: Any) -> tuple[int, bytes, Any]:
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, URL(url, encoded=True), **options) as answer,
    ):
        return answer.status, await answer.read(), answer.headers


@pytest.mark.parametrize("key", AWKWARD, ids=ascii)
async def test_awkward_keys(client: S3Client, key: str) -> None:
    """Unusual keys are put, read, inspected, listed, copied, signed in URLs and deleted unchanged."""
    await client.create(key, b"this")
    await client.create(f"{key[:1000]}-other", b"other")
    assert await read(client, key) == b"this"
    assert (await client.head(key)).size == 4
    assert key in await listed(client)
    assert await listed(client, key[:5], start_after=f"{key}") == [
        name for name in await listed(client, key[:5]) if name > key
    ]
    assert (await fetch(client.presign("GET", key)))[:2] == (200, b"this")
    await client.copy(key, "copy")
    assert await read(client, "copy") == b"this"
    assert await client.delete_many([key, "copy"]) == {}
    assert await listed(client) == [f"{key[:1000]}-other"]
    await client.delete(f"{key[:1000]}-other")
    assert await listed(client) == []


@pytest.mark.parametrize("key", ["", ".", "..", "a/..", "./a", "a/../b", "é" * 513, "\ud800", 7], ids=ascii)
async def test_keys_that_are_refused(gate: Gate, client: S3Client, key: Any) -> None:
    """Invalid keys are rejected before any request."""
    calls: list[Callable[[], Any]] = [
        lambda: client.create(key, b""),
        lambda: client.replace(key, b""),
        lambda: client.open(key),
        lambda: client.head(key),
        lambda: client.delete(key),
        lambda: client.copy("a", key),
        lambda: client.copy(key, "a"),
        lambda: client.abort_upload(key, "x"),
    ]
    for call in calls:
        with pytest.raises(InvalidKeyError):
            await call()
    with pytest.raises(InvalidKeyError):
        client.url(key)
    with pytest.raises(InvalidKeyError):
        client.presign("GET", key)
    assert isinstance((await client.delete_many([key]))[key], InvalidKeyError)
    assert gate.log == []


async def test_control_characters_can_be_deleted(gate: Gate, client: S3Client) -> None:
    """A key that XML cannot represent is deleted with a separate request, and only an invalid one is refused."""
    names = ["a\x01b", "a\r\nb", "plain"]
    for name in names:
        await client.create(name, b"x")
    with gate.noting() as requests:
        failed = await client.delete_many([*names, "..", "plain"])
    assert [(name, type(error)) for name, error in failed.items()] == [("..", InvalidKeyError)]
    assert sorted(request.asked.method for request in requests) == ["DELETE", "POST"]
    assert await listed(client) == []


async def test_the_description_of_an_object(client: S3Client) -> None:
    """Type, caching, disposition and metadata are stored with the object."""
    etag = await client.create(
        "a",
        BLOB,
        content_type="image/png",
        cache_control="max-age=60",
        content_disposition='attachment; filename="a.png"',
        metadata={"color": "blue"},
        storage_class="STANDARD_IA",
    )
    head = await client.head("a")
    assert (head.size, head.etag, head.content_type) == (len(BLOB), etag, "image/png")
    assert head.metadata["color"] == "blue"
    assert abs(head.modified_at - datetime.now(UTC)) < timedelta(minutes=1)
    _, _, headers = await fetch(client.presign("GET", "a"))
    assert headers["Cache-Control"] == "max-age=60"
    assert headers["Content-Disposition"] == 'attachment; filename="a.png"'
    assert headers["x-amz-storage-class"] == "STANDARD_IA"
    async with await client.open("a", start=10, end=20) as file:
        assert (file.size, file.head.content_type, file.head.etag) == (10, "image/png", etag)


async def test_no_optional_headers_by_default(gate: Gate, client: S3Client) -> None:
    """By default, no ACL, storage class, encryption or checksum is sent, and the body is sent in one piece."""
    await client.create("a", BLOB)
    (put,) = gate.log
    amz = {name for name in put.asked.headers if name.startswith("x-amz-")}
    assert amz == {"x-amz-date", "x-amz-content-sha256", "x-amz-meta-put-id"}
    assert put.asked.headers["content-length"] == str(len(BLOB))
    assert "transfer-encoding" not in put.asked.headers
    assert put.asked.headers["accept-encoding"] == "identity"
    assert put.asked.headers["user-agent"] == f"aioimageattach/{VERSION}"


async def test_an_acl_is_sent_on_request(gate: Gate, client: S3Client) -> None:
    """The ACL is a signed header; current buckets reject it, and the error names the remedy."""
    with pytest.raises(StoreError, match="omit acl"):
        await client.create("a", b"x", acl="public-read")
    assert gate.log[0].asked.headers["x-amz-acl"] == "public-read"


@pytest.mark.parametrize("value", ["a\r\nX-Evil: 1", "a\nb", "a\0b", "é"])
async def test_header_injection(gate: Gate, client: S3Client, value: str) -> None:
    """Line feeds, NUL and characters beyond ASCII are rejected before anything is sent."""
    for options in ({"content_type": value}, {"content_disposition": value}, {"metadata": {"a": value}}):
        with pytest.raises(ValueError, match="headers"):
            await client.create("a", b"x", **options)
    assert gate.log == []


async def test_bodies_are_signed_without_tls_and_on_request(gate: Gate, make_client: MakeClient) -> None:
    """By default, a signature covers the body only without TLS."""
    for option in (None, True, False):
        await make_client(gate.url, sign_payload=option).create(f"{option}", b"x")
    hashes = [put.asked.headers["x-amz-content-sha256"] for put in gate.log]
    assert [len(value) for value in hashes] == [64, 64, 16]
    assert hashes[2] == "UNSIGNED-PAYLOAD"


async def test_a_taken_name(client: S3Client) -> None:
    """``create`` rejects a taken name, and ``replace`` replaces the object, on request only if its ETag matches."""
    first = await client.create("a", b"first")
    with pytest.raises(StoreFileExistsError):
        await client.create("a", b"second")
    assert await read(client, "a") == b"first"
    second = await client.replace("a", b"second", if_match=first)
    assert second != first
    with pytest.raises(StoreFileExistsError):
        await client.replace("a", b"third", if_match=first)
    assert await read(client, "a") == b"second"
    await client.replace("a", b"fourth")
    assert await read(client, "a") == b"fourth"


async def test_a_server_that_cannot_refuse_a_taken_name(gate: Gate, make_client: MakeClient) -> None:
    """With ``create_only="head"`` the name is checked first; the error for an unsupported header names this option."""
    client = make_client(gate.url, create_only="head")
    await client.create("a", b"first")
    with pytest.raises(StoreFileExistsError):
        await client.create("a", b"second")
    assert await read(client, "a") == b"first"
    assert all("if-none-match" not in request.asked.headers for request in gate.log)
    gate.fail(1, 501, "NotImplemented")
    with pytest.raises(StoreError, match="create_only"):
        await make_client(gate.url).create("b", b"x")


@pytest.mark.parametrize("size", [99_999, 100_000, 100_001, 250_000, 1_000_000])
async def test_large_objects_are_uploaded_in_parts(gate: Gate, make_client: MakeClient, size: int) -> None:
    """From the threshold on, parts are uploaded concurrently, and the object is the same."""
    client = make_client(gate.url, multipart_threshold=100_000, part_size=100_000)
    blob = (bytes(range(251)) * (size // 251 + 1))[:size]
    await client.create("a", blob, content_type="image/png", metadata={"x": "y"})
    head = await client.head("a")
    assert (head.size, head.content_type, head.metadata["x"]) == (size, "image/png", "y")
    assert await read(client, "a") == blob
    assert sum("partNumber" in request.asked.target for request in gate.log) == (
        0 if size < 100_000 else -(-size // 100_000)
    )
    with pytest.raises(StoreFileExistsError):
        await client.create("a", blob[::-1])
    assert await read(client, "a") == blob
    assert [upload async for upload in client.list_uploads()] == []
    await client.replace("a", blob[::-1])
    assert await read(client, "a") == blob[::-1]


@pytest.mark.parametrize("algorithm", ["crc32", "crc32c", "crc64nvme", "sha1", "sha256"])
async def test_checksums(gate: Gate, make_client: MakeClient, algorithm: Any) -> None:
    """The server verifies uploads, as a whole and in parts; the client verifies objects that it reads as a whole."""
    client = make_client(gate.url, checksum=algorithm, multipart_threshold=100_000, part_size=60_000)
    header = f"x-amz-checksum-{algorithm}"
    await client.create("a", BLOB[:1000])
    await client.create("b", BLOB)
    for name, blob in (("a", BLOB[:1000]), ("b", BLOB)):
        assert await read(client, name) == blob
        assert await read(client, name, start=5) == blob[5:]
    assert sum(header in request.asked.headers for request in gate.log) == 3

    def flip(asked: Any, answer: Any) -> Any:
        if asked.method != "GET":
            return answer
        return type(answer)(answer.status, answer.headers, b"\xff" + answer.body[1:])

    gate.after.append(flip)
    with pytest.raises(StoreError, match="does not match the checksum of the object"):
        await read(client, "a")
    gate.after.clear()
    gate.before.append(
        lambda asked: (
            Refusal(400, "BadDigest")
            if asked.headers.get(header) and asked.headers[header] != "x" and asked.method == "PUT"
            else None
        )
    )
    with pytest.raises(StoreError, match="BadDigest"):
        await client.create("c", b"x")


async def test_ranges(client: S3Client) -> None:
    """Ranges equal slices of the bytes, and a range of a missing object is an error."""
    await client.create("a", bytes(range(100)))
    for start, end in ((0, None), (0, 100), (3, 7), (99, 200), (100, None), (500, 600), (5, 5)):
        assert await read(client, "a", start=start, end=end) == bytes(range(100))[start:end]
        with pytest.raises(StoreFileNotFoundError):
            await client.open("missing", start=start, end=end)
    with pytest.raises(ValueError, match="start"):
        await client.open("a", start=2, end=1)


async def test_a_partially_read_object(client: S3Client) -> None:
    """An object can be closed at any time, and the client can be used further."""
    await client.create("a", bytes(5_000_000))
    for size in (0, 1, 100_000):
        async with await client.open("a") as file:
            assert len(await file.read(size)) <= size
    assert len(await read(client, "a")) == 5_000_000


async def test_listings_of_many_pages(gate: Gate, make_client: MakeClient) -> None:
    """Each page is requested once, below the prefix and after any name."""
    client = make_client(gate.url, prefix="some/")
    gate.page = 3
    names = [f"{n:02}" for n in range(10)]
    await asyncio.gather(*(client.create(name, b"x") for name in names))
    await make_client(gate.url).create("somewhere", b"x")
    assert await listed(client) == names
    assert await listed(client, "0", start_after="04") == names[5:]
    assert await listed(client, "1") == []
    with gate.noting() as requests:
        found = client.list()
        assert (await anext(found)).key == "00"
        await found.aclose()  # type: ignore[attr-defined]
    assert len(requests) == 1
    assert await make_client(gate.url).head("some/00")


async def test_many_objects_are_deleted_with_one_request(gate: Gate, make_client: MakeClient) -> None:
    """Errors are returned by name and transient ones retried; without bulk deletion, single requests are sent."""
    client = make_client(gate.url, prefix="p/")
    names = [f"{n}" for n in range(12)]
    await asyncio.gather(*(client.create(name, b"x") for name in names))
    with gate.noting() as requests:
        assert await client.delete_many([*names[:5], names[0], "missing"]) == {}
    assert [request.asked.method for request in requests] == ["POST"]
    body = (
        b"<DeleteResult><Error><Key>p/5</Key><Code>AccessDenied</Code><Message>no</Message></Error>"
        b"<Error><Key>p/6</Key><Code>InternalError</Code><Message>no</Message></Error>"
        b"<Error><Key>p/7</Key><Code>Odd</Code><Message>no</Message></Error></DeleteResult>"
    )
    gate.after.append(
        lambda asked, answer: type(answer)(200, answer.headers, body) if asked.method == "POST" else answer
    )
    with gate.noting() as requests:
        failed = await client.delete_many(["5", "6", "7"])
    assert {name: type(error) for name, error in failed.items()} == {"5": StorePermissionError, "7": StoreError}
    assert [str(request) for request in requests] == [f"POST /{BUCKET} 200", f"DELETE /{BUCKET}/p/6 204"]
    gate.after.clear()
    await client.create("6", b"x")
    gate.fail(1, 403, "AccessDenied")
    failed = await client.delete_many(["8", "9"])
    assert set(failed) == {"8", "9"}
    single = make_client(gate.url, prefix="p/", bulk_delete=False)
    gate.before.append(lambda asked: Refusal(403, "AccessDenied") if asked.key == "p/8" else None)
    assert list(await single.delete_many(["6", "8", "9"])) == ["8"]
    assert await listed(client) == ["10", "11", "8"]
    gate.fail(1, 404, "NoSuchKey")
    await client.delete("9")


async def test_copies(gate: Gate, make_client: MakeClient) -> None:
    """Objects are copied within a bucket and from another one, and a missing source is an error."""
    gate.backend.create_bucket("other", REGION)
    client, other = make_client(gate.url, prefix="p/"), make_client(gate.url, "other")
    await other.create("a b/ü", b"other", content_type="image/png")
    etag = await client.copy("a b/ü", "copy", source_client=other, storage_class="STANDARD_IA")
    assert etag == (await client.head("copy")).etag
    assert (await client.head("copy")).content_type == "image/png"
    await client.copy("copy", "again")
    assert await read(client, "again") == b"other"
    with pytest.raises(StoreFileNotFoundError):
        await client.copy("missing", "again")


async def test_unfinished_uploads(gate: Gate, make_client: MakeClient) -> None:
    """Unfinished uploads are listed page by page and can be aborted."""
    client = make_client(gate.url, prefix="p/", multipart_threshold=1)
    gate.page = 2

    def no_abort(asked: Any) -> Refusal | None:
        return Refusal(403, "AccessDenied") if "uploadId" in asked.target else None

    gate.before.append(no_abort)
    for n in range(5):
        with pytest.raises(StorePermissionError):
            await client.create(f"{n}", b"x")
    gate.before.remove(no_abort)
    found = [upload async for upload in client.list_uploads()]
    assert [upload.key for upload in found] == ["0", "1", "2", "3", "4"]
    assert [upload.key async for upload in client.list_uploads("3")] == ["3"]
    for upload in found:
        await client.abort_upload(upload.key, upload.upload_id)
    assert [upload async for upload in client.list_uploads()] == []
    await client.abort_upload("0", found[0].upload_id)


async def test_encryption(gate: Gate, make_client: MakeClient) -> None:
    """The headers are sent with requests that create objects; a customer key is rejected without TLS."""
    client = make_client(gate.url, encryption=Encryption.s3(), multipart_threshold=100)
    await client.create("a", b"x")
    await client.create("b", bytes(200))
    await client.copy("a", "c")
    header = "x-amz-server-side-encryption"
    asked = [request.asked for request in gate.log if header in request.asked.headers]
    assert [(one.method, one.key) for one in asked] == [("PUT", "a"), ("POST", "b"), ("PUT", "c")]
    with pytest.raises(ValueError, match="expected an https endpoint_url"):
        make_client(gate.url, encryption=Encryption.customer(bytes(32)))


async def test_signed_urls(gate: Gate, client: S3Client) -> None:
    """A signed URL permits one kind of request for one object, for a limited time."""
    await client.create("a", b"this")
    url = client.presign(
        "GET", "a", query={"response-content-disposition": "attachment; filename=b"}, expires_in=60, window=60
    )
    assert url == client.presign(
        "GET", "a", query={"response-content-disposition": "attachment; filename=b"}, expires_in=60, window=60
    )
    status, body, headers = await fetch(url)
    assert (status, body, headers["Content-Disposition"]) == (200, b"this", "attachment; filename=b")
    assert (await fetch(url, "PUT", data=b"x"))[0] == 403
    assert (await fetch(url.replace("/a?", "/b?")))[0] == 403
    put = client.presign("PUT", "b", headers={"Content-Type": "image/png"})
    assert (await fetch(put, "PUT", data=b"x", headers={"Content-Type": "text/html"}))[0] == 403
    assert (await fetch(put, "PUT", data=b"x", headers={"Content-Type": "image/png"}))[0] == 200
    assert (await client.head("b")).content_type == "image/png"
    assert (await fetch(client.presign("DELETE", "b"), "DELETE"))[0] == 204
    gate.ahead = timedelta(seconds=130)
    assert (await fetch(url))[0] == 403


async def test_forms(gate: Gate, client: S3Client) -> None:
    """A signed form permits only the uploads that it describes."""
    form = client.presign_post(
        "a.png", fields={"Content-Type": "image/png"}, conditions=[["content-length-range", 1, 10]]
    )
    for blob, expected in ((b"small", 204), (b"far too large", 400)):
        data = aiohttp.FormData()
        for name, value in form.fields.items():
            data.add_field(name, value)
        data.add_field("file", blob, filename="x.png")
        assert (await fetch(form.url, "POST", data=data))[0] == expected
    assert await read(client, "a.png") == b"small"


async def test_signed_urls_require_known_credentials(gate: Gate, make_client: MakeClient) -> None:
    """Signing does no I/O, so ``connect()`` must have fetched the credentials."""

    async def provide() -> Credentials:
        return Credentials(ACCESS_KEY, SECRET_KEY)

    client = make_client(gate.url, credentials=provide)
    with pytest.raises(StoreError, match=r"credentials have not been fetched: await connect\(\)"):
        client.presign("GET", "a")
    await client.connect()
    assert (await fetch(client.presign("GET", "a")))[0] == 404
    assert gate.log[0].status == 404


async def test_the_region_is_found_once(gate: Gate, make_client: MakeClient) -> None:
    """The region is detected by a rejected request or by ``connect()``; before that, URLs cannot be signed."""
    endpoint = f"{gate.url}/{{region}}".replace("/{region}", "")
    client = make_client(endpoint, region=None)
    assert client.region == "us-east-1"
    await client.create("a", b"x")
    assert client.region == REGION
    assert [request.status for request in gate.log] == [301, 200]
    await client.create("b", b"x")
    assert [request.status for request in gate.log] == [301, 200, 200]


async def test_settings_of_the_environment(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys, region and endpoint come from the environment if they are not given."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", gate.url)
    async with S3Client(BUCKET) as client:
        await client.create("a", b"x")
        assert client.region == REGION
        assert client.url("a") == f"{gate.url}/{BUCKET}/a"
        assert (await fetch(client.presign("GET", "a")))[1] == b"x"


async def test_signature_version_2(gate: Gate, make_client: MakeClient) -> None:
    """Version 2 supports the same operations, and a server that does not accept it causes a specific error."""
    old = make_client(gate.url, signature_version="v2")
    with pytest.raises(AuthMechanismError, match="signature_version='v4'"):
        await old.create("a", b"x")
    gate.judge.versions = ("v2",)
    gate.backend.reset()
    gate.backend.create_bucket(BUCKET, "us-east-1")
    await old.create("a b/ü", BLOB, content_type="image/png")
    assert await read(old, "a b/ü") == BLOB
    assert await listed(old) == ["a b/ü"]
    assert (await fetch(old.presign("GET", "a b/ü")))[:2] == (200, BLOB)
    assert old.presign_post("a").fields["AWSAccessKeyId"] == ACCESS_KEY
    await make_client(gate.url, signature_version="v2", multipart_threshold=1).create("parts", BLOB)
    assert [upload async for upload in old.list_uploads()] == []
    assert await old.delete_many(["a b/ü", "parts"]) == {}
    with pytest.raises(AuthMechanismError, match="'v2'"):
        await make_client(gate.url).create("a", b"x")


async def test_temporary_credentials(gate: Gate, make_client: MakeClient) -> None:
    """The token is sent in headers and in URLs."""
    gate.judge.keys["ASIATEMPORARY"] = Key("secret", "token+/=")
    client = make_client(gate.url, credentials=Credentials("ASIATEMPORARY", "secret", "token+/="))
    await client.create("a", b"x")
    assert (await fetch(client.presign("GET", "a")))[1] == b"x"
    wrong = make_client(gate.url, credentials=Credentials("ASIATEMPORARY", "secret"))
    with pytest.raises(StorePermissionError, match="InvalidToken"):
        await wrong.create("b", b"x")


async def test_refusals(gate: Gate, make_client: MakeClient) -> None:
    """Errors contain the server's message and no secret."""
    for credentials, code in (
        (Credentials(ACCESS_KEY, "canary-of-a-secret"), "SignatureDoesNotMatch"),
        (Credentials("AKIAOTHER", "canary-of-a-secret"), "InvalidAccessKeyId"),
    ):
        with pytest.raises(StorePermissionError, match=code) as caught:
            await make_client(gate.url, credentials=credentials).create("a", b"x")
        error = caught.value
        assert (error.status, error.code, error.request_id, error.attempts) == (403, code, "REQ0123456789", 1)
        assert "canary" not in f"{error!r}{error.__cause__!r}{error.__context__!r}{vars(error)}"
    with pytest.raises(StoreError, match="create the bucket"):
        await make_client(gate.url, "missing-bucket").create("a", b"x")
    with pytest.raises(StoreError, match="create the bucket"):
        await listed(make_client(gate.url, "missing-bucket"))


async def test_connections_are_kept_and_closed(gate: Gate, make_client: MakeClient) -> None:
    """Consecutive requests share a connection; a closed client can be used and closed again."""
    client = make_client(gate.url)
    assert KEEP_ALIVE <= 15
    for n in range(5):
        await client.create(f"{n}", b"x")
        with pytest.raises(StoreFileNotFoundError):
            await client.open("missing")
    await client.aclose()
    await client.aclose()
    await client.create("after", b"x")
    assert len(await listed(client)) == 6


def test_each_event_loop_has_its_own_connections(gate: Gate) -> None:
    """A client that outlives an event loop works in the next one."""
    client = S3Client(BUCKET, Credentials(ACCESS_KEY, SECRET_KEY), region=REGION, endpoint_url=gate.url)

    async def work(name: str) -> bytes:
        async with client:
            await client.create(name, b"x")
            return await read(client, name)

    assert [asyncio.run(work(f"{n}")) for n in range(3)] == [b"x"] * 3


def connections_to(port: int) -> int:
    """Return the number of this process's connections to a port."""
    found = 0
    for fd in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{fd}").startswith("socket:"):
                with socket.socket(fileno=os.dup(int(fd))) as sock:
                    found += sock.getpeername()[1:2] == (port,)
        except OSError:  # closed meanwhile, or not connected
            continue
    return found


class Putting(BaseHTTPRequestHandler):
    """A server that accepts every put."""

    protocol_version = "HTTP/1.1"

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("ETag", '"tag"')
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Write nothing."""


@pytest.mark.parametrize("tls", [False, True])
def test_connections_of_closed_event_loops_are_closed(certificate: Certificate, tls: bool) -> None:
    """If each job runs in a new event loop and closes nothing, the next job closes the connections."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Putting)
    if tls:
        server.socket = certificate.server_context().wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    port = server.server_port
    client = S3Client(
        BUCKET,
        Credentials(ACCESS_KEY, SECRET_KEY),
        region=REGION,
        endpoint_url=f"{'https' if tls else 'http'}://127.0.0.1:{port}",
        ssl_context=ssl.create_default_context(cafile=certificate.path),
    )
    loops = [asyncio.new_event_loop() for _ in range(3)]
    for loop in loops:
        loop.run_until_complete(client.replace("a", b"x"))
    assert connections_to(port) == 3
    for loop in loops:
        loop.close()
    asyncio.run(client.replace("a", b"x"))
    assert connections_to(port) == 1
    asyncio.run(client.aclose())
    gc.collect()
    assert connections_to(port) == 0
    server.shutdown()
    server.server_close()


async def test_unclosed_connections_are_reported(client: S3Client) -> None:
    """Connections that are garbage-collected without being closed cause a ResourceWarning."""
    await client.replace("a", b"x")
    with pytest.warns(ResourceWarning, match="was not closed"):
        client._sender.transport.__del__()


def test_an_unclosed_client_is_reported(gate: Gate) -> None:
    """A ResourceWarning names a client that was not closed."""
    code = f"""
import asyncio
from aioimageattach.stores.s3 import S3Client, Credentials
async def main(close):
    keys = Credentials({ACCESS_KEY!r}, {SECRET_KEY!r})
    client = S3Client({BUCKET!r}, keys, region={REGION!r}, endpoint_url={gate.url!r})
    await client.replace("a", b"x")
    if close:
        await client.aclose()
asyncio.run(main(CLOSE))
"""
    warned = [
        subprocess.run(
            [sys.executable, "-W", "always", "-c", code.replace("CLOSE", close)],
            capture_output=True,
            text=True,
            check=True,
        ).stderr
        for close in ("False", "True")
    ]
    expected = f"ResourceWarning: <S3 bucket {BUCKET!r} at {gate.url}> was not closed: use `async with`"
    assert expected in warned[0]
    assert warned[1] == ""


@pytest.mark.parametrize(
    "options",
    [
        {"multipart_threshold": 0},
        {"part_size": 0},
        {"parallel_parts": 0},
        {"connect_timeout": 0},
        {"read_timeout": -1},
        {"max_connections": 0},
        {"max_retry": -1},
        {"timeout": 0},
        {"signature_version": "v3"},
        {"create_only": "never"},
        {"checksum": "md5"},
        {"endpoint_url": "example.com"},
        {"region": "eu west"},
    ],
    ids=str,
)
def test_arguments_out_of_range(options: dict[str, Any]) -> None:
    """Arguments that are out of range are rejected, and the error names them."""
    with pytest.raises(ValueError, match=next(iter(options)).replace("timeout", "(timeout|expected)")):
        S3Client(BUCKET, Credentials("a", "b"), **options)


def test_a_client_shows_no_secret() -> None:
    """Neither the repr of a client nor those of its parts contain a secret."""
    client = S3Client(BUCKET, Credentials("AKIA", "canary-of-a-secret", "canary-token"), region=REGION)
    assert repr(client) == "<S3 bucket 'pictures' at https://s3.{region}.amazonaws.com>"
    assert "canary" not in f"{client!r}{client.credentials!r}{vars(client)}{vars(client._sender)}"
