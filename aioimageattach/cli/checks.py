"""What the doctor looks at."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from platform import python_version
from typing import Any, Final, Literal

from sqlalchemy import DateTime, Inspector, Table, inspect

from .._threads import run_io, run_pixels
from ..context import bound_store, get_default_store
from ..exc import ImageAttachError, StoreError
from ..imaging._vips import libvips
from ..imaging.limits import ImageLimits
from ..imaging.recipe import FORMATS, Recipe
from ..imaging.render import render
from ..inventory import Kind, Reader, ask, kinds
from ..inventory.database import Waiting, unsafe_reasons
from ..inventory.ownership import own
from ..key import ImageKey
from ..store import KeyedStore, Store
from ..stores.fs import FileSystemStore
from ..version import VERSION
from .database import Sessions
from .stores import credentials_of

__all__ = [
    "Check",
    "check_formats",
    "check_ownership",
    "check_rights",
    "check_store",
    "check_tables",
    "versions",
]

_PACKAGES: Final = (
    "SQLAlchemy", "aiosqlite", "asyncpg", "psycopg", "asyncmy", "aiomysql",
    "pyvips", "pillow-heif", "pypdfium2", "aiohttp", "botocore",
)  # fmt: skip
_DRAWING: Final = b'<svg xmlns="http://www.w3.org/2000/svg" width="32" height="24"><rect width="9" height="9"/></svg>'
_EXTRAS: Final = (("PDF", "pypdfium2", "pdf"), ("HEIC", "pillow-heif", "heif"))
_FOLDER: Final = "aioimageattach-doctor"


@dataclass(frozen=True, slots=True)
class Check:
    """What was found.

    Args:
        name: What was looked at.
        status: Whether it is well, or only told.
        text: What was found.
    """

    name: str
    status: Literal["ok", "note", "trouble"]
    text: str


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def versions() -> Iterator[Check]:
    """Tell which packages are there."""
    found = [f"{name} {number}" for name in _PACKAGES if (number := _version(name)) is not None]
    yield Check("versions", "note", ", ".join([f"Python {python_version()}", f"aioimageattach {VERSION}", *found]))


async def check_formats() -> AsyncIterator[Check]:
    """Write a small picture in each format, and read it back."""
    vips = await run_pixels(libvips)
    yield Check("libvips", "note", ".".join(str(vips.version(part)) for part in range(3)))
    limits = ImageLimits(types=frozenset({*FORMATS.values(), "image/svg+xml"}))
    good: list[str] = []
    for name in sorted(FORMATS.keys() - {"jpg"}):
        try:
            made = await run_pixels(render, memoryview(_DRAWING), [Recipe(width=16, format=name)], limits)
            await run_pixels(render, memoryview(made[0].blob), [Recipe(width=8, format="png")], limits)
            good.append(name.upper())
        except ImageAttachError as error:
            yield Check("formats", "trouble", f"{name.upper()}: {error}")
    yield Check("formats", "ok", f"{', '.join(good)} are written and read, SVG is read")
    for name, package, extra in _EXTRAS:
        there = _version(package) is not None
        yield Check("formats", "note", f"{name} is read" if there else f"{name} needs aioimageattach[{extra}]")


async def check_tables(sessions: Sessions, models: Any) -> AsyncIterator[Check]:
    """Connect to the database, and check the tables of the models and whether all their rows can be seen."""
    async with sessions() as session:
        connection = await session.connection()
        number = ".".join(map(str, connection.dialect.server_version_info or ()))
        yield Check("database", "ok", f"{connection.dialect.name} {number} answers")
    tables: dict[Table, Kind] = {}
    for kind in () if models is None else kinds(models):
        tables |= {table: kind for table in kind.tables if table not in tables}
    for table, kind in tables.items():
        yield await ask(sessions, kind.mapper, partial(_check_table, table))
    reasons: dict[str, None] = {}
    for table, kind in tables.items():
        reasons |= dict.fromkeys(await ask(sessions, kind.mapper, partial(_reasons, table)))
    for reason in reasons:
        yield Check("rows", "trouble", reason)
    if tables and not reasons:
        yield Check("rows", "ok", "all rows can be seen, on a primary database that can be written to")


def _reasons(table: Table, reader: Reader) -> list[str]:
    margin = timedelta(hours=3)
    return unsafe_reasons(reader, [table], Waiting(datetime.now(UTC) - timedelta(hours=6), margin))


def _check_table(table: Table, reader: Reader) -> Check:
    inspector = inspect(reader.connection)
    schema = reader.connection.schema_for_object(table)
    if not inspector.has_table(table.name, schema=schema):
        return Check("tables", "trouble", f"{table.fullname} is missing")
    there = {column["name"]: column["type"] for column in inspector.get_columns(table.name, schema=schema)}
    missing = [column.name for column in table.columns if column.name not in there]
    if missing:
        return Check("tables", "trouble", f"{table.fullname} lacks {', '.join(missing)}: migrate the schema")
    problems = [*_keys(inspector, table, schema), *_types(table, there)]
    if problems:
        return Check("tables", "trouble", f"{table.fullname}: {'; '.join(problems)}: migrate the schema")
    return Check("tables", "ok", f"{table.fullname} has all columns and keys")


def _keys(inspector: Inspector, table: Table, schema: str | None) -> Iterator[str]:
    """Yield the keys and indexes that a table lacks."""
    wanted = {column.name for column in table.primary_key}
    found = set(inspector.get_pk_constraint(table.name, schema=schema)["constrained_columns"])
    if wanted != found:
        yield f"its primary key is ({', '.join(sorted(found))}), expected ({', '.join(sorted(wanted))})"
    unique: list[Sequence[str | None]] = [
        one["column_names"] for one in inspector.get_unique_constraints(table.name, schema=schema)
    ]
    indexes = inspector.get_indexes(table.name, schema=schema)
    unique += [one["column_names"] for one in indexes if one["unique"]]
    first = [one["column_names"][0] for one in indexes]
    for column in table.columns:
        if column.unique and [column.name] not in unique:
            yield f"{column.name} is not unique"
        if column.index and column.name not in [*first, *(one[0] for one in unique)]:
            yield f"{column.name} has no index"


def _types(table: Table, there: dict[str, Any]) -> Iterator[str]:
    """Yield the columns that are too short, or of another kind."""
    for column in table.columns:
        wanted, found = column.type, there[column.name]
        length, actual = getattr(wanted, "length", None), getattr(found, "length", None)
        if length is not None and actual is not None and actual < length:
            yield f"{column.name} has {actual} characters, expected {length}"
        elif isinstance(wanted, DateTime) != isinstance(found, DateTime):
            yield f"{column.name} is {found}, expected {wanted}"


async def check_ownership(sessions: Sessions, models: Any, store: Store) -> AsyncIterator[Check]:
    """Check that the files in a store belong to the database, and that it is the store of the application."""
    bound = bound_store(sessions) or get_default_store()
    if bound is not None and bound.location != store.location:
        yield Check("ownership", "trouble", f"the application's store is {bound!r}, and this is {store!r}")
    if not isinstance(store, KeyedStore):
        return
    for one in await own(sessions, models, store, claim=False):
        where = f"{one.object_type}/ in {one.store!r}"
        if one.conflict is not None:
            yield Check("ownership", "trouble", f"{where}: {one.conflict}")
        elif one.owner is None:
            yield Check("ownership", "note", f"{where}: no owner; the first sweep that removes files records one")
        else:
            yield Check("ownership", "ok", f"{where}: owned by this database")


async def check_rights(store: Store) -> AsyncIterator[Check]:
    """Check what a sweep needs besides: to list and abort uploads in a bucket, and to write as the application does."""
    if "aioimageattach.stores.s3.store" in sys.modules:
        from ..stores.s3 import S3Store

        if isinstance(store, S3Store):
            try:
                async for upload in store.client.list_uploads(f"{_FOLDER}/"):
                    await store.client.abort_upload(upload.key, upload.upload_id)
                await store.client.abort_upload(f"{_FOLDER}/none", "none")
                yield Check("rights", "ok", "unfinished uploads can be listed and aborted")
            except StoreError as error:
                yield Check("rights", "trouble", f"unfinished uploads cannot be listed or aborted: {error}")
    if isinstance(store, FileSystemStore):
        status = await run_io(os.stat, store.path)
        if os.geteuid() not in (0, status.st_uid):
            text = f"{store.path} belongs to user {status.st_uid}, and this is user {os.geteuid()}: run as that user"
            yield Check("rights", "trouble", text)
        else:
            yield Check(
                "rights", "ok", f"{store.path} belongs to this user, or everything that is made is given to its owner"
            )


async def check_store(store: Store) -> AsyncIterator[Check]:
    """Put a small file, read it back, find it, and delete it."""
    credentials = await credentials_of(store)
    if credentials is not None:
        yield Check("credentials", "ok", credentials)
    blob = b"aioimageattach" * 64
    key = ImageKey(_FOLDER, 1, 1, 1, "image/png", store.make_revision())
    started = time.perf_counter()
    await store.put(key, blob, reproducible=True)
    try:
        async with await store.get(key) as file:
            read = await file.read()
        if read != blob:
            raise StoreError(f"{store!r}: what was put and what was read differ")
        if isinstance(store, KeyedStore):
            name = store.name_of(key)
            if name not in [info.name async for info in store.list_objects(f"{_FOLDER}/")]:
                raise StoreError(f"{store!r}: what was put is not listed")
    finally:
        await store.discard(key)
    seconds = time.perf_counter() - started
    yield Check("store", "ok", f"{store!r}: a file was put, read, listed and deleted in {seconds * 1000:,.0f} ms")
