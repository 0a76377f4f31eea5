"""The gallery in a real browser, and what the browser keeps."""

from __future__ import annotations

import asyncio
import shutil
import socket
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

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
