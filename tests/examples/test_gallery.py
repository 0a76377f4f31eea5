"""The gallery, driven as browsers drive it: a real server, real forms, real photographs."""

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
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from PIL import Image, ImageOps
from sqlalchemy import event, select

from aioimageattach import store_context
from aioimageattach.stores.fs import FileSystemStore
from examples.gallery.app import MAX_BODY, create_app
from examples.gallery.database import Database
from examples.gallery.models import LIMITS, Author, Post
from examples.gallery.pages import PER_PAGE
from examples.gallery.samples import SAMPLES
from tests import photos

ROOT = Path(__file__).parents[2]
TILE = re.compile(
    r'<li class="tile( pending)?" data-address="([^"]+)">\s*<a class="open" href="([^"]+)">.*?srcset="([^"]+)"',
    re.DOTALL,
)
SIZE = re.compile(r"(\S+) (\d+)w")
SCRIPT = {"Accept": "application/json"}
CONNECTIONS = httpx.Limits(keepalive_expiry=2)  # uvicorn closes idle ones after five seconds


@dataclass
class Tile:
    """What the page shows of one photograph."""

    address: str
    pending: bool
    original: str
    sizes: dict[int, str]


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
        return [
            Tile(address, bool(pending), original, {int(size): url for url, size in SIZE.findall(srcset)})
            for pending, address, original, srcset in TILE.findall(await self.page(url))
        ]

    async def settled(self, url: str = "/") -> list[Tile]:
        """The tiles, once no thumbnail is being made any more."""
        async with asyncio.timeout(90):  # a busy machine measures coverage, too
            while any(tile.pending for tile in await self.tiles(url)):
                await asyncio.sleep(0.02)
        return await self.tiles(url)

    async def post(self, *files: tuple[str, bytes], title: str = "A title", **headers: str) -> httpx.Response:
        return await self.client.post(
            "/posts",
            data={"author": "Somebody", "title": title},
            files=[("photos", file) for file in files],
            headers=headers,
        )

    async def send(self, url: str, field: str, blob: bytes) -> httpx.Response:
        return await self.client.post(url, files={field: ("new.jpg", blob)})

    async def picture(self, url: str) -> Image.Image:
        answer = await self.client.get(url)
        assert answer.status_code == 200
        return Image.open(io.BytesIO(answer.content))

    def stored(self) -> set[str]:
        """The names of all files in the store's directory."""
        folder = self.data / "files"
        return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}

    def rows(self) -> int:
        """How many image rows the database has."""
        with closing(sqlite3.connect(self.data / "gallery.sqlite")) as connection:
            query = "SELECT (SELECT count(*) FROM photo) + (SELECT count(*) FROM avatar)"
            return int(connection.execute(query).fetchone()[0])

    async def raw(self, request: bytes) -> int:
        """Send bytes that no client would, and return the status of the answer."""
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


async def test_a_form_is_answered_with_the_page_that_shows_its_photographs(gallery: Gallery) -> None:
    """Several photographs become one post, in their order, shown to a browser without script as well."""
    answer = await gallery.post(jpeg("chelsea"), jpeg("coffee"), jpeg("rocket"), title="Three <at> once")
    assert (answer.status_code, answer.headers["Location"]) == (303, "/#post-1")
    page = await gallery.page()
    assert "Three &lt;at&gt; once" in page
    assert "Somebody" in page
    tiles = await gallery.tiles()
    assert [tile.address for tile in tiles] == [f"/posts/1/photos/{number}" for number in range(3)]
    for tile, name in zip(tiles, ("chelsea", "coffee", "rocket"), strict=True):
        assert (await gallery.picture(tile.original)).tobytes() == photos.opened(name).tobytes()


async def test_thumbnails_appear_after_the_answer(gallery: Gallery) -> None:
    """The page shows the original at first, then every size that is smaller; each address holds what it promises."""
    await gallery.post(("large.jpg", photos.large()), jpeg("chelsea"))
    large, small = await gallery.settled()
    assert list(large.sizes) == [320, 640, 1280, 4000]
    assert list(small.sizes) == [320, 451]
    for width, url in (large.sizes | small.sizes).items():
        assert (await gallery.picture(url)).width == width
    state = (await gallery.client.get(large.address)).json()
    assert state["ready"]
    assert state["src"] == large.sizes[320]
    assert state["srcset"].count(" ") == 7
    assert gallery.rows() == len(gallery.stored()) == 6


async def test_the_list_is_two_statements_however_many_pictures(gallery: Gallery) -> None:
    """One for posts, authors and avatars, one for all photographs; the page says so."""
    counted: list[str] = []
    engine = gallery.app.state.database.engine.sync_engine

    @event.listens_for(engine, "before_cursor_execute")
    def count(*arguments: Any) -> None:
        if not arguments[2].startswith("BEGIN"):
            counted.append(arguments[2])

    for posts in (1, 4):
        while len(re.findall("<article", await gallery.page())) < posts:
            await gallery.post(jpeg("coffee"), jpeg("camera"))
        await gallery.settled()
        counted.clear()
        page = await gallery.page()
        assert len(counted) == 2
        assert "<strong>2 SQL statements</strong>" in page
        assert f"{2 * posts} photographs in {len(gallery.stored())} files" in page


async def test_a_replaced_photograph_takes_its_files_along(gallery: Gallery) -> None:
    """The new one has addresses of its own and thumbnails of its own; the others stay as they are."""
    await gallery.post(jpeg("chelsea"), jpeg("coffee"))
    first, second = await gallery.settled()
    assert (await gallery.send(first.address, "photo", photos.photo("hubble"))).status_code == 303
    new, same = await gallery.settled()
    assert same == second
    assert list(new.sizes) == [320, 640, 1000]
    assert (await gallery.client.get(first.original)).status_code == 404
    assert gallery.stored() == {url.partition("/files/")[2] for tile in (new, same) for url in tile.sizes.values()}


async def test_deleting_leaves_no_file(gallery: Gallery) -> None:
    """A deleted photograph goes with its thumbnails, a deleted post with all its photographs."""
    await gallery.post(jpeg("chelsea"), jpeg("coffee"))
    await gallery.post(jpeg("rocket"))
    kept, _, second = await gallery.settled()
    assert (await gallery.client.post(f"{second.address}/delete")).status_code == 303
    assert second not in await gallery.tiles()
    assert (await gallery.client.get(second.address)).status_code == 404
    assert (await gallery.client.post("/posts/1/delete")).status_code == 303
    assert await gallery.tiles() == [kept]
    assert gallery.stored() == {url.partition("/files/")[2] for url in kept.sizes.values()}


async def test_photographs_are_added_behind_the_last_one(gallery: Gallery) -> None:
    """A place that was freed in the middle is not taken again."""
    await gallery.post(jpeg("chelsea"), jpeg("coffee"), jpeg("rocket"))
    await gallery.client.post("/posts/1/photos/1/delete")
    files = [("photos", jpeg("camera")), ("photos", jpeg("hubble"))]
    assert (await gallery.client.post("/posts/1/photos", files=files)).status_code == 303
    tiles = await gallery.settled()
    assert [tile.address[-1] for tile in tiles] == ["0", "2", "3", "4"]
    for tile in tiles:
        await gallery.client.post(f"{tile.address}/delete")
    assert "Its photographs were deleted." in await gallery.page()
    assert gallery.stored() == set()


def bomb() -> bytes:
    """A PNG of a few bytes that says it is 30,000 pixels wide and high."""
    header = (30_000).to_bytes(4, "big") * 2 + b"\x08\x02\0\0\0"
    return photos.png_file(header, zlib.compress(b""))


BAD = {
    "text": (b"no picture at all", 422, "expected a picture"),
    "nothing": (b"", 422, ""),
    "drawing": (photos.SVG, 415, "image/svg+xml"),
    "pixels": (bomb(), 413, "pixels"),
    "bytes": (photos.photo("chelsea") + bytes(LIMITS.max_bytes), 413, "bytes"),
}


@pytest.mark.parametrize("kind", BAD)
async def test_what_is_no_acceptable_picture_is_refused_by_name(gallery: Gallery, kind: str) -> None:
    """The answer names the file and says why; of the whole form nothing is kept, and what was there stays."""
    blob, status, words = BAD[kind]
    await gallery.post(jpeg("coffee"))
    before = await gallery.settled()
    answer = await gallery.post(jpeg("chelsea"), (f"{kind}.jpg", blob), **SCRIPT)
    assert answer.status_code == status
    assert answer.json()["message"].startswith(f"{kind}.jpg: ")
    assert words in answer.json()["message"]
    assert (await gallery.send(before[0].address, "photo", blob)).status_code == status
    assert await gallery.tiles() == before
    assert gallery.rows() == len(gallery.stored()) == 2


async def test_a_browser_without_script_gets_a_page_about_the_problem(gallery: Gallery) -> None:
    """The library's words are escaped on it."""
    answer = await gallery.post(("<b>.jpg", b"<script>"))
    assert answer.status_code == 422
    assert "text/html" in answer.headers["Content-Type"]
    assert "&lt;b&gt;.jpg: expected a picture" in answer.text
    assert "<script>" not in answer.text.partition("<main")[2]


async def test_a_photograph_whose_pixels_are_broken_stays_without_thumbnails(
    gallery: Gallery, caplog: pytest.LogCaptureFixture
) -> None:
    """Its header was good, so it was accepted; what goes wrong after the answer is logged and hurts nobody else."""
    broken = bytearray(photos.saved(photos.opened("coffee"), "AVIF"))
    broken[len(broken) // 2 :] = bytes(len(broken) - len(broken) // 2)
    assert (await gallery.post(("broken.avif", bytes(broken)), jpeg("coffee"))).status_code == 303
    async with asyncio.timeout(60):
        while (await gallery.tiles())[1].pending:
            await asyncio.sleep(0.02)
    half, whole = await gallery.tiles()
    assert (half.pending, whole.pending) == (True, False)
    assert "no thumbnails of photograph 0 of post 1" in caplog.text


async def test_many_uploads_at_once_are_all_kept(gallery: Gallery) -> None:
    """Writers wait for their turn instead of failing, and the page is cut where it would grow too long."""
    count = PER_PAGE + 2
    answers = await asyncio.gather(*(gallery.post(jpeg("chelsea"), title=f"Number {n}") for n in range(count)))
    assert [answer.status_code for answer in answers] == [303] * count
    tiles = await gallery.settled()
    assert len(tiles) == PER_PAGE
    [older] = re.findall(r'href="(/\?before=\d+)"', await gallery.page())
    rest = await gallery.settled(older)
    assert len(rest) == 2
    assert "Older posts" not in await gallery.page(older)
    assert gallery.rows() == len(gallery.stored()) == 2 * count


async def test_of_many_replacements_at_once_one_stays(gallery: Gallery) -> None:
    """Whoever was last has the place; no file of the others is left, nor a thumbnail of their pictures."""
    await gallery.post(jpeg("chelsea"))
    names = ("coffee", "rocket", "camera", "hubble", "astronaut", "coffee")
    answers = await asyncio.gather(*(gallery.send("/posts/1/photos/0", "photo", photos.photo(name)) for name in names))
    assert {answer.status_code for answer in answers} == {303}
    [tile] = await gallery.settled()
    async with asyncio.timeout(60):
        while gallery.stored() != {url.partition("/files/")[2] for url in tile.sizes.values()}:
            await asyncio.sleep(0.02)
    assert gallery.rows() == len(gallery.stored())
    shown = await gallery.picture(tile.original)
    small = await gallery.picture(tile.sizes[320])
    assert abs(small.height - 320 * shown.height / shown.width) <= 1


async def test_an_avatar_is_cut_to_a_square(gallery: Gallery) -> None:
    """In two sizes; the next avatar takes its place."""
    await gallery.post(jpeg("coffee"))
    await gallery.settled()
    seen = set()
    for name in ("rocket", "chelsea"):
        assert (await gallery.send("/authors/1/avatar", "avatar", photos.photo(name))).status_code == 303
        async with asyncio.timeout(60):
            while "data-waits" in (page := await gallery.page("/authors/1")):
                await asyncio.sleep(0.02)
        [(once, twice)] = set(re.findall(r'<img class="face" src="([^"]+)" srcset="([^" ]+) 2x"', page))
        assert (await gallery.picture(once)).size == (96, 96)
        assert (await gallery.picture(twice)).size == (192, 192)
        seen.add(once)
        assert gallery.rows() == len(gallery.stored()) == 2 + 3
    assert len(seen) == 2
    assert once in await gallery.page()


async def test_where_a_photograph_was_taken_is_not_told(gallery: Gallery) -> None:
    """The place is taken out of the original, which stays upright."""
    taken = photos.oriented(6)
    assert photos.GPS[0] in taken
    await gallery.post(("telephone.jpg", taken))
    [tile] = await gallery.settled()
    for url in tile.sizes.values():
        assert photos.GPS[0] not in (await gallery.client.get(url)).content
        picture = ImageOps.exif_transpose(await gallery.picture(url))
        assert picture.width > picture.height


async def test_files_are_kept_by_browsers_for_ever(gallery: Gallery) -> None:
    """An address never changes its content, so nobody has to ask twice; ranges and conditions work."""
    await gallery.post(jpeg("coffee"), ("moving.webp", photos.animated_webp()), ("still.avif", photos.avif()))
    coffee, webp, avif = (tile.original for tile in await gallery.settled())
    answer = await gallery.client.get(coffee)
    assert answer.headers["Content-Type"] == "image/jpeg"
    assert "immutable" in answer.headers["Cache-Control"]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "sandbox" in answer.headers["Content-Security-Policy"]
    assert (await gallery.client.get(webp)).headers["Content-Type"] == "image/webp"
    assert (await gallery.client.get(avif)).headers["Content-Type"] == "image/avif"
    again = await gallery.client.get(coffee, headers={"If-None-Match": answer.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    part = await gallery.client.get(coffee, headers={"Range": "bytes=0-1"})
    assert (part.status_code, part.content) == (206, b"\xff\xd8")


async def test_nothing_but_files_of_the_store_is_shown(gallery: Gallery) -> None:
    """No way leads out of the directory, to unfinished or hidden files, to other kinds of files or into folders."""
    await gallery.post(jpeg("coffee"))
    [tile] = await gallery.settled()
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
    for target in targets:
        request = f"GET /files/{target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        assert await gallery.raw(request.encode()) == 404, target
    assert (await gallery.client.delete(tile.original)).status_code == 405


async def test_other_sites_cannot_send_forms_here(gallery: Gallery) -> None:
    """A visitor's browser says which site made it send something."""
    await gallery.post(jpeg("coffee"))
    answer = await gallery.client.post("/posts/1/delete", headers={"Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 403
    assert len(await gallery.tiles()) == 1


async def test_a_form_beyond_all_bounds_is_refused_before_it_is_read(gallery: Gallery) -> None:
    """Its length is known before its first byte is spooled."""
    kind = "Content-Type: multipart/form-data; boundary=x"
    request = f"POST /posts HTTP/1.1\r\nHost: localhost\r\n{kind}\r\nContent-Length: {MAX_BODY + 1}\r\n\r\n"
    assert await gallery.raw(request.encode()) == 413


async def test_scripts_are_answered_in_short(gallery: Gallery) -> None:
    """Nothing to read where it worked, a message where not."""
    assert (await gallery.post(jpeg("coffee"), **SCRIPT)).status_code == 204
    answer = await gallery.client.post("/posts", data={"author": " ", "title": "x"}, headers=SCRIPT)
    assert (answer.status_code, answer.json()) == (422, {"message": "Please check: author, photos."})
    assert (await gallery.client.post("/posts/9/delete", headers=SCRIPT)).json()["message"].startswith("There is no")


@pytest.mark.parametrize("address", ["/authors/9/avatar", "/posts/9/photos/0", "/posts/1/photos/9"])
async def test_what_is_not_there_cannot_be_replaced(gallery: Gallery, address: str) -> None:
    """The answer says that it is not there, and nothing is stored."""
    await gallery.post(jpeg("coffee"))
    await gallery.settled()
    field = "avatar" if "avatar" in address else "photo"
    assert (await gallery.send(address, field, photos.photo("camera"))).status_code == 404
    assert (await gallery.client.get(address.removesuffix("/avatar"))).status_code == 404
    assert len(gallery.stored()) == 2


async def test_an_empty_gallery_can_be_filled(gallery: Gallery) -> None:
    """Once: the photographs come with authors and avatars."""
    assert 'action="/samples"' in await gallery.page()
    assert (await gallery.client.post("/samples")).status_code == 303
    tiles = await gallery.settled()
    assert len(tiles) == sum(len(sample.photos) for sample in SAMPLES)
    assert 'action="/samples"' not in await gallery.page()
    assert (await gallery.client.post("/samples")).status_code == 409
    async with asyncio.timeout(60):
        while gallery.rows() < 13 + 3 * len(SAMPLES):
            await asyncio.sleep(0.02)
    assert gallery.rows() == len(gallery.stored())


async def test_what_an_ended_gallery_left_to_do_is_done_at_the_next_start(tmp_path: Path) -> None:
    """Photographs survive, and those without thumbnails get them."""
    data = tmp_path / "data"
    async with running(data) as gallery:
        await gallery.page()
    database = Database(data / "gallery.sqlite")
    async with database.writing.begin() as session:
        with store_context(FileSystemStore(data / "files", "/files/")):
            author = Author(name="Somebody")
            session.add(post := Post(title="Without thumbnails", author=author))
            await author.avatar.from_blob(photos.photo("chelsea"))
            await post.photos.get_image_set(order_index=3).from_blob(photos.photo("coffee"))
            await session.flush()
    await database.aclose()
    async with running(data) as gallery:
        [tile] = await gallery.tiles()
        assert (tile.pending, list(tile.sizes)) == (False, [320, 600])
        assert "data-waits" not in await gallery.page("/authors/1")
        assert gallery.rows() == len(gallery.stored()) == 2 + 3


async def test_a_reader_does_not_wait_for_a_writer(tmp_path: Path) -> None:
    """And the second writer waits for the first, then sees what it did."""
    database = Database(tmp_path / "gallery.sqlite")
    await database.create_tables()
    order = []

    async def write(name: str) -> None:
        async with database.writing.begin() as session:
            seen = len((await session.scalars(select(Author))).all())
            session.add(Author(name=name))
            await session.flush()
            await asyncio.sleep(0.05)
            order.append((name, seen))

    async def read() -> None:
        await asyncio.sleep(0.02)
        async with database.reading() as session:
            order.append(("read", len((await session.scalars(select(Author))).all())))

    await asyncio.gather(write("first"), write("second"), read())
    await database.aclose()
    assert order[0] == ("read", 0)
    assert sorted(seen for _, seen in order[1:]) == [0, 1]


async def test_one_command_shows_the_page_in_a_browser(tmp_path: Path) -> None:
    """It takes a free port if asked to, opens the browser once it answers, and ends at Ctrl+C."""
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
