"""``aioimageattach doctor``."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from platform import python_version
from typing import Any, Final, Literal, NoReturn

import click
from sqlalchemy import DateTime, Inspector, Table, inspect
from sqlalchemy.ext.asyncio import async_sessionmaker

from .._declared.names import derived_type
from .._inventory import Kind, Reader, kinds, run_with_reader
from .._inventory.database import SweepLimits, unsafe_reasons
from .._inventory.ownership import own
from .._threads import run_io, run_pixels
from ..context._current import bound_store, get_default_store
from ..exc import ImageAttachError, StoreError
from ..imaging._limits import ImageLimits
from ..imaging._recipe import FORMATS, Recipe
from ..imaging._render import render
from ..imaging._vips import libvips
from ..key import ImageKey
from ..store import KeyedStore, Store
from ..stores._routing import PlainRoutingStore
from ..stores.fs import FileSystemStore
from ..version import VERSION
from . import _options as options
from ._database import DatabaseParameter, open_sessions
from ._output import Output, error_text, fields
from ._running import DONE, FOUND, is_expected, run
from ._stores import as_s3_store, describe_credentials, open_store

__all__ = ["Check", "doctor"]

_MARKS: Final = {"ok": "✓", "note": "·", "trouble": "✗"}
_PACKAGES: Final = (
    "SQLAlchemy", "aiosqlite", "asyncpg", "psycopg", "asyncmy", "aiomysql",
    "pyvips", "pillow-heif", "pypdfium2", "aiohttp", "botocore",
)  # fmt: skip
_SVG: Final = b'<svg xmlns="http://www.w3.org/2000/svg" width="32" height="24"><rect width="9" height="9"/></svg>'
_EXTRAS: Final = (("PDF", "pypdfium2", "pdf"), ("HEIC", "pillow-heif", "heif"))
_PREFIX: Final = "aioimageattach-doctor"


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one check.

    Args:
        name: The subject of the check.
        status: ``"ok"``, ``"trouble"``, or ``"note"`` for information.
        text: A description of the result.
    """

    name: str
    status: Literal["ok", "note", "trouble"]
    text: str


@click.command(short_help="Check that formats, database, tables and store work.")
@click.option("--models", "-m", type=options.MODELS, help="MODULE:NAME of a declarative base or one class.")
@click.option(
    "--database", "-d", type=DatabaseParameter(), envvar="DATABASE_URL", show_envvar=True, metavar="URL",
    help="The database, or MODULE:NAME of an AsyncEngine or async_sessionmaker.",
)  # fmt: skip
@click.option(
    "--store", "-s", type=options.STORE, envvar="AIOIMAGEATTACH_STORE", show_envvar=True, metavar="STORE",
    help="The store, in which a small file is put, read, listed and deleted.",
)  # fmt: skip
@options.json_output
def doctor(models: Any, database: Any, store: Any, out: Output) -> NoReturn:
    """Check that everything images need is installed and works.

    Versions and image formats are always checked; the database, its tables and the store are checked if they are given.
    Passwords and keys are not shown.
    """

    async def work(stack: AsyncExitStack) -> int:
        trouble = False
        async for check in _checks(stack, models, database, store):
            trouble = trouble or check.status == "trouble"
            text = f"{_MARKS[check.status]} {check.name:<12} {check.text}"
            out.emit("check", text, **fields(check))
        return FOUND if trouble else DONE

    run(out, work, resume=f"Nothing was changed, except that a small file below {_PREFIX}/ may be left in the store.")


async def _checks(stack: AsyncExitStack, models: Any, database: Any, store: Any) -> AsyncIterator[Check]:
    yield _check_versions()
    async for check in _check_formats():
        yield check
    sessions = None
    if database is not None:
        try:
            sessions = await open_sessions(stack, database)
            async for check in _check_database(sessions, models):
                yield check
        except Exception as error:
            yield _trouble("database", error)
    if store is not None:
        try:
            found = await open_store(stack, store)
            async for check in _check_store(found):
                yield check
            async for check in _check_rights(found):
                yield check
            if models is not None and isinstance(found, PlainRoutingStore):
                yield _check_routes(found, models)
            if models is not None and sessions is not None:
                async for check in _check_ownership(sessions, models, found):
                    yield check
        except Exception as error:
            yield _trouble("store", error)


def _trouble(name: str, error: Exception) -> Check:
    if not is_expected(error):
        raise error
    return Check(name, "trouble", error_text(error))


# --- the installation ------------------------------------------------------------------------------------------------


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _check_versions() -> Check:
    found = [f"{name} {number}" for name in _PACKAGES if (number := _version(name)) is not None]
    return Check("versions", "note", ", ".join([f"Python {python_version()}", f"aioimageattach {VERSION}", *found]))


async def _check_formats() -> AsyncIterator[Check]:
    """Encode a small image in each format, and decode it."""
    vips = await run_pixels(libvips)
    yield Check("libvips", "note", ".".join(str(vips.version(part)) for part in range(3)))
    limits = ImageLimits(types=frozenset({*FORMATS.values(), "image/svg+xml"}))
    good: list[str] = []
    for name in sorted(FORMATS.keys() - {"jpg"}):
        try:
            made = await run_pixels(render, memoryview(_SVG), [Recipe(width=16, format=name)], limits)
            await run_pixels(render, memoryview(made[0].blob), [Recipe(width=8, format="png")], limits)
            good.append(name.upper())
        except ImageAttachError as error:
            yield Check("formats", "trouble", f"{name.upper()}: {error_text(error)}")
    yield Check("formats", "ok", f"{', '.join(good)} can be written and read, SVG can be read")
    for name, package, extra in _EXTRAS:
        text = f"{name} requires aioimageattach[{extra}]" if _version(package) is None else f"{name} can be read"
        yield Check("formats", "note", text)


# --- the database ----------------------------------------------------------------------------------------------------


async def _check_database(sessions: async_sessionmaker[Any], models: Any) -> AsyncIterator[Check]:
    """Connect to the database, and check that the tables of the models are right and all of their rows are visible."""
    tables: dict[Table, Kind] = {}
    async with sessions() as session:
        connection = await session.connection()
        number = ".".join(map(str, connection.dialect.server_version_info or ()))
        yield Check("database", "ok", f"connected to {connection.dialect.name} {number}")
    for kind in () if models is None else kinds(models):
        tables |= {table: kind for table in kind.tables if table not in tables}
    for table, kind in tables.items():
        yield await run_with_reader(sessions, kind.mapper, partial(_check_table, table))
    reasons: dict[str, None] = {}
    for table, kind in tables.items():
        reasons |= dict.fromkeys(await run_with_reader(sessions, kind.mapper, partial(_unsafe_reasons, table)))
    for reason in reasons:
        yield Check("rows", "trouble", reason)
    if tables and not reasons:
        yield Check("rows", "ok", "all rows are visible, on a primary database that is not read-only")


def _unsafe_reasons(table: Table, reader: Reader) -> list[str]:
    limits = SweepLimits(prepared_before=datetime.now(UTC) - timedelta(hours=6), max_skew=timedelta(hours=3))
    return unsafe_reasons(reader, [table], limits)


def _check_table(table: Table, reader: Reader) -> Check:
    inspector = inspect(reader.connection)
    schema = reader.connection.schema_for_object(table)
    if not inspector.has_table(table.name, schema=schema):
        return Check("tables", "trouble", f"{table.fullname} is missing: migrate the schema")
    actual = {column["name"]: column["type"] for column in inspector.get_columns(table.name, schema=schema)}
    missing = [column.name for column in table.columns if column.name not in actual]
    if missing:
        return Check("tables", "trouble", f"{table.fullname} lacks {', '.join(missing)}: migrate the schema")
    problems = [*_wrong_keys(inspector, table, schema), *_wrong_types(table, actual)]
    if problems:
        return Check("tables", "trouble", f"{table.fullname}: {'; '.join(problems)}: migrate the schema")
    return Check("tables", "ok", f"{table.fullname} has all columns and keys")


def _wrong_keys(inspector: Inspector, table: Table, schema: str | None) -> Iterator[str]:
    """Yield the differences of keys and indexes."""
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


def _wrong_types(table: Table, actual: dict[str, Any]) -> Iterator[str]:
    """Yield the columns that are too short or have a different kind of type."""
    for column in table.columns:
        wanted, found = column.type, actual[column.name]
        length, actual_length = getattr(wanted, "length", None), getattr(found, "length", None)
        if length is not None and actual_length is not None and actual_length < length:
            yield f"{column.name} has {actual_length} characters, expected {length}"
        elif isinstance(wanted, DateTime) != isinstance(found, DateTime):
            yield f"{column.name} is {found}, expected {wanted}"


# --- the store -------------------------------------------------------------------------------------------------------


async def _check_store(store: Store) -> AsyncIterator[Check]:
    """Put a small file, read it, list it, and delete it."""
    s3 = as_s3_store(store)
    if s3 is not None:
        yield Check("credentials", "ok", await describe_credentials(s3))
    blob = b"aioimageattach" * 64
    key = ImageKey(_PREFIX, 1, 1, 1, "image/png", store.make_revision())
    started = time.perf_counter()
    await store.put(key, blob, reproducible=True)
    try:
        async with await store.get(key) as file:
            read = await file.read()
        if read != blob:
            raise StoreError(f"{store!r}: the file that was read differs from the one that was put")
        if isinstance(store, KeyedStore):
            name = store.name_of(key)
            if name not in [info.name async for info in store.list_objects(f"{_PREFIX}/")]:
                raise StoreError(f"{store!r}: the file that was put is not listed")
    finally:
        await store.discard(key)
    seconds = time.perf_counter() - started
    yield Check("store", "ok", f"{store!r}: a file was put, read, listed and deleted in {seconds * 1000:,.0f} ms")


async def _check_rights(store: Store) -> AsyncIterator[Check]:
    """Check the other permissions that a sweep needs: to list and abort uploads, and to write like the application."""
    s3 = as_s3_store(store)
    if s3 is not None:
        try:
            async for upload in s3.client.list_uploads(f"{_PREFIX}/"):
                await s3.client.abort_upload(upload.key, upload.upload_id)
            await s3.client.abort_upload(f"{_PREFIX}/none", "none")
            yield Check("rights", "ok", "unfinished uploads can be listed and aborted")
        except StoreError as error:
            yield Check("rights", "trouble", f"unfinished uploads cannot be listed or aborted: {error_text(error)}")
    if isinstance(store, FileSystemStore):
        status = await run_io(os.stat, store.path)
        user = os.geteuid()
        if user not in (0, status.st_uid):
            text = f"{store.path} belongs to user {status.st_uid}, but this is user {user}: run as the other user"
            yield Check("rights", "trouble", text)
        elif user == status.st_uid:
            yield Check("rights", "ok", f"{store.path} belongs to this user")
        else:
            text = f"{store.path} belongs to user {status.st_uid}, who will own all files that this user makes"
            yield Check("rights", "ok", text)


def _check_routes(store: PlainRoutingStore[Any], models: Any) -> Check:
    """Check that each object type with a separate store is that of a class."""
    found = kinds(kinds(models)[0].mapper.registry)
    known = {object_type for kind in found for object_type in kind.object_types or ()}
    unknown = store.unknown_types(known.union(map(derived_type, known)))
    if not unknown or any(kind.object_types is None for kind in found):
        return Check("routes", "ok", f"{len(store.stores)} stores by object type")
    text = (
        f"no class has files of the object type {', '.join(map(repr, unknown))}; expected some of "
        f"{', '.join(sorted(known))}; files of a misspelled type go to the default store"
    )
    return Check("routes", "trouble", text)


async def _check_ownership(sessions: async_sessionmaker[Any], models: Any, store: Store) -> AsyncIterator[Check]:
    """Check that the files in a store belong to the database, and that the application uses this store."""
    bound = bound_store(sessions) or get_default_store()
    if bound is not None and bound.location != store.location:
        yield Check("ownership", "trouble", f"the application uses {bound!r}, but this is {store!r}")
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
