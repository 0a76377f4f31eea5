"""The gallery with its pictures in a private bucket."""

from __future__ import annotations

import asyncio
import io
import re
from html import unescape
from pathlib import Path

import httpx
import pytest
from PIL import Image

from examples.gallery.app import create_app
from examples.gallery.bucket import private_bucket
from tests import photos
from tests.databases import REQUIRED
from tests.servers.ministack import ENVIRONMENT

SOURCE = re.compile(r'srcset="([^"]+)"')


@pytest.mark.skipif(not REQUIRED and not ENVIRONMENT.exists(), reason=f"{ENVIRONMENT} is missing; `make test` makes it")
async def test_pictures_come_from_the_bucket_by_signed_urls(tmp_path: Path) -> None:
    """A photograph goes up, its thumbnails are made and shown, and nobody sees them without a signature."""
    with private_bucket() as bucket:
        app = create_app(tmp_path, bucket)
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://x") as client,
        ):
            answer = await client.post(
                "/posts",
                data={"author": "Somebody", "title": "A title"},
                files=[("photos", ("a.jpg", photos.photo("chelsea")))],
            )
            assert answer.status_code in (200, 303)
            async with asyncio.timeout(90):
                while "pending" in (page := (await client.get("/")).text):
                    await asyncio.sleep(0.02)
            url = unescape(SOURCE.findall(page)[0]).split(" ")[0]
            assert url.startswith(f"{bucket.client.endpoint.template}/gallery/photo/")
            async with httpx.AsyncClient() as browser:
                shown = await browser.get(url)
                assert shown.status_code == 200
                assert shown.headers["content-type"].startswith("image/")
                assert Image.open(io.BytesIO(shown.content)).width > 0
                assert (await browser.get(url.partition("?")[0])).status_code == 403
            names = [found.name async for found in bucket.list_objects()]
            assert len(names) > 1
            assert not [path for path in (tmp_path / "files").rglob("*") if path.is_file()]
