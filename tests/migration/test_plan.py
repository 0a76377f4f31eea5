"""Migration of the files of committed rows."""

from __future__ import annotations

import asyncio
import gc
import hashlib
from contextlib import aclosing
from pathlib import Path

import pytest
from sqlalchemy import delete, insert, select, update

from aioimageattach._inventory import FileReference
from aioimageattach.context import current_store, store_context
from aioimageattach.entity._image import utcnow
from aioimageattach.exc import (
    ContextError,
    DeclarationError,
    MigrationError,
    StoreFileMismatchError,
    StoreFileNotFoundError,
    StoreUnavailableError,
)
from aioimageattach.file import Spool
from aioimageattach.key import ImageKey, make_revision
from aioimageattach.migration import Copy, migrate, migrate_class
from aioimageattach.store import ObjectInfo
from aioimageattach.stores import MemoryStore, MirrorStore, OverlayStore, RoutingStore
from aioimageattach.stores.fs import FileSystemStore
from tests.databases import Database
from tests.faults.stores import FaultyStore, Stop, breaks, fails, hangs
from tests.migration.models import (
    Base,
    Panorama,
    Photo,
    Post,
    Sessions,
    User,
    UserPicture,
    add_users,
    contents,
    counted,
    tables,
)
from tests.stores.plain import PlainStore


@pytest.fixture
async def sessions(sqlite_database: Database) -> Sessions:
    return await tables(sqlite_database)


@pytest.fixture
def source() -> FaultyStore:
    return FaultyStore()


@pytest.fixture
def destination() -> FaultyStore:
    return FaultyStore()


async def keys(sessions: Sessions) -> list[ImageKey]:
    """Return the keys of the users' images, in order."""
    async with sessions() as session:
        return [row.key for row in await session.scalars(select(UserPicture).order_by(UserPicture.user_id))]


async def reached(stop: Stop, task: asyncio.Task[object]) -> None:
    """Wait until a task reaches a stop; if the task fails before, raise its error."""
    waiting = asyncio.create_task(stop.reached.wait())
    await asyncio.wait({waiting, task}, return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        waiting.cancel()
        await task


async def test_files_of_all_classes_are_copied(database: Database, tmp_path: Path) -> None:
    """Each file is copied once, also with single-table inheritance; the source and other files are unchanged."""
    sessions = await tables(database)
    source = MemoryStore()
    destination = FileSystemStore(tmp_path / "files", "/", fsync=False)
    await add_users(sessions, source, [b"1", b"22", b"333"])
    async with sessions() as session, session.begin():
        post = Post(id=1)
        session.add(post)
        for index, pictures in ((1, post.photos), (2, post.panoramas)):
            one = pictures.get_image_set(order_index=index)
            await one.from_raw_file(b"photo", source, (30, 20), "image/jpeg")
            await one.from_raw_file(b"small", source, (3, 2), "image/jpeg", original=False)
    await source.put_object("orphan", b"nobody's")
    before = await contents(source)
    plan = migrate(sessions, Base, source, destination)
    assert counted(plan.progress) == {}
    assert repr(plan) == f"<MigrationPlan of Photo, UserPicture from {source!r} to {destination!r}>"
    found = [migrated async for migrated in plan]
    assert {one.reference.cls for one in found} == {Photo, Panorama, UserPicture}
    assert {one.outcome for one in found} == {"copied"}
    assert len({one.reference.identity for one in found}) == len(found) == 7
    assert counted(plan.progress) == {"total": 7, "done": 7, "copied": 7, "bytes": 26}
    assert await contents(source) == before
    del before["orphan"]
    assert await contents(destination) == before


async def test_one_class_is_copied(sessions: Sessions, source: FaultyStore, destination: FaultyStore) -> None:
    """Only the files of the class and its subclasses are copied."""
    await add_users(sessions, source, [b"1"])
    async with sessions() as session, session.begin():
        post = Post(id=1)
        session.add(post)
        await post.photos.get_image_set(order_index=1).from_raw_file(b"photo", source, (30, 20), "image/jpeg")
    assert (await migrate_class(sessions, Photo, source, destination).execute()).counts["copied"] == 1
    assert list((await contents(destination.inner)).values()) == [b"photo"]


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_callbacks(sessions: Sessions, source: FaultyStore, destination: FaultyStore, asynchronous: bool) -> None:
    """A callback receives each file and may be asynchronous; an error that it raises stops the migration."""
    await add_users(sessions, source, [b"%d" % number for number in range(9)])
    told: list[Copy] = []
    plan = migrate(sessions, Base, source, destination, concurrency=2)

    def note(migrated: Copy) -> None:
        told.append(migrated)
        if plan.progress.done != len(told):
            raise ZeroDivisionError

    async def wait(migrated: Copy) -> None:
        await asyncio.sleep(0)
        note(migrated)

    callback = wait if asynchronous else note
    assert (await plan.execute(callback)).counts["copied"] == 9
    with pytest.raises(ZeroDivisionError):
        await plan.execute(callback)
    assert plan.progress.done == 1


async def test_an_error_of_the_callback_stops_copies_in_progress(
    sessions: Sessions, source: FaultyStore, destination: FaultyStore
) -> None:
    """Copies in progress have ended when the error of a callback is raised."""
    await add_users(sessions, source, [b"1", b"2", b"3"])
    source.at("get", hangs, 1)
    with pytest.raises(ZeroDivisionError) as caught:
        await migrate(sessions, Base, source, destination, concurrency=2).execute(lambda _: 1 // 0)
    assert len(asyncio.all_tasks()) == 1
    assert caught.traceback


async def test_a_dry_run_copies_nothing(sessions: Sessions, source: FaultyStore, destination: FaultyStore) -> None:
    """A dry run reports files that are present, would be copied, or are missing in the source."""
    await add_users(sessions, source, [b"1", b"22", b"333"])
    first, second, third = await keys(sessions)
    await destination.put(first, b"1", reproducible=False)
    await source.discard(third)
    plan = migrate(sessions, Base, source, destination, dry_run=True)
    found = []
    with pytest.raises(MigrationError):
        async for migrated in plan:
            found.append((migrated.reference.key, migrated.outcome, migrated.size))
    assert sorted(found, key=str) == sorted([(first, "present", 1), (second, "missing", 2)], key=str)
    assert counted(plan.progress) == {"total": 3, "done": 3, "missing": 1, "present": 1, "failed": 1, "bytes": 2}
    assert len(await contents(destination.inner)) == 1


async def test_copied_files_are_skipped(sessions: Sessions, source: FaultyStore, destination: FaultyStore) -> None:
    """A second run reads no file from the source and puts none."""
    await add_users(sessions, source, [b"1", b"22", b"333"])
    assert (await migrate(sessions, Base, source, destination).execute()).counts["copied"] == 3
    counts = {**source.counts}, destination.counts["put"]
    plan = migrate(sessions, Base, source, destination)
    assert counted(await plan.execute()) == {"total": 3, "done": 3, "present": 3}
    assert ({**source.counts}, destination.counts["put"]) == counts


async def test_a_stopped_migration_continues(sessions: Sessions, source: FaultyStore, destination: FaultyStore) -> None:
    """Leaving the loop stops the copies in progress, and the next run copies the rest."""
    await add_users(sessions, source, [b"%d" % number for number in range(40)])
    plan = migrate(sessions, Base, source, destination, concurrency=4)
    async with aclosing(aiter(plan)) as running:
        async for _ in running:
            if plan.progress.done == 10:
                break
    there = len(await contents(destination.inner))
    assert 10 <= there <= 14
    await asyncio.sleep(0.01)
    assert len(await contents(destination.inner)) == there
    progress = await plan.execute()
    assert (progress.counts["present"], progress.counts["copied"]) == (there, 40 - there)
    assert await contents(destination.inner) == await contents(source.inner)


async def test_a_cancelled_migration_leaves_no_partial_files(
    sessions: Sessions, source: FaultyStore, destination: FaultyStore
) -> None:
    """Copies in progress are cancelled, and have ended when the cancellation is raised."""
    await add_users(sessions, source, [b"1", b"22", b"333"])
    stop = Stop()
    destination.at("put", stop, 2)
    task = asyncio.create_task(migrate(sessions, Base, source, destination).execute())
    await reached(stop, task)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(asyncio.all_tasks()) == 1
    assert len(await contents(destination.inner)) < 3
    destination.heal()
    await migrate(sessions, Base, source, destination).execute()
    assert await contents(destination.inner) == await contents(source.inner)


@pytest.mark.parametrize("fault", [fails, breaks])
async def test_failures_are_raised_at_the_end(
    sessions: Sessions, source: FaultyStore, destination: FaultyStore, fault: object
) -> None:
    """A failure does not stop other copies, and names its row; the next run copies the rest."""
    await add_users(sessions, source, [b"%d" % number for number in range(10)])
    destination.at("put", fault, 3)  # type: ignore[arg-type]
    destination.at("put", fault, 7)  # type: ignore[arg-type]
    plan = migrate(sessions, Base, source, destination)
    with pytest.raises(MigrationError, match="2 files could not be copied") as caught:
        await plan.execute()
    assert [failure.error for failure in plan.failures] == list(caught.value.exceptions)
    assert counted(plan.progress) == {"total": 10, "done": 10, "copied": 8, "failed": 2, "bytes": 8}
    for failure in plan.failures:
        first, *more = failure.error.__notes__
        assert first == f"the file of UserPicture {failure.reference.identity!r}"
        assert [note.startswith("Traceback") for note in more] == [True] * (fault is breaks)
        assert failure.reference.cls is UserPicture
    assert counted(await plan.execute()) == {"total": 10, "done": 10, "copied": 2, "present": 8, "bytes": 2}
    assert plan.failures == []


async def test_third_party_stores(sessions: Sessions, source: FaultyStore, destination: FaultyStore) -> None:
    """An error of any class is reported for its file, and a builtin ``FileNotFoundError`` as a missing file."""
    destination = ForgetfulStore()
    await add_users(sessions, source, [b"%d" % number for number in range(4)])

    async def refuse(name: str) -> None:
        raise ZeroDivisionError(name)

    source.at("get", refuse, 2)
    plan = migrate(sessions, Base, source, destination)
    with pytest.raises(MigrationError, match="1 files could not be copied"):
        await plan.execute()
    assert [type(failure.error) for failure in plan.failures] == [ZeroDivisionError]
    assert plan.progress.counts["copied"] == 3
    assert (await plan.execute()).counts["present"] == 3


class ForgetfulStore(FaultyStore):
    """A store that raises a builtin error for a missing file."""

    async def head_object(self, name: str) -> ObjectInfo:
        try:
            return await super().head_object(name)
        except StoreFileNotFoundError as error:
            raise FileNotFoundError(2, "no such file", name) from error


async def test_failures_do_not_keep_files(sessions: Sessions, source: FaultyStore, destination: FaultyStore) -> None:
    """Errors that are kept do not keep the bytes of files in memory, nor files open."""

    async def trouble(name: str) -> None:
        raise ExceptionGroup("parts", [ConnectionError("reset")])

    async def fail(name: str) -> None:
        try:
            await trouble(name)
        except ExceptionGroup as error:
            unavailable = StoreUnavailableError("gone", store="", name=name)
            error.__cause__ = unavailable
            raise unavailable from error

    await add_users(sessions, source, [bytes(1024 * 1024) for _ in range(10)])
    destination.at("put", fail)
    plan = migrate(sessions, Base, source, destination)
    with pytest.raises(MigrationError):
        await plan.execute()
    gc.collect()
    assert len(plan.failures) == 10
    assert [found for found in gc.get_objects() if isinstance(found, Spool) and found.size == 1024 * 1024] == []


async def test_too_many_failures_stop_the_migration(
    sessions: Sessions, source: FaultyStore, destination: FaultyStore
) -> None:
    """If a store is down, the migration stops before it has sent a request for each row."""
    await add_users(sessions, source, [b"%d" % number for number in range(50)])
    destination.at("put", fails)
    plan = migrate(sessions, Base, source, destination, concurrency=4, max_failures=5)
    with pytest.raises(MigrationError, match="5 files could not be copied, and the migration was stopped") as caught:
        await plan.execute()
    assert {type(error) for error in caught.value.exceptions} == {StoreUnavailableError}
    assert destination.counts["put"] < 15


async def test_a_damaged_file_is_not_copied(sessions: Sessions, source: FaultyStore, destination: FaultyStore) -> None:
    """A file in the source that does not match its row is not put."""
    await add_users(sessions, source, [b"one", b"two", b"three"])
    first, second, _ = await keys(sessions)
    for key, blob in ((first, b"longer"), (second, b"TWO")):
        await source.discard(key)
        await source.put(key, blob, reproducible=False)
    plan = migrate(sessions, Base, source, destination)
    with pytest.raises(MigrationError):
        await plan.execute()
    assert sorted(str(failure.error) for failure in plan.failures) == sorted(
        [
            f"user-picture {first.revision} in {source!r}: expected 3 bytes, as in the row, got 6",
            f"user-picture {second.revision} in {source!r}: expected the SHA-256 {hashlib.sha256(b'two').hexdigest()}, "
            f"as in the row, got {hashlib.sha256(b'TWO').hexdigest()}",
        ]
    )
    assert list((await contents(destination.inner)).values()) == [b"three"]


@pytest.mark.parametrize(("deep", "failed"), [(False, 1), (True, 2)])
async def test_a_wrong_file_in_the_destination_is_a_failure(
    sessions: Sessions, source: FaultyStore, destination: FaultyStore, deep: bool, failed: int
) -> None:
    """A wrong file is never overwritten; if its size is right, only ``deep`` detects it."""
    await add_users(sessions, source, [b"one", b"two", b"three"])
    first, second, third = await keys(sessions)
    for key, blob in ((first, b"longer"), (second, b"TWO"), (third, b"three")):
        await destination.put(key, blob, reproducible=False)
    plan = migrate(sessions, Base, source, destination, deep=deep)
    with pytest.raises(MigrationError):
        await plan.execute()
    assert {type(failure.error) for failure in plan.failures} == {StoreFileMismatchError}
    assert counted(plan.progress) == {"total": 3, "done": 3, "present": 3 - failed, "failed": failed}
    assert sorted((await contents(destination.inner)).values()) == [b"TWO", b"longer", b"three"]


async def test_concurrent_migrations(sessions: Sessions, source: FaultyStore, destination: FaultyStore) -> None:
    """Concurrent migrations do not disturb each other, and count files that another one has put as present."""
    await add_users(sessions, source, [b"%d" % number for number in range(20)])
    plans = [migrate(sessions, Base, source, destination, concurrency=3) for _ in range(3)]
    found = await asyncio.gather(*(plan.execute() for plan in plans))
    assert sum(progress.counts["copied"] for progress in found) == 20
    assert sum(progress.counts["present"] for progress in found) == 40
    assert await contents(destination.inner) == await contents(source.inner)


async def test_a_file_that_disappears_after_a_refused_put(
    sessions: Sessions, source: FaultyStore, destination: FaultyStore
) -> None:
    """A put is refused for a file that is then missing: this is a failure, and the next run copies the file."""
    await add_users(sessions, source, [b"1", b"2"])
    _, second = sorted(await keys(sessions), key=lambda key: key.revision or "")  # rows are read in this order

    class Vanishing(FaultyStore):
        """A store that loses a file after it has refused to overwrite it."""

        async def put_object(self, name: str, data: object, **options: object) -> None:  # type: ignore[override]
            try:
                await super().put_object(name, data, **options)  # type: ignore[arg-type]
            except FileExistsError:
                await self.inner.delete_object(name)
                raise

    vanishing = Vanishing()

    async def appear(name: str) -> None:
        await vanishing.inner.put_object(name, b"2")

    vanishing.at("put", appear, 2)
    plan = migrate(sessions, Base, source, vanishing, concurrency=1)
    with pytest.raises(MigrationError):
        await plan.execute()
    assert [failure.reference.key for failure in plan.failures] == [second]
    vanishing.heal()
    assert (await plan.execute()).counts["copied"] == 1


async def test_the_application_continues_to_write(database: Database) -> None:
    """With a mirror of both stores, files that are added, replaced or deleted during the migration stay consistent."""
    sessions = await tables(database)
    old, new = MemoryStore(), MemoryStore()
    mirror = MirrorStore(old, new)
    await add_users(sessions, old, [b"%d" % number for number in range(30)])
    plan = migrate(sessions, Base, old, new, concurrency=4)
    number = 0
    with store_context(mirror):
        async for migrated in plan:
            number += 1
            if number % 5:
                continue
            await add_users(sessions, mirror, [b"new %d" % number], first=1000 + number)
            async with sessions() as session, session.begin():
                user = await session.get_one(User, (migrated.reference.identity[0] * 7) % 30 + 1)
                if number % 2 and user.picture:
                    await user.picture.from_raw_file(b"replaced", mirror, (30, 20), "image/png")
                else:
                    await user.picture.delete()
    assert plan.progress.failed == 0
    assert (
        plan.progress.done
        == plan.progress.counts["copied"] + plan.progress.counts["present"] + plan.progress.counts["gone"]
    )
    named = await keys(sessions)
    there = await contents(new)
    assert {new.name_of(key) for key in named} <= there.keys()
    assert all(there[name] == blob for name, blob in (await contents(old)).items())


async def test_rows_that_are_deleted_during_the_migration(
    sessions: Sessions, source: FaultyStore, destination: FaultyStore
) -> None:
    """Deleted and replaced rows are not failures; a row whose file is missing is one."""
    await add_users(sessions, source, [b"1", b"2", b"3", b"4"])
    first, second, third, _ = await keys(sessions)
    reading = Stop()
    source.at("get", reading)
    plan = migrate(sessions, Base, source, destination)
    task = asyncio.create_task(plan.execute())
    await reached(reading, task)
    async with sessions() as session, session.begin():
        await session.execute(delete(UserPicture).where(UserPicture.user_id == 1))
        await session.execute(
            update(UserPicture.__table__).where(UserPicture.user_id == 2).values(revision=make_revision())
        )
    for key in (first, second, third):
        await source.discard(key)
    reading.go.set()
    with pytest.raises(MigrationError) as caught:
        await task
    assert [type(error) for error in caught.value.exceptions] == [StoreFileNotFoundError]
    assert plan.failures[0].reference.key == third
    assert counted(plan.progress) == {"total": 4, "done": 4, "copied": 1, "gone": 2, "failed": 1, "bytes": 1}


async def old_row(sessions: Sessions, number: int, created: bool = True) -> ImageKey:
    """Commit a row in the form of SQLAlchemy-ImageAttach."""
    async with sessions() as session, session.begin():
        await session.execute(insert(User).values(id=number))
        await session.execute(
            insert(UserPicture.__table__).values(
                user_id=number,
                width=30,
                height=20,
                variant="",
                mimetype="image/jpeg",
                original=True,
                created_at=utcnow(),
            )
        )
    return ImageKey("user-picture", number, 30, 20, "image/jpeg")


@pytest.mark.parametrize("deep", [False, True])
async def test_legacy_rows(sessions: Sessions, tmp_path: Path, deep: bool) -> None:
    """Legacy files get the legacy name of each store, and their sizes or checksums are compared with the source."""
    source, destination = FileSystemStore(tmp_path / "files", "/", fsync=False), MemoryStore()
    for number in (1, 2, 3):
        await source.put(await old_row(sessions, number), b"old %d" % number, reproducible=False)
    await destination.put_object("user-picture/2/30x20.jpe", b"OLD 2")
    await destination.put_object("user-picture/3/30x20.jpe", b"longer than that")
    plan = migrate(sessions, Base, source, destination, deep=deep)
    with pytest.raises(MigrationError) as caught:
        await plan.execute()
    assert len(caught.value.exceptions) == (2 if deep else 1)
    assert "as in the source" in str(caught.value.exceptions[0])
    assert (await contents(destination))["user-picture/1/30x20.jpe"] == b"old 1"
    for number in (2, 3):
        await destination.delete_object(f"user-picture/{number}/30x20.jpe")
    assert (await plan.execute()).counts["copied"] == 2
    assert (await migrate(sessions, Base, source, destination, deep=True).execute()).counts["present"] == 3


async def test_stores_without_names(sessions: Sessions) -> None:
    """Files are copied from and to third-party stores, in which files that are present have to be read."""
    theirs, ours, back = PlainStore(), MemoryStore(), PlainStore()
    await add_users(sessions, theirs, [b"1", b"2" * 200_000])
    assert (await migrate(sessions, Base, theirs, ours).execute()).counts["copied"] == 2
    assert (await migrate(sessions, Base, ours, back).execute()).counts["copied"] == 2
    assert (await migrate(sessions, Base, ours, back, deep=True).execute()).counts["present"] == 2
    assert back.files == theirs.files


async def test_a_large_file_is_copied_with_a_temporary_file(sessions: Sessions, tmp_path: Path) -> None:
    """A large file is copied through a temporary file, not through memory."""
    source, destination = FileSystemStore(tmp_path / "a", "/", fsync=False), MemoryStore()
    await add_users(sessions, source, [bytes(range(256)) * 24 * 1024])
    assert (await migrate(sessions, Base, source, destination).execute()).bytes == 6 * 1024 * 1024
    assert await contents(source) == await contents(destination)
    assert (await migrate(sessions, Base, source, destination, deep=True).execute()).counts["present"] == 1


async def test_a_row_that_contains_a_name(sessions: Sessions, source: FaultyStore) -> None:
    """Rows of offloaded columns contain names, so both stores must be a ``KeyedStore``."""
    from aioimageattach.migration._transfer import Transfer

    blob = b"text"
    reference = FileReference(
        cls=User,
        identity=(1,),
        object_type="user",
        key=None,
        name="user/bio/1",
        mimetype="text/plain",
        size=len(blob),
        sha256=hashlib.sha256(blob).hexdigest(),
        reproducible=False,
        created_at=None,
    )
    await source.put_object("user/bio/1", blob)
    destination = MemoryStore()
    assert await Transfer(source, destination, deep=True, dry_run=False).run(reference) == Copy(reference, "copied", 4)
    assert await contents(destination) == {"user/bio/1": blob}
    for one, other in ((source, PlainStore()), (PlainStore(), MemoryStore())):
        with pytest.raises(Exception, match="expected a KeyedStore, which can have a file named 'user/bio/1'"):
            await Transfer(one, other, deep=False, dry_run=False).run(reference)


async def test_a_hanging_copy_does_not_stop_the_others(
    sessions: Sessions, source: FaultyStore, destination: FaultyStore
) -> None:
    """Files are yielded in the order of completion."""
    await add_users(sessions, source, [b"%d" % number for number in range(8)])
    source.at("get", hangs, 1)
    plan = migrate(sessions, Base, source, destination, concurrency=2)
    async with aclosing(aiter(plan)) as running:
        found = [await anext(running) for _ in range(7)]
    assert len({one.reference.identity for one in found}) == 7


def test_arguments(source: FaultyStore, destination: FaultyStore) -> None:
    """The same store twice, other objects, classes without files, and invalid numbers are rejected immediately."""
    sessions = Sessions()
    for other in (
        source,
        MirrorStore(destination, source),
        RoutingStore({"photo": MirrorStore(source, destination)}, source),
        OverlayStore(destination, source),
    ):
        with pytest.raises(ValueError, match="expected a store in another place than <FaultyStore"):
            migrate(sessions, Base, source, other)
    migrate(sessions, Base, source, RoutingStore({"photo": destination}, source))
    migrate(sessions, Base, source, RoutingStore({}))
    with store_context(source), pytest.raises(ValueError, match="in another place"):
        migrate(sessions, Base, source, current_store)
    with pytest.raises(ValueError, match="in another place"):
        migrate(sessions, Base, MirrorStore(source, destination), destination)
    with pytest.raises(ContextError):
        migrate(sessions, Base, source, current_store)
    with pytest.raises(DeclarationError, match="expected a Store, got str"):
        migrate(sessions, Base, "s3://bucket", destination)  # type: ignore[arg-type]
    with pytest.raises(DeclarationError, match="columns, got User, which has none"):
        migrate_class(sessions, User, source, destination)
    for options in ({"concurrency": 0}, {"max_failures": -1}):
        with pytest.raises(ValueError, match="at least 1"):
            migrate(sessions, Base, source, destination, **options)


async def test_a_session_as_a_template(sessions: Sessions, source: FaultyStore, destination: FaultyStore) -> None:
    """The template session can be used during the migration, and its uncommitted rows are not migrated."""
    await add_users(sessions, source, [b"1"])
    async with sessions() as session:
        async for _ in migrate(session, Base, source, destination):
            assert len(list(await session.scalars(select(UserPicture)))) == 1
            await session.rollback()  # SQLite's lock would keep the migration from recording the owner
    assert len(await contents(destination.inner)) == 1
