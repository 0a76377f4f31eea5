"""Whether a database can be believed when it says that no row names a file."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import text
from sqlalchemy.orm import Session

from ..inventory import Kind

__all__ = ["doubts"]

_PREPARED = "SELECT count(*) FROM pg_prepared_xacts WHERE database = current_database() AND prepared < :before"


def doubts(session: Session, kind: Kind, before: datetime) -> list[str]:
    """Return why the database of a kind of files does not know of all rows yet.

    Args:
        session: Asks it.
        kind: Whose rows are asked for.
        before: Transactions that were prepared earlier may name files that are old enough to be swept.
    """
    connection = session.connection(bind_arguments={"mapper": kind.mapper})
    found: list[str] = []
    if connection.dialect.name == "postgresql":
        if connection.scalar(text("SELECT pg_is_in_recovery()")):
            found.append("the database is a replica, which may lag behind: ask the primary")
        if prepared := connection.scalar(text(_PREPARED), {"before": before}):
            found.append(
                f"{prepared} transactions are prepared and undecided since before {before:%Y-%m-%d %H:%M} UTC "
                "(pg_prepared_xacts): commit them, or roll them back"
            )
    elif connection.dialect.name in ("mysql", "mariadb") and connection.scalar(text("SELECT @@global.read_only")):
        found.append("the database is read-only, as replicas are, which may lag behind: ask the primary")
    return found
