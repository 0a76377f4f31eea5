"""Owners and rows that are expired, detached, copied, pickled, merged and moved to other sessions."""

from __future__ import annotations

import copy
import gc
import pickle

import pytest
from sqlalchemy import ForeignKey, delete, select
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, make_transient, mapped_column

from aioimageattach.context import bind_store, store_context
from aioimageattach.entity import Image, image_attachment
from aioimageattach.exc import NotLoadedError, UsageError
from tests.databases import Database
from tests.faults.models import User, UserPicture
from tests.faults.rig import PNG, SIZE, Rig, check, get
from tests.faults.stores import FaultyStore

# --- expired and detached --------------------------------------------------------------------------------------------


async def test_after_a_commit_with_the_sessions_defaults(rig: Rig) -> None:
    """Synchronous use of an expired row raises an error with a remedy; awaitable methods load it."""
    await rig.user()
    async with AsyncSession(rig.engine) as session:
        bind_store(session, rig.store)
        user = await get(session)
        picture = await rig.attach(user.picture, b"new")
        await session.commit()
        with pytest.raises(NotLoadedError):
            user.picture.locate()
        with pytest.raises(NotLoadedError):
            picture.locate()
        assert await user.picture.make_blob() == b"new"
        await session.refresh(picture)
        assert picture.locate() == user.picture.locate()
        await session.commit()
        await rig.attach(user.picture, b"newer")
        await session.commit()
    await rig.check(b"newer")


async def test_expired_rows_are_deleted_with_their_thumbnails(rig: Rig) -> None:
    """A thumbnail is deleted with its original, although neither was loaded."""
    await rig.user(thumbnail=b"small")
    async with AsyncSession(rig.engine) as session:
        original = (await get(session)).picture.require_original()
        await session.commit()
        bind_store(session, rig.store)
        await session.delete(original)
        await session.commit()
    await rig.check()


async def test_detached(rig: Rig) -> None:
    """The files of a detached owner can be read; changing it is refused before anything is read or written."""
    await rig.user()
    async with rig.sessions() as session:
        user = await get(session)
    again = pickle.loads(pickle.dumps(user))
    for owner in (user, again, copy.deepcopy(user)):
        assert await owner.picture.make_blob(rig.store) == b"old"
        assert owner.picture.locate(rig.store).endswith(".png")
        with pytest.raises(UsageError, match=r"was deleted|is detached"):
            await rig.attach(owner.picture, b"new")
    assert await copy.copy(user.picture).make_blob(rig.store) == b"old"
    await rig.check(b"old")


# --- new owners and their copies -------------------------------------------------------------------------------------


async def new_user(rig: Rig, number: int = 1) -> User:
    """Return a user without a session, with an image in memory only."""
    user = User(id=number)
    await rig.attach(user.picture, b"new")
    return user


async def test_a_new_owner_is_merged(rig: Rig) -> None:
    """The merged copy has the bytes."""
    user = await new_user(rig)
    async with rig.sessions() as session:
        merged = await session.merge(user)
        assert merged is not user
        await session.commit()
    await rig.check(b"new")


async def test_a_new_owner_is_merged_and_forgotten(rig: Rig) -> None:
    """The merged copy has the bytes even if only the copy is left."""
    async with rig.sessions() as session:
        await session.merge(await new_user(rig))
        gc.collect()
        await session.commit()
    await rig.check(b"new")


async def test_a_new_owner_is_copied(rig: Rig) -> None:
    """Each copy has its own file: deleting one keeps the other."""
    user = await new_user(rig)
    other = copy.deepcopy(user)
    other.id = 2
    async with rig.sessions() as session, session.begin():
        session.add_all([user, other])
    assert len(await rig.store.names()) == 2
    await rig.check(b"new")
    with store_context(rig.store):
        async with rig.sessions() as session, session.begin():
            await session.delete(await get(session, 1))
    await rig.check(b"new")
    async with rig.sessions() as session:
        assert await (await get(session, 2)).picture.make_blob(rig.store) == b"new"


async def test_a_copy_comes_later(rig: Rig) -> None:
    """The copy has kept the bytes, and gets its own file."""
    user = await new_user(rig)
    other = copy.deepcopy(user)
    other.id = 2
    async with rig.sessions() as session, session.begin():
        session.add(user)
    async with rig.sessions() as session, session.begin():
        session.add(other)
    await rig.check(b"new")
    assert len(await rig.store.names()) == 2


async def test_a_copy_comes_later_in_the_same_transaction(rig: Rig) -> None:
    """A copy that is added later in the same transaction gets its own file, too."""
    user = await new_user(rig)
    other = copy.deepcopy(user)
    other.id = 2
    async with rig.sessions() as session, session.begin():
        session.add(user)
        await session.flush()
        session.add(other)
    await rig.check(b"new")
    assert len(await rig.store.names()) == 2


async def test_an_image_set_is_copied(rig: Rig) -> None:
    """A set belongs to its owner: it cannot be separated from it."""
    user = await new_user(rig)
    assert copy.copy(user.picture) == user.picture
    for separate in copy.deepcopy, pickle.dumps:
        with pytest.raises(UsageError, match=r"User\.picture cannot be pickled .*: pickle or copy the User"):
            separate(user.picture)


async def test_a_detached_owner_is_copied_with_the_store_of_its_session(rig: Rig) -> None:
    """The copy finds the files in the store that was bound to the session of the original."""
    await rig.user()
    async with rig.sessions() as session:
        bind_store(session, rig.store)
        user = await get(session)
    assert await copy.deepcopy(user).picture.make_blob() == b"old"


async def test_a_new_owner_is_pickled(rig: Rig) -> None:
    """The bytes are not pickled: the row is refused, so that it is never without a file."""
    user = pickle.loads(pickle.dumps(await new_user(rig)))
    gc.collect()
    with pytest.raises(UsageError, match="has no file"):
        async with rig.sessions() as session, session.begin():
            session.add(user)
    await rig.check()


# --- rows that stood in the database ---------------------------------------------------------------------------------


async def test_merging_an_unchanged_row(rig: Rig) -> None:
    """Merging an unchanged row inserts, deletes and uploads nothing."""
    await rig.user(thumbnail=b"small")
    async with rig.sessions() as session:
        user = await get(session)
    puts = rig.store.counts["put"]
    async with rig.sessions() as session, session.begin():
        await session.merge(user)
    assert rig.store.counts["put"] == puts
    await rig.check(b"old", b"small")


@pytest.mark.parametrize("change", ["replaced", "deleted"])
async def test_merging_a_row_that_was_changed_meanwhile(rig: Rig, change: str) -> None:
    """A row whose file was deleted is refused, and the current image stays."""
    await rig.user()
    async with rig.sessions() as session:
        stale = await get(session)
    with store_context(rig.store):
        async with rig.sessions() as session, session.begin():
            user = await get(session)
            if change == "replaced":
                await rig.attach(user.picture, b"new", (9, 9))
            else:
                await user.picture.delete()
        with pytest.raises(UsageError, match="has no file"):
            async with rig.sessions() as session, session.begin():
                await session.merge(stale)
    await rig.check(*([b"new"] if change == "replaced" else []))


async def test_a_row_given_to_another_owner(rig: Rig) -> None:
    """A second row with the same file is refused, because deleting one would delete the file of the other."""
    await rig.user(1)
    await rig.user(2, None)
    with pytest.raises(UsageError, match="has no file"):
        async with rig.sessions() as session, session.begin():
            row = (await get(session, 1)).picture.require_original()
            make_transient(row)
            row.user_id = 2
            session.add(row)
    await rig.check(b"old")


async def test_a_row_moved_to_another_owner(rig: Rig) -> None:
    """Whether deleted and inserted in one transaction, or moved by its key, the row keeps its file."""
    await rig.user(1)
    await rig.user(2, None)
    await rig.user(3, None)
    with store_context(rig.store):
        async with rig.sessions() as session, session.begin():
            row = (await get(session, 1)).picture.require_original()
            await session.delete(row)
            await session.flush()
            make_transient(row)
            row.user_id = 2
            session.add(row)
        await rig.check(b"old")
        async with rig.sessions() as session, session.begin():
            (await get(session, 2)).picture.require_original().user_id = 3
    await rig.check(b"old")
    async with rig.sessions() as session:
        assert await (await get(session, 3)).picture.make_blob(rig.store) == b"old"


async def test_replaced_and_deleted_with_its_owner(rig: Rig) -> None:
    """With a flush in between, the collection does not keep the replaced row."""
    await rig.user(thumbnail=b"small")
    async with rig.sessions() as session, session.begin():
        bind_store(session, rig.store)
        user = await get(session)
        await rig.attach(user.picture, b"SMALL", (3, 2), original=False)
        await session.flush()
        assert [row.byte_size for row in user.picture] == [3, 5]
        await session.delete(user)
    await rig.check()


async def test_replaced_while_it_is_pending(rig: Rig) -> None:
    """An image that is loaded again while pending can still be removed."""
    await rig.user()
    async with rig.sessions() as session, session.begin():
        user = await get(session)
        await rig.attach(user.picture, b"one", (3, 2), original=False)
        await user.picture.load()
        await rig.attach(user.picture, b"two", (3, 2), original=False)
    assert rig.store.counts["put"] == 2
    await rig.check(b"old", b"two")


# --- sessions, databases and stores ----------------------------------------------------------------------------------


async def test_two_sessions_want_one_owner(rig: Rig) -> None:
    """SQLAlchemy refuses it; after it is expunged from one session, it can be added to the other with its bytes."""
    async with rig.sessions() as one, rig.sessions() as other:
        one.add(user := await new_user(rig))
        with pytest.raises(InvalidRequestError):
            other.add(user)
        one.expunge(user)
        other.add(user)
        await one.commit()
        await rig.check()
        await other.commit()
    await rig.check(b"new")


async def test_each_picture_goes_to_its_own_store(rig: Rig) -> None:
    """An image goes to the store it was attached with, whatever is current at the flush, and is deleted there."""
    second = FaultyStore()
    async with rig.sessions() as session:
        bind_store(session, rig.store)
        session.add_all([one := User(id=1), two := User(id=2)])
        await one.picture.from_raw_file(b"one", None, SIZE, PNG)
        await two.picture.from_raw_file(b"two", second, SIZE, PNG)
        await session.commit()
        assert [len(await store.names()) for store in (rig.store, second)] == [1, 1]
        with store_context(FaultyStore()):
            await session.delete(one)
            await session.delete(two)
            await session.commit()
    assert [len(await store.names()) for store in (rig.store, second)] == [0, 0]


async def test_the_retried_request(rig: Rig) -> None:
    """Two requests with the same bytes leave one image and one file."""
    for _ in range(2):
        async with rig.sessions() as session, session.begin():
            user = await session.get(User, 1) or User(id=1)
            session.add(user)
            await rig.attach(user.picture, b"same")
    assert len(await rig.store.names()) == 1
    await rig.check(b"same")


# --- mappings --------------------------------------------------------------------------------------------------------


class Related(DeclarativeBase):
    """Models with inheritance."""


class Animal(Related):
    """A parent class with an image."""

    __tablename__ = "animal"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(default="animal")
    picture = image_attachment["AnimalPicture"]("AnimalPicture")
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "animal"}


class Cat(Animal):
    """A subclass in a separate table."""

    __tablename__ = "cat"
    id: Mapped[int] = mapped_column(ForeignKey(Animal.id), primary_key=True)
    __mapper_args__ = {"polymorphic_identity": "cat"}


class Dog(Animal):
    """A subclass in the table of its parent."""

    __mapper_args__ = {"polymorphic_identity": "dog"}


class AnimalPicture(Related, Image):
    """The image of any animal."""

    __tablename__ = "animal_picture"
    animal_id: Mapped[int] = mapped_column(ForeignKey(Animal.id), primary_key=True)


@pytest.mark.parametrize("kind", [Animal, Cat, Dog])
async def test_owners_that_inherit(sqlite_database: Database, kind: type[Animal]) -> None:
    """Each hook does its work once: one put, one delete."""
    await sqlite_database.create(Related.metadata)
    store = FaultyStore()
    sessions = async_sessionmaker(sqlite_database.engine(), expire_on_commit=False)
    for content in (b"one", b"two"):
        async with sessions() as session, session.begin():
            animal = await session.get(Animal, 1) or kind(id=1)
            session.add(animal)
            await animal.picture.from_raw_file(content, store, SIZE, PNG)
        assert await check(sqlite_database, store, Related) == {content}
    assert (store.counts["put"], store.counts["delete"]) == (2, 1)
    async with sessions() as session, session.begin():
        bind_store(session, store)
        await session.delete(await session.get_one(Animal, 1))
    assert await check(sqlite_database, store, Related) == set()


async def test_other_classes_are_not_touched(rig: Rig) -> None:
    """Emptying a table with SQL keeps its files, and those of other classes."""
    await rig.user(1)
    await rig.user(2, b"two")
    async with rig.sessions() as session, session.begin():
        user = await get(session, 2)
        await session.execute(delete(UserPicture.__table__).where(UserPicture.__table__.c.user_id == 1))
        await rig.attach(user.picture, b"TWO")
    await rig.check(b"TWO", orphans=True)
    async with rig.sessions() as session:
        assert len(list(await session.scalars(select(UserPicture)))) == 1
    assert len(await rig.store.names()) == 2
