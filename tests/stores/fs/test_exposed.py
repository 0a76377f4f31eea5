"""``HttpExposedFileSystemStore``: files served by the application, and their URLs."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from aioimageattach.exc import ContextError
from aioimageattach.key import ImageKey, make_revision
from aioimageattach.stores.fs import HttpExposedFileSystemStore
from aioimageattach.testing import StoreContract
from tests.servers.asking import Client

KEY = ImageKey("photo", None, 320, 200, "image/jpeg", "01jd0000000000000000000000")
NAME = "photo/01jd0/00/01jd0000000000000000000000.320x200.jpg"
ANY = ["*"]


class TestHttpExposedFileSystemStore(StoreContract):
    """The store passes the conformance suite."""

    @pytest.fixture
    async def store(self, tmp_path: Path) -> HttpExposedFileSystemStore:
        return HttpExposedFileSystemStore(tmp_path, host_url_getter=lambda: "https://example.com")


def page(store: HttpExposedFileSystemStore) -> Any:
    """Return an application whose response is a URL of the store, calculated after other requests had time to start."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(0)
        try:
            status, text = 200, store.url_of(NAME)
        except ContextError as error:
            status, text = 500, str(error)
        await asyncio.sleep(0)
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": text.encode()})

    return app


async def located(store: HttpExposedFileSystemStore, *hosts: str, **scope: Any) -> str:
    told = await Client(store.asgi_middleware(page(store))).ask("/", *(("Host", host) for host in hosts), **scope)
    return told.body.decode()


@pytest.mark.parametrize(
    ("host", "scope", "expected"),
    [
        ("localhost", {}, "http://localhost/__images__/"),
        ("LocalHost:8000", {"scheme": "http"}, "http://localhost:8000/__images__/"),
        ("127.0.0.1:1", {"scheme": "https"}, "https://127.0.0.1:1/__images__/"),
        ("[::1]:80", {}, "http://[::1]:80/__images__/"),
        ("localhost", {"root_path": "/shop"}, "http://localhost/shop/__images__/"),
        ("localhost", {"root_path": "/a b/ä/"}, "http://localhost/a%20b/%C3%A4/__images__/"),
        ("localhost", {"type": "websocket", "scheme": "wss"}, "https://localhost/__images__/"),
        ("localhost", {"type": "websocket", "scheme": "ws"}, "http://localhost/__images__/"),
    ],
)
async def test_urls_use_the_host_of_the_request(
    tmp_path: Path, host: str, scope: dict[str, Any], expected: str
) -> None:
    """URLs consist of the scheme and host of the request and the path at which the application is mounted."""
    assert await located(HttpExposedFileSystemStore(tmp_path), host, **scope) == expected + NAME


@pytest.mark.parametrize(
    ("allowed", "host", "is_allowed"),
    [
        (None, "testserver", True),
        (None, "example.com", False),
        (None, "localhost.evil.org", False),
        (["example.com"], "example.com:8443", True),
        (["Example.com"], "EXAMPLE.com.", True),
        (["example.com"], "localhost", False),
        (["example.com"], "shop.example.com", False),
        (["*.example.com"], "shop.example.com", True),
        (["*.example.com"], "example.com", False),
        (["*.example.com"], "evilexample.com", False),
        (ANY, "anything.at-all", True),
        (ANY, "", False),
        (ANY, "a b", False),
        (ANY, "a/b", False),
        (ANY, "a@b", False),
        (ANY, "a:b", False),
        (ANY, 'a"><script>', False),
        (ANY, "a\r\nX: y", False),
        (ANY, "a..b", False),
        (ANY, "ä", False),
        (ANY, "a?b", False),
        (ANY, "a#b", False),
        (ANY, "a:123456", False),
    ],
)
async def test_allowed_hosts(tmp_path: Path, allowed: list[str] | None, host: str, is_allowed: bool) -> None:
    """Only the listed hosts are allowed, by default those of local development, and never an invalid one."""
    options = {} if allowed is None else {"allowed_hosts": allowed}
    found = await located(HttpExposedFileSystemStore(tmp_path, **options), host)  # type: ignore[arg-type]
    assert found.endswith(f"/__images__/{NAME}") is is_allowed
    if not is_allowed:
        assert "allowed_hosts" in found
        assert "host_url_getter" in found


@pytest.mark.parametrize("hosts", [(), ("localhost", "localhost")])
async def test_a_request_without_one_host(tmp_path: Path, hosts: tuple[str, ...]) -> None:
    """A request without a Host header, or with several, has no host."""
    assert "expected a request for a host in allowed_hosts" in await located(
        HttpExposedFileSystemStore(tmp_path), *hosts
    )


async def test_no_request_sees_the_host_of_another(tmp_path: Path) -> None:
    """The host of a request affects neither concurrent nor later requests."""
    store = HttpExposedFileSystemStore(tmp_path, allowed_hosts=ANY)
    app = Client(store.asgi_middleware(page(store)))
    hosts = [f"host-{number}.example" for number in range(200)]
    answers = await asyncio.gather(*(app.ask("/", ("Host", host)) for host in hosts))
    assert [told.body.decode() for told in answers] == [f"http://{host}/__images__/{NAME}" for host in hosts]
    with pytest.raises(ContextError):
        store.url_of(NAME)


async def test_the_host_is_forgotten_after_an_error(tmp_path: Path) -> None:
    """An error of the application propagates, and the host of the request is no longer used."""
    store = HttpExposedFileSystemStore(tmp_path)

    async def fail(scope: Any, receive: Any, send: Any) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await Client(store.asgi_middleware(fail)).ask("/", ("Host", "localhost"))
    with pytest.raises(ContextError):
        store.url_of(NAME)


async def test_two_stores_in_one_application(tmp_path: Path) -> None:
    """Each store has its own URLs and its own list of hosts."""
    one = HttpExposedFileSystemStore(tmp_path / "1", "one", allowed_hosts=["localhost"])
    two = HttpExposedFileSystemStore(tmp_path / "2", "two", allowed_hosts=["other"])
    for store, host, expected in ((one, "localhost", "one"), (two, "other", "two"), (two, "localhost", None)):
        app = one.asgi_middleware(two.asgi_middleware(page(store)))
        told = await Client(app).ask("/", ("Host", host))
        assert told.body.decode().startswith(f"http://{host}/{expected}/") is (expected is not None)


@pytest.mark.parametrize("call", ["url_of", "get_url", "base_url"])
def test_no_url_without_a_host(tmp_path: Path, call: str) -> None:
    """The error is a ContextError that names both remedies."""
    store = HttpExposedFileSystemStore(tmp_path)
    with pytest.raises(ContextError, match=r"host_url_getter.*app = store\.asgi_middleware\(app\)"):
        if call == "url_of":
            store.url_of(NAME)
        elif call == "get_url":
            store.get_url("photo", None, 320, 200, "image/jpeg", revision=KEY.revision)
        else:
            _ = store.base_url


@pytest.mark.parametrize("url", ["https://example.com", "https://example.com/"])
async def test_the_getter_takes_precedence_over_the_request(tmp_path: Path, url: str) -> None:
    """``host_url_getter`` takes precedence inside a request, and works outside of one."""
    store = HttpExposedFileSystemStore(tmp_path, "/a/b/", lambda: url)
    assert store.url_of(NAME) == f"https://example.com/a/b/{NAME}"
    assert await located(store, "evil.example") == f"https://example.com/a/b/{NAME}"


@pytest.mark.parametrize("root", ["", "/shop"])
async def test_a_url_is_served(tmp_path: Path, root: str) -> None:
    """The URL that the store returns in one request can be requested next, with and without a root path."""
    store = HttpExposedFileSystemStore(tmp_path, cors=True)
    blob = os.urandom(1000)
    await store.put(KEY, blob, reproducible=False)
    url = await located(store, "localhost", root_path=root)
    told = await Client(store.asgi_middleware(page(store))).ask(url.removeprefix("http://localhost"), root_path=root)
    assert (told.status, told.body, told.headers["access-control-allow-origin"]) == (200, blob, "*")
    mounted = await Client(store.server).ask(f"/{NAME}")
    assert mounted.body == blob


async def test_files_are_served_to_any_host(tmp_path: Path) -> None:
    """The list of hosts restricts the URLs that the store returns, not the requests that it answers."""
    store = HttpExposedFileSystemStore(tmp_path)
    await store.put(KEY, b"data", reproducible=False)
    told = await Client(store.asgi_middleware(page(store))).ask(f"/__images__/{NAME}", ("Host", "example.com"))
    assert told.body == b"data"


async def test_the_lifespan_is_passed_on(tmp_path: Path) -> None:
    """Lifespan events reach the application, and provide no host."""
    store = HttpExposedFileSystemStore(tmp_path)
    told = await Client(store.asgi_middleware(page(store))).ask("/", type="lifespan")
    assert told.status == 500


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"prefix": ""}, "expected a path"),
        ({"prefix": "../x"}, "expected a path"),
        ({"allowed_hosts": "example.com"}, "expected a list of hosts"),
        ({"cors": "example.com"}, "a list of origins"),
        ({"open_files": 0}, "at least 1"),
    ],
)
def test_invalid_options(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    """An invalid option is refused immediately."""
    with pytest.raises(ValueError, match=words):
        HttpExposedFileSystemStore(tmp_path, **options)


def test_the_repr(tmp_path: Path) -> None:
    """The repr contains the directory and the prefix."""
    assert repr(HttpExposedFileSystemStore(tmp_path)) == f"HttpExposedFileSystemStore({str(tmp_path)!r}, '__images__')"


async def test_locate_appends_nothing(tmp_path: Path) -> None:
    """A URL that contains the revision gets no suffix, and that of a legacy file gets the time."""
    store = HttpExposedFileSystemStore(tmp_path, host_url_getter=lambda: "https://example.com/")
    revision = make_revision()
    assert store.get_url("photo", None, 1, 1, "image/png", revision=revision).endswith(f"/{revision}.1x1.png")
    assert store.get_url("photo", 7, 1, 1, "image/png") == "https://example.com/__images__/photo/7/0/7.1x1.png"
