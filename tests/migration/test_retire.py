"""Removal of the copies that a migration has left in the old store."""

from __future__ import annotations

import re

import pytest

from aioimageattach.exc import StoreFileMismatchError, StoreFileNotFoundError, StoreMissingError, StoreUnavailableError
from aioimageattach.migration import migrate, retire
from aioimageattach.stores import MemoryStore, MirrorStore
from aioimageattach.testing import FaultyStore
from tests.databases import Database
from tests.entity.models import started
from tests.migration.models import Base, add_users, contents, counted, tables
from tests.migration.test_stores import Base as ArticleBase
from tests.migration.test_stores import write


async def test_copies_are_removed(sqlite_database: Database) -> None:
    """Copies are removed only with ``delete``, and only if the new store has a file of the right size."""
    sessions = await tables(sqlite_database)
    old, new = MemoryStore(), MemoryStore()
    await add_users(sessions, old, [b"1", b"22", b"333"])
    await old.put_object("orphan", b"x")
    before = await contents(old)
    await migrate(sessions, Base, old, new).execute()
    [missing, altered, safe] = [info.name async for info in new.list_objects("user-picture/")]
    await new.delete_object(missing)
    await new.delete_object(altered)
    await new.put_object(altered, b"another size")
    plan = retire(sessions, Base, old, new)
    assert repr(plan) == f"<Plan to retire Photo, UserPicture in {old!r}>"
    found = {one.reference.name_in(old): one async for one in plan}
    assert {name: (one.outcome, type(one.error)) for name, one in found.items()} == {
        missing: ("failed", StoreFileNotFoundError),
        altered: ("failed", StoreFileMismatchError),
        safe: ("safe", type(None)),
    }
    assert counted(plan.progress) == {"total": 3, "done": 3, "safe": 1, "failed": 2}
    assert await contents(old) == before
    assert [one.outcome async for one in retire(sessions, Base, old, new, delete=True)].count("removed") == 1
    assert set(await contents(old)) == {missing, altered, "orphan"}


@pytest.mark.parametrize("deep", [False, True])
async def test_copies_of_values_are_removed(sqlite_database: Database, deep: bool) -> None:
    """Copies of offloaded values are removed; with ``deep``, altered files in the new store are detected."""
    sessions = await started(sqlite_database, ArticleBase.metadata, expire_on_commit=False)
    old, new = MemoryStore(), MemoryStore()
    await write(sessions, old)
    await migrate(sessions, ArticleBase, old, new).execute()
    [name] = [info.name async for info in new.list_objects("article.outline/")]
    size = len((await contents(new))[name])
    await new.delete_object(name)
    await new.put_object(name, b"x" * size)
    progress = await retire(sessions, ArticleBase, old, new, deep=deep, delete=True).execute()
    assert (progress.done, progress.failed) == (9, int(deep))
    assert set(await contents(old)) == ({name} if deep else set())


async def test_a_bucket_that_does_not_exist(sqlite_database: Database) -> None:
    """A migration and a removal of copies report a missing bucket once, not for each file."""
    sessions = await tables(sqlite_database)
    old, new = FaultyStore(), FaultyStore()
    await add_users(sessions, old, [b"1", b"22", b"333"])
    missing = StoreMissingError("there is no such bucket")
    old.fail("get", missing)
    with pytest.raises(StoreMissingError):
        await migrate(sessions, Base, old, new).execute()
    old.heal()
    await migrate(sessions, Base, old, new).execute()
    new.fail("head", missing)
    with pytest.raises(StoreMissingError):
        await retire(sessions, Base, old, new, delete=True).execute()
    assert len(await old.names()) == 3


@pytest.mark.parametrize("error", [OSError(5, "broken"), ZeroDivisionError("in a third-party store")])
async def test_a_store_that_fails_for_one_file(sqlite_database: Database, error: Exception) -> None:
    """The copy of this file is kept and reported, and the others are removed."""
    sessions = await tables(sqlite_database)
    old, new = FaultyStore(), FaultyStore()
    await add_users(sessions, old, [b"1", b"22", b"333"])
    await migrate(sessions, Base, old, new).execute()
    new.fail("head", error, at=2)
    plan = retire(sessions, Base, old, new, delete=True, concurrency=1)
    assert {one.outcome async for one in plan} == {"removed", "failed"}
    assert [one.error for one in plan.failures] == [error]
    assert len(await old.names()) == 1


async def test_an_outage_ends_the_run(sqlite_database: Database) -> None:
    """If a store does not respond, a migration and a removal of copies end, and nothing is lost."""
    sessions = await tables(sqlite_database)
    old, new = FaultyStore(), FaultyStore()
    await add_users(sessions, old, [b"%d" % number for number in range(30)])
    old.fail("get")
    plan = migrate(sessions, Base, old, new, concurrency=2)
    with pytest.raises(StoreUnavailableError, match=r"did not respond for \d+ consecutive files") as raised:
        await plan.execute()
    [number] = re.findall(r"for (\d+) consecutive", str(raised.value))
    assert 18 < int(number) <= 20  # more than 16 and the files in progress, of which some may fail together
    assert int(number) - 2 <= len(plan.failures) <= int(number)  # those in progress at the end are not counted
    old.heal()
    await plan.execute()
    new.fail("head", ConnectionResetError("reset"))
    with pytest.raises(StoreUnavailableError, match="the last error was ConnectionResetError: reset"):
        await retire(sessions, Base, old, new, delete=True, concurrency=2).execute()
    assert len(await old.names()) == 30


async def test_stores_with_the_same_files(sqlite_database: Database) -> None:
    """Stores with the same files are rejected, because the only copy would be removed."""
    sessions = await tables(sqlite_database)
    store = MemoryStore()
    for new in (store, MirrorStore(MemoryStore(), store)):
        with pytest.raises(ValueError, match="old: expected a store in another place than"):
            retire(sessions, Base, store, new)
    with pytest.raises(ValueError, match="concurrency: expected at least 1"):
        retire(sessions, Base, store, MemoryStore(), concurrency=0)
