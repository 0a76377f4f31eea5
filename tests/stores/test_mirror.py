"""Stores that keep the same files in several stores."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from aioimageattach.exc import (
    DeclarationError,
    StoreFileExistsError,
    StoreFileNotFoundError,
    StoreUnavailableError,
)
from aioimageattach.file import Spool
from aioimageattach.key import ImageKey
from aioimageattach.store import Store
from aioimageattach.stores import MemoryStore, MirrorStore
from aioimageattach.stores.fs import FileSystemStore
from aioimageattach.testing import StoreContract
from tests.faults.cancelling import WAYS
from tests.faults.stores import FaultyStore, Stop, breaks, fails
from tests.stores.plain import PlainStore


class TestMirrorStore(StoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> MirrorStore:
        return MirrorStore(FileSystemStore(tmp_path, "/", fsync=False), MemoryStore())


class TestPlainMirrorStore(StoreContract):
    @pytest.fixture
    def store(self) -> Store:
        return MirrorStore.plain(PlainStore(), PlainStore())


async def names(store: FaultyStore | MemoryStore | MirrorStore, prefix: str = "", start_after: str = "") -> list[str]:
    return [found.name async for found in store.list_objects(prefix, start_after=start_after)]


async def read(store: MirrorStore, name: str) -> bytes:
    async with await store.get_object(name) as file:
        return await file.read()


async def test_a_file_is_put_into_all_stores() -> None:
    """All stores get the same bytes, from a source that can be read once, or from the position of a spool."""
    first, second, third = MemoryStore(), MemoryStore(), MemoryStore()
    store = MirrorStore(first, second, third)

    async def pieces() -> AsyncIterator[bytes]:
        yield b"some"
        yield b"thing"

    file = (await Spool.fill(b"0123something")).open()
    assert await file.read(4) == b"0123"
    await store.put_object("a", pieces(), mimetype="text/plain")
    await store.put_object("b", file)
    for one in (first, second, third):
        for name in ("a", "b"):
            async with await one.get_object(name) as found:
                assert await found.read() == b"something"
    assert repr(store) == "<MirrorStore " + ", ".join(["<MemoryStore of 2 files>"] * 3) + ">"


async def test_the_first_store_with_the_file_is_read() -> None:
    """Reading uses the first store that has the file. The error for a missing file is that of the first store."""
    first, second = MemoryStore("https://first/"), MemoryStore("https://second/")
    store = MirrorStore(first, second)
    await first.put_object("both", b"first")
    await second.put_object("both", b"second!")
    await second.put_object("only", b"second")
    assert await read(store, "both") == b"first"
    assert await read(store, "only") == b"second"
    assert (await store.head_object("both")).size == 5
    assert (await store.head_object("only")).size == 6
    async with await store.get_object("only", start=2, end=4) as file:
        assert await file.read() == b"co"
    with pytest.raises(StoreFileNotFoundError) as caught:
        await store.head_object("none")
    assert caught.value.store == repr(first)
    assert store.url_of("only") == "https://first/only"


async def test_a_listing_has_each_file_once() -> None:
    """A listing is sorted and contains each file once, as in the first store that has it."""
    first, second = MemoryStore(), MemoryStore()
    store = MirrorStore(first, second)
    for one, name, blob in ((second, "a", b"1"), (first, "b", b"22"), (second, "b", b"1"), (first, "c/d", b"22")):
        await one.put_object(name, blob)
    assert [(found.name, found.size) async for found in store.list_objects()] == [("a", 1), ("b", 2), ("c/d", 2)]
    assert await names(store, "", "a") == ["b", "c/d"]
    assert await names(store, "c") == ["c/d"]


@pytest.mark.parametrize("broken", [0, 1, 2])
async def test_a_put_that_one_store_refuses_leaves_nothing(broken: int) -> None:
    """If any store refuses a put, no store has the file, and the next attempt succeeds."""
    stores = [FaultyStore() for _ in range(3)]
    stores[broken].at("put", fails, 1)
    store = MirrorStore(*stores)
    with pytest.raises(StoreUnavailableError):
        await store.put_object("a", b"x")
    assert [await names(one) for one in stores] == [[], [], []]
    await store.put_object("a", b"x")
    assert [await names(one) for one in stores] == [["a"], ["a"], ["a"]]


async def test_a_name_that_one_store_has_is_taken() -> None:
    """If one store has the name, its file is unchanged, and no other store gets one."""
    first, second = MemoryStore(), MemoryStore()
    await second.put_object("a", b"old")
    store = MirrorStore(first, second)
    with pytest.raises(StoreFileExistsError):
        await store.put_object("a", b"new")
    assert await names(first) == []
    assert await read(store, "a") == b"old"


async def test_a_failed_clean_up_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """If the clean-up fails, the error of the put is raised, and the log names the store."""
    first, second = FaultyStore(), FaultyStore()
    second.at("put", fails, 1)
    first.at("delete", breaks, 1)
    with caplog.at_level(logging.WARNING), pytest.raises(StoreUnavailableError):
        await MirrorStore(first, second).put_object("a", b"x")
    assert await names(first) == ["a"]
    assert "could not be deleted from <FaultyStore of <MemoryStore of 1 files>>" in caplog.text


@pytest.mark.parametrize("way", WAYS)
async def test_a_cancelled_put_is_atomic(way: str, tmp_path: Path) -> None:
    """A put that is cancelled at any await, even twice, leaves the file in all stores or in none."""
    disk, memory = FileSystemStore(tmp_path, "/", fsync=False), MemoryStore()
    store = MirrorStore(disk, memory, FileSystemStore(tmp_path / "other", "/", fsync=False))
    at = 0
    reached = True
    while reached:
        at += 1
        done: list[str] = []

        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(3):
                await asyncio.sleep(0)
                yield b"x"

        async def put(name: str = f"f{at}", done: list[str] = done) -> None:
            await store.put_object(name, pieces())
            done.append(name)

        reached = await WAYS[way](put, at, 2)
        assert [[n for n in await names(one) if n == f"f{at}"] for one in store.stores] == [done] * 3  # type: ignore[arg-type]
    assert at > 5


async def test_a_put_is_undone_before_its_cancellation_is_raised() -> None:
    """If a put is cancelled in the second store, the file in the first one is deleted before the call ends."""
    first, second = FaultyStore(), FaultyStore()
    putting, deleting = Stop(), Stop()
    second.at("put", putting)
    first.at("delete", deleting)
    task = asyncio.create_task(MirrorStore(first, second).put_object("a", b"x"))
    await putting.reached.wait()
    task.cancel()
    await deleting.reached.wait()
    task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    deleting.go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await names(first) == await names(second) == []


@pytest.mark.parametrize("broken", [0, 1])
async def test_a_deletion_continues_if_one_store_fails(broken: int) -> None:
    """If one store fails, the others still delete the file, and the error is raised or returned by name."""
    stores = [FaultyStore(), FaultyStore()]
    store = MirrorStore(*stores)
    for name in ("a", "b", "c"):
        await store.put_object(name, b"x")
    stores[broken].at("delete", fails)
    with pytest.raises(StoreUnavailableError):
        await store.delete_object("a")
    failed = await store.delete_objects(["b"])
    assert {name: type(error) for name, error in failed.items()} == {"b": StoreUnavailableError}
    assert await names(stores[broken]) == ["a", "b", "c"]
    assert await names(stores[1 - broken]) == ["c"]
    stores[broken].heal()
    await store.delete_object("a")
    assert list(await store.delete_objects(["b", "../x", "c"])) == ["../x"]
    assert await names(store) == []


async def test_legacy_files_have_a_name_in_each_store(tmp_path: Path) -> None:
    """Files of SQLAlchemy-ImageAttach are found under the legacy name of each store."""
    disk, memory = FileSystemStore(tmp_path, "/", fsync=False), MemoryStore()
    key = ImageKey("user", 7, 30, 20, "image/jpeg")
    await memory.put(key, b"old", reproducible=False)
    store = MirrorStore(disk, memory)
    async with await store.get_file("user", 7, 30, 20, "image/jpeg") as file:
        assert await file.read() == b"old"
    assert store.name_of(key) == disk.name_of(key) != memory.name_of(key)
    await store.discard(key)
    assert await names(memory) == []


async def test_stores_without_names() -> None:
    """Plain stores are mirrored in the same way, with the URLs and revisions of the first one."""
    first, second = PlainStore("https://first/"), PlainStore("https://second/")
    second.has_signed_urls = True
    store = MirrorStore.plain(first, second)
    key = ImageKey("user", 7, 30, 20, "image/png", store.make_revision())
    await store.put(key, b"x", reproducible=True)
    assert [*first.files.values(), *second.files.values()] == [b"x", b"x"]
    first.files.clear()
    async with await store.get_file("user", 7, 30, 20, "image/png", revision=key.revision) as file:
        assert await file.read() == b"x"
    await store.discard(key)
    assert second.files == {}
    assert store.get_url("user", 7, 30, 20, "image/png").startswith("https://first/")
    assert (store.needs_object_id, store.has_signed_urls) == (True, False)


def test_invalid_stores() -> None:
    """A store that is not a ``KeyedStore`` is rejected with an error that names its class."""
    with pytest.raises(DeclarationError, match=r"got PlainStore; for other stores, call the method plain\(\)"):
        MirrorStore(MemoryStore(), PlainStore())  # type: ignore[arg-type]
