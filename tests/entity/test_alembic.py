"""Alembic compares the tables of images correctly on each database, and its migrations run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata, produce_migrations
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import Connection, ForeignKey, MetaData, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from aioimageattach.entity import Image, MultipleImageSet, image_attachment
from tests import photos
from tests.databases import Database
from tests.entity.models import CountingStore, started

CONVENTIONS = {
    "ix": "ix_%(column_0_label)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}
ENV = """
from alembic import context
connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=context.config.attributes["metadata"], render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
"""
TEMPLATE = """
from alembic import op
import sqlalchemy as sa
${imports if imports else ""}
revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}

def upgrade():
    ${upgrades}

def downgrade():
    ${downgrades}
"""


def models(conventions: dict[str, str] | None) -> tuple[tuple[Any, ...], MetaData]:
    class Base(DeclarativeBase):
        metadata = MetaData(naming_convention=conventions)

    class Owner(Base):
        __tablename__ = "owner"
        id: Mapped[int] = mapped_column(primary_key=True)
        picture = image_attachment("Picture")
        photos = image_attachment["Photo", MultipleImageSet["Photo"]]("Photo", uselist=True)

    class Picture(Base, Image):
        __tablename__ = "picture"
        owner_id: Mapped[int] = mapped_column(ForeignKey("owner.id"), primary_key=True)

    class Photo(Base, Image):
        __tablename__ = "photo"
        owner_id: Mapped[int] = mapped_column(ForeignKey("owner.id", ondelete="CASCADE"), primary_key=True)
        order_index: Mapped[int] = mapped_column(primary_key=True)

    return (Owner, Picture, Photo), Base.metadata


@pytest.mark.parametrize("conventions", [None, CONVENTIONS], ids=["unnamed", "named"])
async def test_created_tables_need_no_migration(conventions: dict[str, str] | None, database: Database) -> None:
    """Tables made by ``create_all`` do not differ from the models, including the types."""
    _, metadata = models(conventions)
    await database.create(metadata)

    def differences(connection: Connection) -> list[Any]:
        return compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), metadata)

    async with database.engine().connect() as connection:
        assert await connection.run_sync(differences) == []


async def test_a_changed_column_would_be_seen(database: Database) -> None:
    """The comparison can fail: a missing column is reported."""
    _, metadata = models(None)
    await database.create(metadata)
    _, changed = models(None)
    table = changed.tables["picture"]
    table._columns.remove(table.c.sha256)  # type: ignore[attr-defined]

    def operations(connection: Connection) -> Any:
        return produce_migrations(MigrationContext.configure(connection), changed).upgrade_ops

    async with database.engine().connect() as connection:
        assert not (await connection.run_sync(operations)).is_empty()


@pytest.mark.parametrize("conventions", [None, CONVENTIONS], ids=["unnamed", "named"])
async def test_a_generated_migration_runs(
    conventions: dict[str, str] | None, database: Database, store: CountingStore, tmp_path: Path
) -> None:
    """The generated migration creates the tables, needs no second one, and can be downgraded."""
    (owner, *_images), metadata = models(conventions)  # mappers live as long as their classes
    scripts = tmp_path / "migrations"
    (scripts / "versions").mkdir(parents=True)
    (scripts / "env.py").write_text(ENV)
    (scripts / "script.py.mako").write_text(TEMPLATE)
    config = Config()
    config.set_main_option("script_location", str(scripts))
    config.set_main_option("path_separator", "os")
    config.attributes["metadata"] = metadata

    def run(connection: Connection, name: str, *arguments: Any, **options: Any) -> None:
        config.attributes["connection"] = connection
        getattr(command, name)(config, *arguments, **options)

    async with database.engine().begin() as connection:
        await connection.run_sync(run, "revision", message="images", autogenerate=True)
    async with database.engine().begin() as connection:
        await connection.run_sync(run, "upgrade", "head")
    async with database.engine().begin() as connection:
        await connection.run_sync(run, "check")
    sessions = await started(database, MetaData())
    async with sessions() as session, session.begin():
        found = owner(id=1)
        session.add(found)
        image = await found.picture.from_blob(photos.photo("chelsea"), store)
        made_at = image.created_at
        await found.photos.get_image_set(order_index=1).from_blob(photos.photo("coffee"), store)
    async with sessions() as session:
        [found] = await session.scalars(select(owner))
        assert await found.picture.make_blob(store) == photos.photo("chelsea")
        assert found.picture.require_original().created_at == made_at
    async with database.engine().begin() as connection:
        await connection.run_sync(run, "downgrade", "base")
