"""Operations of every day that once made a sweep, a verification or a migration lose files, or miss some."""

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
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from aioimageattach import bind_store
from aioimageattach.entity import Image, image_attachment
from aioimageattach.entity.image import utcnow
from aioimageattach.exc import (
    IncompleteError,
    InvalidKeyError,
    OwnershipError,
    SweepRefusedError,
    UnsafeDatabaseError,
)
from aioimageattach.key import ImageKey, file_name, make_revision
from aioimageattach.maintenance import own, sweep, sweeps, undo, verify
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
from tests.maintenance.conftest import DAY, Place, names_in, place_of
from tests.maintenance.models import Base, Post, PostPhoto, User, UserPicture
from tests.servers.ministack import free_port

Sessions = async_sessionmaker[AsyncSession]


def row(number: int, revision: str | None, **more: Any) -> dict[str, Any]:
    """The columns of a picture."""
    return {
        "user_id": number,
        "width": 30,
        "height": 20,
        "variant": "",
        "mimetype": "image/png",
        "original": True,
        "created_at": utcnow(),
        "revision": revision,
        **more,
    }


class Shelf:
    """A store in memory whose files can have any age, and the rows that name them."""

    def __init__(self) -> None:
        self.store = MemoryStore()

    def put(self, name: str, days: float = 3) -> str:
        """Put a file of some age."""
        self.store._files[name] = (b"blob", datetime.now(UTC) - timedelta(days=days))
        return name

    def picture(self, days: float = 3, object_type: str = "user-picture") -> str:
        """Put a file of some age, and return its revision."""
        revision = make_revision(time.time() - days * DAY)
        self.put(file_name(ImageKey(object_type, None, 30, 20, "image/png", revision)), days)
        return revision

    async def fill(self, engine: AsyncEngine, count: int, *, lost: int = 0, base: Any = Base) -> None:
        """Put pictures in order of time, and commit rows of all but the last ones."""
        rows = [row(number, self.picture(3 - number * 0.001)) for number in range(1, count + 1)]
        async with engine.begin() as connection:
            await connection.run_sync(base.metadata.create_all)
            await connection.execute(insert(User), [{"id": number} for number in range(1, count + 1)])
            await connection.execute(insert(UserPicture.__table__), rows[: count - lost])

    @property
    def names(self) -> set[str]:
        """The names of the files that are neither in quarantine nor records."""
        return {name for name in self.store._files if not name.startswith(".")}


@pytest.fixture
async def postgresql(servers: Any, tmp_path: Path) -> AsyncIterator[Database]:
    """An empty database of PostgreSQL."""
    database: Database = servers.database("asyncpg", tmp_path)
    yield database
    await database.aclose()


@pytest.fixture
async def mariadb(servers: Any, tmp_path: Path) -> AsyncIterator[Database]:
    """An empty database of MariaDB."""
    database: Database = servers.database("asyncmy", tmp_path)
    yield database
    await database.aclose()


# --- 1: a mirror during the move of old files ------------------------------------------------------------------------


async def test_a_mirror_of_two_layouts_is_swept(place: Place) -> None:
    """Old files have another name in each store: neither is an orphan, before and after the stores are swapped."""
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
    """The base of classes with odd primary keys."""


class Odd(OddBase, Image):
    """Has an ENUM, a FLOAT and a BOOLEAN in its primary key."""

    __tablename__ = "odd"
    kind: Mapped[str] = mapped_column(Enum("portrait", "banner", name="odd_kind"), primary_key=True, sort_order=-3)
    weight: Mapped[float] = mapped_column(Float, primary_key=True, sort_order=-2)
    dark: Mapped[bool] = mapped_column(Boolean, primary_key=True, sort_order=-1)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)

    @property
    def object_id(self) -> int:
        return self.number * 4 + 2 * (self.kind == "banner") + self.dark


class OddNote(OddBase):
    """Has an offloaded value, and an ENUM in its primary key."""

    __tablename__ = "odd_note"
    kind: Mapped[str] = mapped_column(Enum("portrait", "banner", name="note_kind"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    text: Mapped[StoredText] = stored_text()


@pytest.mark.parametrize("revised", [True, False])
async def test_odd_primary_keys(database: Database, revised: bool) -> None:
    """Every row is read once, whatever the columns of its key are."""
    shelf, destination = Shelf(), MemoryStore()
    await database.create(OddBase.metadata)
    sessions = async_sessionmaker(database.engine(), expire_on_commit=False)
    bind_store(sessions, shelf.store)
    rows = []
    for number in range(300):
        for kind in ("portrait", "banner"):
            for dark in (False, True):
                key = {"kind": kind, "dark": dark, "number": number, "weight": number / 7 + 0.1}
                revision = shelf.picture(object_type="odd") if revised else None
                rows.append({**row(0, revision), **key})
                del rows[-1]["user_id"]
                if not revised:
                    image = Odd(**key)
                    name = ImageKey("odd", image.object_id, 30, 20, "image/png")
                    shelf.put(shelf.store.legacy_name(name))
    async with sessions.begin() as session:
        await session.execute(insert(Odd.__table__), rows)
        session.add_all(
            OddNote(kind=kind, number=number, text=f"{kind} {number}")
            for number in range(550)
            for kind in ("portrait", "banner")
        )
    for name in shelf.names:
        shelf.put(name)
    files = len(shelf.names)
    assert files == 2300
    progress = await verify(sessions, OddBase).execute()
    assert (progress.total, progress.done, progress.sound + progress.flawed) == (2300, 2300, 2300)
    assert (await sweep(sessions, OddBase, delete=True).execute()).orphans == 0
    assert (await migrate(sessions, Odd, shelf.store, destination).execute()).copied == 1200
    assert len(await names_in(destination)) == 1200


async def test_a_run_that_does_not_see_everything_is_no_success(mariadb: Database) -> None:
    """If the database sorts and compares in two ways that nobody knows of, the missed rows are counted."""

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
        session.add_all(
            Note(kind=kind, number=number, text=f"{kind} {number}")
            for number in range(1100)
            for kind in ("portrait", "banner")
        )
    for plan in (verify(sessions, Own), migrate(sessions, Own, store, MemoryStore())):
        with pytest.raises(IncompleteError, match=r"of 2,200 rows were not read, although the database counts them"):
            await plan.execute()  # type: ignore[attr-defined]
        assert plan.progress.missed > 0
        assert plan.progress.done + plan.progress.missed == plan.progress.total


# --- 3: restores and copies ------------------------------------------------------------------------------------------


async def test_a_restored_database(place: Place) -> None:
    """The files of the lost rows are many in a row; uploads after the restore change nothing about that."""
    shelf = Shelf()
    await shelf.fill(place.engine, 1500, lost=150)
    async with place.engine.begin() as connection:
        await connection.execute(insert(User), [{"id": 5000}])
        await connection.execute(insert(UserPicture.__table__), [row(5000, shelf.picture(1.5))])
    before = shelf.names
    with pytest.raises(SweepRefusedError, match="150 files in a row"):
        await sweep(place.sessions, Base, shelf.store, delete=True).execute()
    assert shelf.names == before


async def test_a_backup_is_restored_in_place(place: Place, tmp_path: Path) -> None:
    """Even a few lost rows are noticed: the store knows of a sweep that the database does not."""
    shelf = Shelf()
    await shelf.fill(place.engine, 40)
    assert (await sweep(place.sessions, Base, shelf.store, delete=True).execute()).orphans == 0
    path = Path(str(place.database.url.database))
    await place.engine.dispose()
    backup = shutil.copy(path, tmp_path / "backup")
    async with place.engine.begin() as connection:
        await connection.execute(insert(User), [{"id": 41}])
        await connection.execute(insert(UserPicture.__table__), [row(41, shelf.picture(2))])
    assert (await sweep(place.sessions, Base, shelf.store, delete=True).execute()).orphans == 0
    await place.database.aclose()
    shutil.copy(backup, path)
    before = shelf.names
    plan = sweep(place.sessions, Base, shelf.store, delete=True, force=True)
    with pytest.raises(SweepRefusedError, match="restored from a backup, or is a copy"):
        await plan.execute()
    assert shelf.names == before
    assert [one.can_be_forced for one in plan.objections] == [False]
    [ours] = [one for one in await own(place.sessions, Base, shelf.store, transfer=True) if one.conflict is None][:1]
    assert ours.owner is not None


async def test_a_copy_of_production(place: Place, tmp_path: Path) -> None:
    """Staging with production's bucket: one picture more and it would be lost."""
    shelf = Shelf()
    await shelf.fill(place.engine, 40)
    assert (await sweep(place.sessions, Base, shelf.store, delete=True).execute()).orphans == 0
    await place.engine.dispose()
    staging = create_async_engine(
        place.database.url.set(database=str(shutil.copy(str(place.database.url.database), tmp_path / "staging.sqlite")))
    )
    async with place.engine.begin() as connection:
        await connection.execute(insert(User), [{"id": 41}])
        await connection.execute(insert(UserPicture.__table__), [row(41, shelf.picture(2))])
    before = shelf.names
    sessions = async_sessionmaker(staging)
    with pytest.raises(SweepRefusedError, match=r"belong to the sqlite database .* this is .*staging\.sqlite', a copy"):
        await sweep(sessions, Base, shelf.store, delete=True, force=True).execute()
    with pytest.raises(OwnershipError, match=r"nothing was copied: user-picture/ in <MemoryStore.*a copy of it"):
        await migrate(sessions, Base, MemoryStore(), shelf.store).execute()
    assert shelf.names == before
    assert (await sweep(place.sessions, Base, shelf.store, delete=True).execute()).orphans == 0
    await staging.dispose()


async def test_two_databases_of_one_server(postgresql: Database, servers: Any, tmp_path: Path) -> None:
    """Two applications with one object type in one bucket: the second one is told whose the files are."""
    shelf = Shelf()
    place = await place_of(postgresql, tmp_path / "media")
    await shelf.fill(place.engine, 12)
    await sweep(place.sessions, Base, shelf.store, delete=True).execute()
    other: Database = servers.database("aiosqlite", tmp_path)
    await other.create(Base.metadata)
    sessions = async_sessionmaker(other.engine())
    async with sessions.begin() as session:
        await session.execute(insert(User), [{"id": 1}])
        await session.execute(insert(UserPicture.__table__), [row(1, shelf.picture())])
    before = shelf.names
    with pytest.raises(
        SweepRefusedError, match=r"belong to the postgresql database '\w+' at 127\.0\.0\.1.*this is the sq"
    ):
        await sweep(sessions, Base, shelf.store, delete=True, force=True).execute()
    assert shelf.names == before
    await other.aclose()


async def test_a_user_who_may_create_no_table(postgresql: Database, tmp_path: Path) -> None:
    """Then the place of the database is all that identifies it, which tells other databases."""
    shelf = Shelf()
    place = await place_of(postgresql, tmp_path / "media")
    await shelf.fill(place.engine, 12)
    async with role_on(place.engine) as role:
        reader = Place(postgresql, tmp_path / "media", connect_args={"server_settings": {"role": role}})
        orphan = shelf.picture()
        assert (await sweep(reader.sessions, Base, shelf.store, delete=True).execute()).removed == 1
        assert orphan
        [owner] = [one.owner for one in await own(reader.sessions, UserPicture, shelf.store, claim=False)]
        assert owner is not None
        assert (owner.database, owner.token) == (None, None)
        assert owner.place.startswith("postgresql:")
        assert (await sweep(place.sessions, Base, shelf.store, delete=True).execute()).orphans == 0
        assert (await sweep(reader.sessions, Base, shelf.store, delete=True).execute()).orphans == 0


@asynccontextmanager
async def role_on(engine: AsyncEngine) -> AsyncIterator[str]:
    """Make a second role of PostgreSQL, which may read all tables, for the time of a block."""
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


# --- 4: classes and tables that are not looked at --------------------------------------------------------------------


def shop(schema: str) -> tuple[type[Any], type[Any], type[Any]]:
    """A declarative base of one schema, with users and their pictures."""

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


async def test_two_bases_of_one_process(postgresql: Database) -> None:
    """Each has a schema, and both have one object type: the files of the other base are not orphans."""
    shelf, engine = Shelf(), postgresql.engine()
    sessions = async_sessionmaker(engine)
    bases = [shop(schema) for schema in ("shop", "crm")]
    for own_base, owner, picture in bases:
        async with engine.begin() as connection:
            schema = str(own_base.metadata.schema)
            await connection.execute(text(f"DROP SCHEMA IF EXISTS {schema} CASCADE"))
            await connection.execute(text(f"CREATE SCHEMA {schema}"))
            await connection.run_sync(own_base.metadata.create_all)
            rows = [row(number, shelf.picture(object_type="customer-picture")) for number in range(1, 12)]
            await connection.execute(insert(owner), [{"id": number} for number in range(1, 12)])
            await connection.execute(insert(picture), rows)
    for own_base, _, _ in bases:
        progress = await sweep(sessions, own_base, shelf.store, delete=True).execute()
        assert (progress.named, progress.orphans) == (22, 0)
    async with engine.begin() as connection:
        for schema in ("shop", "crm"):
            await connection.execute(text(f"DROP SCHEMA {schema} CASCADE"))


async def test_a_table_that_no_class_is_mapped_to(any_place: Place) -> None:
    """A split table, or yesterday's program: its rows name files, and the sweep says so."""
    place, shelf = any_place, Shelf()
    await shelf.fill(place.engine, 30)
    async with place.engine.begin() as connection:
        await connection.execute(text("CREATE TABLE archive AS SELECT * FROM user_picture WHERE user_id < 6"))
        await connection.execute(text("DELETE FROM user_picture WHERE user_id < 6"))
    before = shelf.names
    orphan = shelf.picture()
    plan = sweep(place.sessions, Base, shelf.store)
    assert [one.name async for one in plan] == [name for name in shelf.names if orphan in name]
    [objection] = plan.objections
    assert "archive, which no class is mapped to, name 5 files: import its class" in objection.reason
    with pytest.raises(SweepRefusedError):
        await sweep(place.sessions, Base, shelf.store, delete=True, force=True).execute()
    assert shelf.names > before


async def test_old_rows_of_a_table_that_no_class_is_mapped_to(place: Place) -> None:
    """Which files they name is unknown, so an old file is removed only if that is forced."""
    await place.rows(30)
    old = await place.name("user-picture/9/0/9.30x20.jpe")
    async with place.engine.begin() as connection:
        columns = "width INTEGER, height INTEGER, mimetype TEXT, original BOOLEAN, created_at TEXT"
        await connection.execute(text(f"CREATE TABLE older ({columns})"))
        await connection.execute(text("INSERT INTO older VALUES (1, 1, '', 1, '')"))
    plan = sweep(place.sessions, Base)
    assert [one.name async for one in plan] == [old]
    [objection] = plan.objections
    assert "rows of older, which no class is mapped to, may name files of SQLAlchemy-ImageAttach" in objection.reason
    assert [one.name async for one in sweep(place.sessions, Base, delete=True, force=True)] == [old]


async def test_a_column_that_named_files_before(place: Place) -> None:
    """A class that is not imported any more: the store knows that its rows named files, too."""
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
    with pytest.raises(SweepRefusedError, match=r"rows of archived\.revision named them, too, for which no class is"):
        await sweep(place.sessions, UserPicture, delete=True, force=True).execute()
    await own(place.sessions, UserPicture, transfer=True)
    assert (await sweep(place.sessions, UserPicture, delete=True).execute()).orphans == 0


# --- 5: one place under two names ------------------------------------------------------------------------------------


async def test_one_directory_by_two_names(place: Place, tmp_path: Path) -> None:
    """A slash at the end and a link are seen through, so nothing is said to be copied that was not."""
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


# --- 6 to 9: databases that do not show all rows ---------------------------------------------------------------------


@pytest.fixture
def replicated() -> Iterator[tuple[URL, URL]]:
    """A primary and a streaming replica of it that is an hour behind."""
    with (
        tempfile.TemporaryDirectory() as one,
        tempfile.TemporaryDirectory() as other,
        cluster(Path(one), wal_level="replica", max_wal_senders=4) as primary,
        replica_of(primary, Path(other), recovery_min_apply_delay="1h") as replica,
    ):
        yield primary.set(drivername="postgresql+asyncpg"), replica.set(drivername="postgresql+asyncpg")


@contextmanager
def replica_of(primary: URL, folder: Path, **settings: object) -> Iterator[URL]:
    """Start a streaming replica of a server, and yield its address."""
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
    """A session that reads from a replica, as SQLAlchemy's manual shows: the primary alone is asked."""
    primary, replica = map(create_async_engine, replicated)
    shelf = Shelf()

    class Routed(Session):
        def get_bind(self, mapper: Any = None, *, clause: Any = None, **more: Any) -> Any:
            if self._flushing or (clause is not None and clause.is_dml):
                return primary.sync_engine
            return replica.sync_engine

    await shelf.fill(primary, 30)
    async with replica.connect() as connection:
        assert await connection.scalar(text("SELECT count(*) FROM user_picture")) == 0  # it is an hour behind
    sessions = async_sessionmaker(sync_session_class=Routed)
    before = shelf.names
    progress = await sweep(sessions, Base, shelf.store, delete=True).execute()
    assert (progress.named, progress.orphans) == (30, 0)
    assert (await verify(sessions, Base, shelf.store).execute()).sound == 30
    assert shelf.names == before
    await refuses(async_sessionmaker(replica), shelf, "the database is a replica, which may lag behind")
    await primary.dispose()
    await replica.dispose()


async def test_hooks_that_hide_rows(place: Place) -> None:
    """Conditions that an application adds to every query, by whatever way, hide no file."""
    shelf = Shelf()
    await shelf.fill(place.engine, 100)

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
        progress = await sweep(sessions, Base, shelf.store, delete=True).execute()
        assert (progress.named, progress.orphans) == (100, 0)
        found = await verify(sessions, Base, shelf.store).execute()
        assert (found.total, found.done, found.sound) == (100, 100, 100)
    finally:
        event.remove(Session, "do_orm_execute", hide_all)


async def refuses(sessions: Sessions, shelf: Shelf, words: str) -> None:
    """All three tools refuse a database, and nothing is removed."""
    before = shelf.names
    with pytest.raises(SweepRefusedError, match=words):
        await sweep(sessions, Base, shelf.store, delete=True, force=True).execute()
    with pytest.raises(UnsafeDatabaseError, match=words):
        await verify(sessions, Base, shelf.store).execute()
    with pytest.raises(UnsafeDatabaseError, match=words):
        await migrate(sessions, Base, shelf.store, MemoryStore()).execute()
    plan = verify(sessions, Base, shelf.store, force=True)
    await plan.execute()
    assert plan.objections
    assert shelf.names == before


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
}


@pytest.mark.parametrize(("statements", "words"), VIEWS.values(), ids=VIEWS)
async def test_what_is_no_table(postgresql: Database, statements: list[str], words: str) -> None:
    """A view may hide rows, for example those that are marked as deleted."""
    shelf, engine = Shelf(), postgresql.engine()
    await shelf.fill(engine, 30)
    async with engine.begin() as connection:
        await connection.execute(text("ALTER TABLE user_picture RENAME TO everything"))
        for statement in statements:
            if "file_fdw" in statement and not await connection.scalar(
                text("SELECT count(*) FROM pg_available_extensions WHERE name = 'file_fdw'")
            ):
                pytest.skip("the extension file_fdw is not installed")
            await connection.execute(text(statement))
    await refuses(async_sessionmaker(engine), shelf, words)


@pytest.mark.parametrize("driver", ["asyncmy", "aiosqlite"])
async def test_views_of_other_databases(servers: Any, tmp_path: Path, driver: str) -> None:
    """MariaDB and SQLite have them, too."""
    database: Database = servers.database(driver, tmp_path)
    shelf, engine = Shelf(), database.engine()
    await shelf.fill(engine, 30)
    async with engine.begin() as connection:
        await connection.execute(text("ALTER TABLE user_picture RENAME TO everything"))
        await connection.execute(text("CREATE VIEW user_picture AS SELECT * FROM everything WHERE user_id <> 7"))
    await refuses(async_sessionmaker(engine), shelf, "user_picture is a view, which may hide rows")
    await database.aclose()


async def test_temporary_and_virtual_tables(place: Place) -> None:
    """A temporary table takes the place of the real one; a virtual one may show anything."""
    shelf = Shelf()
    await shelf.fill(place.engine, 12)

    @event.listens_for(place.engine.sync_engine, "connect")
    def shadow(connection: Any, _record: object) -> None:
        connection.execute("CREATE TEMP TABLE user_picture AS SELECT * FROM main.user_picture WHERE user_id < 6")

    await place.engine.dispose()
    await refuses(place.sessions, shelf, "user_picture is temporary, which may hide rows")


async def test_row_security_behind_a_view(postgresql: Database, tmp_path: Path) -> None:
    """A second role does not see all rows of the table that a view shows."""
    shelf, engine = Shelf(), postgresql.engine()
    await shelf.fill(engine, 30)
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
        await refuses(async_sessionmaker(other), shelf, "user_picture is a view")


async def test_row_security_on_the_table(postgresql: Database) -> None:
    """Neither does it see all rows of the table itself."""
    shelf, engine = Shelf(), postgresql.engine()
    await shelf.fill(engine, 30)
    async with engine.begin() as connection:
        await connection.execute(text("ALTER TABLE user_picture ENABLE ROW LEVEL SECURITY"))
        await connection.execute(text("CREATE POLICY some_rows ON user_picture USING (user_id % 15 <> 0)"))
    async with role_on(engine) as role:
        other = postgresql.engine(connect_args={"server_settings": {"role": role}})
        await refuses(async_sessionmaker(other), shelf, "row security hides rows of user_picture")


async def test_a_partition_is_detached(postgresql: Database) -> None:
    """It is a table of its own then, to which no class is mapped."""
    shelf, engine = Shelf(), postgresql.engine()
    await shelf.fill(engine, 30)
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
    sessions, before = async_sessionmaker(engine), shelf.names
    assert (await sweep(sessions, Base, shelf.store, delete=True).execute()).orphans == 0
    async with engine.begin() as connection:
        await connection.execute(text("ALTER TABLE user_picture DETACH PARTITION part_1"))
    with pytest.raises(SweepRefusedError, match=r"part_1, which no class is mapped to, name 9 files"):
        await sweep(sessions, Base, shelf.store, delete=True, force=True).execute()
    assert shelf.names == before


async def test_a_read_only_connection_of_postgresql(postgresql: Database) -> None:
    """As those that are meant for replicas."""
    shelf = Shelf()
    await shelf.fill(postgresql.engine(), 30)
    engine = postgresql.engine(connect_args={"server_settings": {"default_transaction_read_only": "on"}})
    await refuses(async_sessionmaker(engine), shelf, "the connection is read-only")


async def test_a_subscriber(postgresql: Database) -> None:
    """A database that gets its rows by logical replication may be behind."""
    shelf, engine = Shelf(), postgresql.engine()
    await shelf.fill(engine, 30)
    name = f"aioimageattach_{secrets.token_hex(4)}"
    async with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        await connection.execute(
            text(
                f"CREATE SUBSCRIPTION {name} CONNECTION 'host=127.0.0.1 dbname=nowhere' PUBLICATION one "
                "WITH (connect=false, slot_name=NONE)"
            )
        )
    try:
        await refuses(async_sessionmaker(engine), shelf, "the database subscribes to another one")
    finally:
        async with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
            await connection.execute(text(f"DROP SUBSCRIPTION {name}"))


async def test_a_read_only_file(place: Place) -> None:
    """A database of SQLite that is opened for reading only is a copy, as far as one can know."""
    shelf = Shelf()
    await shelf.fill(place.engine, 30)
    engine = create_async_engine(f"sqlite+aiosqlite:///file:{place.database.url.database}?mode=ro&uri=true")
    await refuses(async_sessionmaker(engine), shelf, "the connection is read-only")
    await engine.dispose()


# --- 10 to 12 --------------------------------------------------------------------------------------------------------


async def test_keys_that_change_meanwhile(place: Place) -> None:
    """A photo is moved to the front of its post while it is migrated and verified: it is not passed over."""
    shelf, destination = Shelf(), MemoryStore()
    rows = []
    for number in range(1, 2501):
        photo = row(0, shelf.picture(object_type="post-photo"), post_id=1, place=number)
        del photo["user_id"]
        rows.append(photo)
    async with place.engine.begin() as connection:
        await connection.execute(insert(Post), [{"id": 1}])
        await connection.execute(insert(PostPhoto.__table__), rows)
    plan = migrate(place.sessions, Base, shelf.store, destination)
    async for _ in plan:
        if plan.progress.done == 1200:
            async with place.engine.begin() as connection:
                await connection.execute(
                    update(PostPhoto.__table__).where(PostPhoto.__table__.c.place == 2400).values(place=-1)
                )
    assert (plan.progress.copied, plan.progress.done, plan.progress.total) == (2500, 2500, 2500)
    assert len(await names_in(destination)) == 2500


async def test_keys_of_old_rows_that_change_meanwhile(place: Place) -> None:
    """They are read in order of the key, so at the end those that were missed are read, too."""
    shelf = Shelf()
    rows = []
    for number in range(1, 2501):
        photo = row(0, None, post_id=number, place=number)
        del photo["user_id"]
        rows.append(photo)
    async with place.engine.begin() as connection:
        await connection.execute(insert(Post), [{"id": number} for number in range(-1, 2501)])
        await connection.execute(insert(PostPhoto.__table__), rows)
    seen: list[tuple[Any, ...]] = []
    plan = verify(place.sessions, PostPhoto, shelf.store, concurrency=1)
    async for mismatch in plan:
        seen.append(mismatch.reference.identity)
        if plan.progress.done == 1200:
            async with place.engine.begin() as connection:
                await connection.execute(
                    update(PostPhoto.__table__).where(PostPhoto.__table__.c.post_id == 2400).values(post_id=-1)
                )
    assert (-1, 2400, 30, 20, "") in seen
    assert plan.progress.done == len({one[1] for one in seen}) == 2500


class NoteBase(DeclarativeBase):
    """The base of notes."""


class Note(NoteBase):
    """Has a text that it may share with other rows."""

    __tablename__ = "note"
    id: Mapped[int] = mapped_column(primary_key=True)
    body: Mapped[StoredText] = stored_text(dedupe=True)


class Slow(MemoryStore):
    """A store whose clock is 25 hours behind."""

    async def put_object(self, name: str, data: Any, **options: Any) -> None:
        await super().put_object(name, data, **options)
        blob, then = self._files[name]
        self._files[name] = (blob, then - timedelta(hours=25))


async def test_a_store_whose_clock_is_behind(sqlite_database: Database) -> None:
    """The names of shared files tell no time, so the store's clock has to be right."""
    await sqlite_database.create(NoteBase.metadata)
    sessions, store = async_sessionmaker(sqlite_database.engine(), expire_on_commit=False), Slow()
    bind_store(sessions, store)
    for number in range(20):
        async with sessions.begin() as session:
            session.add(Note(id=number + 1, body=f"text {number}"))
    await store.put_object("note.body/01abc/shared.1.1." + "0" * 64 + ".txt", b"x")
    plan = sweep(sessions, NoteBase, delete=True, force=True)
    with pytest.raises(SweepRefusedError, match=r"the clock of <MemoryStore .* is 1 day, \S+ behind: set it right"):
        await plan.execute()
    assert plan.progress.removed == 0
    plan = sweep(sessions, NoteBase)
    assert (await plan.execute()).orphans == 1
    assert len(plan.objections) == 1


# --- what else stops or misleads -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bad",
    [
        {"width": 0, "height": 0, "mimetype": "image/svg+xml"},
        {"mimetype": "image/jpeg; charset=binary"},
        {"mimetype": ""},
    ],
)
async def test_a_row_that_no_name_can_be_made_of(place: Place, bad: dict[str, Any]) -> None:
    """It is named among what was found, and the others are dealt with; old files are not swept beside it."""
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
    with pytest.raises(SweepRefusedError, match=r"the file of UserPicture \(77, .* cannot be told from an orphan"):
        await sweep(place.sessions, Base, delete=True, force=True).execute()
    assert old in await place.names()


async def test_a_class_that_was_removed(sqlite_database: Database) -> None:
    """Rows of a polymorphic identity that no class has are named, and end nothing."""

    class Own(DeclarativeBase):
        pass

    class Shot(Own, Image):
        __tablename__ = "shot"
        number: Mapped[int] = mapped_column(primary_key=True)
        kind: Mapped[str] = mapped_column(String(20))
        __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "shot"}  # type: ignore[misc]

    await sqlite_database.create(Own.metadata)
    shelf, sessions = Shelf(), async_sessionmaker(sqlite_database.engine())
    rows = []
    for number, kind in ((1, "shot"), (2, "removed")):
        one = {**row(0, shelf.picture(object_type="shot")), "number": number, "kind": kind}
        del one["user_id"]
        rows.append(one)
    async with sessions.begin() as session:
        await session.execute(insert(Shot.__table__), rows)  # type: ignore[arg-type]
    found = [one async for one in verify(sessions, Own, shelf.store)]
    assert [(one.problem, one.reference.identity[0]) for one in found] == [("unreadable", 2)]
    assert "no class that is imported is for rows with the polymorphic identity 'removed'" in str(found[0].error)
    assert (await sweep(sessions, Own, shelf.store, delete=True).execute()).orphans == 0


async def test_a_session_keeps_its_info(servers: Any, tmp_path: Path) -> None:
    """A session that finds its database by ``info`` stands for others that find the same one."""
    databases: dict[str, Database] = {name: servers.database("aiosqlite", tmp_path) for name in ("default", "acme")}
    engines = {name: database.engine() for name, database in databases.items()}

    class Tenant(Session):
        def get_bind(self, mapper: Any = None, **more: Any) -> Any:
            return engines[self.info.get("tenant", "default")].sync_engine

    shelves = {name: Shelf() for name in databases}
    await shelves["default"].fill(engines["default"], 30)
    await shelves["acme"].fill(engines["acme"], 3)
    sessions = async_sessionmaker(sync_session_class=Tenant)
    async with sessions(info={"tenant": "acme"}) as session:
        progress = await verify(session, Base, shelves["acme"].store).execute()
        assert (progress.total, progress.sound) == (3, 3)
        assert (await sweep(session, Base, shelves["acme"].store, delete=True).execute()).named == 3
    for database in databases.values():
        await database.aclose()


# --- quarantine ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("combine", [False, True])
async def test_a_sweep_is_undone(place: Place, combine: bool) -> None:
    """Files get their names back in every store that had them, as they were."""
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
    """After its own time, by a later sweep; the files of newer sweeps stay."""
    await place.rows(12)
    old = make_revision(time.time() - 31 * DAY)
    name = place.store.name_of(await place.file())
    await place.name(f".trash/{old}/{name}")
    await place.name(f".trash/{old}/other-type/x")
    progress = await sweep(place.sessions, Base, delete=True).execute()
    assert (progress.removed, progress.emptied) == (1, 1)
    assert next(one.id for one in await sweeps(Base, place.store)) == old  # for the other type
    progress = await sweep(place.sessions, Base, delete=True, retention=timedelta(0)).execute()
    assert progress.emptied == 1
    assert name not in await place.names()


async def test_only_so_many_are_removed(place: Place) -> None:
    """A limit bounds what one run can do; the next one goes on."""
    await place.rows(30)
    for _ in range(9):
        await place.file()
    plan = sweep(place.sessions, Base, delete=True, limit=4)
    assert (await plan.execute()).removed == 4
    assert plan.warnings == ["the limit of 4 files was reached"]
    assert (await sweep(place.sessions, Base, delete=True, limit=50).execute()).removed == 5
    with pytest.raises(ValueError, match="limit: expected at least 1"):
        sweep(place.sessions, Base, limit=0)


async def test_a_record_that_is_renewed_meanwhile(place: Place) -> None:
    """Several sweeps at once renew the record of ownership: none fails, none is refused, and one record is left."""
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
    with pytest.raises(OwnershipError, match=r"x\.json in .* is not a record of this library: delete it"):
        await sweep(place.sessions, UserPicture).execute()
