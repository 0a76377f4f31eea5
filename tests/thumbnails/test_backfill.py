"""Backfills: making the declared thumbnails of all existing images."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from aioimageattach import Image, Recipe, ThumbnailMarks, bind_store, store_context
from aioimageattach._declared.names import legacy_revision, public_of
from aioimageattach.exc import (
    DeclarationError,
    InvalidKeyError,
    StoreUnavailableError,
    UnreadableImageError,
)
from aioimageattach.file import AsyncFile
from aioimageattach.key import ImageKey
from aioimageattach.store import KeyedStore
from aioimageattach.stores import MemoryStore
from aioimageattach.stores.fs import FileSystemStore
from aioimageattach.thumbnails import ThumbnailServer, _backfill, _originals, backfill
from aioimageattach.thumbnails._maker import ThumbnailMaker
from tests.databases import Database
from tests.entity.models import started, statements
from tests.photos import photo
from tests.servers.gate import ACCESS_KEY, SECRET_KEY, Gate
from tests.stores.s3.conftest import BUCKET, REGION, MakeStore
from tests.stores.s3.conftest import gate as gate
from tests.stores.s3.conftest import make_store as make_store
from tests.stores.s3.conftest import s3_server as s3_server
from tests.thumbnails.backfilling import FILES, Bare, Base, CountingStore, Picture, arguments, fill, values
from tests.thumbnails.models import names

ROOT = Path(__file__).parent.parent.parent
COUNT = 12

Sessions = async_sessionmaker[AsyncSession]


@pytest.fixture
async def sessions(sqlite_database: Database) -> Sessions:
    """Sessions on an empty database."""
    return await started(sqlite_database, Base.metadata, expire_on_commit=False)


@pytest.fixture
def store(tmp_path: Path) -> CountingStore:
    """A store in a directory."""
    return CountingStore(tmp_path / "files")


async def marks(sessions: Sessions) -> list[str | None]:
    """Return the marks of all rows."""
    async with sessions() as session:
        return [*await session.scalars(select(Picture.thumbnail_marks).order_by(Picture.id))]


async def test_no_rows(sessions: Sessions, store: CountingStore) -> None:
    """A backfill without rows succeeds."""
    progress = await backfill(sessions, Picture, store=store).execute()
    assert (progress.total, progress.done, progress.position, store.listings) == (0, 0, "", 0)


# --- making ----------------------------------------------------------------------------------------------------------


async def test_all_declared_files_are_made_and_marked(sessions: Sessions, store: CountingStore) -> None:
    """Each original is read once, with one listing of the files; a second run reads and writes nothing."""
    await fill(sessions, store, COUNT)
    plan = backfill(sessions, Picture, store=store)
    made = [one async for one in plan]
    assert len(await names(store, "backfilled.t/")) == COUNT * FILES
    assert {key.object_type for one in made for key in one.keys} == {"backfilled.t"}
    assert {store.name_of(key) for one in made for key in one.keys} == {*await names(store, "backfilled.t/")}
    assert sorted(one.identity for one in made) == [(number, 60, 40, "") for number in range(COUNT)]
    progress = plan.progress
    assert (progress.total, progress.done, progress.counts["made"], progress.counts["marked"]) == (
        COUNT,
        COUNT,
        COUNT * FILES,
        COUNT,
    )
    assert progress.bytes == sum(one.byte_size for one in made) > 0
    assert (store.reads, store.listings) == (COUNT, 3)  # two of them by this test
    async with sessions() as session:
        server = ThumbnailServer(store, [Picture], base_url="/thumbnails/")
        with store_context(store, thumbnails=server):
            for row in await session.scalars(select(Picture)):
                assert all(one.url.startswith(store.base_url) for one in row.candidates("card"))
    with statements(sessions) as sent:
        progress = await plan.execute()
    assert (progress.done, progress.counts["made"], progress.counts["marked"], store.reads) == (COUNT, 0, 0, COUNT)
    assert not [one for one in sent if one.startswith("UPDATE")]


async def test_only_missing_files_are_made(sessions: Sessions, store: CountingStore) -> None:
    """Files that exist are neither made again nor read."""
    await fill(sessions, store, COUNT)
    plan = backfill(sessions, Picture, store=store)
    await plan.execute()
    some = (await names(store, "backfilled.t/"))[::7]
    await store.delete_objects(some)
    store.reads = 0
    assert (await plan.execute()).counts["made"] == len(some)
    assert store.reads <= len(some)
    assert len(await names(store, "backfilled.t/")) == COUNT * FILES


async def test_old_and_new_names_coexist(sessions: Sessions) -> None:
    """Files of another declaration are kept, and a server with that declaration still serves them."""
    store = MemoryStore()

    class OldBase(DeclarativeBase):
        pass

    class Old(OldBase, Image):
        __tablename__ = "backfilled"
        __thumbnails__ = {"icon": Recipe(width=24, height=24), "gone": Recipe(width=11)}
        id: Mapped[int] = mapped_column(primary_key=True)

    await fill(sessions, store, COUNT)
    await backfill(sessions, Old, store=store).execute()
    old = await names(store, "backfilled.t/")
    await backfill(sessions, Picture, store=store).execute()
    assert {*old} < {*await names(store, "backfilled.t/")}
    assert len(await names(store, "backfilled.t/")) == COUNT * (2 + FILES)
    assert (await backfill(sessions, Old, store=store).execute()).counts["made"] == 0


async def test_focal_points_are_those_of_the_rows(sessions: Sessions, store: CountingStore) -> None:
    """The names and marks of cropped thumbnails contain the rounded focal points of the rows."""
    await fill(sessions, store, 2, focal_x=0.333, focal_y=0.5)
    await backfill(sessions, Picture, store=store).execute()
    found = await names(store, "backfilled.t/")
    assert sum("-icon-033050-" in name for name in found) == 2
    assert sum("-card-" in name for name in found) == 2 * (FILES - 1)
    server = ThumbnailServer(store, [Picture], base_url="/thumbnails/")
    async with sessions() as session:
        with store_context(store, thumbnails=server):
            for row in await session.scalars(select(Picture)):
                assert {one.url.removeprefix(store.base_url) for one in row.candidates("icon")} < {*found}


async def test_a_condition_selects_rows(sessions: Sessions, store: CountingStore) -> None:
    """Other rows are not read, and only files between the selected ones are listed."""
    await fill(sessions, store, COUNT)
    plan = backfill(sessions, Picture, store=store, where=Picture.id >= COUNT - 2)
    assert (await plan.execute()).total == 2
    assert len(await names(store, "backfilled.t/")) == 2 * FILES
    plan = backfill(sessions, Picture, store=store, where=[Picture.id < 5, Picture.id > 2])
    assert (await plan.execute()).counts["made"] == 2 * FILES


async def test_far_rows_are_not_listed_in_between(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch, store: CountingStore
) -> None:
    """If there are many files between two originals, a new listing is started."""
    monkeypatch.setattr(_originals, "_FAR", 6)
    await fill(sessions, store, COUNT)
    await backfill(sessions, Picture, store=store).execute()
    store.listings = store.listed = 0
    where = Picture.id.in_([0, COUNT - 1])
    await backfill(sessions, Picture, store=store, where=where).execute()
    assert store.listings == 2
    assert store.listed <= 2 * FILES + 6 + 2


async def test_a_class_without_marks(sessions: Sessions, store: CountingStore) -> None:
    """The files are made, and no row is written."""
    await fill(sessions, store, COUNT, Bare)
    bind_store(sessions, store)
    with statements(sessions) as sent:
        assert (await backfill(sessions, Bare).execute()).counts["made"] == COUNT
    assert not [one for one in sent if one.startswith("UPDATE")]


async def test_several_object_types(
    sqlite_database: Database, monkeypatch: pytest.MonkeyPatch, store: CountingStore
) -> None:
    """Each object type has a listing, of which only some are kept open; subclasses have their own declarations."""

    class TenantBase(DeclarativeBase):
        pass

    class Tenant(TenantBase, Image, ThumbnailMarks):
        __tablename__ = "tenant"
        __thumbnails__ = {"card": Recipe(width=10)}
        __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "plain"}
        id: Mapped[int] = mapped_column(primary_key=True)
        kind: Mapped[str] = mapped_column(default="plain")

        @property
        def object_type(self) -> str:
            return f"tenant-{self.id % 3}"

    class Special(Tenant):
        __thumbnails__ = {"card": Recipe(width=12), "icon": Recipe(width=8)}
        __mapper_args__ = {"polymorphic_identity": "special"}

    monkeypatch.setattr(_backfill, "_LISTINGS", 2)
    sessions = await started(sqlite_database, TenantBase.metadata)
    async with sessions.begin() as session:
        await session.execute(insert(Tenant.__table__), [values(number, kind="plain") for number in range(6)])
        await session.execute(insert(Tenant.__table__), [values(number, kind="special") for number in range(6, 12)])
    async with sessions() as session:
        for row in await session.scalars(select(Tenant)):
            await store.put(row.key, photo("chelsea"), reproducible=False)
    progress = await backfill(sessions, Tenant, store=store).execute()
    assert (progress.counts["made"], progress.counts["marked"]) == (6 + 12, 12)
    for number in range(3):
        assert len(await names(store, f"tenant-{number}.t/")) == 6
    assert (await backfill(sessions, Tenant, store=store).execute()).counts["marked"] == 0
    assert (await backfill(sessions, Special, store=store).execute()).total == 6


async def test_rows_of_the_predecessor(sessions: Sessions, tmp_path: Path) -> None:
    """Files of legacy rows have computed names and no marks; a row without a possible name is a failure."""
    store = FileSystemStore(tmp_path, "/", fsync=False)
    async with sessions.begin() as session:
        rows = [values(number, revision=None) for number in (1, 2, 1 << 40)]
        await session.execute(insert(Picture.__table__), rows)
    for number in (1, 2):
        key = ImageKey("backfilled", number, 60, 40, "image/jpeg", None)
        await store.put(key, photo("chelsea"), reproducible=False)
        assert legacy_revision(key)
    plan = backfill(sessions, Picture, store=store)
    assert (await plan.execute()).counts["made"] == 2 * FILES
    assert await marks(sessions) == [None] * 3
    assert plan.progress.position == ""
    [failure] = plan.failures
    assert failure.identity == (1 << 40, 60, 40, "")
    assert isinstance(failure.error, InvalidKeyError)
    assert "attach the image again" in str(failure.error)
    assert (await plan.execute()).counts["made"] == 0


# --- resuming --------------------------------------------------------------------------------------------------------


async def test_a_run_continues_at_its_position(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch, store: CountingStore
) -> None:
    """Originals before the position are skipped, and the position contains no secret part of a revision."""
    monkeypatch.setattr(_backfill, "PAGE", 4)
    keys = await fill(sessions, store, COUNT)
    plan = backfill(sessions, Picture, store=store)
    async for _ in plan:
        if plan.progress.position:
            break
    position = plan.progress.position
    assert position == public_of(str(keys[3].revision))
    rest = backfill(sessions, Picture, store=store, start_after=position)
    progress = await rest.execute()
    assert progress.total == COUNT
    assert progress.done == COUNT - 3
    assert len(await names(store, "backfilled.t/")) == COUNT * FILES


@pytest.mark.parametrize("where", ["directory", "bucket"])
async def test_a_killed_run_is_continued(
    where: str, database: Database, gate: Gate, make_store: MakeStore, tmp_path: Path
) -> None:
    """After SIGKILL, the next run makes exactly the missing files, and every file is complete."""
    sessions = await started(database, Base.metadata)
    spec: dict[str, Any] = {"database": database.url.render_as_string(hide_password=False), "puts": COUNT * FILES // 2}
    if where == "directory":
        store: KeyedStore = FileSystemStore(tmp_path / "files", "/", fsync=False)
        spec["folder"] = str(tmp_path / "files")
        (tmp_path / "files").mkdir()
    else:
        store = make_store(gate.url)
        spec |= {"bucket": [BUCKET, ACCESS_KEY, SECRET_KEY], "endpoint": gate.url, "region": REGION}
    await fill(sessions, store, COUNT)
    killed = await asyncio.to_thread(subprocess.run, arguments(spec), cwd=ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL
    before = await names(store, "backfilled.t/")
    assert 0 < len(before) < COUNT * FILES
    progress = await backfill(sessions, Picture, store=store).execute()
    assert progress.counts["made"] == COUNT * FILES - len(before)
    assert (progress.done, progress.failed) == (COUNT, 0)
    after = await names(store, "backfilled.t/")
    assert {*before} < {*after}
    assert len(after) == COUNT * FILES
    assert None not in await marks(sessions)
    assert (await backfill(sessions, Picture, store=store).execute()).counts["made"] == 0


async def test_a_bucket_receives_few_requests(sessions: Sessions, gate: Gate, make_store: MakeStore) -> None:
    """All originals are compared with one listing, without requests for each."""
    store = make_store(gate.url)
    await fill(sessions, store, COUNT)
    await backfill(sessions, Picture, store=store).execute()
    with gate.noting() as noted:
        assert (await backfill(sessions, Picture, store=store).execute()).done == COUNT
    assert len(noted) == 1


# --- enqueuing -------------------------------------------------------------------------------------------------------


async def test_work_is_enqueued(sessions: Sessions, store: CountingStore) -> None:
    """``enqueue`` gets the name of each original that lacks files, with the revisions; no files are made."""
    keys = await fill(sessions, store, COUNT)
    await backfill(sessions, Picture, store=store, where=Picture.id < 2).execute()
    lacking = next(name for name in await names(store, "backfilled.t/") if "-card-" in name)
    await store.delete_object(lacking)
    store.reads = 0
    handed: list[tuple[str, Sequence[str]]] = []

    async def enqueue(name: str, stems: Sequence[str]) -> None:
        handed.append((name, stems))

    plan = backfill(sessions, Picture, store=store, enqueue=enqueue)
    assert [one async for one in plan] == []
    assert sorted(name for name, _ in handed) == sorted(
        store.name_of(key) for key in keys if key in keys[2:] or public_of(str(key.revision)) in lacking
    )
    maker = ThumbnailMaker(store, [Picture])
    for name, stems in handed:
        original = await maker.find_original(name, stems)
        assert original is not None
        found = maker.thumbnails(original, stems)
        assert [one.declaration.name for one in found] == [*Picture.__thumbnails__]
        assert [one.stem for one in found] == stems
    assert (plan.progress.counts["enqueued"], plan.progress.counts["made"], plan.progress.done) == (COUNT - 1, 0, COUNT)
    assert store.reads == 0


async def test_an_error_of_enqueue_ends_the_run(sessions: Sessions, store: CountingStore) -> None:
    """The error is raised, and the next run continues."""
    await fill(sessions, store, COUNT)

    async def enqueue(name: str, stems: Sequence[str]) -> None:
        raise ConnectionError("the broker is away")

    with pytest.raises(ConnectionError):
        await backfill(sessions, Picture, store=store, enqueue=enqueue).execute()


# --- failures --------------------------------------------------------------------------------------------------------


async def test_failures_are_listed(sessions: Sessions, store: CountingStore) -> None:
    """Other images are made; an image without a file counts as gone, and neither is marked."""
    keys = await fill(sessions, store, COUNT)
    await store.discard(keys[3])
    await store.discard(keys[5])
    await store.put(keys[5], b"\xff\xd8\xff broken", reproducible=False)
    plan = backfill(sessions, Picture, store=store)
    progress = await plan.execute()
    assert (progress.done, progress.counts["made"], progress.failed) == (COUNT, (COUNT - 2) * FILES, 1)
    assert (progress.counts["gone"], progress.counts["marked"]) == (1, COUNT - 2)
    [failure] = plan.failures
    assert (failure.owner, failure.identity) == (Picture, (5, 60, 40, ""))
    assert isinstance(failure.error, UnreadableImageError)
    found = await marks(sessions)
    assert [number for number, one in enumerate(found) if one is None] == [3, 5]


async def test_a_row_without_a_valid_name_fails_alone(sessions: Sessions, store: CountingStore) -> None:
    """The other rows are processed."""
    await fill(sessions, store, COUNT)
    async with sessions.begin() as session:
        await session.execute(update(Picture.__table__).where(Picture.id == 4).values(revision="short"))
    plan = backfill(sessions, Picture, store=store)
    progress = await plan.execute()
    assert (progress.done, progress.failed, progress.counts["made"]) == (COUNT, 1, (COUNT - 1) * FILES)
    assert isinstance(plan.failures[0].error, InvalidKeyError)


class Unavailable(MemoryStore):
    """A store that does not respond after some reads."""

    left = 3

    async def get_object(self, name: str, *, start: int = 0, end: int | None = None) -> Any:
        self.left -= 1
        if self.left < 0:
            raise StoreUnavailableError("away", attempts=1)
        return await super().get_object(name, start=start, end=end)


async def test_a_run_ends_when_the_store_does_not_respond(sessions: Sessions) -> None:
    """The run ends with an error, instead of a failure for each original."""
    store = Unavailable()
    await fill(sessions, store, 30)
    plan = backfill(sessions, Picture, store=store, concurrency=1)
    with pytest.raises(StoreUnavailableError, match="18 consecutive files"):
        await plan.execute()
    assert (plan.progress.counts["made"], plan.progress.failed) == (3 * FILES, 18)


# --- limits ----------------------------------------------------------------------------------------------------------


async def test_the_rate_is_limited(sessions: Sessions, store: CountingStore) -> None:
    """Originals that lack files start at equal intervals, and others do not wait."""
    await fill(sessions, store, 5)
    started = time.monotonic()
    await backfill(sessions, Picture, store=store, rate=20.0).execute()
    assert time.monotonic() - started >= 4 / 20
    async with asyncio.timeout(60):
        progress = await backfill(sessions, Picture, store=store, rate=0.001).execute()
    assert (progress.done, progress.counts["made"]) == (5, 0)


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_the_number_of_originals_in_progress_is_limited(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch, concurrency: int, store: CountingStore
) -> None:
    """The limit is reached and never exceeded."""
    await fill(sessions, store, COUNT)
    running = most = 0
    get = store.get_object

    async def slow(name: str, **options: Any) -> AsyncFile:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1
        return await get(name, **options)

    monkeypatch.setattr(store, "get_object", slow)
    await backfill(sessions, Picture, store=store, concurrency=concurrency).execute()
    assert most == concurrency


# --- arguments -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "options", "error", "message"),
    [
        (object(), {}, DeclarationError, "expected an image class, or an attachment"),
        (Base, {}, DeclarationError, "expected an image class"),
        (Picture, {"concurrency": 0}, ValueError, "concurrency: expected at least 1, got 0"),
        (Picture, {"rate": 0}, ValueError, "rate: expected more than 0, got 0"),
        (Picture, {"start_after": "1000"}, ValueError, "start_after: expected the position of an earlier run"),
    ],
)
async def test_arguments_are_checked(
    sessions: Sessions, target: Any, options: dict[str, Any], error: type[Exception], message: str, store: CountingStore
) -> None:
    """Invalid arguments are rejected immediately."""
    with pytest.raises(error, match=message):
        backfill(sessions, target, **{"store": MemoryStore(), **options})


async def test_a_class_without_declarations_is_refused(sessions: Sessions, store: CountingStore) -> None:
    """The message states what to add to the class."""

    class PlainBase(DeclarativeBase):
        pass

    class Plain(PlainBase, Image):
        __tablename__ = "plain"
        id: Mapped[int] = mapped_column(primary_key=True)

    with pytest.raises(DeclarationError, match="add __thumbnails__ to the class"):
        backfill(sessions, Plain, store=MemoryStore())
