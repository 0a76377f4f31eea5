"""The store that was bound to the former session of a row."""

from __future__ import annotations

import gc
import pickle
import weakref

import pytest
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import make_transient

from aioimageattach.context import bind_store, override_store, set_default_store, store_context
from aioimageattach.exc import ContextError
from aioimageattach.stores import MemoryStore
from tests import photos
from tests.entity.models import User

Sessions = async_sessionmaker[AsyncSession]
URL = "https://bound.example/"


@pytest.fixture
async def bound(sessions: Sessions) -> MemoryStore:
    """Bind a store that is set nowhere else, and attach an image with it."""
    store = MemoryStore(URL)
    bind_store(sessions, store)
    async with sessions.begin() as session:
        session.add(user := User(id=1))
        await user.picture.from_blob(photos.png())
        await user.picture.generate_thumbnail(width=10)
    return store


async def a_user(sessions: Sessions) -> User:
    """Load the user in a session that is then closed, as a request handler does."""
    async with sessions() as session:
        return await session.get_one(User, 1)


async def test_a_detached_row_knows_the_store_of_its_session(sessions: Sessions, bound: MemoryStore) -> None:
    """A detached row uses the store of its session, so that templates and response models need no session."""
    user = await a_user(sessions)
    assert user.picture.locate().startswith(URL)
    assert user.picture.find_thumbnail(width=10).locate().startswith(URL)
    assert f'src="{URL}' in user.picture.__html__()
    assert await user.picture.make_blob() == photos.png()


async def test_expunged_and_transient_rows_know_the_store(sessions: Sessions, bound: MemoryStore) -> None:
    """The store is known regardless of how a row leaves its session."""
    async with sessions() as session:
        user = await session.get_one(User, 1)
        row = user.picture.require_original()
        session.expunge(row)
        assert row.locate().startswith(URL)
        other = next(one for one in user.picture if not one.original)
        make_transient(other)
        assert other.locate().startswith(URL)


async def test_precedence_of_the_bound_store(sessions: Sessions, bound: MemoryStore) -> None:
    """An argument, a context, a test's store and the session's store precede the bound store; the default does not."""
    user = await a_user(sessions)
    other = MemoryStore("https://other.example/")
    assert user.picture.locate(other).startswith("https://other.example/")
    with store_context(other):
        assert user.picture.locate().startswith("https://other.example/")
    with override_store(other):
        assert user.picture.locate().startswith("https://other.example/")
    async with sessions() as session:
        bind_store(session, other)
        session.add(user)
        assert user.picture.locate().startswith("https://other.example/")
    assert user.picture.locate().startswith("https://other.example/")
    set_default_store(MemoryStore("https://default.example/"))
    try:
        assert user.picture.locate().startswith("https://other.example/")
    finally:
        set_default_store(None)


async def test_the_store_keeps_no_row_alive(sessions: Sessions) -> None:
    """The store keeps neither rows nor sessions alive, and is released with the last row."""
    store = MemoryStore(URL)
    async with sessions() as session:
        bind_store(session, store)
        session.add(user := User(id=2))
        await user.picture.from_blob(photos.png())
        await session.commit()
        session.expunge_all()
        user = await session.get_one(User, 2)
    seen = weakref.ref(session.sync_session), weakref.ref(user), weakref.ref(store)
    del session, store
    gc.collect()
    assert [one() is None for one in seen] == [True, False, False]
    assert user.picture.locate().startswith(URL)
    del user
    gc.collect()
    assert [one() is None for one in seen] == [True, True, True]


async def test_the_store_is_not_pickled(sessions: Sessions, bound: MemoryStore) -> None:
    """An unpickled row has no store, and the error names the reason."""
    user = pickle.loads(pickle.dumps(await a_user(sessions)))
    with pytest.raises(ContextError, match="the former session of this UserPicture had none"):
        user.picture.locate()
    assert user.picture.locate(bound).startswith(URL)


async def test_sessions_without_a_bound_store(sessions: Sessions, bound: MemoryStore) -> None:
    """Without any store, the error names the reason; within the session it gives the general advice."""
    plain = async_sessionmaker(sessions.kw["bind"], expire_on_commit=False)
    async with plain() as session:
        user = await session.get_one(User, 1)
        with pytest.raises(ContextError, match="no store is set: call"):
            user.picture.locate()
    with pytest.raises(ContextError, match=r"had none; call set_default_store.*bind_store"):
        user.picture.locate()
