"""Retries and corrections of requests, with a server that responds as scripted."""

from __future__ import annotations

import asyncio
import logging
import ssl
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from aioimageattach.exc import (
    StoreError,
    StoreFileExistsError,
    StoreFileNotFoundError,
    StorePermissionError,
    StoreUnavailableError,
)
from aioimageattach.stores.s3 import Credentials, S3Client
from aioimageattach.stores.s3._upload import part_size_for
from tests.servers.gate import Gate
from tests.servers.judge import Key, Refusal
from tests.servers.ministack import authorization, free_port
from tests.servers.scripted import Reply, Scripted, answer, dripping, error, halting, raw, silence
from tests.stores.s3.conftest import BUCKET, REGION, MakeClient

MODIFIED = {"last_modified": "Wed, 06 May 2026 07:08:09 GMT", "etag": '"tag"'}
BLOB = bytes(range(256)) * 400


def found(body: bytes = b"body", status: int = 200, **headers: str) -> Reply:
    return answer(status, body, **{**MODIFIED, **headers})


async def read(client: S3Client, name: str = "a", **options: Any) -> bytes:
    async with await client.open(name, **options) as file:
        return await file.read()


class Everywhere(AbstractResolver):
    """A resolver that maps all hosts to one local port."""

    def __init__(self, port: int, hosts: list[str]) -> None:
        self.port = port
        self.hosts = hosts

    async def resolve(self, host: str, port: int = 0, family: Any = 0) -> list[ResolveResult]:
        self.hosts.append(host)
        return [
            ResolveResult(hostname=host, host="127.0.0.1", port=self.port, family=2, proto=6, flags=0),
        ]

    async def close(self) -> None: ...


# --- another attempt -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (500, "InternalError"),
        (502, ""),
        (503, "SlowDown"),
        (504, ""),
        (429, "TooManyRequests"),
        (400, "RequestTimeout"),
        (409, "OperationAborted"),
    ],
)
async def test_transient_errors_are_retried(gate: Gate, make_client: MakeClient, status: int, code: str) -> None:
    """Each attempt is signed again, and the object exists once in the end."""
    client = make_client(gate.url)
    gate.fail(2, status, code)
    await client.create("a", BLOB)
    assert [request.status for request in gate.log] == [status, status, 200]
    assert await read(client) == BLOB


async def test_the_number_of_attempts_is_limited(gate: Gate, make_client: MakeClient) -> None:
    """After ``max_retry`` retries, the error contains the last response and the number of attempts."""
    gate.fail(9, 503, "SlowDown")
    with pytest.raises(StoreUnavailableError, match="SlowDown: no in 3 attempts") as caught:
        await make_client(gate.url, max_retry=2).delete("a")
    assert (caught.value.attempts, caught.value.status) == (3, 503)
    assert len(gate.log) == 3
    with pytest.raises(StoreUnavailableError) as caught:
        await make_client(gate.url, max_retry=0).delete("a")
    assert caught.value.attempts == 1
    assert len(gate.log) == 4


async def test_the_timeout_ends_attempts(gate: Gate, make_client: MakeClient) -> None:
    """The timeout ends the attempts, regardless of their maximum number and of Retry-After."""
    gate.fail(1000, 503, "SlowDown")
    loop = asyncio.get_running_loop()
    start = loop.time()
    with pytest.raises(StoreUnavailableError):
        await make_client(gate.url, max_retry=1000, timeout=0.5).head("a")
    assert loop.time() - start < 1.5
    gate.before.clear()
    gate.fail(1000, 503, "SlowDown", headers={"Retry-After": "60"})
    with pytest.raises(StoreUnavailableError) as caught:
        await make_client(gate.url).head("a")
    assert caught.value.attempts == 1


async def test_retry_after_is_respected(gate: Gate, make_client: MakeClient) -> None:
    """The next attempt is not made before the time in Retry-After."""
    gate.fail(1, 503, "SlowDown", headers={"Retry-After": "1"})
    loop = asyncio.get_running_loop()
    start = loop.time()
    with pytest.raises(StoreFileNotFoundError):
        await make_client(gate.url).head("a")
    assert loop.time() - start >= 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 412, 501])
async def test_permanent_errors_are_not_retried(gate: Gate, make_client: MakeClient, status: int) -> None:
    """A permanent error is raised after the first attempt."""
    gate.fail(1, status, "Odd")
    with pytest.raises(StoreError):
        await make_client(gate.url).replace("a", b"x")
    assert len(gate.log) == 1


async def test_an_error_in_a_successful_response(make_client: MakeClient) -> None:
    """An error in the body of a 200 response is an error, and is retried if it is transient."""
    copied = b"<CopyObjectResult><ETag>e</ETag><LastModified>2026-05-06T07:08:09Z</LastModified></CopyObjectResult>"
    async with Scripted([error(200, "InternalError"), error(200, "SlowDown"), answer(200, copied)]) as server:
        assert await make_client(server.url).copy("a", "b") == "e"
        assert len(server.requests) == 3
    async with Scripted([error(200, "AccessDenied")]) as server:
        with pytest.raises(StorePermissionError, match="200 AccessDenied"):
            await make_client(server.url).copy("a", "b")


@pytest.mark.parametrize(
    "reply",
    [
        answer(200, b""),
        answer(200, b"<html>a proxy's page</html>"),
        answer(200, b"<ListBucketResult><IsTruncated>"),
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n<ListBucketResult>"),
        raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n<List\r\n"),
        raw(b"HTTP/1.1 200 OK\r\n\r\n<ListBucketResult>"),
        raw(b"HTTP/1.1 200"),
        raw(b"\x16\x03\x01"),
        raw(b""),
        answer(200, b"x" * 9_000_000),
    ],
    ids=range(10),
)
async def test_invalid_responses_are_retried(make_client: MakeClient, reply: Reply) -> None:
    """Empty, foreign, truncated and oversized responses, and those that are not HTTP, are retried."""
    page = b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"
    async with Scripted([reply, answer(200, page)]) as server:
        assert [one async for one in make_client(server.url).list()] == []
        assert len(server.requests) == 2


async def test_a_listing_of_version_one(make_client: MakeClient) -> None:
    """If the server sends no token, the next page starts after the last name."""

    def page(name: str, more: str) -> Reply:
        item = f"<Key>{name}</Key><Size>1</Size><LastModified>2026-05-06T07:08:09Z</LastModified>"
        return answer(
            200,
            f"<ListBucketResult><IsTruncated>{more}</IsTruncated><Contents>{item}</Contents>"
            "</ListBucketResult>".encode(),
        )

    async with Scripted([page("a", "true"), page("b", "false")]) as server:
        assert [one.key async for one in make_client(server.url).list()] == ["a", "b"]
        assert "marker=a" in server.requests[1].target
        assert "list-type" not in server.requests[1].target


async def test_a_server_that_is_silent(make_client: MakeClient) -> None:
    """Each attempt fails after the read timeout."""
    async with Scripted([silence, answer(204)]) as server:
        await make_client(server.url, read_timeout=0.2).delete("a")
    async with Scripted([silence]) as server:
        with pytest.raises(StoreUnavailableError, match="did not respond in time in 2 attempts"):
            await make_client(server.url, read_timeout=0.2, max_retry=1).delete("a")


async def test_a_slow_server_that_makes_progress(make_client: MakeClient) -> None:
    """A slow response is not aborted as long as the whole request stays within the timeout."""
    page = b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(page)}\r\n\r\n".encode()
    drip = dripping(head + page, size=12, pause=0.06)
    async with Scripted([drip]) as server:
        assert [one async for one in make_client(server.url, read_timeout=0.3).list()] == []
    async with Scripted([drip]) as server:
        with pytest.raises(StoreUnavailableError, match="in time"):
            _ = [one async for one in make_client(server.url, timeout=0.3).list()]


async def test_a_server_that_cannot_be_reached(make_client: MakeClient) -> None:
    """The connection is retried, and the error names the host."""
    client = make_client(f"http://127.0.0.1:{free_port()}", max_retry=1)
    with pytest.raises(StoreUnavailableError, match=r"127\.0\.0\.1 cannot be reached: .*efused in 2 attempts"):
        await client.head("a")


async def test_a_stale_connection(make_client: MakeClient) -> None:
    """A connection that the server closed while it was idle is replaced, and the whole body is sent again."""

    async def close(_request: Any, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with Scripted([answer(204), close, answer(200, etag='"t"')]) as server:
        client = make_client(server.url)
        await client.delete("a")
        await client.replace("b", bytes(600_000))
        assert [len(request.body) for request in server.requests] == [0, 600_000, 600_000]


async def test_an_untrusted_certificate_is_not_retried(make_client: MakeClient) -> None:
    """An untrusted certificate is a permanent error, which names the option."""
    connections = []

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    client = make_client(
        f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}", ssl_context=ssl.create_default_context()
    )
    with pytest.raises(StoreError, match="ssl_context="):
        await client.head("a")
    assert len(connections) == 1
    server.close()


async def test_attempts_are_logged_without_secrets(
    gate: Gate, make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    """The log states the reason for each retry."""
    caplog.set_level(logging.DEBUG)
    gate.fail(1, 503, "SlowDown")
    gate.judge.keys["ASIA"] = Key("canary-secret", "canary-token")
    client = make_client(gate.url, credentials=Credentials("ASIA", "canary-secret", "canary-token"))
    await client.create("a", b"x")
    client.presign("GET", "a")
    assert "SlowDown" in caplog.text
    assert "the next attempt" in caplog.text
    assert not {"canary", "Signature"} & set(caplog.text.replace("=", " ").split())
    assert "canary" not in caplog.text


# --- corrections -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reply",
    [
        error(301, "PermanentRedirect", x_amz_bucket_region="eu-west-3"),
        error(307, "TemporaryRedirect", x_amz_bucket_region="eu-west-3"),
        error(400, "AuthorizationHeaderMalformed", inside="<Region>eu-west-3</Region>"),
        error(400, "", x_amz_bucket_region="eu-west-3"),
    ],
    ids=["301", "307", "400", "mute 400"],
)
async def test_another_region(make_client: MakeClient, caplog: pytest.LogCaptureFixture, reply: Reply) -> None:
    """The region in the server's response is accepted once, and used from then on."""
    async with Scripted([reply, answer(204), answer(204)]) as server:
        client = make_client(server.url)
        for _ in range(2):
            await client.delete("a")
        regions = [request.headers["authorization"].split("/")[2] for request in server.requests]
        assert regions == [REGION, "eu-west-3", "eu-west-3"]
    assert "is in the region eu-west-3" in caplog.text
    async with Scripted([reply, reply]) as server:
        with pytest.raises(StoreError):
            await make_client(server.url).delete("a")
        assert len(server.requests) == 2


async def test_the_region_is_part_of_the_host(make_client: MakeClient) -> None:
    """After the region is corrected, requests are sent to its host, with the bucket in the host name."""
    hosts: list[str] = []
    async with Scripted([error(301, "PermanentRedirect", x_amz_bucket_region="eu-west-3"), found()]) as server:
        client = make_client(
            "http://s3.{region}.example.test",
            path_style=False,
            region=None,
            connector=lambda: aiohttp.TCPConnector(resolver=Everywhere(server.port, hosts)),
        )
        with pytest.raises(StoreError, match="region of the bucket is not known"):
            client.presign("GET", "a")
        assert (await client.head("a b")).size == 4
        await client.aclose()
        assert [request.target for request in server.requests] == ["/a%20b", "/a%20b"]
        assert hosts == [f"{BUCKET}.s3.us-east-1.example.test", f"{BUCKET}.s3.eu-west-3.example.test"]


@pytest.mark.parametrize(
    ("replies", "region"),
    [
        ([answer(200, x_amz_bucket_region="eu-west-3")], "eu-west-3"),
        ([answer(403, x_amz_bucket_region="eu-west-3")], "eu-west-3"),
        ([answer(301, x_amz_bucket_region="eu-west-3"), answer(200)], "eu-west-3"),
        ([answer(200, x_amz_bucket_region="us-east-1")], "us-east-1"),
        ([answer(200)], "us-east-1"),
    ],
)
async def test_connect_requests_the_region(make_client: MakeClient, replies: list[Reply], region: str) -> None:
    """``connect()`` requests the region once; after that, URLs can be signed."""
    async with Scripted(replies) as server:
        client = make_client(
            "http://s3.{region}.example.test",
            region=None,
            connector=lambda: aiohttp.TCPConnector(resolver=Everywhere(server.port, [])),
        )
        await client.connect()
        await client.connect()
        assert len(server.requests) == len(replies)
        assert f"%2F{region}%2Fs3" in client.presign("GET", "a")
        await client.aclose()


async def test_redirects(make_client: MakeClient) -> None:
    """A redirect to a host of the same server is followed for this request, and any other redirect is not."""
    near = f"http://other.s3.example.test/{BUCKET}/a"
    for location, expected in ((near, 2), ("http://evil.example/x", 1), ("", 1)):
        hosts: list[str] = []
        async with Scripted([error(307, "TemporaryRedirect", location=location), found(b"")]) as server:
            client = make_client(
                "http://s3.example.test",
                connector=lambda: aiohttp.TCPConnector(resolver=Everywhere(server.port, hosts)),  # noqa: B023
            )
            if expected == 2:
                await client.replace("a", BLOB)
                assert server.requests[1].body == BLOB
            else:
                with pytest.raises(StoreError, match="TemporaryRedirect"):
                    await client.replace("a", BLOB)
            assert len(server.requests) == expected
            assert "evil.example" not in hosts
            await client.aclose()


@pytest.mark.parametrize("minutes", [-20, 20])
async def test_clock_skew_is_corrected(
    gate: Gate, make_client: MakeClient, caplog: pytest.LogCaptureFixture, minutes: int
) -> None:
    """The server's clock is used from then on, also in URLs, and also after ``HEAD``, which reports no reason."""
    gate.ahead = timedelta(minutes=minutes)
    client = make_client(gate.url)
    await client.create("a", BLOB)
    assert [request.status for request in gate.log] == [403, 200]
    assert await read(client) == BLOB
    assert "clock" in caplog.text
    url = URL(client.presign("GET", "a"), encoded=True)
    async with aiohttp.ClientSession() as session, session.get(url) as got:
        assert got.status == 200
    other = make_client(gate.url)
    assert (await other.head("a")).size == len(BLOB)
    assert abs((other.now() - datetime.now(UTC)) - gate.ahead) < timedelta(seconds=3)


async def test_clock_skew_that_cannot_be_corrected(make_client: MakeClient) -> None:
    """The clock is corrected only once per request."""
    async with Scripted([error(403, "RequestTimeTooSkewed", date="Wed, 06 May 2026 07:08:09 GMT")]) as server:
        with pytest.raises(StorePermissionError, match="correct this machine's clock"):
            await make_client(server.url).replace("a", b"x")
        assert len(server.requests) == 2


async def test_credentials_that_expire_are_renewed(gate: Gate, make_client: MakeClient) -> None:
    """A request is signed again once with new credentials, also after ``HEAD``, which reports no reason."""
    asked = 0

    async def provide() -> Credentials:
        nonlocal asked
        asked += 1
        gate.judge.keys[f"ASIA{asked}"] = Key(f"secret{asked}", f"token{asked}")
        return Credentials(f"ASIA{asked}", f"secret{asked}", f"token{asked}", datetime.now(UTC) + timedelta(hours=1))

    client = make_client(gate.url, credentials=provide, multipart_threshold=100_000, part_size=50_000)
    gone = datetime.now(UTC) - timedelta(seconds=1)

    def expire_at(number: int) -> Any:
        came = 0

        def check(_asked: Any) -> None:
            nonlocal came
            came += 1
            if came == number:
                gate.judge.keys = {name: Key(key.secret, key.token, gone) for name, key in gate.judge.keys.items()}

        return check

    gate.before.append(expire_at(3))
    await client.create("a", BLOB[:100_000])
    assert await read(client) == BLOB[:100_000]
    assert asked == 2
    gate.before[:] = [expire_at(1)]
    assert (await client.head("a")).size == 100_000
    assert asked == 3


async def test_credentials_that_stay_expired(gate: Gate, make_client: MakeClient) -> None:
    """Credentials are renewed once per request, then the error is raised."""
    gate.judge.keys["ASIA"] = Key("secret", "token", datetime(2020, 1, 1, tzinfo=UTC))
    client = make_client(gate.url, credentials=Credentials("ASIA", "secret", "token"))
    with pytest.raises(StorePermissionError, match=r"ExpiredToken.*renew"):
        await client.create("a", b"x")
    with pytest.raises(StoreError):
        await client.head("a")
    assert len(gate.log) == 4


# --- reading ---------------------------------------------------------------------------------------------------------


def cut(body: bytes, at: int) -> Reply:
    head = f'HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nETag: "tag"\r\n'
    return raw(f"{head}Last-Modified: {MODIFIED['last_modified']}\r\n\r\n".encode() + body[:at])


async def test_reading_resumes_after_a_break(make_client: MakeClient) -> None:
    """Reading resumes at the next byte as often as it makes progress, if the object has not changed."""
    replies = [cut(BLOB, 5000)]
    for start in (5000, 5001):
        rest = BLOB[start:]
        head = f"HTTP/1.1 206 X\r\nContent-Length: {len(rest)}\r\nContent-Range: bytes {start}-{len(BLOB) - 1}/1\r\n"
        head += f"Last-Modified: {MODIFIED['last_modified']}\r\n\r\n"
        replies.append(raw(head.encode() + (rest[:1] if start == 5000 else rest)))
    async with Scripted(replies) as server:
        assert await read(make_client(server.url, max_retry=1)) == BLOB
        asked = [(request.headers.get("range"), request.headers.get("if-match")) for request in server.requests]
        assert asked == [(None, None), ("bytes=5000-102399", '"tag"'), ("bytes=5001-102399", '"tag"')]


async def test_a_server_that_sends_less_than_requested(make_client: MakeClient) -> None:
    """The missing bytes are requested again."""
    last = MODIFIED["last_modified"]
    replies = [
        cut(BLOB, 5000),
        answer(206, BLOB[5000:6000], content_range="bytes 5000-5999/102400", last_modified=last),
        answer(206, BLOB[6000:], content_range="bytes 6000-102399/102400", last_modified=last),
    ]
    async with Scripted(replies) as server:
        assert await read(make_client(server.url)) == BLOB


@pytest.mark.parametrize(
    ("content_range", "size"),
    [("bytes 0-99/100", 2), ("bytes 11-19/100", 9), ("bytes 0-9/100", 10), ("bytes x-y/z", 2), ("", 2)],
)
async def test_a_response_with_another_range(make_client: MakeClient, content_range: str, size: int) -> None:
    """A response with another range is rejected, because its bytes are not those requested."""
    wrong = found(bytes(size), 206, content_range=content_range)
    async with Scripted([wrong]) as server:
        with pytest.raises(StoreError, match="expected the range 10-11, got "):
            await make_client(server.url).open("a", start=10, end=12)


async def test_a_composite_checksum_is_ignored(make_client: MakeClient) -> None:
    """A composite checksum is not that of the bytes, so it is not compared."""
    headers = {"x-amz-checksum-crc32": "AAAAAA==", "x-amz-checksum-type": "COMPOSITE"}
    async with Scripted([found(**headers)]) as server:
        assert await read(make_client(server.url, checksum="crc32")) == b"body"


async def test_reading_a_range_resumes_after_a_break(gate: Gate, make_client: MakeClient) -> None:
    """The end of the range stays the same."""
    body = bytes(range(100))
    head = (
        f"HTTP/1.1 206 X\r\nContent-Length: 50\r\nContent-Range: bytes 10-59/100\r\n"
        f"Last-Modified: {MODIFIED['last_modified']}\r\n\r\n"
    ).encode()
    more = answer(206, body[30:60], content_range="bytes 30-59/100", last_modified=MODIFIED["last_modified"])
    async with Scripted([raw(head + body[10:30]), more]) as server:
        assert await read(make_client(server.url), start=10, end=60) == body[10:60]
        assert [request.headers["range"] for request in server.requests] == ["bytes=10-59", "bytes=30-59"]
        assert "if-match" not in server.requests[1].headers


async def test_an_object_that_is_replaced_while_it_is_read(make_client: MakeClient) -> None:
    """Reading fails, so that bytes of two versions are never mixed."""
    async with Scripted([cut(BLOB, 5000), error(412, "PreconditionFailed")]) as server:
        with pytest.raises(StoreError, match="replaced while it was read"):
            await read(make_client(server.url))
    async with Scripted([cut(BLOB, 5000), found(BLOB, 206, content_range="bytes 5001-107400/107401")]) as server:
        with pytest.raises(StoreError, match="expected the range"):
            await read(make_client(server.url))
    async with Scripted([cut(BLOB, 5000), error(404, "NoSuchKey")]) as server:
        with pytest.raises(StoreFileNotFoundError):
            await read(make_client(server.url))


async def test_an_object_that_cannot_be_read_to_its_end(make_client: MakeClient) -> None:
    """Reading fails when the attempts make no progress."""
    empty = raw(
        f"HTTP/1.1 206 X\r\nContent-Length: 97400\r\nContent-Range: bytes 5000-102399/102400\r\n"
        f"Last-Modified: {MODIFIED['last_modified']}\r\n\r\n".encode()
    )
    async with Scripted([cut(BLOB, 5000), empty]) as server:
        with pytest.raises(StoreUnavailableError, match="interrupted 3 times, last after 5,000 of 102,400 bytes"):
            await read(make_client(server.url, max_retry=2))
        assert len(server.requests) == 3


async def test_a_server_that_stops_sending(make_client: MakeClient) -> None:
    """Reading resumes with another request."""
    head = f"HTTP/1.1 200 OK\r\nContent-Length: 100\r\nLast-Modified: {MODIFIED['last_modified']}\r\n\r\n".encode()
    rest = answer(206, bytes(60), content_range="bytes 40-99/100", last_modified=MODIFIED["last_modified"])
    async with Scripted([raw(head + bytes(40), pause=30), rest]) as server:
        assert await read(make_client(server.url, read_timeout=0.3)) == bytes(100)


async def test_a_response_of_unknown_length(make_client: MakeClient) -> None:
    """A response without a length is rejected, because truncation could not be detected."""
    head = f"HTTP/1.1 200 OK\r\nLast-Modified: {MODIFIED['last_modified']}\r\n\r\n".encode()
    async with Scripted([raw(head + BLOB[:100]), found(BLOB)]) as server:
        assert await read(make_client(server.url)) == BLOB


@pytest.mark.parametrize("size", [100, 5_000_000])
async def test_a_cancelled_read_loses_no_bytes(make_client: MakeClient, size: int) -> None:
    """Bytes that a cancelled read has received are returned by the next one."""
    body = (bytes(range(250)) * (size // 250 + 1))[:size]
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\nLast-Modified: {MODIFIED['last_modified']}\r\n\r\n".encode()
    go_on = asyncio.Event()
    async with (
        Scripted([halting(head + body, at=len(head) + size // 2, go_on=go_on)]) as server,
        await make_client(server.url).open("a") as file,
    ):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await file.read()
        go_on.set()
        assert await file.read() == body


# --- puts whose answer is lost ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"multipart_threshold": 1, "part_size": 60_000}], ids=["whole", "parts"])
async def test_a_put_whose_response_was_lost(gate: Gate, make_client: MakeClient, options: dict[str, Any]) -> None:
    """The next attempt recognises the existing object as its own."""
    client = make_client(gate.url, **options)
    lost = 0

    def lose(asked: Any, found: Any) -> Any:
        nonlocal lost
        last = "uploadId" in asked.target and asked.method == "POST" if options else asked.method == "PUT"
        if last and not lost:
            lost += 1
            return None
        return found

    gate.after.append(lose)
    etag = await client.create("a", BLOB)
    assert lost == 1
    assert (await client.head("a")).etag == etag
    assert await read(client) == BLOB
    with pytest.raises(StoreFileExistsError):
        await client.create("a", BLOB)


@pytest.mark.parametrize("options", [{}, {"multipart_threshold": 1, "part_size": 60_000}], ids=["whole", "parts"])
async def test_a_put_without_any_response_is_undone(
    gate: Gate, make_client: MakeClient, options: dict[str, Any]
) -> None:
    """If every response is lost, no object and no part is left."""
    client = make_client(gate.url, max_retry=1, **options)
    gate.after.append(
        lambda asked, found: (
            None
            if (asked.method == "POST" and "uploadId" in asked.target) or (asked.method, options) == ("PUT", {})
            else found
        )
    )
    with pytest.raises(StoreUnavailableError, match="in 2 attempts"):
        await client.create("a", BLOB)
    assert [one async for one in client.list()] == []
    assert [one async for one in client.list_uploads()] == []


async def test_the_object_of_another_client_is_not_deleted(gate: Gate, make_client: MakeClient) -> None:
    """An object that another client has put in the meantime is not deleted."""
    client = make_client(gate.url, max_retry=0)

    def replace(asked: Any, found: Any) -> Any:
        if asked.method != "PUT":
            return found
        gate.backend.request("PUT", f"/{BUCKET}/a", b"other", {"Authorization": authorization(REGION)})
        return None

    gate.after.append(replace)
    with pytest.raises(StoreUnavailableError):
        await client.create("a", b"mine")
    assert await read(client) == b"other"


async def test_a_failed_clean_up_is_logged(
    gate: Gate, make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    """The first error is raised, and the log names the object that may be left."""
    client = make_client(gate.url, max_retry=0)
    gate.after.append(lambda asked, found: None if asked.method == "PUT" else found)
    gate.before.append(lambda asked: Refusal(403, "AccessDenied") if asked.method in ("HEAD", "DELETE") else None)
    with pytest.raises(StoreUnavailableError, match="put 'a'"):
        await client.create("a", b"x")
    assert "'a' may be left" in caplog.text
    gate.before.append(lambda asked: Refusal(403, "AccessDenied") if asked.method == "PUT" else None)
    parts = make_client(gate.url, multipart_threshold=1)
    with pytest.raises(StorePermissionError):
        await parts.create("b", b"x")
    assert "parts of an unfinished upload of 'b' may be left" in caplog.text


async def test_a_part_that_fails(gate: Gate, make_client: MakeClient) -> None:
    """A transient error of a part is retried; a permanent one aborts the upload and leaves no part."""
    client = make_client(gate.url, multipart_threshold=1, part_size=30_000)
    failed = []

    def fail(asked: Any) -> Refusal | None:
        if "partNumber=2" in asked.target and len(failed) < 2:
            failed.append(asked)
            return Refusal(503, "SlowDown")
        return None

    gate.before.append(fail)
    await client.create("a", BLOB)
    assert (len(failed), await read(client)) == (2, BLOB)
    gate.before.append(lambda asked: Refusal(403, "AccessDenied") if "partNumber=3" in asked.target else None)
    with pytest.raises(StorePermissionError, match="put part 3 of 'b'"):
        await client.create("b", BLOB)
    assert [one.key async for one in client.list()] == ["a"]
    assert [one async for one in client.list_uploads()] == []


# --- cancellation ----------------------------------------------------------------------------------------------------


async def cancelled(work: Any, reached: asyncio.Event, *, again: bool = False) -> float:
    """Cancel a task as soon as an event is set; return the time that it took to end."""
    task = asyncio.create_task(work)
    await asyncio.wait_for(reached.wait(), 5)
    loop = asyncio.get_running_loop()
    start = loop.time()
    task.cancel()
    if again:
        await asyncio.sleep(0.001)
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    return loop.time() - start


@pytest.mark.parametrize("again", [False, True])
async def test_a_put_cancelled_before_it_is_sent_ends_immediately(make_client: MakeClient, again: bool) -> None:
    """The server cannot have the object, because the last bytes were never sent."""
    reached = asyncio.Event()

    async def stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        reached.set()
        await left.wait()
        writer.transport.abort()

    left = asyncio.Event()
    server = await asyncio.start_server(stall, "127.0.0.1", 0, limit=1000)
    port = server.sockets[0].getsockname()[1]
    client = make_client(f"http://127.0.0.1:{port}", multipart_threshold=10**9)
    assert await cancelled(client.create("a", bytes(50_000_000)), reached, again=again) < 2
    left.set()
    server.close()
    await server.wait_closed()
    await asyncio.sleep(0.01)


@pytest.mark.parametrize("again", [False, True])
async def test_a_put_cancelled_after_it_was_sent_is_undone(gate: Gate, make_client: MakeClient, again: bool) -> None:
    """The call waits for the response, and no object is left."""
    client = make_client(gate.url)
    loop, reached = asyncio.get_running_loop(), asyncio.Event()

    async def slow(asked: Any, found: Any) -> Any:
        if asked.method == "PUT":
            loop.call_soon_threadsafe(reached.set)
            await asyncio.sleep(0.3)
        return found

    gate.after.append(slow)
    await cancelled(client.create("a", BLOB), reached, again=again)
    assert [request.asked.method for request in gate.log] == ["PUT", "HEAD", "DELETE"]
    assert [one async for one in client.list()] == []


async def test_the_wait_for_the_response_to_a_cancelled_put_is_limited(
    make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a few seconds, the client checks whether there is an object to delete."""
    monkeypatch.setattr("aioimageattach.stores.s3._upload._GRACE", 0.3)
    reached = asyncio.Event()

    async def silent(_request: Any, _writer: asyncio.StreamWriter) -> None:
        reached.set()
        await asyncio.sleep(20)

    async with Scripted([silent, error(404, "")]) as server:
        took = await cancelled(make_client(server.url).create("a", b"x"), reached)
        assert 0.2 < took < 2
        assert [request.method for request in server.requests] == ["PUT", "HEAD"]


async def test_a_cancelled_multipart_upload_leaves_no_parts(gate: Gate, make_client: MakeClient) -> None:
    """The upload is aborted before the call returns."""
    client = make_client(gate.url, multipart_threshold=1, part_size=20_000)
    loop, reached = asyncio.get_running_loop(), asyncio.Event()

    async def slow(asked: Any, found: Any) -> Any:
        if "partNumber=3" in asked.target:
            loop.call_soon_threadsafe(reached.set)
            await asyncio.sleep(0.3)
        return found

    gate.after.append(slow)
    await cancelled(client.create("a", BLOB), reached)
    assert [one async for one in client.list_uploads()] == []
    assert [one async for one in client.list()] == []


@pytest.mark.parametrize(
    ("size", "wanted", "expected"),
    [(1, 5, 5), (50_000, 5, 5), (50_001, 5, 6), (5 * 1024**4, 8 * 1024**2, 549_755_814)],
)
def test_the_size_of_parts_limits_their_number(size: int, wanted: int, expected: int) -> None:
    """The largest possible object has at most 10,000 parts."""
    assert part_size_for(size, wanted) == expected
    assert -(-size // expected) <= 10_000


async def test_credentials_that_cannot_be_fetched(make_client: MakeClient) -> None:
    """No request is sent if the source of credentials fails."""

    async def provide() -> Credentials:
        raise RuntimeError("canary")

    async with Scripted([answer()]) as server:
        with pytest.raises(StoreUnavailableError, match="source of the credentials failed: RuntimeError"):
            await make_client(server.url, credentials=provide).create("a", b"x")
        assert server.requests == []
