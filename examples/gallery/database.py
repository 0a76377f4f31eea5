"""The database: SQLite for an application with concurrent requests, or PostgreSQL."""

from __future__ import annotations

from contextvars import ContextVar
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, event
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

from .models import Base

_statements: ContextVar[list[str] | None] = ContextVar("statements", default=None)


def collect_statements() -> list[str]:
    """Return a list to which each further statement of this task is added, for the footer of pages."""
    _statements.set(collected := list[str]())
    return collected


class Database:
    """A database, with sessions that read and sessions that write.

    In SQLite, a transaction that reads first and writes later fails if another one has written in between. Sessions of
    ``writing`` take the lock when they begin, and wait for it. In PostgreSQL, both are the same.

    Args:
        place: The SQLite file, which is created if it does not exist, or the URL of another database.
    """

    def __init__(self, place: Path | URL) -> None:
        if isinstance(place, URL):
            self.engine = writer = create_async_engine(place)
        else:
            url = URL.create("sqlite+aiosqlite", database=str(place))
            self.engine = create_async_engine(url, connect_args={"timeout": 30})
            _begin_transactions(self.engine)
            writer = self.engine.execution_options(begin="BEGIN IMMEDIATE")
        _collect_from(self.engine)
        # With expire_on_commit=False, rows stay readable after a commit.
        self.reading: async_sessionmaker[AsyncSession] = async_sessionmaker(self.engine, expire_on_commit=False)
        self.writing: async_sessionmaker[AsyncSession] = async_sessionmaker(writer, expire_on_commit=False)

    async def create_tables(self) -> None:
        """Create the tables that are missing."""
        async with self.engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)

    async def aclose(self) -> None:
        """Close all connections."""
        await self.engine.dispose()


def _begin_transactions(engine: AsyncEngine) -> None:
    """Leave SQLite's transactions to SQLAlchemy: the driver would begin them late, and commit at savepoints."""

    @event.listens_for(engine.sync_engine, "connect")
    def connected(connection: Any, _record: object) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode = WAL")  # readers and the writer do not wait for each other
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def begun(connection: Connection) -> None:
        connection.exec_driver_sql(connection.get_execution_options().get("begin", "BEGIN"))


def _collect_from(engine: AsyncEngine) -> None:
    @event.listens_for(engine.sync_engine, "before_cursor_execute")
    def executing(
        _connection: Connection, _cursor: object, statement: str, _parameters: object, _context: object, _many: bool
    ) -> None:
        collected = _statements.get()
        if collected is not None and not statement.startswith("BEGIN"):
            collected.append(statement)
