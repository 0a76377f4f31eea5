"""One connection, to the database that rows are written to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar, cast

from sqlalchemy import Connection, Table, update
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.ext.horizontal_shard import ShardedSession
from sqlalchemy.orm import Mapper, Session

from ..exc import DeclarationError

__all__ = ["Reader", "Sessions", "ask", "opened"]

R = TypeVar("R")

Sessions: TypeAlias = async_sessionmaker[Any] | AsyncSession
"""Makes sessions. An ``AsyncSession`` stands for others of its kind: its own transaction is neither used nor seen,
unless it is bound to a connection."""


@dataclass(frozen=True, slots=True)
class Reader:
    """One connection to the database that the rows of a kind are written to.

    Args:
        connection: For Core statements.
        session: On that connection; rows that are read may load what else they need with it.
        is_shared: Whether the application's own transaction is on that connection.
    """

    connection: Connection
    session: Session
    is_shared: bool = False

    @property
    def dialect(self) -> str:
        """The name of the kind of database."""
        return self.connection.dialect.name


async def ask(sessions: Sessions, mapper: Mapper[Any], question: Callable[[Reader], R], *, commit: bool = False) -> R:
    """Run a function in a new session, with a reader of the rows of a class, and return its result.

    Args:
        sessions: Makes the session.
        mapper: Of the class.
        question: The function.
        commit: Whether to commit what it writes.

    Raises:
        DeclarationError: It is a session over shards; or to commit, one within the application's own transaction.
    """

    def run(session: Session) -> R:
        if isinstance(session, ShardedSession):
            raise DeclarationError(
                "a session over shards gives rows in no order; go through the shards one by one, with sessions of each"
            )
        # As a session with replicas finds the database for an UPDATE, so that it is the one that has all rows.
        bind = session.get_bind(mapper, clause=update(cast("Table", mapper.tables[0])))
        if commit and isinstance(bind, Connection):
            raise DeclarationError("the sessions are bound to a connection, whose transaction is not ours to commit")
        connection = session.connection(bind_arguments={"bind": bind})
        return question(Reader(connection, Session(connection, autoflush=False), isinstance(bind, Connection)))

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
        getattr(sessions, "bind", None),  # the older line has both only if they are given
        binds=dict(getattr(sessions, "binds", None) or {}),
        sync_session_class=type(sessions.sync_session),
        info=dict(sessions.info),
    )
