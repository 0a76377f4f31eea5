"""Row locks: the locked rows, identified by any columns, and the number of statements."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Connection, ForeignKey, String, event, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import DeclarativeBase, InstanceState, Mapped, Mapper, mapped_column
from sqlalchemy.orm.attributes import instance_state

from aioimageattach._transaction.locks import OwnerRow, lock_owners
from tests.databases import Database


class Base(DeclarativeBase):
    """Declarative base of these models."""


class Person(Base):
    """A class with a subclass in a separate table."""

    __tablename__ = "person"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(10))
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "person"}


class Member(Person):
    """A class that is also identified by a code."""

    __tablename__ = "member"
    id: Mapped[int] = mapped_column(ForeignKey("person.id"), primary_key=True)
    code: Mapped[str] = mapped_column(String(10), unique=True)
    __mapper_args__ = {"polymorphic_identity": "member"}


class Seat(Base):
    """A class with a composite primary key."""

    __tablename__ = "seat"
    row: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    letter: Mapped[str] = mapped_column(String(1), primary_key=True)


@pytest.fixture
async def engine(database: Database) -> AsyncEngine:
    """Five people, two of whom are members, and three seats."""
    await database.create(Base.metadata)
    engine = database.engine()
    async with AsyncSession(engine) as session, session.begin():
        session.add_all([Member(id=1, code="a"), Person(id=2), Member(id=3, code="b"), Person(id=4), Person(id=5)])
        session.add_all([Seat(row=1, letter="a"), Seat(row=1, letter="b"), Seat(row=2, letter="a")])
    return engine


def owner(cls: type[Any], *key: Any, columns: tuple[Any, ...] = ()) -> OwnerRow:
    mapper: Mapper[Any] = cls.__mapper__
    return OwnerRow(mapper, columns, key, instance_state(cls()))


async def locked(
    engine: AsyncEngine, cls: type[Any], owners: list[OwnerRow], others: tuple[InstanceState[Any], ...] = ()
) -> tuple[set[Any], list[str]]:
    """Lock rows in one transaction; return the keys that another one cannot lock, and the statements of the first."""
    statements: list[str] = []

    def note(connection: Connection, cursor: object, statement: str, *rest: object) -> None:
        statements.append(statement)

    keys = cls.__mapper__.primary_key
    async with engine.connect() as one, engine.connect() as other:
        event.listen(one.sync_connection, "before_cursor_execute", note)
        await one.run_sync(lock_owners, owners, others)
        free = set(map(tuple, await other.execute(select(*keys).with_for_update(skip_locked=True))))
        every = set(map(tuple, await other.execute(select(*keys))))
    return every - free, statements


BY_CODE = (Member.__table__.c.code,)
CASES: dict[str, tuple[type[Any], Callable[[], list[OwnerRow]], set[Any], int]] = {
    "by primary key": (Person, lambda: [owner(Person, 4), owner(Person, 2)], {(2,), (4,)}, 1),
    "with a subclass": (Person, lambda: [owner(Member, 3), owner(Person, 2)], {(2,), (3,)}, 1),
    "by another column": (Person, lambda: [owner(Member, "b", columns=BY_CODE), owner(Person, 5)], {(3,), (5,)}, 2),
    "by two columns": (Seat, lambda: [owner(Seat, 2, "a"), owner(Seat, 1, "b")], {(1, "b"), (2, "a")}, 1),
    "more than one statement holds": (
        Person,
        lambda: [owner(Person, key) for key in range(1, 1500)],
        {*zip(range(1, 6))},
        2,
    ),
    "without an order in Python": (Person, lambda: [owner(Person, 1), owner(Person, None)], {(1,)}, 1),
}


@pytest.mark.parametrize("case", CASES)
async def test_locked_rows(database: Database, engine: AsyncEngine, case: str) -> None:
    """Only rows of the base table are locked; on SQLite, no statement is sent."""
    cls, owners, keys, count = CASES[case]
    found, statements = await locked(engine, cls, owners())
    if database.name == "sqlite":
        assert (found, statements) == (set(), [])
    else:
        assert (found, len(statements)) == (keys, count)


async def test_other_rows_are_locked_with_them(database: Database, engine: AsyncEngine) -> None:
    """Objects of the session in the same table are locked by the same statement; others are not."""
    async with AsyncSession(engine) as session:
        same, elsewhere = await session.get_one(Member, 1), await session.get_one(Seat, (1, "a"))
        others = (instance_state(same), instance_state(elsewhere), instance_state(Person()))
    found, statements = await locked(engine, Person, [owner(Person, 2)], others)
    assert (found, len(statements)) == ((set(), 0) if database.name == "sqlite" else ({(1,), (2,)}, 1))
