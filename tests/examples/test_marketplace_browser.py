"""The marketplace in a real browser: the work of a seller, and the files that the browser loads."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import uvicorn
from PIL import Image

from examples.marketplace.app import create_app
from examples.marketplace.models import create_engine, create_tables
from tests import photos
from tests.examples.browser import Browser, browser
from tests.examples.market import PASSWORD, Buckets, buckets

SCREENSHOTS = os.environ.get("AIOIMAGEATTACH_SCREENSHOTS")
SHOWN = "[...document.images].every((one) => one.complete && one.naturalWidth > 0)"
IDS = "[...document.querySelectorAll('li[data-id]')].map((one) => one.dataset.id)"


@pytest.fixture(scope="module")
def s3() -> Iterator[Buckets]:
    """Two buckets, started when a test first uses them."""
    with buckets() as found:
        yield found


@pytest.fixture(params=["directory", pytest.param("s3", marks=pytest.mark.thorough)])
async def address(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[str]:
    """The URL of a marketplace served by uvicorn."""
    settings = {
        "DATABASE_URL": f"sqlite+aiosqlite:///{tmp_path}/marketplace.sqlite",
        "DATA_DIR": str(tmp_path),
        "SECRET_KEY": "a secret of the tests",
    }
    if request.param == "s3":
        found: Buckets = request.getfixturevalue("s3")
        for name, value in found.environment().items():
            monkeypatch.setenv(name, value)
        settings |= found.settings()
    await create_tables(create_engine(settings["DATABASE_URL"]))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(create_app(settings), log_level="warning"))
        serving = asyncio.create_task(server.serve([listener]))
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        await serving


def written(folder: Path, name: str, blob: bytes) -> Path:
    """Write a file for the seller."""
    (path := folder / name).write_bytes(blob)
    return path


async def in_order(tab: Browser, ids: list[str]) -> None:
    """Wait until the page has loaded these pictures in this order."""
    await tab.until(f"JSON.stringify({IDS}) === JSON.stringify({ids!r}) && {SHOWN}")


async def test_a_seller_at_work(address: str, tmp_path: Path) -> None:
    """A seller signs up, offers, uploads, sorts, describes, replaces and deletes; the browser loads the right files."""
    wide = photos.saved(photos.opened("hubble", (2000, 1500)), "JPEG")
    files = [written(tmp_path, "wide.jpg", wide)]
    files += [written(tmp_path, f"{name}.jpg", photos.photo(name)) for name in ("chelsea", "coffee")]
    async with browser(tmp_path / "profile") as tab:
        await tab.window(1200)
        await tab.show(f"{address}/")
        await tab.fill(name="Mia", password=PASSWORD)
        await tab.click("[data-send='POST /api/users']")
        await tab.until("document.body.textContent.includes('Sign out')")

        await tab.fill(title="A telescope", price="1500.00", description="It has seen much.")
        await tab.click("[data-send='POST /api/products'] button")
        await tab.until("location.pathname === '/products/1'")
        await tab.choose("[name=photos]", *files)
        await tab.click("[data-send$='/photos'] button")
        await tab.until(f"{IDS}.length === 3 && {SHOWN}")
        ids = await tab.run(IDS)

        for width, scale, chosen in ((400, 1, 480), (1200, 1, 960), (1200, 2, 1920)):
            await tab.window(width, scale=scale)
            await tab.show(f"{address}/products/1")
            await tab.until(SHOWN)
            source, natural = await tab.run(
                "[document.images[0].currentSrc, document.images[0].naturalWidth * devicePixelRatio]"
            )
            assert f".{chosen}x" in source, (width, scale, natural)
            assert source.endswith(".avif")

        await tab.window(1200)
        await tab.click("[data-move='1'] button")
        await in_order(tab, [ids[1], ids[0], ids[2]])
        await tab.fill(caption="Chelsea")
        await tab.click("[data-send^=PATCH] button")
        await tab.until("document.querySelector('figcaption').textContent === 'Chelsea'")
        assert await tab.run("document.images[0].alt") == "Chelsea"

        before = await tab.run("document.images[0].currentSrc")
        await tab.choose("[data-send^=PUT] [type=file]", written(tmp_path, "rocket.jpg", photos.photo("rocket")))
        await tab.click("[data-send^=PUT] button")
        await tab.until(f"document.images[0].currentSrc !== {before!r} && {SHOWN}")
        await in_order(tab, [ids[1], ids[0], ids[2]])
        assert await tab.run("document.images[0].alt") == "Chelsea"

        await tab.click(f"[data-id='{ids[2]}'] [data-send^=DELETE] button")
        await in_order(tab, [ids[1], ids[0]])
        json = await tab.run("fetch('/api/products/1').then((answer) => answer.json())")
        assert [photo["photo_id"] for photo in json["photos"]] == [ids[1], ids[0]]
        assert json["photos"][0]["width"] == 640
        assert tab.errors == []

        await tab.choose("[name=photos]", written(tmp_path, "letter.jpg", b"Dear Mia"))
        await tab.click("[data-send$='/photos'] button")
        await tab.until("document.getElementById('problem').textContent.includes('expected an image')")
        assert await tab.run(IDS) == [ids[1], ids[0]]

        for url in ("/", "/products/1"):
            for width in (320, 768, 1200):
                await tab.window(width)
                await tab.show(address + url)
                assert await tab.overflow() == 0, (url, width)
        await tab.until(SHOWN)
        await tab.screenshot(tmp_path / "page.png")
        assert len(Image.open(tmp_path / "page.png").convert("RGB").getcolors(2**24) or ()) > 5_000
