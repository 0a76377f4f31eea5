"""Thumbnails behind nginx, with the configuration in the guide."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from aioimageattach import store_context
from aioimageattach.stores.fs import FileSystemStore
from aioimageattach.thumbnails import ThumbnailServer
from tests.servers.asgi import serving
from tests.servers.nginx import nginx_before, store_directory
from tests.thumbnails.models import Photo, put, size_of

CONFIGURATION = Path(__file__).parents[2] / "docs" / "howto" / "nginx-thumbnails.conf"


@pytest.fixture(scope="module")
def root() -> Iterator[Path]:
    """The directory of a store."""
    with store_directory() as images:
        yield images


@pytest.fixture(scope="module")
def nginx(root: Path) -> Iterator[str]:
    """The URL of an nginx in front of a thumbnail server."""
    with (
        serving("uvicorn", root, app="tests.thumbnails.app:app") as application,
        nginx_before(application, root, CONFIGURATION.read_text()) as url,
    ):
        yield url


async def test_the_application_sees_each_file_once(root: Path, nginx: str) -> None:
    """nginx requests a missing file from the application, and then sends it itself; originals are not accessible."""
    store = FileSystemStore(root, "/")
    original = await put(Photo, store)
    with store_context(store, thumbnails=ThumbnailServer(store, [Photo], base_url="/thumbnails/")):
        [share] = [one.url for one in original.candidates("share")]
        outdated = share.replace(".120x63.", ".121x63.")
    async with httpx.AsyncClient(base_url=nginx) as http:
        first = await http.get(share)
        assert first.status_code == 200
        assert size_of(first.content) == (120, 63)
        assert first.headers["etag"] == f'"{share.rpartition("/")[2].partition(".")[0]}"'
        second = await http.get(share)
        assert second.content == first.content
        assert second.headers["etag"] != first.headers["etag"]  # nginx generates its own tag
        for header in ("content-type", "cache-control", "x-content-type-options", "cross-origin-resource-policy"):
            assert second.headers[header] == first.headers[header]
        told = await http.get(outdated)
        assert (told.status_code, urlsplit(told.headers["location"]).path) == (302, share)
        for path in (store.name_of(original.key), f"../images/{store.name_of(original.key)}", "photo.t/", "x"):
            assert (await http.get(f"/thumbnails/{path}")).status_code == 404
        assert (await http.post(share)).status_code == 403
