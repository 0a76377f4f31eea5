"""Files that rows of other declarative bases, or of unmapped tables, name are not orphans."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import ForeignKey, MetaData, bindparam, insert, text
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from aioimageattach.entity import Image, image_attachment
from aioimageattach.exc import RefusedError
from aioimageattach.maintenance import sweep
from aioimageattach.maintenance._lookalikes import _COLUMNS, _QUERIES
from tests.databases import Database, Servers
from tests.maintenance.conftest import AgedStore, Place, place_of, role_on, row
from tests.maintenance.models import Base, UserPicture


def shop(schema: str) -> tuple[type[Any], type[Any], type[Any]]:
    """Return a declarative base with its own schema, a class with pictures, and the class of the pictures."""

    class Own(DeclarativeBase):
        metadata = MetaData(schema=schema)

    class Customer(Own):
        __tablename__ = "customer"
        id: Mapped[int] = mapped_column(primary_key=True)
        picture = image_attachment("CustomerPicture")

    class CustomerPicture(Own, Image):
        __tablename__ = "customer_picture"
        user_id: Mapped[int] = mapped_column(ForeignKey(f"{schema}.customer.id"), primary_key=True)

    return Own, Customer, CustomerPicture


async def test_two_declarative_bases(postgresql: Database) -> None:
    """Two bases with different schemas have the same object type; the files of the other base are not orphans."""
    aged, engine = AgedStore(), postgresql.engine()
    sessions = async_sessionmaker(engine)
    bases = [shop(schema) for schema in ("shop", "crm")]
    for own_base, owner, picture in bases:
        async with engine.begin() as connection:
            schema = str(own_base.metadata.schema)
            await connection.execute(text(f"DROP SCHEMA IF EXISTS {schema} CASCADE"))
            await connection.execute(text(f"CREATE SCHEMA {schema}"))
            await connection.run_sync(own_base.metadata.create_all)
            rows = [row(number, aged.picture(object_type="customer-picture")) for number in range(1, 12)]
            await connection.execute(insert(owner), [{"id": number} for number in range(1, 12)])
            await connection.execute(insert(picture), rows)
    for own_base, _, _ in bases:
        progress = await sweep(sessions, own_base, aged.store, delete=True).execute()
        assert (progress.counts["named"], progress.counts["orphans"]) == (22, 0)
    async with engine.begin() as connection:
        for schema in ("shop", "crm"):
            await connection.execute(text(f"DROP SCHEMA {schema} CASCADE"))


async def test_a_base_without_a_database(place: Place) -> None:
    """Classes of a base that is not bound to a database in these sessions are ignored."""

    class Second(DeclarativeBase):
        pass

    class Elsewhere(Second, Image):
        __tablename__ = "elsewhere"
        number: Mapped[int] = mapped_column(primary_key=True)
        object_type = "user-picture"

    await place.rows(12)
    sessions = async_sessionmaker(binds={Base: place.engine})
    assert (await sweep(sessions, UserPicture, place.store, delete=True).execute()).counts["named"] == 12
    assert Elsewhere.__table__ is not None  # the class still exists


async def test_an_unmapped_table(any_place: Place) -> None:
    """Files that rows of an unmapped table name are kept, and the sweep reports the table."""
    place, aged = any_place, AgedStore()
    await aged.fill(place.engine, 30)
    async with place.engine.begin() as connection:
        await connection.execute(text("CREATE TABLE archive AS SELECT * FROM user_picture WHERE user_id < 6"))
        await connection.execute(text("DELETE FROM user_picture WHERE user_id < 6"))
    before = aged.names
    orphan = aged.picture()
    plan = sweep(place.sessions, Base, aged.store)
    assert [one.name async for one in plan] == [name for name in aged.names if orphan in name]
    [objection] = plan.objections
    assert "archive, to which no class is mapped, name 5 files: import its class" in objection.reason
    with pytest.raises(RefusedError):
        await sweep(place.sessions, Base, aged.store, delete=True, force=True).execute()
    assert aged.names > before


async def test_one_database_of_a_server_is_read(servers: Servers, tmp_path: Path) -> None:
    """On MariaDB, the tables of other databases are not opened: another application may be changing one of them."""
    query = text(f"EXPLAIN {_QUERIES['mariadb']}").bindparams(bindparam("columns", _COLUMNS, expanding=True))
    database = servers.database("asyncmy", tmp_path)
    async with database.engine().connect() as connection:
        plan = (await connection.execute(query, {"number": len(_COLUMNS)})).all()
    await database.aclose()
    assert ["Scanned 1 database" in str(row) for row in plan if "Scanned" in str(row)] == [True, True]


async def test_legacy_rows_of_an_unmapped_table(place: Place) -> None:
    """The names of their files are unknown, so legacy files are removed only with ``force``."""
    await place.rows(30)
    old = await place.name("user-picture/9/0/9.30x20.jpe")
    async with place.engine.begin() as connection:
        columns = "width INTEGER, height INTEGER, mimetype TEXT, original BOOLEAN, created_at TEXT"
        await connection.execute(text(f"CREATE TABLE older ({columns})"))
        await connection.execute(text("INSERT INTO older VALUES (1, 1, '', 1, '')"))
    plan = sweep(place.sessions, Base)
    assert [one.name async for one in plan] == [old]
    [objection] = plan.objections
    assert "rows of older, to which no class is mapped, may name files of SQLAlchemy-ImageAttach" in objection.reason
    assert [one.name async for one in sweep(place.sessions, Base, delete=True, force=True)] == [old]


async def test_an_unmapped_table_that_cannot_be_read(postgresql: Database, tmp_path: Path) -> None:
    """A table that the role cannot read is an objection, because its rows may name files."""
    aged = AgedStore()
    place = await place_of(postgresql, tmp_path / "media")
    await aged.fill(place.engine, 12)
    async with role_on(place.engine) as role:
        async with place.engine.begin() as connection:
            await connection.execute(text("CREATE TABLE archive AS SELECT * FROM user_picture"))
            await connection.execute(text(f"GRANT INSERT ON archive TO {role}"))
        reader = Place(postgresql, tmp_path / "media", connect_args={"server_settings": {"role": role}})
        orphan = aged.picture()
        words = "the table public.archive, to which no class is mapped, cannot be read: .*permission denied"
        with pytest.raises(RefusedError, match=words):
            await sweep(reader.sessions, Base, aged.store, delete=True, force=True).execute()
    assert any(orphan in name for name in aged.names)


async def test_a_detached_partition(postgresql: Database) -> None:
    """The rows of a detached partition, which is an unmapped table, name files."""
    aged, engine = AgedStore(), postgresql.engine()
    await aged.fill(engine, 30)
    async with engine.begin() as connection:
        for statement in (
            "CREATE TABLE parted (LIKE user_picture) PARTITION BY RANGE (user_id)",
            "CREATE TABLE part_1 PARTITION OF parted FOR VALUES FROM (0) TO (10)",
            "CREATE TABLE part_2 PARTITION OF parted FOR VALUES FROM (10) TO (1000)",
            "INSERT INTO parted SELECT * FROM user_picture",
            "DROP TABLE user_picture",
            "ALTER TABLE parted RENAME TO user_picture",
        ):
            await connection.execute(text(statement))
    sessions, before = async_sessionmaker(engine), aged.names
    assert (await sweep(sessions, Base, aged.store, delete=True).execute()).counts["orphans"] == 0
    async with engine.begin() as connection:
        await connection.execute(text("ALTER TABLE user_picture DETACH PARTITION part_1"))
    with pytest.raises(RefusedError, match=r"part_1, to which no class is mapped, name 9 files"):
        await sweep(sessions, Base, aged.store, delete=True, force=True).execute()
    assert aged.names == before
