"""Ownership: a sweep or a migration of files that belong to another database is refused."""

from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, text
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from aioimageattach import bind_store
from aioimageattach._inventory.ownership import Owner
from aioimageattach.entity import Image
from aioimageattach.exc import RefusedError
from aioimageattach.maintenance import own, sweep
from aioimageattach.migration import migrate
from aioimageattach.offload import StoredText, stored_text
from aioimageattach.stores import MemoryStore
from aioimageattach.testing import FaultyStore
from tests.databases import Database
from tests.entity.models import started
from tests.maintenance.conftest import AgedStore, Place, place_of, role_on, row
from tests.maintenance.models import Base, User, UserPicture


async def test_a_restored_database(place: Place) -> None:
    """Consecutive orphans after a restore are an objection, even if there were uploads since."""
    aged = AgedStore()
    await aged.fill(place.engine, 1500, lost=150)
    async with place.engine.begin() as connection:
        await connection.execute(insert(User), [{"id": 5000}])
        await connection.execute(insert(UserPicture.__table__), [row(5000, aged.picture(1.5))])
    before = aged.names
    with pytest.raises(RefusedError, match="150 consecutive files"):
        await sweep(place.sessions, Base, aged.store, delete=True).execute()
    assert aged.names == before


async def test_a_backup_is_restored_in_place(place: Place, tmp_path: Path) -> None:
    """Even a few lost rows are detected, because the store has the token of a sweep that the database lacks."""
    aged = AgedStore()
    await aged.fill(place.engine, 40)
    assert (await sweep(place.sessions, Base, aged.store, delete=True).execute()).counts["orphans"] == 0
    path = Path(str(place.database.url.database))
    await place.engine.dispose()
    backup = shutil.copy(path, tmp_path / "backup")
    async with place.engine.begin() as connection:
        await connection.execute(insert(User), [{"id": 41}])
        await connection.execute(insert(UserPicture.__table__), [row(41, aged.picture(2))])
    assert (await sweep(place.sessions, Base, aged.store, delete=True).execute()).counts["orphans"] == 0
    await place.database.aclose()
    shutil.copy(backup, path)
    before = aged.names
    plan = sweep(place.sessions, Base, aged.store, delete=True, force=True)
    with pytest.raises(RefusedError, match="restored from a backup, or is a copy"):
        await plan.execute()
    assert aged.names == before
    assert [one.can_be_forced for one in plan.objections] == [False]
    [ours] = [one for one in await own(place.sessions, Base, aged.store, transfer=True) if one.conflict is None][:1]
    assert ours.owner is not None


async def test_a_copy_of_production(place: Place, tmp_path: Path) -> None:
    """A sweep of production's bucket with a staging database is refused, even if it would remove only one file."""
    aged = AgedStore()
    await aged.fill(place.engine, 40)
    assert (await sweep(place.sessions, Base, aged.store, delete=True).execute()).counts["orphans"] == 0
    await place.engine.dispose()
    staging = create_async_engine(
        place.database.url.set(database=str(shutil.copy(str(place.database.url.database), tmp_path / "staging.sqlite")))
    )
    async with place.engine.begin() as connection:
        await connection.execute(insert(User), [{"id": 41}])
        await connection.execute(insert(UserPicture.__table__), [row(41, aged.picture(2))])
    before = aged.names
    sessions = async_sessionmaker(staging)
    with pytest.raises(RefusedError, match=r"belong to the sqlite database .* this is .*staging\.sqlite', a copy"):
        await sweep(sessions, Base, aged.store, delete=True, force=True).execute()
    with pytest.raises(RefusedError, match=r"nothing was copied: user-picture/ in <MemoryStore.*a copy of it"):
        await migrate(sessions, Base, MemoryStore(), aged.store).execute()
    assert aged.names == before
    assert (await sweep(place.sessions, Base, aged.store, delete=True).execute()).counts["orphans"] == 0
    await staging.dispose()


async def test_two_applications_in_one_bucket(postgresql: Database, servers: Any, tmp_path: Path) -> None:
    """A second application with the same object type is refused, and the message names the owner of the files."""
    aged = AgedStore()
    place = await place_of(postgresql, tmp_path / "media")
    await aged.fill(place.engine, 12)
    await sweep(place.sessions, Base, aged.store, delete=True).execute()
    other: Database = servers.database("aiosqlite", tmp_path)
    sessions = await started(other, Base.metadata)
    async with sessions.begin() as session:
        await session.execute(insert(User), [{"id": 1}])
        await session.execute(insert(UserPicture.__table__), [row(1, aged.picture())])
    before = aged.names
    with pytest.raises(RefusedError, match=r"belong to the postgresql database '\w+' at 127\.0\.0\.1.*this is the sq"):
        await sweep(sessions, Base, aged.store, delete=True, force=True).execute()
    assert aged.names == before
    await other.aclose()


async def test_a_user_who_may_not_create_tables(postgresql: Database, tmp_path: Path) -> None:
    """The database is then identified only by its place, which differs from that of other databases."""
    aged = AgedStore()
    place = await place_of(postgresql, tmp_path / "media")
    await aged.fill(place.engine, 12)
    async with role_on(place.engine) as role:
        reader = Place(postgresql, tmp_path / "media", connect_args={"server_settings": {"role": role}})
        orphan = aged.picture()
        assert (await sweep(reader.sessions, Base, aged.store, delete=True).execute()).counts["removed"] == 1
        assert orphan
        owner = await owner_of(reader, aged)
        assert (owner.database, owner.token) == (None, None)
        assert owner.place.startswith("postgresql:")
        assert (await sweep(place.sessions, Base, aged.store, delete=True).execute()).counts["orphans"] == 0
        assert (await sweep(reader.sessions, Base, aged.store, delete=True).execute()).counts["orphans"] == 0


async def test_a_user_who_may_not_write(postgresql: Database, tmp_path: Path) -> None:
    """The identifier of the database is used, with the token of the last sweep that was permitted to write."""
    aged = AgedStore()
    place = await place_of(postgresql, tmp_path / "media")
    await aged.fill(place.engine, 12)
    await sweep(place.sessions, Base, aged.store, delete=True).execute()
    before = await owner_of(place, aged)
    async with role_on(place.engine) as role:
        reader = Place(postgresql, tmp_path / "media", connect_args={"server_settings": {"role": role}})
        assert (await sweep(reader.sessions, Base, aged.store, delete=True).execute()).counts["orphans"] == 0
        after = await owner_of(reader, aged)
    assert (after.database, after.token) == (before.database, before.token)
    assert after.written_at > before.written_at


async def test_a_locked_database(place: Place) -> None:
    """If a reader keeps SQLite from committing its identifier, the database is identified by its place."""
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


async def test_a_column_of_a_class_that_is_no_longer_imported(place: Place) -> None:
    """A sweep is refused if a class whose rows named files is no longer imported."""
    await place.rows(12)

    class Second(DeclarativeBase):
        pass

    class Archived(Second, Image):
        __tablename__ = "archived"
        number: Mapped[int] = mapped_column(primary_key=True)
        object_type = "user-picture"

    await place.database.create(Second.metadata)
    assert (await sweep(place.sessions, UserPicture, delete=True).execute()).counts["orphans"] == 0
    async with place.engine.begin() as connection:
        await connection.execute(text("DROP TABLE archived"))
    with pytest.raises(RefusedError, match=r"named by archived\.revision, for which no class is"):
        await sweep(place.sessions, UserPicture, delete=True, force=True).execute()
    await own(place.sessions, UserPicture, transfer=True)
    assert (await sweep(place.sessions, UserPicture, delete=True).execute()).counts["orphans"] == 0


class NoteBase(DeclarativeBase):
    """The declarative base of notes."""


class Note(NoteBase):
    """A note with a text that may be shared with other rows."""

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
    """Names of shared files contain no time, so a sweep is refused if the store's clock is wrong."""
    await sqlite_database.create(NoteBase.metadata)
    sessions, store = async_sessionmaker(sqlite_database.engine(), expire_on_commit=False), Behind()
    bind_store(sessions, store)
    for number in range(20):
        async with sessions.begin() as session:
            session.add(Note(id=number + 1, body=f"text {number}"))
    await store.put_object("note.body/01abc/shared.1.1." + "0" * 64 + ".txt", b"x")
    plan = sweep(sessions, NoteBase, delete=True, force=True)
    with pytest.raises(RefusedError, match=r"the clock of <MemoryStore .* is 1 day, \S+ behind: set it"):
        await plan.execute()
    assert plan.progress.counts["removed"] == 0
    plan = sweep(sessions, NoteBase)
    assert (await plan.execute()).counts["orphans"] == 1
    assert len(plan.objections) == 1


async def test_a_record_that_is_renewed_concurrently(place: Place) -> None:
    """Concurrent sweeps that renew the record of ownership all succeed, and one record is left."""
    await place.rows(12)
    store = FaultyStore(place.store)
    records = ".aioimageattach/owners/user-picture/"

    async def renew_too(name: str) -> None:
        await sweep(place.sessions, UserPicture, place.store, delete=True).execute()

    for method in ("head", "get"):
        store.heal()
        store.on(method, renew_too, at=1, name=lambda name: name.startswith(records))  # type: ignore[arg-type]
        assert (await sweep(place.sessions, UserPicture, store, delete=True).execute()).counts["named"] == 12
    assert len(await store.names(records)) == 1


async def test_a_record_that_cannot_be_read(place: Place) -> None:
    """The message states the remedy."""
    await place.rows(12)
    await place.store.put_object(".aioimageattach/owners/user-picture/x.json", b"{}")
    with pytest.raises(RefusedError, match=r"x\.json in .*: expected a record of ownership .*; delete the file"):
        await sweep(place.sessions, UserPicture).execute()
