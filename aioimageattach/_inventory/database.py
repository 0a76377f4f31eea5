"""Detect conditions under which a database may hide committed rows, so that a file could wrongly seem orphaned."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, Table, bindparam, text

from .reader import Reader

__all__ = ["SweepLimits", "unsafe_reasons"]

_PRIMARY: Final = "connect to the primary"

_POSTGRESQL: Final = text(
    "SELECT now(), pg_is_in_recovery(), current_setting('transaction_read_only') = 'on', "
    "(SELECT count(*) FROM pg_prepared_xacts WHERE database = current_database() AND prepared < :before), "
    "(SELECT count(subname) FROM pg_subscription AS s JOIN pg_database AS d ON d.oid = s.subdbid "
    "WHERE d.datname = current_database())"
)
_POSTGRESQL_TABLE: Final = text(
    "SELECT c.relkind::text, c.relpersistence::text, row_security_active(c.oid), "
    "(SELECT count(*) FROM pg_partition_tree(c.oid) AS t JOIN pg_class AS p ON p.oid = t.relid WHERE p.relkind = 'f') "
    "FROM pg_class AS c WHERE c.oid = to_regclass(:name)"
)
_MYSQL: Final = text("SELECT UTC_TIMESTAMP(6), @@global.read_only")
_MYSQL_REPLICA: Final = text("SHOW GLOBAL STATUS WHERE Variable_name IN ('Slave_running', 'Slaves_running')")
_MYSQL_TABLE: Final = text(
    "SELECT table_type, coalesce(engine, '') FROM information_schema.tables "
    "WHERE table_schema = coalesce(:schema, database()) AND table_name = :name"
)
_SQLITE_TABLE: Final = text(
    "SELECT type, sql, 0 FROM {schema}.sqlite_master WHERE name = :name "
    "UNION ALL SELECT type, sql, 1 FROM sqlite_temp_master WHERE name = :name"
)
_REMOTE_ENGINES: Final = frozenset({"CONNECT", "FEDERATED", "SPIDER"})
_POSTGRESQL_KINDS: Final = {"f": "a foreign table", "m": "a materialized view", "v": "a view"}


@dataclass(frozen=True, slots=True)
class SweepLimits:
    """Additional conditions for a sweep, which must not miss rows that are about to be committed.

    Args:
        prepared_before: Transactions that were prepared before this time may name files that are old enough to be
            swept.
        max_skew: How far the local clock may be ahead of the database's.
    """

    prepared_before: datetime
    max_skew: timedelta


def unsafe_reasons(reader: Reader, tables: Collection[Table], limits: SweepLimits | None = None) -> list[str]:
    """Return the reasons why a connection may not see all committed rows of some tables.

    Args:
        reader: The connection with which the rows are read.
        tables: The tables.
        limits: For a sweep, also check for uncommitted rows, prepared transactions and clock skew.
    """
    connection = reader.connection
    found: list[str] = []
    if limits is not None and reader.is_shared:
        found.append("the sessions are bound to a connection, and see uncommitted rows: bind them to an engine")
    if reader.dialect == "postgresql":
        found += _postgresql_reasons(connection, tables, limits)
    elif reader.dialect in ("mysql", "mariadb"):
        found += _mysql_reasons(connection, tables, limits)
    elif reader.dialect == "sqlite":
        found += _sqlite_reasons(connection, tables)
    if (
        limits is not None
        and reader.dialect != "postgresql"  # PostgreSQL treats READ UNCOMMITTED as READ COMMITTED
        and connection.get_isolation_level() == "READ UNCOMMITTED"
    ):
        found.append("the sessions read uncommitted rows: use another isolation level")
    return found


def _postgresql_reasons(connection: Connection, tables: Collection[Table], limits: SweepLimits | None) -> list[str]:
    before = datetime.now(UTC) if limits is None else limits.prepared_before
    now, is_replica, is_read_only, prepared, subscriptions = connection.execute(_POSTGRESQL, {"before": before}).one()
    found = _skew(now, limits)
    if is_replica:
        found.append(f"the database is a replica, which may lag behind: {_PRIMARY}")
    elif is_read_only:
        found.append(
            f"the connection is read-only, as connections to replicas often are: {_PRIMARY}, without read-only mode"
        )
    if subscriptions:
        found.append(f"the database subscribes to another database, and may lag behind it: {_PRIMARY}")
    if limits is not None and prepared:
        found.append(
            f"{prepared} transactions were prepared before {before:%Y-%m-%d %H:%M} UTC and are neither committed nor "
            "rolled back (pg_prepared_xacts): commit them, or roll them back"
        )
    for table in tables:
        parts = (connection.schema_for_object(table), table.name)
        name = ".".join(map(connection.dialect.identifier_preparer.quote, filter(None, parts)))
        for kind, persistence, is_filtered, foreign in connection.execute(_POSTGRESQL_TABLE, {"name": name}):
            if kind in _POSTGRESQL_KINDS:
                found.append(_not_a_table(name, _POSTGRESQL_KINDS[kind]))
            if persistence == "t":
                found.append(_not_a_table(name, "a temporary table"))
            if foreign:
                found.append(_not_a_table(name, f"partitioned, with {foreign} foreign tables among its partitions"))
            if is_filtered:
                found.append(f"row-level security hides rows of {name}: connect as a user with BYPASSRLS")
    return found


def _mysql_reasons(connection: Connection, tables: Collection[Table], limits: SweepLimits | None) -> list[str]:
    now, is_read_only = connection.execute(_MYSQL).one()
    found = _skew(now.replace(tzinfo=UTC), limits)
    if is_read_only:
        found.append(f"the database is read-only, as replicas often are: {_PRIMARY}")
    if any(value not in ("0", "OFF") for _, value in connection.execute(_MYSQL_REPLICA)):
        found.append(f"the database is a replica, which may lag behind: {_PRIMARY}")
    for table in tables:
        schema = connection.schema_for_object(table)
        for kind, engine in connection.execute(_MYSQL_TABLE, {"schema": schema, "name": table.name}):
            if kind not in ("BASE TABLE", "SYSTEM VERSIONED"):
                found.append(_not_a_table(table.fullname, f"a {kind.lower()}"))
            elif engine.upper() in _REMOTE_ENGINES:
                found.append(_not_a_table(table.fullname, f"a table of the storage engine {engine}"))
    return found


def _sqlite_reasons(connection: Connection, tables: Collection[Table]) -> list[str]:
    found: list[str] = []
    url = connection.engine.url
    words = {*str(url.database).lower().partition("?")[2].split("&"), *(f"{k}={v}" for k, v in url.query.items())}
    if words & {"mode=ro", "immutable=1"} or connection.scalar(text("PRAGMA query_only")):
        found.append(
            f"the connection is read-only, as connections to copies often are: {_PRIMARY}, without read-only mode"
        )
    for table in tables:
        schema = connection.dialect.identifier_preparer.quote(connection.schema_for_object(table) or "main")
        query = text(_SQLITE_TABLE.text.format(schema=schema)).bindparams(bindparam("name", table.name))
        for kind, sql, is_temporary in connection.execute(query):
            if kind == "view" or is_temporary:
                found.append(_not_a_table(table.fullname, "temporary" if is_temporary else "a view"))
            elif str(sql).upper().startswith("CREATE VIRTUAL"):
                found.append(_not_a_table(table.fullname, "a virtual table"))
    return found


def _not_a_table(name: str, what: str) -> str:
    return f"{name} is {what}, which may hide rows: map the table with all rows instead"


def _skew(database_time: Any, limits: SweepLimits | None) -> list[str]:
    """Return why the local clock is wrong. If it is ahead, files seem older than they are."""
    if limits is None:
        return []
    ahead = datetime.now(UTC) - database_time
    return [f"the local clock is {ahead} ahead of the database's: set it"] if ahead > limits.max_skew else []
