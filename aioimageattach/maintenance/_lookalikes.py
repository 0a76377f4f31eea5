"""Lookalikes: tables with image rows to which no class is mapped.

Such a table may be a detached partition, one half of a table that was split, or the table of a class that this program
does not import. Its rows name files that would otherwise look like orphans.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial
from typing import Final

from sqlalchemy import Column, Connection, MetaData, String, Table, bindparam, inspect, literal, select, text
from sqlalchemy.exc import DBAPIError

from .._batches import batched
from .._inventory import PAGE, Kind, Reader, Sessions, run_with_reader
from .._names import revision_of

__all__ = ["Lookalikes"]

_COLUMNS: Final = ("width", "height", "mimetype", "original", "created_at")

_POSTGRESQL: Final = """
SELECT c.table_schema, c.table_name FROM information_schema.columns AS c
JOIN information_schema.tables AS t ON t.table_schema = c.table_schema AND t.table_name = c.table_name
WHERE c.column_name IN :columns AND t.table_type <> 'VIEW' AND NOT EXISTS (
    SELECT 1 FROM pg_class AS k JOIN pg_namespace AS n ON n.oid = k.relnamespace
    WHERE k.relname = c.table_name AND n.nspname = c.table_schema AND k.relispartition
) -- attached partitions are read with their table
GROUP BY c.table_schema, c.table_name HAVING count(*) = :number
"""
# A join would open the tables of all databases of the server, and wait for whoever changes one of them.
_MARIADB: Final = """
SELECT table_schema, table_name FROM information_schema.columns
WHERE column_name IN :columns AND table_schema = database() AND table_name IN (
    SELECT table_name FROM information_schema.tables WHERE table_schema = database() AND table_type <> 'VIEW'
)
GROUP BY table_schema, table_name HAVING count(*) = :number
"""
_SQLITE: Final = """
SELECT NULL, m.name FROM sqlite_master AS m JOIN pragma_table_info(m.name) AS c
WHERE m.type = 'table' AND c.name IN :columns GROUP BY m.name HAVING count(*) = :number
"""
_QUERIES: Final = {"postgresql": _POSTGRESQL, "mysql": _MARIADB, "mariadb": _MARIADB, "sqlite": _SQLITE}
_REMEDY: Final = "import its class, or drop the table if its images are not needed"


class Lookalikes:
    """The unmapped tables of a database that have the columns of image rows.

    Args:
        sessions: Factory of sessions of the database.
    """

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._tables: list[tuple[Kind, Table]] = []

    async def find(self, kinds: Sequence[Kind]) -> None:
        """Find the tables in the kinds' database that none of these kinds reads."""
        anchor = kinds[0]
        tables = await run_with_reader(self._sessions, anchor.mapper, lambda reader: _find(reader, kinds))
        self._tables = [(anchor, table) for table in tables]

    async def named(self, names: Collection[str]) -> tuple[set[str], dict[str, bool]]:
        """Return the names that rows of the tables contain, and the reasons not to remove the other files.

        Returns:
            The names; and for each reason, whether files may be removed with ``force=True``.
        """
        found, reasons = set[str](), dict[str, bool]()
        for anchor, table in self._tables:
            named, objections = await run_with_reader(self._sessions, anchor.mapper, partial(_named, table, names))
            found |= named
            reasons |= objections
        return found, reasons


def _find(reader: Reader, kinds: Sequence[Kind]) -> list[Table]:
    connection = reader.connection
    if connection.dialect.name not in _QUERIES:
        return []
    mapped = {
        (connection.schema_for_object(table) or _default_schema(connection), table.name)
        for kind in kinds
        for table in kind.tables
    }
    query = text(_QUERIES[connection.dialect.name]).bindparams(bindparam("columns", _COLUMNS, expanding=True))
    rows = connection.execute(query, {"number": len(_COLUMNS)}).all()
    return [_table(connection, schema, name) for schema, name in rows if (schema, name) not in mapped]


def _default_schema(connection: Connection) -> str | None:
    return None if connection.dialect.name == "sqlite" else connection.dialect.default_schema_name


def _table(connection: Connection, schema: str | None, name: str) -> Table:
    has_revision = any(column["name"] == "revision" for column in inspect(connection).get_columns(name, schema=schema))
    columns = [Column("revision", String)] if has_revision else []
    return Table(name, MetaData(), *columns, schema=schema)


def _named(table: Table, names: Collection[str], reader: Reader) -> tuple[set[str], dict[str, bool]]:
    connection = reader.connection
    by_revision: dict[str, list[str]] = {}
    for name in names:
        by_revision.setdefault((revision_of(name) or "").casefold(), []).append(name)
    legacy = by_revision.pop("", [])
    revision = table.c.get("revision")
    found = set[str]()
    try:
        with connection.begin_nested():
            without_revision = select(literal(1)).select_from(table).limit(1)
            if revision is not None:
                without_revision = without_revision.where(revision.is_(None))
                for batch in batched(by_revision, PAGE):
                    query = select(revision).where(revision.in_(batch))
                    found.update(name for one in connection.scalars(query) for name in by_revision[one.casefold()])
            has_legacy = bool(legacy) and connection.scalar(without_revision) is not None
    except DBAPIError as error:
        return set(), {f"the table {table.fullname}, to which no class is mapped, cannot be read: {error.orig}": False}
    rows = f"rows of {table.fullname}, to which no class is mapped,"
    reasons: dict[str, bool] = {}
    if found:
        reasons[f"{rows} name {len(found):,} files: {_REMEDY}"] = False
    if has_legacy:
        reasons[f"{rows} may name files of SQLAlchemy-ImageAttach: {_REMEDY}"] = True
    return found, reasons
