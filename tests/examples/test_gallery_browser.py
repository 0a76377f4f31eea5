"""The gallery in a real browser, with the browser's cache."""

from __future__ import annotations

import asyncio
import re
import shutil
import socket
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import httpx
import pytest
import uvicorn

from examples.gallery.app import create_app
from examples.gallery.bucket import private_bucket
from tests import photos
from tests.databases import REQUIRED
from tests.servers.ministack import ENVIRONMENT

CONNECTIONS = httpx.Limits(keepalive_expiry=2)  # uvicorn closes idle ones after five seconds
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
THREE = [photos.photo(name) for name in ("chelsea", "coffee", "rocket")]
PICTURES = """Promise.all([...document.images].map(async (image) => {
  while (!image.complete) await new Promise((done) => setTimeout(done, 20));
  return [image.currentSrc, image.naturalWidth, image.clientWidth];
}))"""
"""The URL, the width and the displayed width of each image of a page, once all are loaded or have failed."""


@pytest.fixture(autouse=True)
def chromium() -> None:
    """Skip the tests if no browser is installed."""
    if CHROMIUM is None:
        if REQUIRED:
            pytest.fail("a browser is needed: apt-get install chromium")
        pytest.skip("chromium is not installed")


class Tab:
    """A tab of a browser.

    Args:
        socket: Connection to its debugger.
    """

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self.violations: list[str] = []

    async def call(self, method: str, *, until: str | None = None, **params: Any) -> Any:
        """Call a method of the debugger, and wait for its result or for an event."""
        await self._socket.send_json({"id": 1, "method": method, "params": params})
        while True:
            answer = await self._socket.receive_json()
            if answer.get("method") == "Log.entryAdded":
                entry = answer["params"]["entry"]
                self.violations += [entry["text"]] if "Content Security Policy" in entry["text"] else []
            if "error" in answer or answer.get("method") == until:
                return answer.get("result")

    async def open(self, url: str, width: int, *, density: int = 1, height: int = 3000) -> None:
        """Load a page in a window with a given width."""
        size = {"width": width, "height": height, "deviceScaleFactor": density, "mobile": False}
        await self.call("Emulation.setDeviceMetricsOverride", **size)
        await self.call("Page.navigate", until="Page.loadEventFired", url=url)

    async def evaluate(self, script: str) -> Any:
        """Return the value of an expression, after awaiting it."""
        answer = await self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        return answer["result"].get("value")


@asynccontextmanager
async def browsing(profile: Path) -> AsyncGenerator[Tab, None]:
    """Start a browser, and yield its tab."""
    assert CHROMIUM is not None
    process = await asyncio.create_subprocess_exec(
        CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-port=0",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        f"--user-data-dir={profile}", "about:blank",
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stderr is not None
    try:
        async with asyncio.timeout(60), aiohttp.ClientSession() as client:
            while (
                match := re.search(rb"DevTools listening on ws://([^/]+)/", await process.stderr.readline())
            ) is None:
                pass
            tabs = await (await client.get(f"http://{match[1].decode()}/json")).json()
            url = next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
            async with client.ws_connect(url, max_msg_size=0) as connection:
                tab = Tab(connection)
                await tab.call("Page.enable")
                await tab.call("Log.enable")
                yield tab
                await tab.call("Browser.close")  # writes its cache
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()


@asynccontextmanager
async def serving(app: Any, *blobs: bytes, avatar: bool = False) -> AsyncGenerator[str, None]:
    """Serve a gallery with one post of some photographs; yield its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        task = asyncio.create_task(server.serve([listener]))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        try:
            async with httpx.AsyncClient(base_url=url, timeout=30, limits=CONNECTIONS) as client:
                files = [("photos", blob) for blob in blobs]
                answer = await client.post("/posts", data={"author": "Somebody", "title": "A title"}, files=files)
                assert answer.status_code == 303
                if avatar:
                    await client.post("/authors/1/avatar", files={"avatar": photos.photo("astronaut")})
            yield f"{url}/"
        finally:
            server.should_exit = True
            await task


async def test_a_browser_requests_each_picture_once(tmp_path: Path) -> None:
    """All images of a page are shown; after a restart, the browser requests none of them again."""
    asked: Counter[tuple[str, int]] = Counter()
    gallery = create_app(tmp_path / "data")

    async def counting(scope: Any, receive: Any, send: Any) -> None:
        async def note(message: Any) -> None:
            if message["type"] == "http.response.start":
                asked[scope["path"], message["status"]] += 1
            await send(message)

        await gallery(scope, receive, note)

    seen = []
    async with serving(counting, *THREE, avatar=True) as url:
        for _ in range(2):
            asked.clear()
            async with browsing(tmp_path / "profile") as tab:
                await tab.open(url, 1200)
                pictures = await tab.evaluate(PICTURES)
            assert all(width > 0 for source, width, _ in pictures if source)
            seen.append({path: status for path, status in asked if path.startswith(("/files/", "/thumbnails/"))})
            assert asked["/", 200] == 1
    assert sorted(path.split("/")[2] for path in seen[0]) == ["avatar.t", "photo.t", "photo.t", "photo.t"]
    assert set(seen[0].values()) == {200}
    assert seen[1] == {}


@pytest.mark.parametrize(
    ("viewport", "density", "expected"), [(390, 1, 640), (390, 2, 1280), (1280, 1, 1280), (1280, 2, 2560)]
)
async def test_a_browser_loads_the_width_that_fits(tmp_path: Path, viewport: int, density: int, expected: int) -> None:
    """The browser loads the narrowest file with a pixel per screen pixel, and the viewer shows the same one."""
    async with (
        serving(create_app(tmp_path / "data"), photos.large()) as url,
        browsing(tmp_path / "profile") as tab,
    ):
        await tab.open(url, viewport, density=density)
        [tile] = [source for source, *_ in await tab.evaluate(PICTURES) if "/photo.t/" in source]
        await tab.evaluate("document.querySelector('.open').click()")
        shown = {source for source, *_ in await tab.evaluate(PICTURES) if "/photo.t/" in source}
        assert await tab.evaluate("document.querySelector('#viewer').open")
        assert tab.violations == []
    assert shown == {tile}
    assert f".{expected}x" in tile
    assert tile.endswith(".webp")


async def test_a_browser_shows_the_pictures_of_a_bucket(tmp_path: Path) -> None:
    """The policy of the pages permits the bucket, to which the URLs of marked thumbnails point."""
    if not ENVIRONMENT.exists():
        if REQUIRED:
            pytest.fail("the S3 server is needed: make install")
        pytest.skip("the S3 server is not installed")
    with private_bucket() as bucket:
        origin = "{0.scheme}://{0.netloc}/".format(urlsplit(bucket.url_of("a")))
        async with (
            serving(create_app(tmp_path / "data", bucket), *THREE[:2], avatar=True) as url,
            browsing(tmp_path / "profile") as tab,
        ):
            await tab.open(url, 1200)
            found = {source: width for source, width, _ in await tab.evaluate(PICTURES) if ".t/" in source}
            assert tab.violations == []
    assert sum(source.startswith(origin) for source in found) == 1
    assert sum(source.startswith(f"{url}thumbnails/") for source in found) == 2
    assert all(width > 0 for width in found.values())


async def test_no_page_scrolls_sideways(tmp_path: Path) -> None:
    """Pages fit the width of the window, on a phone and on a screen, even if a scroll bar covers a part of it."""
    found = {}
    async with (
        serving(create_app(tmp_path / "data"), *THREE) as url,
        browsing(tmp_path / "profile") as tab,
    ):
        for page in ("", "authors/1"):
            for width in (320, 768, 1200):
                await tab.open(f"{url}{page}", width, height=900)
                script = "(page => page.scrollWidth - page.clientWidth)(document.documentElement)"
                found[page, width] = await tab.evaluate(script)
    assert found == dict.fromkeys(found, 0)
    assert len(found) == 6
