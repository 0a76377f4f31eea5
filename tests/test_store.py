"""The interfaces ``Store`` and ``KeyedStore``, and their default implementations."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from aioimageattach.exc import InvalidKeyError, StoreError, StoreUnavailableError
from aioimageattach.file import AsyncFile, FileProxy, Source, Spool
from aioimageattach.key import ImageKey
from aioimageattach.store import KeyedStore, Store
from aioimageattach.stores import MemoryStore
from aioimageattach.testing import FaultyStore

REVISION = "01m7xvw392my0qm9gn0r3dt55c"


@dataclass
class Picture:
    key: ImageKey
    reproducible: bool = False
    created_at: datetime = datetime(2026, 11, 21, 1, 2, 3, 45, tzinfo=UTC)


class PlainStore(Store):
    """A third-party store with given URLs."""

    def __init__(self, url: str = "https://x/a") -> None:
        self.url = url
        self.calls: list[tuple[object, ...]] = []

    async def put_file(
        self,
        file: Source,
        object_type: str,
        object_id: int | None,
        width: int,
        height: int,
        mimetype: str,
        reproducible: bool,
        *,
        revision: str | None = None,
    ) -> None:
        self.calls.append(("put", file, object_type, object_id, width, height, mimetype, reproducible, revision))

    async def get_file(
        self,
        object_type: str,
        object_id: int | None,
        width: int,
        height: int,
        mimetype: str,
        *,
        revision: str | None = None,
    ) -> AsyncFile:
        self.calls.append(("get", object_type, object_id, width, height, mimetype, revision))
        return FileProxy(b"stream")

    def get_url(
        self,
        object_type: str,
        object_id: int | None,
        width: int,
        height: int,
        mimetype: str,
        *,
        revision: str | None = None,
    ) -> str:
        return self.url.format(revision=revision)

    async def delete_file(
        self,
        object_type: str,
        object_id: int | None,
        width: int,
        height: int,
        mimetype: str,
        *,
        revision: str | None = None,
    ) -> None:
        self.calls.append(("delete", object_type, object_id, width, height, mimetype, revision))


async def test_the_four_methods_receive_the_key_of_the_image() -> None:
    """``store``, ``open`` and ``delete`` pass each field of the key to the right parameter."""
    store = PlainStore()
    picture = Picture(ImageKey("user", 7, 30, 20, "image/png", REVISION), reproducible=True)
    await store.store(picture, b"x")
    async with await store.open(picture) as file:
        assert await file.read() == b"stream"
    await store.delete(picture)
    assert store.calls == [
        ("put", b"x", "user", 7, 30, 20, "image/png", True, REVISION),
        ("get", "user", 7, 30, 20, "image/png", REVISION),
        ("delete", "user", 7, 30, 20, "image/png", REVISION),
    ]


@pytest.mark.parametrize(
    ("url", "revision", "expected"),
    [
        ("https://x/{revision}.jpg", REVISION, f"https://x/{REVISION}.jpg"),
        ("https://x/a.jpg", REVISION, "https://x/a.jpg?_ts=20261121010203000045"),
        ("https://x/a.jpg", None, "https://x/a.jpg?_ts=20261121010203000045"),
        ("https://x/a.jpg?b=c", None, "https://x/a.jpg?b=c&_ts=20261121010203000045"),
        ("https://x/a.jpg?b=c#d", None, "https://x/a.jpg?b=c&_ts=20261121010203000045#d"),
        ("https://x/a.jpg#d?e", None, "https://x/a.jpg?_ts=20261121010203000045#d?e"),
    ],
)
def test_a_url_identifies_the_version(url: str, revision: str | None, expected: str) -> None:
    """If a URL does not contain the revision, the time of the upload is appended."""
    assert PlainStore(url).locate(Picture(ImageKey("user", 7, 30, 20, "image/png", revision))) == expected


async def test_use_seek_spools_a_stream() -> None:
    """``use_seek`` reads a file that cannot seek into a spool, and returns a seekable file unchanged."""
    picture = Picture(ImageKey("user", 7, 30, 20, "image/png", REVISION))
    file = await PlainStore().open(picture, use_seek=True)
    assert isinstance(file, type((await Spool.fill(b"")).open()))
    assert await file.seek(2) == 2
    assert await file.read() == b"ream"
    memory = MemoryStore()
    await memory.store(picture, b"x")
    assert type(await memory.open(picture, use_seek=True)) is type(await memory.open(picture))


def test_plain_stores_need_an_object_id() -> None:
    """A plain store needs ``object_id`` by default, and a ``KeyedStore`` does not."""
    assert PlainStore().needs_object_id
    assert not MemoryStore().needs_object_id


class Named(MemoryStore):
    """The smallest possible ``KeyedStore``."""

    legacy_name = KeyedStore.legacy_name
    delete_objects = KeyedStore.delete_objects

    async def delete_object(self, name: str) -> None:
        if "stuck" in name:
            raise StoreUnavailableError("busy", store=repr(self), name=name)
        await super().delete_object(name)


async def test_a_keyed_store_has_no_legacy_layout_by_default() -> None:
    """A key without a revision is rejected, unless the store implements ``legacy_name``."""
    store = Named()
    with pytest.raises(InvalidKeyError, match="key: expected a revision"):
        await store.put(ImageKey("user", 7, 30, 20, "image/png"), b"x", reproducible=False)
    with pytest.raises(InvalidKeyError):
        store.get_url("user", 7, 30, 20, "image/png")


async def test_deleting_many_continues_after_an_error() -> None:
    """Deleting many files continues after an error, and returns the errors by name."""
    store = Named()
    for name in ("a", "stuck", "b"):
        await store.put_object(name, b"x")
    failed = await store.delete_objects(["a", "stuck", "b"])
    assert list(failed) == ["stuck"]
    assert isinstance(failed["stuck"], StoreError)
    assert [found.name async for found in store.list_objects()] == ["stuck"]


async def test_builtin_errors_of_a_third_party_store() -> None:
    """An ``OSError`` for one file does not stop the deletion or renaming of others."""
    store = FaultyStore()
    for name in ("a", "b", "c"):
        await store.put_object(name, b"x")
    store.fail("delete", OSError(5, "broken"), name="b".__eq__)
    failed = await store.delete_objects(["a", "b"])
    assert {name: str(error) for name, error in failed.items()} == {"b": f"{store!r}: 'b': OSError: [Errno 5] broken"}
    store.heal()
    store.fail("get", OSError(5, "broken"), name="c".__eq__)
    failed = await store.move_objects({"b": "x/b", "c": "x/c"})
    assert [(name, type(error), type(error.__cause__)) for name, error in failed.items()] == [
        ("c", StoreError, OSError)
    ]
    assert await store.names() == {"x/b", "c"}


async def test_the_four_methods_of_a_keyed_store() -> None:
    """The four methods of a ``KeyedStore`` call its methods by name, with the name of the key."""
    store = MemoryStore("https://x")
    picture = Picture(ImageKey("user", None, 30, 20, "image/png", REVISION))
    name = f"user/01m7x/vw/{REVISION}.30x20.png"
    await store.store(picture, b"x")
    assert (await store.head_object(name)).size == 1
    assert store.locate(picture) == f"https://x/{name}"
    await store.delete(picture)
    assert [found.name async for found in store.list_objects()] == []


async def test_objects_that_are_not_images_are_refused() -> None:
    """Methods that take an image reject any other object with a ``TypeError``."""
    store = MemoryStore()
    wrong: Any = 123
    for call in (store.open, store.delete, store.locate):
        with pytest.raises(TypeError, match="expected an image, got 123"):
            await call(wrong)
    with pytest.raises(TypeError, match="expected an image, got 123"):
        await store.store(wrong, b"")


async def test_the_methods_with_the_fields_of_a_key() -> None:
    """A ``KeyedStore`` implements the methods that take the fields of a key one by one."""
    store = MemoryStore("https://x/")
    revision = store.make_revision()
    fields = ("user", 7, 30, 20, "image/png")
    await store.put_file(b"blob", *fields, False, revision=revision)
    async with await store.get_file(*fields, revision=revision) as file:
        assert await file.read() == b"blob"
    assert store.get_url(*fields, revision=revision) == store.url_for(ImageKey(*fields, revision))
    await store.delete_file(*fields, revision=revision)
    assert [info async for info in store.list_objects()] == []
    assert await store.discard_unfinished(datetime.now(UTC)) == 0
