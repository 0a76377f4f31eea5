"""The sweep removes files that no committed row names, and no other files."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import ForeignKey, Update, delete, event, insert, text, update
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from aioimageattach import store_context
from aioimageattach._transaction.fence import set_grace
from aioimageattach.entity import Image, image_attachment
from aioimageattach.exc import ContextError, DeclarationError, RefusedError, StoreUnavailableError
from aioimageattach.maintenance import Orphan, own, sweep, verify
from aioimageattach.stores import MemoryStore
from aioimageattach.testing import FaultyStore
from tests.databases import Database
from tests.faults import models as faults
from tests.faults import stores
from tests.faults.rig import Rig
from tests.maintenance.conftest import DAY, AgedStore, Place, place_of, row
from tests.maintenance.models import Base, User, UserPicture
from tests.stores.plain import PlainStore

NOW = timedelta(0)


def on_second_pass(action: Callable[[str], Awaitable[None]]) -> Callable[[str], Awaitable[None]]:
    """Return a hook for listings that runs an action in the second pass, in which files are removed."""
    calls = 0

    async def listed(prefix: str) -> None:
        nonlocal calls
        if prefix == "user-picture/" and (calls := calls + 1) == 2:
            await action(prefix)

    return listed


async def fails(name: str) -> None:
    """Raise the error of an unavailable store."""
    raise StoreUnavailableError("away", name=name)


async def found(place: Place, target: Any = Base, **options: Any) -> set[str]:
    """Return the names of the orphans."""
    return {orphan.name async for orphan in sweep(place.sessions, target, **options)}


async def test_orphans_are_found_and_removed(any_place: Place) -> None:
    """A dry run reports the orphan; a run removes exactly the orphan; a second run finds nothing."""
    place = any_place
    kept = await place.rows(12)
    orphan = await place.file(blob=b"orphan")
    name = place.store.name_of(orphan)
    plan = sweep(place.sessions, Base)
    told = [orphan async for orphan in plan]
    assert [(one.object_type, one.name, one.size, one.removed, one.error) for one in told] == [
        ("user-picture", name, 6, False, None)
    ]
    assert plan.objections == []
    assert await place.names() == {*kept, name}
    plan = sweep(place.sessions, Base, delete=True)
    assert [(one.name, one.removed, one.error) async for one in plan] == [(name, True, None)]
    assert await place.names() == set(kept)
    progress = plan.progress
    assert (progress.done, progress.counts["named"], progress.counts["orphans"], progress.bytes) == (13, 12, 1, 6)
    assert (progress.counts["removed"], progress.failed, progress.counts["young"]) == (1, 0, 0)
    assert progress.position == max(*kept, name)
    progress = await sweep(place.sessions, Base, delete=True).execute()
    assert (progress.done, sum(progress.counts.values()), progress.counts["named"]) == (12, 12, 12)
    assert (progress.failed, progress.position) == (0, max(kept))


@pytest.mark.parametrize(
    ("named", "put", "old"),
    [(2 * DAY, 2 * DAY, True), (DAY / 2, 2 * DAY, False), (2 * DAY, DAY / 2, False), (-DAY, 2 * DAY, False)],
)
async def test_both_times_must_be_old(place: Place, named: float, put: float, old: bool) -> None:
    """A file is old if both the time in its name and the time of the store are before the grace time."""
    await place.rows(1)
    key = await place.file(named=named, put=put)
    assert await found(place) == ({place.store.name_of(key)} if old else set())


async def test_young_files_are_not_listed(place: Place) -> None:
    """Names sort by time, so a sweep skips all names after the first young one."""
    await place.rows(3)
    for _ in range(40):
        await place.file(named=60, put=60)
    old = await place.name("user-picture/9/0/9.30x20.jpe")
    plan = sweep(place.sessions, Base)
    assert [orphan.name async for orphan in plan] == [old]
    assert (plan.progress.done, plan.progress.counts["young"]) == (5, 1)


async def test_other_files_are_not_touched(place: Place) -> None:
    """Files of other classes, names in another format, and prefixes with the same first letters are ignored."""
    await place.rows(1)
    orphan = place.store.name_of(await place.file())
    await place.file("post-photo")
    await place.file("user-picture-2")
    await place.name("user-picture/readme.txt")
    await place.name("user-picture/backup/0a/picture.30x20.jpg")
    await place.name("notes.txt")
    plan = sweep(place.sessions, UserPicture, delete=True, max_share=1)
    assert [one.name async for one in plan] == [orphan]
    assert plan.progress.counts["foreign"] == 2
    assert len(await place.names()) == 6


async def test_legacy_names(any_place: Place) -> None:
    """Files in the layout of SQLAlchemy-ImageAttach are removed if no row without a revision has their name."""
    place = any_place
    kept = await place.rows(2)
    async with place.sessions.begin() as session:
        await session.execute(
            update(UserPicture.__table__).where(UserPicture.__table__.c.user_id == 2).values(revision=None)
        )
    theirs = await place.name("user-picture/2/0/2.30x20.jpe")
    other = await place.name("user-picture/3/0/3.30x20.jpe")
    assert await found(place, delete=True, max_share=1) == {other, kept[1]}
    assert await place.names() == {kept[0], theirs}


async def test_many_legacy_rows(place: Place) -> None:
    """Legacy rows are read in bounded memory with one statement."""
    aged = AgedStore()
    async with place.engine.begin() as connection:
        numbers = range(1, 1002)
        await connection.execute(insert(User), [{"id": number} for number in numbers])
        await connection.execute(insert(UserPicture.__table__), [row(number, None) for number in numbers])
    aged.put("user-picture/1001/30x20.png")
    orphan = aged.put("user-picture/1002/30x20.png")
    assert await found(place, store=aged.store) == {orphan}


async def test_bulk_deletes_leave_orphans(any_place: Place) -> None:
    """Files of rows that a bulk statement has deleted are orphans."""
    place = any_place
    names = await place.rows(20)
    async with place.sessions.begin() as session:
        await session.execute(delete(User).where(User.id == 3))
        await session.execute(text("DELETE FROM user_picture WHERE user_id = 3"))
    assert await found(place, delete=True) == {names[2]}
    assert await place.names() == {*names} - {names[2]}


# --- objections ------------------------------------------------------------------------------------------------------


async def test_too_large_a_share_is_refused(place: Place) -> None:
    """Nothing is removed, the message states the remedy, and a dry run reports the objection, too."""
    await place.rows(9)
    orphans = {place.store.name_of(await place.file()) for _ in range(11)}
    before = await place.names()
    plan = sweep(place.sessions, Base)
    assert {one.name async for one in plan} == orphans
    assert [(str(one), one.can_be_forced) for one in plan.objections] == [
        (
            "user-picture/: 11 of 20 files are orphans, more than the share of 10% that may be removed (max_share)",
            True,
        )
    ]
    with pytest.raises(RefusedError, match=r"nothing was removed; refused: user-picture/: 11 of 20 files are"):
        await sweep(place.sessions, Base, delete=True).execute()
    assert await place.names() == before
    assert await found(place, delete=True, max_share=0.6) == orphans


async def test_the_share_applies_to_each_class(place: Place) -> None:
    """The loss of all rows of one class is detected even if other classes have many files."""
    await place.rows(30)
    other = place.store.name_of(await place.file())
    orphan = place.store.name_of(await place.file("post-photo"))
    plan = sweep(place.sessions, Base, delete=True)
    words = r"1 files were removed; refused: post-photo/: the database has no row for 1 files \(is it the right one\?\)"
    with pytest.raises(RefusedError, match=words):
        await plan.execute()
    assert [one.object_type for one in plan.objections] == ["post-photo"]
    assert other not in await place.names()
    assert await found(place, delete=True, force=True, object_types=["post-photo"]) == {orphan}


async def test_an_empty_database_is_refused(any_place: Place) -> None:
    """A sweep with an empty database requires ``force``; a larger share is not sufficient."""
    for _ in range(3):
        await any_place.file()
    with pytest.raises(RefusedError, match=r"user-picture/: the database has no row for 3 files"):
        await sweep(any_place.sessions, Base, delete=True, max_share=1).execute()
    assert len(await any_place.names()) == 3
    assert len(await found(any_place, delete=True, force=True)) == 3


async def test_a_database_that_is_older_than_the_files(place: Place) -> None:
    """A hundred consecutive orphans indicate a copy or a restored database, even if later rows exist."""
    aged = AgedStore()
    await aged.fill(place.engine, 1001, lost=1)  # three to two days old, the last one without a row
    async with place.engine.begin() as connection:
        await connection.execute(insert(User), [{"id": 1002}])
    [last] = [name for name in aged.names if name.endswith(sorted(aged.names)[-1][-40:])]
    for number in range(97):
        aged.picture(1.9 - number * 0.001)
    old = aged.put("user-picture/9/30x20.jpe")
    plan = sweep(place.sessions, Base, aged.store)
    assert (await plan.execute()).counts["orphans"] == 99
    assert plan.objections == []
    first, _ = aged.picture(1.5), aged.picture(1.49)
    words = "user-picture/: 100 consecutive files, the last of .* UTC, are orphans"
    with pytest.raises(RefusedError, match=words):
        await sweep(place.sessions, Base, aged.store, delete=True).execute()
    async with place.engine.begin() as connection:
        await connection.execute(insert(UserPicture.__table__), [row(1002, aged.picture(1.2))])
    with pytest.raises(RefusedError, match=words):
        await sweep(place.sessions, Base, aged.store, delete=True).execute()
    async with place.engine.begin() as connection:  # 98 and 1 are left
        await connection.execute(insert(UserPicture.__table__), [row(1001, first)])
    assert (await sweep(place.sessions, Base, aged.store, delete=True).execute()).counts["removed"] == 100
    assert old not in aged.names
    assert last not in aged.names


async def test_an_empty_store(place: Place) -> None:
    """A sweep of an empty store succeeds with or without rows."""
    plan = sweep(place.sessions, Base, delete=True)
    progress = await plan.execute()
    assert (progress.done, sum(progress.counts.values()), progress.position) == (0, 0, "user-picture/")
    assert plan.objections == []


@pytest.fixture
async def postgresql(servers: Any, tmp_path: Path) -> AsyncIterator[Place]:
    """PostgreSQL, with the schema of the test before the system catalog, so that tests can replace its functions."""
    database: Database = servers.database("asyncpg", tmp_path)
    settings = {"server_settings": {"search_path": "public,pg_catalog"}}
    yield await place_of(database, tmp_path / "media", connect_args=settings)
    await database.aclose()


FAKES = {
    "replica": (
        "CREATE FUNCTION public.pg_is_in_recovery() RETURNS boolean LANGUAGE sql AS 'SELECT true'",
        "the database is a replica.*connect to the primary",
    ),
    "clock": (
        "CREATE FUNCTION public.now() RETURNS timestamptz LANGUAGE sql AS"
        " 'SELECT clock_timestamp() - make_interval(hours => 4)'",
        r"the local clock is (3:59|4:00):\S+ ahead of the database's: set it",
    ),
    "prepared": (
        "CREATE VIEW public.pg_prepared_xacts AS"
        " SELECT current_database() AS database, now() - interval '7 hours' AS prepared",
        "1 transactions were prepared before .* and are neither committed nor rolled back",
    ),
}


@pytest.mark.parametrize(("fake", "words"), FAKES.values(), ids=FAKES)
async def test_postgresql_that_hides_rows(postgresql: Place, fake: str, words: str) -> None:
    """A replica, a wrong clock, or an old prepared transaction is an objection that cannot be forced."""
    await postgresql.rows(1)
    await postgresql.file()
    async with postgresql.engine.begin() as connection:
        await connection.execute(text(fake))
    with pytest.raises(RefusedError, match=words):
        await sweep(postgresql.sessions, Base, delete=True, force=True).execute()
    assert len(await postgresql.names()) == 2


async def test_a_failover_during_a_sweep(postgresql: Place) -> None:
    """The database is checked again for each batch, because sessions may connect to another server."""
    await postgresql.rows(1)
    await postgresql.file()
    store = FaultyStore(postgresql.store)

    async def fail_over(prefix: str) -> None:
        async with postgresql.engine.begin() as connection:
            await connection.execute(text(FAKES["replica"][0]))
        await postgresql.engine.dispose()

    store.on("list", on_second_pass(fail_over))
    words = "nothing was removed; refused: user-picture/: stopped: the database is a replica"
    with pytest.raises(RefusedError, match=words):
        await sweep(postgresql.sessions, UserPicture, store, delete=True, force=True).execute()
    assert len(await postgresql.names()) == 2


async def test_row_level_security(servers: Any, tmp_path: Path) -> None:
    """Files of rows that a user cannot see are not removed."""
    database: Database = servers.database("asyncpg", tmp_path)
    place = await place_of(database, tmp_path / "media")
    await place.rows(12)
    role = f"aioimageattach_{os.getpid()}"
    async with place.engine.begin() as connection:
        for statement in (
            f"CREATE ROLE {role}",
            f"GRANT USAGE ON SCHEMA public TO {role}",
            f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}",
            "ALTER TABLE user_picture ENABLE ROW LEVEL SECURITY",
            "CREATE POLICY some_rows ON user_picture USING (user_id <> 5)",
        ):
            await connection.execute(text(statement))
    shown = Place(database, tmp_path / "media", connect_args={"server_settings": {"role": role}})
    try:
        plan = sweep(shown.sessions, Base)
        assert (await plan.execute()).counts["orphans"] == 1
        assert [one.reason for one in plan.objections] == [
            "row-level security hides rows of user_picture: connect as a user with BYPASSRLS"
        ]
        with pytest.raises(RefusedError, match="row-level security"):
            await sweep(shown.sessions, Base, delete=True, force=True).execute()
    finally:
        async with place.engine.begin() as connection:
            await connection.execute(text(f"DROP OWNED BY {role}"))
            await connection.execute(text(f"DROP ROLE {role}"))
    assert len(await place.names()) == 12
    await database.aclose()


async def test_recently_prepared_transactions(postgresql: Place) -> None:
    """A recent prepared transaction is not an objection: because of the commit fence, its files are young."""
    await postgresql.rows(1)
    fake = FAKES["prepared"][0].replace("7 hours", "5 hours")
    async with postgresql.engine.begin() as connection:
        await connection.execute(text(fake))
    await sweep(postgresql.sessions, Base, delete=True).execute()


async def test_uncommitted_deletions_are_refused(servers: Any, tmp_path: Path) -> None:
    """A sweep is refused while another transaction may still roll back the deletion of rows."""
    database: Database = servers.database("asyncmy", tmp_path)
    place = await place_of(database, tmp_path / "media")
    dirty = Place(database, tmp_path / "media", isolation_level="READ UNCOMMITTED")
    await place.rows(12)
    async with place.sessions() as session:
        await session.execute(delete(UserPicture).where(UserPicture.user_id == 3))
        plan = sweep(dirty.sessions, Base)
        assert (await plan.execute()).counts["orphans"] == 1
        assert [one.reason for one in plan.objections] == [
            "the sessions read uncommitted rows: use another isolation level"
        ]
        with pytest.raises(RefusedError, match="uncommitted rows"):
            await sweep(dirty.sessions, Base, delete=True, force=True).execute()
        assert await found(place, delete=True) == set()
        await session.rollback()
    assert len(await place.names()) == 12
    await database.aclose()


async def test_sessions_that_are_bound_to_a_connection(place: Place) -> None:
    """Sessions bound to a connection are refused, because they see uncommitted changes."""
    await place.rows(12)
    async with place.engine.connect() as connection:
        await connection.execute(delete(UserPicture).where(UserPicture.user_id == 3))
        inside = AsyncSession(connection)
        with pytest.raises(RefusedError, match=r"bound to a connection.*: bind them to an engine"):
            await sweep(inside, Base, place.store, delete=True, force=True).execute()
        with pytest.raises(DeclarationError, match="expected sessions that are bound to an engine"):
            await own(inside, Base, place.store)
        await connection.rollback()
    assert len(await place.names()) == 12


async def test_sessions_with_replicas(place: Place, servers: Any, tmp_path: Path) -> None:
    """All statements are sent to the database to which rows are written."""
    other: Database = servers.database("aiosqlite", tmp_path)
    await other.create(Base.metadata)
    reader = other.engine().sync_engine

    class Routed(Session):
        def get_bind(self, mapper: Any = None, *, clause: Any = None, **more: Any) -> Any:
            return super().get_bind(mapper, clause=clause, **more) if isinstance(clause, Update) else reader

    names = await place.rows(12)
    orphan = place.store.name_of(await place.file())
    sessions = async_sessionmaker(place.engine, sync_session_class=Routed)
    assert [one.name async for one in sweep(sessions, Base, place.store, delete=True)] == [orphan]
    assert await place.names() == {*names}
    assert (await verify(sessions, Base, place.store).execute()).counts["sound"] == 12
    await other.aclose()


@pytest.mark.parametrize("delete", [True, False])
async def test_a_short_grace_time(place: Place, delete: bool) -> None:
    """With ``delete``, a short grace time is refused unless the sessions have it, too, or it is forced."""
    names = await place.rows(9)
    orphan = place.store.name_of(await place.file(named=7200, put=7200))
    hour = timedelta(hours=1)
    if not delete:
        assert await found(place, grace=hour) == {orphan}
        return
    with pytest.raises(ValueError, match=r"expected at least 1 day, 0:00:00, .* got 1:00:00; .*set_grace"):
        sweep(place.sessions, Base, grace=hour, delete=True)
    assert await found(place) == set()
    set_grace(place.sessions, hour)
    assert await found(place, delete=True) == {orphan}
    newer = place.store.name_of(await place.file(named=60, put=60))
    assert await found(place, delete=True, grace=NOW, force=True) == {newer}
    assert await place.names() == set(names)


# --- concurrent changes ----------------------------------------------------------------------------------------------


async def test_a_row_that_appears_during_the_sweep_keeps_its_file(place: Place) -> None:
    """The rows are queried again before a file is removed."""
    await place.rows(5)
    one, other = await place.file(), await place.file()
    names = await place.names()
    asked = 0

    @event.listens_for(place.engine.sync_engine, "before_cursor_execute")
    def note(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        nonlocal asked
        if "FROM user_picture" in statement and "IN (" in statement and (asked := asked + 1) == 2:
            cursor.execute(late)

    await place.row(one)
    async with place.sessions.begin() as session:
        await session.execute(delete(UserPicture).where(UserPicture.user_id == 6))
    late = (
        "INSERT INTO user_picture (user_id, width, height, variant, mimetype, original, created_at, revision)"
        f" VALUES (6, 1, 1, '', 'image/jpeg', 1, '2026-01-01 00:00:00.000000', '{one.revision}')"
    )
    assert await found(place, delete=True, max_share=1) == {place.store.name_of(other)}
    assert await place.names() == names - {place.store.name_of(other)}


async def test_rows_that_are_deleted_during_the_sweep(place: Place) -> None:
    """The share is checked again for the files to remove; with ``force``, all orphans are removed."""
    names = {*await place.rows(30)}
    await place.file()
    store = FaultyStore(place.store)

    async def lose(prefix: str) -> None:
        async with place.sessions.begin() as session:
            await session.execute(delete(UserPicture).where(UserPicture.user_id < 15))

    store.on("list", on_second_pass(lose))
    words = "nothing was removed; refused: user-picture/: stopped: by now, 15 of 31 files are orphans, more than the"
    with pytest.raises(RefusedError, match=words):
        await sweep(place.sessions, UserPicture, store, delete=True).execute()
    assert len(await place.names()) == 31
    assert (await sweep(place.sessions, UserPicture, store, delete=True, force=True).execute()).counts["removed"] == 15
    assert len(names & await place.names()) == 16


async def test_a_row_that_moves_to_another_table_during_the_sweep(place: Place) -> None:
    """Both tables are read twice, so a row that moves between them is found."""
    await place.database.create(Own.metadata)
    kept, orphan = await place.file("picture-one"), await place.file("picture-one")
    row = "(owner_id, mimetype, width, height, variant, original, created_at, revision"
    values = f"(1, 'image/jpeg', 30, 20, '', 1, '2026-01-01 00:00:00.000000', '{kept.revision}'"
    async with place.sessions.begin() as session:
        await session.execute(text("INSERT INTO owner (id, tenant) VALUES (1, 'one')"))
        await session.execute(text(f"INSERT INTO picture {row}, tenant) VALUES {values}, 'one')"))
    asked: list[str] = []

    @event.listens_for(place.engine.sync_engine, "before_cursor_execute")
    def move(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if "IN (" in statement and ("FROM other" in statement or "FROM picture" in statement):
            asked.append("other" if "FROM other" in statement else "picture")
            if asked == ["other", "picture"] * 2:  # in the first and the second pass
                for each in (f"INSERT INTO other {row}) VALUES {values})", "DELETE FROM picture", "COMMIT", "BEGIN"):
                    cursor.execute(each)

    swept = await found(place, Picture, object_types=["picture-one"], delete=True, max_share=1)
    assert swept == {place.store.name_of(orphan)}
    assert asked == ["other", "picture"] * 3
    assert await place.names() == {place.store.name_of(kept)}


@pytest.mark.parametrize("at", [1, 5, 11, 12, 16, 22])
async def test_a_listing_that_changes_during_the_sweep(place: Place, at: int) -> None:
    """Only orphans are removed, regardless of the changes, and the next sweep finds the rest."""
    kept = set(await place.rows(5))
    orphans = [place.store.name_of(await place.file()) for _ in range(6)]
    store = FaultyStore(place.store)
    late: list[str] = []

    async def change(name: str) -> None:
        await place.store.delete_object(orphans[0])
        await place.store.delete_object(orphans[5])
        late.append(place.store.name_of(await place.file()))
        late.append(place.store.name_of(await place.file(named=60, put=60)))
        late.extend(await place.rows(1))

    store.on("listed", change, at=at)  # of eleven names in each of two passes
    await sweep(place.sessions, Base, store, delete=True, force=True).execute()
    assert await place.names() >= kept | {*late[1:]}
    await sweep(place.sessions, Base, delete=True, force=True).execute()
    assert await place.names() == kept | {*late[1:]}


async def test_concurrent_sweeps(any_place: Place) -> None:
    """Two concurrent sweeps succeed, and no file with a row is removed."""
    kept = await any_place.rows(30)
    for _ in range(30):
        await any_place.file()
    plans = [sweep(any_place.sessions, Base, delete=True, force=True) for _ in range(2)]
    done = await asyncio.gather(*(plan.execute() for plan in plans))
    assert all(progress.failed == 0 for progress in done)
    assert await any_place.names() == set(kept)


async def test_a_sweep_during_uploads(sqlite_database: Database) -> None:
    """Files uploaded after the start of a sweep are not removed, even with a grace time of zero."""
    await sqlite_database.create(faults.Base.metadata)
    rig = Rig(sqlite_database, stores.FaultyStore(), sqlite_database.engine())
    await rig.user(1, b"one")
    async with rig.sessions() as session:
        session.add(user := faults.User(id=2, name="two"))
        await rig.attach(user.picture, b"two")
        await session.flush()

        plan = sweep(rig.sessions, faults.Base, rig.store)
        assert [one async for one in plan] == []
        assert plan.progress.counts["young"] == 1
        await session.commit()
    await rig.check(b"one", b"two")


# --- continuing and failing ------------------------------------------------------------------------------------------


async def test_a_sweep_continues_after_a_position(place: Place) -> None:
    """A sweep starts after the position of an earlier one, in this class and the following ones."""
    await place.rows(3)
    users = sorted([place.store.name_of(await place.file()) for _ in range(3)])
    photo = place.store.name_of(await place.file("post-photo"))
    plan = sweep(place.sessions, Base)
    async for orphan in plan:
        if orphan.name == users[0]:
            break
    assert plan.progress.position == photo
    rest = await found(place, start_after=users[0])
    assert rest == set(users[1:])
    assert await found(place, start_after=photo) == set(users)
    assert await found(place, start_after="user-picture/~") == set()


async def test_counting_does_not_move_the_position(place: Place) -> None:
    """A sweep that failed while it counted files must start from the beginning."""
    await place.rows(3)
    await place.file()
    store = FaultyStore(place.store)
    store.on("list", on_second_pass(fails))
    plan = sweep(place.sessions, Base, store, delete=True, force=True)
    with pytest.raises(StoreUnavailableError):
        await plan.execute()
    assert plan.progress.position == "post-photo/"
    store.heal()
    store.fail("list", name=lambda prefix: prefix == "user-picture/")
    with pytest.raises(StoreUnavailableError):
        await plan.execute()
    assert plan.progress.position == ""


async def test_many_files(place: Place) -> None:
    """Files are processed in batches, and a limit can end a sweep within a batch."""
    aged = AgedStore()
    await aged.fill(place.engine, 10)
    kept = aged.names
    for _ in range(2400):
        aged.picture()
    plan = sweep(place.sessions, Base, aged.store, delete=True, force=True, limit=300)
    assert (await plan.execute()).counts["removed"] == 300
    assert plan.warnings == ["the limit of 300 files was reached"]
    plan = sweep(place.sessions, Base, aged.store, delete=True, force=True)
    positions = set()
    async for _ in plan:
        positions.add(plan.progress.position)
    assert len(positions) == 3
    assert plan.progress.counts["removed"] == 2100
    assert aged.names == kept


async def test_the_limit(place: Place) -> None:
    """The limit bounds the number of files that one run removes, and the next run continues."""
    await place.rows(30)
    for _ in range(9):
        await place.file()
    plan = sweep(place.sessions, Base, delete=True, limit=4)
    assert (await plan.execute()).counts["removed"] == 4
    assert plan.warnings == ["the limit of 4 files was reached"]
    assert (await sweep(place.sessions, Base, delete=True, limit=50).execute()).counts["removed"] == 5
    with pytest.raises(ValueError, match="limit: expected at least 1"):
        sweep(place.sessions, Base, limit=0)


async def test_files_that_cannot_be_removed(place: Place) -> None:
    """Files that cannot be removed are reported, the others are removed, and nothing is raised."""
    await place.rows(1)
    names = sorted([place.store.name_of(await place.file()) for _ in range(3)])
    store = FaultyStore(place.store)
    store.fail("delete", at=2)
    plan = sweep(place.sessions, Base, store, delete=True, force=True, permanently=True)
    orphans = [orphan async for orphan in plan]
    assert [orphan.removed for orphan in orphans] == [True, False, True]
    assert isinstance(orphans[1].error, StoreUnavailableError)
    assert (plan.progress.counts["removed"], plan.progress.failed) == (2, 1)
    assert names[1] in await place.names()


async def test_a_listing_that_fails_half_way(place: Place) -> None:
    """If a listing fails, nothing is removed."""
    await place.rows(1)
    for _ in range(4):
        await place.file()
    store = FaultyStore(place.store)
    store.fail("listed", at=3)
    with pytest.raises(StoreUnavailableError, match="injected failure of listed user-picture/"):
        await sweep(place.sessions, Base, store, delete=True, force=True).execute()
    assert len(await place.names()) == 5


async def test_a_database_that_is_unavailable(place: Place) -> None:
    """If the database is unavailable, nothing is removed."""
    await place.file()
    await place.engine.dispose()
    Path(str(place.database.url.database)).unlink()
    with pytest.raises(Exception, match="no such table"):
        await sweep(place.sessions, Base, delete=True, force=True).execute()
    assert len(await place.names()) == 1


@pytest.mark.parametrize("steps", range(0, 60, 6))
async def test_a_sweep_is_cancelled(place: Place, steps: int) -> None:
    """A sweep that is cancelled at any step has removed only orphans, and the next sweep finds the rest."""
    kept = await place.rows(3)
    for _ in range(5):
        await place.file()
    task = asyncio.create_task(sweep(place.sessions, Base, delete=True, force=True).execute())
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await place.names() >= set(kept)
    await sweep(place.sessions, Base, delete=True, force=True).execute()
    assert await place.names() == set(kept)


async def test_unfinished_uploads_are_deleted(place: Place) -> None:
    """Unfinished uploads are deleted if they are old, and only with ``delete``."""
    await place.rows(1)
    folder = Path(place.store.path, "user-picture/x")
    folder.mkdir()
    old, young = folder / ".aioimageattach-old", folder / ".aioimageattach-young"
    for path in (old, young):
        path.write_bytes(b"part")
    os.utime(old, (time.time() - 2 * DAY,) * 2)
    assert (await sweep(place.sessions, Base).execute()).counts["unfinished"] == 0
    assert old.exists()
    assert (await sweep(place.sessions, Base, delete=True).execute()).counts["unfinished"] == 1
    assert (old.exists(), young.exists()) == (False, True)


# --- arguments -------------------------------------------------------------------------------------------------------


async def test_a_callback_is_called_or_awaited(place: Place) -> None:
    """A callback receives each orphan, and may be asynchronous."""
    await place.rows(1)
    orphan = place.store.name_of(await place.file())
    seen: list[Orphan] = []

    async def note(one: Orphan) -> None:
        await asyncio.sleep(0)
        seen.append(one)

    plan = sweep(place.sessions, Base)
    await plan.execute(seen.append)
    await plan.execute(note)
    assert [one.name for one in seen] == [orphan, orphan]
    assert repr(plan).startswith("<Plan to sweep ")
    assert "user-picture in FileSystemStore(" in repr(plan)


async def test_the_store(place: Place) -> None:
    """The store is that of the argument, the context, or the sessions."""
    await place.rows(1)
    await place.file()
    assert len(await found(place)) == 1
    assert await found(place, store=MemoryStore()) == set()
    with store_context(MemoryStore()):
        assert await found(place) == set()
    async with place.sessions() as session:
        assert len([one async for one in sweep(session, Base)]) == 1
    place.sessions.kw.pop("info")
    with pytest.raises(ContextError):
        sweep(place.sessions, Base)


class Own(DeclarativeBase):
    """A base whose images have several object types."""


class Owner(Own):
    """An owner with a picture."""

    __tablename__ = "owner"
    id: Mapped[int] = mapped_column(primary_key=True)
    tenant: Mapped[str] = mapped_column(default="")
    picture = image_attachment["Picture"]("Picture")


class Picture(Own, Image):
    """A picture whose object type depends on the tenant."""

    __tablename__ = "picture"
    owner_id: Mapped[int] = mapped_column(ForeignKey("owner.id"), primary_key=True)
    tenant: Mapped[str] = mapped_column(default="")

    @property
    def object_type(self) -> str:
        return f"picture-{self.tenant}"


class Other(Own, Image):
    """A class whose object type is among those of another class."""

    __tablename__ = "other"
    owner_id: Mapped[int] = mapped_column(ForeignKey("owner.id"), primary_key=True)
    object_type = "picture-one"


async def test_object_types_that_depend_on_the_row(place: Place) -> None:
    """Such object types must be given, and files that rows of another class name are kept."""
    await place.database.create(Own.metadata)
    with pytest.raises(DeclarationError, match=r"Picture\.object_type depends on the row: pass all object types"):
        sweep(place.sessions, Picture)
    keys = [await place.file("picture-one"), await place.file("picture-one"), await place.file("picture-two")]
    async with place.sessions.begin() as session:
        row = {"owner_id": 1, "mimetype": "image/jpeg", "width": 30, "height": 20, "variant": "", "original": True}
        await session.execute(Owner.__table__.insert().values(id=1))
        await session.execute(Other.__table__.insert().values(**row, revision=keys[0].revision))
    assert await found(place, Picture, object_types=["picture-one"]) == {place.store.name_of(keys[1])}
    with pytest.raises(ValueError, match="object_types: expected at least one"):
        sweep(place.sessions, Picture, object_types=[])


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"grace": timedelta(seconds=-1)}, ValueError, "grace: expected a duration that is not negative"),
        ({"max_share": 1.1}, ValueError, "max_share: expected 0 to 1, got 1.1"),
        ({"max_share": -0.1}, ValueError, "max_share: expected 0 to 1"),
        ({"store": None}, None, ""),
    ],
)
async def test_arguments(place: Place, options: dict[str, Any], error: Any, words: str) -> None:
    """Values that are out of range are refused immediately."""
    if error is None:
        sweep(place.sessions, Base, **options)
        return
    with pytest.raises(error, match=words):
        sweep(place.sessions, Base, **options)


async def test_a_store_without_names(place: Place) -> None:
    """A store that is not a ``KeyedStore`` is refused, because it cannot be listed."""
    with pytest.raises(DeclarationError, match="store: expected a KeyedStore, which can be listed"):
        sweep(place.sessions, Base, PlainStore())
