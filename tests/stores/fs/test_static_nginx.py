"""Serving behind nginx, with the configuration in the guide."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from aioimageattach._names import EXTENSIONS
from aioimageattach.key import ImageKey, make_revision
from aioimageattach.stores.fs import FileSystemStore
from tests.servers.asgi import serving
from tests.servers.nginx import nginx_before, store_directory

DOCS = Path(__file__).parents[3] / "docs" / "howto"
BLOB = os.urandom(300_000)


@pytest.fixture(scope="module")
def root() -> Iterator[Path]:
    """The directory of a store."""
    with store_directory() as images:
        yield images


@pytest.fixture(scope="module")
def nginx(root: Path) -> Iterator[str]:
    """The URL of an nginx that serves the directory under ``/images/``, and everything else from an application."""
    accel, direct, outer = ((DOCS / f"nginx{name}.conf").read_text() for name in ("-accel", "", "-http"))
    with (
        serving("uvicorn", root, ACCEL="/stored/") as application,
        nginx_before(application, root, f"{direct} {accel}", outer) as url,
    ):
        yield url


async def put(root: Path, mimetype: str = "image/jpeg") -> tuple[str, str]:
    """Put a file; return its name and its revision."""
    store = FileSystemStore(root, "/")
    revision = make_revision()
    key = ImageKey("photo", None, 320, 200, mimetype, revision)
    await store.put(key, BLOB, reproducible=False)
    return store.name_of(key), revision


async def test_nginx_sends_the_file_that_the_application_names(root: Path, nginx: str) -> None:
    """nginx sends the file with the application's headers, including conditional requests, ranges and missing files."""
    name, revision = await put(root)
    async with httpx.AsyncClient(base_url=nginx) as http:
        path = f"/__images__/{name}"
        answer = await http.get(path)
        assert (answer.status_code, answer.content == BLOB) == (200, True)
        assert answer.headers["Content-Length"] == str(len(BLOB))
        assert answer.headers["ETag"] == f'"{revision}"'
        assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
        assert answer.headers["Content-Type"] == "image/jpeg"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "sandbox" in answer.headers["Content-Security-Policy"]
        assert answer.headers["Cross-Origin-Resource-Policy"] == "cross-origin"
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        assert "X-Accel-Redirect" not in answer.headers
        assert (await http.get(path, headers={"If-None-Match": answer.headers["ETag"]})).status_code == 304
        part = await http.get(path, headers={"Range": "bytes=5-9"})
        assert (part.status_code, part.content) == (206, BLOB[5:10])
        assert (await http.head(path)).headers["Content-Length"] == str(len(BLOB))
        for header, status in (({"If-Match": f'"{revision}"'}, 200), ({"If-Match": '"other"'}, 412)):
            found = await http.get(path, headers=header)
            assert (found.status_code, found.content == BLOB) == (status, status == 200)
        resumed = await http.get(path, headers={"Range": "bytes=100-", "If-Range": f'"{revision}"'})
        assert (resumed.status_code, resumed.content == BLOB[100:]) == (206, True)
        (root / name).unlink()
        assert (await http.get(path)).status_code == 404
        assert (await http.get(f"/stored/{name}")).status_code == 404


async def test_a_drawing_behind_nginx_is_saved(root: Path, nginx: str) -> None:
    """nginx sends an SVG as a download, either for the application or by itself."""
    name, _ = await put(root, "image/svg+xml")
    async with httpx.AsyncClient(base_url=nginx) as http:
        for path in (f"/__images__/{name}", f"/images/{name}"):
            answer = await http.get(path)
            assert answer.headers["Content-Type"] == "image/svg+xml"
            assert answer.headers["Content-Disposition"].startswith("attachment")
            assert "sandbox" in answer.headers["Content-Security-Policy"]


def test_nginx_knows_each_type() -> None:
    """The configuration contains the extension and MIME type of each file that a store can contain."""
    text = (DOCS / "nginx.conf").read_text()
    found = re.search(r"\(\?:([a-z|]+)\)\)\$ \{", text)
    assert found is not None
    types = {
        f".{extension}": mimetype for mimetype, extension in re.findall(r"(?m)^ +([a-z]+/[a-z+]+) +([a-z]+);$", text)
    }
    assert types == {extension: mimetype for mimetype, extension in EXTENSIONS.items()}
    assert {f".{extension}" for extension in found[1].split("|")} == set(types)


async def test_nginx_alone(root: Path, nginx: str) -> None:
    """nginx by itself serves the same files, and no others in the directory."""
    name, _ = await put(root)
    async with httpx.AsyncClient(base_url=nginx) as http:
        answer = await http.get(f"/images/{name}")
        assert (answer.status_code, answer.content == BLOB) == (200, True)
        assert answer.headers["Content-Type"] == "image/jpeg"
        assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
        assert "Content-Disposition" not in answer.headers
        assert (await http.get(f"/images/{name}", headers={"If-None-Match": answer.headers["ETag"]})).status_code == 304
        assert (await http.get(f"/images/{name}", headers={"Range": "bytes=0-1"})).content == BLOB[:2]
        assert (await http.post(f"/images/{name}")).status_code == 403
        (root / ".hidden").write_text("secret")
        (root / "page.html").write_text("secret")
        (linked := root / name.replace("320", "321")).symlink_to(root.parent / "nginx.conf")
        for path in (".hidden", "page.html", "", "photo/", "..%2fnginx.conf", str(linked.relative_to(root))):
            answer = await http.get(f"/images/{path}")
            assert answer.status_code in (403, 404) or answer.text.endswith("/__images__/")  # the application's page
            assert "daemon off" not in answer.text
