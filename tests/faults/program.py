"""Random operations of a session, and a simple model of their effect."""

from __future__ import annotations

import copy
import gc
from random import Random
from typing import Any

import pytest
from sqlalchemy import delete
from sqlalchemy.ext.asyncio import AsyncSession

from aioimageattach.context import bind_store
from aioimageattach.exc import StoreUnavailableError
from tests.faults.models import User, UserPicture
from tests.faults.rig import PNG, Rig, named, swept
from tests.faults.stores import fails

SIZES = [(30, 20), (9, 9), (8, 8)]
Pictures = dict[int, dict[str, bytes]]
"""The original and the thumbnails of each user, by the names of their sizes."""


class Program:
    """Applies operations to a session and to a model of the data. The user and the size are random.

    Args:
        rig: A database and a store, both empty.
        random: The random number generator.

    Attributes:
        session: The current session.
        committed: The expected contents of the database.
        views: The contents that the transaction and its savepoints see; the last one is current.
        leaks: ``True`` if orphaned files may exist.
        log: The operations.
    """

    def __init__(self, rig: Rig, random: Random) -> None:
        self.rig = rig
        self.random = random
        self.committed: Pictures = {}
        self.views: list[Pictures] = [{}]
        self.savepoints: list[Any] = []
        self.count = 0
        self.leaks = False
        self.log: list[str] = []
        self._open()

    def _open(self) -> None:
        self.session: AsyncSession = self.rig.sessions()
        bind_store(self.session, self.rig.store)

    @property
    def view(self) -> Pictures:
        return self.views[-1]

    async def do(self, name: str) -> None:
        """Apply one of the operations below, and compare if a transaction has ended."""
        self.log.append(name)
        try:
            await getattr(self, name)()
            if name in ENDS:
                await self.compare()
        except BaseException as error:
            error.add_note(f"after {', '.join(self.log)}")
            raise

    async def compare(self) -> None:
        """Assert that the files of rows equal those of the model, and that no other files exist unless allowed."""
        names, contents = await named(self.rig.database, self.rig.store)
        expected = {blob for pictures in self.committed.values() for blob in pictures.values()}
        assert contents == expected
        assert len(names) == sum(len(pictures) for pictures in self.committed.values())
        assert self.leaks or names == await self.rig.store.names()

    # --- within a transaction ----------------------------------------------------------------------------------------

    def content(self) -> bytes:
        self.count += 1
        return b"content %d" % self.count

    async def user(self) -> User:
        number = self.random.randint(1, 3)
        user = await self.session.get(User, number)
        if user is None:
            self.session.add(user := User(id=number))
            await self.session.flush()
            self.view.setdefault(number, {})
        return user

    async def attach(self) -> None:
        user, content = await self.user(), self.content()
        await user.picture.from_raw_file(content, None, self.random.choice(SIZES), PNG)
        self.view[user.id] = {"original": content}

    async def add_thumbnail(self) -> None:
        user, content = await self.user(), self.content()
        size = self.random.choice([(3, 2), (2, 1)])
        await user.picture.load()
        if user.picture:
            await user.picture.from_raw_file(content, None, size, PNG, original=False)
            self.view[user.id][str(size)] = content

    async def delete_picture(self) -> None:
        user = await self.user()
        await user.picture.delete()
        self.view[user.id] = {}

    async def delete_original(self) -> None:
        user = await self.user()
        await user.picture.load()
        if user.picture:
            await self.session.flush()
            await self.session.delete(user.picture.require_original())
            await self.session.flush()
            self.view[user.id] = {}
            await user.picture.load()

    async def delete_user(self) -> None:
        user = await self.user()
        await self.session.flush()
        await self.session.delete(user)
        await self.session.flush()
        del self.view[user.id]

    async def delete_rows_in_bulk(self) -> None:
        """Delete in bulk: files of loaded rows are deleted, others are orphaned."""
        user = await self.user()
        await self.session.flush()
        if self.random.random() < 0.5:
            self.session.expunge_all()
            self.leaks = True
        await self.session.execute(delete(UserPicture).where(UserPicture.user_id == user.id))
        self.view[user.id] = {}

    async def delete_rows_by_core(self) -> None:
        """Delete with Core, without events."""
        user = await self.user()
        await self.session.flush()
        table = UserPicture.__table__
        await self.session.execute(delete(table).where(table.c.user_id == user.id))  # type: ignore[arg-type]
        self.view[user.id] = {}
        self.leaks = True
        self.session.expunge_all()

    async def merge_a_new_user(self) -> None:
        """Merge a new user with an image, which copies the bytes into the session."""
        number, content = self.random.randint(4, 5), self.content()
        if number not in self.view:
            user = User(id=number)
            await user.picture.from_raw_file(content, self.rig.store, SIZES[0], PNG)
            await self.session.merge(user)
            self.view[number] = {"original": content}

    async def merge_the_same(self) -> None:
        """Merge an unchanged user that another session has loaded."""
        if not self.session.in_transaction() and self.committed:
            async with self.rig.sessions() as other:
                user = await other.get_one(User, self.random.choice(sorted(self.committed)))
            await self.session.merge(user)

    async def flush(self) -> None:
        await self.session.flush()

    async def flush_and_fail(self) -> None:
        if any(isinstance(row, UserPicture) for row in self.session.new):
            self.rig.store.at("put", fails, 1, after=self.random.random() < 0.5)
            with pytest.raises(StoreUnavailableError):
                await self.session.flush()
            self.rig.store.heal()

    async def begin_savepoint(self) -> None:
        if len(self.savepoints) < 3:
            self.savepoints.append(await self.session.begin_nested())
            self.views.append(copy.deepcopy(self.view))

    async def release(self) -> None:
        if self.savepoints:
            await self.savepoints.pop().commit()
            self.views[-2:] = [self.view]

    async def roll_back_to_savepoint(self) -> None:
        if self.savepoints:
            await self.savepoints.pop().rollback()
            self.views.pop()

    # --- the end of one ----------------------------------------------------------------------------------------------

    async def commit(self) -> None:
        await self.session.commit()
        self._ended(copy.deepcopy(self.view))

    async def roll_back(self) -> None:
        await self.session.rollback()
        self._ended(self.committed)

    async def close(self) -> None:
        await self.session.close()
        self._ended(self.committed)

    async def crash(self) -> None:
        """Break the connection, and discard the session with its state."""
        if self.session.in_transaction():
            self.leaks |= bool(await self.rig.store.names())
            await (await self.session.connection()).invalidate()
        self.savepoints.clear()
        self._open()
        gc.collect()
        self._ended(self.committed)

    async def sweep(self) -> None:
        """Sweep between two transactions, because it uses no grace time."""
        await self.commit()
        await swept(self.rig.database, self.rig.store)
        self.leaks = False

    def _ended(self, committed: Pictures) -> None:
        self.committed = committed
        self.savepoints.clear()
        self.views = [copy.deepcopy(committed)]


WITHIN = {
    "attach": 4,
    "add_thumbnail": 3,
    "delete_picture": 1,
    "delete_original": 1,
    "delete_user": 1,
    "delete_rows_in_bulk": 1,
    "delete_rows_by_core": 1,
    "merge_a_new_user": 1,
    "merge_the_same": 1,
    "flush": 1,
    "flush_and_fail": 1,
    "begin_savepoint": 2,
    "release": 1,
    "roll_back_to_savepoint": 1,
}
"""The operations within a transaction, and their frequencies."""

ENDS = {"commit": 3, "roll_back": 1, "close": 1, "crash": 1, "sweep": 1}
"""The operations that end a transaction."""
