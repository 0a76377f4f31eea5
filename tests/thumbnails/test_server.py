"""``ThumbnailServer``: serving declared thumbnails, and making those that are missing."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from aioimageattach import Image, ImageLimits, Recipe, Srcset, _tasks, store_context
from aioimageattach._declared import maker
from aioimageattach._names import revision_of
from aioimageattach.exc import DeclarationError, StoreUnavailableError
from aioimageattach.file import AsyncFile, Source
from aioimageattach.imaging import render
from aioimageattach.store import KeyedStore, ObjectInfo
from aioimageattach.stores import MemoryStore, OverlayStore, RoutingStore
from aioimageattach.stores.fs import FileSystemStore, StaticServer
from aioimageattach.thumbnails import ThumbnailServer
from aioimageattach.thumbnails import _maker as making
from aioimageattach.thumbnails import _server as server
from aioimageattach.thumbnails._turns import Priority, turns
from tests.photos import opened, saved
from tests.servers.asking import Client, Told
from tests.thumbnails.models import Photo, Plain, Tenant, names, put, row, size_of

BASE = "/thumbnails/"


class Site:
    """A thumbnail server and a client for it.

    Args:
        store: The store.
        classes: The image classes.
        options: The other arguments of the server.
    """

    def __init__(self, store: KeyedStore, *classes: type[Any], **options: Any) -> None:
        self.server = ThumbnailServer(store, classes or [Photo], **{"base_url": BASE, **options})
        self.client = Client(self.server)
        self.store = store

    def urls(self, original: Any, name: str) -> list[str]:
        """Return the URLs of a thumbnail."""
        with store_context(self.store, thumbnails=self.server):
            return [one.url for one in original.candidates(name)]

    async def ask(self, url: str, *headers: tuple[str, str], **options: Any) -> Told:
        """Request a URL."""
        path, _, query = url.removeprefix(BASE.rstrip("/")).partition("?")
        return await self.client.ask(path, *headers, query_string=query.encode(), **options)

    async def settle(self) -> None:
        """Wait until the files that are made ahead exist."""
        if self.server._maker._rest is not None:
            await self.server._maker._rest


def is_refused(told: Told, status: int = 404) -> bool:
    """Return whether a response is an error that caches do not store."""
    return told.status == status and told.headers["cache-control"] == "no-store"


# --- files that exist, and files that do not -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["icon", "card", "share"])
async def test_a_missing_file_is_made(store: KeyedStore, name: str) -> None:
    """The file has the size in its name, is stored, and is served from then on."""
    site, original = Site(store), await put(Photo, store)
    for url in site.urls(original, name):
        first = await site.ask(url)
        assert first.status == 200
        assert size_of(first.body) == tuple(map(int, url.rpartition("/")[2].split(".")[1].split("x")))
        await site.settle()
        async with await store.get_object(url.removeprefix(BASE)) as file:
            assert await file.read() == first.body
        again = await site.ask(url)
        assert (again.status, again.body, again.headers) == (200, first.body, first.headers)
        assert first.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert first.headers["content-type"] == f"image/{url[-4:].strip('.').replace('jpg', 'jpeg')}"
        assert (await site.ask(url, ("if-none-match", first.headers["etag"]))).status == 304
        head = await site.ask(url, method="HEAD")
        assert (head.status, head.headers, head.body) == (200, first.headers, b"")


async def test_a_file_is_served_as_by_the_static_server(tmp_path: Path) -> None:
    """Whole files and ranges have the same headers."""
    store = FileSystemStore(tmp_path, "/", fsync=False)
    site, original = Site(store), await put(Photo, store)
    url = site.urls(original, "card")[0]
    await site.ask(url)
    static = Client(StaticServer(tmp_path))
    for header in (("range", "bytes=3-7"), ("range", "bytes=0-1,900-901"), ("if-none-match", "*"), ("origin", "x")):
        ours = await site.ask(url, header)
        theirs = await static.ask(url.removeprefix("/thumbnails"), header)
        assert ours.status == theirs.status
        assert ours.headers.keys() == theirs.headers.keys()
        assert len(ours.body) == len(theirs.body)


async def test_ranges_of_other_stores() -> None:
    """Ranges in a store that is not a directory are taken from the whole file."""
    store = MemoryStore()
    site, original = Site(store), await put(Photo, store)
    url = site.urls(original, "card")[0]
    whole = (await site.ask(url)).body
    part = await site.ask(url, ("range", "bytes=3-7"))
    assert (part.status, part.body) == (206, whole[3:8])
    several = await site.ask(url, ("range", "bytes=0-1,200-201"))
    assert several.status == 206
    assert whole[200:202] in several.body
    assert (await site.ask(url, ("range", "bytes=9999999-"))).status == 416


async def test_large_files_of_a_directory_are_sent_in_blocks(tmp_path: Path) -> None:
    """Large files are sent in blocks, as by the static server."""
    store = FileSystemStore(tmp_path, "/", fsync=False)
    site, original = Site(store, block_size=1000), await put(Photo, store)
    url = site.urls(original, "card")[2]
    whole = (await site.ask(url)).body
    told = await site.ask(url)
    assert told.body == whole
    assert len(told.bodies) > 1


async def test_other_widths_are_made_ahead(store: KeyedStore) -> None:
    """Missing widths of the same format are made ahead, and existing ones are not made again."""
    site, original = Site(store), await put(Photo, store)
    url = site.urls(original, "card")[1]
    await site.ask(url)
    await site.settle()
    assert [name.rpartition(".")[2] for name in await names(store, "photo.t/")] == ["webp"] * 3
    [path] = [name for name in await names(store, "photo.t/") if ".60x" in name]
    await store.delete_object(path)
    await store.delete_object(url.removeprefix(BASE))
    await site.ask(url)
    await site.settle()
    assert len(await names(store, "photo.t/")) == 3


async def test_all_classes_of_an_object_type(store: KeyedStore) -> None:
    """Each class has its own declarations; a class whose object type depends on the row can have any object type."""

    class Own(DeclarativeBase):
        """A separate registry."""

    class Animal(Own, Image):
        """A class with single-table inheritance."""

        __tablename__ = "animal"
        __thumbnails__ = {"card": Srcset([30], fallback=None)}
        __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "animal"}
        id: Mapped[int] = mapped_column(primary_key=True)
        kind: Mapped[str]

    class Cat(Animal):
        """A subclass with another look."""

        __thumbnails__ = {"card": Srcset([40], fallback=None, quality=30), "own": Recipe(width=10)}
        __mapper_args__ = {"polymorphic_identity": "cat"}

    class Other(Own, Image):
        """A class of another table with the same object type."""

        __tablename__ = "other"
        __thumbnails__ = {"card": Srcset([50], fallback=None, quality=70)}
        object_type = "animal"
        id: Mapped[int] = mapped_column(primary_key=True)

    site = Site(store, Animal, Other, Tenant)
    for cls, name, width in ((Animal, "card", 30), (Cat, "card", 40), (Cat, "own", 10), (Other, "card", 50)):
        [url] = site.urls(await put(cls, store), name)
        assert size_of((await site.ask(url)).body)[0] == width
    first, second = [await put(Tenant, store, tenant=tenant) for tenant in ("a", "b")]
    [url] = site.urls(first, "card")
    assert url.startswith("/thumbnails/tenant-a.t/")
    assert (await site.ask(url)).status == 200
    [other] = site.urls(second, "card")
    assert is_refused(await site.ask(other.replace("tenant-b", "tenant-a")))


async def test_originals_of_the_predecessor(store: KeyedStore) -> None:
    """Originals without a revision are found by the public part of the names; missing ones are 404."""
    site = Site(store)
    original = await put(Photo, store, revision=None, id=7)
    for url in site.urls(original, "card"):
        assert (await site.ask(url)).status == 200
    await store.discard(original.key)
    [share] = site.urls(original, "share")
    assert is_refused(await site.ask(share))
    assert is_refused(await site.ask(share.replace("-share-", "-share-000000-")))


async def test_the_focal_point_comes_from_the_name(store: KeyedStore) -> None:
    """The server has no database, so the name contains the focal point."""
    site = Site(store)
    original = await put(Photo, store)
    bodies = set()
    for point in (None, (0.0, 0.5), (1.0, 0.5)):
        original.focal_point = point
        bodies.add((await site.ask(site.urls(original, "icon")[0])).body)
    assert len(bodies) == 3


async def test_a_picture_above_an_overlay(tmp_path: Path) -> None:
    """Thumbnails of pictures in both stores of an overlay are put into the store above."""
    above, below = FileSystemStore(tmp_path, "/", fsync=False), MemoryStore("below:/")
    store = OverlayStore(above, below)
    site = Site(store)
    for original in (await put(Photo, below), await put(Photo, store)):
        for url in site.urls(original, "card"):
            assert (await site.ask(url)).status == 200
    await site.settle()
    assert len(await names(above, "photo.t/")) == 8
    assert await names(below, "photo.t/") == []


async def test_public_thumbnails_of_private_originals(tmp_path: Path) -> None:
    """A routing store determines the store of thumbnails; without a route, it is that of their originals."""
    private, public = MemoryStore(), FileSystemStore(tmp_path, "/", fsync=False)
    for routes, expected in (({"photo": private, "photo.t": public}, public), ({"photo": private}, private)):
        store = RoutingStore(routes, default=MemoryStore())
        site, original = Site(store), await put(Photo, store)
        for url in site.urls(original, "share"):
            assert (await site.ask(url)).status == 200
            assert await names(expected, "photo.t/") == [url.removeprefix(BASE)]
        assert (await site.ask(url)).status == 200


# --- outdated, undeclared and forged names ---------------------------------------------------------------------------


async def changed(store: KeyedStore, original: Any, what: Srcset | Recipe, name: str = "card") -> list[str]:
    """Return the URLs that another version of the class generates for the same picture."""

    class Own(DeclarativeBase):
        """A separate registry."""

    class Old(Own, Image):
        """The other version of the class."""

        __tablename__ = "photo"
        __thumbnails__ = {name: what}
        id: Mapped[int] = mapped_column(primary_key=True)

    old = row(Old, store, revision=original.revision)
    return Site(store, Old).urls(old, name)


async def test_an_outdated_name_is_redirected(store: KeyedStore) -> None:
    """An outdated name is redirected to the file of the nearest width and the same format, which is made first."""
    site, original = Site(store), await put(Photo, store)
    now = site.urls(original, "card")
    cases = [
        (Srcset([70, 100], quality=30), [now[0], now[1], now[3]]),
        (Srcset([1000]), [now[2], now[3]]),
        (Srcset([130], formats=["avif"], fallback="png"), [now[1], now[1]]),
    ]
    for what, expected in cases:
        for url, target in zip(await changed(store, original, what), expected, strict=True):
            told = await site.ask(url)
            assert told.status == 302
            assert told.headers["location"] == target
            assert told.headers["cache-control"] == "no-store"
            assert told.body == b""
            assert target.removeprefix(BASE) in await names(store, "photo.t/")
    await site.settle()
    assert sorted(BASE + name for name in await names(store, "photo.t/")) == sorted(now)


async def test_an_outdated_file_that_exists_is_served(store: KeyedStore) -> None:
    """An existing file is served, whatever the classes declare by now."""
    site, original = Site(store), await put(Photo, store)
    url = (await changed(store, original, Srcset([70], quality=30)))[0]
    await store.put_object(url.removeprefix(BASE), b"old")
    assert (await site.ask(url)).body == b"old"


async def test_other_names_are_not_found(store: KeyedStore) -> None:
    """Undeclared thumbnails, invalid names and deleted pictures are 404, and nothing is made."""
    site, original = Site(store, Photo, Plain), await put(Photo, store)
    plain = await put(Plain, store)
    [other] = await changed(store, original, Recipe(width=30), "other")
    card = site.urls(original, "card")[0]
    tag = card.split("-card-")[1].partition(".")[0]
    gone = site.urls(row(Photo, store), "card")[0]
    for url in (
        other,
        gone,
        card.replace(tag, "0" * 12),
        card.replace("-card-", "-icon-"),
        card.replace("photo.t", "plain.t"),
        card.replace("photo.t", "elsewhere.t"),
        card.replace("photo.t", "photo"),
        card.replace(".t/", ".t/../"),
        f"{BASE}photo/7/0/7.30x20.jpe",
        f"{BASE}photo.t/7/0/7.30x20.jpe",
        f"{BASE}{store.name_of(original.key)}",
        f"{BASE}{store.name_of(plain.key)}",
        f"{BASE}{store.name_of(original.key)}".replace("photo/", "photo.t/"),
        BASE,
    ):
        assert is_refused(await site.ask(url)), url
    assert await names(store, "photo.t/") == []
    assert (await site.ask(card, method="POST")).status == 405


async def test_sizes_cannot_be_forged(store: KeyedStore) -> None:
    """Names with other sizes are redirected to a declared file, and nothing else is made."""
    site, original = Site(store), await put(Photo, store)
    urls = site.urls(original, "card")
    for width in range(61, 80):
        told = await site.ask(urls[0].replace(".60x40.", f".{width}x40."))
        assert (told.status, told.headers["location"]) == (302, urls[0])
    await site.settle()
    assert {BASE + name for name in await names(store, "photo.t/")} <= {*urls}


async def test_originals_with_similar_revisions_are_distinguished(store: KeyedStore) -> None:
    """Revisions of earlier versions have a short public part, with which names of other files can begin."""
    site = Site(store)
    beginning = "01m8mvtw392my"
    originals = [await put(Photo, store, revision=beginning + end * 13) for end in "abc"]
    await store.put_object(f"photo/{beginning[:5]}/{beginning[5:7]}/{beginning[:12]}.txt", b"")
    for original in originals:
        assert (await site.ask(site.urls(original, "card")[0])).status == 200
    assert len({revision_of(name) for name in await names(store, "photo.t/")}) == 3


async def test_focal_points_cannot_fill_the_disk(store: KeyedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that knows the original's URL can calculate names for all points, but only some files are made."""
    monkeypatch.setattr(server, "_MAX_FRAMINGS", 2)
    site, original = Site(store), await put(Photo, store)
    icon = Photo.__thumbnails__["icon"]
    assert isinstance(icon, Srcset)
    for number in range(4):
        original.focal_point = (number / 10, 0.5)
        told = await site.ask(site.urls(original, "icon")[0])
        assert told.status == (200 if number < 2 else 302)
        await site.settle()
    assert len(await names(store, "photo.t/")) == 4


async def test_thumbnails_that_exceed_all_limits(store: KeyedStore) -> None:
    """An outdated name is 404 if the limits permit no file."""

    class Own(DeclarativeBase):
        """A separate registry."""

    class Narrow(Own, Image):
        """A class whose limits permit no file of this size."""

        __tablename__ = "photo"
        __image_limits__ = ImageLimits(max_side=20)
        __thumbnails__ = {"card": Srcset([50])}
        id: Mapped[int] = mapped_column(primary_key=True)

    original = await put(Photo, store)
    [url, _] = await changed(store, original, Srcset([30]))
    assert is_refused(await Site(store, Narrow).ask(url))


# --- deleted and broken originals ------------------------------------------------------------------------------------


async def test_an_original_that_is_deleted_during_the_rendering(
    store: KeyedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thumbnail is deleted again, because no other code would do so."""
    site, original = Site(store), await put(Photo, store)

    def deleted(*args: Any) -> Any:
        made = render(*args)
        asyncio.run_coroutine_threadsafe(store.discard(original.key), loop).result()
        return made

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(maker, "render", deleted)
    assert is_refused(await site.ask(site.urls(original, "card")[0]))
    assert await names(store) == []


async def test_a_broken_original_is_remembered(
    store: KeyedStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The error is remembered for a while, so that a popular page does not cause one decode per visitor."""
    site, original = Site(store), await put(Photo, store, b"not a picture" * 99)
    opens = 0
    get = store.get_object

    async def counted(name: str, **options: Any) -> AsyncFile:
        nonlocal opens
        opens += name.startswith("photo/")
        return await get(name, **options)

    monkeypatch.setattr(store, "get_object", counted)
    with caplog.at_level(logging.WARNING):
        for url in site.urls(original, "card"):
            assert is_refused(await site.ask(url))
    assert opens == 1
    assert "cannot be made" in caplog.text
    monkeypatch.setattr(making, "_BROKEN_FOR", -1.0)
    monkeypatch.setattr(making, "_BROKEN_KEPT", 1)
    site.server._maker._broken.clear()
    for _ in range(2):
        assert is_refused(await site.ask(url))
    assert opens == 3
    assert len(site.server._maker._broken) == 1


async def test_a_decompression_bomb_is_refused(store: KeyedStore) -> None:
    """An original that was stored by other means is checked like an upload."""
    bomb = saved(opened("chelsea", (40, 30)), "PNG").replace((40).to_bytes(4), (60_000).to_bytes(4), 1)
    site, original = Site(store), await put(Photo, store, bomb, mimetype="image/png")
    assert is_refused(await site.ask(site.urls(original, "card")[0]))


class Troubled(MemoryStore):
    """A store that fails on request."""

    failing = ""

    def check(self, call: str) -> None:
        """Raise an error if this call should fail."""
        if self.failing == call:
            raise StoreUnavailableError("out of order")

    async def get_object(self, name: str, *, start: int = 0, end: int | None = None) -> Any:
        self.check("get")
        return await super().get_object(name, start=start, end=end)

    async def put_object(
        self, name: str, data: Source, *, mimetype: str = "application/octet-stream", reproducible: bool = False
    ) -> None:
        self.check("put")
        await super().put_object(name, data, mimetype=mimetype, reproducible=reproducible)

    async def head_object(self, name: str) -> ObjectInfo:
        self.check("head")
        return await super().head_object(name)


@pytest.mark.parametrize("failing", ["get", "put", "head"])
async def test_a_store_that_fails(failing: str) -> None:
    """The response permits the client to retry."""
    store = Troubled()
    site, original = Site(store), await put(Photo, store)
    url = site.urls(original, "card")[0]
    store.failing = failing
    told = await site.ask(url)
    assert is_refused(told, 503)
    assert told.headers["retry-after"] == "1"
    store.failing = ""
    assert (await site.ask(url)).status == 200


async def test_an_error_while_making_ahead_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """A width that could not be made ahead is made on request."""
    store = Troubled()
    site, original = Site(store), await put(Photo, store)
    first, second, *_ = site.urls(original, "card")

    assert (await site.ask(first)).status == 200
    store.failing = "put"
    with caplog.at_level(logging.INFO):
        await site.settle()
    assert "was not made in advance" in caplog.text
    store.failing = ""
    assert (await site.ask(second)).status == 200


# --- many requests ---------------------------------------------------------------------------------------------------


async def test_requests_for_a_file_share_the_work(store: KeyedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two hundred clients for ten missing files cause ten decodes."""
    decodes: list[Any] = []
    monkeypatch.setattr(maker, "render", lambda *args: decodes.append(args) or render(*args))
    site = Site(store)
    originals = [await put(Photo, store) for _ in range(10)]
    urls = [site.urls(original, "share")[0] for original in originals]
    told = await asyncio.gather(*(site.ask(url) for url in urls * 20))
    assert {one.status for one in told} == {200}
    assert len(decodes) == 10


async def test_two_processes_make_one_file(store: KeyedStore) -> None:
    """The slower process responds with the file of the other one."""
    original = await put(Photo, store)
    sites = [Site(store), Site(store)]
    url = sites[0].urls(original, "card")[0]
    told = await asyncio.gather(*(site.ask(url) for site in sites))
    assert {one.status for one in told} == {200}
    assert len({one.body for one in told}) == 1


async def test_an_existing_file_is_not_overwritten(store: KeyedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that another process has stored in the meantime is not overwritten."""
    site, original = Site(store), await put(Photo, store)
    url = site.urls(original, "share")[0]
    loop = asyncio.get_running_loop()

    def meanwhile(*args: Any) -> Any:
        put = store.put_object(url.removeprefix(BASE), b"theirs")
        asyncio.run_coroutine_threadsafe(put, loop).result()
        return render(*args)

    monkeypatch.setattr(maker, "render", meanwhile)
    assert (await site.ask(url)).status == 200
    assert (await site.ask(url)).body == b"theirs"


class Gate:
    """Blocks the work of a server until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.entered = asyncio.Event()
        self.opened = asyncio.Event()
        fetch = maker.fetch

        async def held(*args: Any) -> Any:
            self.entered.set()
            await self.opened.wait()
            return await fetch(*args)

        monkeypatch.setattr(making, "fetch", held)


async def test_a_busy_server_redirects_to_another_file(store: KeyedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy server redirects to another file of the thumbnail, or responds with 503 if there is none."""
    site = Site(store, concurrency=1, max_wait=0.01)
    busy, known, new = [await put(Photo, store) for _ in range(3)]
    await site.ask(site.urls(known, "card")[0])
    await site.settle()
    for name in (await names(store, "photo.t/"))[1:]:
        await store.delete_object(name)
    left = (await names(store, "photo.t/"))[0]
    gate = Gate(monkeypatch)
    first = asyncio.create_task(site.ask(site.urls(busy, "card")[0]))
    await gate.entered.wait()
    told = await site.ask(site.urls(known, "card")[3])
    assert (told.status, told.headers["location"]) == (302, BASE + left)
    told = await site.ask(site.urls(new, "card")[0])
    assert is_refused(told, 503)
    gate.opened.set()
    assert (await first).status == 200


async def test_nothing_is_made_ahead_while_requests_wait(store: KeyedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file is made ahead while a request waits."""
    site = Site(store, concurrency=1)
    one, other = await put(Photo, store), await put(Photo, store)
    gate = Gate(monkeypatch)
    tasks = [asyncio.create_task(site.ask(site.urls(original, "card")[0])) for original in (one, other)]
    await gate.entered.wait()
    while not turns().is_awaited(Priority.REQUEST):
        await asyncio.sleep(0)
    gate.opened.set()
    assert {told.status for told in await asyncio.gather(*tasks)} == {200}
    await site.settle()
    made = [revision_of(name) for name in await names(store, "photo.t/")]
    assert sorted(made.count(revision) for revision in {*made}) == [1, 3]


async def test_a_request_interrupts_making_ahead(store: KeyedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A waiting request is served after the file in progress."""
    site = Site(store, concurrency=1)
    one, other = await put(Photo, store), await put(Photo, store)
    entered, opened = asyncio.Event(), asyncio.Event()

    async def exists(name: str) -> bool:
        entered.set()
        await opened.wait()
        return True

    monkeypatch.setattr(site.server._maker, "exists", exists)
    await site.ask(site.urls(one, "card")[0])
    ahead = site.server._maker._rest
    assert ahead is not None
    await entered.wait()
    waiting = asyncio.create_task(site.ask(site.urls(other, "share")[0]))
    while not turns().is_awaited(Priority.REQUEST):
        await asyncio.sleep(0)
    opened.set()
    assert (await waiting).status == 200
    await ahead
    assert len(await names(store, "photo.t/")) == 2


async def test_a_request_waits_for_a_file_that_is_made_ahead(
    store: KeyedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file in progress is not made a second time."""
    decodes = 0
    loop, entered, opened = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    def held(*args: Any) -> Any:
        nonlocal decodes
        decodes += 1
        if decodes == 2:
            loop.call_soon_threadsafe(entered.set)
            opened.wait(20)
        return render(*args)

    monkeypatch.setattr(maker, "render", held)
    site, original = Site(store), await put(Photo, store)
    first, second, third, _ = site.urls(original, "card")
    assert (await site.ask(first)).status == 200
    await entered.wait()
    asked = asyncio.create_task(site.ask(second))
    while not (flights := _tasks._flights[loop].flying) or max(one.waiting for one in flights.values()) < 2:
        await asyncio.sleep(0.001)
    opened.set()
    assert (await asked).status == 200
    await site.settle()
    assert (await site.ask(third)).status == 200
    assert decodes == 3


async def test_making_ahead_ends_with_the_application(store: KeyedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """No task is left."""
    site, original = Site(store), await put(Photo, store)
    await site.ask(site.urls(original, "card")[0])
    ahead = site.server._maker._rest
    assert ahead is not None
    await site.server.aclose()
    assert ahead.done()
    await site.server.aclose()


async def test_a_client_that_disconnects_does_not_stop_the_work(
    store: KeyedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other clients that wait for the file get it."""
    site, original = Site(store), await put(Photo, store)
    url = site.urls(original, "card")[0]
    gate = Gate(monkeypatch)
    leaving, staying = asyncio.create_task(site.ask(url)), asyncio.create_task(site.ask(url))
    await gate.entered.wait()
    await asyncio.sleep(0)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    gate.opened.set()
    assert (await staying).status == 200


# --- private thumbnails ----------------------------------------------------------------------------------------------

SECRETS = ["a secret of the tests", "the secret before it"]


async def test_one_signature_covers_all_files_of_a_picture(store: KeyedStore) -> None:
    """The signature covers all thumbnails of one picture, and only the browser may cache the response."""
    site = Site(store, url_secret=SECRETS)
    assert site.server.is_private
    original, other = await put(Photo, store), await put(Photo, store)
    [share] = site.urls(original, "share")
    signature = share.partition("?")[2]
    for url in site.urls(original, "card"):
        assert url.partition("?")[2] == signature
        told = await site.ask(url)
        assert told.status == 200
        kind, _, age = told.headers["cache-control"].partition(", max-age=")
        assert kind == "private"
        assert 0 < int(age) <= 7200
    path = site.urls(other, "card")[0].partition("?")[0]
    for url in (
        path,
        f"{path}?{signature}",
        f"{path}?{signature[:-1]}",
        f"{BASE}?{signature}",
        f"{BASE}photo/7/0/7.3x2.jpe",
    ):
        assert (await site.ask(url)).status in (403, 404)
        assert not (await site.ask(url)).body.startswith(b"\xff\xd8")
    assert (await site.ask(f"{BASE}photo.t/7/0/7.3x2.jpe?{signature}")).status == 403


async def test_secrets_can_be_rotated(store: KeyedStore) -> None:
    """URLs signed with an earlier secret are valid as long as it is accepted."""
    original = await put(Photo, store)
    [old] = Site(store, url_secret=SECRETS[1]).urls(original, "share")
    assert (await Site(store, url_secret=SECRETS).ask(old)).status == 200
    assert (await Site(store, url_secret=SECRETS[0]).ask(old)).status == 403


async def test_a_signature_expires(store: KeyedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Signatures expire at a rounded time; responses are not cached for longer, and redirects do not extend it."""
    site = Site(store, url_secret=SECRETS, url_expires_in=100, url_window=50)
    original = await put(Photo, store)
    [url] = site.urls(original, "share")
    old = (await changed(store, original, Srcset([130], fallback=None)))[0]
    told = await site.ask(f"{old}?{url.partition('?')[2]}")
    assert told.status == 302
    assert told.headers["location"].partition("?")[2] == url.partition("?")[2]
    later = time.time() + 150
    signer = site.server._signer
    assert signer is not None
    monkeypatch.setattr(signer, "_clock", lambda: later)
    assert (await site.ask(url)).status == 403


async def test_nginx_may_send_the_file(tmp_path: Path) -> None:
    """nginx sends an existing file with the headers of the server."""
    store = FileSystemStore(tmp_path, "/", fsync=False)
    site = Site(store, url_secret=SECRETS, x_accel_redirect="/stored/")
    [url] = site.urls(await put(Photo, store), "share")
    for _ in range(2):
        told = await site.ask(url)
        assert told.headers["x-accel-redirect"] == "/stored" + url.partition("?")[0].removeprefix("/thumbnails")
        assert told.headers["cache-control"].startswith("private, max-age=")
        assert told.body == b""
    assert (await site.ask(url, ("if-none-match", told.headers["etag"]))).status == 304
    assert len(await names(store, "photo.t/")) == 1


# --- arguments -------------------------------------------------------------------------------------------------------


def test_invalid_arguments_are_refused(store: KeyedStore) -> None:
    """Each message states what was expected."""
    with pytest.raises(DeclarationError, match="expected a KeyedStore"):
        ThumbnailServer("directory", [Photo], base_url=BASE)  # type: ignore[arg-type]
    for wrong in (Photo(), str):
        with pytest.raises(DeclarationError, match="expected image classes"):
            ThumbnailServer(store, [wrong], base_url=BASE)  # type: ignore[list-item]
    for option in ("block_size", "open_files", "concurrency"):
        with pytest.raises(ValueError, match=f"{option}: expected at least 1"):
            Site(store, **{option: -1})
    assert Site(store, base_url="/t").server.base_url == "/t/"
    assert not Site(store).server.is_private
