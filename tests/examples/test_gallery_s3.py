"""The gallery with images in a private bucket."""

from __future__ import annotations

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
async def test_pictures_are_kept_in_the_bucket(tmp_path: Path) -> None:
    """URLs of avatars are signed URLs of the bucket, in which thumbnails of photographs are made on request."""
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
            await client.post("/authors/1/avatar", files={"avatar": photos.photo("astronaut")})
            page = (await client.get("/")).text
            sources = [unescape(srcset).split(" ")[0] for srcset in SOURCE.findall(page)]
            direct = [url for url in sources if url.startswith(f"{bucket.client.endpoint.template}/gallery/avatar.t/")]
            [made] = [url for url in sources if url.startswith("/thumbnails/photo.t/")]
            assert direct == [url for url in sources if url != made]
            async with httpx.AsyncClient() as browser:
                shown = await browser.get(direct[0])
                assert shown.status_code == 200
                assert shown.headers["content-type"] == "image/webp"
                assert Image.open(io.BytesIO(shown.content)).size == (48, 48)
                assert (await browser.get(direct[0].partition("?")[0])).status_code == 403
            assert Image.open(io.BytesIO((await client.get(made)).content)).width == 320
            names = [found.name async for found in bucket.list_objects()]
            assert {name.split("/")[0] for name in names} == {"avatar", "avatar.t", "photo", "photo.t"}
            assert not [path for path in (tmp_path / "files").rglob("*") if path.is_file()]
