"""Ownership: the database to which the files in a store belong.

A sweep that queries the wrong database considers every file orphaned. Therefore each store keeps a small record per
object type. It contains the identity of the database whose rows name the files, the columns that name them, and a
random token. The first sweep that removes files writes the record. Each later sweep renews it with a new token, which
it also stores in the database. With this record, a sweep detects three mistakes: it uses another database, a copy of
the right one, or one that was restored from a backup older than the last sweep.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import inspect
from sqlalchemy.exc import UnboundExecutionError

from .._names import revision_time
from ..context._current import resolve_store
from ..exc import DeclarationError, RefusedError, StoreFileNotFoundError
from ..key import make_revision
from ..store import KeyedStore, ObjectInfo, Store
from .identity import Identity, identify, renew
from .kind import Kind
from .kinds import kinds, related
from .reader import Reader, Sessions, opened, run_with_reader

__all__ = [
    "Owner",
    "Ownership",
    "conflict",
    "existing",
    "keyed",
    "own",
    "own_kinds",
    "read_owner",
    "types_of",
    "write_owner",
]

_RECORDS: Final = ".aioimageattach/owners"


@dataclass(frozen=True, slots=True)
class Owner:
    """The database to which the files of an object type belong.

    Args:
        database: The database's identifier; ``None`` if the database keeps none.
        token: The token of the last sweep; ``None`` if the database keeps none.
        place: The location of the database.
        description: A description for messages.
        columns: The columns whose values name the files.
        written_at: When the record was written, according to the writer's clock.
        stored_at: When the record was written, according to the store's clock.
    """

    database: str | None
    token: str | None
    place: str
    description: str
    columns: tuple[str, ...]
    written_at: datetime
    stored_at: datetime


@dataclass(frozen=True, slots=True)
class Ownership:
    """The owner of the files of an object type in a store, as :func:`own` returns it.

    Args:
        object_type: The object type, with which the files' names begin.
        store: The store, or the part of a combined store.
        owner: The database to which the files belong now, with its ``description``, ``place`` and identifier
            (``database``), and the time ``written_at``; ``None`` if no database has claimed them.
        conflict: The reason why the files do not belong to this database; ``None`` if they do, or have no owner.
        changed: ``True`` if this call wrote the record.
    """

    object_type: str
    store: KeyedStore
    owner: Owner | None
    conflict: str | None
    changed: bool


# --- the store -------------------------------------------------------------------------------------------------------


async def read_owner(part: KeyedStore, object_type: str) -> Owner | None:
    """Return the owner of the files of an object type; ``None`` without a record.

    Raises:
        RefusedError: The record cannot be read.
    """
    while records := [info async for info in part.list_objects(f"{_RECORDS}/{object_type}/")]:
        with contextlib.suppress(StoreFileNotFoundError):  # another sweep has just renewed it
            return await _load(part, records[-1])
    return None


async def _load(part: KeyedStore, info: ObjectInfo) -> Owner:
    async with await part.get_object(info.name) as file:
        blob = await file.read()
    revision = info.name.rpartition("/")[2].partition(".")[0]
    try:
        found: dict[str, Any] = json.loads(blob)
        return Owner(
            database=found["database"],
            token=found["token"],
            place=found["place"],
            description=found["description"],
            columns=tuple(found["columns"]),
            written_at=revision_time(revision) or info.modified_at,
            stored_at=info.modified_at,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise RefusedError(
            f"{info.name} in {part!r}: expected a record of ownership of this library; delete the file, and run "
            "`aioimageattach own`"
        ) from error


async def write_owner(part: KeyedStore, object_type: str, identity: Identity, columns: Iterable[str]) -> Owner:
    """Record that files belong to a database; return the record.

    Effects: The new record is written before older ones are deleted; the newest record is valid.
    """
    prefix = f"{_RECORDS}/{object_type}/"
    older = [info.name async for info in part.list_objects(prefix)]
    record: dict[str, Any] = {
        "database": identity.id,
        "token": identity.tokens[0] if identity.tokens else None,
        "place": identity.place,
        "description": identity.description,
        "columns": sorted(columns),
    }
    revision = make_revision()
    name = f"{prefix}{revision}.json"
    await part.put_object(name, json.dumps(record, indent=1).encode(), mimetype="application/json")
    written_at = stored_at = revision_time(revision) or datetime.now(UTC)
    with contextlib.suppress(StoreFileNotFoundError):  # another sweep has just renewed it
        stored_at = (await part.head_object(name)).modified_at
    await part.delete_objects(older)
    return Owner(
        database=identity.id,
        token=record["token"],
        place=identity.place,
        description=identity.description,
        columns=tuple(record["columns"]),
        written_at=written_at,
        stored_at=stored_at,
    )


def conflict(owner: Owner, identity: Identity, columns: Collection[str]) -> str | None:
    """Return the reason why files do not belong to a database; ``None`` if they do."""
    since = f"{owner.written_at:%Y-%m-%d %H:%M} UTC"
    recorded = f"they belong to the {owner.description} according to a record of {since}"
    transfer = "run `aioimageattach own --transfer` to make this database their owner"
    if not owner.database or not identity.readable:
        different = owner.place != identity.place
    else:
        different = owner.database != identity.id
    if different:
        return f"{recorded}, and this is the {identity.description}. If it has replaced the other one, {transfer}"
    if owner.place != identity.place:
        return f"{recorded}, and this is the {identity.description}, a copy of it. If it has replaced it, {transfer}"
    if owner.token is not None and identity.readable and owner.token not in identity.tokens:
        return (
            f"{recorded}, and this database is older than that record: it was restored from a backup, or is a copy. "
            f"Rows of files that were uploaded since then may be lost. Check the files that a dry run reports, then "
            f"{transfer}"
        )
    if missing := set(owner.columns) - {*columns}:
        return (
            f"until {since} they were also named by {', '.join(sorted(missing))}, for which no class is imported. "
            f"Import the class; if the column no longer exists, {transfer}"
        )
    return None


# --- claiming files ---------------------------------------------------------------------------------------------------


def types_of(target: Any, object_types: Iterable[str] | None) -> dict[str, list[Kind]]:
    """Return object types, each with all kinds of files that may have it, including those of classes not in the target.

    Raises:
        DeclarationError: The object type of a class depends on the row, and no object types are given.
        ValueError: ``object_types`` is empty.
    """
    everything = related(target)
    chosen = set(object_types or ())
    for kind in kinds(target) if object_types is None else ():
        if kind.object_types is None:
            raise DeclarationError(
                f"{kind.cls.__name__}.object_type depends on the row: pass all object types with object_types=[...]"
            )
        chosen |= kind.object_types
    if not chosen:
        raise ValueError("object_types: expected at least one")
    return {
        one: [kind for kind in everything if kind.object_types is None or one in kind.object_types]
        for one in sorted(chosen)
    }


def keyed(store: Store | None, sessions: Any) -> KeyedStore:
    """Return the store to use.

    Raises:
        DeclarationError: The store cannot be listed.
    """
    found = resolve_store(store, session=sessions)
    if not isinstance(found, KeyedStore):
        raise DeclarationError(f"store: expected a KeyedStore, which can be listed, got {found!r}")
    return found


async def own(
    sessions: Sessions,
    target: Any,
    store: Store | None = None,
    *,
    object_types: Iterable[str] | None = None,
    claim: bool = True,
    transfer: bool = False,
) -> list[Ownership]:
    """Record that the files in a store belong to a database, so that sweeps with another database are refused.

    Sweeps with ``delete=True`` record this automatically. Call this function after a database has been moved or
    restored, or after a table has been renamed, once you have verified that this database has the rows of all files;
    see :doc:`/howto/runbooks/index`.

    Args:
        sessions: Factory of sessions of the database.
        target: The declarative base, or one class.
        store: The store; ``None`` for the current store, or that of the sessions.
        object_types: The object types of the files; ``None`` for those of the classes.
        claim: ``True`` to record this database as the owner of files without an owner.
        transfer: ``True`` to record it also as the owner of files that belong to another database.

    Returns:
        The owner of each object type in each store.

    Raises:
        RefusedError: A record cannot be read.
    """
    where, anchor = keyed(store, sessions), kinds(target)[0]
    types = types_of(target, object_types)
    return await _own(sessions, anchor, types, where, claim=claim, transfer=transfer)


async def own_kinds(sessions: Sessions, parts: Sequence[Kind], store: KeyedStore, *, claim: bool) -> list[Ownership]:
    """Claim the files of some kinds, except for object types that depend on the row; see :func:`own`."""
    types = {one for kind in parts for one in kind.object_types or ()}
    everything = related(parts[0].mapper.registry)
    known = {one: [kind for kind in everything if one in (kind.object_types or ())] for one in sorted(types)}
    return await _own(sessions, parts[0], known, store, claim=claim, transfer=False)


async def _own(
    sessions: Sessions,
    anchor: Kind,
    types: Mapping[str, Sequence[Kind]],
    store: KeyedStore,
    *,
    claim: bool,
    transfer: bool,
) -> list[Ownership]:
    found: list[Ownership] = []
    renewed: Identity | None = None
    for object_type, parts in types.items():
        columns = {kind.place for kind in await existing(sessions, parts, anchor)}
        for part in store.parts(object_type):
            owner = await read_owner(part, object_type)
            # The record must be read first: a sweep writes its token to the database before it writes the record.
            problem = None if owner is None else conflict(owner, await identify(sessions, anchor), columns)
            change = claim if owner is None else transfer and problem is not None
            if change:
                renewed = renewed or await renew(sessions, anchor)
                owner, problem = await write_owner(part, object_type, renewed, columns), None
            found.append(Ownership(object_type, part, owner, problem, change))
    return found


async def existing(sessions: Sessions, parts: Sequence[Kind], anchor: Kind) -> list[Kind]:
    """Return kinds without those of other declarative bases whose tables are in another database.

    Args:
        sessions: Factory of sessions of the database.
        parts: The kinds.
        anchor: A kind of the base to which the sessions belong: all kinds of that base are returned.
    """
    own = anchor.mapper.registry
    return [kind for kind in parts if kind.mapper.registry is own or await _exists(sessions, kind)]


async def _exists(sessions: Sessions, kind: Kind) -> bool:
    def look(reader: Reader) -> bool:
        inspector, table = inspect(reader.connection), kind.source.table
        schema = reader.connection.schema_for_object(table)
        if not inspector.has_table(table.name, schema=schema):
            return False
        return kind.source.name in {column["name"] for column in inspector.get_columns(table.name, schema=schema)}

    async with opened(sessions) as session:
        try:
            session.sync_session.get_bind(kind.mapper)
        except UnboundExecutionError:
            return False
    return await run_with_reader(sessions, kind.mapper, look)
