"""Sessions without images, in a process that has imported the library, and in one with SQLAlchemy alone."""

from __future__ import annotations

import asyncio
import importlib
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from .measure import Sample, Timer, interleaved, ratio, save, say, summary

__all__ = ["run"]

COUNT = 300
"""Number of transactions over which one measurement is averaged."""


class Base(DeclarativeBase):
    """The declarative base of a table without images."""


class Note(Base):
    """A row without a file."""

    __tablename__ = "note"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]


async def insert(session: AsyncSession, number: int) -> None:
    """Run one flush."""
    session.add(Note(text="new"))


async def update(session: AsyncSession, number: int) -> None:
    """Run a query and a flush."""
    (await session.get_one(Note, 1)).text = str(number)


async def read(session: AsyncSession, number: int) -> None:
    """Run a query."""
    await session.scalar(select(Note).where(Note.id == 1))


STEPS: dict[str, Callable[[AsyncSession, int], Awaitable[None]]] = {
    step.__name__: step for step in (insert, update, read)
}


class _Process:
    """A process that measures on request."""

    def __init__(self, name: str) -> None:
        command = [sys.executable, "-m", "tests.bench.idle", name]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def measure(self, step: str) -> Sample:
        """Return the time of one transaction."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        print(step, file=stdin, flush=True)
        return Sample(*json.loads(stdout.readline()))

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def run(rounds: int) -> None:
    """Run the measurements, and save the result as ``idle``."""
    table: list[dict[str, Any]] = []
    with ExitStack() as held:
        processes = {name: _Process(name) for name in ("sqlalchemy", "aioimageattach")}
        for process in processes.values():
            held.callback(process.close)
        for step in STEPS:
            samples = interleaved(
                {
                    name: (lambda process=process, step=step: process.measure(step))
                    for name, process in processes.items()
                },
                rounds,
                lambda _: None,
            )
            plain, ours = samples["sqlalchemy"], samples["aioimageattach"]
            ms, our_ms, times = summary(plain)["cpu_ms"], summary(ours)["cpu_ms"], ratio(ours, plain)
            table.append({"step": step, "plain": summary(plain), "ours": summary(ours), "ratio": times})
            say(
                f"  {step:8} {ms:.3f} ms CPU with SQLAlchemy alone, {our_ms:.3f} ms with the library:"
                f" {our_ms - ms:+.3f} ms, {times:.2f} x"
            )
    save("idle", {"table": table, "rounds": rounds, "count": COUNT})


async def _work(name: str) -> None:
    if name == "aioimageattach":
        importlib.import_module("aioimageattach.entity")
        importlib.import_module("aioimageattach.offload")
    engine = create_async_engine("sqlite+aiosqlite://")
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    sessions = async_sessionmaker(engine)
    async with sessions.begin() as session:
        session.add(Note(id=1, text="first"))
    for line in sys.stdin:
        step = STEPS[line.strip()]
        with Timer() as timer:
            for number in range(COUNT):
                async with sessions.begin() as session:
                    await step(session, number)
        print(json.dumps([timer.sample.cpu / COUNT, timer.sample.wall / COUNT]), flush=True)
    await engine.dispose()


if __name__ == "__main__":
    asyncio.run(_work(sys.argv[1]))
