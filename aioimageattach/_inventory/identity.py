"""The identity of a database, which a store's ownership record contains."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass, replace
from typing import Final

from sqlalchemy import Column, Connection, Integer, MetaData, String, Table, Text, insert, inspect, select, text, update
from sqlalchemy.exc import DBAPIError

from .kind import Kind
from .reader import Reader, Sessions, run_with_reader

__all__ = ["Identity", "identify", "renew"]

TABLE: Final = "aioimageattach_identity"
"""The table with one row in which a database keeps its identity."""

_MAX_TOKENS: Final = 1000  # enough for some years, so that the token of a seldom swept store is still in the list

_identity: Final = Table(
    TABLE,
    MetaData(),
    Column("slot", Integer, primary_key=True, autoincrement=False),
    Column("id", String(32), nullable=False),
    Column("tokens", Text, nullable=False),
)


@dataclass(frozen=True, slots=True)
class Identity:
    """The identity of a database.

    Args:
        id: The random identifier that the database keeps; ``None`` if it keeps none.
        tokens: The tokens of the last sweeps, newest first.
        place: The location of the database, such as the identifier of its server; different for a copy.
        description: A description for messages, without secrets.
        readable: ``True`` if the identifier could be read.
    """

    id: str | None
    tokens: tuple[str, ...]
    place: str
    description: str
    readable: bool = True


async def identify(sessions: Sessions, kind: Kind) -> Identity:
    """Return the identity of the database that contains the rows of a kind."""
    return await run_with_reader(sessions, kind.mapper, _identify)


async def renew(sessions: Sessions, kind: Kind) -> Identity:
    """Give a database a new token, and an identifier if it has none; return its identity, with the new token first.

    Effects: The token is committed. A database that does not allow this keeps no identifier, and is identified by its
        place.
    """
    before = await identify(sessions, kind)
    while True:
        try:
            return await run_with_reader(sessions, kind.mapper, _renew, commit=True)
        except DBAPIError:
            found = await identify(sessions, kind)
            if found.id is None:
                return replace(found, readable=False)
            if found.id == before.id:
                return found
            before = found  # another sweep has created the table or its row first: try again


def _renew(reader: Reader) -> Identity:
    connection = reader.connection
    place, description = _place(connection)
    _identity.create(connection, checkfirst=True)
    connection.execute(update(_identity).values(slot=_identity.c.slot))  # locks the row until COMMIT
    row = connection.execute(select(_identity)).one_or_none()
    tokens = (secrets.token_hex(6), *(() if row is None else json.loads(row.tokens)))[:_MAX_TOKENS]
    new = Identity(secrets.token_hex(16) if row is None else row.id, tokens, place, description)
    if row is None:
        connection.execute(insert(_identity), [{"slot": 1, "id": new.id, "tokens": json.dumps(tokens)}])
    else:
        connection.execute(update(_identity).values(tokens=json.dumps(tokens)))
    return new


def _identify(reader: Reader) -> Identity:
    connection = reader.connection
    place, description = _place(connection)
    row = None
    if inspect(connection).has_table(TABLE):
        try:
            with connection.begin_nested():
                row = connection.execute(select(_identity)).one_or_none()
        except DBAPIError:
            return Identity(None, (), place, description, readable=False)
    if row is None:
        return Identity(None, (), place, description)
    return Identity(row.id, tuple(json.loads(row.tokens)), place, description)


def _place(connection: Connection) -> tuple[str, str]:
    url, dialect = connection.engine.url, connection.dialect.name
    if dialect == "postgresql":
        query = "SELECT current_database(), (SELECT oid FROM pg_database WHERE datname = current_database()), "
        database, oid, schema, may_ask = connection.execute(
            text(f"{query} current_schema(), has_function_privilege('pg_control_system()', 'execute')")
        ).one()
        system = connection.scalar(text("SELECT system_identifier FROM pg_control_system()")) if may_ask else ""
        place = f"postgresql:{system}:{oid}:{schema}"
    elif dialect in ("mysql", "mariadb"):
        names = ("server_uuid", "server_uid", "hostname", "port")
        query = f"SHOW GLOBAL VARIABLES WHERE Variable_name IN {names!r}"
        found: dict[str, str] = {name.lower(): value for name, value in connection.execute(text(query))}
        database = connection.scalar(text("SELECT database()"))
        server = found.get("server_uuid") or found.get("server_uid") or f"{found['hostname']}:{found['port']}"
        place = f"mysql:{server}:{database}"
    elif dialect == "sqlite":
        database = next(row[2] for row in connection.execute(text("PRAGMA database_list")) if row[1] == "main")
        place = f"sqlite:{database}"
    else:
        database = url.database
        place = f"{dialect}:{url.host}:{url.port}:{database}"
    where = f" at {url.host}" + (f":{url.port}" if url.port else "") if url.host else ""
    return place, f"{dialect} database {database!r}{where}"
