"""Copies that the server makes by itself, and migrations that use them."""

from __future__ import annotations

import pytest

from aioimageattach.exc import (
    InvalidKeyError,
    MigrationError,
    StoreFileExistsError,
    StoreFileMismatchError,
    StoreFileNotFoundError,
    StoreUnavailableError,
)
from aioimageattach.migration import MigrationProgress, migrate
from aioimageattach.stores.memory import MemoryStore
from aioimageattach.stores.routing import RoutingStore
from aioimageattach.stores.s3 import S3Store
from tests.databases import Database
from tests.migration.models import Base, add_users, contents, tables
from tests.servers.gate import Gate, Noted
from tests.servers.judge import Asked, Refusal
from tests.stores.s3.conftest import REGION, MakeStore

OTHER = "other"


@pytest.fixture
def there(gate: Gate, make_store: MakeStore) -> S3Store:
    """A store in another bucket of the same server."""
    gate.backend.create_bucket(OTHER, REGION)
    return make_store(gate.url, OTHER, prefix="new", max_age=60)


def methods_of(requests: list[Noted]) -> list[str]:
    """Return the methods of the requests about files; records of ownership and listings are left out."""
    return [one.asked.method for one in requests if one.asked.key and "/.aioimageattach/" not in f"/{one.asked.key}"]


def refuse_copies(gate: Gate, status: int, code: str) -> None:
    def check(asked: Asked) -> Refusal | None:
        return Refusal(status, code) if "x-amz-copy-source" in asked.headers else None

    gate.before.append(check)


async def test_the_server_copies(gate: Gate, s3_store: S3Store, there: S3Store) -> None:
    """No bytes pass by here, the source stays, and the copy is described as a put would describe it."""
    await s3_store.put_object("a b/ü.jpg", b"picture", mimetype="image/png")
    with gate.noting() as requests:
        assert await there.copy_from(s3_store, "a b/ü.jpg", "copy.svg", mimetype="image/svg+xml")
    assert [(one.asked.method, one.asked.headers.get("if-none-match")) for one in requests] == [
        ("HEAD", None),
        ("PUT", "*"),
    ]
    assert await contents(there) == {"copy.svg": b"picture"}
    assert await contents(s3_store) == {"a b/ü.jpg": b"picture"}
    head = await there.client.head("copy.svg")
    assert head.content_type == "image/svg+xml"
    put = requests[-1].asked.headers
    assert put["cache-control"] == "public, max-age=60, immutable"
    assert put["content-disposition"] == "attachment"


async def test_a_name_that_is_taken_is_not_replaced(gate: Gate, s3_store: S3Store, there: S3Store) -> None:
    """Though many servers would."""
    await s3_store.put_object("a", b"new")
    await there.put_object("a", b"old")
    with pytest.raises(StoreFileExistsError):
        await there.copy_from(s3_store, "a", "a")
    assert await contents(there) == {"a": b"old"}


async def test_what_is_missing_or_unreachable_is_an_error(
    gate: Gate, s3_store: S3Store, there: S3Store, make_store: MakeStore
) -> None:
    """Reading and putting would not help there."""
    with pytest.raises(StoreFileNotFoundError):
        await there.copy_from(s3_store, "a", "a")
    with pytest.raises(InvalidKeyError):
        await there.copy_from(s3_store, "../a", "a")
    await s3_store.put_object("a", b"x")
    refuse_copies(gate, 503, "SlowDown")
    hasty = make_store(gate.url, OTHER, max_retry=0)
    with pytest.raises(StoreUnavailableError):
        await hasty.copy_from(s3_store, "a", "a")


@pytest.mark.parametrize(("status", "code"), [(403, "AccessDenied"), (501, "NotImplemented"), (400, "InvalidRequest")])
async def test_what_the_server_does_not_copy(
    gate: Gate, s3_store: S3Store, there: S3Store, status: int, code: str
) -> None:
    """Is left to be read and put: foreign buckets, servers without such copies, very large objects."""
    await s3_store.put_object("a", b"x")
    refuse_copies(gate, status, code)
    assert not await there.copy_from(s3_store, "a", "a")
    assert await contents(there) == {}


async def test_another_server_cannot_copy(gate: Gate, s3_store: S3Store, make_store: MakeStore) -> None:
    """Nor can a store of another kind; nobody is asked."""
    elsewhere = make_store("http://127.0.0.1:9")
    with gate.noting() as requests:
        assert not await s3_store.copy_from(elsewhere, "a", "a")
        assert not await s3_store.copy_from(MemoryStore(), "a", "a")
        assert not await RoutingStore({}, s3_store).copy_from(MemoryStore(), "a/b", "a/b")
    assert requests == []


@pytest.mark.parametrize("deep", [False, True])
async def test_a_migration_within_one_server(
    gate: Gate, s3_store: S3Store, there: S3Store, sqlite_database: Database, deep: bool
) -> None:
    """Moves no bytes unless it is to compare them, and passes over what is there."""
    sessions = await tables(sqlite_database)
    await add_users(sessions, s3_store, [b"1", b"22", b"333"])
    plan = migrate(sessions, Base, s3_store, there, deep=deep)
    with gate.noting() as requests:
        assert await plan.execute() == MigrationProgress(total=3, done=3, copied=3, bytes=6)
    assert methods_of(requests).count("GET") == (3 if deep else 0)
    assert await contents(there) == await contents(s3_store)
    assert await plan.execute() == MigrationProgress(total=3, done=3, present=3)


async def test_a_damaged_file_that_the_server_copied(
    gate: Gate, s3_store: S3Store, there: S3Store, sqlite_database: Database
) -> None:
    """Is deleted again: it is not what its row tells of."""
    sessions = await tables(sqlite_database)
    await add_users(sessions, s3_store, [b"right"])
    (name,) = await contents(s3_store)
    await s3_store.client.replace(name, b"wrong by size")
    plan = migrate(sessions, Base, s3_store, there)
    with pytest.raises(MigrationError) as caught:
        await plan.execute()
    assert isinstance(caught.value.exceptions[0], StoreFileMismatchError)
    assert await contents(there) == {}
    await s3_store.client.replace(name, b"WRONG")
    with pytest.raises(MigrationError):
        await migrate(sessions, Base, s3_store, there, deep=True).execute()
    assert await contents(there) == {}


async def test_a_migration_to_a_bucket(gate: Gate, s3_store: S3Store, sqlite_database: Database) -> None:
    """From a store of another kind and back: one request for each file, unless something is there already."""
    sessions = await tables(sqlite_database)
    memory = MemoryStore()
    await add_users(sessions, memory, [b"%d" % number for number in range(30)])
    plan = migrate(sessions, Base, memory, s3_store, concurrency=4)
    with gate.noting() as requests:
        assert (await plan.execute()).copied == 30
    methods = methods_of(requests)
    assert (methods.count("PUT"), methods.count("GET")) == (30, 0)
    assert methods.count("HEAD") <= 8
    with gate.noting() as requests:
        assert (await migrate(sessions, Base, memory, s3_store).execute()).present == 30
    assert set(methods_of(requests)) == {"HEAD"}
    back = MemoryStore()
    assert (await migrate(sessions, Base, s3_store, back).execute()).copied == 30
    assert await contents(back) == await contents(memory)
