"""Pruning: finding and deleting the files of thumbnails that are no longer declared."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

import pytest
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from aioimageattach import FocalPoint, Image, Srcset
from aioimageattach.exc import StoreError, StoreUnavailableError
from aioimageattach.store import KeyedStore
from aioimageattach.stores import MemoryStore
from aioimageattach.thumbnails import _prune
from tests.thumbnails.models import Photo, Tenant, names, put, row
from tests.thumbnails.test_server import BASE, Site

NOW = timedelta(0)


class Base(DeclarativeBase):
    """The declarative base of another version of the application."""


class New(Base, Image, FocalPoint):
    """The same class with another look of ``card``, another width of ``icon``, and without ``share``."""

    __tablename__ = "photo"
    __thumbnails__ = {"icon": Srcset([24, 40], aspect=(1, 1)), "card": Srcset([60, 120], quality=50)}
    id: Mapped[int] = mapped_column(primary_key=True)


async def filled(store: KeyedStore, count: int = 3) -> None:
    """Put originals with the files of both versions; one has a focal point, one is in the legacy layout."""
    for number in range(count):
        original = await put(Photo, store, **({"revision": f"01m8mvtw392my{'a' * 13}"} if number == 1 else {}))
        if number == 2:
            original.focal_point = (0.2, 0.7)
        for cls in (Photo, New):
            site = Site(store, cls)
            same = row(cls, store, revision=original.revision, focal_x=original.focal_x, focal_y=original.focal_y)
            for name in cls.__thumbnails__:
                for url in site.urls(same, name):
                    assert (await site.ask(url)).status == 200
            await site.settle()


async def test_declared_files_are_kept(store: KeyedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other files are found and deleted on request, but no originals, orphans or files of other object types."""
    monkeypatch.setattr(_prune, "_BATCH", 4)
    await filled(store)
    orphan = Site(store, New).urls(row(New, store), "card")[0].removeprefix(BASE)
    for other in (orphan, "photo.t/notes.txt"):
        await store.put_object(other, b"")
    before = set(await names(store))
    site = Site(store, New)
    outdated = {info.name async for info in site.server.prune(grace=NOW)}
    assert set(await names(store)) == before
    assert {info.name async for info in site.server.prune(grace=NOW, delete=True)} == outdated
    assert set(await names(store)) == before - outdated
    assert len(outdated) == 3 * (4 + 1 + 2)  # "card", "share", and "icon" in 48 pixels as WebP and JPEG
    assert not {name for name in outdated if name.startswith("photo/")}
    assert orphan not in outdated
    assert [info async for info in site.server.prune(grace=NOW)] == []


async def test_young_files_are_kept(store: KeyedStore) -> None:
    """A young file is kept, because another process may have just made it."""
    await filled(store, 1)
    assert [info async for info in Site(store, New).server.prune(delete=True)] == []


async def test_object_types_that_depend_on_the_row(store: KeyedStore) -> None:
    """Such object types must be given."""
    site = Site(store, Tenant)
    original = await put(Tenant, store, tenant="a")
    [url] = site.urls(original, "card")
    await site.ask(url)
    wrong = url.removeprefix(BASE).replace(".60x", ".61x")
    await store.put_object(wrong, b"")
    assert [info async for info in site.server.prune(grace=NOW)] == []
    assert [info.name async for info in site.server.prune(grace=NOW, object_types=["tenant-a"])] == [wrong]


class Refusing(MemoryStore):
    """A store that deletes nothing."""

    async def delete_objects(self, names: Iterable[str]) -> dict[str, StoreError]:
        return {name: StoreUnavailableError("out of order") for name in names}


async def test_a_file_that_cannot_be_deleted() -> None:
    """The error is raised, and the remaining files are found again."""
    store = Refusing()
    await filled(store, 1)
    with pytest.raises(StoreUnavailableError):
        [info async for info in Site(store, New).server.prune(grace=NOW, delete=True)]
