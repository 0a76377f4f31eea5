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
        url: The complete URL for ``create_async_engine``, which is valid in other processes, too.
    """

    name: str
    driver: str
    url: URL
    _engines: list[AsyncEngine] = field(default_factory=list)
    _reader: AsyncEngine | None = None

    def engine(self, **options: Any) -> AsyncEngine:
        """Return a new engine, disposed at the end of the test, with the given options."""
        engine = create_async_engine(self.url, **options)
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
        """Create the tables."""
        async with self.reader.begin() as connection:
            await connection.run_sync(metadata.create_all)

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


class Server(Protocol):
    """A database server on which this run of the suite has one database."""

    def empty(self) -> URL:
        """Empty the database, and return its URL."""

    def another(self) -> URL:
        """Return the URL of a new database, which exists until the next call of ``empty``."""

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

    def __init__(self) -> None:
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

    def empty(self) -> URL:
        self._drop_others()
        self.inside.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        self.inside.execute("DROP SCHEMA public CASCADE")
        self.inside.execute("CREATE SCHEMA public")
        return self.address.set(database=self.name)

    def another(self) -> URL:
        self.others.append(own_name())
        self._create(self.others[-1])
        return self.address.set(database=self.others[-1])

    def _drop_others(self) -> None:
        while self.others:
            self.admin.execute(f"DROP DATABASE IF EXISTS {self.others.pop()} WITH (FORCE)".encode())

    def kill(self, backend: int) -> None:
        self.admin.execute("SELECT pg_terminate_backend(%s)", [backend])

    def close(self) -> None:
        self._drop_others()
        self.inside.close()
        self.admin.execute(f"DROP DATABASE IF EXISTS {self.name} WITH (FORCE)".encode())
        self.admin.close()


class MariaDB:
    """A server with one database that is recreated between tests, and with others for single tests."""

    def __init__(self) -> None:
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

    def _drop(self) -> None:
        for name in (self.name, *self.others):
            for (thread,) in self._rows(f"SELECT id FROM information_schema.processlist WHERE db = '{name}'"):
                with suppress(pymysql.Error):  # it may have been dropped in the meantime
                    self._rows(f"KILL {thread}")
            self._rows(f"DROP DATABASE IF EXISTS {name}")
        self.others.clear()

    def _create(self, name: str) -> URL:
        self._rows(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
        return self.address.set(database=name)

    def empty(self) -> URL:
        self._drop()
        return self._create(self.name)

    def another(self) -> URL:
        self.others.append(own_name())
        return self._create(self.others[-1])

    def kill(self, backend: int) -> None:
        self._rows(f"KILL {backend}")

    def close(self) -> None:
        self._drop()
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
            url = URL.create(dialect, database=str(folder / f"{secrets.token_hex(4)}.sqlite"))
        else:
            server = self._server(name)
            url = (server.another() if another else server.empty()).set(drivername=dialect)
        return Database(name, driver, url)

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
