"""A file that several rows reference, successively or concurrently: it is kept while any of them exists."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from sqlalchemy import ForeignKey, insert, select, text, update
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from aioimageattach.entity import Image, image_attachment
from aioimageattach.exc import ImageAttachError, StoreFileNotFoundError
from aioimageattach.offload import StoredText, stored_text
from aioimageattach.store import KeyedStore
from aioimageattach.stores.fs import FileSystemStore
from aioimageattach.stores.s3 import S3Store
from aioimageattach.testing import assert_consistent
from tests import photos
from tests.databases import Database
from tests.entity.models import started
from tests.faults.models import Base as Models
from tests.faults.models import User
from tests.faults.rig import Rig, StoredRig, check, get, swept
from tests.faults.stores import FaultyStore
from tests.servers.gate import ACCESS_KEY, SECRET_KEY
from tests.servers.ministack import BIND, Ministack

PHOTO = photos.saved(photos.opened("coffee", (30, 20)), "PNG")
OTHER = photos.saved(photos.opened("chelsea", (30, 20)), "PNG")

# --- adopted from another row ----------------------------------------------------------------------------------------


async def photographed(sessions: async_sessionmaker[AsyncSession]) -> None:
    """Commit user 1 with a photograph, and user 2 without."""
    async with sessions() as session, session.begin():
        session.add_all([user := User(id=1), User(id=2)])
        await user.picture.from_blob(PHOTO)


def name_of(user: User, store: KeyedStore) -> str:
    """Return the name of the file of a user's image."""
    return store.name_of(user.picture.require_original().key)


@pytest.mark.parametrize("end", ["commit", "rollback"])
@pytest.mark.parametrize("how", ["delete", "replace", "delete the owner", "in a savepoint", "adopted in a savepoint"])
async def test_given_up_by_one_row_and_adopted_by_another(picture_rig: Rig, how: str, end: str) -> None:
    """A file is dropped and adopted in one transaction, with a flush in between."""
    rig = picture_rig
    await photographed(rig.sessions)
    async with rig.sessions() as session:
        one, two = await get(session, 1), await get(session, 2)
        name = name_of(one, rig.store)
        if how == "delete the owner":
            await session.delete(one)
        elif how == "replace":
            await one.picture.from_blob(OTHER)
        elif how == "in a savepoint":
            async with session.begin_nested():
                await one.picture.delete()
        else:
            await one.picture.delete()
        await session.flush()
        if how == "adopted in a savepoint":
            async with session.begin_nested():
                await two.picture.adopt(name)
        else:
            await two.picture.adopt(name)
        await getattr(session, end)()
    await rig.check(*([PHOTO, OTHER] if how == "replace" and end == "commit" else [PHOTO]))
    async with rig.sessions() as session:
        assert await rig.read(await get(session, 2 if end == "commit" else 1)) == PHOTO


@pytest.mark.parametrize("first", ["adopt", "delete"])
async def test_adopted_and_deleted_by_one_flush(picture_rig: Rig, first: str) -> None:
    """SQLAlchemy inserts before it deletes, which the unique revision forbids: nothing changes, or the file is kept."""
    rig = picture_rig
    await photographed(rig.sessions)
    try:
        async with rig.sessions() as session, session.begin():
            one, two = await get(session, 1), await get(session, 2)
            name = name_of(one, rig.store)
            with session.no_autoflush:
                if first == "delete":
                    await one.picture.delete()
                await two.picture.adopt(name)
                if first == "adopt":
                    await one.picture.delete()
    except (IntegrityError, ImageAttachError):
        pass
    await rig.check(PHOTO)


async def test_adopted_in_a_savepoint_that_is_rolled_back(picture_rig: Rig) -> None:
    """The deletion is committed, and no row adopts: the file is deleted."""
    rig = picture_rig
    await photographed(rig.sessions)
    async with rig.sessions() as session:
        one, two = await get(session, 1), await get(session, 2)
        name = name_of(one, rig.store)
        await one.picture.delete()
        await session.flush()
        async with session.begin_nested() as savepoint:
            await two.picture.adopt(name)
            await session.flush()
            await savepoint.rollback()
        await session.commit()
    await rig.check()


async def test_passed_on_twice(picture_rig: Rig) -> None:
    """The file moves from user 1 to user 2 and back in one transaction."""
    rig = picture_rig
    await photographed(rig.sessions)
    async with rig.sessions() as session, session.begin():
        one, two = await get(session, 1), await get(session, 2)
        name = name_of(one, rig.store)
        await one.picture.delete()
        await session.flush()
        await two.picture.adopt(name)
        await session.flush()
        await two.picture.delete()
        await session.flush()
        await one.picture.adopt(name)
    await rig.check(PHOTO)


@pytest.mark.parametrize("order", ["the adoption commits first", "the deletion commits first"])
async def test_adopted_while_another_transaction_deletes(picture_rig: Rig, order: str) -> None:
    """Neither transaction sees the other's change: the adoption is refused, or the file is kept."""
    rig = picture_rig
    if rig.database.name == "sqlite":
        pytest.skip("SQLite has one writer at a time")
    await photographed(rig.sessions)
    adopted = asyncio.Event()
    deleted = asyncio.Event()

    async def delete() -> None:
        async with rig.sessions() as session, session.begin():
            one = await get(session, 1)
            await one.picture.load()
            if order == "the adoption commits first":
                await adopted.wait()
            await one.picture.delete()
        deleted.set()

    async def adopt(name: str) -> None:
        try:
            async with rig.sessions() as session, session.begin():
                two = await get(session, 2)
                await two.picture.adopt(name)
                if order == "the deletion commits first":
                    await deleted.wait()
                await session.flush()
        finally:
            adopted.set()

    async with rig.sessions() as session:
        name = name_of(await get(session, 1), rig.store)
    _, error = await asyncio.gather(delete(), adopt(name), return_exceptions=True)
    assert error is None or isinstance(error, (ImageAttachError, SQLAlchemyError))
    await rig.check(*([PHOTO] if error is None else []), orphans=True)
    await swept(rig.database, rig.store)
    await rig.check(*([PHOTO] if error is None else []))


async def test_adopted_and_flushed_while_another_transaction_deletes(picture_rig: Rig) -> None:
    """The adopting INSERT waits for the deletion to commit, and then succeeds."""
    rig = picture_rig
    if rig.database.name == "sqlite":
        pytest.skip("SQLite has one writer at a time")
    await photographed(rig.sessions)
    errors: list[BaseException | None] = []
    async with rig.sessions() as ours, rig.sessions() as theirs:
        two = await get(theirs, 2)
        one = await get(ours, 1)
        name = name_of(one, rig.store)
        await one.picture.delete()
        await ours.flush()
        await two.picture.adopt(name)
        waiting = asyncio.create_task(theirs.flush())
        await asyncio.wait([waiting], timeout=0.3)
        await ours.commit()
        errors += await asyncio.gather(waiting, return_exceptions=True)
        if errors == [None]:
            await theirs.commit()
        else:
            await theirs.rollback()
    expected = [PHOTO] if errors == [None] else []
    await rig.check(*expected, orphans=True)
    await swept(rig.database, rig.store)
    await rig.check(*expected)


# --- two store objects over one place --------------------------------------------------------------------------------


async def change_hands(database: Database, first: KeyedStore, second: KeyedStore) -> None:
    """Delete through one store and adopt through the other, in one transaction; then replace through the first."""
    sessions = await started(database, Models.metadata, first, expire_on_commit=False)
    await photographed(sessions)
    async with sessions() as session, session.begin():
        one, two = await get(session, 1), await get(session, 2)
        name = name_of(one, first)
        await one.picture.delete()
        await session.flush()
        await two.picture.adopt(name, second)
    await assert_consistent(sessions, Models, first)
    async with sessions() as session, session.begin():
        await (await get(session, 2)).picture.from_blob(OTHER)
    await assert_consistent(sessions, Models, first)


async def test_two_stores_of_one_directory(sqlite_database: Database, tmp_path: Path) -> None:
    """Two store objects are the same place, in whatever way the directory is spelled."""
    (tmp_path / "files").mkdir()
    first = FileSystemStore(tmp_path / "files", "http://one/")
    second = FileSystemStore(tmp_path / "files" / ".." / "files", "http://two/")
    await change_hands(sqlite_database, first, second)


async def test_two_stores_of_one_bucket(sqlite_database: Database, bucket_server: Ministack) -> None:
    """Two clients use the same prefix of a bucket."""

    def store() -> S3Store:
        address = f"http://{BIND}:{bucket_server.port}"
        return S3Store(
            "pictures", ACCESS_KEY, SECRET_KEY, prefix="two-clients", region="eu-central-1", endpoint_url=address
        )

    async with store() as first, store() as second:
        await change_hands(sqlite_database, first, second)


async def test_two_wrappers_of_one_store(sqlite_database: Database) -> None:
    """The library cannot recognise that both are one place; the database is queried anyway."""
    inner = FaultyStore()
    await change_hands(sqlite_database, inner, FaultyStore(inner))


# --- classes that share their files ----------------------------------------------------------------------------------


class Base(DeclarativeBase):
    """Models whose files have the same object type."""


class Product(Base):
    """An owner of an image, former images and a text."""

    __tablename__ = "product"
    id: Mapped[int] = mapped_column(primary_key=True)
    picture = image_attachment["ProductPicture"]("ProductPicture")
    body: Mapped[StoredText | None] = stored_text(object_type="text")
    summary: Mapped[StoredText | None] = stored_text(object_type="text")


class ProductPicture(Base, Image):
    """The current image."""

    __tablename__ = "product_picture"
    product_id: Mapped[int] = mapped_column(ForeignKey(Product.id), primary_key=True)

    @property
    def object_type(self) -> str:
        """The same object type as former images."""
        return "products"


class Former(Base):
    """A former image and text of a product."""

    __tablename__ = "former"
    id: Mapped[int] = mapped_column(primary_key=True)
    picture = image_attachment["FormerPicture"]("FormerPicture")
    body: Mapped[StoredText | None] = stored_text(object_type="text")


class FormerPicture(Base, Image):
    """A former image."""

    __tablename__ = "former_picture"
    former_id: Mapped[int] = mapped_column(ForeignKey(Former.id), primary_key=True)

    @property
    def object_type(self) -> str:
        """The same object type as current images."""
        return "products"


async def product(database: Database, store: FaultyStore) -> async_sessionmaker[AsyncSession]:
    """Commit a product with everything that it can have."""
    sessions = await started(database, Base.metadata, store, expire_on_commit=False)
    async with sessions() as session, session.begin():
        session.add_all([one := Product(id=1, body="the body", summary="the summary"), Former(id=1)])
        await one.picture.from_blob(PHOTO)
    return sessions


@pytest.mark.parametrize("how", ["replace", "delete", "delete the owner"])
async def test_a_former_picture_is_kept_by_another_class(database: Database, how: str) -> None:
    """The file of a deleted row is adopted by a row of another class."""
    store = FaultyStore()
    sessions = await product(database, store)
    async with sessions() as session, session.begin():
        one, former = await session.get_one(Product, 1), await session.get_one(Former, 1)
        await former.picture.adopt(store.name_of(one.picture.require_original().key))
        if how == "replace":
            await one.picture.from_blob(OTHER)
        elif how == "delete":
            await one.picture.delete()
        else:
            await session.delete(one)
    texts = set() if how == "delete the owner" else {b"the body", b"the summary"}
    assert await check(database, store, Base) == {PHOTO, *texts, *([OTHER] if how == "replace" else [])}


async def test_image_rows_copied_into_the_table_of_another_class(database: Database) -> None:
    """``INSERT ... SELECT`` makes a second row with the file; deleting the first one keeps it."""
    store = FaultyStore()
    sessions = await product(database, store)
    columns = "width, height, variant, mimetype, original, created_at, revision, byte_size, sha256"
    async with sessions() as session, session.begin():
        await session.execute(
            text(f"INSERT INTO former_picture (former_id, {columns}) SELECT 1, {columns} FROM product_picture")
        )
    async with sessions() as session, session.begin():
        await (await session.get_one(Product, 1)).picture.delete()
    assert PHOTO in await check(database, store, Base)
    async with sessions() as session, session.begin():
        await session.delete(await session.get_one(Former, 1))
    assert PHOTO not in await check(database, store, Base)


@pytest.mark.parametrize("table", ["the same row", "another class"])
async def test_references_copied_to_another_column(database: Database, table: str) -> None:
    """Columns of one object type read each other's files."""
    store = FaultyStore()
    sessions = await product(database, store)
    async with sessions() as session, session.begin():
        if table == "the same row":
            await session.execute(
                update(Product).values(summary=Product.body), execution_options={"synchronize_session": False}
            )
        else:
            await session.execute(text("UPDATE former SET body = (SELECT body FROM product)"))
    async with sessions() as session, session.begin():
        (await session.get_one(Product, 1)).body = "another body"
    found = await check(database, store, Base, orphans=True)
    assert {b"the body", b"another body"} <= found
    async with sessions() as session, session.begin():
        await session.delete(await session.get_one(Product, 1))
        await session.delete(await session.get_one(Former, 1))
    assert await check(database, store, Base, orphans=True) == set()
    await swept(database, store, Base)
    assert not await store.names()


# --- references copied in the database -------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["delete", "replace", "remove", "in bulk"])
async def test_a_row_copied_by_insert_from_select(value_rig: Rig, how: str) -> None:
    """Whichever row is deleted first, the other can be read; the last one is deleted with the file."""
    rig = value_rig
    await rig.user()
    async with rig.sessions() as session, session.begin():
        await session.execute(insert(User).from_select(["id", "body"], select(User.id + 1, User.body)))
    await rig.check(b"old")
    async with rig.sessions() as session, session.begin():
        copied = await get(session, 2)
        if how == "delete":
            await session.delete(copied)
        elif how == "replace":
            await rig.replace(copied, b"new")
        elif how == "remove":
            await rig.remove(copied)
        else:
            await session.execute(User.__table__.delete().where(User.__table__.c.id == 2))
    await rig.check(b"old", *([b"new"] if how == "replace" else []))
    async with rig.sessions() as session, session.begin():
        for user in await session.scalars(select(User)):
            await session.delete(user)
    await rig.check()


async def test_a_value_copied_by_update(value_rig: Rig) -> None:
    """``UPDATE ... SET body = (SELECT ...)``, and the source is replaced."""
    rig = value_rig
    assert isinstance(rig, StoredRig)
    await rig.user(1)
    await rig.user(2, b"two")
    async with rig.sessions() as session, session.begin():
        await session.execute(
            text(
                'UPDATE "user" SET body = (SELECT body FROM (SELECT * FROM "user") AS u WHERE u.id = 1) WHERE id = 2'
                if rig.database.name != "mariadb"
                else "UPDATE user SET body = (SELECT body FROM (SELECT * FROM user) AS u WHERE u.id = 1) WHERE id = 2"
            )
        )
    async with rig.sessions() as session, session.begin():
        await rig.replace(await get(session, 1), b"new")
    await rig.check(b"old", b"new", orphans=True)
    await swept(rig.database, rig.store)
    await rig.check(b"old", b"new")


async def test_all_rows_of_one_reference_go_together(value_rig: Rig) -> None:
    """Ten rows with one file in one transaction: the file is deleted once."""
    rig = value_rig
    await rig.user()
    async with rig.sessions() as session, session.begin():
        for number in range(2, 10):
            await session.execute(
                insert(User).from_select(["id", "body"], select(User.id + number - 1, User.body).where(User.id == 1))
            )
    deletes = rig.store.counts["delete"]
    async with rig.sessions() as session, session.begin():
        for user in await session.scalars(select(User)):
            await session.delete(user)
    await rig.check()
    assert rig.store.counts["delete"] == deletes + 1


async def test_copied_in_the_transaction_that_deletes(value_rig: Rig) -> None:
    """The copy is committed together with the deletion of its source."""
    rig = value_rig
    await rig.user()
    async with rig.sessions() as session, session.begin():
        await session.execute(insert(User).from_select(["id", "body"], select(User.id + 1, User.body)))
        await session.delete(await get(session, 1))
    await rig.check(b"old")


async def test_a_value_moves_to_another_owner(value_rig: Rig) -> None:
    """The value is assigned to another row and its own row is deleted, in one flush."""
    rig = value_rig
    await rig.user(1)
    await rig.user(2, None)
    async with rig.sessions() as session, session.begin():
        one, two = await get(session, 1), await get(session, 2)
        assert one.body is not None
        await one.body.load()
        two.body = one.body
        await session.delete(one)
    await rig.check(b"old")


async def test_adopted_while_it_is_being_removed(picture_rig: Rig) -> None:
    """A flush that would reference a file that is being deleted is refused."""
    rig = picture_rig
    await photographed(rig.sessions)
    [name] = await rig.store.names()
    refused: list[str] = []

    async def adopt(removed: str) -> None:
        async with rig.sessions() as other:
            await (await get(other, 2)).picture.adopt(name)
            with pytest.raises(StoreFileNotFoundError, match="is being deleted by another transaction"):
                await other.flush()
        refused.append(removed)

    rig.store.at("delete", adopt)
    async with rig.sessions() as session, session.begin():
        await rig.remove(await get(session, 1))
    assert refused == [name]
    await rig.check()
