"""Whether a database can be believed when it says that no row names a file."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, cast

from sqlalchemy import Connection, Table, select, text
from sqlalchemy.orm import Session

from ..inventory import Kind

__all__ = ["doubts"]

_PREPARED = "SELECT count(*) FROM pg_prepared_xacts WHERE database = current_database() AND prepared < :before"
_REPLICA = "which may lag behind: ask the primary"


def doubts(session: Session, kind: Kind, *, before: datetime, margin: timedelta) -> list[str]:
    """Return why a session may not be shown all committed rows of a kind of files.

    Args:
        session: The one that is asked for the rows.
        kind: Whose rows.
        before: Transactions that were prepared earlier may name files that are old enough to be swept.
        margin: How far the clock here may be ahead of the database's.
    """
    # The very database that a SELECT of these rows goes to: sessions may send them elsewhere than what writes.
    bind = session.get_bind(kind.mapper, clause=select(kind.mapper.primary_key[0]))
    if isinstance(bind, Connection):
        return ["the sessions are bound to a connection, and see what is not committed: bind them to an engine"]
    connection = session.connection(bind_arguments={"bind": bind})
    dialect = connection.dialect.name
    if dialect == "postgresql":
        return _of_postgresql(connection, kind, before, margin)
    found: list[str] = []
    if dialect in ("mysql", "mariadb"):
        found += _ahead(connection, "SELECT UTC_TIMESTAMP(6)", margin)
        if connection.scalar(text("SELECT @@global.read_only")):
            found.append(f"the database is read-only, as replicas are, {_REPLICA}")
    if dialect in ("mysql", "mariadb", "sqlite") and connection.get_isolation_level() == "READ UNCOMMITTED":
        found.append("the sessions read what is not committed: give them another isolation level")
    return found


def _of_postgresql(connection: Connection, kind: Kind, before: datetime, margin: timedelta) -> list[str]:
    found = _ahead(connection, "SELECT now()", margin)
    if connection.scalar(text("SELECT pg_is_in_recovery()")):
        found.append(f"the database is a replica, {_REPLICA}")
    if prepared := connection.scalar(text(_PREPARED), {"before": before}):
        found.append(
            f"{prepared} transactions are prepared and undecided since before {before:%Y-%m-%d %H:%M} UTC "
            "(pg_prepared_xacts): commit them, or roll them back"
        )
    for table in cast("list[Table]", kind.mapper.tables):
        parts = (connection.schema_for_object(table), table.name)
        name = ".".join(map(connection.dialect.identifier_preparer.quote, filter(None, parts)))
        if connection.scalar(text("SELECT row_security_active(to_regclass(:name))"), {"name": name}):
            found.append(f"row security hides rows of {name}: ask as a user who may BYPASSRLS")
    return found


def _ahead(connection: Connection, question: str, margin: timedelta) -> list[str]:
    """Files look older than they are to a clock that is ahead."""
    here = datetime.now(UTC)
    there: Any = connection.scalar(text(question))
    ahead = here - (there if there.tzinfo else there.replace(tzinfo=UTC))
    return [f"the clock here is {ahead} ahead of the database's: set it right"] if ahead > margin else []
