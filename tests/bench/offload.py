"""A thousand texts of 100 KB in a bucket with 20 ms latency, compared with a TEXT column and a loop of single loads."""

from __future__ import annotations

import asyncio
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from sqlalchemy import Text, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, defer, mapped_column

from aioimageattach.context import store_context
from aioimageattach.offload import StoredText, load_stored, stored_text
from aioimageattach.store import KeyedStore
from aioimageattach.stores.fs import FileSystemStore
from aioimageattach.stores.s3 import S3Store
from tests.databases import PostgreSQL
from tests.servers.ministack import Ministack

from .measure import Sample, Timer, interleaved, save, say, summary

__all__ = ["run"]

COUNT = 1000
SIZE = 100_000
DISTANCE = 0.020
LISTS = 5


class Base(DeclarativeBase):
    """The declarative base."""


class InRow(Base):
    """A document whose text is in the row."""

    __tablename__ = "in_row"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    body: Mapped[str] = mapped_column(Text)


class Plain(Base):
    """A document whose text is in a store, uncompressed."""

    __tablename__ = "plain"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    body: Mapped[StoredText] = stored_text()


class Packed(Base):
    """A document whose text is in a store, compressed."""

    __tablename__ = "packed"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    body: Mapped[StoredText] = stored_text(compression="zstd")


def _texts() -> list[str]:
    """Return different texts of words, some of which are frequent."""
    dice = random.Random(7)
    words = ["".join(dice.choices("abcdefghijklmnopqrstuvwxyz", k=dice.randint(2, 11))) for _ in range(5000)]
    weights = [1 / (rank + 1) for rank in range(len(words))]
    long = " ".join(dice.choices(words, weights, k=SIZE // 2))
    starts = (dice.randrange(len(long) - SIZE) for _ in range(COUNT))
    return [f"{number:08d} " + long[start : start + SIZE - 9] for number, start in enumerate(starts)]


class _Bench:
    """The measurements. Each of them restores the tables.

    Args:
        sessions: Sessions on PostgreSQL.
        stores: The bucket, and a directory.
        texts: The texts to store.
    """

    def __init__(self, sessions: async_sessionmaker[AsyncSession], stores: dict[str, KeyedStore]) -> None:
        self.sessions = sessions
        self.stores = stores
        self.texts = _texts()

    def _rows(self, cls: type[Any], store: str, first: int) -> list[Any]:
        values: list[Any] = (
            self.texts if cls is InRow else [StoredText(text, store=self.stores[store]) for text in self.texts]
        )
        return [cls(id=number, title=f"document {number}", body=value) for number, value in enumerate(values, first)]

    async def fill(self, cls: type[Any], store: str, first: int) -> None:
        """Write the rows that are read."""
        async with self.sessions() as session, session.begin():
            session.add_all(self._rows(cls, store, first))

    async def write(self, cls: type[Any], store: str = "") -> Sample:
        """Insert all rows in one transaction, then delete them, which is not measured."""
        rows = self._rows(cls, store, 1_000_000)
        async with self.sessions() as session:
            with Timer() as timer:
                session.add_all(rows)
                await session.commit()
        with store_context(self.stores[store or "directory"]):
            async with self.sessions() as session, session.begin():
                for row in await session.scalars(select(cls).where(cls.id >= 1_000_000)):
                    await session.delete(row)
        return timer.sample

    async def read(self, cls: type[Any], how: str, store: str = "", first: int = 0) -> Sample:
        """Read all rows and all texts."""
        async with self.sessions() as session:
            with Timer() as timer:
                rows = list(await session.scalars(select(cls).where(cls.id.between(first, first + COUNT - 1))))
                if how == "loop":
                    for row in rows:
                        await row.body.load(self.stores[store])
                elif how == "load_stored":
                    await load_stored(rows, cls.body, store=self.stores[store])
            found = {row.body if cls is InRow else row.body.value for row in rows}
        assert found == set(self.texts)
        return timer.sample

    async def list(self, cls: type[Any], *options: Any) -> Sample:
        """Read all rows without texts that are deferred or in the store, several times."""
        with Timer() as timer:
            for _ in range(LISTS):
                async with self.sessions() as session:
                    rows = list(await session.scalars(select(cls).where(cls.id < COUNT).options(*options)))
                assert len(rows) == COUNT
        return Sample(timer.sample.cpu / LISTS, timer.sample.wall / LISTS)


async def _make(held: AsyncExitStack, base: Path) -> _Bench:
    server = Ministack(base)
    held.callback(server.close)
    server.create_bucket("texts", "us-east-1")
    command = [sys.executable, "-m", "tests.bench.latency", str(server.port), str(DISTANCE)]
    proxy = held.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
    held.callback(proxy.kill)
    assert proxy.stdout is not None
    url = f"http://127.0.0.1:{int(proxy.stdout.readline())}"
    bucket = S3Store("texts", "key", "secret", endpoint_url=url, region="us-east-1")
    held.push_async_callback(bucket.aclose)
    database = PostgreSQL()
    held.callback(database.close)
    engine = create_async_engine(
        database.url.set(drivername="postgresql+asyncpg"),
        connect_args={"server_settings": {"synchronous_commit": "on"}},
    )
    held.push_async_callback(engine.dispose)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    sessions = async_sessionmaker(engine, expire_on_commit=False)
    return _Bench(sessions, {"bucket": bucket, "directory": FileSystemStore(base / "files", "/")})


def run(rounds: int) -> None:
    """Measure writing, reading and listing in turn, and save the result as ``offload``."""
    with asyncio.Runner() as runner:
        held = AsyncExitStack()
        # not in a file system in memory, where fsync does nothing
        folder = tempfile.TemporaryDirectory(dir=Path(__file__).parent)
        held.callback(folder.cleanup)
        try:
            _measure(runner, runner.run(_make(held, Path(folder.name))), min(rounds, 3))
        finally:
            runner.run(held.aclose())


def _measure(runner: asyncio.Runner, bench: _Bench, rounds: int) -> None:
    for cls, store, first in ((InRow, "", 0), (Plain, "bucket", 0), (Packed, "bucket", 0), (Plain, "directory", COUNT)):
        runner.run(bench.fill(cls, store, first))
    contenders: dict[str, dict[str, Callable[[], Awaitable[Sample]]]] = {
        "write": {
            "TEXT": lambda: bench.write(InRow),
            "bucket": lambda: bench.write(Plain, "bucket"),
            "bucket, zstd": lambda: bench.write(Packed, "bucket"),
            "directory": lambda: bench.write(Plain, "directory"),
        },
        "read": {
            "TEXT": lambda: bench.read(InRow, "rows"),
            "bucket, loop": lambda: bench.read(Plain, "loop", "bucket"),
            "bucket": lambda: bench.read(Plain, "load_stored", "bucket"),
            "bucket, zstd": lambda: bench.read(Packed, "load_stored", "bucket"),
            "directory": lambda: bench.read(Plain, "load_stored", "directory", COUNT),
        },
        "list": {
            "TEXT": lambda: bench.list(InRow),
            "TEXT, deferred": lambda: bench.list(InRow, defer(InRow.body)),
            "stored": lambda: bench.list(Packed),
        },
    }
    result: dict[str, Any] = {}
    for what, calls in contenders.items():
        samples = interleaved(
            {name: lambda call=call: runner.run(_awaited(call)) for name, call in calls.items()},  # type: ignore[misc]
            rounds,
            lambda text, what=what: say(f"  {what}: {text}"),  # type: ignore[misc]
        )
        result[what] = {
            name: {**summary(some), "per_second": COUNT / statistics.median(one.wall for one in some)}
            for name, some in samples.items()
        }
    faster = result["read"]["bucket, loop"]["wall_ms"] / result["read"]["bucket"]["wall_ms"]
    say(f"  load_stored() is {faster:.1f} times as fast as the loop")
    save("offload", {"count": COUNT, "size": SIZE, **result, "faster": faster, "rounds": rounds})


async def _awaited(call: Callable[[], Awaitable[Sample]]) -> Sample:
    return await call()
