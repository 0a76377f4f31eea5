"""Columns that determine a file name: an UPDATE that would reference a missing file is refused."""

from __future__ import annotations

import contextlib
import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import ForeignKey, String, select, update
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from aioimageattach.entity import Image, image_attachment
from aioimageattach.exc import ImageAttachError
from aioimageattach.key import make_revision
from tests.databases import Database
from tests.entity.models import started
from tests.faults.models import User, UserPicture
from tests.faults.rig import PNG, SIZE, Rig, StoredRig, check, get, swept
from tests.faults.stores import FaultyStore

# --- merge() of what was replaced meanwhile --------------------------------------------------------------------------

COPIES: dict[str, Callable[[Any], Any]] = {
    "as it is": lambda user: user,
    "pickled": lambda user: pickle.loads(pickle.dumps(user)),
    "copied": copy.deepcopy,
}
"""The ways in which a cache keeps an owner."""


async def cached(rig: Rig) -> User:
    """Return a user whose file another session then replaces by one of the same size."""
    async with rig.sessions() as session:
        user = await get(session)
    async with rig.sessions() as session, session.begin():
        await rig.replace(await get(session), b"new")
    return user


@pytest.mark.parametrize("kept", COPIES)
async def test_a_cached_owner_is_merged(rig: Rig, kept: str) -> None:
    """A merge that would overwrite the new revision with the old one is refused, and the new file stays."""
    await rig.user()
    user = COPIES[kept](await cached(rig))
    with pytest.raises(ImageAttachError):
        async with rig.sessions() as session, session.begin():
            await session.merge(user)
    await rig.check(b"new")


async def test_a_cached_owner_is_merged_without_loading(rig: Rig) -> None:
    """``merge(load=False)`` assumes that the copy is current, and writes nothing."""
    await rig.user()
    user = await cached(rig)
    async with rig.sessions() as session, session.begin():
        await session.merge(user, load=False)
    await rig.check(b"new")


async def test_a_cached_owner_is_merged_without_loading_and_replaced(rig: Rig) -> None:
    """Only files of the database's rows are deleted, and nothing is left except for the sweep."""
    await rig.user()
    user = await cached(rig)
    async with rig.sessions() as session, session.begin():
        merged = await session.merge(user, load=False)
        await rig.replace(merged, b"newer")
    await rig.check(b"newer", orphans=True)
    await swept(rig.database, rig.store)
    await rig.check(b"newer")


async def test_an_owner_is_merged_into_the_session_that_replaced(picture_rig: Rig) -> None:
    """In a session whose transaction has both files, the merge is refused or restores the old file."""
    rig = picture_rig
    await rig.user()
    async with rig.sessions() as session:
        user = await get(session)
    async with rig.sessions() as session:
        await rig.replace(await get(session), b"new")
        await session.flush()
        with contextlib.suppress(ImageAttachError):
            await session.merge(user)
            await session.commit()
    await rig.check(b"old", orphans=True)
    await swept(rig.database, rig.store)
    await rig.check(b"old")


# --- assigned --------------------------------------------------------------------------------------------------------

VALUES: dict[str, Callable[[UserPicture], Any]] = {
    "revision": lambda row: make_revision(),
    "mimetype": lambda row: "image/webp",
    "width": lambda row: row.width + 1,
    "height": lambda row: row.height + 1,
}


@pytest.mark.parametrize("name", VALUES)
async def test_assigned(picture_rig: Rig, name: str) -> None:
    """The assignment is refused before the flush sends a statement; after a rollback the session is usable."""
    rig = picture_rig
    await rig.user()
    async with rig.sessions() as session:
        row = (await get(session)).picture.require_original()
        setattr(row, name, VALUES[name](row))
        with pytest.raises(ImageAttachError, match=name):
            await session.commit()
        await session.rollback()
        await session.refresh(row)
        row.caption = "a caption"
        await session.commit()
        assert await session.scalar(select(UserPicture.caption)) == "a caption"
    await rig.check(b"old")


async def test_the_revision_taken_away(sqlite_rig: Rig) -> None:
    """Without a revision the row would reference a file of SQLAlchemy-ImageAttach, which has another name."""
    rig = sqlite_rig
    await rig.user()
    async with rig.sessions() as session:
        (await get(session)).picture.require_original().revision = None
        with pytest.raises(ImageAttachError, match="revision"):
            await session.commit()
    await rig.check(b"old")


async def test_assigned_and_taken_back(sqlite_rig: Rig) -> None:
    """A value that is restored before the flush changes nothing."""
    rig = sqlite_rig
    await rig.user()
    async with rig.sessions() as session, session.begin():
        row = (await get(session)).picture.require_original()
        revision, row.revision = row.revision, make_revision()
        row.revision = revision
    await rig.check(b"old")


async def test_assigned_by_a_hook_of_the_application(sqlite_rig: Rig) -> None:
    """A hook that runs after the library's own hook is checked as well."""
    from sqlalchemy import event

    rig = sqlite_rig
    await rig.user()
    async with rig.sessions() as session:
        user = await get(session)
        row = user.picture.require_original()
        event.listen(session.sync_session, "before_flush", lambda *_: setattr(row, "revision", make_revision()))
        user.name = "another"
        with pytest.raises(ImageAttachError, match="revision"):
            await session.commit()
    await rig.check(b"old")


@pytest.mark.parametrize("name", VALUES)
async def test_updated_in_bulk(picture_rig: Rig, name: str) -> None:
    """An UPDATE of the class, or of many rows by primary key, is refused."""
    rig = picture_rig
    await rig.user()
    async with rig.sessions() as session:
        row = (await get(session)).picture.require_original()
        value = VALUES[name](row)
        with pytest.raises(ImageAttachError, match=name):
            await session.execute(update(UserPicture).values({name: value}))
            await session.commit()
        await session.rollback()
        if name not in ("width", "height"):  # which are part of the key
            with pytest.raises(ImageAttachError, match=name):
                await session.execute(
                    update(UserPicture),
                    [{"user_id": 1, "width": 30, "height": 20, "variant": "", name: value}],
                )
                await session.commit()
            await session.rollback()
    await rig.check(b"old")


async def test_a_statement_of_other_columns(picture_rig: Rig) -> None:
    """Columns that are not part of a file name can be updated."""
    rig = picture_rig
    await rig.user()
    async with rig.sessions() as session, session.begin():
        await session.execute(update(UserPicture).values(caption="a caption"))
        (await get(session)).picture.require_original().hidden = True
    await rig.check(b"old")


async def test_two_rows_exchange_their_revisions(picture_rig: Rig) -> None:
    """Both files exist, but each would belong to the other row."""
    rig = picture_rig
    await rig.user(1, thumbnail=b"small")
    async with rig.sessions() as session:
        one, other = (await get(session)).picture
        one.revision, other.revision = other.revision, one.revision
        with pytest.raises(ImageAttachError, match="revision"):
            await session.commit()
    await rig.check(b"old", b"small")


# --- columns of the application's own --------------------------------------------------------------------------------


class Base(DeclarativeBase):
    """Models whose file names depend on columns of the application."""


class Member(Base):
    """An owner of a portrait."""

    __tablename__ = "member"
    id: Mapped[int] = mapped_column(primary_key=True)
    portrait = image_attachment["Portrait"]("Portrait")


class Portrait(Base, Image):
    """A portrait whose file name contains its tenant and a calculated number."""

    __tablename__ = "portrait"
    member_id: Mapped[int] = mapped_column(ForeignKey(Member.id), primary_key=True)
    tenant: Mapped[str] = mapped_column(String(20))
    number: Mapped[int]

    @property
    def object_type(self) -> str:
        """The object type, from a column."""
        return f"{self.tenant}-portrait"

    @property
    def object_id(self) -> int:
        """The object id, from another column."""
        return self.number * 10


async def member(database: Database, store: FaultyStore) -> async_sessionmaker[AsyncSession]:
    """Commit a member with a portrait, and return the sessions."""
    sessions = await started(database, Base.metadata, store, expire_on_commit=False)
    async with sessions() as session, session.begin():
        session.add(one := Member(id=1))
        await one.portrait.from_raw_file(b"old", None, SIZE, PNG, extra_kwargs={"tenant": "blue", "number": 7})
    return sessions


async def test_a_column_that_the_name_is_computed_from(database: Database) -> None:
    """The change is refused, because the file keeps its name."""
    store = FaultyStore()
    sessions = await member(database, store)
    async with sessions() as session:
        row = (await session.get_one(Member, 1)).portrait.require_original()
        row.tenant = "red"
        with pytest.raises(ImageAttachError):
            await session.commit()
    assert await check(database, store, Base) == {b"old"}


async def test_a_column_that_only_the_identifier_is_computed_from(database: Database) -> None:
    """Names of this store do not contain the identifier, so the change is accepted."""
    store = FaultyStore()
    sessions = await member(database, store)
    async with sessions() as session, session.begin():
        (await session.get_one(Member, 1)).portrait.require_original().number = 8
    assert await check(database, store, Base) == {b"old"}


async def test_columns_that_the_name_is_computed_from_stay_readable(database: Database) -> None:
    """Such images can be replaced and deleted like any other."""
    store = FaultyStore()
    sessions = await member(database, store)
    async with sessions() as session, session.begin():
        one = await session.get_one(Member, 1)
        await one.portrait.from_raw_file(b"new", None, SIZE, PNG, extra_kwargs={"tenant": "red", "number": 8})
    assert await check(database, store, Base) == {b"new"}
    async with sessions() as session, session.begin():
        await session.delete(await session.get_one(Member, 1))
    assert await check(database, store, Base) == set()


# --- values ----------------------------------------------------------------------------------------------------------


async def test_a_handle_that_was_replaced_meanwhile_is_assigned_again(value_rig: Rig) -> None:
    """A handle whose file was deleted is refused, unless its bytes are still in memory."""
    rig = value_rig
    assert isinstance(rig, StoredRig)
    await rig.user()
    async with rig.sessions() as session:
        handle = (await get(session)).body
    async with rig.sessions() as session, session.begin():
        await rig.replace(await get(session), b"new")
    with pytest.raises(ImageAttachError):
        async with rig.sessions() as session, session.begin():
            (await get(session)).body = handle
    await rig.check(b"new")
