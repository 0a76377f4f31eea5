"""Rows for files that already exist in a store."""

from __future__ import annotations

import hashlib
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from aioimageattach.context import store_context
from aioimageattach.exc import (
    DeclarationError,
    ImageError,
    ImageTooLargeError,
    InvalidKeyError,
    StoreFileNotFoundError,
    UnreadableImageError,
    UsageError,
)
from aioimageattach.key import ImageKey, make_revision
from aioimageattach.stores import MirrorStore, OverlayStore, RoutingStore
from aioimageattach.stores.fs import FileSystemStore
from tests import photos
from tests.databases import Database
from tests.entity.models import Base, CountingStore, Post, User, started
from tests.stores.plain import PlainStore

SIZE = photos.opened("chelsea").size
Sessions = async_sessionmaker[AsyncSession]


@pytest.fixture
def store() -> CountingStore:
    return CountingStore()


@pytest.fixture
async def sessions(sqlite_database: Database) -> Sessions:
    return await started(sqlite_database, Base.metadata, expire_on_commit=False)


async def put(store: CountingStore, object_type: str = "user-picture", blob: bytes | None = None) -> str:
    """Put a photo under the name that its row will have."""
    name = store.name_of(ImageKey(object_type, 1, *SIZE, "image/jpeg", make_revision()))
    await store.put_object(name, photos.photo("chelsea") if blob is None else blob)
    return name


async def test_a_file_gets_a_row(database: Database, store: CountingStore) -> None:
    """The file is read once for the probe and the hash, not copied, and deleted with its row."""
    sessions = await started(database, Base.metadata, expire_on_commit=False)
    name = await put(store)
    store.calls.clear()
    async with sessions() as session, session.begin():
        user = User(id=1)
        session.add(user)
        image = await user.picture.adopt(name, store)
        assert await image.make_blob(store) == photos.photo("chelsea")
    assert store.calls == [f"get {name}", f"get {name}"]
    assert (image.size, image.mimetype, image.original) == (SIZE, "image/jpeg", True)
    assert image.byte_size == len(photos.photo("chelsea"))
    assert image.sha256 == hashlib.sha256(photos.photo("chelsea")).hexdigest()
    assert store.name_of(image.key) == name
    async with sessions() as session, session.begin():
        user = await session.get_one(User, 1)
        await user.picture.generate_thumbnail(width=30, store=store)
        assert len(user.picture) == 2
    async with sessions() as session, session.begin():
        user = await session.get_one(User, 1)
        await user.picture.from_blob(photos.photo("coffee"), store)
    assert name not in await store.names()
    assert len(await store.names()) == 1


@pytest.mark.parametrize("flushed", [False, True])
async def test_a_rollback_keeps_the_file(sessions: Sessions, store: CountingStore, flushed: bool) -> None:
    """A rollback leaves the adopted file and the replaced image in place, and the file can be adopted again."""
    name = await put(store)
    async with sessions() as session, session.begin():
        user = User(id=1)
        session.add(user)
        await user.picture.from_blob(photos.photo("coffee"), store)
    before = await store.names()
    async with sessions() as session:
        user = await session.get_one(User, 1)
        await user.picture.adopt(name, store)
        if flushed:
            await session.flush()
        await session.rollback()
    assert await store.names() == before
    async with sessions() as session:
        user = await session.get_one(User, 1)
        async with session.begin_nested() as savepoint:
            await user.picture.adopt(name, store)
            await session.flush()
            await savepoint.rollback()
        await user.picture.load()
        await user.picture.adopt(name, store)
        await session.commit()
    assert await store.names() == [name]


async def test_a_file_is_adopted_and_deleted_in_one_transaction(sessions: Sessions, store: CountingStore) -> None:
    """A row that is inserted and deleted in one transaction deletes its file with the commit."""
    name = await put(store)
    async with sessions() as session, session.begin():
        user = User(id=1)
        session.add(user)
        await user.picture.adopt(name, store)
        await session.flush()
        await user.picture.delete()
    assert await store.names() == []


async def test_a_thumbnail_and_a_picture_of_a_gallery(sessions: Sessions, store: CountingStore) -> None:
    """Thumbnails and images of galleries can be adopted; adopting them again returns the same row."""
    picture, small = await put(store, "post-photo"), await put(store, "post-photo")
    other = store.name_of(ImageKey("post-photo", 1, 30, 20, "image/png", make_revision()))
    await store.put_object(other, photos.saved(photos.opened("chelsea", (30, 20)), "PNG"))
    async with sessions() as session, session.begin():
        post = Post(id=1)
        session.add(post)
        first = post.photos.get_image_set(order_index=1)
        image = await first.adopt(picture, store)
        thumbnail = await first.adopt(other, store, original=False)
        assert await first.adopt(picture, store) is image
        assert first.images == [image, thumbnail]
        await post.photos.get_image_set(order_index=2).adopt(small, store)
    assert await store.names() == sorted([picture, small, other])


async def test_a_file_of_the_old_library(sessions: Sessions, store: CountingStore) -> None:
    """A file of SQLAlchemy-ImageAttach is adopted under its old name, by the owner whose key it contains."""
    name = f"user-picture/7/{SIZE[0]}x{SIZE[1]}.jpe"
    await store.put_object(name, photos.photo("chelsea"))
    async with sessions() as session, session.begin():
        session.add_all([user := User(id=7), other := User(id=8)])
        await session.flush()
        with pytest.raises(InvalidKeyError):
            await other.picture.adopt(name, store)
        image = await user.picture.adopt(name, store)
    assert image.revision is None
    assert await store.names() == [name]
    with store_context(store):
        async with sessions() as session, session.begin():
            await (await session.get_one(User, 7)).picture.delete()
    assert await store.names() == []


async def test_files_with_other_names_are_rejected(sessions: Sessions, store: CountingStore) -> None:
    """Files with other names, types or sizes are rejected with advice, and the set is unchanged."""
    revision = make_revision()
    key = ImageKey("user-picture", 1, *SIZE, "image/jpeg", revision)
    names = [
        "uploads/photo.jpg",
        store.name_of(replace(key, object_type="post-photo")),
        store.name_of(replace(key, width=1)),
        store.name_of(replace(key, mimetype="image/png")),
    ]
    async with sessions() as session, session.begin():
        user = User(id=1)
        session.add(user)
        await session.flush()
        image = await user.picture.from_blob(photos.photo("coffee"), store)
        for name in names:
            await store.put_object(name, photos.photo("chelsea"))
            with pytest.raises(InvalidKeyError, match=r"cannot adopt .* its row would reference .*from_file"):
                await user.picture.adopt(name, store)
        assert user.picture.images == [image]
        async with await store.get_object("uploads/photo.jpg") as file:
            copy = await user.picture.from_file(file, store)
    assert {*names, store.name_of(copy.key)} == {*await store.names()}


async def test_files_that_cannot_be_adopted(sessions: Sessions, store: CountingStore) -> None:
    """Missing files, files that are not images, other stores and detached owners are rejected without a change."""
    broken = await put(store, blob=b"no picture")
    async with sessions() as session:
        user = User(id=1)
        session.add(user)
        with pytest.raises(StoreFileNotFoundError):
            await user.picture.adopt("user-picture/missing", store)
        with pytest.raises(UnreadableImageError):
            await user.picture.adopt(broken, store)
        with pytest.raises(DeclarationError, match="store: expected a KeyedStore"):
            await user.picture.adopt(broken, PlainStore())
        assert not user.picture
        await session.commit()
        session.expunge(user)
    with pytest.raises(UsageError, match=r"was deleted|is detached"):
        await user.picture.adopt(await put(store), store)


@pytest.mark.parametrize(
    ("blob", "error"),
    [
        (
            photos.png_file(struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0), zlib.compress(b"")),
            ImageTooLargeError,
        ),
        (photos.photo("chelsea")[:200], UnreadableImageError),
        (b'<svg xmlns="http://www.w3.org/2000/svg" width="3" height="2"><script>alert(1)</script></svg>', ImageError),
        (b"", UnreadableImageError),
        (photos.photo("chelsea") + bytes(100_000_000), ImageTooLargeError),
    ],
    ids=["bomb", "cut off", "script", "empty", "long"],
)
async def test_a_hostile_file_gets_no_row(
    sessions: Sessions, store: CountingStore, blob: bytes, error: type[Exception]
) -> None:
    """Files in a store are not trusted: the current image and the file remain."""
    name = await put(store, blob=blob)
    async with sessions() as session, session.begin():
        session.add(user := User(id=1))
        image = await user.picture.from_blob(photos.photo("coffee"), store)
        with pytest.raises(error):
            await user.picture.adopt(name, store)
        assert user.picture.images == [image]
    assert set(await store.names()) == {name, store.name_of(image.key)}


async def test_a_file_in_a_combined_store(sessions: Sessions, tmp_path: Path) -> None:
    """A file in any part of a combined store is adopted; with its row it is deleted, or hidden in a lower store."""
    old, new, below = CountingStore(), FileSystemStore(tmp_path / "files", "/", fsync=False), CountingStore()
    mirror, overlay = MirrorStore(new, old), OverlayStore(CountingStore(), below)
    routed = RoutingStore({"user-picture": mirror}, CountingStore())
    for number, (store, place) in enumerate([(routed, old), (overlay, below)], 1):
        name = await put(place)
        async with sessions() as session, session.begin():
            session.add(user := User(id=number))
            await user.picture.adopt(name, store)
            await user.picture.generate_thumbnail(width=30, store=store)
        async with sessions() as session, session.begin():
            user = await session.get_one(User, number)
            async with await user.picture.open_file(store) as file:
                assert await file.read() == photos.photo("chelsea")
            with store_context(store):
                await user.picture.delete()
                await session.flush()
        assert [found async for found in store.list_objects()] == []
    assert await old.names() == []
    assert await below.names() == [name]


async def test_two_rows_cannot_name_one_file(sessions: Sessions, store: CountingStore) -> None:
    """The database refuses the second row, and the file still belongs to the first."""
    name = await put(store)
    async with sessions() as session, session.begin():
        user = User(id=1)
        session.add(user)
        await user.picture.adopt(name, store)
    with pytest.raises(IntegrityError):
        async with sessions() as session, session.begin():
            other = User(id=2)
            session.add(other)
            await other.picture.adopt(name, store)
    assert await store.names() == [name]
