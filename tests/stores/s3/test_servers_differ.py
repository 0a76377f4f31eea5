"""What servers do differently, and what the environment adds: ranges, clocks, missing buckets, payment, proxies."""

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
    """The bytes that were asked for are found in it."""
    async with Scripted([answer(200, BODY, **MODIFIED)]) as server:
        async with await make_store(server.url).get_object("a", start=start, end=end) as file:
            assert file.size == len(BODY[start:end])
            assert await file.read() == BODY[start:end]
        assert "range" in server.requests[0].headers


async def test_a_range_with_the_status_of_the_whole(make_store: MakeStore) -> None:
    """Content-Range counts; s3rver sends the whole range where the first byte is asked for."""
    async with Scripted([answer(200, BODY[10:20], content_range="bytes 10-19/100", **MODIFIED)]) as server:
        assert await read(make_store(server.url), start=10, end=20) == BODY[10:20]
    async with Scripted([answer(206, BODY, content_range="bytes 0-99/100", **MODIFIED)]) as server:
        assert await read(make_store(server.url), start=10, end=20) == BODY[10:20]
    async with Scripted([answer(200, BODY[10:20], content_range="bytes 20-29/100", **MODIFIED)]) as server:
        with pytest.raises(StoreError, match="expected the range 10-19, got 'bytes 20-29/100'"):
            await read(make_store(server.url), start=10, end=20)


@pytest.mark.parametrize(("start", "end"), [(50, 1000), (100, None), (100, 200), (10, 20)])
async def test_a_range_beyond_the_end_that_is_refused(make_store: MakeStore, start: int, end: int | None) -> None:
    """nanio answers 400; the size of the object tells what there is to read."""

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
    """localbucket; the ETag of the response tells that the object is its own."""
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
async def test_a_server_without_ranges_is_read_on(make_store: MakeStore, at: int) -> None:
    """After a break the whole object comes again, and breaks again before the place is reached or behind it."""
    head = (
        f'HTTP/1.1 200 OK\r\nContent-Length: 100\r\nLast-Modified: {MODIFIED["last_modified"]}\r\nETag: "tag"\r\n\r\n'
    )
    replies = [raw(head.encode() + BODY[:40]), raw(head.encode() + BODY[:at]), answer(200, BODY, **MODIFIED)]
    async with Scripted(replies) as server:
        assert await read(make_store(server.url)) == BODY
        assert len(server.requests) == 3


async def test_a_server_without_conditions(make_store: MakeStore) -> None:
    """It does not compare If-Match, so its ETag is compared here."""
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
    """Swift does where there is no object, which breaks the connection: the first byte is asked for instead."""
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
async def test_a_clock_that_only_the_date_reveals(
    make_store: MakeStore, caplog: pytest.LogCaptureFixture, code: str
) -> None:
    """Some servers call a time that is off a wrong signature; the corrected clock is kept."""
    refused = dated(lambda **headers: error(403, code, **headers), timedelta(minutes=30))
    async with Scripted([refused, answer(204), answer(204)]) as server:
        store = make_store(server.url)
        await store.delete_object("a")
        await store.delete_object("a")
        stamps = [request.headers["x-amz-date"] for request in server.requests]
        assert stamps[0] < stamps[1] <= stamps[2]
        assert timedelta(minutes=29) < store.client.now() - datetime.now(UTC) < timedelta(minutes=31)
    assert "clock is -1" in caplog.text


async def test_a_date_that_was_not_the_reason(make_store: MakeStore) -> None:
    """Where the corrected request is refused as well, the clock stays as it was."""
    refused = dated(lambda **headers: error(403, "AccessDenied", **headers), timedelta(minutes=30))
    async with Scripted([refused]) as server:
        store = make_store(server.url)
        with pytest.raises(StorePermissionError, match="AccessDenied"):
            await store.delete_object("a")
        assert len(server.requests) == 2
        assert abs(store.client.now() - datetime.now(UTC)) < timedelta(minutes=1)


# --- buckets ---------------------------------------------------------------------------------------------------------


async def test_a_missing_bucket_is_told_from_a_missing_file(gate: Gate, make_store: MakeStore) -> None:
    """The response to HEAD is the same for both, so the bucket is looked for once."""
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
    """Nothing fails, and the log says once what does the work instead."""
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
    """B2 answers 501 to If-None-Match; the log names the option that lets the server copy."""
    replies = [error(404, ""), error(501, "NotImplemented")]
    async with Scripted(replies) as server:
        store = make_store(server.url)
        assert not await store.copy_from(make_store(server.url, prefix="p"), "a", "b")
    assert "the server does not copy them: copy to 'b': the server responded with 501" in caplog.text
    assert "set create_only='head'" in caplog.text
    assert not await store.copy_from(MemoryStore(), "a", "b")


# --- requester pays --------------------------------------------------------------------------------------------------


async def test_the_requester_pays(gate: Gate, make_client: MakeClient) -> None:
    """Every request and every signed URL agrees to it, and only if it was asked for."""
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
    """It is used where none was given, for requests and for URLs."""
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


async def test_signed_urls_say_why_they_cannot_be_made() -> None:
    """The credentials have expired, and the role is gone."""
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
    """A .netrc with a password for this host, as curl and aiohttp read it."""
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login canary password canary\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


@pytest.mark.usefixtures("netrc")
@pytest.mark.parametrize("way", ["environment", "argument"])
async def test_a_proxy(make_store: MakeStore, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """It is that of the argument or of the environment, its credentials are in its URL, and signatures stay."""
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
async def test_what_the_environment_does_not_give(make_store: MakeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Passwords of .netrc are not sent, hosts of NO_PROXY are reached directly, and nothing is read unless asked."""
    async with Scripted([answer(204)]) as server:
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
        await make_store(server.url).delete_object("a")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        await make_store(server.url, trust_env=True).delete_object("a")
        assert all("AWS4" in request.headers["authorization"] for request in server.requests)
        assert "canary" not in str(server.requests)


async def test_a_proxy_that_wants_credentials(make_store: MakeStore) -> None:
    """It is asked once, and the error says where to put them; with and without TLS behind it."""
    async with Scripted([answer(407)]) as proxy:
        for url in ("http://s3.example.test", "https://s3.example.test"):
            with pytest.raises(StoreError, match=r"407.*include them in its URL; \.netrc is not read") as caught:
                await make_store(url, proxy=proxy.url).delete_object("a")
            assert not isinstance(caught.value, StoreUnavailableError)
        assert len(proxy.requests) == 2


# --- other refusals --------------------------------------------------------------------------------------------------


async def test_old_signatures_at_a_server_that_does_not_know_them(make_store: MakeStore) -> None:
    """rclone calls it an unsupported algorithm, s3rver a wrong signature; the message names the option."""
    for reply in (error(400, "UnsupportedAlgorithm"), error(403, "SignatureDoesNotMatch"), answer(400)):
        async with Scripted([reply]) as server:
            with pytest.raises(StoreError, match="set signature_version='v4'"):
                await make_store(server.url, signature_version="v2").delete_object("a")


async def test_object_lock(make_store: MakeStore) -> None:
    """Puts need a checksum there, which the message says."""
    message = (
        "Content-MD5 OR x-amz-checksum- HTTP header is required for Put Object requests with Object Lock parameters"
    )
    async with Scripted([error(400, "InvalidRequest", message)]) as server:
        with pytest.raises(StoreError, match="set checksum='crc32'"):
            await make_store(server.url).put_object("a", b"x")


def test_sources_show_no_secret() -> None:
    """Nor does a request in a message."""
    assert repr(Credentials("AKID", "canary")) == "Credentials(access_key='AKID', expires_at=None)"
    assert "canary" not in repr(Request("GET", "/", {}, b""))
