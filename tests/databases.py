"""Real databases for the tests: each test gets an empty one, and each run of the suite has its own."""

from __future__ import annotations

import os
import platform
import re
import secrets
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

import psycopg
import pymysql
import pytest
from sqlalchemy import URL, Connection, MetaData, event, make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine


@dataclass(frozen=True, slots=True)
class Driver:
    """A database driver, and the names that SQLAlchemy uses for it."""

    database: str
    dialect: str


DRIVERS = {
    "aiosqlite": Driver("sqlite", "sqlite+aiosqlite"),
    "asyncpg": Driver("postgresql", "postgresql+asyncpg"),
    "psycopg": Driver("postgresql", "postgresql+psycopg"),
    "asyncmy": Driver("mariadb", "mysql+asyncmy"),
    "aiomysql": Driver("mariadb", "mariadb+aiomysql"),  # the other name of MariaDB
}
MAIN_DRIVERS = {"sqlite": "aiosqlite", "postgresql": "asyncpg", "mariadb": "asyncmy"}
REQUIRED = os.environ.get("CI", "").lower() in ("1", "true", "yes")
# Servers that trust every user accept any password; it must never appear anywhere (tests/canary.py).
PASSWORD = "canary-password"
# Prefix of the names of databases of runs on this machine; the process id follows.
PREFIX = f"aioimageattach_{zlib.crc32(platform.node().encode()):08x}_"


@dataclass
class Database:
    """An empty database for one test.

    Attributes:
        name: ``sqlite``, ``postgresql`` or ``mariadb``.
        driver: The name of the driver's module.
    """

    name: str
    driver: str
    _url: URL | None
    _server: Server | None = None
    _engines: list[AsyncEngine] = field(default_factory=list)
    _reader: AsyncEngine | None = None

    @property
    def url(self) -> URL:
        """The complete URL for ``create_async_engine``, which is valid in other processes, too."""
        if self._url is None:
            assert self._server is not None
            self._server.empty()
            self._url = self._address(self._server)
        return self._url

    def _address(self, server: Server) -> URL:
        return server.url.set(drivername=DRIVERS[self.driver].dialect)

    def engine(self, *, url: URL | None = None, **options: Any) -> AsyncEngine:
        """Return a new engine, disposed at the end of the test, with the given options.

        ``url`` replaces the URL, for example with that of a proxy.
        """
        engine = create_async_engine(url or self.url, **options)
        if self.name == "sqlite":
            transactional(engine, autocommit=options.get("isolation_level") == "AUTOCOMMIT")
        self._engines.append(engine)
        return engine

    @property
    def reader(self) -> AsyncEngine:
        """A separate engine for queries that do not use the tested sessions; the same one on each access."""
        if self._reader is None:
            self._reader = self.engine()
        return self._reader

    async def create(self, metadata: MetaData) -> None:
        """Create the tables, or delete the rows of the last test's tables if they are the same."""
        server = self._server if self._url is None else None
        if server is not None and server.kept.are(metadata, server):
            server.clear()
            self._url = self._address(server)
            return
        async with self.reader.begin() as connection:
            await connection.run_sync(metadata.create_all)
        if server is not None:
            server.kept = Kept.of(metadata, server)

    async def aclose(self) -> None:
        """Close the connections of all engines."""
        for engine in self._engines:
            await engine.dispose()


def transactional(engine: AsyncEngine, *, autocommit: bool = False) -> None:
    """Make transactions and savepoints of SQLite work as SQLAlchemy documents, and enforce foreign keys.

    Otherwise the driver begins a transaction only before it writes, so that a savepoint could commit by itself.
    """

    @event.listens_for(engine.sync_engine, "connect")
    def connect(connection: Any, _record: object) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Connection) -> None:
        if connection.get_execution_options().get("isolation_level", "") != "AUTOCOMMIT" and not autocommit:
            connection.exec_driver_sql("BEGIN")


@dataclass(frozen=True, slots=True)
class Kept:
    """The tables that a database still has from the last test, because creating them takes longer than most tests."""

    tables: tuple[tuple[MetaData, str, tuple[str, ...]], ...] = ()
    schema: object = None

    @classmethod
    def of(cls, metadata: MetaData, server: Server) -> Kept:
        """Note the tables of the metadata, which have just been created in an empty database."""
        if any(table.schema for table in metadata.tables.values()):
            return cls()
        return cls(cls._tables_of(metadata), server.schema())

    def are(self, metadata: MetaData, server: Server) -> bool:
        """Return whether the database has exactly the tables of the metadata, as they were created."""
        return bool(self.tables) and self.tables == self._tables_of(metadata) and self.schema == server.schema()

    @staticmethod
    def _tables_of(metadata: MetaData) -> tuple[tuple[MetaData, str, tuple[str, ...]], ...]:
        return tuple((metadata, name, tuple(table.columns.keys())) for name, table in metadata.tables.items())


class Server(Protocol):
    """A database server on which this run of the suite has one database."""

    kept: Kept

    @property
    def url(self) -> URL:
        """URL of the database."""

    def empty(self) -> None:
        """Drop everything in the database."""

    def schema(self) -> object:
        """Return a value that is different after any change of tables, triggers, functions and their like."""

    def clear(self) -> None:
        """Delete the rows of the tables in ``kept``."""

    def drop_others(self) -> None:
        """Drop the databases that ``another`` has created."""

    def another(self) -> URL:
        """Return the URL of a new database, which exists until the next call of ``drop_others``."""

    def kill(self, backend: int) -> None:
        """Terminate the connection with the given id."""

    def close(self) -> None:
        """Drop the database."""


def stale(names: Iterator[str]) -> Iterator[str]:
    """Yield the databases that killed runs on this machine have left behind."""
    for name in names:
        match = re.fullmatch(PREFIX + r"(\d+)_\w+", name)
        if match and not Path(f"/proc/{match[1]}").exists() and Path("/proc/self").exists():
            yield name


def own_name() -> str:
    return f"{PREFIX}{os.getpid()}_{secrets.token_hex(3)}"


class PostgreSQL:
    """A server with one database whose schema is recreated between tests, and with others for single tests."""

    CATALOGS = """
        attrdef attribute cast class collation constraint depend enum event_trigger extension index inherits namespace
        operator policy proc publication rewrite sequence statistic_ext subscription trigger type
    """

    def __init__(self) -> None:
        self.kept = Kept()
        address = os.environ.get("TEST_POSTGRESQL_URL", f"postgresql://postgres:{PASSWORD}@127.0.0.1:5432/postgres")
        self.address = make_url(address)
        self.name = own_name()
        self.admin = self._connect(self.address.database)
        rows = self.admin.execute("SELECT datname FROM pg_database").fetchall()
        for name in stale(row[0] for row in rows):
            self.admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())
        self._create(self.name)
        self.inside = self._connect(self.name)
        self.others: list[str] = []

    def _create(self, name: str) -> None:
        self.admin.execute(f"CREATE DATABASE {name}".encode())
        self.admin.execute(f"ALTER DATABASE {name} SET synchronous_commit = off".encode())

    def _connect(self, database: str | None) -> psycopg.Connection:
        url = self.address.set(drivername="postgresql", database=database)
        return psycopg.connect(url.render_as_string(hide_password=False), autocommit=True, connect_timeout=3)

    @property
    def url(self) -> URL:
        return self.address.set(database=self.name)

    def _disconnect(self) -> None:
        self.inside.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )

    def empty(self) -> None:
        self.kept = Kept()
        self._disconnect()
        self.inside.execute("DROP SCHEMA public CASCADE")
        self.inside.execute("CREATE SCHEMA public")

    def schema(self) -> object:
        queries = (f"SELECT count(*), max(xmin::text::bigint) FROM pg_{name}" for name in self.CATALOGS.split())
        return self.inside.execute(" UNION ALL ".join(queries).encode()).fetchall()

    def clear(self) -> None:
        self._disconnect()
        deletions = "; ".join(f'DELETE FROM "{name}"' for _, name, _ in self.kept.tables)
        self.inside.execute(f"BEGIN; SET LOCAL session_replication_role = replica; {deletions}; COMMIT".encode())

    def another(self) -> URL:
        self.others.append(own_name())
        self._create(self.others[-1])
        return self.address.set(database=self.others[-1])

    def drop_others(self) -> None:
        while self.others:
            self.admin.execute(f"DROP DATABASE IF EXISTS {self.others.pop()} WITH (FORCE)".encode())

    def kill(self, backend: int) -> None:
        self.admin.execute("SELECT pg_terminate_backend(%s)", [backend])

    def close(self) -> None:
        self.drop_others()
        self.inside.close()
        self.admin.execute(f"DROP DATABASE IF EXISTS {self.name} WITH (FORCE)".encode())
        self.admin.close()


class MariaDB:
    """A server with one database that is recreated between tests, and with others for single tests."""

    def __init__(self) -> None:
        self.kept = Kept()
        self.address = make_url(os.environ.get("TEST_MARIADB_URL", "mysql://root@127.0.0.1:3306"))
        self.name = own_name()
        self.admin = pymysql.connect(
            host=self.address.host or "127.0.0.1",
            port=self.address.port or 3306,
            user=self.address.username,
            password=self.address.password or "",
            autocommit=True,
            connect_timeout=3,
        )
        self.others: list[str] = []
        for name in stale(row[0] for row in self._rows("SHOW DATABASES")):
            self._rows(f"DROP DATABASE IF EXISTS {name}")

    def _rows(self, statement: str) -> tuple[tuple[Any, ...], ...]:
        with closing(self.admin.cursor()) as cursor:
            cursor.execute(statement)
            return tuple(cursor.fetchall())

    def _disconnect(self, name: str) -> None:
        for (thread,) in self._rows(f"SELECT id FROM information_schema.processlist WHERE db = '{name}'"):
            with suppress(pymysql.Error):  # it may have been dropped in the meantime
                self._rows(f"KILL {thread}")

    def _drop(self, name: str) -> None:
        self._disconnect(name)
        self._rows(f"DROP DATABASE IF EXISTS {name}")

    def _create(self, name: str) -> None:
        self._rows(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")

    @property
    def url(self) -> URL:
        return self.address.set(database=self.name)

    def empty(self) -> None:
        self.kept = Kept()
        self._drop(self.name)
        self._create(self.name)

    def schema(self) -> object:
        tables = [row[0] for row in self._rows(f"SHOW TABLES IN {self.name}")]
        texts = [self._rows(f"SHOW CREATE TABLE {self.name}.`{table}`")[0][1] for table in tables]
        routines = self._rows(f"SELECT * FROM information_schema.routines WHERE routine_schema = '{self.name}'")
        triggers = self._rows(f"SHOW TRIGGERS IN {self.name}")
        return [re.sub(r" AUTO_INCREMENT=\d+", "", text) for text in texts], routines, triggers

    def clear(self) -> None:
        self._disconnect(self.name)
        self._rows("SET foreign_key_checks = OFF")
        for _, table, _ in self.kept.tables:
            self._rows(f"DELETE FROM {self.name}.`{table}`")
        self._rows("SET foreign_key_checks = ON")

    def another(self) -> URL:
        self.others.append(own_name())
        self._create(self.others[-1])
        return self.address.set(database=self.others[-1])

    def drop_others(self) -> None:
        while self.others:
            self._drop(self.others.pop())

    def kill(self, backend: int) -> None:
        self._rows(f"KILL {backend}")

    def close(self) -> None:
        self.drop_others()
        self._drop(self.name)
        self.admin.close()


class Servers:
    """The servers of one run of the suite. Each is connected when a test first uses it."""

    KINDS: ClassVar[dict[str, Callable[[], Server]]] = {"postgresql": PostgreSQL, "mariadb": MariaDB}

    def __init__(self) -> None:
        self._servers: dict[str, Server] = {}
        self._missing: dict[str, str] = {}

    def database(self, driver: str, folder: Path, *, another: bool = False) -> Database:
        """Return an empty database for the driver; skip the test if no server is reachable.

        With ``another``, the databases that the test already has are kept.
        """
        name, dialect = DRIVERS[driver].database, DRIVERS[driver].dialect
        if name == "sqlite":
            return Database(name, driver, URL.create(dialect, database=str(folder / f"{secrets.token_hex(4)}.sqlite")))
        server = self._server(name)
        if another:
            return Database(name, driver, server.another().set(drivername=dialect))
        server.drop_others()
        return Database(name, driver, None, server)

    def kill(self, name: str, backend: int) -> None:
        """Terminate a connection to the database with that name."""
        self._server(name).kill(backend)

    def _server(self, name: str) -> Server:
        if name not in self._servers and name not in self._missing:
            try:
                self._servers[name] = self.KINDS[name]()
            except (psycopg.OperationalError, pymysql.OperationalError) as error:
                self._missing[name] = f"{name} cannot be reached (TEST_{name.upper()}_URL names it): {error}"
        if name in self._missing:
            if REQUIRED:
                pytest.fail(self._missing[name])
            pytest.skip(self._missing[name])
        return self._servers[name]

    def close(self) -> None:
        """Drop the databases of this run."""
        for server in self._servers.values():
            server.close()
