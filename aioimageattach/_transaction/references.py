"""Ask the database which files committed rows reference, before any of them is discarded or processed further.

The session's events only report SQLAlchemy's view. The database may have done something else: PostgreSQL answers COMMIT
with ROLLBACK after an error that the application swallowed, a trigger keeps a row that was deleted, and DDL commits
implicitly on MariaDB. So a file is discarded only if the session's events and the database agree.

The query can prove that a row exists, but not that it will never exist. Therefore nothing is discarded after a COMMIT
whose outcome is unknown, regardless of the result of a query.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy.engine import Connection, Engine
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import InstanceState, Mapper
from sqlalchemy.pool import AssertionPool, SingletonThreadPool, StaticPool

from .._telemetry import LEFT, log_fields
from ..key import ImageKey
from ..store import Store

__all__ = ["QUERY_TIMEOUT", "Database", "Derived", "Referrer", "TrackedFile", "committed", "unreferenced"]

QUERY_TIMEOUT: Final = 10.0
"""Maximum duration of the queries after one transaction, in seconds, including the wait for a pooled connection."""

_SHARING: Final = (AssertionPool, SingletonThreadPool, StaticPool)
"""Pools with one connection, in which a query could become part of a transaction of the application."""

_log = logging.getLogger("aioimageattach.transaction")


@dataclass(eq=False, slots=True)
class Database:
    """The database that a session's flushes write some rows to, until the root transaction ends.

    Args:
        engine: The engine that connects to it; ``None`` if the application passed a connection to the session and so
            controls the transaction.
        mapper: The base mapper of the rows.
        state: One of the rows, in a session over shards; else ``None``.
        schemas: The ``schema_translate_map`` of the session's connection.
        watched: ``True`` if the session's connection is watched for its COMMIT.
    """

    engine: Engine | None
    mapper: Mapper[Any]
    state: InstanceState[Any] | None = None
    schemas: Mapping[Any, Any] = field(default_factory=dict)
    watched: bool = False


@dataclass(frozen=True, slots=True)
class Referrer(ABC):
    """Rows that may reference files, and the database they are in."""

    database: Database
    mapper: Mapper[Any]

    @abstractmethod
    def referenced(self, connection: Connection, files: Sequence[TrackedFile]) -> Collection[TrackedFile]:
        """Return the files that a row references or may reference.

        Args:
            connection: A connection in a new transaction, which began after the session's transaction ended.
            files: Files whose referrer is equal to this one.
        """


class Derived(ABC):
    """The files that are made from another file."""

    @abstractmethod
    def names(self) -> Sequence[str]:
        """Return the names of the files to delete after the file that they were made from."""

    @abstractmethod
    def thumbnails(self) -> Sequence[str]:
        """Return the revisions of the thumbnails to make once a committed row references the file."""


@dataclass(frozen=True, slots=True, eq=False)
class TrackedFile:
    """One file in one store: by its key or, in a store with names, by its name.

    Args:
        store: The store.
        key: The image key or the name.
        referrer: The rows that may reference the file; not part of its identity.
        derived: The files that are made from it; ``None`` if there are none.
    """

    store: Store
    key: ImageKey | str
    referrer: Referrer
    derived: Derived | None = None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, TrackedFile) or self.key != other.key:
            return False
        return self.store is other.store or self.store.location == other.store.location

    def __hash__(self) -> int:
        return hash(self.key)


async def unreferenced(uploads: Collection[TrackedFile], dropped: Collection[TrackedFile]) -> list[TrackedFile]:
    """Return the nominated files that no committed row references; log why the others are kept.

    Args:
        uploads: Files of rows that are not expected to exist.
        dropped: Files of rows that were deleted or replaced.
    """
    found: list[TrackedFile] = []
    for engine, groups in _by_engine({**dict.fromkeys(uploads), **dict.fromkeys(dropped)}).items():
        count = sum(map(len, groups.values()))
        if engine is None:
            _log.warning(
                "%d files are left for the sweep: the session was created with a connection, not an engine",
                count,
                extra=log_fields(LEFT, count=count),
            )
            continue
        try:
            kept = await _referenced(engine, groups)
        except Exception as error:  # the transaction is over, and nothing may make its commit fail
            _log.warning(
                "%d files are left for the sweep: the query for rows that reference them failed: %s",
                count,
                type(error).__name__,
                extra=log_fields(LEFT, error, count=count),
            )
            continue
        for file in kept:
            _log.warning(
                "%r is kept: a committed row references it, although the session %s",
                file.key,
                "rolled its transaction back" if file in uploads else "deleted or changed that row",
                extra=log_fields("files.kept", count=1),
            )
        found += [file for files in groups.values() for file in files if file not in kept]
    return found


async def committed(files: Mapping[TrackedFile, bool]) -> list[TrackedFile]:
    """Return the files that committed rows reference; log how many others there are.

    Args:
        files: The files, each with whether the session has reported the commit. This decides only if another query on
            the database would disturb the application, because the pool shares one connection.
    """
    found: list[TrackedFile] = []
    for engine, groups in _by_engine(files).items():
        some = [file for group in groups.values() for file in group]
        if engine is None:
            _log.info(
                "%d images get no thumbnails in the background: the session was created with a connection",
                len(some),
            )
        elif isinstance(engine.pool, _SHARING):
            found += [file for file in some if files[file]]
        else:
            try:
                named = await _referenced(engine, groups)
            except Exception as error:  # of any database driver
                reason = type(error).__name__
                extra = log_fields("thumbnails.refused", error, images=len(some))
                _log.warning(
                    "%d images get no thumbnails in the background: the query for their rows failed: %s",
                    len(some),
                    reason,
                    extra=extra,
                )
                continue
            found += [file for file in some if file in named]
            if len(named) < len(some):
                _log.info(
                    "%d images get no thumbnails in the background: no committed row references them",
                    len(some) - len(named),
                )
    return found


def _by_engine(files: Iterable[TrackedFile]) -> dict[Engine | None, dict[Referrer, list[TrackedFile]]]:
    found: dict[Engine | None, dict[Referrer, list[TrackedFile]]] = {}
    for file in files:
        found.setdefault(file.referrer.database.engine, {}).setdefault(file.referrer, []).append(file)
    return found


async def _referenced(engine: Engine, groups: Mapping[Referrer, Sequence[TrackedFile]]) -> set[TrackedFile]:
    async with asyncio.timeout(QUERY_TIMEOUT), AsyncEngine(engine).connect() as connection:
        return {file for group in groups.items() for file in await connection.run_sync(_query, *group)}


def _query(connection: Connection, referrer: Referrer, files: Sequence[TrackedFile]) -> Collection[TrackedFile]:
    schemas = referrer.database.schemas
    connection = connection.execution_options(schema_translate_map=dict(schemas) or None)
    return referrer.referenced(connection, files)
