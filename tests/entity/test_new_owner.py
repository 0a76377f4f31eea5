"""The image set of an owner that was inserted in this session, for which no row needs to be loaded."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from aioimageattach import bind_store
from aioimageattach.exc import NotLoadedError
from tests import photos
from tests.databases import Database
from tests.entity.models import CountingStore, Post, User, started, statements
from tests.entity.test_owners import attachment_on_a_joined_subclass, concrete_inheritance, joined_inheritance

Sessions = async_sessionmaker[AsyncSession]


async def test_empty_after_the_flush(sessions: Sessions) -> None:
    """The set of a new owner without an image is empty after the flush, without a query."""
    async with sessions() as session:
        session.add_all([user := User(), post := Post()])
        await session.flush()
        with statements(sessions) as sent:
            assert (bool(user.picture), user.picture.original, list(user.picture)) == (False, None, [])
            assert (bool(post.photos), list(post.photos)) == (False, [])
        assert sent == []


async def test_empty_after_the_commit(sessions: Sessions) -> None:
    """The set is still empty after a commit that expires nothing, and after the session is closed."""
    async with sessions.begin() as session:
        session.add(user := User())
    assert not user.picture
    assert user.picture.__html__() == ""


async def test_expired_by_the_commit(expiring: Sessions) -> None:
    """A commit that expires everything also expires the set: the error names the remedies."""
    async with expiring() as session:
        session.add(user := User())
        await session.commit()
        with pytest.raises(NotLoadedError, match=r"selectinload.*expire_on_commit=False"):
            bool(user.picture)
        await session.refresh(user)
        assert not user.picture


async def test_attach_after_the_flush(sessions: Sessions, store: CountingStore) -> None:
    """An image that is attached after the owner's flush is stored and loaded."""
    async with sessions.begin() as session:
        session.add(user := User())
        await session.flush()
        await user.picture.from_blob(photos.photo("chelsea"), store)
    async with sessions() as session:
        assert (await session.get_one(User, user.id)).picture


async def test_rolled_back(sessions: Sessions, store: CountingStore) -> None:
    """An owner whose INSERT was rolled back can be added again, with an image."""
    async with sessions() as session:
        session.add(user := User())
        await session.flush()
        await session.rollback()
        assert not user.picture
        session.add(user)
        await user.picture.from_blob(photos.photo("chelsea"), store)
        await session.commit()
        assert user.picture


async def test_an_owner_with_the_key_of_a_deleted_one(sessions: Sessions, store: CountingStore) -> None:
    """A new owner with the primary key of one deleted in the same flush does not have its image."""
    async with sessions.begin() as session:
        session.add(user := User(id=7))
        await user.picture.from_blob(photos.photo("chelsea"), store)
    async with sessions.begin() as session:
        bind_store(session, store)
        await session.delete(await session.get_one(User, 7))
        session.add(user := User(id=7, name="other"))
    async with sessions() as session:
        assert not (await session.get_one(User, 7)).picture
    assert await store.names() == []


@pytest.mark.parametrize("kind", [concrete_inheritance, joined_inheritance, attachment_on_a_joined_subclass])
async def test_inherited(sqlite_database: Database, kind: Any) -> None:
    """The set is empty after the flush for owners with every kind of inheritance."""
    found = kind()
    sessions = await started(sqlite_database, found.metadata, expire_on_commit=False)
    async with sessions.begin() as session:
        session.add(owner := found.owner(**found.values))
    assert not owner.picture


async def test_returned_by_an_insert(sessions: Sessions) -> None:
    """Owners returned by INSERT ... RETURNING are loaded like those of a query."""
    async with sessions() as session:
        users = (await session.scalars(insert(User).returning(User), [{"name": "a"}, {"name": "b"}])).all()
        assert [bool(user.picture) for user in users] == [False, False]
        assert not (await session.scalars(select(User))).first().picture  # type: ignore[union-attr]
