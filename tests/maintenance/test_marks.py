"""Verification of marks, which record that all files of a declared thumbnail are in the store."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import ForeignKey, ForeignKeyConstraint, String, delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from aioimageattach import (
    CropBox,
    FocalPoint,
    Image,
    Srcset,
    ThumbnailMarks,
    bind_store,
    image_attachment,
    store_context,
)
from aioimageattach.entity._derived import declared_files
from aioimageattach.exc import DeclarationError, StoreError, StoreUnavailableError, UsageError
from aioimageattach.maintenance import Mismatch, _marks, verify
from aioimageattach.migration import migrate
from aioimageattach.store import KeyedStore, ObjectInfo
from aioimageattach.stores import MemoryStore, OverlayStore
from aioimageattach.stores.fs import FileSystemStore
from aioimageattach.thumbnails import ThumbnailServer
from tests.databases import Database
from tests.photos import photo
from tests.servers.gate import Gate
from tests.stores.s3.conftest import MakeStore
from tests.thumbnails.models import Links, names

Sessions = async_sessionmaker[AsyncSession]


class Base(DeclarativeBase):
    """The declarative base."""


class User(Base):
    """A user with images."""

    __tablename__ = "user"
    id: Mapped[int] = mapped_column(primary_key=True)
    picture = image_attachment["Picture"]("Picture")
    cats = image_attachment["Cat"]("Cat")


class Picture(Base, Image, FocalPoint, ThumbnailMarks):
    """An image with two thumbnails, one of which depends on the focal point."""

    __tablename__ = "picture"
    __thumbnails__ = {
        "icon": Srcset([24], aspect=(1, 1), fallback=None),
        "card": Srcset([60, 120], fallback=None, sizes="50vw"),
    }
    user_id: Mapped[int] = mapped_column(ForeignKey("user.id"), primary_key=True)


class Animal(Base, Image):
    """An image without marks."""

    __tablename__ = "animal"
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "animal"}
    user_id: Mapped[int] = mapped_column(ForeignKey("user.id"), primary_key=True)
    kind: Mapped[str] = mapped_column(String(20))


class Cat(Animal, ThumbnailMarks):
    """A subclass in the same table, with marks."""

    __thumbnails__ = {"card": Srcset([60], fallback=None)}
    __mapper_args__ = {"polymorphic_identity": "cat"}


class Listed(FileSystemStore):
    """A store that counts its calls."""

    calls: list[str]
    before_list: Any = None
    undeletable = False

    async def delete_objects(self, names: Iterable[str]) -> dict[str, StoreError]:
        if self.undeletable:
            return {name: StoreUnavailableError("out of order") for name in names}
        return await super().delete_objects(names)

    async def list_objects(self, prefix: str = "", *, start_after: str = "") -> AsyncIterator[ObjectInfo]:
        self.calls.append("list")
        if self.before_list is not None:
            await self.before_list()
        async for info in super().list_objects(prefix, start_after=start_after):
            yield info

    async def head_object(self, name: str) -> ObjectInfo:
        self.calls.append(name.partition("/")[0])
        return await super().head_object(name)


async def started(database: Database, store: KeyedStore, base: type[DeclarativeBase] = Base) -> Sessions:
    """Return sessions on a database with the tables and a store."""
    await database.create(base.metadata)
    sessions: Sessions = async_sessionmaker(database.engine(), expire_on_commit=False)
    bind_store(sessions, store, thumbnails=Links(store))
    return sessions


@pytest.fixture
def store(tmp_path: Path) -> Listed:
    """A store in a directory."""
    (tmp_path / "files").mkdir()
    store = Listed(tmp_path / "files", "/files/", fsync=False)
    store.calls = []
    return store


@pytest.fixture
async def sessions(sqlite_database: Database, store: Listed) -> Sessions:
    """Sessions on SQLite."""
    return await started(sqlite_database, store)


async def fill(sessions: Sessions, count: int = 1) -> list[Picture]:
    """Commit images with their thumbnails."""
    rows = []
    for _ in range(count):
        async with sessions.begin() as session:
            session.add(user := User())
            rows.append(await user.picture.from_blob(photo("chelsea")))
            await user.picture.generate_thumbnails()
    return rows


def files(row: Any, store: KeyedStore, name: str) -> list[str]:
    """The names of the files of a thumbnail."""
    found = [one for one in declared_files(row) if one.declaration.name == name]
    return [store.name_of(one.key_for(row)) for one in found]


async def verified(sessions: Sessions, store: KeyedStore | None = None, **options: Any) -> list[Mismatch]:
    """Return the mismatches."""
    return [one async for one in verify(sessions, Base, store, **options)]


async def is_direct(sessions: Sessions, row: Picture, name: str) -> bool:
    """Return whether a new URL points directly to the store."""
    async with sessions() as session:
        fresh = await session.get_one(Picture, [row.user_id, row.width, row.height, row.variant])
        urls = [one.url for one in fresh.candidates(name)]
    return not any(url.startswith("/thumbnails/") for url in urls)


async def check(sessions: Sessions, store: KeyedStore) -> None:
    """Delete files of some thumbnails, verify, and repair."""
    first, second, third = await fill(sessions, 3)
    assert await verified(sessions) == []
    await store.delete_object(files(second, store, "card")[1])
    await store.delete_objects([name for kind in ("icon", "card") for name in files(third, store, kind)])
    plan = verify(sessions, Base)
    found = {one.reference.identity[0]: one async for one in plan}
    assert {number: (one.problem, one.expected, one.actual, one.repaired) for number, one in found.items()} == {
        second.user_id: ("thumbnails", 3, 2, False),
        third.user_id: ("thumbnails", 3, 0, False),
    }
    progress = plan.progress
    assert (
        progress.counts["marked"],
        progress.counts["mismarked"],
        progress.counts["sound"],
        progress.counts["mismatched"],
    ) == (3, 2, 3, 0)
    assert await is_direct(sessions, second, "card")

    assert [one.repaired for one in await verified(sessions, repair=True)] == [True, True]
    assert await verified(sessions) == []
    direct = [[await is_direct(sessions, row, name) for name in ("icon", "card")] for row in (first, second, third)]
    assert direct == [[True, True], [True, False], [False, False]]


async def test_marks_of_missing_files_in_a_directory(database: Database, store: Listed) -> None:
    """False marks are reported with the number of files, and a repair removes them but no other marks of the row."""
    await check(await started(database, store), store)


async def test_marks_of_missing_files_in_a_bucket(sqlite_database: Database, gate: Gate, make_store: MakeStore) -> None:
    """The same as in a directory holds for a bucket."""
    store = make_store(gate.url)
    await check(await started(sqlite_database, store), store)


async def test_files_are_listed(sessions: Sessions, store: Listed, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is one listing per page of rows, and no request per file."""
    rows = await fill(sessions, 7)
    await store.delete_object(files(rows[5], store, "icon")[0])
    monkeypatch.setattr(_marks, "PAGE", 3)
    store.calls.clear()
    [found] = await verified(sessions)
    assert found.reference.identity[0] == rows[5].user_id
    assert store.calls.count("list") == 3
    assert store.calls.count("picture") == 7
    assert store.calls.count("picture.t") == 0


async def test_invalid_marks_are_not_checked(sessions: Sessions, store: Listed, tmp_path: Path) -> None:
    """Marks of another store or focal point, or above an overlay, are not used, and so not checked."""
    [row] = await fill(sessions)
    await store.delete_objects([*files(row, store, "icon"), *files(row, store, "card")])
    other = FileSystemStore(tmp_path / "other", "/other/", fsync=False)
    await migrate(sessions, Base, store, other).execute()
    store.calls.clear()
    assert (
        await verified(sessions, other) == await verified(sessions, OverlayStore(store, MemoryStore("below:/"))) == []
    )
    assert "list" not in store.calls
    async with sessions.begin() as session:
        await session.execute(update(Picture).values(focal_x=0.1, focal_y=0.2))
    [found] = await verified(sessions)
    assert (found.expected, found.actual) == (2, 0)


async def test_rows_that_change_during_the_verification(sessions: Sessions, store: Listed) -> None:
    """An image that is deleted or unmarked after its row was read is not reported."""
    gone, unmarked, kept = await fill(sessions, 3)

    async def change() -> None:
        store.before_list = None
        async with sessions.begin() as session:
            await session.execute(delete(Picture.__table__).where(Picture.revision == gone.revision))
            statement = update(Picture).where(Picture.revision == unmarked.revision)
            await session.execute(statement.values(thumbnail_marks=None))
        await store.delete_objects([name for row in (gone, unmarked, kept) for name in files(row, store, "icon")])

    store.before_list = change
    assert [one.reference.identity[0] for one in await verified(sessions)] == [kept.user_id]


async def test_rows_that_change_before_the_repair(sessions: Sessions, store: Listed) -> None:
    """A repair does not overwrite new marks."""
    [row] = await fill(sessions)
    [icon] = files(row, store, "icon")
    await store.delete_object(icon)
    plan = verify(sessions, Base, repair=True)
    write = plan._repair_marks

    async def changed(*arguments: Any) -> Mismatch:
        async with sessions.begin() as session:
            await session.execute(update(Picture).values(thumbnail_marks="others"))
        return await write(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "_repair_marks", changed)
        await plan.execute()
    async with sessions() as session:
        assert await session.scalar(select(Picture.thumbnail_marks)) == "others"


async def test_marks_that_cannot_be_repaired(sessions: Sessions, store: Listed) -> None:
    """A repair with sessions that are bound to a connection is refused, because only the application may commit."""
    [row] = await fill(sessions)
    await store.delete_object(files(row, store, "icon")[0])
    async with sessions() as session:
        connection = await session.connection()
        bound = async_sessionmaker(connection, expire_on_commit=False)
        bind_store(bound, store)
        with pytest.raises(DeclarationError, match="bound to a connection"):
            await verified(bound, repair=True)
    assert await is_direct(sessions, row, "icon")


async def test_marks_of_a_subclass(sessions: Sessions, store: Listed) -> None:
    """Marks are found if only a subclass in a shared table has the mixin."""
    async with sessions.begin() as session:
        session.add(user := User())
        row = await user.cats.from_blob(photo("chelsea"))
        await user.cats.generate_thumbnails()
    assert row.thumbnail_marks is not None
    [name] = files(row, store, "card")
    await store.delete_object(name)
    assert [one.reference.cls for one in await verified(sessions, repair=True)] == [Cat]
    assert await verified(sessions) == []


class Kinds(DeclarativeBase):
    """The declarative base of images in one table, and in two."""


class Owner(Kinds):
    """An owner of an image of each kind."""

    __tablename__ = "owner"
    id: Mapped[int] = mapped_column(primary_key=True)
    framed = image_attachment["Framed"]("Framed")
    cropped = image_attachment["Cropped"]("Cropped")


class Shown(Kinds, Image, ThumbnailMarks):
    """An image with marks, whose subclasses add the columns on which thumbnails depend."""

    __tablename__ = "shown"
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "shown"}
    owner_id: Mapped[int] = mapped_column(ForeignKey("owner.id"), primary_key=True)
    kind: Mapped[str] = mapped_column(String(20))


class Framed(Shown, FocalPoint):
    """A subclass in the same table."""

    __thumbnails__ = {"icon": Srcset([24], aspect=(1, 1), fallback=None)}
    __mapper_args__ = {"polymorphic_identity": "framed"}


class Cropped(Shown, CropBox):
    """A subclass with a separate table."""

    __tablename__ = "cropped"
    __thumbnails__ = {"card": Srcset([60], fallback=None)}
    __mapper_args__ = {"polymorphic_identity": "cropped"}
    owner_id: Mapped[int] = mapped_column(primary_key=True)
    width: Mapped[int] = mapped_column(primary_key=True)
    height: Mapped[int] = mapped_column(primary_key=True)
    variant: Mapped[str] = mapped_column(String(32), primary_key=True)
    __table_args__ = (
        ForeignKeyConstraint(("owner_id", "width", "height", "variant"), Shown.__table__.primary_key.columns),
    )


async def test_subclasses_add_columns(database: Database, store: Listed) -> None:
    """Marks depend on the focal point and crop box of the row, which only its own class has."""
    sessions = await started(database, store, Kinds)
    async with sessions.begin() as session:
        session.add(owner := Owner())
        rows = [await owner.framed.from_blob(photo("chelsea")), await owner.cropped.from_blob(photo("coffee"))]
        rows[0].focal_point = 0.25, 0.5
        rows[1].crop_box = 0.25, 0.25, 0.5, 0.5
        for pictures in (owner.framed, owner.cropped):
            await pictures.generate_thumbnails()
    plan = verify(sessions, Kinds)
    await plan.execute()
    assert (plan.progress.counts["marked"], plan.progress.counts["mismarked"]) == (2, 0)
    for row, name in zip(rows, ("icon", "card"), strict=True):
        await store.delete_objects(files(row, store, name))
    found = [one async for one in verify(sessions, Kinds, repair=True)]
    assert {(one.reference.cls, one.expected, one.actual, one.repaired) for one in found} == {
        (Framed, 1, 0, True),
        (Cropped, 1, 0, True),
    }
    async with sessions() as session:
        assert [*await session.scalars(select(Shown.thumbnail_marks))] == [None, None]


async def test_a_row_without_a_valid_name(sessions: Sessions, store: Listed) -> None:
    """A row without a valid name is reported as unreadable, and its marks are not checked."""
    await fill(sessions)
    async with sessions.begin() as session:
        await session.execute(update(Picture.__table__).values(revision="../x"))
    assert [one.problem for one in await verified(sessions)] == ["unreadable"]


# --- no direct URL without its file ----------------------------------------------------------------------------------


class Before(DeclarativeBase):
    """The declarative base of the application before a change."""


class OldUser(Before):
    """A user with an image."""

    __tablename__ = "user"
    id: Mapped[int] = mapped_column(primary_key=True)
    picture = image_attachment["OldPicture"]("OldPicture")


class OldPicture(Before, Image, FocalPoint, ThumbnailMarks):
    """The class of the same rows, with another look of one thumbnail."""

    __tablename__ = "picture"
    __thumbnails__ = {**Picture.__thumbnails__, "card": Srcset([60, 120], fallback=None, sizes="50vw", quality=40)}
    user_id: Mapped[int] = mapped_column(ForeignKey("user.id"), primary_key=True)


async def pruned(store: KeyedStore, cls: type[Any], sessions: Sessions | None) -> list[str]:
    """Delete the thumbnails that a class does not declare, and return their names."""
    server = ThumbnailServer(store, [cls], base_url="/thumbnails/")
    return [info.name async for info in server.prune(delete=True, grace=timedelta(0), sessions=sessions)]


async def existing(urls: Iterable[str], store: KeyedStore) -> list[bool]:
    """Return whether the file of each direct URL exists."""
    known = set(await names(store))
    return [url.partition("/files/")[2] in known for url in urls if not url.startswith("/thumbnails/")]


@pytest.mark.parametrize("remarked", [True, False])
async def test_a_declaration_is_restored_after_pruning(sessions: Sessions, store: Listed, remarked: bool) -> None:
    """Marks are removed before the files, so that a restored declaration has no URLs of missing files."""
    async with sessions.begin() as session:
        session.add(user := OldUser())
        row = await user.picture.from_blob(photo("chelsea"))
        await user.picture.generate_thumbnails()
        old = [one.url for name in ("icon", "card") for one in row.candidates(name)]
    assert await existing(old, store) == [True] * 3
    if remarked:
        async with sessions.begin() as session:
            await (await session.get_one(User, user.id)).picture.generate_thumbnails()
    with pytest.raises(UsageError, match="Picture has ThumbnailMarks"):
        await pruned(store, Picture, None)
    assert len(await pruned(store, Picture, sessions)) == 2
    async with sessions() as session:
        after = (await session.get_one(OldUser, user.id)).picture
        current = (await session.get_one(User, user.id)).picture
        assert await existing([one.url for one in after.candidates("icon")], store) == [True]
        assert await existing([one.url for one in after.candidates("card")], store) == []
        assert await existing([one.url for one in current.candidates("card")], store) == [True, True] * remarked
    assert await verified(sessions) == []


async def test_marks_are_removed_before_files(sessions: Sessions, store: Listed) -> None:
    """If a file cannot be deleted, its mark has already been removed and committed."""
    async with sessions.begin() as session:
        session.add(user := OldUser())
        row = await user.picture.from_blob(photo("chelsea"))
        await user.picture.generate_thumbnails()
    marks = str(row.thumbnail_marks).split(" ")
    store.undeletable = True
    with pytest.raises(StoreUnavailableError):
        await pruned(store, Picture, sessions)
    async with sessions() as session:
        assert await session.scalar(select(Picture.thumbnail_marks)) == marks[0]
    assert len(await names(store, "picture.t/")) == 3


async def test_a_migration_is_reverted(sessions: Sessions, store: Listed, tmp_path: Path) -> None:
    """URLs point to the server for the new store, and to the existing files for the old one."""
    [row] = await fill(sessions)
    new = FileSystemStore(tmp_path / "new", "/files/", fsync=False)
    await migrate(sessions, Base, store, new).execute()
    with store_context(new, thumbnails=Links(new)):
        moved = [one.url for name in ("icon", "card") for one in row.candidates(name, store=new)]
        assert all(url.startswith("/thumbnails/") for url in moved)
    with store_context(store, thumbnails=Links(store)):
        direct = [one.url for name in ("icon", "card") for one in row.candidates(name, store=store)]
    assert await existing(direct, store) == [True] * 3
    assert await verified(sessions, new) == []


async def test_marks_restored_from_a_backup(sessions: Sessions, store: Listed) -> None:
    """A restored row may have marks of deleted files, and a repair removes them."""
    [row] = await fill(sessions)
    backup = {key: row.__dict__[key] for key in Picture.__table__.columns.keys()}  # noqa: SIM118
    original = store.name_of(row.key)
    async with sessions.begin() as session:
        await (await session.get_one(User, row.user_id)).picture.delete()
    async with sessions.begin() as session:
        await session.execute(Picture.__table__.insert().values(backup))
    await store.put_object(original, photo("chelsea"))
    assert await is_direct(sessions, row, "card")
    [found] = await verified(sessions, repair=True)
    assert (found.problem, found.repaired) == ("thumbnails", True)
    assert not await is_direct(sessions, row, "card")
    assert not await is_direct(sessions, row, "icon")
