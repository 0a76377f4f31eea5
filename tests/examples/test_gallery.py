"""The gallery, with a real server, real forms and real photographs."""

from __future__ import annotations

import asyncio
import io
import os
import re
import signal
import socket
import sqlite3
import stat
import sys
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from PIL import Image, ImageChops, ImageOps, ImageStat
from sqlalchemy import event, select

from examples.gallery.app import MAX_BODY, create_app
from examples.gallery.database import Database
from examples.gallery.models import LIMITS, Author
from examples.gallery.pages import PER_PAGE
from examples.gallery.samples import SAMPLES
from tests import photos

ROOT = Path(__file__).parents[2]
TILE = re.compile(
    r'<li class="tile" data-width="\d+">\s*<a class="open" href="([^"]+)"><picture><source type="image/webp" '
    r'srcset="([^"]+)".*?<img src="([^"]+)".*?action="([^"]+)"',
    re.DOTALL,
)
SIZE = re.compile(r"(\S+)\.(\d+)x(\d+)\.webp")
SCRIPT = {"Accept": "application/json"}
CONNECTIONS = httpx.Limits(keepalive_expiry=2)  # uvicorn closes idle ones after five seconds


@dataclass
class Tile:
    """A photograph on a page: the URL of its forms, its WebP files by width, and its JPEG."""

    address: str
    sizes: dict[int, str]
    fallback: str

    @property
    def urls(self) -> list[str]:
        """All files."""
        return [*self.sizes.values(), self.fallback]


@dataclass
class Gallery:
    """A running gallery, and a browser's connection to it."""

    app: Any
    data: Path
    client: httpx.AsyncClient

    async def page(self, url: str = "/") -> str:
        answer = await self.client.get(url)
        assert answer.status_code == 200
        return answer.text

    async def tiles(self, url: str = "/") -> list[Tile]:
        found = []
        for link, srcset, fallback, address in TILE.findall(await self.page(url)):
            assert link == fallback
            found.append(Tile(address, {int(one[2]): one[0] for one in SIZE.finditer(srcset)}, fallback))
        return found

    async def load(self, tiles: list[Tile]) -> None:
        """Request all files of some photographs concurrently, like browsers of every kind."""
        for tile in tiles:
            for url in tile.urls:
                await self.picture(url)

    async def post(self, *files: tuple[str, bytes], title: str = "A title", **headers: str) -> httpx.Response:
        """Post photographs, and wait until their thumbnails are made."""
        answer = await self.client.post(
            "/posts",
            data={"author": "Somebody", "title": title},
            files=[("photos", file) for file in files],
            headers=headers,
        )
        await self.app.state.worker.join()
        return answer

    async def send(self, url: str, field: str, blob: bytes) -> httpx.Response:
        """Send an image, and wait until its thumbnails are made."""
        answer = await self.client.post(url, files={field: ("new.jpg", blob)})
        await self.app.state.worker.join()
        return answer

    async def picture(self, url: str) -> Image.Image:
        answer = await self.client.get(url)
        assert answer.status_code == 200
        return Image.open(io.BytesIO(answer.content))

    def stored(self, *folders: str) -> set[str]:
        """Return the names of all files in the directory of the store, or in some of its folders."""
        root = self.data / "files"
        found = [path for folder in folders or (".",) for path in (root / folder).rglob("*") if path.is_file()]
        return {str(path.relative_to(root)) for path in found}

    def originals(self) -> list[Path]:
        """Return the files of photographs, oldest first."""
        return sorted(self.data / "files" / name for name in self.stored("photo"))

    def rows(self) -> int:
        """Return the number of image rows in the database."""
        with closing(sqlite3.connect(self.data / "gallery.sqlite")) as connection:
            query = "SELECT (SELECT count(*) FROM photo) + (SELECT count(*) FROM avatar)"
            return int(connection.execute(query).fetchone()[0])

    async def raw(self, request: bytes) -> int:
        """Send bytes that no HTTP client would send, and return the status of the response."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.client.base_url.port)
        writer.write(request)
        line = await reader.readline()
        writer.close()
        await writer.wait_closed()
        return int(line.split()[1])


@asynccontextmanager
async def running(data: Path) -> AsyncGenerator[Gallery, None]:
    app = create_app(data)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        serving = asyncio.create_task(server.serve([listener]))
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        try:
            async with httpx.AsyncClient(base_url=address, timeout=30, limits=CONNECTIONS) as client:
                yield Gallery(app, data, client)
        finally:
            server.should_exit = True
            await serving


@pytest.fixture
async def gallery(tmp_path: Path) -> AsyncIterator[Gallery]:
    async with running(tmp_path / "data") as gallery:
        yield gallery


def jpeg(name: str) -> tuple[str, bytes]:
    return f"{name}.jpg", photos.photo(name)


def in_store(urls: Iterable[str]) -> set[str]:
    """Return the names of the files of some thumbnails."""
    return {url.removeprefix("/thumbnails/") for url in urls}


async def test_the_response_to_a_form_shows_its_photographs(gallery: Gallery) -> None:
    """Several photographs become one post in their order, also for a browser without scripts."""
    answer = await gallery.post(jpeg("chelsea"), jpeg("coffee"), jpeg("rocket"), title="Three <at> once")
    assert (answer.status_code, answer.headers["Location"]) == (303, "/#post-1")
    page = await gallery.page()
    assert "Three &lt;at&gt; once" in page
    assert "Somebody" in page
    tiles = await gallery.tiles()
    assert [tile.address for tile in tiles] == [f"/posts/1/photos/{number}" for number in range(3)]
    for tile, name, stored in zip(tiles, ("chelsea", "coffee", "rocket"), gallery.originals(), strict=True):
        original = photos.opened(name)
        assert Image.open(stored).tobytes() == original.tobytes()
        shown = (await gallery.picture(tile.sizes[320])).convert("RGB")
        small = original.convert("RGB").resize(shown.size, Image.Resampling.LANCZOS)
        assert max(ImageStat.Stat(ImageChops.difference(shown, small)).mean) < 4


async def test_thumbnails_are_made_after_the_commit(gallery: Gallery) -> None:
    """Each URL returns a file of the stated size, none is larger than the original, and no row is added."""
    await gallery.post(("large.jpg", photos.large()), jpeg("chelsea"))
    large, small = await gallery.tiles()
    assert list(large.sizes) == [320, 640, 1280, 2560]
    assert list(small.sizes) == [320, 451]
    assert gallery.stored("photo.t") == in_store(large.urls + small.urls)
    for width, url in (large.sizes | small.sizes).items():
        assert (await gallery.picture(url)).width == width
    for tile in (large, small):
        assert (await gallery.picture(tile.fallback)).format == "JPEG"
    assert gallery.stored("photo.t") == in_store(large.urls + small.urls)
    assert gallery.rows() == 2


async def test_the_colour_is_shown_until_a_photograph_is_loaded(gallery: Gallery) -> None:
    """The policy of the pages permits the style attribute."""
    await gallery.post(jpeg("coffee"))
    assert re.search(r'style="background-color:#[0-9a-f]{6}"', await gallery.page())
    answer = await gallery.client.get("/")
    assert "style-src-attr 'unsafe-inline'" in answer.headers["Content-Security-Policy"]


async def test_the_list_takes_two_statements(gallery: Gallery) -> None:
    """One statement loads posts, authors and avatars, and one all photographs; the page shows the number."""
    counted: list[str] = []
    engine = gallery.app.state.database.engine.sync_engine

    @event.listens_for(engine, "before_cursor_execute")
    def count(*arguments: Any) -> None:
        if not arguments[2].startswith("BEGIN"):
            counted.append(arguments[2])

    for posts in (1, 4):
        while len(re.findall("<article", await gallery.page())) < posts:
            await gallery.post(jpeg("coffee"), jpeg("camera"))
        counted.clear()
        page = await gallery.page()
        assert len(counted) == 2
        assert "<strong>2 SQL statements</strong>" in page
        assert f"{2 * posts} photographs, shown with" in page


async def test_the_files_of_a_replaced_photograph_are_deleted(gallery: Gallery) -> None:
    """The new photograph has other URLs, and the other photographs do not change."""
    await gallery.post(jpeg("chelsea"), jpeg("coffee"))
    first, second = await gallery.tiles()
    await gallery.load([first, second])
    assert (await gallery.send(first.address, "photo", photos.photo("hubble"))).status_code == 303
    new, same = await gallery.tiles()
    assert same == second
    assert list(new.sizes) == [320, 640, 1000]
    assert (await gallery.client.get(first.fallback)).status_code == 404
    assert gallery.stored("photo.t") == in_store(same.urls + new.urls)
    assert len(gallery.originals()) == 2
    assert (await gallery.picture(new.sizes[1000])).width == 1000


async def test_deleting_leaves_no_file(gallery: Gallery) -> None:
    """A photograph is deleted with its thumbnails, a post with all its photographs."""
    await gallery.post(jpeg("chelsea"), jpeg("coffee"))
    await gallery.post(jpeg("rocket"))
    kept, first, second = await gallery.tiles()
    await gallery.load([kept, first, second])
    assert (await gallery.client.post(f"{second.address}/delete")).status_code == 303
    assert second not in await gallery.tiles()
    assert (await gallery.client.get(second.fallback)).status_code == 404
    assert (await gallery.client.post("/posts/1/delete")).status_code == 303
    assert await gallery.tiles() == [kept]
    assert gallery.stored("photo.t") == in_store(kept.urls)
    assert len(gallery.originals()) == 1


async def test_photographs_are_added_after_the_last_one(gallery: Gallery) -> None:
    """An index that became free in the middle is not used again."""
    await gallery.post(jpeg("chelsea"), jpeg("coffee"), jpeg("rocket"))
    await gallery.client.post("/posts/1/photos/1/delete")
    files = [("photos", jpeg("camera")), ("photos", jpeg("hubble"))]
    assert (await gallery.client.post("/posts/1/photos", files=files)).status_code == 303
    tiles = await gallery.tiles()
    assert [tile.address[-1] for tile in tiles] == ["0", "2", "3", "4"]
    for tile in tiles:
        await gallery.client.post(f"{tile.address}/delete")
    assert "Its photographs were deleted." in await gallery.page()
    assert gallery.stored() == set()


def bomb() -> bytes:
    """Return a PNG of a few bytes that claims to be 30,000 pixels wide and high."""
    header = (30_000).to_bytes(4, "big") * 2 + b"\x08\x02\0\0\0"
    return photos.png_file(header, zlib.compress(b""))


def broken() -> bytes:
    """Return an AVIF with a valid header and invalid pixels."""
    blob = bytearray(photos.saved(photos.opened("coffee"), "AVIF"))
    blob[len(blob) // 2 :] = bytes(len(blob) - len(blob) // 2)
    return bytes(blob)


BAD = {
    "text": (b"no picture at all", 422, "expected an image"),
    "nothing": (b"", 422, ""),
    "drawing": (photos.SVG, 415, "image/svg+xml"),
    "pixels": (bomb(), 413, "pixels"),
    "bytes": (photos.photo("chelsea") + bytes(LIMITS.max_bytes), 413, "bytes"),
    "broken": (broken(), 422, ""),
}


@pytest.mark.parametrize("kind", BAD)
async def test_refused_pictures_are_named(gallery: Gallery, kind: str) -> None:
    """The response names the file and the reason; nothing of the form is stored, and nothing else changes."""
    blob, status, words = BAD[kind]
    await gallery.post(jpeg("coffee"))
    before = await gallery.tiles()
    answer = await gallery.post(jpeg("chelsea"), (f"{kind}.jpg", blob), **SCRIPT)
    assert answer.status_code == status
    assert answer.json()["message"].startswith(f"{kind}.jpg: ")
    assert words in answer.json()["message"]
    assert (await gallery.send(before[0].address, "photo", blob)).status_code == status
    assert await gallery.tiles() == before
    assert gallery.rows() == len(gallery.stored("photo", "avatar")) == 1


async def test_a_browser_without_script_gets_a_page_about_the_problem(gallery: Gallery) -> None:
    """The page contains the message of the library, escaped."""
    answer = await gallery.post(("<b>.jpg", b"<script>"))
    assert answer.status_code == 422
    assert "text/html" in answer.headers["Content-Type"]
    assert "&lt;b&gt;.jpg: expected an image" in answer.text
    assert "<script>" not in answer.text.partition("<main")[2]


async def test_concurrent_uploads_are_all_stored(gallery: Gallery) -> None:
    """Writers wait for the lock instead of failing, and a long list is divided into pages."""
    count = PER_PAGE + 2
    answers = await asyncio.gather(*(gallery.post(jpeg("chelsea"), title=f"Number {n}") for n in range(count)))
    assert [answer.status_code for answer in answers] == [303] * count
    tiles = await gallery.tiles()
    assert len(tiles) == PER_PAGE
    [older] = re.findall(r'href="(/\?before=\d+)"', await gallery.page())
    assert len(await gallery.tiles(older)) == 2
    assert "Older posts" not in await gallery.page(older)
    assert gallery.rows() == len(gallery.stored("photo", "avatar")) == count


async def test_one_of_many_concurrent_replacements_is_kept(gallery: Gallery) -> None:
    """The last one is kept, without files of the others, although thumbnails were requested in the meantime."""
    await gallery.post(jpeg("chelsea"))
    names = ("coffee", "rocket", "camera", "hubble", "astronaut", "coffee")

    async def replace_and_look(name: str) -> int:
        answer = await gallery.send("/posts/1/photos/0", "photo", photos.photo(name))
        for tile in await gallery.tiles():
            assert (await gallery.client.get(tile.fallback)).status_code in (200, 404)
        return answer.status_code

    assert await asyncio.gather(*map(replace_and_look, names)) == [303] * len(names)
    [tile] = await gallery.tiles()
    await gallery.load([tile])
    assert gallery.stored("photo.t") == in_store(tile.urls)
    [original] = gallery.originals()
    assert gallery.rows() == 1
    with Image.open(original) as picture:
        width, height = picture.size
    assert abs((await gallery.picture(tile.sizes[320])).height - 320 * height / width) <= 1


async def test_an_avatar_is_cropped_to_a_square(gallery: Gallery) -> None:
    """The avatar has three sizes, which are stored before the response; the next avatar replaces it."""
    await gallery.post(jpeg("coffee"))
    seen = set()
    for name in ("rocket", "chelsea"):
        assert (await gallery.send("/authors/1/avatar", "avatar", photos.photo(name))).status_code == 303
        page = await gallery.page("/authors/1")
        [src, srcset] = re.findall(r'<img src="([^"]+)" srcset="([^"]+)" sizes="96px" width="96" height="96"', page)[0]
        assert src.startswith("/files/avatar.t/")
        assert (await gallery.picture(src)).size == (96, 96)
        for url, side in re.findall(r"(\S+) (\d+)w", srcset):
            assert url.startswith("/files/avatar.t/")
            assert (await gallery.picture(url)).size == (int(side), int(side))
        seen.add(src)
        assert len(gallery.stored("avatar", "avatar.t")) == 1 + 4
        assert gallery.rows() == 2
    assert len(seen) == 2
    assert src in await gallery.page()


async def test_an_avatar_that_cannot_be_decoded_is_refused(gallery: Gallery) -> None:
    """The thumbnails are made before the commit, so nothing is stored."""
    await gallery.post(jpeg("coffee"))
    assert (await gallery.send("/authors/1/avatar", "avatar", broken())).status_code == 422
    assert gallery.stored("avatar", "avatar.t") == set()
    assert gallery.rows() == 1


async def test_the_location_of_a_photograph_is_removed(gallery: Gallery) -> None:
    """The location is removed from the original, which stays upright, and is in no thumbnail."""
    taken = photos.oriented(6)
    assert photos.GPS[0] in taken
    await gallery.post(("telephone.jpg", taken))
    [tile] = await gallery.tiles()
    [original] = gallery.originals()
    for blob in (original.read_bytes(), *[(await gallery.client.get(url)).content for url in tile.urls]):
        assert photos.GPS[0] not in blob
        picture = ImageOps.exif_transpose(Image.open(io.BytesIO(blob)))
        assert picture.width > picture.height


async def test_files_are_cached_by_browsers(gallery: Gallery) -> None:
    """The content of a URL never changes, so it is cached for a year; ranges and conditions work."""
    await gallery.post(jpeg("coffee"), ("moving.webp", photos.animated_webp()), ("still.avif", photos.avif()))
    coffee, *others = await gallery.tiles()
    answer = await gallery.client.get(coffee.fallback)
    assert answer.headers["Content-Type"] == "image/jpeg"
    assert "immutable" in answer.headers["Cache-Control"]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "sandbox" in answer.headers["Content-Security-Policy"]
    for tile in others:
        assert (await gallery.client.get(next(iter(tile.sizes.values())))).headers["Content-Type"] == "image/webp"
    again = await gallery.client.get(coffee.fallback, headers={"If-None-Match": answer.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    part = await gallery.client.get(coffee.fallback, headers={"Range": "bytes=0-1"})
    assert (part.status_code, part.content) == (206, b"\xff\xd8")


async def test_only_pictures_are_served(gallery: Gallery) -> None:
    """No path returns files outside of the directory, unfinished, hidden or other files, or folders."""
    await gallery.post(jpeg("coffee"))
    [tile] = await gallery.tiles()
    folder = gallery.data / "files"
    (folder / ".aioimageattach-0123.jpg").write_bytes(b"unfinished")
    (folder / ".hidden").mkdir()
    (folder / ".hidden" / "a.jpg").write_bytes(b"hidden")
    (folder / "page.html").write_text("<script>")
    (folder / "folder.jpg").mkdir()
    (gallery.data / "secret.jpg").write_bytes(b"secret")
    (folder / "link.jpg").symlink_to(gallery.data / "secret.jpg")
    targets = (
        "../gallery.sqlite", "../secret.jpg", "%2e%2e/secret.jpg", "..%2fsecret.jpg", "photo/../../secret.jpg",
        f"/{gallery.data}/secret.jpg", ".aioimageattach-0123.jpg", ".hidden/a.jpg", "page.html", "folder.jpg",
        "link.jpg",
        "photo", "photo/", "", "%00.jpg", "a%00.jpg", "x" * 5000 + ".jpg", "photo/none.jpg",
    )  # fmt: skip
    for target in (f"{mount}/{target}" for mount in ("files", "thumbnails") for target in targets):
        request = f"GET /{target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        assert await gallery.raw(request.encode()) == 404, target
    [original] = gallery.stored("photo")
    assert (await gallery.client.get(f"/thumbnails/{original}")).status_code == 404
    assert (await gallery.client.delete(tile.fallback)).status_code == 405


async def test_forms_of_other_sites_are_refused(gallery: Gallery) -> None:
    """The browser sends the origin of a form, and forms of other sites are rejected."""
    await gallery.post(jpeg("coffee"))
    answer = await gallery.client.post("/posts/1/delete", headers={"Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 403
    assert len(await gallery.tiles()) == 1


async def test_an_oversized_form_is_refused_before_it_is_read(gallery: Gallery) -> None:
    """The length is known before the first byte is spooled."""
    kind = "Content-Type: multipart/form-data; boundary=x"
    request = f"POST /posts HTTP/1.1\r\nHost: localhost\r\n{kind}\r\nContent-Length: {MAX_BODY + 1}\r\n\r\n"
    assert await gallery.raw(request.encode()) == 413


async def test_responses_to_scripts_are_short(gallery: Gallery) -> None:
    """A script gets no body on success, and a message on failure."""
    assert (await gallery.post(jpeg("coffee"), **SCRIPT)).status_code == 204
    answer = await gallery.client.post("/posts", data={"author": " ", "title": "x"}, headers=SCRIPT)
    assert (answer.status_code, answer.json()) == (422, {"message": "Please check: author, photos."})
    assert (await gallery.client.post("/posts/9/delete", headers=SCRIPT)).json()["message"].startswith("There is no")


@pytest.mark.parametrize("address", ["/authors/9/avatar", "/posts/9/photos/0", "/posts/1/photos/9"])
async def test_missing_objects_cannot_be_replaced(gallery: Gallery, address: str) -> None:
    """The response is 404, and nothing is stored."""
    await gallery.post(jpeg("coffee"))
    field = "avatar" if "avatar" in address else "photo"
    assert (await gallery.send(address, field, photos.photo("camera"))).status_code == 404
    assert len(gallery.originals()) == 1


async def test_an_empty_gallery_can_be_filled(gallery: Gallery) -> None:
    """The sample photographs, with authors and avatars, are added only once."""
    assert 'action="/samples"' in await gallery.page()
    assert (await gallery.client.post("/samples")).status_code == 303
    tiles = await gallery.tiles()
    assert len(tiles) == len(gallery.originals()) == sum(len(sample.photos) for sample in SAMPLES)
    assert (await gallery.page()).count('src="/files/avatar.t/') == len(SAMPLES)
    assert 'action="/samples"' not in await gallery.page()
    assert (await gallery.client.post("/samples")).status_code == 409
    assert gallery.rows() == len(gallery.stored("photo", "avatar")) == len(tiles) + len(SAMPLES)


async def test_an_author_that_does_not_exist_is_not_found(gallery: Gallery) -> None:
    """The page for a missing author states this."""
    answer = await gallery.client.get("/authors/9")
    assert (answer.status_code, "There is no such author." in answer.text) == (404, True)


async def test_photographs_survive_a_restart(tmp_path: Path) -> None:
    """After a restart, the photographs have the same URLs."""
    async with running(tmp_path / "data") as gallery:
        await gallery.post(jpeg("coffee"))
        before = await gallery.tiles()
        await gallery.load(before)
    async with running(tmp_path / "data") as gallery:
        assert await gallery.tiles() == before
        await gallery.load(before)
        assert gallery.stored("photo.t") == in_store(before[0].urls)


async def test_a_reader_does_not_wait_for_a_writer(tmp_path: Path) -> None:
    """A second writer waits for the first one, and then sees its changes."""
    database = Database(tmp_path / "gallery.sqlite")
    await database.create_tables()
    written, read = asyncio.Event(), asyncio.Event()
    order = []

    async def write(name: str) -> None:
        async with database.writing.begin() as session:
            seen = len((await session.scalars(select(Author))).all())
            session.add(Author(name=name))
            await session.flush()
            written.set()
            await read.wait()
            order.append((name, seen))

    async def look() -> None:
        await written.wait()
        async with database.reading() as session:
            order.append(("read", len((await session.scalars(select(Author))).all())))
        read.set()

    await asyncio.gather(write("first"), write("second"), look())
    await database.aclose()
    assert order[0] == ("read", 0)
    assert sorted(seen for _, seen in order[1:]) == [0, 1]


async def test_one_command_shows_the_page_in_a_browser(tmp_path: Path) -> None:
    """The command finds a free port on request, opens the browser when the server responds, and ends with Ctrl+C."""
    opened = tmp_path / "opened"
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\nprintf %s "$1" > {opened}.part && mv {opened}.part {opened}\n')
    browser.chmod(browser.stat().st_mode | stat.S_IXUSR)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "examples.gallery", "--data", str(tmp_path / "data"), "--port", "0",
        cwd=ROOT, env={**os.environ, "BROWSER": f"{browser} %s"},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        line = (await asyncio.wait_for(process.stdout.readline(), 30)).decode()
        async with asyncio.timeout(30):
            while not opened.exists():
                await asyncio.sleep(0.05)
        url = opened.read_text()
        assert url in line
        async with httpx.AsyncClient() as client:
            assert "There is nothing here yet." in (await client.get(url)).text
    finally:
        process.send_signal(signal.SIGINT)
        _, errors = await asyncio.wait_for(process.communicate(), 10)
    assert (process.returncode, errors) == (0, b"")
