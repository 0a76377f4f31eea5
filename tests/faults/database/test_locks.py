"""Locks of concurrent transactions are acquired in one order, and not held while code of the application runs."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.util import await_only

from aioimageattach.context import bind_store
from tests import photos
from tests.databases import Servers
from tests.faults.conftest import rig_of
from tests.faults.models import User
from tests.faults.rig import PNG, GivenUp, Rig, check, get

PHOTO = photos.saved(photos.opened("coffee", (60, 40)), "JPEG")
SIZES = [(30, 20), (8, 8), (9, 9), (10, 10)]


@pytest.fixture(params=["asyncpg", "psycopg", "asyncmy"])
async def busy_rig(request: pytest.FixtureRequest, servers: Servers, tmp_path: Path) -> AsyncIterator[Rig]:
    """The databases that allow several concurrent writers, with enough connections for them."""
    rig = await rig_of(servers.database(request.param, tmp_path))
    options = {"isolation_level": "READ COMMITTED"} if rig.database.name == "mariadb" else {}
    rig.engine = rig.database.engine(pool_size=12, **options)
    rig.sessions = async_sessionmaker(rig.engine, expire_on_commit=False)
    bind_store(rig.sessions, rig.store)
    yield rig
    await rig.database.aclose()


async def take_turns(rig: Rig, *works: Callable[[AsyncSession], Awaitable[object]]) -> None:
    """Run each piece of work in a separate transaction, concurrently; none of them fails."""

    async def run(work: Callable[[AsyncSession], Awaitable[object]]) -> None:
        async with rig.sessions() as session, session.begin():
            await work(session)

    await asyncio.gather(*(run(work) for work in works))


@pytest.mark.parametrize("seed", range(3))
async def test_one_picture_is_replaced_by_many(busy_rig: Rig, seed: int) -> None:
    """Concurrent replacements by images of several sizes are serialised, even with a slow store, and none fails."""
    rig = busy_rig
    chance = random.Random(seed)
    await rig.user()

    async def slowly(name: str) -> None:
        await asyncio.sleep(chance.random() / 100)

    rig.store.at("put", slowly)

    def replacing(number: int) -> Callable[[AsyncSession], Awaitable[object]]:
        async def work(session: AsyncSession) -> None:
            await asyncio.sleep(chance.random() / 100)
            await rig.attach((await get(session)).picture, b"new %d" % number, SIZES[number % len(SIZES)])

        return work

    for round_ in range(4):
        await take_turns(rig, *(replacing(10 * round_ + number) for number in range(10)))
    assert len(await check(rig.database, rig.store)) == 1


async def test_replaced_deleted_and_given_thumbnails(busy_rig: Rig) -> None:
    """Concurrent changes of all kinds of one owner's image and value succeed, as in requests."""
    rig = busy_rig
    chance = random.Random(5)
    await rig.user()

    async def replace(session: AsyncSession) -> None:
        await rig.attach((await get(session)).picture, b"new", chance.choice(SIZES))

    async def delete(session: AsyncSession) -> None:
        await (await get(session)).picture.delete()

    async def write(session: AsyncSession) -> None:
        user = await get(session)
        user.body = b"value"  # type: ignore[assignment]
        await rig.attach(user.picture, b"newer", chance.choice(SIZES))

    for _ in range(4):
        await take_turns(rig, *(chance.choice([replace, delete, write]) for _ in range(10)))
    await check(rig.database, rig.store)


async def test_owners_are_locked_in_one_order(busy_rig: Rig) -> None:
    """Transactions that change the images of the same owners in different orders do not deadlock."""
    rig = busy_rig
    for number in range(1, 6):
        await rig.user(number, b"old %d" % number)
    chance = random.Random(7)

    def replacing(number: int) -> Callable[[AsyncSession], Awaitable[object]]:
        async def work(session: AsyncSession) -> None:
            owners = list(await session.scalars(select(User)))
            chance.shuffle(owners)
            with session.no_autoflush:
                for owner in owners:
                    await rig.attach(owner.picture, b"%d by %d" % (owner.id, number), chance.choice(SIZES))

        return work

    for _ in range(4):
        await take_turns(rig, *(replacing(number) for number in range(8)))
    assert len(await check(rig.database, rig.store)) == 5


async def test_owners_of_pictures_and_of_values_are_locked_in_one_order(busy_rig: Rig) -> None:
    """One transaction changes the first user's image and the second user's value, the other one vice versa."""
    rig = busy_rig
    for number in (1, 2):
        await rig.user(number, b"old %d" % number)
    chance = random.Random(9)

    def changing(number: int) -> Callable[[AsyncSession], Awaitable[object]]:
        async def work(session: AsyncSession) -> None:
            one, two = await get(session, 1 + number % 2), await get(session, 2 - number % 2)
            with session.no_autoflush:
                await rig.attach(one.picture, b"picture %d" % number, chance.choice(SIZES))
                two.body = b"value %d" % number  # type: ignore[assignment]

        return work

    for _ in range(4):
        await take_turns(rig, *(changing(number) for number in range(10)))
    assert len(await check(rig.database, rig.store)) == 4


async def test_owners_are_locked_with_the_other_rows_of_their_table(busy_rig: Rig) -> None:
    """One transaction changes the first user's name and the second user's image, the other one vice versa."""
    rig = busy_rig
    for number in (1, 2):
        await rig.user(number, b"old %d" % number)
    chance = random.Random(11)

    def changing(number: int) -> Callable[[AsyncSession], Awaitable[object]]:
        async def work(session: AsyncSession) -> None:
            one, two = await get(session, 1 + number % 2), await get(session, 2 - number % 2)
            with session.no_autoflush:
                await rig.attach(one.picture, b"picture %d" % number, chance.choice(SIZES))
                two.name = f"user {two.id}, changed by {number}"

        return work

    for _ in range(6):
        await take_turns(rig, *(changing(number) for number in range(10)))
    assert len(await check(rig.database, rig.store)) == 2


# --- code of the application -----------------------------------------------------------------------------------------

Hook = Callable[[Any], Awaitable[object]]


async def photographed(rig: Rig) -> None:
    """Commit two users with photographs and values."""
    bind_store(rig.sessions, rig.store)
    async with rig.sessions() as session, session.begin():
        for number in (1, 2):
            session.add(user := User(id=number))
            await user.picture.from_blob(PHOTO)
            user.body = b"value"  # type: ignore[assignment]


async def load(user: User) -> None:
    await user.picture.load()


async def read(user: User) -> None:
    assert await user.picture.make_blob() == PHOTO


async def generate(user: User) -> None:
    await user.picture.generate_thumbnail(width=12)


async def attach(user: User) -> None:
    await user.picture.from_raw_file(b"by a hook", None, (3, 2), PNG, original=False)


async def delete(user: User) -> None:
    await user.picture.delete()


async def load_a_value(user: User) -> None:
    assert user.body is not None
    assert await user.body.load() == b"value"


HOOKS: dict[str, Hook] = {hook.__name__: hook for hook in (load, read, generate, attach, delete, load_a_value)}


@pytest.mark.parametrize(
    ("hook", "event_name"),
    [
        *((hook, "before_flush") for hook in HOOKS),
        *((hook, "after_flush") for hook in ("load", "read", "load_a_value")),
    ],
)
@pytest.mark.parametrize("picture_rig", ["aiosqlite", "asyncpg"], indirect=True)
async def test_a_hook_calls_the_library(picture_rig: Rig, hook: str, event_name: str) -> None:
    """A hook may use the library while a thumbnail is made and inserted."""
    rig = picture_rig
    await photographed(rig)
    async with rig.sessions() as session, session.begin():
        one, two = await get(session, 1), await get(session, 2)
        called: list[str] = []

        def call(*_: object) -> None:
            if not called:
                called.append(hook)
                await_only(HOOKS[hook](two))

        event.listen(session.sync_session, event_name, call)
        one.name = "changed"
        async with asyncio.timeout(30):
            thumbnail = await one.picture.get_or_generate_thumbnail(width=20)
        assert thumbnail.width == 20
        assert called
    await check(rig.database, rig.store)
    async with rig.sessions() as session:
        assert {row.width for row in (await get(session, 1)).picture} == {20, 60}


@pytest.mark.parametrize("picture_rig", ["aiosqlite", "asyncpg"], indirect=True)
async def test_a_hook_wants_the_same_thumbnail(picture_rig: Rig) -> None:
    """The hook gets the same thumbnail as the call that triggered it."""
    rig = picture_rig
    await photographed(rig)
    async with rig.sessions() as session, session.begin():
        one = await get(session, 1)
        called: list[str] = []

        def call(*_: object) -> None:
            if not called:
                called.append("once")
                await_only(one.picture.generate_thumbnail(width=20))

        event.listen(session.sync_session, "before_flush", call)
        one.name = "changed"
        async with asyncio.timeout(30):
            await one.picture.get_or_generate_thumbnail(width=20)
    async with rig.sessions() as session:
        assert sorted(row.width for row in (await get(session, 1)).picture) == [20, 60]
    await check(rig.database, rig.store)


# --- savepoints ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("savepoint", "end"), [("released", "commit"), ("rolled back", "rollback"), ("left by an error", "commit")]
)
async def test_no_file_is_removed_while_locks_are_held(rig: Rig, savepoint: str, end: str) -> None:
    """Files of a savepoint, uploaded or dropped, are deleted after the transaction has ended."""
    await rig.user(1)
    await rig.user(2, b"two")
    async with rig.sessions() as session:
        one, two = await get(session, 1), await get(session, 2)
        deletes = rig.store.counts["delete"]
        await rig.replace(two, b"TWO", (9, 9))
        if savepoint == "left by an error":
            with pytest.raises(GivenUp):
                async with session.begin_nested():
                    await rig.replace(one, b"new", (8, 8))
                    await session.flush()
                    raise GivenUp
        else:
            nested = await session.begin_nested()
            await rig.replace(one, b"new", (8, 8))
            await session.flush()
            await (nested.commit() if savepoint == "released" else nested.rollback())
        await rig.remove(two)
        await session.flush()
        assert rig.store.counts["delete"] == deletes
        await getattr(session, end)()
        assert rig.store.counts["delete"] > deletes
    if end == "rollback":
        await rig.check(b"old", b"two")
    else:
        await rig.check(b"new" if savepoint == "released" else b"old")


async def test_no_connection_is_held_while_files_are_removed(rig: Rig) -> None:
    """While a slow store deletes files, no connection is held that other sessions need."""
    await rig.user()
    pool: Any = rig.engine.pool
    seen: list[int] = []

    async def look(name: str) -> None:
        seen.append(pool.checkedout())

    rig.store.at("delete", look)
    async with rig.sessions() as session, session.begin():
        await rig.replace(await get(session), b"new")
    assert seen == [0]
    await rig.check(b"new")
