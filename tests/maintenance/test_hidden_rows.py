"""Databases and sessions that may hide rows are refused by sweep, verification and migration."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import URL, event, text
from sqlalchemy import create_engine as create_sync_engine
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.sqlite.aiosqlite import SQLiteDialect_aiosqlite
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session

from aioimageattach.exc import RefusedError
from aioimageattach.maintenance import own, sweep, verify
from aioimageattach.migration import migrate
from aioimageattach.stores import MemoryStore
from tests.databases import Database
from tests.faults.cluster import cluster
from tests.maintenance.conftest import AgedStore, Place, role_on
from tests.maintenance.models import Base, UserPicture
from tests.servers.ministack import free_port

Sessions = async_sessionmaker[AsyncSession]


@pytest.fixture
def replicated() -> Iterator[tuple[URL, URL]]:
    """Start a primary, and a streaming replica that lags an hour behind."""
    with (
        tempfile.TemporaryDirectory() as one,
        tempfile.TemporaryDirectory() as other,
        cluster(Path(one), wal_level="replica", max_wal_senders=4) as primary,
        replica_of(primary, Path(other), recovery_min_apply_delay="1h") as replica,
    ):
        yield primary.set(drivername="postgresql+asyncpg"), replica.set(drivername="postgresql+asyncpg")


@contextmanager
def replica_of(primary: URL, folder: Path, **settings: object) -> Iterator[URL]:
    """Start a streaming replica of a server, and yield its URL."""
    backup, server = shutil.which("pg_basebackup"), shutil.which("postgres")
    if backup is None or server is None:
        pytest.skip("PostgreSQL's own programs are not installed")
    engine = create_sync_engine(primary.set(drivername="postgresql+psycopg"))
    Base.metadata.create_all(engine)  # so that the replica has the tables, if not their rows
    engine.dispose()
    options: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    if os.geteuid() == 0:
        options |= {"user": "postgres", "group": "postgres", "extra_groups": []}
        shutil.chown(folder, "postgres", "postgres")
    data, port = str(folder / "data"), free_port()
    address = primary.render_as_string(hide_password=False)
    arguments = ["-D", data, "-R", "-X", "stream", "-c", "fast", "-d", address]
    subprocess.run([backup, *arguments], check=True, cwd=folder, **options)
    wanted = {"port": port, "listen_addresses": "127.0.0.1", "unix_socket_directories": "", **settings}
    told = [part for name, value in wanted.items() for part in ("-c", f"{name}={value}")]
    process = subprocess.Popen([server, "-D", data, *told], cwd=folder, **options)
    try:
        wait_for(primary.set(port=port))
        yield primary.set(port=port)
    finally:
        process.terminate()
        process.wait(20)


def wait_for(url: URL) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            psycopg.connect(url.set(drivername="postgresql").render_as_string(hide_password=False)).close()
            return
        except psycopg.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


async def test_replicas_behind_a_session(replicated: tuple[URL, URL]) -> None:
    """With a session that reads from a replica, as in SQLAlchemy's manual, only the primary is queried."""
    primary, replica = map(create_async_engine, replicated)
    aged = AgedStore()

    class Routed(Session):
        def get_bind(self, mapper: Any = None, *, clause: Any = None, **more: Any) -> Any:
            if self._flushing or (clause is not None and clause.is_dml):
                return primary.sync_engine
            return replica.sync_engine

    await aged.fill(primary, 30)
    async with replica.connect() as connection:
        assert await connection.scalar(text("SELECT count(*) FROM user_picture")) == 0  # the replica is an hour behind
    sessions = async_sessionmaker(sync_session_class=Routed)
    before = aged.names
    progress = await sweep(sessions, Base, aged.store, delete=True).execute()
    assert (progress.counts["named"], progress.counts["orphans"]) == (30, 0)
    assert (await verify(sessions, Base, aged.store).execute()).counts["sound"] == 30
    assert aged.names == before
    await refuses(async_sessionmaker(replica), aged, "the database is a replica, which may lag behind")
    await primary.dispose()
    await replica.dispose()


async def test_hooks_that_hide_rows(place: Place) -> None:
    """Conditions that an application adds to each query, in any way, hide no files."""
    aged = AgedStore()
    await aged.fill(place.engine, 100)

    class Filtered(Session):
        pass

    @event.listens_for(Filtered, "do_orm_execute")
    def hide(state: Any) -> None:
        if state.is_select:
            for table in getattr(state.statement, "get_final_froms", list)():
                if "user_id" in getattr(table, "c", {}):
                    state.statement = state.statement.where(table.c.user_id % 20 != 0)

    @event.listens_for(Session, "do_orm_execute")
    def hide_all(state: Any) -> None:
        hide(state)

    try:
        sessions = async_sessionmaker(place.engine, sync_session_class=Filtered)
        progress = await sweep(sessions, Base, aged.store, delete=True).execute()
        assert (progress.counts["named"], progress.counts["orphans"]) == (100, 0)
        found = await verify(sessions, Base, aged.store).execute()
        assert (found.total, found.done, found.counts["sound"]) == (100, 100, 100)
    finally:
        event.remove(Session, "do_orm_execute", hide_all)


async def refuses(sessions: Sessions, aged: AgedStore, words: str) -> None:
    """Check that all three tools refuse a database, and that nothing is removed."""
    before = aged.names
    with pytest.raises(RefusedError, match=words):
        await sweep(sessions, Base, aged.store, delete=True, force=True).execute()
    with pytest.raises(RefusedError, match=words):
        await verify(sessions, Base, aged.store).execute()
    with pytest.raises(RefusedError, match=words):
        await migrate(sessions, Base, aged.store, MemoryStore()).execute()
    plan = verify(sessions, Base, aged.store, force=True)
    await plan.execute()
    assert any(re.search(words, str(objection)) for objection in plan.objections)
    assert {(one.object_type, one.can_be_forced) for one in plan.objections} == {("", True)}
    assert aged.names == before


VIEWS = {
    "view": (
        ["CREATE VIEW user_picture AS SELECT * FROM everything WHERE user_id % 15 <> 0"],
        "user_picture is a view, which may hide rows",
    ),
    "materialized view": (
        ["CREATE MATERIALIZED VIEW user_picture AS SELECT * FROM everything WHERE user_id % 15 <> 0"],
        "user_picture is a materialized view",
    ),
    "foreign table": (
        [
            "CREATE EXTENSION IF NOT EXISTS file_fdw",
            "CREATE SERVER files FOREIGN DATA WRAPPER file_fdw",
            "CREATE FOREIGN TABLE user_picture (user_id int, width int, height int, variant text, mimetype text, "
            "original bool, created_at timestamptz, revision text, byte_size bigint, sha256 text) SERVER files "
            "OPTIONS (filename '/dev/null')",
        ],
        "user_picture is a foreign table",
    ),
    "foreign partition": (
        [
            "CREATE EXTENSION IF NOT EXISTS file_fdw",
            "CREATE SERVER files FOREIGN DATA WRAPPER file_fdw",
            "CREATE TABLE user_picture (LIKE everything) PARTITION BY RANGE (user_id)",
            "CREATE FOREIGN TABLE elsewhere PARTITION OF user_picture FOR VALUES FROM (1000) TO (2000) SERVER files "
            "OPTIONS (filename '/dev/null')",
        ],
        "user_picture is partitioned, with 1 foreign tables among its partitions",
    ),
}


@pytest.mark.parametrize(("statements", "words"), VIEWS.values(), ids=VIEWS)
async def test_views_and_foreign_tables(postgresql: Database, statements: list[str], words: str) -> None:
    """Views and foreign tables are refused, because they may hide rows, such as soft-deleted ones."""
    aged, engine = AgedStore(), postgresql.engine()
    await aged.fill(engine, 30)
    async with engine.begin() as connection:
        await connection.execute(text("ALTER TABLE user_picture RENAME TO everything"))
        for statement in statements:
            if "file_fdw" in statement and not await connection.scalar(
                text("SELECT count(*) FROM pg_available_extensions WHERE name = 'file_fdw'")
            ):
                pytest.skip("the extension file_fdw is not installed")
            await connection.execute(text(statement))
    await refuses(async_sessionmaker(engine), aged, words)


@pytest.mark.parametrize("driver", ["asyncmy", "aiosqlite"])
async def test_views_of_other_databases(servers: Any, tmp_path: Path, driver: str) -> None:
    """Views in MariaDB and SQLite are refused, too."""
    database: Database = servers.database(driver, tmp_path)
    aged, engine = AgedStore(), database.engine()
    await aged.fill(engine, 30)
    async with engine.begin() as connection:
        await connection.execute(text("ALTER TABLE user_picture RENAME TO everything"))
        await connection.execute(text("CREATE VIEW user_picture AS SELECT * FROM everything WHERE user_id <> 7"))
    await refuses(async_sessionmaker(engine), aged, "user_picture is a view, which may hide rows")
    await database.aclose()


@pytest.mark.parametrize("driver", ["aiosqlite", "asyncpg"])
async def test_temporary_tables(servers: Any, tmp_path: Path, driver: str) -> None:
    """A temporary table that hides the table of the same name is refused."""
    database: Database = servers.database(driver, tmp_path)
    aged, engine = AgedStore(), database.engine()
    await aged.fill(engine, 12)
    await engine.dispose()
    schema = "public" if driver == "asyncpg" else "main"

    @event.listens_for(engine.sync_engine, "connect")
    def shadow(connection: Any, _record: object) -> None:
        cursor = connection.cursor()
        cursor.execute(f"CREATE TEMPORARY TABLE user_picture AS SELECT * FROM {schema}.user_picture WHERE user_id < 6")
        cursor.close()
        connection.commit()

    await refuses(async_sessionmaker(engine), aged, r"user_picture is (a )?temporary( table)?, which may hide rows")
    await database.aclose()


async def test_a_virtual_table(place: Place) -> None:
    """A virtual table is refused, because it may return any rows."""
    aged = AgedStore()
    await aged.fill(place.engine, 12)
    async with place.engine.begin() as connection:
        columns = ", ".join(column.name for column in UserPicture.__table__.columns)
        await connection.execute(text("DROP TABLE user_picture"))
        await connection.execute(text(f"CREATE VIRTUAL TABLE user_picture USING fts5({columns})"))
    await refuses(place.sessions, aged, "user_picture is a virtual table, which may hide rows")


@pytest.mark.parametrize(
    ("question", "answer", "words"),
    [
        ("@@global.read_only", "1", "the database is read-only, as replicas often are"),
        (
            "SHOW GLOBAL STATUS WHERE Variable_name IN ('Slave_running', 'Slaves_running')",
            "SELECT 'x', 'ON'",
            "a replica",
        ),
        ("coalesce(engine, '')", "'FEDERATED'", "is a table of the storage engine FEDERATED"),
    ],
)
async def test_mariadb_that_hides_rows(mariadb: Database, question: str, answer: str, words: str) -> None:
    """Settings of MariaDB that hide rows are refused. The server is shared, so the result of a query is replaced."""
    aged, engine = AgedStore(), mariadb.engine()
    await aged.fill(engine, 12)

    @event.listens_for(engine.sync_engine, "before_cursor_execute", retval=True)
    def replace(connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> tuple[str, Any]:
        return statement.replace(question, answer), parameters

    await refuses(async_sessionmaker(engine), aged, words)


class OtherDialect(SQLiteDialect_aiosqlite):
    """A dialect that this library does not know."""

    name = "other"
    supports_statement_cache = True


async def test_a_database_of_another_vendor(place: Place) -> None:
    """Another database has no checks for hidden rows, but its files have an owner."""
    registry.register("other.aiosqlite", __name__, "OtherDialect")
    aged = AgedStore()
    await aged.fill(place.engine, 12)
    engine = create_async_engine(place.database.url.set(drivername="other+aiosqlite"))
    orphan = aged.picture()
    sessions = async_sessionmaker(engine)
    [found] = [one.name async for one in sweep(sessions, Base, aged.store, delete=True)]
    assert orphan in found
    [owned] = await own(sessions, UserPicture, aged.store)
    assert owned.owner is not None
    assert owned.owner.place == f"other:None:None:{place.database.url.database}"
    assert owned.owner.description == f"other database {place.database.url.database!r}"
    await engine.dispose()


async def test_row_security_behind_a_view(postgresql: Database, tmp_path: Path) -> None:
    """A role that cannot see all rows of the table behind a view is refused."""
    aged, engine = AgedStore(), postgresql.engine()
    await aged.fill(engine, 30)
    async with engine.begin() as connection:
        for statement in (
            "ALTER TABLE user_picture RENAME TO everything",
            "ALTER TABLE everything ENABLE ROW LEVEL SECURITY",
            "CREATE POLICY some_rows ON everything USING (user_id % 15 <> 0)",
            "CREATE VIEW user_picture AS SELECT * FROM everything",
        ):
            await connection.execute(text(statement))
    async with role_on(engine) as role:
        other = postgresql.engine(connect_args={"server_settings": {"role": role}})
        await refuses(async_sessionmaker(other), aged, "user_picture is a view")


async def test_row_security_on_the_table(postgresql: Database) -> None:
    """A role that cannot see all rows of the table is refused."""
    aged, engine = AgedStore(), postgresql.engine()
    await aged.fill(engine, 30)
    async with engine.begin() as connection:
        await connection.execute(text("ALTER TABLE user_picture ENABLE ROW LEVEL SECURITY"))
        await connection.execute(text("CREATE POLICY some_rows ON user_picture USING (user_id % 15 <> 0)"))
    async with role_on(engine) as role:
        other = postgresql.engine(connect_args={"server_settings": {"role": role}})
        await refuses(async_sessionmaker(other), aged, "row-level security hides rows of user_picture")


async def test_a_read_only_connection_of_postgresql(postgresql: Database) -> None:
    """A read-only connection is refused, because it often leads to a replica."""
    aged = AgedStore()
    await aged.fill(postgresql.engine(), 30)
    engine = postgresql.engine(connect_args={"server_settings": {"default_transaction_read_only": "on"}})
    await refuses(async_sessionmaker(engine), aged, "the connection is read-only")


async def test_a_subscriber(postgresql: Database) -> None:
    """A database that receives its rows by logical replication is refused, because it may lag behind."""
    aged, engine = AgedStore(), postgresql.engine()
    await aged.fill(engine, 30)
    name = f"aioimageattach_{secrets.token_hex(4)}"
    async with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        await connection.execute(
            text(
                f"CREATE SUBSCRIPTION {name} CONNECTION 'host=127.0.0.1 dbname=nowhere' PUBLICATION one "
                "WITH (connect=false, slot_name=NONE)"
            )
        )
    try:
        await refuses(async_sessionmaker(engine), aged, "the database subscribes to another database")
    finally:
        async with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
            await connection.execute(text(f"DROP SUBSCRIPTION {name}"))


async def test_a_read_only_file(place: Place) -> None:
    """An SQLite database that is opened read-only is refused, because it may be a copy."""
    aged = AgedStore()
    await aged.fill(place.engine, 30)
    engine = create_async_engine(f"sqlite+aiosqlite:///file:{place.database.url.database}?mode=ro&uri=true")
    await refuses(async_sessionmaker(engine), aged, "the connection is read-only")
    await engine.dispose()
