"""The gallery in a real browser, and what the browser keeps."""

from __future__ import annotations

import asyncio
import re
import shutil
import socket
from collections import Counter
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


async def look(profile: Path, url: str, *options: str) -> None:
    """Let the browser load a page and everything on it."""
    assert CHROMIUM is not None
    process = await asyncio.create_subprocess_exec(
        CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=1200,1600",
        f"--user-data-dir={profile}", *options, url,
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    await asyncio.wait_for(process.wait(), 60)


async def test_a_browser_asks_for_no_picture_twice(tmp_path: Path) -> None:
    """All pictures of a page are there; when the browser is started again and opens it again, none is asked for."""
    if CHROMIUM is None:
        if REQUIRED:
            pytest.fail("a browser is needed: apt-get install chromium")
        pytest.skip("chromium is not installed")
    asked: Counter[tuple[str, int]] = Counter()
    gallery = create_app(tmp_path / "data")

    async def counting(scope: Any, receive: Any, send: Any) -> None:
        async def note(message: Any) -> None:
            if message["type"] == "http.response.start":
                asked[scope["path"], message["status"]] += 1
            await send(message)

        await gallery(scope, receive, note)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(counting, log_level="warning"))
        serving = asyncio.create_task(server.serve([listener]))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with httpx.AsyncClient(base_url=url, timeout=30, limits=CONNECTIONS) as client:
            files = [("photos", (f"{name}.jpg", photos.photo(name))) for name in ("chelsea", "coffee", "rocket")]
            await client.post("/posts", data={"author": "Somebody", "title": "Three"}, files=files)
            async with asyncio.timeout(60):
                while "tile pending" in (await client.get("/")).text:
                    await asyncio.sleep(0.05)
        seen = []
        for _ in range(2):
            asked.clear()
            shot = tmp_path / f"{len(seen)}.png"
            await look(tmp_path / "profile", f"{url}/", f"--screenshot={shot}")
            assert shot.stat().st_size > 100_000
            seen.append({path: status for path, status in asked if path.startswith("/files/")})
        server.should_exit = True
        await serving
    assert len(seen[0]) >= 3
    assert set(seen[0].values()) == {200}
    assert seen[1] == {}
    assert asked["/", 200] == 1


async def test_a_browser_shows_the_pictures_of_a_bucket(tmp_path: Path) -> None:
    """The policy of the pages allows the bucket: the browser asks it for each photograph, and gets it."""
    if CHROMIUM is None or not ENVIRONMENT.exists():
        if REQUIRED:
            pytest.fail("a browser and the S3 server are needed: apt-get install chromium; make install")
        pytest.skip("chromium or the S3 server is not installed")
    with private_bucket() as bucket, socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(create_app(tmp_path / "data", bucket), log_level="warning"))
        serving = asyncio.create_task(server.serve([listener]))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with httpx.AsyncClient(base_url=url, timeout=30, limits=CONNECTIONS) as client:
            files = [("photos", (f"{name}.jpg", photos.photo(name))) for name in ("chelsea", "coffee")]
            await client.post("/posts", data={"author": "Somebody", "title": "Two"}, files=files)
            async with asyncio.timeout(60):
                while "tile pending" in (page := await client.get("/")).text:
                    await asyncio.sleep(0.05)
        shot = tmp_path / "page.png"
        await look(tmp_path / "profile", f"{url}/", f"--screenshot={shot}")
        server.should_exit = True
        await serving
        origin = "{0.scheme}://{0.netloc}".format(urlsplit(bucket.url_of("a")))
    assert f" {origin};" in page.headers["Content-Security-Policy"]
    assert shot.stat().st_size > 100_000


async def overflows(profile: Path, urls: list[str]) -> dict[tuple[str, int], int]:
    """Return by how many pixels pages are wider than the window, by URL and width of the window."""
    assert CHROMIUM is not None
    process = await asyncio.create_subprocess_exec(
        CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-port=0",
        f"--user-data-dir={profile}", "about:blank",
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stderr is not None
    found: dict[tuple[str, int], int] = {}
    try:
        async with asyncio.timeout(60), aiohttp.ClientSession() as client:
            while (
                match := re.search(rb"DevTools listening on ws://([^/]+)/", await process.stderr.readline())
            ) is None:
                pass
            tabs = await (await client.get(f"http://{match[1].decode()}/json")).json()
            async with client.ws_connect(
                next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
            ) as tab:

                async def call(method: str, until: str = "result", **params: Any) -> Any:
                    await tab.send_json({"id": 1, "method": method, "params": params})
                    while (answer := await tab.receive_json()).get("method", "result") != until:
                        pass
                    return answer.get("result")

                await call("Page.enable")
                for url in urls:
                    for width in (320, 768, 1200):
                        await call(
                            "Emulation.setDeviceMetricsOverride",
                            width=width,
                            height=900,
                            deviceScaleFactor=1,
                            mobile=False,
                        )
                        await call("Page.navigate", "Page.loadEventFired", url=url)
                        js = "(page => page.scrollWidth - page.clientWidth)(document.documentElement)"
                        found[url, width] = (await call("Runtime.evaluate", expression=js))["result"]["value"]
    finally:
        process.terminate()
        await process.communicate()
    return found


async def test_no_page_scrolls_sideways(tmp_path: Path) -> None:
    """Pages are as wide as the window, on a phone and on a screen, also where a scroll bar takes a part of it."""
    if CHROMIUM is None:
        if REQUIRED:
            pytest.fail("a browser is needed: apt-get install chromium")
        pytest.skip("chromium is not installed")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(create_app(tmp_path / "data"), log_level="warning"))
        serving = asyncio.create_task(server.serve([listener]))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with httpx.AsyncClient(base_url=url, timeout=30, limits=CONNECTIONS) as client:
            files = [("photos", (f"{name}.jpg", photos.photo(name))) for name in ("chelsea", "coffee", "rocket")]
            await client.post("/posts", data={"author": "Somebody", "title": "Three"}, files=files)
        found = await overflows(tmp_path / "profile", [f"{url}/", f"{url}/authors/1"])
        server.should_exit = True
        await serving
    assert found == dict.fromkeys(found, 0)
    assert len(found) == 6
