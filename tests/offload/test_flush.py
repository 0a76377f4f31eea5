"""Offloaded columns in a flush: the files that are put, and those that are deleted with the commit."""

from __future__ import annotations

import asyncio
import gc
import logging
import pickle
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import String, delete, event, insert, select, text, update
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, make_transient, mapped_column

from aioimageattach._transaction.fence import set_grace
from aioimageattach.exc import DeclarationError, StoreFileNotFoundError
from aioimageattach.offload import StoredText, load_stored, stored_text
from aioimageattach.stores import MemoryStore
from tests.databases import Servers
from tests.faults.rig import check
from tests.faults.stores import FaultyStore, fails
from tests.faults.test_concurrency import together
from tests.offload.conftest import Sessions, sessions_of
from tests.offload.models import Article, Base, Draft, Part, Topic
from tests.stores.plain import PlainStore


async def contents(sessions: Sessions, store: FaultyStore) -> set[bytes]:
    """Assert that rows and files match, and return their contents."""

    class Reader:
        reader = sessions.kw["bind"]

    return await check(Reader, store, Base)  # type: ignore[arg-type]


async def article(sessions: Sessions, number: int = 1, **values: Any) -> None:
    async with sessions() as session, session.begin():
        session.add(Article(id=number, **({"body": "old"} | values)))


async def test_the_life_of_a_value(each_sessions: Sessions, store: FaultyStore) -> None:
    """A value is put with the flush, replaced, set to ``None``, assigned again and deleted with its row."""
    sessions = each_sessions
    await article(sessions, note="short", data=b"data")
    assert await contents(sessions, store) == {b"old", b"data"}
    for value, expected in (("new", {b"new", b"data"}), (None, {b"data"}), ("last", {b"last", b"data"})):
        async with sessions() as session, session.begin():
            (await session.get_one(Article, 1)).body = value  # type: ignore[assignment]
        assert await contents(sessions, store) == expected
    async with sessions() as session, session.begin():
        await session.delete(await session.get_one(Article, 1))
    assert await contents(sessions, store) == set()


async def test_a_plain_value_of_a_new_row(each_sessions: Sessions, store: FaultyStore) -> None:
    """A framework may set a plain value without SQLAlchemy's events; it is stored like an assigned one."""
    async with each_sessions() as session, session.begin():
        session.add(new := Article(id=1))
        new.__dict__["body"] = "plain"
    assert await contents(each_sessions, store) == {b"plain"}


@pytest.mark.parametrize("how", ["loaded", "expired", "deferred", "deleted"])
async def test_the_old_value_need_not_be_known(each_sessions: Sessions, store: FaultyStore, how: str) -> None:
    """The file that the row references immediately before it is written is deleted."""
    sessions = each_sessions
    await article(sessions, data=b"data")
    async with sessions() as session, session.begin():
        found = await session.get_one(Article, 1)
        if how == "deferred":
            session.expunge(found)
            found = Article(id=1)
            make_transient(found)
            found = await session.merge(found)
        elif how == "expired":
            session.expire(found)
        if how == "deleted":
            session.expire(found)
            await session.delete(found)
        else:
            found.body = "new"  # type: ignore[assignment]
    assert await contents(sessions, store) == (set() if how == "deleted" else {b"new", b"data"})


async def test_equal_values_are_not_put(sessions: Sessions, store: FaultyStore) -> None:
    """A resubmitted form causes no upload and no UPDATE, and the handle then has the value."""
    await article(sessions, note="short")
    sent: list[str] = []
    async with sessions() as session, session.begin():
        found = await session.get_one(Article, 1)
        handle = found.body
        event.listen(
            sessions.kw["bind"].sync_engine, "before_cursor_execute", lambda *args: sent.append(args[2].split()[0])
        )
        found.body, found.note = "old", "short"  # type: ignore[assignment]
        await session.flush()
        assert found.body is handle
        assert found.body is not None
        assert found.body.value == "old"
        found.body = "old"  # type: ignore[assignment]
        await session.flush()
        assert found.body is handle
        found.body = found.body
        found.body = found.body._twin()  # type: ignore[assignment]
    assert sent.count("UPDATE") == 0
    assert store.counts["put"] == 1
    assert await contents(sessions, store) == {b"old"}


def drafts(**options: Any) -> Any:
    """Return a class for a table that other classes use, too, as it was declared at some time."""

    class Local(DeclarativeBase):
        pass

    class Slip(Local):
        __tablename__ = "draft"
        id: Mapped[str] = mapped_column(String(10), primary_key=True)
        body: Mapped[StoredText | None] = stored_text(**options)

    return Slip


async def test_options_that_were_changed(sessions: Sessions, store: FaultyStore) -> None:
    """Stored values stay readable; an assigned value is written with the current options, even if it is equal."""
    steps = [
        ({"inline_below": 100}, True),
        ({"inline_below": 0, "compression": "zstd"}, False),
        ({"inline_below": 5, "compression": "gzip"}, False),
        ({"inline_below": 50, "max_size": 60}, True),
    ]
    value = "a text that is the same all the time"
    async with sessions() as session, session.begin():
        session.add(drafts(**steps[-1][0])(id="a", body=value))
    for options, inline in steps:
        cls = drafts(**options)
        async with sessions() as session:
            row = await session.get_one(cls, "a")
            assert await row.body.load() == value
        for _ in range(2):
            async with sessions() as session, session.begin():
                row = await session.get_one(cls, "a")
                row.body = value
        assert (row.body.name is None) == inline
        assert len(await store.names()) == (not inline)
    assert store.counts["put"] == 1


async def test_a_previous_value_is_assigned_again(sessions: Sessions, store: FaultyStore) -> None:
    """The file that was to be deleted is copied or kept, also after a flush."""
    await article(sessions)
    async with sessions() as session, session.begin():
        found = await session.get_one(Article, 1)
        old = found.body
        found.body = "new"  # type: ignore[assignment]
        await session.flush()
        found.body = old
        await session.flush()
        found.body = None
        await session.flush()
        found.body = old
    assert await contents(sessions, store) == {b"old"}


async def test_each_row_has_its_own_file(each_sessions: Sessions, store: FaultyStore) -> None:
    """The value of another row's handle is copied, whether or not it is loaded or new, from any column."""
    sessions = each_sessions
    await article(sessions)
    async with sessions() as session, session.begin():
        one = await session.get_one(Article, 1)
        handle = await session.scalar(select(Article.body))
        shared = StoredText("two rows")
        session.add_all([Article(id=2, body=one.body, note=one.body), Article(id=3, body=shared, note=shared)])
        session.add(fourth := Article(id=4))
        fourth.body = handle
        fourth.__dict__["note"] = fourth.body  # like frameworks that write without SQLAlchemy's events
    await check_notes(sessions)
    async with sessions() as session, session.begin():
        await session.delete(await session.get_one(Article, 1))
    await check_notes(sessions)
    assert await contents(sessions, store) == {b"old", b"two rows"}


async def test_the_handle_of_another_row_can_be_loaded(sessions: Sessions, store: FaultyStore) -> None:
    """Before the flush, too, the handle has the same value and can be loaded."""
    await article(sessions)
    async with sessions() as session, session.begin():
        one = await session.get_one(Article, 1)
        session.add(two := Article(id=2, note=one.body))
        one.note = one.body
        for handle in (one.note, two.note):
            assert handle is not None
            assert (handle.size, handle.loaded) == (3, False)
            assert await handle.load() == "old"
    assert await contents(sessions, store) == {b"old"}


async def check_notes(sessions: Sessions) -> None:
    async with sessions() as session:
        rows = list(await session.scalars(select(Article).where(Article.id > 1)))
        await load_stored(rows, Article.body, Article.note)
        assert {row.id: (row.body and row.body.value, row.note and row.note.value) for row in rows} == {
            2: ("old", "old"),
            3: ("two rows", "two rows"),
            4: ("old", "old"),
        }


async def test_merged_and_pickled(each_sessions: Sessions, store: FaultyStore) -> None:
    """An unchanged value changes nothing, a replaced one is rejected, and a loaded one is put again."""
    sessions = each_sessions
    await article(sessions)
    async with sessions() as session:
        stale = await session.get_one(Article, 1)
    loaded = pickle.loads(pickle.dumps(stale))
    await loaded.body.load(store)
    async with sessions() as session, session.begin():
        await session.merge(stale)
    assert store.counts["put"] == 1
    async with sessions() as session, session.begin():
        (await session.get_one(Article, 1)).body = "new"  # type: ignore[assignment]
    with pytest.raises(StoreFileNotFoundError):
        async with sessions() as session, session.begin():
            await session.merge(stale)
    assert await contents(sessions, store) == {b"new"}
    async with sessions() as session, session.begin():
        await session.merge(loaded)
    assert await contents(sessions, store) == {b"old"}
    async with sessions() as session, session.begin():
        await session.merge(Article(id=5, body="merged, and new"))
        gc.collect()
    assert await contents(sessions, store) == {b"old", b"merged, and new"}


async def test_rolled_back_and_added_again(sessions: Sessions, store: FaultyStore) -> None:
    """The value is still in memory, so it is put again."""
    async with sessions() as session:
        session.add(found := Article(id=1, body="text", note="short"))
        await session.flush()
        await session.rollback()
        assert await store.names() == set()
        session.add(found)
        await session.commit()
    assert await contents(sessions, store) == {b"text"}


async def test_a_row_in_the_place_of_another(each_sessions: Sessions, store: FaultyStore) -> None:
    """Deleting and inserting the same key becomes one UPDATE, in which missing values are not inherited."""
    sessions = each_sessions
    await article(sessions, data=b"data")
    async with sessions() as session, session.begin():
        await session.delete(await session.get_one(Article, 1))
        session.add(Article(id=1, body="new"))
    assert await contents(sessions, store) == {b"new"}


async def test_orphans_and_composite_keys(each_sessions: Sessions, store: FaultyStore) -> None:
    """Files of delete-orphan rows are deleted, loaded or not; defaults, ``del`` and changed keys work, too."""
    sessions = each_sessions
    async with sessions() as session, session.begin():
        session.add(found := Article(id=1))
        found.parts = [Part(number=number, body=f"part {number}", tags=[number]) for number in range(3)]
        found.parts.append(Part(number=3, body="part 3"))
    async with sessions() as session, session.begin():
        found = await session.get_one(Article, 1)
        await session.refresh(found, ["parts"])
        last = found.parts[3]
        assert await last.tags.load(store) == ["new"]
        del last.tags
        last.number = 9
        session.expire(found.parts[0])
        await session.refresh(found.parts[0], ["article_id", "number"])
        found.parts = [found.parts[2], last]
    async with sessions() as session:
        left = list(await session.scalars(select(Part).order_by(Part.number)))
        await load_stored(left, Part.body, Part.tags)
        assert [(part.number, part.body.value, part.tags and part.tags.value) for part in left] == [
            (2, "part 2", [2]),
            (9, "part 3", None),
        ]
    assert len([name for name in await store.names() if name.startswith("part.body/")]) == 2


async def test_equal_values_share_a_file(each_sessions: Sessions, store: FaultyStore) -> None:
    """Neither a rollback nor a deletion removes a file that other rows share."""
    sessions = each_sessions
    async with sessions() as session, session.begin():
        session.add(Article(id=1, parts=[Part(number=number, body="x", tags=["same"]) for number in range(5)]))
    shared = [name for name in await store.names() if name.startswith("part.tags/")]
    assert len(shared) == 1
    async with sessions() as session:
        session.add(Part(article_id=1, number=7, body="y", tags=["same"]))
        await session.flush()
        await session.rollback()
    async with sessions() as session, session.begin():
        await session.delete(await session.get_one(Part, (1, 0)))
    assert shared[0] in await store.names()
    async with sessions() as session:
        part = await session.get_one(Part, (1, 4))
        assert part.tags is not None
        assert await part.tags.load() == ["same"]


async def test_nothing_is_shared_with_a_short_grace_time(sessions: Sessions, store: FaultyStore) -> None:
    """With a shorter grace time, an existing file could be too old for a sweep, so it is not shared."""
    set_grace(sessions, timedelta(hours=1))
    async with sessions() as session, session.begin():
        session.add(Article(id=1, parts=[Part(number=number, body="x", tags=["same"]) for number in range(3)]))
    assert len([name for name in await store.names() if name.startswith("part.tags/")]) == 3


@pytest.mark.parametrize(
    "statement",
    [
        lambda other: insert(Article).values(id=9, body="raw"),
        lambda other: insert(Article.__table__).values(id=9, body="raw"),
        lambda other: update(Article).values(body="raw"),
        lambda other: insert(Article).values(id=9, body=other),
        lambda other: select(Article).where(Article.body == "raw"),
        lambda other: select(Article).where(Article.body == other),
    ],
    ids=["insert", "core", "update", "a handle", "compare", "compare a handle"],
)
async def test_values_in_statements_are_refused(sessions: Sessions, store: FaultyStore, statement: Any) -> None:
    """They would cause rows without files, or two rows with one file; the message names the right call."""
    await article(sessions)
    async with sessions() as session:
        other = (await session.get_one(Article, 1)).body
        with pytest.raises(DeclarationError, match=r"session\.add_all"):
            await session.execute(statement(other))
        await session.rollback()
        with pytest.raises(DeclarationError):
            await session.run_sync(lambda sync: sync.bulk_insert_mappings(Article, [{"id": 9, "body": "raw"}]))
        await session.rollback()
        await session.execute(update(Article).values(title="fine"))
        assert len(list(await session.scalars(select(Article).where(Article.body.is_not(None))))) == 1
        await session.commit()
    assert await contents(sessions, store) == {b"old"}


@pytest.mark.parametrize("changed", [False, True])
async def test_bulk_deletes(sessions: Sessions, store: FaultyStore, changed: bool) -> None:
    """Files of loaded rows are deleted, regardless of unflushed assignments."""
    await article(sessions)
    async with sessions() as session, session.begin():
        found = await session.get_one(Article, 1)
        if changed:
            with session.no_autoflush:
                found.body = "never flushed"  # type: ignore[assignment]
                await session.execute(delete(Article))
        else:
            await session.execute(delete(Article))
    assert await contents(sessions, store) == set()


async def test_bulk_deletes_of_unknown_files(
    sessions: Sessions, store: FaultyStore, caplog: pytest.LogCaptureFixture
) -> None:
    """Files of unloaded rows, or without a known store, are left to the sweep, and the log states this."""
    await article(sessions)
    await article(sessions, 2)
    sessions.kw["info"].clear()
    async with sessions() as session, session.begin():
        one, _two = await session.get_one(Article, 1), await session.get_one(Article, 2)
        session.expire(one, ["body"])
        with caplog.at_level(logging.WARNING, "aioimageattach.offload"):
            await session.execute(delete(Article), execution_options={"synchronize_session": "fetch"})
    assert "it was not loaded" in caplog.text
    assert "no store is set" in caplog.text
    assert len(await store.names()) == 2


@pytest.mark.parametrize("what", ["replace", "delete"])
async def test_foreign_references_are_not_deleted(
    sessions: Sessions, store: FaultyStore, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    """If the row references another column's file, or none, the row is deleted or changed, and the file is kept."""
    await article(sessions, data=b"data")
    [data] = [name for name in await store.names() if name.startswith("article.data/")]
    async with sessions() as session, session.begin():
        await session.execute(text(f"UPDATE article SET body = '@{data}', data = NULL"))
    async with sessions() as session, session.begin():
        found = await session.get_one(Article, 1)
        if what == "replace":
            found.body = "new"  # type: ignore[assignment]
        else:
            await session.delete(found)
    assert data in await store.names()
    assert "nothing is deleted" in caplog.text


@pytest.mark.parametrize("what", ["assigns", "adds"])
async def test_hooks_that_run_after_those_of_the_library(
    each_sessions: Sessions, store: FaultyStore, what: str
) -> None:
    """Values that such hooks assign, and rows that they add, have their files before the statements."""
    sessions = each_sessions
    await article(sessions)
    async with sessions() as session:
        found = await session.get_one(Article, 1)

        def late(sync: Session, *_: object) -> None:
            if what == "adds":
                sync.add(Article(id=2, body="late"))
            else:
                found.body = "late"  # type: ignore[assignment]

        event.listen(session.sync_session, "before_flush", late)
        found.title = "new"
        found.body = "early"  # type: ignore[assignment]
        await session.commit()
    assert await contents(sessions, store) == ({b"early", b"late"} if what == "adds" else {b"late"})


async def test_a_row_that_a_hook_expunges(sessions: Sessions, store: FaultyStore) -> None:
    """The file was put, and is deleted with the commit, because no row references it."""
    for others in ([], [Article(id=2, body="another")]):
        async with sessions() as session:
            session.add_all([found := Article(id=1, body="text"), *others])
            event.listen(session.sync_session, "before_flush", lambda sync, *_, found=found: sync.expunge(found))
            await session.commit()
        assert await contents(sessions, store) == {b"another" for _ in others}


async def test_rows_without_values(sessions: Sessions, store: FaultyStore) -> None:
    """Rows without values are inserted, changed and deleted as usual."""
    async with sessions() as session, session.begin():
        session.add_all([Topic(id="one", title="first"), Article(id=1, body="text")])
    async with sessions() as session, session.begin():
        (await session.get_one(Topic, "one")).title = "second"
        (await session.get_one(Article, 1)).body = "new"  # type: ignore[assignment]
    async with sessions() as session, session.begin():
        await session.delete(await session.get_one(Topic, "one"))
        await session.delete(await session.get_one(Article, 1))
    assert await contents(sessions, store) == set()


async def test_keys_that_the_database_considers_equal(sessions: Sessions, store: FaultyStore) -> None:
    """A row whose key the database spells differently is written, and its old file is deleted."""
    async with sessions() as session, session.begin():
        session.add(Draft(id="a", body="old"))
    async with sessions() as session, session.begin():
        found = await session.get_one(Draft, "a")
        await session.execute(text("UPDATE draft SET id = 'A'"))
        found.body = "new"  # type: ignore[assignment]
    assert len(await store.names()) == 1
    async with sessions() as session:
        handle = await session.scalar(select(Draft.body))
        assert handle is not None
        assert await handle.load(store) == "new"


async def test_a_store_that_is_not_keyed(sessions: Sessions) -> None:
    """The store is rejected before anything is written, and the message states the requirement."""
    with pytest.raises(DeclarationError, match="KeyedStore"):
        await article(sessions, body=StoredText("x", store=PlainStore()))


@pytest.mark.parametrize("before", ["flush", "commit"])
@pytest.mark.parametrize("driver", ["asyncpg", "asyncmy"])
async def test_two_replace(servers: Servers, tmp_path: Any, store: FaultyStore, driver: str, before: str) -> None:
    """The last replacement is kept, and the file of the first one is deleted."""
    database = servers.database(driver, tmp_path)
    try:
        sessions = await sessions_of(database, store)
        await article(sessions)

        def replacing(content: str) -> Any:
            async def work(session: Any, meet: Any) -> None:
                (await session.get_one(Article, 1)).body = content
                await meet()

            return work

        class Rig:
            pass

        rig: Any = Rig()
        rig.sessions, rig.store = sessions, store
        errors = await together(rig, replacing("A"), replacing("B"), before=before)
        failed = [error for error in errors if error is not None]
        assert len(failed) <= (driver == "asyncmy")
        found = await contents(sessions, store)
        assert found in ({b"A"}, {b"B"})
    finally:
        await database.aclose()


async def test_many_values_are_loaded_concurrently(sessions: Sessions, store: FaultyStore) -> None:
    """Each value is loaded once, rows without a value are skipped, and an error ends all loads."""
    async with sessions() as session, session.begin():
        session.add_all([Article(id=number, body=f"text {number}" * number) for number in range(1, 60)])
        session.add(Article(id=100, note="short"))
    flying = most = 0

    async def slow(name: str) -> None:
        nonlocal flying, most
        flying += 1
        most = max(most, flying)
        await asyncio.sleep(0.001)
        flying -= 1

    store.at("get", slow)
    async with sessions() as session:
        rows = list(await session.scalars(select(Article)))
        await load_stored([*rows, *rows], Article.body, Article.note, concurrency=7)
        assert most == 7
        assert {row.id: row.body and row.body.value for row in rows} == {
            **{number: f"text {number}" * number for number in range(1, 60)},
            100: None,
        }
        await load_stored(rows, Article.body)
        assert store.counts["get"] == 59
        session.expunge_all()
        rows = list(await session.scalars(select(Article)))
        store.heal()
        store.at("get", fails, 20)
        with pytest.raises(OSError, match="told to fail"):
            await load_stored(rows, Article.body)
        assert len(asyncio.all_tasks()) == 1
    for wrong in ((), (Article.title,), ("body",)):
        with pytest.raises(DeclarationError):
            await load_stored([Article(title="x")], *wrong)
    with pytest.raises(DeclarationError, match="concurrency"):
        await load_stored([], Article.body, concurrency=0)


async def test_a_plain_store_in_memory(sessions: Sessions) -> None:
    """A memory store works without a wrapper."""
    store = MemoryStore()
    await article(sessions, body=StoredText("x", store=store))
    assert len(store._files) == 1
