"""Declared thumbnails in a real browser."""

from __future__ import annotations

import asyncio
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Mount, Route

from aioimageattach import Image, Placeholder, Srcset, store_context
from aioimageattach.stores import MemoryStore
from aioimageattach.thumbnails import ThumbnailServer
from tests.databases import REQUIRED
from tests.photos import opened, saved
from tests.thumbnails.models import put

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
VIEWPORTS = (400, 700, 1200)
WIDTHS = (320, 640, 1280)
PAGE = """<!doctype html><html lang="en"><title>Page</title>
<style>body {{ margin: 0 }} img {{ width: 100%; height: auto }}
@media (min-width: 60rem) {{ img {{ width: 33vw }} }}</style>{picture}<p>Below</p>"""
FRAMES = """<!doctype html><title></title>{frames}<script>
async function look(frame) {{
  const image = frame.contentDocument.querySelector("img");
  while (!image.complete || !image.naturalWidth) await new Promise(done => setTimeout(done, 20));
  await image.decode();
  let shift = 0;
  for (const entry of frame.contentWindow.shifts) shift += entry.value;
  return [image.currentSrc, image.clientWidth, image.clientHeight, shift];
}}
addEventListener("load", async () => {{
  const found = await Promise.all([...document.querySelectorAll("iframe")].map(look));
  await fetch("/found", {{method: "POST", body: JSON.stringify(found)}});
}});
</script>"""
SHIFTS = """<script>shifts = []; new PerformanceObserver(list => shifts.push(...list.getEntries()))
.observe({type: "layout-shift", buffered: true})</script>"""


class Base(DeclarativeBase):
    """The declarative base."""


class Photo(Base, Image, Placeholder):
    """A photo with one thumbnail in two formats and a fallback format."""

    __tablename__ = "photo"
    __thumbnails__ = {"card": Srcset(WIDTHS, formats=["avif", "webp"], sizes="(min-width: 60rem) 33vw, 100vw")}
    id: Mapped[int] = mapped_column(primary_key=True)


def chosen(viewport: int, density: int) -> int:
    """Return the smallest width with at least one pixel per pixel of the screen."""
    needed = density * viewport * (0.33 if viewport >= 960 else 1)
    return next((width for width in WIDTHS if width >= needed), WIDTHS[-1])


@pytest.mark.parametrize("density", [1, 2])
async def test_a_browser_loads_the_file_that_fits(tmp_path: Path, density: int) -> None:
    """The browser loads its preferred format in the right width, without a layout shift."""
    if CHROMIUM is None:
        if REQUIRED:
            pytest.fail("a browser is needed: apt-get install chromium")
        pytest.skip("chromium is not installed")
    store = MemoryStore()
    thumbnails = ThumbnailServer(store, [Photo], base_url="/thumbnails/")
    blob = saved(opened("coffee", (1800, 1200)), "JPEG")
    original = await put(Photo, store, blob, width=1800, height=1200, dominant_colour="#884422")

    async def page(request: Request) -> HTMLResponse:
        with store_context(store, thumbnails=thumbnails):
            return HTMLResponse(SHIFTS + PAGE.format(picture=original.picture("card", alt="Coffee")))

    async def frames(request: Request) -> HTMLResponse:
        found = "".join(
            f'<iframe src="/page" width="{width}" height="900" style="border:0"></iframe>' for width in VIEWPORTS
        )
        return HTMLResponse(FRAMES.format(frames=found))

    reported: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def report(request: Request) -> Response:
        reported.set_result(await request.json())
        return Response()

    routes = [Route("/", frames), Route("/page", page), Route("/found", report, methods=["POST"])]
    app = Starlette(routes=[*routes, Mount("/thumbnails", thumbnails)])
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        serving = asyncio.create_task(server.serve([listener]))
        process = await asyncio.create_subprocess_exec(
            CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--window-size=1400,4000", f"--force-device-scale-factor={density}",
            f"--user-data-dir={tmp_path / 'profile'}", f"http://127.0.0.1:{listener.getsockname()[1]}/",
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        try:
            found = await asyncio.wait_for(reported, 60)
        finally:
            process.terminate()
            await process.wait()
            server.should_exit = True
            await serving
            await thumbnails.aclose()
    expected = [(chosen(viewport, density), "avif") for viewport in VIEWPORTS]
    files = [url.rpartition("/")[2].split(".")[1:] for url, *_ in found]
    assert [(int(size.partition("x")[0]), extension) for size, extension in files] == expected
    for (_, width, height, shift), viewport in zip(found, VIEWPORTS, strict=True):
        assert abs(width - viewport * (0.33 if viewport >= 960 else 1)) <= 1
        assert abs(height - width * 2 / 3) <= 1
        assert shift == 0
