"""Reader: one connection to the database to which rows are written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar, cast

from sqlalchemy import Connection, Table, update
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.ext.horizontal_shard import ShardedSession
from sqlalchemy.orm import Mapper, Session

from ..exc import DeclarationError

__all__ = ["Reader", "Sessions", "opened", "run_with_reader"]

R = TypeVar("R")

Sessions: TypeAlias = async_sessionmaker[Any] | AsyncSession
"""Factory of sessions. An ``AsyncSession`` serves as a template for new sessions: its transaction is neither used nor
visible, unless it is bound to a connection."""


@dataclass(frozen=True, slots=True)
class Reader:
    """One connection to the database to which the rows of a kind are written.

    Args:
        connection: Executes Core statements.
        session: A session on that connection, with which rows may load further columns.
        is_shared: ``True`` if the application's own transaction uses the connection.
    """

    connection: Connection
    session: Session
    is_shared: bool = False

    @property
    def dialect(self) -> str:
        """The name of the connection's dialect."""
        return self.connection.dialect.name


async def run_with_reader(
    sessions: Sessions, mapper: Mapper[Any], function: Callable[[Reader], R], *, commit: bool = False
) -> R:
    """Run a function in a new session, with a reader for the rows of a class, and return its result.

    Args:
        sessions: Factory of the session.
        mapper: The mapper of the class.
        function: The function.
        commit: ``True`` to commit the changes that the function makes.

    Raises:
        DeclarationError: The session is sharded; or ``commit`` is set, and the session is bound to a connection.
    """

    def run(session: Session) -> R:
        if isinstance(session, ShardedSession):
            raise DeclarationError(
                "expected sessions of one database, got a ShardedSession, which returns rows of several shards in no "
                "defined order; process the shards one by one, with sessions of each"
            )
        # A session with replicas executes UPDATEs on the primary, which is the only database that has all rows.
        bind = session.get_bind(mapper, clause=update(cast("Table", mapper.tables[0])))
        if commit and isinstance(bind, Connection):
            raise DeclarationError(
                "expected sessions that are bound to an engine, got some that are bound to a connection, whose "
                "transaction only the application may commit"
            )
        connection = session.connection(bind_arguments={"bind": bind})
        return function(Reader(connection, Session(connection, autoflush=False), isinstance(bind, Connection)))

    async with opened(sessions) as session:
        result = await session.run_sync(run)
        if commit:
            try:
                await session.commit()
            except BaseException:
                await session.invalidate()  # the connection may still be in the transaction
                raise
        return result


def opened(sessions: Sessions) -> AsyncSession:
    """Return a new session."""
    if not isinstance(sessions, AsyncSession):
        return cast("AsyncSession", sessions())
    return type(sessions)(
        getattr(sessions, "bind", None),  # SQLAlchemy 2.0 sets both attributes only if they were given
        binds=dict(getattr(sessions, "binds", None) or {}),
        sync_session_class=type(sessions.sync_session),
        info=dict(sessions.info),
    )
