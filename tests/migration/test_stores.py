"""Migration between combined stores and stores on one server, and migration of offloaded values."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import ForeignKey, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from aioimageattach.entity import Image, image_attachment
from aioimageattach.exc import MigrationError, StoreFileExistsError, StoreFileMismatchError
from aioimageattach.file import AsyncFile
from aioimageattach.key import ImageKey, make_revision
from aioimageattach.maintenance import sweep, verify
from aioimageattach.migration import migrate, migrate_class
from aioimageattach.offload import StoredJSON, StoredText, load_stored, stored_json, stored_text
from aioimageattach.store import KeyedStore
from aioimageattach.stores import MemoryStore, MirrorStore, RoutingStore
from aioimageattach.stores.fs import FileSystemStore
from aioimageattach.stores.fs._paths import SIDE_PREFIX
from tests.databases import Database
from tests.entity.models import started
from tests.migration import models
from tests.migration.models import Post, Sessions, UserPicture, add_users, contents, counted, tables


class Base(DeclarativeBase):
    """The declarative base."""


class Article(Base):
    """An article with an image and offloaded values."""

    __tablename__ = "article"
    id: Mapped[int] = mapped_column(primary_key=True)
    body: Mapped[StoredText] = stored_text(compression="gzip")
    note: Mapped[StoredText] = stored_text(inline_below=100, dedupe=True)
    outline: Mapped[StoredJSON | None] = stored_json()
    picture = image_attachment["ArticlePicture"]("ArticlePicture")


class ArticlePicture(Base, Image):
    """The image of an article."""

    __tablename__ = "article_picture"
    article_id: Mapped[int] = mapped_column(ForeignKey(Article.id), primary_key=True)


class CountingStore(MemoryStore):
    """A store that counts the files that are read."""

    reads = 0

    async def get_object(self, name: str, *, start: int = 0, end: int | None = None) -> AsyncFile:
        self.reads += 1
        return await super().get_object(name, start=start, end=end)


class CopyingStore(CountingStore):
    """A store on a server that can copy files between its stores."""

    async def copy_from(
        self,
        source: KeyedStore,
        source_name: str,
        name: str,
        *,
        mimetype: str = "application/octet-stream",
        reproducible: bool = False,
    ) -> bool:
        if not isinstance(source, CopyingStore):
            return False
        await source.head_object(source_name)
        if self._files.setdefault(name, source._files[source_name]) is not source._files[source_name]:
            raise StoreFileExistsError(f"there is {name!r}", store=repr(self), name=name)
        return True


async def write(sessions: Sessions, store: KeyedStore) -> None:
    """Commit three articles, of which one note is stored inline and two notes share a file."""
    async with sessions() as session, session.begin():
        for number in (1, 2, 3):
            article = Article(id=number)
            session.add(article)
            article.body = StoredText("body " * number * 100, store=store)
            article.note = StoredText("short" if number == 1 else "long " * 100, store=store)
            article.outline = StoredJSON({"number": number}, store=store) if number == 3 else None
            await article.picture.from_raw_file(b"picture %d" % number, store, (30, 20), "image/png")


@pytest.mark.parametrize("deep", [False, True])
async def test_offloaded_values(database: Database, tmp_path: Path, deep: bool) -> None:
    """A file that two rows name is copied once; inline values and orphans are not copied."""
    sessions = await started(database, Base.metadata, expire_on_commit=False)
    source, destination = MemoryStore(), FileSystemStore(tmp_path / "files", "/", fsync=False)
    await write(sessions, source)
    before = await contents(source)
    assert len(before) == 3 + 3 + 1 + 1
    await source.put_object("article.body/orphan.txt", b"nobody's")
    plan = migrate(sessions, Base, source, destination, deep=deep)
    progress = await plan.execute()
    assert (progress.done, progress.counts["copied"], progress.counts["present"], progress.failed) == (9, 8, 1, 0)
    assert await contents(destination) == before
    assert (await plan.execute()).counts["present"] == 9
    async with sessions() as session:
        articles = (await session.scalars(select(Article).order_by(Article.id))).all()
        await load_stored(articles, Article.body, Article.note, Article.outline, store=destination)
        assert [article.body.value for article in articles] == ["body " * number * 100 for number in (1, 2, 3)]
        assert [article.note.value for article in articles] == ["short", *["long " * 100] * 2]
        assert articles[2].outline is not None
        assert articles[2].outline.value == {"number": 3}
    problems = [one async for one in verify(sessions, Base, destination, deep=True)]
    assert problems == []


@pytest.mark.parametrize("deep", [False, True])
async def test_stores_of_one_server(sqlite_database: Database, deep: bool) -> None:
    """Without ``deep`` no file is read; with it, damaged copies are deleted."""
    sessions = await tables(sqlite_database)
    source, destination = CopyingStore(), CopyingStore()
    await add_users(sessions, source, [b"one", b"two", b"six"])
    first, second, _ = [found.name async for found in source.list_objects()]
    for name, blob in ((first, b"longer"), (second, b"TWO")):
        await source.delete_object(name)
        await source.put_object(name, blob)
    plan = migrate(sessions, models.Base, source, destination, deep=deep)
    with pytest.raises(MigrationError) as caught:
        await plan.execute()
    assert {type(error) for error in caught.value.exceptions} == {StoreFileMismatchError}
    assert plan.progress.failed == 1 + deep
    assert (source.reads, destination.reads) == (0, 3 * deep)
    assert len(await contents(destination)) == 2 - deep


async def test_stores_of_different_servers(sqlite_database: Database) -> None:
    """Files that the server cannot copy are read and put."""
    sessions = await tables(sqlite_database)
    source, destination = CountingStore(), CopyingStore()
    await add_users(sessions, source, [b"1", b"22"])
    assert counted(await migrate(sessions, models.Base, source, destination).execute()) == {
        "total": 2,
        "done": 2,
        "copied": 2,
        "bytes": 3,
    }
    assert await contents(destination) == await contents(source)


async def test_a_move_with_a_mirror(sqlite_database: Database, tmp_path: Path) -> None:
    """After each step, verification succeeds, and a sweep of the mirror removes orphans from both stores."""
    sessions = await tables(sqlite_database)
    old, new = MemoryStore(), FileSystemStore(tmp_path / "files", "/", fsync=False)
    await add_users(sessions, old, [b"1", b"2"])
    mirror = MirrorStore(old, new)
    await add_users(sessions, mirror, [b"3"], first=3)
    await mirror.put(ImageKey("user-picture", 1, 30, 20, "image/png", make_revision()), b"nobody's", reproducible=False)
    assert [one async for one in verify(sessions, models.Base, mirror)] == []
    assert [one.problem async for one in verify(sessions, models.Base, new)] == ["missing", "missing"]
    assert (await migrate(sessions, models.Base, old, new).execute()).counts["copied"] == 2
    assert [one async for one in verify(sessions, models.Base, new, deep=True)] == []
    (tmp_path / "files" / "user-picture" / f"{SIDE_PREFIX}left").write_bytes(b"of a killed put")
    turned = MirrorStore(new, old)
    progress = await sweep(
        sessions, models.Base, turned, delete=True, grace=timedelta(0), force=True, max_share=1
    ).execute()
    assert (progress.counts["removed"], progress.counts["unfinished"]) == (1, 1)
    assert await contents(new) == await contents(old)
    assert sorted((await contents(new)).values()) == [b"1", b"2", b"3"]


async def test_one_class_with_a_routing_store(sqlite_database: Database) -> None:
    """Files of other classes are not copied, and all files are verified and swept together."""
    sessions = await tables(sqlite_database)
    old, new = MemoryStore(), MemoryStore()
    await add_users(sessions, old, [b"1", b"2"])
    async with sessions() as session, session.begin():
        session.add(post := Post(id=1))
        await post.photos.get_image_set(order_index=1).from_raw_file(b"photo", old, (30, 20), "image/jpeg")
    routed = RoutingStore({"user-picture": new}, default=old)
    assert (await migrate_class(sessions, UserPicture, old, routed).execute()).counts["copied"] == 2
    assert sorted((await contents(new)).values()) == [b"1", b"2"]
    assert [one async for one in verify(sessions, models.Base, routed, deep=True)] == []
    for store, object_type in ((new, "user-picture"), (old, "photo")):
        key = ImageKey(object_type, 1, 30, 20, "image/png", make_revision())
        await store.put(key, b"nobody's", reproducible=False)
    plan = sweep(sessions, models.Base, routed, delete=True, grace=timedelta(0), force=True, max_share=1)
    assert (await plan.execute()).counts["removed"] == 2
    assert sorted((await contents(routed)).values()) == [b"1", b"2", b"photo"]
