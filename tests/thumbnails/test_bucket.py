"""Declared thumbnails in a bucket."""

from __future__ import annotations

import pytest

from aioimageattach import bind_store
from aioimageattach._transaction import files
from aioimageattach.thumbnails import ThumbnailServer
from tests.databases import Database
from tests.entity.models import started
from tests.entity.test_derived import Base, Product
from tests.photos import photo
from tests.servers.gate import Gate
from tests.stores.s3.conftest import MakeStore
from tests.stores.s3.conftest import gate as gate
from tests.stores.s3.conftest import make_store as make_store
from tests.stores.s3.conftest import s3_server as s3_server
from tests.thumbnails.models import Photo, names, put, size_of
from tests.thumbnails.test_server import Site, changed

COUNT = 5


async def test_the_number_of_requests(gate: Gate, make_store: MakeStore) -> None:
    """A hit sends one request; a miss checks the file, lists, reads, puts, and checks the original again."""
    store = make_store(gate.url)
    site, original = Site(store), await put(Photo, store)
    [share] = site.urls(original, "share")
    with gate.noting() as noted:
        first = await site.ask(share)
    assert first.status == 200
    assert size_of(first.body) == (120, 63)
    assert len(noted) == 5
    with gate.noting() as noted:
        assert (await site.ask(share)).body == first.body
    assert len(noted) == 1
    for url in await changed(store, original, site.server._maker.declared("photo")[0]["card"].value, "icon"):
        assert (await site.ask(url)).status == 302
    await store.discard(original.key)
    assert (await site.ask(site.urls(original, "card")[0])).status == 404


async def test_thumbnails_are_deleted_together(sqlite_database: Database, gate: Gate, make_store: MakeStore) -> None:
    """Thumbnails of many images are deleted with one request, without a listing; URLs of marked ones are direct."""
    store = make_store(gate.url)
    sessions = await started(sqlite_database, Base.metadata, expire_on_commit=False)
    bind_store(sessions, store, thumbnails=ThumbnailServer(store, [], base_url="/thumbnails/"))
    async with sessions() as session:
        session.add(product := Product())
        await product.cover.from_blob(photo("chelsea"))
        await product.cover.generate_thumbnails()
        await session.commit()
        assert gate.url in str(product.cover.url("card"))
    kept = await names(store)
    async with sessions() as session:
        products = [Product() for _ in range(COUNT)]
        session.add_all(products)
        for product in products:
            await product.cover.from_blob(photo("chelsea"))
            await product.cover.generate_thumbnails()
        await session.commit()
        assert len(await names(store)) == len(kept) * (COUNT + 1)
        for product in products:
            await session.delete(product)
        with gate.noting() as noted:
            await session.commit()
    assert len(noted) == COUNT + 1
    assert await names(store) == kept


async def test_thumbnails_are_deleted_while_originals_are(
    sqlite_database: Database, gate: Gate, make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thumbnails of the first originals are deleted while further originals are, and nothing is left."""
    monkeypatch.setattr(files, "_ORIGINALS", 2)
    store = make_store(gate.url)
    sessions = await started(sqlite_database, Base.metadata, expire_on_commit=False)
    bind_store(sessions, store, thumbnails=ThumbnailServer(store, [], base_url="/thumbnails/"))
    async with sessions() as session:
        products = [Product() for _ in range(COUNT)]
        session.add_all(products)
        for product in products:
            await product.cover.from_blob(photo("chelsea"))
            await product.cover.generate_thumbnails()
        await session.commit()
        for product in products:
            await session.delete(product)
        with gate.noting() as noted:
            await session.commit()
    assert await names(store) == []
    methods = [one.asked.method for one in noted]
    assert methods.count("DELETE") == COUNT
    assert methods.count("POST") >= 2
