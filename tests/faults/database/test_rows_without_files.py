"""Rows that bypass the library's hooks are refused if they have no file."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from sqlalchemy import event, insert, literal, select, text, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from aioimageattach.exc import ImageAttachError, StoreUnavailableError
from aioimageattach.key import make_revision
from aioimageattach.offload import StoredBinary
from tests.faults.models import User, UserPicture
from tests.faults.rig import GivenUp, Rig, get
from tests.faults.stores import fails


def values(**more: Any) -> dict[str, Any]:
    """Return the columns of an image that was never uploaded."""
    return {
        "user_id": 1,
        "width": 3,
        "height": 2,
        "variant": "",
        "mimetype": "image/png",
        "original": True,
        "revision": make_revision(),
        **more,
    }


# --- images ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("event_name", ["before_flush", "after_flush", "after_flush_postexec"])
async def test_added_by_a_hook_of_the_application(picture_rig: Rig, event_name: str) -> None:
    """The row is refused whether the hook runs before or after that of the library."""
    rig = picture_rig
    await rig.user(1, None)
    async with rig.sessions() as session:
        user = await get(session)
        hooked = [UserPicture(**values())]

        def add(sync_session: Any, *_: object) -> None:
            while hooked:
                sync_session.add(hooked.pop())

        event.listen(session.sync_session, event_name, add)
        user.name = "another"
        with pytest.raises(ImageAttachError):
            await session.commit()
    await rig.check()


@pytest.mark.parametrize("how", ["bulk_save_objects", "bulk_insert_mappings"])
async def test_written_in_bulk_by_the_session(picture_rig: Rig, how: str) -> None:
    """The session's bulk methods, which skip the unit of work, are refused."""
    rig = picture_rig
    await rig.user(1, None)
    async with rig.sessions() as session:

        def write(sync_session: Any) -> None:
            if how == "bulk_save_objects":
                sync_session.bulk_save_objects([UserPicture(**values())])
            else:
                sync_session.bulk_insert_mappings(UserPicture, [values()])

        with pytest.raises(ImageAttachError):
            await session.run_sync(write)
        await session.rollback()
    await rig.check()


@pytest.mark.parametrize("how", ["values", "several", "rows", "returning", "from_select"])
async def test_written_by_an_insert_of_the_class(picture_rig: Rig, how: str) -> None:
    """``insert(UserPicture)`` is refused in all its forms."""
    rig = picture_rig
    await rig.user(1, None)
    async with rig.sessions() as session:
        statement: Any = insert(UserPicture)
        rows = None
        if how == "values":
            statement = statement.values(**values())
        elif how == "several":
            statement = statement.values([values(), values(width=4)])
        elif how == "rows":
            rows = [values(), values(width=4)]
        elif how == "returning":
            rows, statement = [values()], statement.returning(UserPicture)
        else:
            given = values(created_at=text("CURRENT_TIMESTAMP"))
            names = [name for name in given if name != "created_at"]
            statement = statement.from_select(names, select(*(literal(given[name]) for name in names)))
        with pytest.raises(ImageAttachError):
            await session.execute(statement, rows)
        await session.rollback()
    await rig.check()


async def test_bulk_rows_of_the_predecessor(picture_rig: Rig) -> None:
    """Rows without a revision are accepted, in bulk as well as one by one."""
    rig = picture_rig
    await rig.user(1, None)
    async with rig.sessions() as session, session.begin():
        await session.execute(insert(UserPicture), [values(revision=None)])
    async with rig.sessions() as session:
        assert (await get(session)).picture.size == (3, 2)


# --- values ----------------------------------------------------------------------------------------------------------


async def failed(rig: Rig, session: AsyncSession, how: str) -> StoredBinary:
    """Return a handle from a failed flush."""
    handle = StoredBinary(b"never stored")
    user = await get(session)
    user.body = handle
    if how == "the store fails":
        rig.store.at("put", fails, 1)
        with pytest.raises(StoreUnavailableError):
            await session.flush()
    elif how == "the database fails":
        user.name = "user 2"  # which is already taken
        with pytest.raises(SQLAlchemyError):
            await session.flush()
    elif how == "a hook fails":
        raising = [GivenUp]

        def fail(*_: object) -> None:
            if raising:
                raise raising.pop()

        event.listen(session.sync_session, "before_flush", fail)
        with pytest.raises(GivenUp):
            await session.flush()
    elif how == "a savepoint is rolled back":
        user.body = None
        with contextlib.suppress(GivenUp):
            async with session.begin_nested():
                user.body = handle
                await session.flush()
                raise GivenUp
        return handle
    else:
        await session.flush()
    await session.rollback()
    rig.store.heal()
    return handle


@pytest.mark.parametrize(
    "how",
    ["the store fails", "the database fails", "a hook fails", "a savepoint is rolled back", "all is rolled back"],
)
async def test_a_handle_of_a_failed_flush_in_a_statement(value_rig: Rig, how: str) -> None:
    """The handle is refused, because its file was deleted or never existed."""
    rig = value_rig
    await rig.user(1)
    await rig.user(2, b"two")
    async with rig.sessions() as session:
        handle = await failed(rig, session, how)
        for statement in (update(User).values(body=handle), insert(User).values(id=3, body=handle)):
            with pytest.raises((ImageAttachError, SQLAlchemyError)):
                await session.execute(statement)
        await session.rollback()
    await rig.check(b"old", b"two", orphans=True)


async def test_a_handle_in_a_statement_of_a_hook(value_rig: Rig) -> None:
    """During a flush, only the flush itself may write its handles."""
    rig = value_rig
    await rig.user(1)
    await rig.user(2, b"two")
    async with rig.sessions() as session:
        user = await get(session)
        user.body = StoredBinary(b"new")

        def write(sync_session: Any, *_: object) -> None:
            sync_session.execute(update(User.__table__).where(User.__table__.c.id == 2).values(body=user.body))

        event.listen(session.sync_session, "after_flush", write)
        with contextlib.suppress(ImageAttachError, SQLAlchemyError):
            await session.commit()
            user.body = None
            await session.commit()
        await session.rollback()
    await rig.check(*(await contents(rig)), orphans=True)


async def contents(rig: Rig) -> set[bytes]:
    """Return the contents of all users' values, opened one by one."""
    async with rig.sessions() as session:
        return {await user.body.load() for user in await session.scalars(select(User)) if user.body is not None}


async def test_a_handle_of_a_failed_flush_is_assigned_again(value_rig: Rig) -> None:
    """The bytes are in memory, so they are stored under another name, for this row or another one."""
    rig = value_rig
    await rig.user(1)
    await rig.user(2, b"two")
    async with rig.sessions() as session:
        handle = await failed(rig, session, "the database fails")
        (await get(session, 2)).body = handle
        await session.commit()
    await rig.check(b"old", b"never stored")
