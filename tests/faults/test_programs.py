"""Whatever a session does in whatever order: after each transaction, rows and files are what a naive model says."""

from __future__ import annotations

import copy
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from aioimageattach.context import bind_store
from aioimageattach.exc import StoreUnavailableError
from tests.databases import Database, Servers
from tests.faults.conftest import rig_of
from tests.faults.models import User
from tests.faults.rig import PNG, Rig
from tests.faults.stores import fails

SIZES = [(30, 20), (9, 9), (8, 8)]
Pictures = dict[int, dict[str, bytes]]
"""By user: the original and the thumbnails, by their sizes' names."""


class Program:
    """Does at random what sessions do, and to a copy of the data what the words mean.

    Attributes:
        committed: What the database must hold.
        views: What the transaction and its savepoints see; the last is the present one.
    """

    def __init__(self, rig: Rig, seed: int) -> None:
        self.rig = rig
        self.random = Random(seed)
        self.committed: Pictures = {}
        self.views: list[Pictures] = [{}]
        self.savepoints: list[Any] = []
        self.count = 0
        self.log: list[str] = []

    @property
    def view(self) -> Pictures:
        return self.views[-1]

    def content(self) -> bytes:
        self.count += 1
        return b"content %d" % self.count

    async def user(self, session: AsyncSession) -> User:
        number = self.random.randint(1, 3)
        user = await session.get(User, number)
        if user is None:
            session.add(user := User(id=number))
            await session.flush()
            self.view.setdefault(number, {})
        return user

    async def attach(self, session: AsyncSession) -> None:
        user, content = await self.user(session), self.content()
        await user.picture.from_raw_file(content, None, self.random.choice(SIZES), PNG)
        self.view[user.id] = {"original": content}

    async def add_thumbnail(self, session: AsyncSession) -> None:
        user, content = await self.user(session), self.content()
        size = self.random.choice([(3, 2), (2, 1)])
        await user.picture.load()
        if user.picture:
            await user.picture.from_raw_file(content, None, size, PNG, original=False)
            self.view[user.id][str(size)] = content

    async def delete_picture(self, session: AsyncSession) -> None:
        user = await self.user(session)
        await user.picture.delete()
        self.view[user.id] = {}

    async def delete_original(self, session: AsyncSession) -> None:
        user = await self.user(session)
        await user.picture.load()
        if user.picture:
            await session.flush()
            await session.delete(user.picture.require_original())
            await session.flush()
            self.view[user.id] = {}
            await user.picture.load()

    async def delete_user(self, session: AsyncSession) -> None:
        user = await self.user(session)
        await session.flush()
        await session.delete(user)
        await session.flush()
        del self.view[user.id]

    async def flush(self, session: AsyncSession) -> None:
        await session.flush()

    async def flush_and_fail(self, session: AsyncSession) -> None:
        if any(isinstance(row, User) is False for row in session.new):
            self.rig.store.at("put", fails, 1, after=self.random.random() < 0.5)
            with pytest.raises(StoreUnavailableError):
                await session.flush()
            self.rig.store.heal()

    async def begin_savepoint(self, session: AsyncSession) -> None:
        if len(self.savepoints) < 3:
            self.savepoints.append(await session.begin_nested())
            self.views.append(copy.deepcopy(self.view))

    async def release(self, session: AsyncSession) -> None:
        if self.savepoints:
            await self.savepoints.pop().commit()
            self.views[-2:] = [self.view]

    async def roll_back_to_savepoint(self, session: AsyncSession) -> None:
        if self.savepoints:
            await self.savepoints.pop().rollback()
            self.views.pop()

    async def commit(self, session: AsyncSession) -> None:
        await session.commit()
        self.ended(copy.deepcopy(self.view))

    async def roll_back(self, session: AsyncSession) -> None:
        await session.rollback()
        self.ended(self.committed)

    async def close(self, session: AsyncSession) -> None:
        await session.close()
        self.ended(self.committed)

    def ended(self, committed: Pictures) -> None:
        self.committed = committed
        self.savepoints.clear()
        self.views = [copy.deepcopy(committed)]

    async def run(self, steps: int) -> None:
        """Do a number of steps, each at random, and compare whenever a transaction has ended."""
        within: list[Callable[[AsyncSession], Any]] = [
            *[self.attach] * 4,
            *[self.add_thumbnail] * 3,
            self.delete_picture,
            self.delete_original,
            self.delete_user,
            self.flush,
            self.flush_and_fail,
            *[self.begin_savepoint] * 2,
            self.release,
            self.roll_back_to_savepoint,
        ]
        ends = [self.commit, self.commit, self.roll_back, self.close]
        async with self.rig.sessions() as session:
            bind_store(session, self.rig.store)
            for number in range(steps):
                step = self.random.choice(ends if number % 8 == 7 else within)
                self.log.append(step.__name__)
                await step(session)
                if step in ends:
                    await self.rig.check(*(blob for pictures in self.committed.values() for blob in pictures.values()))


@pytest.mark.parametrize("seed", range(24))
async def test_a_program(sqlite_rig: Rig, seed: int) -> None:
    """Eight transactions of eight steps each."""
    program = Program(sqlite_rig, seed)
    try:
        await program.run(64)
    except BaseException as error:
        error.add_note(f"after {', '.join(program.log)}")
        raise


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg", "asyncmy", "aiomysql"])
async def test_a_program_on_a_server(servers: Servers, tmp_path: Any, driver: str) -> None:
    """The same on the others, once each."""
    database: Database = servers.database(driver, tmp_path)
    try:
        await Program(await rig_of(database), 1000).run(64)
    finally:
        await database.aclose()
