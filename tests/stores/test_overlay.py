"""Stores for changes, over another store that is never written to."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from aioimageattach.exc import DeclarationError, InvalidKeyError, StoreFileExistsError, StoreFileNotFoundError
from aioimageattach.key import ImageKey
from aioimageattach.store import Store
from aioimageattach.stores import MemoryStore, MirrorStore, OverlayStore
from aioimageattach.stores.fs import FileSystemStore
from aioimageattach.testing import StoreContract
from tests.faults.stores import FaultyStore, fails
from tests.stores.plain import PlainStore


class TestOverlayStore(StoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> OverlayStore:
        return OverlayStore(FileSystemStore(tmp_path, "/", fsync=False), read_only(MemoryStore()))


class TestOverlayStoreOverTheSame(StoreContract):
    """An overlay over a store with files passes the conformance suite."""

    @pytest.fixture
    async def store(self) -> OverlayStore:
        below = MemoryStore()
        for name in ("contract/a", "contract/b", "other"):
            await below.put_object(name, b"below")
        return OverlayStore(MemoryStore(), read_only(below))


class TestPlainOverlayStore(StoreContract):
    @pytest.fixture
    def store(self) -> Store:
        return OverlayStore.plain(PlainStore(), PlainStore())


def read_only(inner: MemoryStore) -> FaultyStore:
    """Return a store that permits only reading."""
    store = FaultyStore(inner)
    store.at("put", fails)
    store.at("delete", fails)
    return store


@pytest.fixture
def below() -> MemoryStore:
    return MemoryStore("https://below/")


@pytest.fixture
def above() -> MemoryStore:
    return MemoryStore("https://above/")


@pytest.fixture
def store(above: MemoryStore, below: MemoryStore) -> OverlayStore:
    return OverlayStore(above, read_only(below))


async def names(store: OverlayStore | MemoryStore, prefix: str = "", start_after: str = "") -> list[str]:
    return [found.name async for found in store.list_objects(prefix, start_after=start_after)]


async def read(store: OverlayStore, name: str) -> bytes:
    async with await store.get_object(name) as file:
        return await file.read()


async def test_files_below_are_visible(store: OverlayStore, below: MemoryStore) -> None:
    """Files below can be read completely and in ranges, inspected, and listed together with those above."""
    for name in ("b/1", "b/3", "b/5"):
        await below.put_object(name, name.encode())
    for name in ("b/0", "b/2", "b/4", "c"):
        await store.put_object(name, name.encode())
    assert await read(store, "b/3") == b"b/3"
    async with await store.get_object("b/3", start=1, end=2) as file:
        assert await file.read() == b"/"
    assert await store.head_object("b/3") == await below.head_object("b/3")
    assert await names(store) == ["b/0", "b/1", "b/2", "b/3", "b/4", "b/5", "c"]
    assert await names(store, "b/", "b/2") == ["b/3", "b/4", "b/5"]


async def test_deletions_stay_above(store: OverlayStore, above: MemoryStore, below: MemoryStore) -> None:
    """A deleted file is missing for every method, but still exists in the store below."""
    for name in ("a", "b", "c", "d/e"):
        await below.put_object(name, b"below")
    await store.put_object("mine", b"above")
    await store.delete_object("b")
    assert list(await store.delete_objects(["mine", "b", "missing", "d/e", "../x"])) == ["../x"]
    for call in (store.get_object("b"), store.head_object("b")):
        with pytest.raises(StoreFileNotFoundError):
            await call
    assert await names(store) == ["a", "c"]
    assert await names(store, "", "a") == ["c"]
    assert await names(store, "d") == []
    assert await names(above) == [".deleted-below/b", ".deleted-below/d/e"]
    assert await names(below) == ["a", "b", "c", "d/e"]


async def test_a_name_below_is_taken_until_it_is_deleted(store: OverlayStore, below: MemoryStore) -> None:
    """A name of the store below can be put only after its deletion. Deleting it again hides both files."""
    await below.put_object("a", b"below")
    with pytest.raises(StoreFileExistsError):
        await store.put_object("a", b"mine")
    await store.delete_object("a")
    await store.put_object("a", b"mine")
    assert await read(store, "a") == b"mine"
    assert await names(store) == ["a"]
    with pytest.raises(StoreFileExistsError):
        await store.put_object("a", b"again")
    await store.delete_object("a")
    assert await names(store) == []
    assert await names(below) == ["a"]


async def test_concurrent_deletions(store: OverlayStore, below: MemoryStore) -> None:
    """Two tasks can delete the same file concurrently."""
    await below.put_object("a", b"below")
    await asyncio.gather(*(store.delete_object("a") for _ in range(4)))
    assert await names(store) == []


async def test_a_mark_that_another_process_has_put(below: MemoryStore) -> None:
    """A deletion succeeds if another process has put the mark first."""

    async def mark(name: str) -> None:
        await above.inner.put_object(".deleted-below/a", b"")

    above = FaultyStore()
    above.at("put", mark, 1)
    await below.put_object("a", b"below")
    store = OverlayStore(above, below)
    await store.delete_object("a")
    assert await names(store) == []


async def test_the_revision_determines_the_store(store: OverlayStore, below: MemoryStore) -> None:
    """URLs are calculated: new revisions belong to the store above, all other names to the store below."""
    mine = ImageKey("user", 1, 30, 20, "image/png", store.make_revision())
    theirs = ImageKey("user", 1, 30, 20, "image/png", below.make_revision())
    old = ImageKey("user", 1, 30, 20, "image/jpeg")
    assert mine.revision is not None
    assert mine.revision.endswith("-sandbox")
    assert store.revision_for("user", reproducible=True).endswith("-sandbox")
    urls = [store.url_of(store.name_of(key)) for key in (mine, theirs, old)]
    assert [url.partition("/user/")[0] for url in urls] == ["https://above", "https://below", "https://below"]
    with pytest.raises(StoreFileNotFoundError):
        await store.head_object(store.name_of(mine))


@pytest.mark.parametrize("name", [".deleted-below/a", ".deleted-below/a/b", ".deleted-below/a/b-sandbox"])
async def test_names_of_marks_are_refused(store: OverlayStore, below: MemoryStore, name: str) -> None:
    """Names of marks cannot be put, read or deleted, and marks in the store below are not visible."""
    await below.put_object(name, b"")
    for call in (store.put_object(name, b""), store.get_object(name), store.delete_object(name)):
        with pytest.raises(InvalidKeyError, match="reserved"):
            await call
    assert list(await store.delete_objects([name])) == [name]
    assert await names(store) == []


async def test_listings_hide_deleted_files(store: OverlayStore, below: MemoryStore) -> None:
    """A listing of any range hides exactly the marked names, and contains files that were put over a mark."""
    for name in ("a", "a/b", "ab", "b/1", "b/2", "b/20", "b/3", "c"):
        await below.put_object(name, b"below")
    for name in ("a", "b/2", "b/3", "c"):
        await store.delete_object(name)
    for name in ("a", "b/15", "b/3", "d"):
        await store.put_object(name, b"above!")
    listed = [(found.name, found.size) async for found in store.list_objects()]
    expected = [("a", 6), ("a/b", 5), ("ab", 5), ("b/1", 5), ("b/15", 6), ("b/20", 5), ("b/3", 6), ("d", 6)]
    assert listed == expected
    for prefix in ("", "a", "b/", "b/2", "c", "x"):
        for start_after in ("", "a", "a/", "b/1", "b/2", "b/3", "c", "z"):
            assert await names(store, prefix, start_after) == [
                name for name, _ in expected if name.startswith(prefix) and name > start_after
            ]


async def test_an_error_does_not_stop_other_deletions(below: MemoryStore) -> None:
    """An error of one deletion is returned by name, and the other files are deleted."""
    above = FaultyStore()
    store = OverlayStore(above, below)
    for name in ("a", "b"):
        await below.put_object(name, b"below")
    above.at("put", fails, 1)
    assert len(await store.delete_objects(["a", "b"])) == 1
    assert len(await names(store)) == 1


async def test_stores_without_names() -> None:
    """With plain stores, missing files are read below, writes stay above, and no file below is hidden."""
    above, below = PlainStore("https://above/"), PlainStore("https://below/")
    store = OverlayStore.plain(above, below)
    theirs = ImageKey("user", 1, 30, 20, "image/png", below.make_revision())
    mine = ImageKey("user", 1, 30, 20, "image/png", store.make_revision())
    await below.put(theirs, b"below", reproducible=False)
    await store.put(mine, b"above", reproducible=False)
    await store.discard(theirs)
    for key, blob, url in ((theirs, b"below", "https://below/"), (mine, b"above", "https://above/")):
        async with await store.get_file("user", 1, 30, 20, "image/png", revision=key.revision) as file:
            assert await file.read() == blob
        assert store.get_url("user", 1, 30, 20, "image/png", revision=key.revision).startswith(url)
    await store.discard(mine)
    with pytest.raises(StoreFileNotFoundError):
        await store.get_file("user", 1, 30, 20, "image/png", revision=mine.revision)
    assert list(below.files.values()) == [b"below"]
    assert repr(store) == "<PlainOverlayStore <PlainStore of 0 files> over <PlainStore of 1 files>>"


def test_invalid_combinations(above: MemoryStore, below: MemoryStore) -> None:
    """A store over itself is rejected, and so is a store that is not a ``KeyedStore``."""
    assert repr(OverlayStore(above, below)) == "<OverlayStore <MemoryStore of 0 files> over <MemoryStore of 0 files>>"
    for other in (above, MirrorStore(below, above)):
        with pytest.raises(ValueError, match="which keep the same files"):
            OverlayStore(above, other)
    with pytest.raises(ValueError, match="which keep the same files"):
        OverlayStore.plain(above, above)
    with pytest.raises(DeclarationError, match="got PlainStore"):
        OverlayStore(above, PlainStore())  # type: ignore[arg-type]


def test_revisions_of_a_plain_overlay() -> None:
    """Revisions have the suffix of the store above, as in an overlay of keyed stores."""
    store = OverlayStore.plain(MemoryStore(), MemoryStore())
    assert store.revision_for("user", reproducible=True).endswith("-sandbox")
