"""``MemoryStore``: URLs, the legacy layout, and use from several threads."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from aioimageattach.exc import InvalidKeyError, StoreFileExistsError
from aioimageattach.key import ImageKey
from aioimageattach.stores import MemoryStore
from aioimageattach.testing import StoreContract


class TestMemoryStore(StoreContract):
    @pytest.fixture
    def store(self) -> MemoryStore:
        return MemoryStore()


@pytest.mark.parametrize(
    ("base_url", "expected"),
    [("memory:/", "memory:/a/b%20c"), ("https://x/y", "https://x/y/a/b%20c"), ("/files/", "/files/a/b%20c")],
)
def test_urls(base_url: str, expected: str) -> None:
    """Names are appended to the base URL, whether or not it ends with a slash."""
    assert MemoryStore(base_url).url_of("a/b c") == expected


async def test_files_without_a_revision() -> None:
    """Keys without a revision have a simple layout that requires ``object_id``."""
    store = MemoryStore()
    await store.put(ImageKey("user", 7, 30, 20, "image/jpeg"), b"old", reproducible=False)
    assert [found.name async for found in store.list_objects()] == ["user/7/30x20.jpe"]
    with pytest.raises(InvalidKeyError, match="object_id"):
        store.name_of(ImageKey("user", None, 30, 20, "image/jpeg"))


@pytest.fixture
def busy_threads() -> Iterator[None]:
    """Threads take turns after a microsecond instead of five milliseconds, as if the machine were busy."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("busy_threads")
def test_threads_may_share_it() -> None:
    """If eight threads with their own event loops put the same hundred names, each name is put once."""
    store = MemoryStore()

    async def work(n: int) -> int:
        won = 0
        for name in range(100):
            try:
                await store.put_object(f"{name}", b"%d" % n)
            except StoreFileExistsError:
                continue
            won += 1
        return won

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(lambda n: asyncio.run(work(n)), range(8))) == 100
    assert repr(store) == "<MemoryStore of 100 files>"
