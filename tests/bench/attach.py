"""Attaching an image and committing, compared with an INSERT and a file written by hand."""

from __future__ import annotations

import asyncio
import os
import tempfile
import uuid
from collections.abc import Callable, Coroutine
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import ForeignKey, String
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.orm import Mapped, mapped_column

from aioimageattach import Store
from aioimageattach._threads import run_pixels
from aioimageattach.file import Spool
from aioimageattach.imaging import probe
from aioimageattach.imaging._limits import DEFAULT_LIMITS
from aioimageattach.stores import MemoryStore
from aioimageattach.stores.fs import FileSystemStore
from tests import photos
from tests.databases import PostgreSQL

from . import originals
from .measure import Sample, Timer, interleaved, ratio, save, say, summary
from .models import Base, Sessions, User, prepared, sqlite

__all__ = ["run"]


class Person(Base):
    """An owner without the library."""

    __tablename__ = "person"
    id: Mapped[int] = mapped_column(primary_key=True)


class PersonPicture(Base):
    """A row with as many columns as the library's."""

    __tablename__ = "person_picture"
    person_id: Mapped[int] = mapped_column(ForeignKey("person.id"), primary_key=True)
    width: Mapped[int] = mapped_column(primary_key=True)
    height: Mapped[int] = mapped_column(primary_key=True)
    variant: Mapped[str] = mapped_column(String(32), primary_key=True)
    mimetype: Mapped[str]
    original: Mapped[bool]
    created_at: Mapped[datetime]
    revision: Mapped[str] = mapped_column(unique=True)
    byte_size: Mapped[int]
    sha256: Mapped[str | None]


def _write(path: str, blob: bytes) -> None:
    with open(path, "xb") as file:
        file.write(blob)
        file.flush()
        os.fsync(file.fileno())


def _write_safely(path: str, blob: bytes) -> None:
    """Write a file atomically and durably."""
    _write(f"{path}.part", blob)
    os.rename(f"{path}.part", path)
    directory = os.open(os.path.dirname(path), os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


async def _attach(sessions: Sessions, store: Store, blob: bytes) -> None:
    async with sessions() as session:
        user = User()
        session.add(user)
        await user.picture.from_blob(blob, store)
        await session.commit()


async def _bare(sessions: Sessions, folder: Path, blob: bytes, write: Callable[[str, bytes], None]) -> None:
    name = uuid.uuid4().hex
    async with sessions() as session:
        person = Person()
        session.add(person)
        await session.flush()
        session.add(
            PersonPicture(
                person_id=person.id,
                width=4000,
                height=3000,
                variant="",
                mimetype="image/jpeg",
                original=True,
                created_at=datetime.now(UTC).replace(tzinfo=None),
                revision=name,
                byte_size=len(blob),
                sha256=None,
            )
        )
        await asyncio.to_thread(write, str(folder / f"{name}.jpg"), blob)
        await session.commit()


def _no_file(path: str, blob: bytes) -> None:
    """Write no file, to measure the rows alone."""


async def _examine(blob: bytes) -> None:
    """Process the bytes as before attaching: checksum and header."""
    spool = await Spool.fill(blob, defer_hash=True)
    await run_pixels(probe, spool.view, DEFAULT_LIMITS)
    await run_pixels(spool.complete_hash)


def _engines(held: ExitStack, folder: Path) -> dict[str, AsyncEngine]:
    engines = {"SQLite": sqlite(folder)}
    try:
        server = PostgreSQL()
    except psycopg.OperationalError as error:
        say(f"  missing: PostgreSQL: {error}")
        return engines
    held.callback(server.close)
    durable = {"server_settings": {"synchronous_commit": "on"}}
    engines["PostgreSQL"] = create_async_engine(server.url.set(drivername="postgresql+asyncpg"), connect_args=durable)
    return engines


def run(rounds: int) -> None:
    """Run the measurements, and save the result as ``attach``."""
    tables = []
    with ExitStack() as held:
        # not in a file system in memory, where fsync does nothing
        base = Path(held.enter_context(tempfile.TemporaryDirectory(dir=Path(__file__).parent)))
        runner = held.enter_context(asyncio.Runner())
        for database, engine in _engines(held, base).items():
            manager = prepared(engine)
            sessions = runner.run(manager.__aenter__())
            for what, blob in (("photo of 71 kB", photos.photo("coffee")), ("photo of 3.9 MB", originals.large())):
                folder = base / f"{database}-{len(blob)}"
                folder.mkdir()
                tables.append(_table(runner, sessions, folder, blob, rounds, f"{database}, {what}"))
            runner.run(manager.__aexit__(None, None, None))
    save("attach", {"tables": tables, "rounds": rounds})


def _table(
    runner: asyncio.Runner, sessions: Sessions, folder: Path, blob: bytes, rounds: int, label: str
) -> dict[str, Any]:
    store = FileSystemStore(folder / "store", "/")

    def measured(make: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], Sample]:
        async def run_one() -> Sample:
            with Timer() as timer:
                await make()
            return timer.sample

        return lambda: runner.run(run_one())

    samples = interleaved(
        {
            "insert + file": measured(lambda: _bare(sessions, folder, blob, _write)),
            "insert + durable file": measured(lambda: _bare(sessions, folder, blob, _write_safely)),
            "attach + commit": measured(lambda: _attach(sessions, store, blob)),
            "part: rows": measured(lambda: _bare(sessions, folder, blob, _no_file)),
            "part: file": measured(lambda: asyncio.to_thread(_write, str(folder / f"{uuid.uuid4().hex}.jpg"), blob)),
            "part: examine": measured(lambda: _examine(blob)),
            "part: put": measured(lambda: store.put_object(f"part/{uuid.uuid4().hex}.jpg", blob)),
            "attach to memory": measured(lambda: _attach(sessions, MemoryStore(), blob)),
        },
        rounds,
        lambda _: None,
    )
    base = samples["insert + file"]
    say(f"  {label}")
    table = {}
    for name, found in samples.items():
        row = table[name] = {**summary(found), "ratio": ratio(found, base)}
        row["wall_ratio"] = row["wall_ms"] / (table["insert + file"]["wall_ms"])
        say(f"    {name:22} {row['cpu_ms']:7.2f} ms CPU ({row['ratio']:.2f} x), {row['wall_ms']:6.1f} ms")
    with suppress(OSError):
        for path in folder.glob("*.jpg"):
            path.unlink()
    return {"label": label, "contenders": table}
