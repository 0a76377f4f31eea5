"""A signed URL is valid only for the request for which it was signed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from urllib.parse import parse_qsl, quote, urlencode

import aiohttp
import pytest
from yarl import URL

from aioimageattach.stores.s3 import S3Client
from tests.servers.gate import ACCESS_KEY, Gate
from tests.stores.s3.conftest import Credentials, MakeClient
from tests.stores.s3.conftest import gate as gate
from tests.stores.s3.conftest import make_client as make_client
from tests.stores.s3.conftest import s3_server as s3_server

SECRETS = b"this is not for all"
SIGNATURE = "X-Amz-Signature"


@pytest.fixture
async def client(gate: Gate, make_client: MakeClient) -> S3Client:
    """A client of a bucket with three files."""
    client = make_client(gate.url)
    for key in ("a", "ab", "b"):
        await client.create(key, SECRETS)
    return client


def changed(url: str) -> Iterator[str]:
    """Yield the URL with each of its parts changed, omitted, emptied, truncated and repeated."""
    start, _, query = url.partition("?")
    pairs = parse_qsl(query, keep_blank_values=True)

    def written(pairs: list[tuple[str, str]]) -> str:
        return f"{start}?{urlencode(pairs, quote_via=quote)}"

    assert written(pairs) == url
    for at, (name, value) in enumerate(pairs):
        before, after = pairs[:at], pairs[at + 1 :]
        flipped = chr(ord(value[-1]) ^ 1)
        for other in (
            "",
            value[:-1],
            value[:-1] + flipped,
            value + flipped,
            f" {value}",
            f"{value} ",
            value.swapcase(),
        ):
            if other != value:
                yield written([*before, (name, other), *after])
                yield written([*pairs, (name, other)])
        yield written([*before, *after])
        yield written([*before, (name.swapcase(), value), *after])
    for at, letter in enumerate(signature := dict(pairs)[SIGNATURE]):
        flipped = f"{signature[:at]}{'0' if letter != '0' else '1'}{signature[at + 1 :]}"
        yield written([(name, flipped if name == SIGNATURE else value) for name, value in pairs])
    for seconds in ("0", "-1", "61", "604801", "9" * 30, "NaN", "6e1", "60.0"):
        yield written([(name, seconds if name == "X-Amz-Expires" else value) for name, value in pairs])
    yield url + "&versionId=1"
    yield url + "&response-content-type=text/html"
    yield url.replace("/a?", "/ab?")
    yield url.replace("/a?", "/b?")
    yield url.replace("/a?", "/a/?")
    yield url.replace("/a?", "/A?")
    yield url.replace("/a?", "?prefix=a&")
    yield start


async def test_a_changed_url_is_refused(gate: Gate, client: S3Client) -> None:
    """Any change is rejected, and the response contains nothing of the file."""
    url = client.presign("GET", "a", query={"response-content-disposition": "attachment; filename=b"}, expires_in=60)
    async with aiohttp.ClientSession() as session:

        async def ask(url: str, method: str = "GET") -> tuple[int, bytes]:
            async with session.request(method, URL(url, encoded=True)) as answer:
                return answer.status, await answer.read()

        assert await ask(url) == (200, SECRETS)
        urls = [*changed(url)]
        assert len(urls) > 150
        for other in urls:
            status, body = await ask(other)
            assert status in (400, 403, 404), other.replace(SIGNATURE, "")
            assert SECRETS not in body
        for method in ("HEAD", "PUT", "POST", "DELETE"):
            assert (await ask(url, method))[0] == 403
    assert (await client.head("a")).size == len(SECRETS)


async def test_urls_signed_by_others(gate: Gate, client: S3Client, make_client: MakeClient) -> None:
    """Another secret, user or region results in another signature."""
    others = [
        make_client(gate.url, credentials=Credentials(ACCESS_KEY, "canary-of-a-secret")),
        make_client(gate.url, credentials=Credentials("AKIAOTHER", "canary-of-a-secret")),
        make_client(gate.url, region="eu-west-9"),
    ]
    async with aiohttp.ClientSession() as session:
        for other in others:
            url = URL(other.presign("GET", "a"), encoded=True)
            async with session.get(url, allow_redirects=False) as answer:
                assert answer.status in (301, 400, 403)
                assert SECRETS not in await answer.read()


@pytest.mark.parametrize("seconds", [0, -1, 7 * 86_400 + 1, 10**30, math.nan, math.inf])
def test_invalid_lifetimes(seconds: float, client: S3Client) -> None:
    """Lifetimes that a server would reject, or treat as unlimited, are not signed."""
    with pytest.raises((ValueError, TypeError)):
        client.presign("GET", "a", expires_in=seconds)  # type: ignore[arg-type]
