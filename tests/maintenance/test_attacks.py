"""Common operations after which a sweep, a verification or a migration once lost or missed files."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import URL, Boolean, Enum, Float, ForeignKey, MetaData, String, event, insert, text, update
from sqlalchemy import create_engine as create_sync_engine
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.sqlite.aiosqlite import SQLiteDialect_aiosqlite
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from aioimageattach import bind_store
from aioimageattach.entity import Image, image_attachment
from aioimageattach.exc import (
    IncompleteError,
    InvalidKeyError,
    OwnershipError,
    SweepRefusedError,
    UnsafeDatabaseError,
)
from aioimageattach.inventory import count, kinds, references
from aioimageattach.key import ImageKey, make_revision
from aioimageattach.maintenance import Owner, own, sweep, sweeps, undo, verify
from aioimageattach.migration import migrate
from aioimageattach.offload import StoredText, stored_text
from aioimageattach.store import KeyedStore
from aioimageattach.stores.fs import FileSystemStore
from aioimageattach.stores.memory import MemoryStore
from aioimageattach.stores.mirror import MirrorStore
from aioimageattach.stores.overlay import OverlayStore
from aioimageattach.testing import FaultyStore
from tests.databases import Database
from tests.faults.cluster import cluster
from tests.maintenance.conftest import DAY, AgedStore, Place, names_in, place_of, row
from tests.maintenance.models import Base, Post, PostPhoto, User, UserPicture
from tests.servers.ministack import free_port

Sessions = async_sessionmaker[AsyncSession]


@pytest.fixture
async def postgresql(servers: Any, tmp_path: Path) -> AsyncIterator[Database]:
    """An empty PostgreSQL database."""
    database: Database = servers.database("asyncpg", tmp_path)
    yield database
    await database.aclose()


@pytest.fixture
async def mariadb(servers: Any, tmp_path: Path) -> AsyncIterator[Database]:
    """An empty MariaDB database."""
    database: Database = servers.database("asyncmy", tmp_path)
    yield database
    await database.aclose()


# --- 1: a mirror during the move of old files ------------------------------------------------------------------------


async def test_a_mirror_of_two_layouts(place: Place) -> None:
    """Legacy files have another name in each store; neither is an orphan, before and after the stores are swapped."""
    new = MemoryStore()
    for number in range(1, 6):
        key = ImageKey("user-picture", number, 30, 20, "image/png")
        await place.row(key, revision=None)
        for store in (place.store, new):
            await store.put(key, b"blob", reproducible=False)
    await place.rows(20)
    for store in (place.store, new):
        orphan = ImageKey("user-picture", 99, 30, 20, "image/png")
        await store.put(orphan, b"blob", reproducible=False)
    before = [await names_in(place.store), await names_in(new)]
    for mirror in (MirrorStore(place.store, new), MirrorStore(new, place.store)):
        plan = sweep(place.sessions, Base, mirror, delete=True, grace=timedelta(0), force=True)
        assert {orphan.name for orphan in [one async for one in plan]} <= {
            "user-picture/99/0/99.30x20.png",
            "user-picture/99/30x20.png",
        }
        found = {mismatch.problem async for mismatch in verify(place.sessions, Base, mirror)}
        assert found == set()
    assert [len(await names_in(place.store)), len(await names_in(new))] == [len(one) - 1 for one in before]


# --- 2: a primary key that is sorted in another order than it is compared in ----------------------------------------


class OddBase(DeclarativeBase):
    """The base of classes with unusual primary keys."""


class Odd(OddBase, Image):
    """An image class with an ENUM, a FLOAT and a BOOLEAN in its primary key."""

    __tablename__ = "odd"
    kind: Mapped[str] = mapped_column(Enum("portrait", "banner", name="odd_kind"), primary_key=True, sort_order=-3)
    weight: Mapped[float] = mapped_column(Float, primary_key=True, sort_order=-2)
    dark: Mapped[bool] = mapped_column(Boolean, primary_key=True, sort_order=-1)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)

    @property
    def object_id(self) -> int:
        return self.number * 4 + 2 * (self.kind == "banner") + self.dark


class OddNote(OddBase):
    """A class with an offloaded value, and an ENUM in its primary key."""

    __tablename__ = "odd_note"
    kind: Mapped[str] = mapped_column(Enum("portrait", "banner", name="note_kind"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    text: Mapped[StoredText] = stored_text()


async def odd_rows(database: Database, count: int, *, revised: bool) -> tuple[Sessions, AgedStore]:
    """Commit four images and two notes per number, with their files."""
    aged = AgedStore()
    await database.create(OddBase.metadata)
    sessions = async_sessionmaker(database.engine(), expire_on_commit=False)
    bind_store(sessions, aged.store)
    rows = []
    for number in range(count):
        for kind in ("portrait", "banner"):
            for dark in (False, True):
                key = {"kind": kind, "dark": dark, "number": number, "weight": number / 7 + 0.1}
                revision = aged.picture(object_type="odd") if revised else None
                rows.append({**row(0, revision), **key})
                del rows[-1]["user_id"]
                if not revised:
                    name = ImageKey("odd", Odd(**key).object_id, 30, 20, "image/png")
                    aged.put(aged.store.legacy_name(name))
    async with sessions.begin() as session:
        await session.execute(insert(Odd.__table__), rows)
        session.add_all(
            OddNote(kind=kind, number=number, text=f"{kind} {number}")
            for number in range(count)
            for kind in ("portrait", "banner")
        )
    for name in aged.names:
        aged.put(name)
    return sessions, aged


@pytest.mark.parametrize("revised", [True, False])
async def test_odd_primary_keys(database: Database, revised: bool) -> None:
    """Every row is read once, regardless of the columns of its primary key and the size of the pages."""
    sessions, aged = await odd_rows(database, 10, revised=revised)
    for kind in kinds(OddBase):
        total = await count(sessions, kind)
        for page in (1, 7):
            scan = references(sessions, kind, page=page)
            found = [one.identity async for one in scan]
            assert (len(found), len(set(found)), scan.missed) == (total, total, 0)
    assert (await verify(sessions, OddBase).execute()).sound == len(aged.names) == 60
    assert (await sweep(sessions, OddBase, delete=True).execute()).orphans == 0


@pytest.mark.thorough
@pytest.mark.parametrize("revised", [True, False])
async def test_odd_primary_keys_of_several_full_pages(database: Database, revised: bool) -> None:
    """Verification, sweep and migration process each of more rows than fit into one page."""
    sessions, aged = await odd_rows(database, 300, revised=revised)
    destination = MemoryStore()
    progress = await verify(sessions, OddBase).execute()
    assert (progress.total, progress.done, progress.sound) == (1800, 1800, 1800)
    assert (await sweep(sessions, OddBase, delete=True).execute()).orphans == 0
    assert (await migrate(sessions, Odd, aged.store, destination).execute()).copied == 1200
    assert len(await names_in(destination)) == 1200


async def test_an_incomplete_run_fails(mariadb: Database) -> None:
    """If the database sorts and compares in different ways, the missed rows are counted."""

    class Own(DeclarativeBase):
        pass

    class Note(Own):
        __tablename__ = "note"
        kind: Mapped[str] = mapped_column(String(20), primary_key=True)
        number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
        text: Mapped[StoredText] = stored_text()

    await mariadb.create(Own.metadata)
    engine, store = mariadb.engine(), MemoryStore()
    async with engine.begin() as connection:
        await connection.execute(text("ALTER TABLE note MODIFY kind ENUM('portrait', 'banner') NOT NULL"))
    sessions = async_sessionmaker(engine)
    bind_store(sessions, store)
    async with sessions.begin() as session:
        session.add_all(Note(kind="portrait", number=number, text=f"portrait {number}") for number in range(1000))
        session.add_all(Note(kind="banner", number=number, text=f"banner {number}") for number in range(5))
    for plan in (verify(sessions, Own), migrate(sessions, Own, store, MemoryStore())):
        with pytest.raises(IncompleteError, match=r"5 of 1,005 rows were not read, although the database counts them"):
            await plan.execute()  # type: ignore[attr-defined]
        assert (plan.progress.done, plan.progress.missed, plan.progress.total) == (1000, 5, 1005)


# --- 3: restores and copies ------------------------------------------------------------------------------------------


async def test_a_restored_database(place: Place) -> None:
    """The files of the lost rows are consecutive orphans; uploads after the restore make no difference."""
    aged = AgedStore()
    await aged.fill(place.engine, 1500, lost=150)
    async with place.engine.begin() as connection:
        await connection.execute(insert(User), [{"id": 5000}])
        await connection.execute(insert(UserPicture.__table__), [row(5000, aged.picture(1.5))])
    before = aged.names
    with pytest.raises(SweepRefusedError, match="150 consecutive files"):
        await sweep(place.sessions, Base, aged.store, delete=True).execute()
    assert aged.names == before


async def test_a_backup_is_restored_in_place(place: Place, tmp_path: Path) -> None:
    """Even a few lost rows are noticed, because the store knows a sweep that the database does not."""
    aged = AgedStore()
    await aged.fill(place.engine, 40)
    assert (await sweep(place.sessions, Base, aged.store, delete=True).execute()).orphans == 0
    path = Path(str(place.database.url.database))
    await place.engine.dispose()
    backup = shutil.copy(path, tmp_path / "backup")
    async with place.engine.begin() as connection:
        await connection.execute(insert(User), [{"id": 41}])
        await connection.execute(insert(UserPicture.__table__), [row(41, aged.picture(2))])
    assert (await sweep(place.sessions, Base, aged.store, delete=True).execute()).orphans == 0
    await place.database.aclose()
    shutil.copy(backup, path)
    before = aged.names
    plan = sweep(place.sessions, Base, aged.store, delete=True, force=True)
    with pytest.raises(SweepRefusedError, match="restored from a backup, or is a copy"):
        await plan.execute()
    assert aged.names == before
    assert [one.can_be_forced for one in plan.objections] == [False]
    [ours] = [one for one in await own(place.sessions, Base, aged.store, transfer=True) if one.conflict is None][:1]
    assert ours.owner is not None


async def test_a_copy_of_production(place: Place, tmp_path: Path) -> None:
    """A staging database with production's bucket is refused, even if only one file would be removed."""
    aged = AgedStore()
    await aged.fill(place.engine, 40)
    assert (await sweep(place.sessions, Base, aged.store, delete=True).execute()).orphans == 0
    await place.engine.dispose()
    staging = create_async_engine(
        place.database.url.set(database=str(shutil.copy(str(place.database.url.database), tmp_path / "staging.sqlite")))
    )
    async with place.engine.begin() as connection:
        await connection.execute(insert(User), [{"id": 41}])
        await connection.execute(insert(UserPicture.__table__), [row(41, aged.picture(2))])
    before = aged.names
    sessions = async_sessionmaker(staging)
    with pytest.raises(SweepRefusedError, match=r"belong to the sqlite database .* this is .*staging\.sqlite', a copy"):
        await sweep(sessions, Base, aged.store, delete=True, force=True).execute()
    with pytest.raises(OwnershipError, match=r"nothing was copied: user-picture/ in <MemoryStore.*a copy of it"):
        await migrate(sessions, Base, MemoryStore(), aged.store).execute()
    assert aged.names == before
    assert (await sweep(place.sessions, Base, aged.store, delete=True).execute()).orphans == 0
    await staging.dispose()


async def test_two_applications_in_one_bucket(postgresql: Database, servers: Any, tmp_path: Path) -> None:
    """The second application with the same object type is told to which database the files belong."""
    aged = AgedStore()
    place = await place_of(postgresql, tmp_path / "media")
    await aged.fill(place.engine, 12)
    await sweep(place.sessions, Base, aged.store, delete=True).execute()
    other: Database = servers.database("aiosqlite", tmp_path)
    await other.create(Base.metadata)
    sessions = async_sessionmaker(other.engine())
    async with sessions.begin() as session:
        await session.execute(insert(User), [{"id": 1}])
        await session.execute(insert(UserPicture.__table__), [row(1, aged.picture())])
    before = aged.names
    with pytest.raises(
        SweepRefusedError, match=r"belong to the postgresql database '\w+' at 127\.0\.0\.1.*this is the sq"
    ):
        await sweep(sessions, Base, aged.store, delete=True, force=True).execute()
    assert aged.names == before
    await other.aclose()


async def test_a_user_who_may_not_create_tables(postgresql: Database, tmp_path: Path) -> None:
    """The database is identified by its place only, which distinguishes it from other databases."""
    aged = AgedStore()
    place = await place_of(postgresql, tmp_path / "media")
    await aged.fill(place.engine, 12)
    async with role_on(place.engine) as role:
        reader = Place(postgresql, tmp_path / "media", connect_args={"server_settings": {"role": role}})
        orphan = aged.picture()
        assert (await sweep(reader.sessions, Base, aged.store, delete=True).execute()).removed == 1
        assert orphan
        owner = await owner_of(reader, aged)
        assert (owner.database, owner.token) == (None, None)
        assert owner.place.startswith("postgresql:")
        assert (await sweep(place.sessions, Base, aged.store, delete=True).execute()).orphans == 0
        assert (await sweep(reader.sessions, Base, aged.store, delete=True).execute()).orphans == 0


async def test_a_user_who_may_not_write(postgresql: Database, tmp_path: Path) -> None:
    """The database's identifier is used, with the token of the last sweep that could write one."""
    aged = AgedStore()
    place = await place_of(postgresql, tmp_path / "media")
    await aged.fill(place.engine, 12)
    await sweep(place.sessions, Base, aged.store, delete=True).execute()
    before = await owner_of(place, aged)
    async with role_on(place.engine) as role:
        reader = Place(postgresql, tmp_path / "media", connect_args={"server_settings": {"role": role}})
        assert (await sweep(reader.sessions, Base, aged.store, delete=True).execute()).orphans == 0
        after = await owner_of(reader, aged)
    assert (after.database, after.token) == (before.database, before.token)
    assert after.written_at > before.written_at


async def test_a_locked_database(place: Place) -> None:
    """If SQLite cannot commit its identifier because of a reader, it is identified by its place, like others."""
    aged = AgedStore()
    await aged.fill(place.engine, 12)
    engine = place.database.engine(connect_args={"timeout": 0})
    async with place.sessions() as session:
        await session.execute(text("SELECT * FROM user_picture"))  # keeps a shared lock
        [owned] = await own(async_sessionmaker(engine), UserPicture, aged.store)
    assert owned.owner is not None
    assert (owned.owner.database, owned.owner.place) == (None, f"sqlite:{place.database.url.database}")


async def owner_of(place: Place, aged: AgedStore) -> Owner:
    """Return the owner of the files in a store."""
    [found] = await own(place.sessions, UserPicture, aged.store, claim=False)
    assert found.owner is not None
    return found.owner


@asynccontextmanager
async def role_on(engine: AsyncEngine) -> AsyncIterator[str]:
    """Create a second PostgreSQL role, which may read all tables, for the duration of a block."""
    role = f"aioimageattach_{secrets.token_hex(4)}"
    async with engine.begin() as connection:
        for statement in (
            f"CREATE ROLE {role}",
            f"GRANT USAGE ON SCHEMA public TO {role}",
            "REVOKE CREATE ON SCHEMA public FROM PUBLIC",
            f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}",
        ):
            await connection.execute(text(statement))
    try:
        yield role
    finally:
        async with engine.begin() as connection:
            await connection.execute(text(f"DROP OWNED BY {role}"))
            await connection.execute(text(f"DROP ROLE {role}"))


# --- 4: classes and tables that are not imported --------------------------------------------------------------------


def shop(schema: str) -> tuple[type[Any], type[Any], type[Any]]:
    """Return a declarative base with its own schema, a class with pictures, and their class."""

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
    """Each has its own schema, and both have the same object type: the files of the other base are not orphans."""
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
        assert (progress.named, progress.orphans) == (22, 0)
    async with engine.begin() as connection:
        for schema in ("shop", "crm"):
            await connection.execute(text(f"DROP SCHEMA {schema} CASCADE"))


async def test_a_base_without_a_database(place: Place) -> None:
    """Classes that are not bound to a database in these sessions have no rows in it."""

    class Second(DeclarativeBase):
        pass

    class Elsewhere(Second, Image):
        __tablename__ = "elsewhere"
        number: Mapped[int] = mapped_column(primary_key=True)
        object_type = "user-picture"

    await place.rows(12)
    sessions = async_sessionmaker(binds={Base: place.engine})
    assert (await sweep(sessions, UserPicture, place.store, delete=True).execute()).named == 12
    assert Elsewhere.__table__ is not None  # the class still exists


async def test_an_unmapped_table(any_place: Place) -> None:
    """The rows of a split table, or of a class that is not imported, name files, and the sweep reports this."""
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
    with pytest.raises(SweepRefusedError):
        await sweep(place.sessions, Base, aged.store, delete=True, force=True).execute()
    assert aged.names > before


async def test_legacy_rows_of_an_unmapped_table(place: Place) -> None:
    """The names of their files are unknown, so legacy files are only removed with ``force``."""
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


async def test_a_column_that_named_files_before(place: Place) -> None:
    """The store knows that rows of a class that is no longer imported named files, too."""
    await place.rows(12)

    class Second(DeclarativeBase):
        pass

    class Archived(Second, Image):
        __tablename__ = "archived"
        number: Mapped[int] = mapped_column(primary_key=True)
        object_type = "user-picture"

    await place.database.create(Second.metadata)
    assert (await sweep(place.sessions, UserPicture, delete=True).execute()).orphans == 0
    async with place.engine.begin() as connection:
        await connection.execute(text("DROP TABLE archived"))
    with pytest.raises(SweepRefusedError, match=r"named by archived\.revision, for which no class is"):
        await sweep(place.sessions, UserPicture, delete=True, force=True).execute()
    await own(place.sessions, UserPicture, transfer=True)
    assert (await sweep(place.sessions, UserPicture, delete=True).execute()).orphans == 0


# --- 5: two names for one place --------------------------------------------------------------------------------------


async def test_one_directory_by_two_names(place: Place, tmp_path: Path) -> None:
    """A trailing slash and a symbolic link are recognized as the same directory."""
    await place.rows(3)
    (link := tmp_path / "link").symlink_to(place.store.path)
    for path in (f"{place.store.path}/", link, f"{link}/."):
        other = FileSystemStore(path, "/other/")
        with pytest.raises(ValueError, match="in another place"):
            migrate(place.sessions, Base, place.store, other)
        with pytest.raises(ValueError, match="in another place"):
            migrate(place.sessions, Base, MirrorStore(place.store, MemoryStore()), other)
        with pytest.raises(ValueError, match="keep the same files"):
            OverlayStore(other, place.store)
        with pytest.raises(ValueError, match="keep the same files"):
            MirrorStore(place.store, other)


# --- 6 to 9: databases that hide rows --------------------------------------------------------------------------------


@pytest.fixture
def replicated() -> Iterator[tuple[URL, URL]]:
    """A primary, and a streaming replica that lags an hour behind."""
    with (
        tempfile.TemporaryDirectory() as one,
        tempfile.TemporaryDirectory() as other,
        cluster(Path(one), wal_level="replica", max_wal_senders=4) as primary,
        replica_of(primary, Path(other), recovery_min_apply_delay="1h") as replica,
    ):
        yield primary.set(drivername="postgresql+asyncpg"), replica.set(drivername="postgresql+asyncpg")


@contextmanager
def replica_of(primary: URL, folder: Path, **settings: object) -> Iterator[URL]:
    """Start a streaming replica of a server, and yield its URL."""
    backup, server = shutil.which("pg_basebackup"), shutil.which("postgres")
    if backup is None or server is None:
        pytest.skip("PostgreSQL's own programs are not installed")
    engine = create_sync_engine(primary.set(drivername="postgresql+psycopg"))
    Base.metadata.create_all(engine)  # so that the replica has the tables, if not their rows
    engine.dispose()
    options: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    if os.geteuid() == 0:
        options |= {"user": "postgres", "group": "postgres", "extra_groups": []}
        shutil.chown(folder, "postgres", "postgres")
    data, port = str(folder / "data"), free_port()
    address = primary.render_as_string(hide_password=False)
    arguments = ["-D", data, "-R", "-X", "stream", "-c", "fast", "-d", address]
    subprocess.run([backup, *arguments], check=True, cwd=folder, **options)
    wanted = {"port": port, "listen_addresses": "127.0.0.1", "unix_socket_directories": "", **settings}
    told = [part for name, value in wanted.items() for part in ("-c", f"{name}={value}")]
    process = subprocess.Popen([server, "-D", data, *told], cwd=folder, **options)
    try:
        wait_for(primary.set(port=port))
        yield primary.set(port=port)
    finally:
        process.terminate()
        process.wait(20)


def wait_for(url: URL) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            psycopg.connect(url.set(drivername="postgresql").render_as_string(hide_password=False)).close()
            return
        except psycopg.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


async def test_replicas_behind_a_session(replicated: tuple[URL, URL]) -> None:
    """A session that reads from a replica, as in SQLAlchemy's manual: only the primary is asked."""
    primary, replica = map(create_async_engine, replicated)
    aged = AgedStore()

    class Routed(Session):
        def get_bind(self, mapper: Any = None, *, clause: Any = None, **more: Any) -> Any:
            if self._flushing or (clause is not None and clause.is_dml):
                return primary.sync_engine
            return replica.sync_engine

    await aged.fill(primary, 30)
    async with replica.connect() as connection:
        assert await connection.scalar(text("SELECT count(*) FROM user_picture")) == 0  # it is an hour behind
    sessions = async_sessionmaker(sync_session_class=Routed)
    before = aged.names
    progress = await sweep(sessions, Base, aged.store, delete=True).execute()
    assert (progress.named, progress.orphans) == (30, 0)
    assert (await verify(sessions, Base, aged.store).execute()).sound == 30
    assert aged.names == before
    await refuses(async_sessionmaker(replica), aged, "the database is a replica, which may lag behind")
    await primary.dispose()
    await replica.dispose()


async def test_hooks_that_hide_rows(place: Place) -> None:
    """Conditions that an application adds to every query, in any way, do not hide files."""
    aged = AgedStore()
    await aged.fill(place.engine, 100)

    class Filtered(Session):
        pass

    @event.listens_for(Filtered, "do_orm_execute")
    def hide(state: Any) -> None:
        if state.is_select:
            for table in getattr(state.statement, "get_final_froms", list)():
                if "user_id" in getattr(table, "c", {}):
                    state.statement = state.statement.where(table.c.user_id % 20 != 0)

    @event.listens_for(Session, "do_orm_execute")
    def hide_all(state: Any) -> None:
        hide(state)

    try:
        sessions = async_sessionmaker(place.engine, sync_session_class=Filtered)
        progress = await sweep(sessions, Base, aged.store, delete=True).execute()
        assert (progress.named, progress.orphans) == (100, 0)
        found = await verify(sessions, Base, aged.store).execute()
        assert (found.total, found.done, found.sound) == (100, 100, 100)
    finally:
        event.remove(Session, "do_orm_execute", hide_all)


async def refuses(sessions: Sessions, aged: AgedStore, words: str) -> None:
    """Check that all three tools refuse a database, and that nothing is removed."""
    before = aged.names
    with pytest.raises(SweepRefusedError, match=words):
        await sweep(sessions, Base, aged.store, delete=True, force=True).execute()
    with pytest.raises(UnsafeDatabaseError, match=words):
        await verify(sessions, Base, aged.store).execute()
    with pytest.raises(UnsafeDatabaseError, match=words):
        await migrate(sessions, Base, aged.store, MemoryStore()).execute()
    plan = verify(sessions, Base, aged.store, force=True)
    await plan.execute()
    assert plan.objections
    assert aged.names == before


VIEWS = {
    "view": (
        ["CREATE VIEW user_picture AS SELECT * FROM everything WHERE user_id % 15 <> 0"],
        "user_picture is a view, which may hide rows",
    ),
    "materialized view": (
        ["CREATE MATERIALIZED VIEW user_picture AS SELECT * FROM everything WHERE user_id % 15 <> 0"],
        "user_picture is a materialized view",
    ),
    "foreign table": (
        [
            "CREATE EXTENSION IF NOT EXISTS file_fdw",
            "CREATE SERVER files FOREIGN DATA WRAPPER file_fdw",
            "CREATE FOREIGN TABLE user_picture (user_id int, width int, height int, variant text, mimetype text, "
            "original bool, created_at timestamptz, revision text, byte_size bigint, sha256 text) SERVER files "
            "OPTIONS (filename '/dev/null')",
        ],
        "user_picture is a foreign table",
    ),
    "foreign partition": (
        [
            "CREATE EXTENSION IF NOT EXISTS file_fdw",
            "CREATE SERVER files FOREIGN DATA WRAPPER file_fdw",
            "CREATE TABLE user_picture (LIKE everything) PARTITION BY RANGE (user_id)",
            "CREATE FOREIGN TABLE elsewhere PARTITION OF user_picture FOR VALUES FROM (1000) TO (2000) SERVER files "
            "OPTIONS (filename '/dev/null')",
        ],
        "user_picture is partitioned, with 1 foreign tables among its partitions",
    ),
}


@pytest.mark.parametrize(("statements", "words"), VIEWS.values(), ids=VIEWS)
async def test_views_and_foreign_tables(postgresql: Database, statements: list[str], words: str) -> None:
    """They may hide rows, for example those that are marked as deleted."""
    aged, engine = AgedStore(), postgresql.engine()
    await aged.fill(engine, 30)
    async with engine.begin() as connection:
        await connection.execute(text("ALTER TABLE user_picture RENAME TO everything"))
        for statement in statements:
            if "file_fdw" in statement and not await connection.scalar(
                text("SELECT count(*) FROM pg_available_extensions WHERE name = 'file_fdw'")
            ):
                pytest.skip("the extension file_fdw is not installed")
            await connection.execute(text(statement))
    await refuses(async_sessionmaker(engine), aged, words)


@pytest.mark.parametrize("driver", ["asyncmy", "aiosqlite"])
async def test_views_of_other_databases(servers: Any, tmp_path: Path, driver: str) -> None:
    """MariaDB and SQLite have views, too."""
    database: Database = servers.database(driver, tmp_path)
    aged, engine = AgedStore(), database.engine()
    await aged.fill(engine, 30)
    async with engine.begin() as connection:
        await connection.execute(text("ALTER TABLE user_picture RENAME TO everything"))
        await connection.execute(text("CREATE VIEW user_picture AS SELECT * FROM everything WHERE user_id <> 7"))
    await refuses(async_sessionmaker(engine), aged, "user_picture is a view, which may hide rows")
    await database.aclose()


@pytest.mark.parametrize("driver", ["aiosqlite", "asyncpg"])
async def test_temporary_tables(servers: Any, tmp_path: Path, driver: str) -> None:
    """A temporary table hides the table with the same name."""
    database: Database = servers.database(driver, tmp_path)
    aged, engine = AgedStore(), database.engine()
    await aged.fill(engine, 12)
    await engine.dispose()
    schema = "public" if driver == "asyncpg" else "main"

    @event.listens_for(engine.sync_engine, "connect")
    def shadow(connection: Any, _record: object) -> None:
        cursor = connection.cursor()
        cursor.execute(f"CREATE TEMPORARY TABLE user_picture AS SELECT * FROM {schema}.user_picture WHERE user_id < 6")
        cursor.close()
        connection.commit()

    await refuses(async_sessionmaker(engine), aged, r"user_picture is (a )?temporary( table)?, which may hide rows")
    await database.aclose()


async def test_a_virtual_table(place: Place) -> None:
    """It may show anything."""
    aged = AgedStore()
    await aged.fill(place.engine, 12)
    async with place.engine.begin() as connection:
        columns = ", ".join(column.name for column in UserPicture.__table__.columns)
        await connection.execute(text("DROP TABLE user_picture"))
        await connection.execute(text(f"CREATE VIRTUAL TABLE user_picture USING fts5({columns})"))
    await refuses(place.sessions, aged, "user_picture is a virtual table, which may hide rows")


@pytest.mark.parametrize(
    ("question", "answer", "words"),
    [
        ("@@global.read_only", "1", "the database is read-only, as replicas often are"),
        (
            "SHOW GLOBAL STATUS WHERE Variable_name IN ('Slave_running', 'Slaves_running')",
            "SELECT 'x', 'ON'",
            "a replica",
        ),
        ("coalesce(engine, '')", "'FEDERATED'", "is a table of the storage engine FEDERATED"),
    ],
)
async def test_mariadb_that_hides_rows(mariadb: Database, question: str, answer: str, words: str) -> None:
    """The server is shared with other tests, so part of a statement is replaced by the answer."""
    aged, engine = AgedStore(), mariadb.engine()
    await aged.fill(engine, 12)

    @event.listens_for(engine.sync_engine, "before_cursor_execute", retval=True)
    def replace(connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> tuple[str, Any]:
        return statement.replace(question, answer), parameters

    await refuses(async_sessionmaker(engine), aged, words)


class OtherDialect(SQLiteDialect_aiosqlite):
    """A dialect that this library does not know."""

    name = "other"
    supports_statement_cache = True


async def test_a_database_of_another_vendor(place: Place) -> None:
    """It has no checks for hidden rows; its files have an owner nevertheless."""
    registry.register("other.aiosqlite", __name__, "OtherDialect")
    aged = AgedStore()
    await aged.fill(place.engine, 12)
    engine = create_async_engine(place.database.url.set(drivername="other+aiosqlite"))
    orphan = aged.picture()
    sessions = async_sessionmaker(engine)
    [found] = [one.name async for one in sweep(sessions, Base, aged.store, delete=True)]
    assert orphan in found
    [owned] = await own(sessions, UserPicture, aged.store)
    assert owned.owner is not None
    assert owned.owner.place == f"other:None:None:{place.database.url.database}"
    assert owned.owner.description == f"other database {place.database.url.database!r}"
    await engine.dispose()


async def test_an_unmapped_table_that_cannot_be_read(postgresql: Database, tmp_path: Path) -> None:
    """A role that may only insert rows does not know which files they name."""
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
        with pytest.raises(SweepRefusedError, match=words):
            await sweep(reader.sessions, Base, aged.store, delete=True, force=True).execute()
    assert any(orphan in name for name in aged.names)


async def test_row_security_behind_a_view(postgresql: Database, tmp_path: Path) -> None:
    """A second role does not see all rows of the table behind a view."""
    aged, engine = AgedStore(), postgresql.engine()
    await aged.fill(engine, 30)
    async with engine.begin() as connection:
        for statement in (
            "ALTER TABLE user_picture RENAME TO everything",
            "ALTER TABLE everything ENABLE ROW LEVEL SECURITY",
            "CREATE POLICY some_rows ON everything USING (user_id % 15 <> 0)",
            "CREATE VIEW user_picture AS SELECT * FROM everything",
        ):
            await connection.execute(text(statement))
    async with role_on(engine) as role:
        other = postgresql.engine(connect_args={"server_settings": {"role": role}})
        await refuses(async_sessionmaker(other), aged, "user_picture is a view")


async def test_row_security_on_the_table(postgresql: Database) -> None:
    """A second role does not see all rows of the table itself."""
    aged, engine = AgedStore(), postgresql.engine()
    await aged.fill(engine, 30)
    async with engine.begin() as connection:
        await connection.execute(text("ALTER TABLE user_picture ENABLE ROW LEVEL SECURITY"))
        await connection.execute(text("CREATE POLICY some_rows ON user_picture USING (user_id % 15 <> 0)"))
    async with role_on(engine) as role:
        other = postgresql.engine(connect_args={"server_settings": {"role": role}})
        await refuses(async_sessionmaker(other), aged, "row-level security hides rows of user_picture")


async def test_a_detached_partition(postgresql: Database) -> None:
    """It becomes a separate table, to which no class is mapped."""
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
    assert (await sweep(sessions, Base, aged.store, delete=True).execute()).orphans == 0
    async with engine.begin() as connection:
        await connection.execute(text("ALTER TABLE user_picture DETACH PARTITION part_1"))
    with pytest.raises(SweepRefusedError, match=r"part_1, to which no class is mapped, name 9 files"):
        await sweep(sessions, Base, aged.store, delete=True, force=True).execute()
    assert aged.names == before


async def test_a_read_only_connection_of_postgresql(postgresql: Database) -> None:
    """Such connections are often to replicas."""
    aged = AgedStore()
    await aged.fill(postgresql.engine(), 30)
    engine = postgresql.engine(connect_args={"server_settings": {"default_transaction_read_only": "on"}})
    await refuses(async_sessionmaker(engine), aged, "the connection is read-only")


async def test_a_subscriber(postgresql: Database) -> None:
    """A database that receives its rows by logical replication may lag behind."""
    aged, engine = AgedStore(), postgresql.engine()
    await aged.fill(engine, 30)
    name = f"aioimageattach_{secrets.token_hex(4)}"
    async with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        await connection.execute(
            text(
                f"CREATE SUBSCRIPTION {name} CONNECTION 'host=127.0.0.1 dbname=nowhere' PUBLICATION one "
                "WITH (connect=false, slot_name=NONE)"
            )
        )
    try:
        await refuses(async_sessionmaker(engine), aged, "the database subscribes to another database")
    finally:
        async with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
            await connection.execute(text(f"DROP SUBSCRIPTION {name}"))


async def test_a_read_only_file(place: Place) -> None:
    """An SQLite database that is opened read-only may be a copy."""
    aged = AgedStore()
    await aged.fill(place.engine, 30)
    engine = create_async_engine(f"sqlite+aiosqlite:///file:{place.database.url.database}?mode=ro&uri=true")
    await refuses(async_sessionmaker(engine), aged, "the connection is read-only")
    await engine.dispose()


# --- 10 to 12 --------------------------------------------------------------------------------------------------------


async def test_keys_that_change_meanwhile(place: Place) -> None:
    """A photo that is moved to the front of its post during a migration is not missed."""
    aged, destination = AgedStore(), MemoryStore()
    rows = [photo(1, number, aged.picture(object_type="post-photo")) for number in range(1, 1101)]
    async with place.engine.begin() as connection:
        await connection.execute(insert(Post), [{"id": 1}])
        await connection.execute(insert(PostPhoto.__table__), rows)
    photos = PostPhoto.__table__
    plan = migrate(place.sessions, Base, aged.store, destination)
    async for _ in plan:
        if plan.progress.done == 500:  # when the first page of 1,000 rows was read
            async with place.engine.begin() as connection:
                await connection.execute(update(photos).where(photos.c.place == 1090).values(place=-1))
    assert (plan.progress.copied, plan.progress.done, plan.progress.total) == (1100, 1100, 1100)
    assert len(await names_in(destination)) == 1100


async def test_keys_of_old_rows_that_change_meanwhile(place: Place) -> None:
    """Rows without a revision are read by primary key; those that were missed are read at the end."""
    rows = [photo(number, number, None) for number in range(1, 61)]
    async with place.engine.begin() as connection:
        await connection.execute(insert(Post), [{"id": number} for number in range(-1, 61)])
        await connection.execute(insert(PostPhoto.__table__), rows)
    photos = PostPhoto.__table__
    [kind] = kinds(PostPhoto)
    scan = references(place.sessions, kind, page=20)
    seen: list[tuple[Any, ...]] = []
    async for reference in scan:
        seen.append(reference.identity)
        if len(seen) == 30:
            async with place.engine.begin() as connection:
                await connection.execute(update(photos).where(photos.c.post_id == 50).values(post_id=-1))
    assert (-1, 50, 30, 20, "") in seen
    assert (len(seen), len({one[1] for one in seen}), scan.rows, scan.missed) == (60, 60, 60, 0)


def photo(post: int, place: int, revision: str | None) -> dict[str, Any]:
    """Return the columns of a photo."""
    found = row(0, revision, post_id=post, place=place)
    del found["user_id"]
    return found


class NoteBase(DeclarativeBase):
    """The base of notes."""


class Note(NoteBase):
    """A note with a text that it may share with other rows."""

    __tablename__ = "note"
    id: Mapped[int] = mapped_column(primary_key=True)
    body: Mapped[StoredText] = stored_text(dedupe=True)


class Behind(MemoryStore):
    """A store whose clock is 25 hours behind."""

    async def put_object(self, name: str, data: Any, **options: Any) -> None:
        await super().put_object(name, data, **options)
        blob, then = self._files[name]
        self._files[name] = (blob, then - timedelta(hours=25))


async def test_a_store_whose_clock_is_behind(sqlite_database: Database) -> None:
    """The names of shared files contain no time, so the store's clock must be right."""
    await sqlite_database.create(NoteBase.metadata)
    sessions, store = async_sessionmaker(sqlite_database.engine(), expire_on_commit=False), Behind()
    bind_store(sessions, store)
    for number in range(20):
        async with sessions.begin() as session:
            session.add(Note(id=number + 1, body=f"text {number}"))
    await store.put_object("note.body/01abc/shared.1.1." + "0" * 64 + ".txt", b"x")
    plan = sweep(sessions, NoteBase, delete=True, force=True)
    with pytest.raises(SweepRefusedError, match=r"the clock of <MemoryStore .* is 1 day, \S+ behind: set it"):
        await plan.execute()
    assert plan.progress.removed == 0
    plan = sweep(sessions, NoteBase)
    assert (await plan.execute()).orphans == 1
    assert len(plan.objections) == 1


# --- other problems --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bad",
    [
        {"width": 0, "height": 0, "mimetype": "image/svg+xml"},
        {"mimetype": "image/jpeg; charset=binary"},
        {"mimetype": ""},
    ],
)
async def test_a_row_without_a_valid_name(place: Place, bad: dict[str, Any]) -> None:
    """It is reported, other rows are processed, and legacy files are not removed."""
    await place.rows(12)
    async with place.engine.begin() as connection:
        await connection.execute(insert(User), [{"id": 77}])
        await connection.execute(insert(UserPicture.__table__), [row(77, None, **bad)])
    found = [one async for one in verify(place.sessions, Base)]
    assert [(one.problem, one.reference.identity[0]) for one in found] == [("unreadable", 77)]
    assert isinstance(found[0].error, InvalidKeyError)
    plan = migrate(place.sessions, Base, place.store, MemoryStore())
    with pytest.raises(ExceptionGroup):
        await plan.execute()
    assert (plan.progress.copied, plan.progress.failed) == (12, 1)
    assert (await sweep(place.sessions, Base, delete=True).execute()).orphans == 0
    old = await place.name("user-picture/77/0/77.0x0.svg")
    with pytest.raises(SweepRefusedError, match=r"the file of UserPicture \(77, .* cannot be distinguished from an"):
        await sweep(place.sessions, Base, delete=True, force=True).execute()
    assert old in await place.names()


async def test_a_class_that_was_removed(sqlite_database: Database) -> None:
    """Rows with the polymorphic identity of a removed class are reported, and other rows are processed."""

    class Own(DeclarativeBase):
        pass

    class Shot(Own, Image):
        __tablename__ = "shot"
        number: Mapped[int] = mapped_column(primary_key=True)
        kind: Mapped[str] = mapped_column(String(20))
        __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "shot"}  # type: ignore[misc]

    await sqlite_database.create(Own.metadata)
    aged, sessions = AgedStore(), async_sessionmaker(sqlite_database.engine())
    rows = []
    for number, kind in ((1, "shot"), (2, "removed")):
        one = {**row(0, aged.picture(object_type="shot")), "number": number, "kind": kind}
        del one["user_id"]
        rows.append(one)
    async with sessions.begin() as session:
        await session.execute(insert(Shot.__table__), rows)  # type: ignore[arg-type]
    found = [one async for one in verify(sessions, Own, aged.store)]
    assert [(one.problem, one.reference.identity[0]) for one in found] == [("unreadable", 2)]
    assert "expected a polymorphic identity of an imported class, got 'removed'" in str(found[0].error)
    assert (await sweep(sessions, Own, aged.store, delete=True).execute()).orphans == 0


async def test_a_session_keeps_its_info(servers: Any, tmp_path: Path) -> None:
    """A session that chooses its database by ``info`` is a template for sessions with the same ``info``."""
    databases: dict[str, Database] = {name: servers.database("aiosqlite", tmp_path) for name in ("default", "acme")}
    engines = {name: database.engine() for name, database in databases.items()}

    class Tenant(Session):
        def get_bind(self, mapper: Any = None, **more: Any) -> Any:
            return engines[self.info.get("tenant", "default")].sync_engine

    stores = {name: AgedStore() for name in databases}
    await stores["default"].fill(engines["default"], 30)
    await stores["acme"].fill(engines["acme"], 3)
    sessions = async_sessionmaker(sync_session_class=Tenant)
    async with sessions(info={"tenant": "acme"}) as session:
        progress = await verify(session, Base, stores["acme"].store).execute()
        assert (progress.total, progress.sound) == (3, 3)
        assert (await sweep(session, Base, stores["acme"].store, delete=True).execute()).named == 3
    for database in databases.values():
        await database.aclose()


# --- quarantine ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("combine", [False, True])
async def test_a_sweep_is_undone(place: Place, combine: bool) -> None:
    """Files get their names back in every store that had them."""
    await place.rows(12)
    stores: list[KeyedStore] = [place.store, *([MemoryStore()] if combine else [])]
    store = MirrorStore(*stores) if combine else place.store
    orphans = {place.store.name_of(await place.file(blob=b"%d" % number)) for number in range(3)}
    if combine:
        for name in await names_in(place.store):
            async with await place.store.get_object(name) as file:
                stores[1]._files[name] = (await file.read(), datetime.now(UTC) - timedelta(days=2))  # type: ignore[attr-defined]
    before = [await names_in(one) for one in stores]
    plan = sweep(place.sessions, Base, store, delete=True)
    assert {one.name async for one in plan} == orphans
    assert [await names_in(one) for one in stores] == [one - orphans for one in before]
    assert [one.id for one in await sweeps(Base, store)] == [plan.id]
    restoring = undo(Base, store)
    progress = await restoring.execute()
    assert (progress.done, progress.restored) == (3 * len(stores), 3 * len(stores))
    assert [await names_in(one) for one in stores] == before
    assert await sweeps(Base, store) == []
    assert (await undo(Base, store).execute()).done == 0


async def test_quarantine_is_emptied(place: Place) -> None:
    """A later sweep deletes files after the retention time; files of newer sweeps, and other files, stay."""
    await place.rows(12)
    old = make_revision(time.time() - 31 * DAY)
    name = place.store.name_of(await place.file())
    await place.name(f".trash/{old}/{name}")
    await place.name(f".trash/{old}/other-type/x")
    await place.name(".trash/notes.txt")
    progress = await sweep(place.sessions, Base, delete=True).execute()
    assert (progress.removed, progress.emptied) == (1, 1)
    first, second = await sweeps(Base, place.store)
    assert first.id == old  # for the other object type
    assert second.swept_at > first.swept_at
    progress = await sweep(place.sessions, Base, delete=True, retention=timedelta(0)).execute()
    assert progress.emptied == 1
    assert name not in await place.names()
    assert ".trash/notes.txt" in [info.name async for info in place.store.list_objects(".trash/")]


async def test_a_large_sweep_is_undone(place: Place) -> None:
    """Files are restored in batches; a file that cannot be moved to quarantine is reported, and stays."""
    aged = AgedStore()
    await aged.fill(place.engine, 12)
    names = aged.names
    for _ in range(1002):
        aged.picture()
    orphans = sorted(aged.names - names)
    store = FaultyStore(aged.store)
    store.fail("put", name=lambda name: name.endswith(orphans[4]))
    plan = sweep(place.sessions, Base, store, delete=True, force=True)
    failed = [one.name async for one in plan if one.error is not None]
    assert len(failed) == plan.progress.failed == 1
    store.heal()
    progress = await undo(Base, store).execute()
    assert (progress.done, progress.restored) == (1001, 1001)
    assert sorted(aged.names - names) == orphans


async def test_the_limit(place: Place) -> None:
    """It bounds the number of files that one run removes; the next run continues."""
    await place.rows(30)
    for _ in range(9):
        await place.file()
    plan = sweep(place.sessions, Base, delete=True, limit=4)
    assert (await plan.execute()).removed == 4
    assert plan.warnings == ["the limit of 4 files was reached"]
    assert (await sweep(place.sessions, Base, delete=True, limit=50).execute()).removed == 5
    with pytest.raises(ValueError, match="limit: expected at least 1"):
        sweep(place.sessions, Base, limit=0)


async def test_a_record_that_is_renewed_concurrently(place: Place) -> None:
    """Concurrent sweeps renew the record of ownership: none fails or is refused, and one record is left."""
    await place.rows(12)
    store = FaultyStore(place.store)
    records = ".aioimageattach/owners/user-picture/"

    async def renew_too(name: str) -> None:
        await sweep(place.sessions, UserPicture, place.store, delete=True).execute()

    for method in ("head", "get"):
        store.heal()
        store.on(method, renew_too, at=1, name=lambda name: name.startswith(records))  # type: ignore[arg-type]
        assert (await sweep(place.sessions, UserPicture, store, delete=True).execute()).named == 12
    assert len(await store.names(records)) == 1


async def test_a_record_that_cannot_be_read(place: Place) -> None:
    """The message says what to do."""
    await place.rows(12)
    await place.store.put_object(".aioimageattach/owners/user-picture/x.json", b"{}")
    with pytest.raises(OwnershipError, match=r"x\.json in .*: expected a record of ownership .*; delete the file"):
        await sweep(place.sessions, UserPicture).execute()
