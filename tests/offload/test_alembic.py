"""Alembic compares the columns correctly, and migrations do not import this library."""

from __future__ import annotations

from typing import Any

import pytest
from alembic.autogenerate import compare_metadata, produce_migrations, render_python_code
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import Connection, MetaData, String, Text, text
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from aioimageattach.context import bind_store
from aioimageattach.offload import StoredFile, StoredText, stored_file, stored_text
from tests.databases import Database
from tests.faults.stores import FaultyStore


def models(*, before: bool = False) -> tuple[Any, MetaData]:
    """Return a class with an offloaded column in each form, or as it was before."""

    class Base(DeclarativeBase):
        pass

    class Paper(Base):
        __tablename__ = "paper"
        id: Mapped[int] = mapped_column(primary_key=True)
        if not before:
            body: Mapped[StoredText | None] = stored_text(comment="in the store")
            note: Mapped[StoredText | None] = stored_text(inline_below=100)
            told: Mapped[StoredText | None] = stored_text(default="once")
            scan: Mapped[StoredFile | None] = stored_file()

    return Paper, Base.metadata


async def differences(database: Database, metadata: MetaData) -> list[Any]:
    def compare(connection: Connection) -> list[Any]:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        return list(compare_metadata(context, metadata))

    async with database.reader.connect() as connection:
        return await connection.run_sync(compare)


async def test_created_tables_need_no_migration(database: Database) -> None:
    """Neither types nor defaults, which the database does not contain, are reported as different."""
    _, metadata = models()
    await database.create(metadata)
    assert await differences(database, metadata) == []


@pytest.mark.parametrize("limit", [0, 100])
async def test_a_changed_limit_is_detected(database: Database, limit: int) -> None:
    """Adding or removing ``inline_below`` changes the type in the database."""

    class Base(DeclarativeBase):
        pass

    class Paper(Base):
        __tablename__ = "paper"
        id: Mapped[int] = mapped_column(primary_key=True)
        body: Mapped[str | None] = mapped_column(String(255) if limit else Text)

    class NewBase(DeclarativeBase):
        pass

    class NewPaper(NewBase):
        __tablename__ = "paper"
        id: Mapped[int] = mapped_column(primary_key=True)
        body: Mapped[StoredText | None] = stored_text(inline_below=limit, index=False)

    await database.create(Base.metadata)
    [[(what, _, table, column, *_)]] = await differences(database, NewBase.metadata)
    assert (what, table, column) == ("modify_type", "paper", "body")


async def test_a_migration_that_adds_columns(database: Database, store: FaultyStore) -> None:
    """The migration contains only types of SQLAlchemy, and existing rows have no value."""
    _, old = models(before=True)
    await database.create(old)
    paper, metadata = models()
    async with database.reader.begin() as connection:
        await connection.execute(text("INSERT INTO paper (id) VALUES (1)"))

    def upgrade(connection: Connection) -> str:
        context = MigrationContext.configure(connection)
        script = produce_migrations(context, metadata)
        assert script.upgrade_ops is not None
        code = render_python_code(script.upgrade_ops, migration_context=context)
        import sqlalchemy

        with Operations.context(context) as op:
            source = "def upgrade():\n" + code
            scope: dict[str, Any] = {"op": op, "sa": sqlalchemy}
            exec(source, scope)
            scope["upgrade"]()
        return code

    async with database.reader.begin() as connection:
        code = await connection.run_sync(upgrade)
    assert "sa.Column('body', sa.String(length=255), nullable=True, comment='in the store')" in code
    assert "sa.Column('note', sa.Text(), nullable=True)" in code
    assert "sa.Column('scan', sa.String(length=512), nullable=True)" in code
    assert "aioimageattach" not in code
    assert await differences(database, metadata) == []
    sessions = async_sessionmaker(database.engine())
    bind_store(sessions, store)
    async with sessions() as session, session.begin():
        row = await session.get_one(paper, 1)
        assert row.body is None
        row.body, row.note = "new", "new"
    async with sessions() as session:
        row = await session.get_one(paper, 1)
        assert await row.body.load() == row.note.value == "new"
