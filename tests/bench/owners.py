"""The images of many owners in one transaction, compared with rows of SQLAlchemy alone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from sqlalchemy import ForeignKey, event, select
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.orm import Mapped, mapped_column, relationship

from aioimageattach import bind_store
from aioimageattach.stores import MemoryStore
from tests import photos
from tests.databases import PostgreSQL

from .measure import Timer, save, say
from .models import Base, Sessions, User, prepared

__all__ = ["run"]

COUNTS = (1000, 4000)


class Owner(Base):
    """An owner without the library."""

    __tablename__ = "plain_owner"
    id: Mapped[int] = mapped_column(primary_key=True)
    rows: Mapped[list[Row]] = relationship(cascade="all, delete-orphan", lazy="selectin")


class Row(Base):
    """A row with as many columns as that of the library."""

    __tablename__ = "plain_row"
    owner_id: Mapped[int] = mapped_column(ForeignKey(Owner.id), primary_key=True)
    width: Mapped[int] = mapped_column(primary_key=True)
    height: Mapped[int] = mapped_column(primary_key=True)
    variant: Mapped[str] = mapped_column(primary_key=True)
    mimetype: Mapped[str]
    original: Mapped[bool]
    revision: Mapped[str]
    byte_size: Mapped[int]
    sha256: Mapped[str]


@contextmanager
def _statements(engine: AsyncEngine) -> Iterator[list[str]]:
    found: list[str] = []

    def note(connection: object, cursor: object, statement: str, *rest: object) -> None:
        found.append(statement)

    event.listen(engine.sync_engine, "before_cursor_execute", note)
    try:
        yield found
    finally:
        event.remove(engine.sync_engine, "before_cursor_execute", note)


def _row(width: int) -> Row:
    text = "0" * 64
    return Row(
        width=width,
        height=20,
        variant="",
        mimetype="image/png",
        original=True,
        revision=text[:26],
        byte_size=1,
        sha256=text,
    )


Step = Callable[[Any, int], Awaitable[None]]


def _steps(blob: bytes) -> dict[str, tuple[Step, Step]]:
    """Return the operations on the owners, with and without the library."""

    async def attach(session: Any, count: int) -> None:
        for number in range(count):
            session.add(user := User(id=number))
            await user.picture.from_raw_file(blob, size=(30, 20), mimetype="image/png")

    async def insert(session: Any, count: int) -> None:
        session.add_all(Owner(id=number, rows=[_row(30)]) for number in range(count))

    async def replace(session: Any, count: int) -> None:
        for user in await session.scalars(select(User)):
            await user.picture.from_raw_file(blob, size=(40, 20), mimetype="image/png")

    async def exchange(session: Any, count: int) -> None:
        for owner in await session.scalars(select(Owner)):
            owner.rows[:] = [_row(40)]

    async def delete(session: Any, count: int) -> None:
        for user in await session.scalars(select(User)):
            await session.delete(user)

    async def remove(session: Any, count: int) -> None:
        for owner in await session.scalars(select(Owner)):
            await session.delete(owner)

    return {"attach": (attach, insert), "replace": (replace, exchange), "delete": (delete, remove)}


async def _measure(sessions: Sessions, engine: AsyncEngine, step: Step, count: int) -> tuple[float, int]:
    with _statements(engine) as statements, Timer() as timer:
        async with sessions() as session, session.begin():
            await step(session, count)
    return 1e3 * timer.sample.cpu, len(statements)


def run(rounds: int) -> None:
    """Run the measurements, once per number of owners, and save the result as ``owners``."""
    blob = photos.saved(photos.opened("coffee", (30, 20)), "PNG")
    table: list[dict[str, Any]] = []
    with ExitStack() as held:
        server = PostgreSQL()
        held.callback(server.close)
        runner = held.enter_context(asyncio.Runner())
        for count in COUNTS:
            server.empty()
            engine = create_async_engine(server.url.set(drivername="postgresql+asyncpg"))
            manager = prepared(engine)
            sessions = runner.run(manager.__aenter__())
            bind_store(sessions, MemoryStore())
            for name, (ours, plain) in _steps(blob).items():
                cpu, statements = runner.run(_measure(sessions, engine, ours, count))
                other, others = runner.run(_measure(sessions, engine, plain, count))
                table.append(
                    {
                        "step": name,
                        "owners": count,
                        "cpu_ms": cpu,
                        "statements": statements,
                        "plain_cpu_ms": other,
                        "plain_statements": others,
                    }
                )
                say(
                    f"  {name} {count}: {cpu:.0f} ms CPU, {statements} statements;"
                    f" plain rows {other:.0f} ms, {others} statements"
                )
            runner.run(manager.__aexit__(None, None, None))
    save("owners", {"table": table})
