"""Differences between servers, and settings of the environment."""

from __future__ import annotations

import asyncio
import base64
import logging
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from aioimageattach.exc import StoreError, StoreFileNotFoundError, StorePermissionError, StoreUnavailableError
from aioimageattach.stores import MemoryStore
from aioimageattach.stores.s3 import Credentials, S3Store
from tests.servers.gate import Gate
from tests.servers.scripted import Reply, Request, Scripted, answer, error, raw
from tests.stores.s3.conftest import MakeClient, MakeStore

BODY = bytes(range(100))
HEAD = (
    'HTTP/1.1 200 OK\r\nContent-Length: 100\r\nLast-Modified: Wed, 06 May 2026 07:08:09 GMT\r\nETag: "{etag}"\r\n\r\n'
)
MODIFIED = {"last_modified": "Wed, 06 May 2026 07:08:09 GMT", "etag": '"tag"'}


async def read(store: Any, name: str = "a", **options: Any) -> bytes:
    async with await store.get_object(name, **options) as file:
        return await file.read()


# --- ranges ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "end"), [(0, 1), (10, 20), (90, None), (0, 100), (99, 200), (100, None), (100, 110), (200, 300)]
)
async def test_the_whole_object_for_a_range(make_store: MakeStore, start: int, end: int | None) -> None:
    """The requested bytes are extracted from a response with the whole object."""
    async with Scripted([answer(200, BODY, **MODIFIED)]) as server:
        async with await make_store(server.url).get_object("a", start=start, end=end) as file:
            assert file.size == len(BODY[start:end])
            assert await file.read() == BODY[start:end]
        assert "range" in server.requests[0].headers


async def test_a_range_with_status_200(make_store: MakeStore) -> None:
    """A range with status 200 is recognised by its Content-Range, as for s3rver."""
    async with Scripted([answer(200, BODY[10:20], content_range="bytes 10-19/100", **MODIFIED)]) as server:
        assert await read(make_store(server.url), start=10, end=20) == BODY[10:20]
    async with Scripted([answer(206, BODY, content_range="bytes 0-99/100", **MODIFIED)]) as server:
        assert await read(make_store(server.url), start=10, end=20) == BODY[10:20]
    async with Scripted([answer(200, BODY[10:20], content_range="bytes 20-29/100", **MODIFIED)]) as server:
        with pytest.raises(StoreError, match="expected the range 10-19, got 'bytes 20-29/100'"):
            await read(make_store(server.url), start=10, end=20)


@pytest.mark.parametrize(("start", "end"), [(50, 1000), (100, None), (100, 200), (10, 20)])
async def test_a_range_beyond_the_end_that_is_refused(make_store: MakeStore, start: int, end: int | None) -> None:
    """If the server (nanio) responds with 400, the size of the object determines the bytes to read."""

    async def reply(request: Request, writer: Any) -> None:
        if request.method == "HEAD":
            await answer(200, content_length="100", **MODIFIED)(request, writer)
        elif request.headers["range"] == "bytes=50-99":
            await answer(206, BODY[50:], content_range="bytes 50-99/100", **MODIFIED)(request, writer)
        else:
            await error(400, "InvalidArgument")(request, writer)

    async with Scripted([reply]) as server:
        if (start, end) == (10, 20):
            with pytest.raises(StoreError, match="InvalidArgument"):
                await read(make_store(server.url), start=start, end=end)
        else:
            assert await read(make_store(server.url), start=start, end=end) == BODY[start:end]


async def test_a_cancelled_put_at_a_server_that_keeps_no_metadata(make_store: MakeStore) -> None:
    """For localbucket, the ETag of the response identifies the object of the put."""
    reached = asyncio.Event()

    async def reply(request: Request, writer: Any) -> None:
        reached.set()
        if request.method == "PUT":
            await asyncio.sleep(0.1)
        status = 204 if request.method == "DELETE" else 200
        await answer(status, **MODIFIED)(request, writer)

    async with Scripted([reply]) as server:
        task = asyncio.create_task(make_store(server.url).put_object("a", b"x"))
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert [request.method for request in server.requests] == ["PUT", "HEAD", "DELETE"]


@pytest.mark.parametrize("at", [5, 60])
async def test_reading_resumes_without_ranges(make_store: MakeStore, at: int) -> None:
    """The whole object is sent again, and may break again before or after the position."""
    head = (
        f'HTTP/1.1 200 OK\r\nContent-Length: 100\r\nLast-Modified: {MODIFIED["last_modified"]}\r\nETag: "tag"\r\n\r\n'
    )
    replies = [raw(head.encode() + BODY[:40]), raw(head.encode() + BODY[:at]), answer(200, BODY, **MODIFIED)]
    async with Scripted(replies) as server:
        assert await read(make_store(server.url)) == BODY
        assert len(server.requests) == 3


async def test_a_server_without_conditions(make_store: MakeStore) -> None:
    """If the server ignores If-Match, the client compares the ETag."""
    head = (
        f'HTTP/1.1 200 OK\r\nContent-Length: 100\r\nLast-Modified: {MODIFIED["last_modified"]}\r\nETag: "old"\r\n\r\n'
    )
    replies = [raw(head.encode() + BODY[:40]), answer(206, BODY[40:], content_range="bytes 40-99/100", **MODIFIED)]
    async with Scripted(replies) as server:
        with pytest.raises(StoreError, match="read 'a': the object was replaced while it was read"):
            await read(make_store(server.url))


@pytest.mark.parametrize(
    ("reply", "size"),
    [
        (error(404, "NoSuchKey"), None),
        (answer(206, b"x", content_range="bytes 0-0/100", **MODIFIED), 100),
        (answer(416, b"<Error/>", content_range="bytes */0", **MODIFIED), 0),
    ],
)
async def test_a_server_that_sends_a_body_after_head(make_store: MakeStore, reply: Reply, size: int | None) -> None:
    """Swift does so for a missing object, which breaks the connection, so the first byte is requested instead."""
    broken = raw(b"HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
    async with Scripted([broken, reply, answer(200)]) as server:
        store = make_store(server.url)
        if size is None:
            with pytest.raises(StoreFileNotFoundError):
                await store.head_object("a")
        else:
            assert (await store.head_object("a")).size == size
        assert [request.method for request in server.requests[:2]] == ["HEAD", "GET"]
        assert server.requests[1].headers["range"] == "bytes=0-0"
    async with Scripted([broken, answer(206, b"x", **MODIFIED)]) as server:
        with pytest.raises(StoreUnavailableError, match="expected a Content-Range header"):
            await make_store(server.url, max_retry=0).head_object("a")


# --- the clock -------------------------------------------------------------------------------------------------------


def dated(reply: Any, offset: timedelta) -> Reply:
    return reply(date=format_datetime(datetime.now(UTC) + offset, usegmt=True))


@pytest.mark.parametrize("code", ["SignatureDoesNotMatch", "AccessDenied", ""])
async def test_clock_skew_in_the_date_header(
    make_store: MakeStore, caplog: pytest.LogCaptureFixture, code: str
) -> None:
    """Some servers report clock skew as a wrong signature; the corrected clock is kept."""
    refused = dated(lambda **headers: error(403, code, **headers), timedelta(minutes=30))
    async with Scripted([refused, answer(204), answer(204)]) as server:
        store = make_store(server.url)
        await store.delete_object("a")
        await store.delete_object("a")
        stamps = [request.headers["x-amz-date"] for request in server.requests]
        assert stamps[0] < stamps[1] <= stamps[2]
        assert timedelta(minutes=29) < store.client.now() - datetime.now(UTC) < timedelta(minutes=31)
    assert "behind the S3 server's" in caplog.text


async def test_clock_skew_that_was_not_the_reason(make_store: MakeStore) -> None:
    """If the corrected request is rejected, too, the clock is not changed."""
    refused = dated(lambda **headers: error(403, "AccessDenied", **headers), timedelta(minutes=30))
    async with Scripted([refused]) as server:
        store = make_store(server.url)
        with pytest.raises(StorePermissionError, match="AccessDenied"):
            await store.delete_object("a")
        assert len(server.requests) == 2
        assert abs(store.client.now() - datetime.now(UTC)) < timedelta(minutes=1)


# --- buckets ---------------------------------------------------------------------------------------------------------


async def test_a_missing_bucket_differs_from_a_missing_file(gate: Gate, make_store: MakeStore) -> None:
    """HEAD has the same response for both, so the client checks once whether the bucket exists."""
    with pytest.raises(StoreError, match="the bucket 'no-bucket' does not exist: create it") as caught:
        await make_store(gate.url, "no-bucket").head_object("a")
    assert not isinstance(caught.value, StoreFileNotFoundError)
    assert caught.value.code == "NoSuchBucket"
    store = make_store(gate.url)
    with gate.noting() as requests:
        for _ in range(3):
            with pytest.raises(StoreFileNotFoundError):
                await store.head_object("a")
    assert len(requests) == 4
    known = make_store(gate.url)
    await known.put_object("b", b"x")
    with gate.noting() as requests, pytest.raises(StoreFileNotFoundError):
        await known.head_object("a")
    assert len(requests) == 1


async def test_a_server_that_cannot_list_uploads(make_store: MakeStore, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is aborted, and one warning names the lifecycle rule that can do so; other errors are raised."""
    caplog.set_level(logging.DEBUG)
    async with Scripted([error(501, "NotImplemented")]) as server:
        store = make_store(server.url)
        assert await store.abort_uploads() == 0
        assert await store.discard_unfinished(datetime.now(UTC)) == 0
    levels = [record.levelno for record in caplog.records if "lifecycle rule" in record.getMessage()]
    assert levels == [logging.WARNING, logging.DEBUG]
    async with Scripted([error(403, "AccessDenied")]) as server:
        with pytest.raises(StorePermissionError):
            await make_store(server.url).abort_uploads()


async def test_copies_that_pass_through_this_process(make_store: MakeStore, caplog: pytest.LogCaptureFixture) -> None:
    """B2 responds with 501 to If-None-Match; the log names the option that lets the server copy."""
    replies = [error(404, ""), error(501, "NotImplemented")]
    async with Scripted(replies) as server:
        store = make_store(server.url)
        assert not await store.copy_from(make_store(server.url, prefix="p"), "a", "b")
    assert "the server does not copy them: copy to 'b': the server responded with 501" in caplog.text
    assert "set create_only='head'" in caplog.text
    assert not await store.copy_from(MemoryStore(), "a", "b")


# --- requester pays --------------------------------------------------------------------------------------------------


async def test_the_requester_pays(gate: Gate, make_client: MakeClient) -> None:
    """Every request and signed URL has the header for requester-pays buckets, only if it is requested."""
    client = make_client(gate.url, requester_pays=True, multipart_threshold=100, part_size=100)
    await client.create("a", b"x")
    await client.create("b", bytes(250))
    await client.copy("a", "c", only_new=True)
    _ = [one async for one in client.list()]
    _ = [one async for one in client.list_uploads()]
    await client.head("a")
    await client.delete_many(["a", "b"])
    await client.delete("c")
    assert {request.asked.headers.get("x-amz-request-payer") for request in gate.log} == {"requester"}
    assert parse_qs(urlsplit(client.presign("GET", "a")).query)["x-amz-request-payer"] == ["requester"]
    assert "request-payer" not in make_client(gate.url).presign("GET", "a")


# --- regions of profiles ---------------------------------------------------------------------------------------------


async def test_the_region_of_the_profile(
    gate: Gate, make_store: MakeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The region of the profile is used for requests and URLs if none is given."""
    from tests.servers.gate import ACCESS_KEY, SECRET_KEY

    (tmp_path / "config").write_text(
        f"[default]\nregion = eu-central-1\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    store = make_store(gate.url, access_key=None, secret_key=None, region=None, url_expires_in=60)
    await store.put_object("a", b"x")
    assert [request.status for request in gate.log] == [200]
    assert "%2Feu-central-1%2Fs3" in store.url_of("a")
    amazon = S3Store("pictures", url_expires_in=60)
    await amazon.connect()
    assert amazon.url_of("a").startswith("https://pictures.s3.eu-central-1.amazonaws.com/a?")


# --- signed URLs whose credentials have ended -------------------------------------------------------------------------


async def test_signed_urls_without_valid_credentials() -> None:
    """The error states why there are no valid credentials, and what to do."""
    asked = 0

    async def role() -> Credentials:
        nonlocal asked
        asked += 1
        if asked > 1:
            raise StorePermissionError("the role is gone")
        return Credentials("AKID", "s", "t", datetime.now(UTC) - timedelta(seconds=1))

    async with S3Store("pictures", credentials=role, region="eu-west-1", url_expires_in=60) as store:
        with pytest.raises(StoreError, match=r"credentials have not been fetched: await connect\(\)"):
            store.url_of("a")
        await store.connect()
        with pytest.raises(StoreError, match=r"the credentials expired at 20.*Z, and were not renewed"):
            store.url_of("a")
        store.client.credentials.forget()
        with pytest.raises(StorePermissionError):
            await store.connect()
        with pytest.raises(StoreError, match="could not be fetched: the role is gone"):
            store.url_of("a")


# --- proxies ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def netrc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A .netrc file with a password for this host, as curl and aiohttp read it."""
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login canary password canary\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


@pytest.mark.usefixtures("netrc")
@pytest.mark.parametrize("way", ["environment", "argument"])
async def test_a_proxy(make_store: MakeStore, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """The proxy of the argument or the environment is used with its credentials, and signatures are valid."""
    async with Scripted([answer(204)]) as proxy:
        url = proxy.url.replace("://", "://user:word@")
        options: dict[str, Any] = {"proxy": url} if way == "argument" else {"trust_env": True}
        if way == "environment":
            monkeypatch.setenv("http_proxy", url)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        store = make_store("http://s3.example.test", **options)
        for _ in range(2):
            await store.delete_object("a")
        assert len(proxy.requests) == 2
        headers = proxy.requests[0].headers
        assert proxy.requests[0].target == "http://s3.example.test/pictures/a"
        assert headers["authorization"].startswith("AWS4-HMAC-SHA256 ")
        assert base64.b64decode(headers["proxy-authorization"].split()[1]) == b"user:word"


@pytest.mark.usefixtures("netrc")
async def test_ignored_settings_of_the_environment(make_store: MakeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Passwords in .netrc are not sent, NO_PROXY is respected, and nothing is read unless requested."""
    async with Scripted([answer(204)]) as server:
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
        await make_store(server.url).delete_object("a")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        await make_store(server.url, trust_env=True).delete_object("a")
        assert all("AWS4" in request.headers["authorization"] for request in server.requests)
        assert "canary" not in str(server.requests)


async def test_a_proxy_that_requires_credentials(make_store: MakeStore) -> None:
    """The request is sent once, and the error names the option for the credentials, with and without TLS."""
    async with Scripted([answer(407)]) as proxy:
        for url in ("http://s3.example.test", "https://s3.example.test"):
            with pytest.raises(StoreError, match=r"407.*include them in its URL; \.netrc is not read") as caught:
                await make_store(url, proxy=proxy.url).delete_object("a")
            assert not isinstance(caught.value, StoreUnavailableError)
        assert len(proxy.requests) == 2


# --- other refusals --------------------------------------------------------------------------------------------------


async def test_version_2_at_a_server_that_does_not_support_it(make_store: MakeStore) -> None:
    """The message names the option for each form of the error that rclone and s3rver send."""
    for reply in (error(400, "UnsupportedAlgorithm"), error(403, "SignatureDoesNotMatch"), answer(400)):
        async with Scripted([reply]) as server:
            with pytest.raises(StoreError, match="set signature_version='v4'"):
                await make_store(server.url, signature_version="v2").delete_object("a")


async def test_object_lock(make_store: MakeStore) -> None:
    """Puts into a bucket with object lock need a checksum, and the message states this."""
    message = (
        "Content-MD5 OR x-amz-checksum- HTTP header is required for Put Object requests with Object Lock parameters"
    )
    async with Scripted([error(400, "InvalidRequest", message)]) as server:
        with pytest.raises(StoreError, match="set checksum='crc32'"):
            await make_store(server.url).put_object("a", b"x")


def test_sources_show_no_secret() -> None:
    """No source or request reveals a secret in its repr."""
    assert repr(Credentials("AKID", "canary")) == "Credentials(access_key='AKID', expires_at=None)"
    assert "canary" not in repr(Request("GET", "/", {}, b""))
