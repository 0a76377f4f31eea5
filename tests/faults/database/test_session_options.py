"""Sessions with several engines: the library's statements use the database to which the rows are written."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Delete, Engine, Insert, Update, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session

from aioimageattach.context import bind_store
from tests.databases import Database, Servers, transactional
from tests.faults.conftest import rig_of
from tests.faults.database.conftest import KINDS, bound_rig
from tests.faults.models import Base, Post, User
from tests.faults.rig import Rig, get, swept

CHANGES = ("replace", "remove", "delete the owner")


async def change(rig: Rig, session: AsyncSession, what: str) -> set[bytes]:
    """Change the file of user 1, and return the contents after the commit."""
    user = await get(session)
    if what == "replace":
        await rig.replace(user, b"new", (8, 8))
        return {b"new"}
    await (rig.remove(user) if what == "remove" else session.delete(user))
    return set()


def routed(primary: AsyncEngine, reads: AsyncEngine | Engine) -> type[Session]:
    """Return a session class that reads from another engine, as in SQLAlchemy's recipe for replicas."""
    reading = reads.sync_engine if isinstance(reads, AsyncEngine) else reads

    class Routed(Session):
        """A session that writes to the primary."""

        def get_bind(self, mapper: Any = None, *, clause: Any = None, **more: Any) -> Any:
            if self._flushing or isinstance(clause, (Insert, Update, Delete)):
                return primary.sync_engine
            return reading

    return Routed


def use(rig: Rig, cls: type[Session]) -> None:
    """Make the rig use a session class."""
    rig.sessions = async_sessionmaker(sync_session_class=cls, expire_on_commit=False)
    bind_store(rig.sessions, rig.store)


@pytest.mark.parametrize("what", CHANGES)
async def test_reads_by_an_engine_that_commits_each_statement(rig: Rig, what: str) -> None:
    """Unreferenced files are deleted, and a rollback keeps the old one, because all statements use one transaction."""
    await rig.user()
    use(rig, routed(rig.engine, rig.engine.execution_options(isolation_level="AUTOCOMMIT")))
    async with rig.sessions() as session:
        await change(rig, session, what)
        await session.flush()
        await session.rollback()
    await rig.check(b"old")
    async with rig.sessions() as session:
        expected = await change(rig, session, what)
        await session.commit()
    await rig.check(*expected)


READ_ONLY: dict[str, dict[str, Any]] = {
    "asyncpg": {"connect_args": {"server_settings": {"default_transaction_read_only": "on"}}},
    "psycopg": {"connect_args": {"options": "-c default_transaction_read_only=on"}},
    "asyncmy": {"connect_args": {"init_command": "SET SESSION TRANSACTION READ ONLY"}},
}


@pytest.mark.parametrize("rig", [f"{driver} {kind}" for driver in READ_ONLY for kind in KINDS], indirect=True)
@pytest.mark.parametrize("what", [*CHANGES, "generate_thumbnail"])
async def test_reads_by_a_replica(rig: Rig, what: str) -> None:
    """Rows are locked on the primary, because the replica refuses locks."""
    await rig.user()
    replica = rig.database.engine(**READ_ONLY[rig.database.driver])
    use(rig, routed(rig.engine, replica))
    async with rig.sessions() as session:
        if what == "generate_thumbnail":
            await rig.attach((await get(session)).picture, b"small", (3, 2), original=False)
            expected = {b"old", b"small"}
        else:
            expected = await change(rig, session, what)
        await session.commit()
    await rig.check(*expected)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_replica_that_lags(servers: Servers, tmp_path: Path, kind: str) -> None:
    """The replica has rows that the primary has deleted, and lacks others: the primary is queried."""
    rig = await bound_rig(servers, tmp_path, "aiosqlite", KINDS[kind])
    await rig.user(1)
    await rig.user(2, None)
    assert rig.database.url.database is not None
    shutil.copy(rig.database.url.database, tmp_path / "replica.sqlite")
    replica = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'replica.sqlite'}")
    transactional(replica)
    use(rig, routed(rig.engine, replica))
    async with rig.sessions() as session:
        await rig.replace(await get(session, 1), b"new", (8, 8))
        await rig.replace(await get(session, 2), b"two")
        await session.commit()
    await rig.check(b"new", b"two")
    async with rig.sessions() as session:
        user = await get(session, 1)
        await rig.replace(user, b"newer", (9, 9))
        await session.commit()
    await rig.check(b"newer", b"two", orphans=True)
    await swept(rig.database, rig.store)
    await rig.check(b"newer", b"two")
    await replica.dispose()
    await rig.database.aclose()


class ByMapper(Session):
    """A session that routes by mapper only; statements on tables have no engine."""

    engines: dict[type[Any], Any]

    def get_bind(self, mapper: Any = None, *, clause: Any = None, **more: Any) -> Any:
        if mapper is None:
            raise LookupError(f"no mapper, no engine: {clause}")
        return self.engines[Post if mapper.class_.__name__.startswith(("Post", "Leaf")) else User]


@pytest.mark.parametrize("what", CHANGES)
@pytest.mark.parametrize("kind", KINDS)
async def test_an_engine_by_mapper(servers: Servers, tmp_path: Path, kind: str, what: str) -> None:
    """Users and posts are in two databases, each with its own tables only."""
    rig = await bound_rig(servers, tmp_path, "aiosqlite", KINDS[kind])
    other: Database = servers.database("aiosqlite", tmp_path)
    posts = [table for table in Base.metadata.sorted_tables if table.name in ("post", "post_photo", "leaf")]
    async with rig.database.reader.begin() as connection:
        await connection.run_sync(lambda sync: Base.metadata.drop_all(sync, tables=posts))
    async with other.reader.begin() as connection:
        await connection.run_sync(lambda sync: Base.metadata.create_all(sync, tables=posts))
    engines = {User: rig.engine.sync_engine, Post: other.engine().sync_engine}
    use(rig, type("ByUser", (ByMapper,), {"engines": engines}))
    await rig.user()
    async with rig.sessions() as session, session.begin():
        session.add(post := Post(id=1))
        for place in (1, 2):
            await rig.attach(post.photos.get_image_set(place=place), b"%d" % place)
    async with rig.sessions() as session:
        expected = await change(rig, session, what)
        await session.delete(await session.get_one(Post, 1))
        await session.commit()
    async with rig.sessions() as session:
        found = [await rig.read(user) for user in await session.scalars(select(User))]
        assert {content for content in found if content is not None} == expected
        assert not list(await session.scalars(select(Post)))
    assert len(await rig.store.names()) == len(expected)
    await other.aclose()
    await rig.database.aclose()


@pytest.mark.parametrize("kind", KINDS)
async def test_binds_by_class(servers: Servers, tmp_path: Path, kind: str) -> None:
    """``binds=`` contains only the base; other statements have no engine."""
    rig = await bound_rig(servers, tmp_path, "aiosqlite", KINDS[kind])
    rig.sessions = async_sessionmaker(binds={Base: rig.engine}, expire_on_commit=False)
    bind_store(rig.sessions, rig.store)
    await rig.user(thumbnail=b"small")
    async with rig.sessions() as session, session.begin():
        await rig.replace(await get(session), b"new", (8, 8))
    async with rig.sessions() as session, session.begin():
        await session.delete(await get(session))
    await rig.check()
    await rig.database.aclose()


async def test_a_sessionmaker_of_the_applications_own_sessions(sqlite_database: Database) -> None:
    """The library does not construct sessions whose constructor the application has changed."""
    rig = await rig_of(sqlite_database)

    class Strict(Session):
        """A session class that requires a tenant."""

        def __init__(self, *args: Any, tenant: str, **more: Any) -> None:
            super().__init__(*args, **more)
            self.tenant = tenant

    rig.sessions = async_sessionmaker(rig.engine, sync_session_class=Strict, tenant="blue", expire_on_commit=False)
    bind_store(rig.sessions, rig.store)
    await rig.user()
    async with rig.sessions() as session, session.begin():
        await rig.attach((await get(session)).picture, b"new")
    await rig.check(b"new")
