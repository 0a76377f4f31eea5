"""Stores that keep private originals and public thumbnails of one image class in different places."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import delete
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from aioimageattach._names import THUMBNAIL, revision_time
from aioimageattach.context import LocalProxyStore, bind_store
from aioimageattach.entity import Image
from aioimageattach.exc import DeclarationError, InvalidKeyError
from aioimageattach.key import ImageKey, make_revision
from aioimageattach.maintenance import sweep, verify
from aioimageattach.migration import migrate
from aioimageattach.store import KeyedStore
from aioimageattach.stores import MemoryStore, MirrorStore, OverlayStore, RoutingStore, SplitStore
from aioimageattach.stores.fs import FileSystemStore, HttpExposedFileSystemStore
from aioimageattach.testing import FaultyStore, StoreContract, assert_consistent
from tests import photos
from tests.databases import Database
from tests.entity.models import Base, User, UserPicture, started
from tests.servers.gate import Gate
from tests.stores.s3.conftest import MakeStore
from tests.stores.s3.conftest import gate as gate
from tests.stores.s3.conftest import make_store as make_store
from tests.stores.s3.conftest import s3_server as s3_server

Sessions = async_sessionmaker[AsyncSession]
OBJECT_TYPE = "user-picture"


class TestSplitStore(StoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> SplitStore:
        return SplitStore(FileSystemStore(tmp_path, "/", fsync=False), MemoryStore())


@pytest.fixture
async def sessions(sqlite_database: Database) -> Sessions:
    """Sessions without a store."""
    return await started(sqlite_database, Base.metadata, expire_on_commit=False)


@pytest.fixture(params=["directory", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> SplitStore:
    """Two places of one kind: the originals' has signed URLs, the thumbnails' plain ones."""
    if request.param == "directory":
        host = "http://localhost/"
        return SplitStore(
            HttpExposedFileSystemStore(
                tmp_path / "originals", "originals", lambda: host, fsync=False, url_secret="s" * 32
            ),
            HttpExposedFileSystemStore(tmp_path / "thumbnails", "thumbnails", lambda: host, fsync=False),
        )
    gate: Gate = request.getfixturevalue("gate")
    make_store: MakeStore = request.getfixturevalue("make_store")
    return SplitStore(
        make_store(gate.url, prefix="originals", url_expires_in=600),
        make_store(gate.url, prefix="thumbnails", public_base_url="https://img.example.com"),
    )


async def a_user(sessions: Sessions, store: KeyedStore, number: int = 1) -> User:
    """Attach an image with two thumbnails, one of which was made elsewhere."""
    async with sessions.begin() as session:
        bind_store(session, store)
        session.add(user := User(id=number))
        await user.picture.from_blob(photos.png())
        await user.picture.generate_thumbnail(width=20)
        await user.picture.from_raw_file(photos.png(), size=(30, 20), mimetype="image/png", original=False)
    return user


async def names(store: KeyedStore) -> set[str]:
    return {one.name async for one in store.list_objects() if one.name.startswith(OBJECT_TYPE)}


def name_of(store: KeyedStore, row: Image) -> str:
    return store.name_of(row.key)


async def test_each_file_is_in_its_place(sessions: Sessions, store: SplitStore) -> None:
    """The original is in the private store, the thumbnails are in the public one, and each has the URL of its store."""
    user = await a_user(sessions, store)
    original, thumbnails = user.picture.require_original(), [row for row in user.picture if not row.original]
    assert await names(store.originals) == {name_of(store, original)}
    assert await names(store.thumbnails) == {name_of(store, row) for row in thumbnails}
    assert await names(store) == {name_of(store, row) for row in user.picture}
    queries = {row.original: urlsplit(row.locate()).query for row in user.picture}
    assert "ignature=" in queries[True]
    assert queries[False] == ""
    assert await original.make_blob() == await user.picture.find_thumbnail(width=30).make_blob() == photos.png()


async def test_files_are_deleted_with_their_rows(sessions: Sessions, store: SplitStore) -> None:
    """A replacement, a rollback and a deletion leave no files in either store."""
    await a_user(sessions, store)
    bind_store(sessions, store)
    async with sessions() as session:
        user = await session.get_one(User, 1)
        await user.picture.from_blob(photos.webp())
        await user.picture.generate_thumbnail(width=10)
        await session.rollback()
        user = await session.get_one(User, 1)
        await user.picture.from_blob(photos.webp())
        await user.picture.generate_thumbnail(width=10)
        await session.commit()
        assert (len(await names(store.originals)), len(await names(store.thumbnails))) == (1, 1)
        await assert_consistent(sessions, Base, store)
        await user.picture.delete()
        await session.commit()
    assert await names(store) == set()


async def test_verify_and_sweep(sessions: Sessions, store: SplitStore) -> None:
    """Verify repairs missing files in both stores, and a sweep removes the orphans of both."""
    user, doomed = await a_user(sessions, store), await a_user(sessions, store, 2)
    thumbnail = user.picture.find_thumbnail(width=20)
    await store.thumbnails.delete_object(name_of(store, thumbnail))
    found = [one async for one in verify(sessions, Base, store, repair=True)]
    assert [(one.problem, one.repaired) for one in found] == [("missing", True)]
    await store.originals.delete_object(name_of(store, user.picture.require_original()))
    found = [one async for one in verify(sessions, Base, store)]
    assert [one.problem for one in found] == ["missing"]

    async with sessions.begin() as session:
        await session.execute(delete(UserPicture).where(UserPicture.user_id == 2))
    orphans = {name_of(store, row) for row in doomed.picture}
    plan = sweep(sessions, UserPicture, store, grace=timedelta(0), delete=True, force=True)
    assert {one.name async for one in plan} == orphans
    assert await names(store.thumbnails) | await names(store.originals) == {
        name_of(store, row) for row in user.picture if not row.original
    }


async def test_files_are_migrated(sessions: Sessions, store: SplitStore) -> None:
    """All files are migrated out of a split store, and each file into the right part of one."""
    split = SplitStore(MemoryStore(), MemoryStore())
    await a_user(sessions, split)
    whole = MemoryStore()
    await migrate(sessions, Base, split, whole).execute()
    assert await names(whole) == await names(split)
    await migrate(sessions, Base, whole, store).execute()
    assert await names(store.thumbnails) == await names(split.thumbnails)
    assert await names(store.originals) == await names(split.originals)


async def test_earlier_thumbnails_stay_private(sessions: Sessions) -> None:
    """Thumbnails from before the split have no mark, so they stay with the originals until they are made again."""
    plain = MemoryStore("https://plain/")
    await a_user(sessions, plain)
    split = SplitStore(MemoryStore("https://private/"), MemoryStore("https://public/"))
    await migrate(sessions, Base, plain, split).execute()
    assert await names(split.thumbnails) == set()
    async with sessions.begin() as session:
        bind_store(session, split)
        user = await session.get_one(User, 1)
        assert user.picture.find_thumbnail(width=20).locate().startswith("https://private/")
        for row in [row for row in user.picture if not row.original]:
            await session.delete(row)
        await session.flush()
        thumbnail = await user.picture.generate_thumbnail(width=20)
    assert thumbnail.locate(split).startswith("https://public/")
    assert (len(await names(split.originals)), len(await names(split.thumbnails))) == (1, 1)


async def test_a_retried_flush_marks_the_new_revision(sessions: Sessions) -> None:
    """Each attempt of a flush uses a new revision, which is marked in the same way."""
    thumbnails = FaultyStore()
    split = SplitStore(MemoryStore(), thumbnails)
    thumbnails.fail("put", at=1)
    async with sessions() as session:
        bind_store(session, split)
        session.add(user := User(id=1))
        await user.picture.from_blob(photos.png())
        thumbnail = await user.picture.generate_thumbnail(width=20)
        first = thumbnail.revision
        with pytest.raises(ConnectionError):
            await session.flush()
        await session.commit()
    assert thumbnail.revision != first
    assert await names(thumbnails) == {name_of(split, thumbnail)}


@pytest.mark.parametrize("outer", ["routing", "mirror", "overlay", "proxy", "faulty"])
async def test_a_split_store_in_a_combined_store(outer: str, sessions: Sessions) -> None:
    """Stores that combine others get revisions from the split store."""
    split = SplitStore(MemoryStore("https://private/"), MemoryStore("https://public/"))
    makers = {
        "routing": lambda: RoutingStore({OBJECT_TYPE: split}),
        "mirror": lambda: MirrorStore(split, MemoryStore()),
        "overlay": lambda: OverlayStore(split, MemoryStore()),
        "proxy": lambda: LocalProxyStore(lambda: split),
        "faulty": lambda: FaultyStore(split),
    }
    store = makers[outer]()
    user = await a_user(sessions, store)
    assert user.picture.locate(store).startswith("https://private/")
    assert user.picture.find_thumbnail(width=20).locate(store).startswith("https://public/")
    assert (len(await names(split.originals)), len(await names(split.thumbnails))) == (1, 2)


async def test_an_application_serves_both(sessions: Sessions, tmp_path: Path) -> None:
    """Thumbnails are public, and originals and other files are served only by signed URLs."""
    originals = HttpExposedFileSystemStore(tmp_path / "a", "originals", fsync=False, url_secret="s" * 32)
    thumbnails = HttpExposedFileSystemStore(tmp_path / "b", "thumbnails", fsync=False)
    store = SplitStore(originals, thumbnails)
    user = await a_user(sessions, store)
    app = FastAPI()
    app.add_middleware(originals.asgi_middleware)
    app.add_middleware(thumbnails.asgi_middleware)

    @app.get("/")
    async def urls() -> list[str]:
        return [user.picture.locate(store), user.picture.find_thumbnail(width=20).locate(store)]

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
        original, thumbnail = (await client.get("/")).json()
        for url, status in [
            (original, 200),
            (thumbnail, 200),
            (original.partition("?")[0], 403),
            (original.partition("?")[0].replace("originals", "thumbnails"), 404),
            (thumbnail.replace("thumbnails", "originals"), 403),
        ]:
            assert (await client.get(url)).status_code == status, url


async def test_an_original_is_never_put_among_the_thumbnails() -> None:
    """An original whose key has the mark of a thumbnail is rejected before its file is read."""
    store = SplitStore(MemoryStore(), MemoryStore())
    key = ImageKey(OBJECT_TYPE, None, 30, 20, "image/png", make_revision() + THUMBNAIL)
    with pytest.raises(InvalidKeyError, match="belongs to a thumbnail"):
        await store.put(key, b"original", reproducible=False)
    assert await names(store) == set()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a/{r[0]}/{r[1]}/{r}-t.30x20.png", True),
        ("a/{r[0]}/{r[1]}/{r}-t.30x20", True),
        (".swept/x/a/{r}-t-sandbox.30x20.png", True),
        ("a/{r}.30x20.png", False),
        ("a/{r[0]}/{r[1]}/{r:.26}-t.30x20.png", True),
        ("photo.t/01m8m/vt/01m8mvt00000000000-card-0123456789ab.320x240.avif", True),
        ("photo.t/01m8m/vt/01m8mvt00000000000-card-050030-0123456789ab-sandbox.320x240.webp", True),
        ("photo/01m8m/vt/01m8mvt00000000000-card-0123456789ab.320x240.avif", False),
        ("document.t/01m8p/cz/01m8pcz64x1xjy9rrkfj6s5n69.5.5.e244.txt", False),
        ("a/{r}-t.30x20.png/b", False),
        ("a/{r}-t.3.4.txt", False),
        ("report-t.30x20.pdf", False),
        ("a/-t.30x20.png", False),
        ("a/{r}-tt.30x20.png", False),
    ],
)
def test_only_exact_names_are_thumbnails(name: str, expected: bool) -> None:
    """A name that is not exactly that of a thumbnail belongs to the private store."""
    store = SplitStore(MemoryStore("https://private/"), MemoryStore("https://public/"))
    assert store.url_of(name.format(r=make_revision())).startswith("https://public/") is expected


def test_marked_revisions_have_a_time() -> None:
    """The time of a marked revision can be read, like that of other revisions."""
    moment = revision_time(make_revision() + THUMBNAIL)
    assert moment is not None
    assert revision_time(make_revision() + "-x") is None


def test_stores_that_cannot_be_split(tmp_path: Path) -> None:
    """Both stores must be a ``KeyedStore``, in different places."""
    with pytest.raises(ValueError, match="different places"):
        SplitStore(FileSystemStore(tmp_path, "/a"), FileSystemStore(tmp_path, "/b"))
    with pytest.raises(DeclarationError):
        SplitStore(MemoryStore(), LocalProxyStore(MemoryStore))  # type: ignore[arg-type]


async def test_legacy_files_are_originals() -> None:
    """A key without a revision has no mark, so its file is private."""
    store = SplitStore(MemoryStore("https://private/"), MemoryStore("https://public/"))
    key = ImageKey(OBJECT_TYPE, 1, 30, 20, "image/png")
    await store.put(key, b"x", reproducible=True)
    assert store.url_for(key).startswith("https://private/")
    assert [(await store.head(key)).size, len(store.parts(OBJECT_TYPE))] == [1, 2]
    assert store.names_of(key) == (store.legacy_name(key),)
    async with await store.get(key) as file:
        assert await file.read() == b"x"
    await store.discard(key)
    assert repr(store) == "<SplitStore <MemoryStore of 0 files>, thumbnails in <MemoryStore of 0 files>>"


async def test_download_urls(sessions: Sessions, tmp_path: Path) -> None:
    """The signed URL of an original can name a download."""
    originals = HttpExposedFileSystemStore(
        tmp_path / "a", "originals", lambda: "http://localhost/", fsync=False, url_secret="s" * 32
    )
    user = await a_user(sessions, SplitStore(originals, MemoryStore()))
    url = user.picture.require_original().locate(SplitStore(originals, MemoryStore()), download="cat.png")
    assert "download=cat.png" in url
