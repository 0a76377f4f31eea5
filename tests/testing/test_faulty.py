"""The store that injects faults."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from aioimageattach.exc import StoreFileNotFoundError, StoreUnavailableError
from aioimageattach.key import ImageKey
from aioimageattach.store import Store
from aioimageattach.stores import MemoryStore
from aioimageattach.stores.fs import FileSystemStore
from aioimageattach.testing import FaultyStore, StoreContract
from tests.stores.plain import PlainStore


class TestFaultyStore(StoreContract):
    """Without rules, a faulty store passes the conformance suite."""

    @pytest.fixture
    def store(self) -> Store:
        """A faulty store that wraps a store in memory."""
        return FaultyStore()


class TestPlainFaultyStore(StoreContract):
    """Without rules, the variant for stores that are not a ``KeyedStore`` passes the suite, too."""

    @pytest.fixture
    def store(self) -> Store:
        """A faulty store that wraps a store with only four methods."""
        return FaultyStore.plain(PlainStore())


async def call(store: FaultyStore, method: str, name: str) -> Any:
    """Call a method of a store."""
    if method == "put":
        return await store.put_object(name, b"0123456789")
    if method == "get":
        async with await store.get_object(name) as file:
            return await file.read()
    if method == "head":
        return (await store.head_object(name)).size
    if method == "delete":
        return await store.delete_object(name)
    return [found.name async for found in store.list_objects(name)]


METHODS = ("put", "get", "head", "delete", "list", "listed")


@pytest.mark.parametrize("method", METHODS)
async def test_a_method_fails_until_it_is_healed(method: Any) -> None:
    """Every call of this method fails, and no other calls do."""
    store = FaultyStore()
    await store.inner.put_object("a", b"x")
    store.fail(method)
    for other in ("put", "get", "head", "list", "delete"):
        for _ in range(2):
            if other == method or (method == "listed" and other == "list"):
                with pytest.raises(StoreUnavailableError, match=f"injected failure of {method} "):
                    await call(store, other, "b" if other == "put" else "a")
            elif other != "put":
                await call(store, other, "a") if other != "delete" else None
    store.heal()
    await call(store, "put", "c")
    assert "c" in await store.names()


async def test_the_kth_call_fails() -> None:
    """``at`` is counted from the creation of the rule, and ``calls`` from the creation of the store."""
    store = FaultyStore()
    await call(store, "put", "1")
    store.fail("put", ZeroDivisionError(), at=2)
    await call(store, "put", "2")
    with pytest.raises(ZeroDivisionError):
        await call(store, "put", "3")
    await call(store, "put", "4")
    assert store.calls == {"put": 4}
    assert await store.names() == {"1", "2", "4"}


async def test_only_matching_names_fail() -> None:
    """Only calls with a matching name fail."""
    store = FaultyStore()
    store.fail("put", name=lambda name: name.endswith(".png"))
    await call(store, "put", "a.jpg")
    with pytest.raises(StoreUnavailableError):
        await call(store, "put", "a.png")


@pytest.mark.parametrize("method", ["put", "get", "head", "delete", "list"])
async def test_a_lost_response(method: Any) -> None:
    """With ``after``, the call fails after the wrapped store has done its work."""
    store = FaultyStore()
    name = "new" if method == "put" else "old"
    await store.inner.put_object("old", b"x")
    store.fail(method, after=True)
    with pytest.raises(StoreUnavailableError):
        await call(store, method, name)
    assert await store.names() == {"put": {"old", "new"}, "delete": set()}.get(method, {"old"})


async def test_a_call_hangs_until_it_is_cancelled() -> None:
    """A hanging call has no effect, and ends only when it is cancelled."""
    store = FaultyStore()
    store.hang("put")
    task = asyncio.create_task(call(store, "put", "a"))
    await asyncio.sleep(0.01)
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await store.names() == set()


async def test_a_delayed_call() -> None:
    """A delayed call returns after concurrent calls that are not delayed."""
    store = FaultyStore()
    store.delay("put", 0.02, name=lambda name: name == "slow")
    done: list[str] = []

    async def put(name: str) -> None:
        await call(store, "put", name)
        done.append(name)

    await asyncio.gather(put("slow"), put("fast"))
    assert done == ["fast", "slow"]


async def test_a_truncated_file() -> None:
    """A file is truncated when it is put or read, without an error."""
    store = FaultyStore()
    store.truncate("put", 4, at=1)
    await call(store, "put", "short")
    await call(store, "put", "whole")
    assert await call(store, "get", "short") == b"0123"
    store.truncate("get", 3)
    assert await call(store, "get", "whole") == b"012"
    store.heal()
    assert await call(store, "get", "whole") == b"0123456789"


async def test_an_action_runs_at_a_call() -> None:
    """The action is called with the name and awaited."""
    store = FaultyStore()
    names: list[str] = []

    async def note(name: str) -> None:
        names.append(name)

    store.on("put", note)
    store.on("listed", note)
    await call(store, "put", "a")
    await call(store, "list", "")
    assert names == ["a", "a"]


async def test_faults_in_a_store_without_names() -> None:
    """In a store that is not a ``KeyedStore``, rules match revisions."""
    inner = PlainStore()
    store = FaultyStore.plain(inner)
    key = ImageKey("x", 1, 2, 3, "image/png", store.make_revision())
    store.fail("put", at=1, name=lambda name: name == key.revision)
    with pytest.raises(StoreUnavailableError):
        await store.put(key, b"x", reproducible=False)
    await store.put(key, b"x", reproducible=False)
    store.fail("delete", after=True)
    with pytest.raises(StoreUnavailableError):
        await store.discard(key)
    with pytest.raises(StoreFileNotFoundError):
        await store.get_file("x", 1, 2, 3, "image/png", revision=key.revision)
    assert (store.needs_object_id, store.has_signed_urls) == (inner.needs_object_id, inner.has_signed_urls)
    assert repr(store) == f"<PlainFaultyStore of {inner!r}>"
    assert store.revision_for("user", reproducible=False) != store.make_revision()


async def test_other_methods_delegate(tmp_path: Any) -> None:
    """Methods without rules return the result of the wrapped store."""
    inner = FileSystemStore(tmp_path, "/media/", fsync=False)
    store = FaultyStore(inner)
    key = ImageKey("x", 1, 2, 3, "image/png")
    assert store.legacy_name(key) == inner.legacy_name(key)
    assert store.url_of("a") == "/media/a"
    assert store.location == inner.location
    assert await store.discard_unfinished(datetime.now(UTC)) == 0
    assert repr(store) == f"<FaultyStore of {inner!r}>"
    assert isinstance(FaultyStore().inner, MemoryStore)


@pytest.mark.parametrize(
    ("options", "words"),
    [({"method": "move"}, "one of put, get, head"), ({"method": "put", "at": 0}, "at: expected 1")],
)
def test_invalid_rules(options: dict[str, Any], words: str) -> None:
    """Invalid rules raise an error immediately."""
    with pytest.raises(ValueError, match=words):
        FaultyStore().fail(**options)
