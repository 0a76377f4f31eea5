"""Tables with image rows that no class is mapped to: a detached partition, a split table, another application's."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Final

from sqlalchemy import Column, Connection, MetaData, String, Table, bindparam, inspect, literal, select, text
from sqlalchemy.exc import DBAPIError

from ..inventory import PAGE, Kind, Reader, Sessions, ask
from ..key import revision_of

__all__ = ["Lookalikes"]

_COLUMNS: Final = ("width", "height", "mimetype", "original", "created_at")

_SCHEMA: Final = """
SELECT c.table_schema, c.table_name FROM information_schema.columns AS c
JOIN information_schema.tables AS t ON t.table_schema = c.table_schema AND t.table_name = c.table_name
WHERE c.column_name IN :columns AND t.table_type <> 'VIEW' AND {schema}
GROUP BY c.table_schema, c.table_name HAVING count(*) = :number
"""
_SQLITE: Final = """
SELECT NULL, m.name FROM sqlite_master AS m JOIN pragma_table_info(m.name) AS c
WHERE m.type = 'table' AND c.name IN :columns GROUP BY m.name HAVING count(*) = :number
"""
# The partitions of a table are read with it.
_ATTACHED: Final = """
NOT EXISTS (SELECT 1 FROM pg_class AS k JOIN pg_namespace AS n ON n.oid = k.relnamespace
WHERE k.relname = c.table_name AND n.nspname = c.table_schema AND k.relispartition)
"""
_QUERIES: Final = {
    "postgresql": _SCHEMA.format(schema=_ATTACHED),
    "mysql": _SCHEMA.format(schema="c.table_schema = database()"),
    "mariadb": _SCHEMA.format(schema="c.table_schema = database()"),
    "sqlite": _SQLITE,
}


class Lookalikes:
    """The unmapped tables of a database that have the columns of image rows.

    Args:
        sessions: Makes sessions of the database.
    """

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._anchor: Kind | None = None
        self._tables: list[Table] = []

    async def find(self, kinds: Sequence[Kind]) -> None:
        """Look for the tables that none of some kinds reads."""
        self._anchor = kinds[0]
        self._tables = await ask(self._sessions, kinds[0].mapper, lambda reader: _find(reader, kinds))

    async def named(self, names: Collection[str]) -> tuple[set[str], list[str], list[str]]:
        """Return those of some names that rows of the tables name, why a sweep must stop, and why it rather should."""
        found, problems, doubts = set[str](), list[str](), list[str]()
        for table in self._tables:
            assert self._anchor is not None
            there, problem, doubt = await ask(self._sessions, self._anchor.mapper, partial(_named, table, names))
            found |= there
            problems += [] if problem is None else [problem]
            doubts += [] if doubt is None else [doubt]
        return found, problems, doubts


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


def _named(table: Table, names: Collection[str], reader: Reader) -> tuple[set[str], str | None, str | None]:
    """Return the names that rows of a table name, why a sweep must stop, and why it rather should."""
    connection = reader.connection
    import_it = "import its class, or remove the table if its pictures are not needed"
    revisions: dict[str, list[str]] = {}
    for name in names:
        revisions.setdefault((revision_of(name) or "").casefold(), []).append(name)
    old = revisions.pop("", [])
    column = table.c.get("revision")
    found = set[str]()
    try:
        with connection.begin_nested():
            without = select(literal(1)).select_from(table).limit(1)
            if column is not None:
                without = without.where(column.is_(None))
                for batch in _batches(list(revisions)):
                    query = select(column).where(column.in_(batch))
                    found.update(name for one in connection.scalars(query) for name in revisions[one.casefold()])
            has_old = bool(old) and connection.scalar(without) is not None
    except DBAPIError as error:
        return set(), f"the table {table.fullname}, which no class is mapped to, cannot be read: {error.orig}", None
    where = f"rows of {table.fullname}, which no class is mapped to,"
    return (
        found,
        f"{where} name {len(found):,} files: {import_it}" if found else None,
        f"{where} may name files of SQLAlchemy-ImageAttach: {import_it}" if has_old else None,
    )


def _batches(values: Sequence[str]) -> Iterator[list[str]]:
    rest = iter(values)
    while batch := list(islice(rest, PAGE)):
        yield batch
