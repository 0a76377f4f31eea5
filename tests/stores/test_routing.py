"""Stores that keep each object type in its own store."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from aioimageattach._names import DERIVED
from aioimageattach.context import LocalProxyStore
from aioimageattach.exc import DeclarationError, InvalidKeyError, StoreError, StoreUnavailableError
from aioimageattach.key import ImageKey
from aioimageattach.store import Store
from aioimageattach.stores import MemoryStore, RoutingStore
from aioimageattach.stores.fs import FileSystemStore
from aioimageattach.testing import StoreContract
from tests.faults.stores import FaultyStore, fails
from tests.stores.plain import PlainStore


class TestRoutingStore(StoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> RoutingStore:
        return RoutingStore(
            {"contract": MemoryStore(), "9": FileSystemStore(tmp_path, "/", fsync=False)}, MemoryStore()
        )


class TestPlainRoutingStore(StoreContract):
    @pytest.fixture
    def store(self) -> Store:
        return RoutingStore.plain({"contract": PlainStore()}, PlainStore())


async def names(store: RoutingStore | MemoryStore, prefix: str = "", start_after: str = "") -> list[str]:
    return [found.name async for found in store.list_objects(prefix, start_after=start_after)]


async def test_each_object_type_has_its_store() -> None:
    """Names and keys use the store of their object type, and all others use the default store."""
    portraits, rest = MemoryStore("https://private/"), MemoryStore("https://public/")
    store = RoutingStore({"portrait": portraits}, rest)
    for object_type in ("portrait", "portrait-small", "photo"):
        key = ImageKey(object_type, 1, 30, 20, "image/png", store.make_revision())
        await store.put(key, b"x", reproducible=False)
    await store.put_object("portrait/a", b"x")
    await store.put_object("single", b"x")
    assert {name.partition("/")[0] for name in await names(portraits)} == {"portrait"}
    assert {name.partition("/")[0] for name in await names(rest)} == {"photo", "portrait-small", "single"}
    assert store.url_of("portrait/a") == "https://private/portrait/a"
    assert store.url_of("photo/a") == "https://public/photo/a"
    assert store.stores == [portraits, rest]
    assert repr(store) == "<RoutingStore portrait: <MemoryStore of 2 files>, else <MemoryStore of 3 files>>"


async def test_files_without_a_revision_have_the_names_of_their_store(tmp_path: Path) -> None:
    """A key without a revision has the name that the store of its object type gives it."""
    disk, memory = FileSystemStore(tmp_path, "/", fsync=False), MemoryStore()
    store = RoutingStore({"a": disk}, memory)
    for object_type, name in (("a", "a/7/0/7.30x20.jpe"), ("b", "b/7/30x20.jpe")):
        key = ImageKey(object_type, 7, 30, 20, "image/jpeg")
        await store.put(key, b"old", reproducible=False)
        assert store.name_of(key) == name
        assert (await store.head_object(name)).size == 3
        assert store.get_url(object_type, 7, 30, 20, "image/jpeg").endswith(name)


async def test_listings_are_merged() -> None:
    """Listings are merged in order, one object type is listed in one store, and files in a wrong store are left out."""
    first, rest = MemoryStore(), MemoryStore()
    store = RoutingStore({"b": first, "d": first}, rest)
    for name in ("a/1", "b", "b/2", "b/1", "c/1", "d/1", "e"):
        await store.put_object(name, b"x")
    await first.put_object("a/wrong", b"x")
    await rest.put_object("b/wrong", b"x")
    assert await names(store) == ["a/1", "b", "b/1", "b/2", "c/1", "d/1", "e"]
    assert await names(store, "b") == ["b", "b/1", "b/2"]
    assert await names(store, "b/") == ["b/1", "b/2"]
    assert await names(store, "", "b/1") == ["b/2", "c/1", "d/1", "e"]
    assert await names(RoutingStore({"b": first}), "x/") == []
    assert await names(RoutingStore({"b": first})) == ["b", "b/1", "b/2"]  # other object types have no store


async def test_deletions_are_sent_to_the_right_stores() -> None:
    """Each store deletes its own files, and all errors are returned by name."""
    broken, rest = FaultyStore(), MemoryStore()
    store = RoutingStore({"a": broken, "b": rest})
    for name in ("a/1", "b/1", "b/2"):
        await store.put_object(name, b"x")
    broken.at("delete", fails)
    failed = await store.delete_objects(["a/1", "b/1", "c/1", "../x"])
    assert {name: type(error) for name, error in failed.items()} == {
        "a/1": StoreUnavailableError,
        "c/1": InvalidKeyError,
        "../x": InvalidKeyError,
    }
    assert await names(store) == ["a/1", "b/2"]


async def test_an_object_type_without_a_store_is_refused() -> None:
    """An object type without a store is rejected before anything is read, with an error that lists the known ones."""
    store = RoutingStore({"a": MemoryStore(), "b": MemoryStore()})
    source = io.BytesIO(b"x")
    with pytest.raises(InvalidKeyError, match=r"expected one of \['a', 'b'\], or a default store, got 'c'"):
        await store.put_object("c/1", source)
    assert source.tell() == 0
    with pytest.raises(InvalidKeyError):
        store.get_url("c", 1, 1, 1, "image/png", revision=store.make_revision())


def test_invalid_arguments() -> None:
    """Invalid object types, objects that are not stores, and stores that are not keyed stores are rejected."""
    with pytest.raises(InvalidKeyError, match="object_type"):
        RoutingStore({"a/b": MemoryStore()})
    with pytest.raises(DeclarationError, match="expected a KeyedStore, got PlainStore"):
        RoutingStore({"a": PlainStore()})  # type: ignore[dict-item]
    with pytest.raises(DeclarationError, match="expected a Store, got str"):
        RoutingStore.plain({}, "s3://bucket")  # type: ignore[arg-type]
    with pytest.raises(DeclarationError, match="got LocalProxyStore"):
        RoutingStore({}, LocalProxyStore(MemoryStore))  # type: ignore[arg-type]


def test_needs_object_id() -> None:
    """``needs_object_id`` is true if any of the stores requires it."""
    plain = PlainStore()
    plain.needs_object_id = False
    assert not RoutingStore.plain({"a": plain}).needs_object_id
    assert RoutingStore.plain({"a": plain}, PlainStore()).needs_object_id
    assert not RoutingStore({}, MemoryStore()).needs_object_id


async def test_only_the_store_of_the_object_type_may_copy() -> None:
    """``copy_from`` calls the store of the object type, which may return ``False``."""
    source = MemoryStore()
    await source.put_object("a/1", b"x")
    store = RoutingStore({}, MemoryStore())
    assert not await store.copy_from(source, "a/1", "a/1")
    with pytest.raises(StoreError):
        await store.head_object("a/1")


async def test_the_name_of_a_table_is_an_object_type() -> None:
    """The name of a table finds the store of its object type, so that private files do not become public."""
    private, public = MemoryStore(), MemoryStore()
    for object_type in ("private_note.full_text", "private-note.full-text"):
        store = RoutingStore({object_type: private}, public)
        for name in ("private-note.full-text/a", "private_note.full_text/a"):
            assert store.store_of(name.partition("/")[0]) is private
            await store.put_object(name, b"secret")
            assert [info.name async for info in store.list_objects(name)] == [name]
            await store.delete_object(name)
    assert [info.name async for info in public.list_objects()] == []
    with pytest.raises(ValueError, match="expected different names"):
        RoutingStore({"a_b": private, "a-b": public})


def test_derived_files_go_to_the_store_of_their_originals() -> None:
    """Derived files use the store of their originals, so thumbnails of private images do not become public."""
    private, public, small = MemoryStore(), MemoryStore(), MemoryStore()
    store = RoutingStore({"photo": private}, public)
    assert store.store_of(f"photo{DERIVED}") is private
    assert store.store_of(f"other{DERIVED}") is public
    assert RoutingStore({"photo": private, f"photo{DERIVED}": small}, public).store_of(f"photo{DERIVED}") is small


def test_unknown_object_types() -> None:
    """Object types that no class has are found, whether they are written with ``_`` or ``-``."""
    store = RoutingStore({"private_note.full_text": MemoryStore(), "user-pictures": MemoryStore()}, MemoryStore())
    assert store.unknown_types(["user-picture", "private-note.full-text"]) == ["user-pictures"]
    assert store.unknown_types(["user_pictures", "private_note.full-text"]) == []
