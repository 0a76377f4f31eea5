"""URLs that contain the file name of a download."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import pytest

from aioimageattach.context import LocalProxyStore
from aioimageattach.exc import DeclarationError
from aioimageattach.key import ImageKey
from aioimageattach.store import Store
from aioimageattach.stores import MemoryStore, MirrorStore, OverlayStore, RoutingStore
from aioimageattach.stores.fs import FileSystemStore, HttpExposedFileSystemStore
from aioimageattach.stores.s3 import S3Store
from aioimageattach.testing import FaultyStore
from tests.stores.plain import PlainStore


class Picture(NamedTuple):
    """The attributes of a row that a store uses."""

    key: ImageKey
    reproducible: bool = False
    created_at: datetime = datetime(2026, 1, 1, tzinfo=UTC)


PICTURE = Picture(ImageKey("photo", None, 320, 200, "image/jpeg", "01jd0000000000000000000000"))


def signed(path: Path) -> HttpExposedFileSystemStore:
    return HttpExposedFileSystemStore(
        path, host_url_getter=lambda: "https://example.com", url_secret="canary-of-a-url-secret", url_window=86400
    )


COMBINED: dict[str, Callable[[HttpExposedFileSystemStore, Store], Store]] = {
    "mirror": lambda store, other: MirrorStore(store, MemoryStore()),
    "plain mirror": MirrorStore.plain,
    "routing": lambda store, other: RoutingStore({"photo": store}),
    "plain routing": lambda store, other: RoutingStore.plain({"photo": store}, other),
    "overlay": lambda store, other: OverlayStore(MemoryStore(), store),
    "plain overlay": lambda store, other: OverlayStore.plain(other, store),
    "faulty": lambda store, other: FaultyStore(store),
    "plain faulty": lambda store, other: FaultyStore.plain(store),
    "proxy": lambda store, other: LocalProxyStore(lambda: store),
}


@pytest.mark.parametrize("combine", COMBINED.values(), ids=COMBINED)
def test_combined_stores(combine: Callable[..., Store], tmp_path: Path) -> None:
    """Combined stores return the download URL of the store that has the file."""
    store = signed(tmp_path)
    combined = combine(store, PlainStore())
    expected = store.locate(PICTURE, download="cat.jpg")
    assert "&download=cat.jpg&" in expected
    assert combined.locate(PICTURE, download="cat.jpg") == expected
    assert combined.locate(PICTURE) == store.locate(PICTURE) != expected
    if isinstance(combined, (MirrorStore, RoutingStore, OverlayStore, FaultyStore)):
        assert combined.download_url_of(store.name_of(PICTURE.key), "cat.jpg") == expected


UNSIGNED: dict[str, Callable[[Path], Store]] = {
    "four methods": lambda path: PlainStore(),
    "memory": lambda path: MemoryStore(),
    "directory": lambda path: FileSystemStore(path, "https://example.com/"),
    "served directory": HttpExposedFileSystemStore,
    "bucket": lambda path: S3Store("pictures", "key", "secret", region="eu-central-1"),
    "CDN": lambda path: S3Store("pictures", "key", "secret", public_base_url="https://img.example.com"),
}


@pytest.mark.parametrize("make", UNSIGNED.values(), ids=UNSIGNED)
def test_stores_that_cannot_name_a_download(make: Callable[[Path], Store], tmp_path: Path) -> None:
    """The error names the option that enables download names."""
    with pytest.raises(DeclarationError, match=r"expected .*(url_secret|url_expires_in).* because"):
        make(tmp_path).locate(PICTURE, download="cat.jpg")


def test_invalid_download_names(tmp_path: Path) -> None:
    """Both kinds of signed URLs reject file names that a header cannot contain."""
    for store in (signed(tmp_path), S3Store("pictures", "key", "secret", region="eu-central-1", url_expires_in=60)):
        with pytest.raises(ValueError, match="download: expected a file name such as"):
            store.locate(PICTURE, download='cat.jpg"\r\nSet-Cookie: a=b')
