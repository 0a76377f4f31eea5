"""Pictures fetched from URLs that users provide."""

from __future__ import annotations

import asyncio
import gzip
import socket
import sys
from collections.abc import AsyncIterator
from ipaddress import ip_address
from typing import Any

import pytest
from aiohttp import web

from aioimageattach.exc import (
    DeclarationError,
    FetchError,
    ForbiddenAddressError,
    ImageError,
    ImageTooLargeError,
    UnreadableImageError,
)
from aioimageattach.fetch import Address, _is_public, fetch
from aioimageattach.stores import MemoryStore
from tests import photos
from tests.databases import Database
from tests.entity.models import Base, User, started

HERE = ip_address("127.0.0.1")


def is_here(address: Address) -> bool:
    return address == HERE


class Server:
    """A local server that records its requests."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.requests: list[web.Request] = []


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    """Serve pictures, redirects, and responses that must be refused."""

    async def respond(request: web.Request) -> web.StreamResponse:
        made.requests.append(request)
        match request.path:
            case "/a.png":
                return web.Response(body=photos.png())
            case "/redirect":
                raise web.HTTPFound(request.query["to"])
            case "/nowhere":
                return web.Response(status=302)
            case "/missing":
                raise web.HTTPNotFound
            case "/zipped":
                return web.Response(body=gzip.compress(photos.png()), headers={"Content-Encoding": "gzip"})
            case "/text":
                return web.Response(text="no picture")
        response = web.StreamResponse(headers={"Content-Length": "100"} if request.path == "/cut" else {})
        await response.prepare(request)
        await response.write(b"x" * 50)
        if request.path == "/cut":
            assert request.transport is not None
            request.transport.close()
        for _ in range(100 if request.path == "/endless" else 0):
            await response.write(b"x" * 50_000)
            await asyncio.sleep(0)
        await asyncio.Event().wait()
        return response

    app = web.Application()
    app.router.add_get("/{name}", respond)
    runner = web.AppRunner(app, shutdown_timeout=0.01, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made = Server(f"http://127.0.0.1:{runner.addresses[0][1]}")
    yield made
    await runner.cleanup()


async def fetched(url: str, **options: Any) -> bytes:
    spool = await fetch(url, **{"max_bytes": 1_000_000, "is_allowed": is_here, **options})
    async with spool.open() as file:
        return await file.read()


async def test_a_file_is_fetched(server: Server) -> None:
    """Relative and absolute redirects are followed, and neither cookies nor credentials are sent."""
    assert await fetched(f"{server.url}/a.png") == photos.png()
    assert await fetched(f"{server.url}/redirect?to=/a.png") == photos.png()
    assert await fetched(f"{server.url}/redirect?to={server.url}/a.png") == photos.png()
    assert [request.headers["Accept-Encoding"] for request in server.requests] == ["identity"] * 5
    assert not any({"Cookie", "Authorization"} & set(request.headers) for request in server.requests)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "0x7f000001", "127.1", "[::ffff:127.0.0.1]"])
async def test_no_spelling_of_a_local_address_is_allowed(host: str, server: Server) -> None:
    """The address is checked, not the spelling of the host; nothing is sent to a private address."""
    url = f"http://{host}:{server.url.rpartition(':')[2]}/a.png"
    with pytest.raises(FetchError) as caught:
        await fetch(url, max_bytes=1_000_000)
    assert isinstance(caught.value, ForbiddenAddressError) or "cannot be" in str(caught.value)
    assert server.requests == []


async def test_each_redirect_is_checked(server: Server) -> None:
    """A redirect to a forbidden address is refused before anything is sent there."""
    port = server.url.rpartition(":")[2]
    with pytest.raises(ForbiddenAddressError, match=r"127\.0\.0\.2; nothing was sent to it"):
        await fetched(f"{server.url}/redirect?to=http://127.0.0.2:{port}/a.png")
    assert [request.path for request in server.requests] == ["/redirect"]


async def test_a_name_whose_address_changes(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The address is checked again if a name resolves to another one at the second lookup."""
    real, answers = socket.getaddrinfo, iter(["127.0.0.1", "127.0.0.2"])

    def rebound(host: str, *args: Any, **kwargs: Any) -> Any:
        return real(next(answers) if host == "rebound.example" else host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", rebound)
    url = f"http://rebound.example:{server.url.rpartition(':')[2]}"
    with pytest.raises(ForbiddenAddressError):
        await fetched(f"{url}/redirect?to={url}/a.png")
    assert [request.path for request in server.requests] == ["/redirect"]


@pytest.mark.parametrize(
    ("path", "options", "kind", "message"),
    [
        ("endless", {}, ImageTooLargeError, "more than 1,000,000 bytes"),
        ("slow", {"timeout": 0.2}, FetchError, r"within 0\.2 seconds"),
        ("redirect?to=/redirect?to=/a.png", {"max_redirects": 0}, FetchError, "at most 0 redirects"),
        ("nowhere", {}, FetchError, "expected an http or https URL"),
        ("redirect?to=file:///etc/passwd", {}, FetchError, "expected an http or https URL"),
        ("redirect?to=http://a:b@127.0.0.1/", {}, FetchError, "without a user name"),
        ("missing", {}, FetchError, "expected status 200, got 404"),
        ("zipped", {}, FetchError, "got 'gzip'"),
        ("cut", {}, FetchError, "ClientPayloadError"),
    ],
)
async def test_each_violation_is_an_error(
    path: str, options: dict[str, Any], kind: type[Exception], message: str, server: Server
) -> None:
    """Exceeding the limits on bytes, time or redirects raises an error, and so does an invalid response."""
    with pytest.raises(kind, match=message) as caught:
        await fetched(f"{server.url}/{path}", **options)
    assert isinstance(caught.value, ImageError)
    assert getattr(caught.value, "status", None) == (404 if path == "missing" else None)


@pytest.mark.parametrize(
    "url",
    ["", "a.png", "/a.png", "file:///etc/passwd", "gopher://example.com/", "http://", "http://[::1", "http://h:99999/"],
)
async def test_invalid_urls_are_refused(url: str) -> None:
    """Other schemes and invalid URLs are refused before any DNS lookup."""
    with pytest.raises(FetchError):
        await fetched(url)


async def test_a_refused_connection() -> None:
    """A refused connection raises an error of this library that does not contain the secrets of the URL."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(FetchError, match="cannot be fetched: ClientConnectorError") as caught:
            await fetched(f"http://127.0.0.1:{taken.getsockname()[1]}/?token=secret")
    assert "secret" not in str(caught.value)


async def test_a_picture_is_attached(server: Server, sqlite_database: Database) -> None:
    """A picture within the limits of the image class is attached; any other file is refused and changes nothing."""
    sessions = await started(sqlite_database, Base.metadata, MemoryStore(), expire_on_commit=False)
    async with sessions.begin() as session:
        session.add(user := User(id=1))
        image = await user.picture.from_url(f"{server.url}/a.png", is_allowed=is_here)
        with pytest.raises(UnreadableImageError):
            await user.picture.from_url(f"{server.url}/text", is_allowed=is_here)
        with pytest.raises(ForbiddenAddressError):
            await user.picture.from_url(f"{server.url}/a.png")
    assert user.picture.original is image
    assert await image.make_blob() == photos.png()


async def test_without_aiohttp(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without aiohttp, the error names the extra to install."""
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    with pytest.raises(DeclarationError, match=r"pip install 'aioimageattach\[fetch\]'"):
        await fetched("https://example.com/")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("93.184.215.14", True),
        ("2606:2800:21f:cb07:6820:80da:af6b:8b2c", True),
        ("::ffff:93.184.215.14", True),
        ("64:ff9b::93.184.215.14", True),
        *[
            (text, False)
            for text in (
                "0.0.0.0", "10.1.2.3", "100.64.0.1", "127.0.0.1", "169.254.169.254", "172.16.0.1", "192.0.0.1",
                "192.0.2.1", "192.88.99.1", "192.168.0.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1",
                "239.255.255.250", "240.0.0.1", "255.255.255.255", "::", "::1", "::127.0.0.1", "::ffff:10.0.0.1",
                "::ffff:169.254.169.254", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "100::1",
                "2001::1", "2001:db8::1", "2002:7f00:1::", "3fff::1", "5f00::1", "fc00::1", "fd00:ec2::254", "fe80::1",
                "fec0::1", "ff02::1",
            )
        ],
    ],
)  # fmt: skip
def test_public_addresses(text: str, expected: bool) -> None:
    """Only addresses of the public internet are allowed. Addresses embedded in IPv6 are checked, too."""
    assert _is_public(ip_address(text)) is expected
