"""What the doctor looks at."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from platform import python_version
from typing import Any, Final, Literal

from sqlalchemy import Connection, inspect

from .._threads import run_pixels
from ..exc import ImageAttachError, StoreError
from ..imaging._vips import libvips
from ..imaging.limits import ImageLimits
from ..imaging.recipe import FORMATS, Recipe
from ..imaging.render import render
from ..inventory import kinds
from ..key import ImageKey
from ..store import KeyedStore, Store
from ..version import VERSION
from .database import Sessions
from .stores import credentials_of

__all__ = ["Check", "check_formats", "check_store", "check_tables", "versions"]

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
    """Connect to the database, and look whether the tables of the models have all columns."""
    async with sessions() as session:
        connection = await session.connection()
        number = ".".join(map(str, connection.dialect.server_version_info or ()))
        yield Check("database", "ok", f"{connection.dialect.name} {number} answers")
        for kind in () if models is None else kinds(models):
            for table in kind.mapper.tables:
                yield await connection.run_sync(_check_table, table)


def _check_table(connection: Connection, table: Any) -> Check:
    inspector = inspect(connection)
    if not inspector.has_table(table.name, schema=table.schema):
        return Check("tables", "trouble", f"{table.fullname} is missing")
    there = {column["name"] for column in inspector.get_columns(table.name, schema=table.schema)}
    missing = [column.name for column in table.columns if column.name not in there]
    if missing:
        return Check("tables", "trouble", f"{table.fullname} lacks {', '.join(missing)}: migrate the schema")
    return Check("tables", "ok", f"{table.fullname} has all columns")


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
