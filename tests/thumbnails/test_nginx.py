"""Thumbnails behind nginx, with the very configuration that the guide has."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import httpx
import pytest

from aioimageattach import store_context
from aioimageattach.stores.fs import FileSystemStore
from aioimageattach.thumbnails import ThumbnailServer
from tests.databases import REQUIRED
from tests.servers.asgi import serving
from tests.thumbnails.models import Photo, put, size_of

CONFIGURATION = Path(__file__).parents[2] / "docs" / "howto" / "nginx-thumbnails.conf"


@pytest.fixture(scope="module")
def root() -> Iterator[Path]:
    """The directory of a store, which the user of nginx may read."""
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        (images := Path(folder) / "images").mkdir(mode=0o755)
        yield images


def answers(port: int) -> bool:
    """Whether something listens on a port."""
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def nginx(root: Path) -> Iterator[str]:
    """The URL of an nginx in front of a server of thumbnails."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        if REQUIRED:
            pytest.fail("nginx is needed: apt-get install nginx-light")
        pytest.skip("nginx is not installed")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with serving("uvicorn", root, app="tests.thumbnails.app:app") as application:
        home = root.parent
        text = f"""
            daemon off; pid {home}/pid; error_log stderr;
            events {{}}
            http {{
                access_log off;
                client_body_temp_path {home}/body; proxy_temp_path {home}/proxy;
                fastcgi_temp_path {home}/f; uwsgi_temp_path {home}/u; scgi_temp_path {home}/s;
                upstream application {{ server {urlsplit(application).netloc}; keepalive 16; }}
                server {{ listen 127.0.0.1:{port}; {CONFIGURATION.read_text()} }}
            }}
        """
        (home / "nginx.conf").write_text(text.replace("/srv/images/", f"{root}/"))
        process = subprocess.Popen([program, "-c", home / "nginx.conf"], stderr=subprocess.PIPE)
        try:
            deadline = time.monotonic() + 10
            while not answers(port):
                assert process.poll() is None, process.stderr and process.stderr.read()
                assert time.monotonic() < deadline
                time.sleep(0.05)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait()
            assert process.stderr is not None
            process.stderr.close()


async def test_the_application_sees_each_file_once(root: Path, nginx: str) -> None:
    """nginx asks it for a file that is missing, and sends the file itself from then on; originals are not reached."""
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
        assert second.headers["etag"] != first.headers["etag"]  # nginx makes its own
        for header in ("content-type", "cache-control", "x-content-type-options", "cross-origin-resource-policy"):
            assert second.headers[header] == first.headers[header]
        told = await http.get(outdated)
        assert (told.status_code, urlsplit(told.headers["location"]).path) == (302, share)
        for path in (store.name_of(original.key), f"../images/{store.name_of(original.key)}", "photo.t/", "x"):
            assert (await http.get(f"/thumbnails/{path}")).status_code == 404
        assert (await http.post(share)).status_code == 403
