"""Attacks on the thumbnail server by a client that knows URLs that the server has issued."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as PillowImage
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from aioimageattach import Image, Recipe, Srcset
from aioimageattach._declared import maker
from aioimageattach._names import SANDBOX
from aioimageattach.imaging import render
from aioimageattach.store import KeyedStore
from aioimageattach.stores import MemoryStore
from aioimageattach.stores.fs import FileSystemStore
from aioimageattach.thumbnails import ThumbnailServer
from aioimageattach.thumbnails import _server as server
from tests.imaging.test_guard import BOMBS
from tests.photos import photo, saved
from tests.servers.asking import Client
from tests.thumbnails.models import Photo, names, put
from tests.thumbnails.test_server import BASE, SECRETS, Site, changed, is_refused

CLIENTS = 100
BLOCK = 16 * 1024
DIGITS = "0123456789abcdefghjkmnpqrstvwxyz"
POINTS = 3


class Base(DeclarativeBase):
    """The base of the models here."""


class Other(Base, Image):
    """A class with the same thumbnails as ``Photo``, for images that are not public."""

    __tablename__ = "other"
    __thumbnails__ = Photo.__thumbnails__
    id: Mapped[int] = mapped_column(primary_key=True)


class Large(Base, Image):
    """A class with one large thumbnail."""

    __tablename__ = "large"
    __thumbnails__ = {"page": Recipe(width=1000, format="png")}
    id: Mapped[int] = mapped_column(primary_key=True)


class Watched(MemoryStore):
    """A store that counts its calls."""

    calls = 0

    async def get_object(self, name: str, **options: Any) -> Any:
        self.calls += 1
        return await super().get_object(name, **options)

    def list_objects(self, prefix: str = "", **options: Any) -> Any:
        self.calls += 1
        return super().list_objects(prefix, **options)

    async def head_object(self, name: str) -> Any:
        self.calls += 1
        return await super().head_object(name)


@pytest.fixture(params=["directory", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> KeyedStore:
    """A store in a directory, and one in memory."""
    return MemoryStore() if request.param == "memory" else FileSystemStore(tmp_path, "/", fsync=False)


def declared_urls(site: Site, original: Any) -> set[str]:
    """Return all URLs of an image."""
    return {url for name in Photo.__thumbnails__ for url in site.urls(original, name)}


# --- the original ----------------------------------------------------------------------------------------------------


async def test_no_response_reveals_the_original(store: KeyedStore) -> None:
    """No status, header or body contains the original's bytes or the secret part of its name."""
    site, original = Site(store), await put(Photo, store)
    blob, secret = photo("chelsea"), original.revision[-14:].encode()
    [share] = site.urls(original, "share")
    outdated = await changed(store, original, Srcset([130], quality=30))
    path = store.name_of(original.key)
    hidden = share.split("/")[-1].split("-")[0]
    for url in [*declared_urls(site, original), *outdated, BASE + path, f"{BASE}photo.t/{path[6:]}", f"{BASE}{hidden}"]:
        for method in ("GET", "HEAD", "OPTIONS"):
            for header in (("range", "bytes=0-"), ("range", "bytes=9999999-"), ("if-none-match", "*"), ("x", "x")):
                told = await site.ask(url, header, method=method)
                assert secret not in repr((told.headers, told.body)).encode()
                assert secret not in told.body
                assert blob[:200] not in told.body
                assert blob[-200:] not in told.body
    await site.settle()
    for name in await names(store, "photo.t/"):
        assert secret.decode() not in name


@pytest.mark.parametrize(
    "path",
    [
        "photo.t/../{original}",
        "photo.t/../../{original}",
        "photo.t//{original}",
        "photo.t/%2e%2e/{original}",
        "photo.t/..%2f{original}",
        "photo.t\\..\\{original}",
        "/{original}",
        "./{original}",
        "{original}\0.jpg",
        "{original}/",
        "{original}?x.t/",
        "photo.t/{tail}",
        "photo.T/{tail}",
        ".t/{tail}",
        "photo.t.t/{tail}",
        "{original}.webp",
    ],
)
async def test_no_path_returns_the_original(path: str) -> None:
    """Other paths are rejected because of their form, without a call of the store."""
    store = Watched()
    site, original = Site(store), await put(Photo, store)
    name = store.name_of(original.key)
    store.calls = 0
    assert is_refused(await site.ask(BASE + path.format(original=name, tail=name.partition("/")[2])))
    assert store.calls <= 1  # a name in the form of a thumbnail's is looked up once


# --- names -----------------------------------------------------------------------------------------------------------


async def test_forged_names_make_nothing_else(store: KeyedStore) -> None:
    """If a digit of the tag is changed, the proof fails, or the request is redirected to a declared file."""
    site, original = Site(store), await put(Photo, store)
    chance = random.Random(3)
    url = site.urls(original, "card")[0]
    start, _, end = url.partition("-card-")
    tag, rest = end[:12], end[12:]
    for place in range(len(tag)):
        digit = chance.choice(DIGITS.replace(tag[place], ""))
        told = await site.ask(f"{start}-card-{tag[:place]}{digit}{tag[place + 1 :]}{rest}")
        if place < 5:
            assert is_refused(told)
        else:
            assert told.status == 302
            assert told.headers["location"] in site.urls(original, "card")
    for forged in (
        f"{start}-card-{tag}{SANDBOX}{rest}",
        f"{start[:-1]}-card-{tag}{rest}",
        f"{start}x-card-{tag}{rest}",
        f"{start}-card-{tag.upper()}{rest}",
        f"{start}-share-{tag}{rest}",
        f"{start}-card-000000-{tag}.exe",
    ):
        assert is_refused(await site.ask(forged)), forged
    await site.settle()
    assert {BASE + name for name in await names(store, "photo.t/")} <= declared_urls(site, original)


async def test_originals_of_other_classes(store: KeyedStore) -> None:
    """A name is valid for one object type, even if both classes declare the thumbnail and one server serves them."""
    site = Site(store, Photo, Other)
    public, private = await put(Photo, store), await put(Other, store)
    for url in site.urls(public, "card"):
        assert is_refused(await site.ask(url.replace("/photo.t/", "/other.t/")))
    mine, theirs = site.urls(public, "card")[0], site.urls(private, "card")[0]
    tag = mine.split("-card-")[1]
    assert is_refused(await site.ask(f"{theirs.split('-card-')[0]}-card-{tag}"))
    assert await names(store, "other.t/") == []


# --- signatures ------------------------------------------------------------------------------------------------------


async def test_forged_signatures_cause_no_call_of_the_store() -> None:
    """A signature with a changed character, or omitted, repeated, empty or expired parameters, is rejected."""
    store = Watched()
    site = Site(store, url_secret=SECRETS, url_expires_in=60, url_window=10)
    original = await put(Photo, store)
    [url] = site.urls(original, "share")
    path, _, query = url.partition("?")
    forged = [query[:place] + ("0" if query[place] != "0" else "1") + query[place + 1 :] for place in range(len(query))]
    parts = query.split("&")
    forged += ["&".join(parts[:place] + parts[place + 1 :]) for place in range(len(parts))]
    forged += [f"{query}&{part}" for part in parts] + ["", "=&=", query.replace("=", "=9", 1), query + "\0"]
    store.calls = 0
    for one in forged:
        told = await site.ask(f"{path}?{one}")
        assert told.status == 403, one
        assert told.headers["cache-control"] == "no-store"
    assert store.calls == 0
    assert (await site.ask(url)).status == 200


# --- work ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["PNG of 900 megapixels", "PNG text", "progressive JPEG", "JPEG of many scans"])
async def test_decompression_bombs_as_originals(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bomb that was stored by other means is rejected like an upload, and not read for the next request."""
    blob = BOMBS[name][0]()
    store = Watched()
    site, original = Site(store), await put(Photo, store, blob, width=60, height=40)
    reads = []
    get = store.get_object

    async def noted(name: str, **options: Any) -> Any:
        reads.append(name)
        return await get(name, **options)

    monkeypatch.setattr(store, "get_object", noted)
    for url in site.urls(original, "card"):
        assert is_refused(await site.ask(url))
    assert reads.count(store.name_of(original.key)) == 1
    assert await names(store, "photo.t/") == []


async def test_a_crawler_that_requests_everything(store: KeyedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crawler gets each declared file once, for a bounded number of focal points, whatever it requests."""
    monkeypatch.setattr(server, "_MAX_FRAMINGS", POINTS)
    decodes = 0

    def counted(*args: Any) -> Any:
        nonlocal decodes
        decodes += 1
        return render(*args)

    monkeypatch.setattr(maker, "render", counted)
    site = Site(store, max_wait=60)
    chance = random.Random(5)
    most = 0
    urls: list[str] = []
    for _ in range(2):
        original = await put(Photo, store)
        urls += declared_urls(site, original)
        most += len(site.urls(original, "card"))
        for point in range(10):
            original.focal_point = (point / 10, 0.5)
            urls += [url for name in ("icon", "share") for url in site.urls(original, name)]
        most += (POINTS + 1) * 4
    for url in [*urls]:
        start, _, extension = url.rpartition(".")
        stem, _, size = start.rpartition(".")
        urls += [f"{stem}.{chance.randint(1, 999)}x{size.partition('x')[2]}.{extension}" for _ in range(2)]
        urls += [f"{stem}.{size}.{other}" for other in ("avif", "gif", "png", "svg")]
        head, _, tag = stem.rpartition("-")
        urls += [f"{head}-{tag[:5]}{''.join(chance.choices(DIGITS, k=7))}.{size}.{extension}" for _ in range(2)]
        urls += [f"{head}-{chance.randint(0, 100):03}050-{tag}.{size}.{extension}"]
    chance.shuffle(urls)

    async def crawl(url: str) -> None:
        told = await site.ask(url)
        if told.status == 302:
            told = await site.ask(told.headers["location"])
        assert told.status in (200, 302, 404)

    for begin in range(0, len(urls), 8):
        await asyncio.gather(*map(crawl, urls[begin : begin + 8]))
    await site.settle()
    found = await names(store, "photo.t/")
    assert len(found) <= most + 2 * 8 * 4  # requests at the same time may each add a point
    before = decodes
    for url in urls:
        await crawl(url)
    await site.settle()
    assert decodes - before <= most  # what was missing because the server was busy
    assert await names(store, "photo.t/") >= found


async def test_slow_clients_hold_one_block_each(tmp_path: Path) -> None:
    """A hundred clients that request a large thumbnail of a directory and read nothing hold one block each."""
    store = FileSystemStore(tmp_path, "/", fsync=False)
    noise = PillowImage.frombytes("RGB", (1100, 400), random.Random(1).randbytes(1100 * 400 * 3))
    original = await put(Large, store, saved(noise, "PNG"), width=1100, height=400, mimetype="image/png")
    site = Site(store, Large, block_size=BLOCK)
    [url] = site.urls(original, "page")
    size = len((await site.ask(url)).body)
    assert size > 30 * BLOCK
    stuck: list[bytes] = []

    async def read_nothing(message: dict[str, Any]) -> None:
        stuck.append(message.get("body", b""))
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()

    async def receive() -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    scope = {**Client(None).scope, "type": "http", "method": "GET", "headers": [], "query_string": b"", "root_path": ""}
    path = url.removeprefix(BASE.rstrip("/"))
    tasks = [asyncio.create_task(site.server({**scope, "path": path}, receive, read_nothing)) for _ in range(CLIENTS)]
    while len(stuck) < 2 * CLIENTS:
        await asyncio.sleep(0.001)
    assert sum(map(len, stuck)) <= CLIENTS * BLOCK
    assert (await site.ask(url)).status == 200  # the others are served meanwhile
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def test_secrets_have_a_minimum_length(store: KeyedStore) -> None:
    """A short secret is rejected, because it could be guessed."""
    with pytest.raises(ValueError, match="16"):
        ThumbnailServer(store, [Photo], base_url=BASE, url_secret="short")
