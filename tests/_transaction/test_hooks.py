"""The SQLAlchemy events on which the package relies, and their order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import ForeignKey, String, delete, event
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

from tests.databases import Database


class Base(DeclarativeBase):
    """Declarative base of these models, which have no files."""


class Parent(Base):
    """A parent of children that are deleted when orphaned."""

    __tablename__ = "parent"
    id: Mapped[int] = mapped_column(primary_key=True)
    children: Mapped[list[Child]] = relationship(cascade="all, delete-orphan", lazy="selectin")


class Child(Base):
    """A child of a parent."""

    __tablename__ = "child"
    id: Mapped[int] = mapped_column(primary_key=True)
    parent_id: Mapped[int] = mapped_column(ForeignKey("parent.id"))
    name: Mapped[str | None] = mapped_column(String(20))


SESSION = ["before_commit", "after_commit", "after_rollback", "before_flush", "after_flush", "after_flush_postexec"]
CONNECTION = ["begin", "commit", "rollback", "savepoint", "rollback_savepoint", "release_savepoint"]
OBJECT = ["pending_to_persistent", "persistent_to_deleted", "persistent_to_transient"]


class Heard:
    """Record the events of a session, its connection and its pool, in order."""

    def __init__(self, engine: AsyncEngine, session: AsyncSession) -> None:
        self.said: list[str] = []
        sync = session.sync_session
        for name in SESSION:
            event.listen(sync, name, self._note(name))
        for name in CONNECTION:
            event.listen(engine.sync_engine, name, self._note(f"sql {name}"))
        for name in OBJECT:
            event.listen(sync, name, self._note(name))
        event.listen(engine.sync_engine, "checkin", self._note("connection returned"))
        event.listen(engine.sync_engine, "before_cursor_execute", self._statement)
        event.listen(sync, "after_transaction_end", self._ended)

    def _note(self, name: str) -> Callable[..., None]:
        def note(*arguments: Any) -> None:
            nested = isinstance(arguments[0], Session) and arguments[0].in_nested_transaction()
            self.said.append(f"{name}, nested" if nested and name.startswith("after_") else name)

        return note

    def _statement(self, connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        self.said.append(statement.split()[0])

    def _ended(self, session: Session, transaction: Any) -> None:
        kind = "savepoint" if transaction.nested else "part" if transaction.parent is not None else "root"
        self.said.append(f"end of {kind}")


@pytest.fixture
async def engine(database: Database) -> AsyncEngine:
    """Each database in turn, with a parent and a child."""
    await database.create(Base.metadata)
    engine = database.engine()
    async with AsyncSession(engine) as session, session.begin():
        session.add(Parent(id=1, children=[Child(id=1)]))
    return engine


@pytest.mark.parametrize("how", ["commit", "rollback", "close", "reset", "invalidate", "block"])
async def test_the_end_of_the_root_is_the_last_event(engine: AsyncEngine, how: str) -> None:
    """For each kind of ending, this event follows the return of the connection, and no event follows it."""
    async with AsyncSession(engine) as session:
        heard = Heard(engine, session)
        session.add(Child(id=2, parent_id=1))
        await session.flush()
        if how != "block":
            await getattr(session, how)()
            assert heard.said[-1] == "end of root"
    assert heard.said[-1] == "end of root"
    assert heard.said.count("end of root") == 1
    if how != "invalidate":
        assert "connection returned" in heard.said


@pytest.mark.parametrize("how", ["close", "reset", "invalidate", "block"])
async def test_closing_is_not_reported_as_a_rollback(engine: AsyncEngine, how: str) -> None:
    """The database rolls back, and only the end of the transaction reports this."""
    async with AsyncSession(engine) as session:
        heard = Heard(engine, session)
        session.add(Child(id=2, parent_id=1))
        await session.flush()
        if how != "block":
            await getattr(session, how)()
    assert "after_rollback" not in heard.said
    async with AsyncSession(engine) as session:
        assert await session.get(Child, 2) is None


async def test_a_commit_in_order(engine: AsyncEngine) -> None:
    """The connection announces COMMIT after the last statement, before the event of the session."""
    async with AsyncSession(engine) as session:
        heard = Heard(engine, session)
        session.add(Child(id=2, parent_id=1))
        await session.commit()
    assert [word for word in heard.said if word != "BEGIN"] == [
        "before_commit",
        "before_flush",
        "sql begin",
        "INSERT",
        "after_flush",
        "pending_to_persistent",
        "after_flush_postexec",
        "end of part",
        "sql commit",
        "after_commit",
        "connection returned",
        "end of root",
    ]


async def test_a_released_savepoint_is_reported_as_committed(engine: AsyncEngine) -> None:
    """``after_commit`` fires with the nested transaction, the connection reports no COMMIT, and the end follows."""
    async with AsyncSession(engine) as session:
        heard = Heard(engine, session)
        async with session.begin_nested():
            session.add(Child(id=2, parent_id=1))
        words = heard.said
        order = [words.index(word) for word in ("sql release_savepoint", "after_commit, nested", "end of savepoint")]
        assert order == sorted(order)
        assert "sql commit" not in words
        await session.rollback()
        assert words[-1] == "end of root"


async def test_a_savepoint_rolled_back(engine: AsyncEngine) -> None:
    """``after_rollback`` fires while the savepoint is still current, and the row no longer exists."""
    async with AsyncSession(engine) as session:
        heard = Heard(engine, session)
        nested = await session.begin_nested()
        session.add(child := Child(id=2, parent_id=1))
        await session.flush()
        await nested.rollback()
        assert child not in session
        words = heard.said
        assert words.index("sql rollback_savepoint") < words.index("after_rollback, nested")
        assert "persistent_to_transient" in words
        assert "end of root" not in words


async def test_a_commit_with_an_open_savepoint(engine: AsyncEngine) -> None:
    """``before_commit`` fires for the root while the savepoint is current, and again for the savepoint."""
    async with AsyncSession(engine) as session:
        heard = Heard(engine, session)
        async with session.begin():
            await session.begin_nested()
            session.add(Child(id=2, parent_id=1))
    words = heard.said
    assert words.count("before_commit") == 2
    assert words.index("before_commit") < words.index("INSERT") < words.index("sql commit")
    assert words[-1] == "end of root"


async def test_a_failed_flush_rolls_back_immediately(engine: AsyncEngine) -> None:
    """The database has rolled back, and the session reports the end when it is rolled back."""
    async with AsyncSession(engine) as session:
        heard = Heard(engine, session)
        session.add(Child(id=1, parent_id=1))
        with pytest.raises(IntegrityError):
            await session.flush()
        assert "after_rollback" in heard.said
        assert "end of root" not in heard.said
        await session.rollback()
        assert heard.said[-1] == "end of root"


@pytest.mark.parametrize("where", ["after_flush", "after_flush_postexec"])
async def test_an_error_in_a_hook_after_the_statements_rolls_back(engine: AsyncEngine, where: str) -> None:
    """Therefore a row whose file could not be stored is not kept."""

    def refuse(*_: Any) -> None:
        raise ZeroDivisionError

    async with AsyncSession(engine) as session:
        event.listen(session.sync_session, where, refuse)
        session.add(Child(id=2, parent_id=1))
        with pytest.raises(ZeroDivisionError):
            await session.flush()
        await session.rollback()
        assert await session.get(Child, 2) is None


async def test_an_error_before_the_statements_does_not_roll_back(engine: AsyncEngine) -> None:
    """Therefore the flush can be retried."""
    async with AsyncSession(engine) as session:
        refusals = [ZeroDivisionError()]

        def refuse(*_: Any) -> None:
            if refusals:
                raise refusals.pop()

        event.listen(session.sync_session, "before_flush", refuse)
        session.add(child := Child(id=2, parent_id=1))
        with pytest.raises(ZeroDivisionError):
            await session.flush()
        assert child in session.new
        await session.commit()
        assert await session.get(Child, 2) is child


async def test_only_the_session_reports_orphans_and_switched_rows(engine: AsyncEngine) -> None:
    """``persistent_to_deleted`` also reports, for example, a row that is replaced under the same key."""
    by_mapper: list[int] = []

    def note(mapper: Any, connection: Any, child: Child) -> None:
        by_mapper.append(child.id)

    event.listen(Child, "after_delete", note)
    try:
        async with AsyncSession(engine) as session:
            heard = Heard(engine, session)
            parent = await session.get_one(Parent, 1)
            await session.delete(parent.children[0])
            session.add(Child(id=1, parent_id=1, name="in its place"))
            await session.flush()
            assert heard.said.count("persistent_to_deleted") == 1
            assert "UPDATE" in heard.said
            assert "DELETE" not in heard.said
            await session.refresh(parent)
            parent.children.clear()
            await session.flush()
            assert heard.said.count("persistent_to_deleted") == 2
    finally:
        event.remove(Child, "after_delete", note)
    assert by_mapper == [1]


async def test_bulk_deletes_report_loaded_objects(engine: AsyncEngine) -> None:
    """Bulk statements report only loaded objects."""
    async with AsyncSession(engine) as session:
        heard = Heard(engine, session)
        await session.execute(delete(Child))
        assert "persistent_to_deleted" not in heard.said
        await session.rollback()
        child = await session.get_one(Child, 1)
        await session.execute(delete(Child))
        assert child in session.deleted or child not in session
        assert "persistent_to_deleted" in heard.said


@pytest.mark.parametrize("mode", ["conditional_savepoint", "rollback_only", "control_fully", "create_savepoint"])
async def test_a_session_in_an_outer_transaction_reports_a_commit(engine: AsyncEngine, mode: Any) -> None:
    """Every join mode reports ``after_commit``, but only one of them commits."""
    async with engine.connect() as connection:
        outer = await connection.begin()
        async with AsyncSession(connection, join_transaction_mode=mode) as session:
            heard = Heard(engine, session)
            session.add(Child(id=2, parent_id=1))
            await session.commit()
            assert "after_commit" in heard.said
            assert ("sql commit" in heard.said) == (mode == "control_fully")
            bind = session.sync_session.get_bind(Child)
            assert bind is connection.sync_connection
        if outer.is_active:
            await outer.rollback()
