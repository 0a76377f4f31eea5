"""Handles that are copied and pickled, alone or with their rows."""

from __future__ import annotations

import copy
import pickle
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict
from sqlalchemy import inspect
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.orm import make_transient

from aioimageattach.context import bind_store
from aioimageattach.exc import OffloadError, StoreFileNotFoundError
from aioimageattach.offload import Stored, StoredBinary, StoredFile, StoredJSON, StoredText
from tests.databases import Database, Servers
from tests.faults.stores import FaultyStore
from tests.offload.conftest import Sessions
from tests.offload.letters import PDF, Letter, prepared
from tests.offload.models import Article

COPIES: list[Callable[[Any], Any]] = [copy.copy, copy.deepcopy]


async def a_file(**options: Any) -> StoredFile:
    return await StoredFile.from_blob(PDF, filename="Invoice 7.pdf", **options)


async def a_text(**options: Any) -> StoredText:
    return StoredText("text", **options)


async def some_bytes(**options: Any) -> StoredBinary:
    return StoredBinary(b"bytes", **options)


async def some_json(**options: Any) -> StoredJSON:
    return StoredJSON({"a": [1]}, **options)


HANDLES: list[Callable[..., Awaitable[Stored[Any]]]] = [a_file, a_text, some_bytes, some_json]


@pytest.fixture
async def letters(sqlite_database: Database, store: FaultyStore) -> Sessions:
    """Sessions with a table of files."""
    return await prepared(sqlite_database, store)


@pytest.mark.parametrize("make", HANDLES)
@pytest.mark.parametrize("duplicate", COPIES)
async def test_a_new_value_is_copied(
    make: Callable[..., Awaitable[Stored[Any]]], duplicate: Callable[[Any], Any]
) -> None:
    """The copy has the same content, and belongs to no row."""
    handle = await make()
    twin = duplicate(handle)
    assert twin == handle
    assert twin is not handle
    assert (twin.name, twin.loaded, repr(twin)) == (None, True, repr(handle))


def test_a_deep_copy_shares_nothing() -> None:
    """A change in place of the one does not change the other."""
    handle = StoredJSON({"a": [1]})
    shallow, deep = copy.copy(handle), copy.deepcopy(handle)
    handle.value["a"].append(2)
    assert (shallow.value, deep.value) == ({"a": [1, 2]}, {"a": [1]})


@pytest.mark.parametrize("duplicate", COPIES)
async def test_each_copy_of_a_new_file_is_stored(
    letters: Sessions, store: FaultyStore, duplicate: Callable[[Any], Any]
) -> None:
    """Two rows get a file each, also if the first one is stored before the second."""
    file = await a_file()
    twin = duplicate(file)
    for number, one in enumerate((file, twin), 1):
        async with letters() as session, session.begin():
            session.add(Letter(id=number, scan=one))
    assert len(await store.names()) == 2
    async with letters() as session:
        assert [await (await session.get_one(Letter, number)).scan.read() for number in (1, 2)] == [PDF, PDF]


async def test_a_new_row_with_a_file_is_copied(letters: Sessions, store: FaultyStore) -> None:
    """A deep copy of the row has the file, too."""
    letter = Letter(id=1, scan=await a_file())
    other = copy.deepcopy(letter)
    other.id = 2
    async with letters() as session, session.begin():
        session.add_all([letter, other])
    assert len(await store.names()) == 2


@pytest.mark.parametrize("duplicate", COPIES)
async def test_a_copy_knows_the_store(letters: Sessions, store: FaultyStore, duplicate: Callable[[Any], Any]) -> None:
    """The file of a copy is put into the store that was given, and found in the one that has it."""
    private = FaultyStore()
    async with letters() as session, session.begin():
        session.add(letter := Letter(id=1, scan=duplicate(await a_file(store=private))))
    assert (len(await private.names()), await store.names()) == (1, set())
    assert await duplicate(letter.scan).read() == PDF
    async with letters() as session, session.begin():
        session.add(other := Letter(id=2, scan=duplicate(letter.scan)))
    assert await other.scan.read() == PDF


async def test_a_stored_row_is_copied(sessions: Sessions, store: FaultyStore) -> None:
    """A deep copy of a row without a session reads its values from the store of the session that it had."""
    bind_store(sessions, store)
    async with sessions() as session, session.begin():
        session.add(Article(id=1, body="text"))
    async with sessions() as session:
        article = await session.get_one(Article, 1)
    assert inspect(article).detached
    assert await copy.deepcopy(article).body.load() == "text"


# --- rows that are added to the database of another session ----------------------------------------------------------


@pytest.fixture
async def elsewhere(tmp_path: Path, servers: Servers) -> AsyncIterator[tuple[Sessions, FaultyStore]]:
    """Sessions of another database, with another store."""
    (tmp_path / "elsewhere").mkdir()
    database = servers.database("aiosqlite", tmp_path / "elsewhere")
    store = FaultyStore()
    yield await prepared(database, store), store
    await database.aclose()


@pytest.mark.parametrize("read", [False, True])
@pytest.mark.parametrize("leave", ["closed", "expunged", "made transient"])
async def test_a_row_made_transient_is_copied(
    letters: Sessions, store: FaultyStore, elsewhere: tuple[Sessions, FaultyStore], leave: str, read: bool
) -> None:
    """The file is copied from the store of the former session to that of the new one."""
    others, other = elsewhere
    async with letters() as session, session.begin():
        session.add(Letter(id=1, scan=await a_file()))
    async with letters() as session:
        letter = await session.get_one(Letter, 1)
        assert not read or letter.scan.name
        if leave == "expunged":
            session.expunge(letter)
        elif leave == "made transient":
            make_transient(letter)
    make_transient(letter)
    async with others() as session, session.begin():
        session.add(letter)
    async with others() as session:
        assert await (await session.get_one(Letter, 1)).scan.read() == PDF
    assert (len(await store.names()), len(await other.names())) == (1, 1)


async def test_a_row_of_an_unknown_store(letters: Sessions, elsewhere: tuple[Sessions, FaultyStore]) -> None:
    """Without a store of its former session, the error says where the file is looked for, and what to do."""
    others, other = elsewhere
    private = FaultyStore()
    async with letters() as session, session.begin():
        session.add(Letter(id=1, scan=await a_file(store=private)))
    async with async_sessionmaker(letters.kw["bind"])() as session:
        letter = await session.get_one(Letter, 1)
    make_transient(letter)
    with pytest.raises(StoreFileNotFoundError) as caught:
        async with others() as session, session.begin():
            session.add(letter)
    assert str(caught.value).startswith(f"letter.scan: expected the file {letter.scan.name!r} in {other!r}, to copy it")
    assert (caught.value.store, caught.value.name) == (repr(other), letter.scan.name)
    await letter.scan.load(private)
    async with others() as session, session.begin():
        session.add(letter)
    assert len(await other.names()) == 1


class Form(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    scan: StoredFile


async def test_a_model_of_pydantic_is_copied() -> None:
    """A deep copy of a model has the file."""
    form = Form(scan=await a_file())
    assert form.model_copy(deep=True).scan == form.scan


@pytest.mark.parametrize("make", HANDLES)
async def test_a_new_value_is_pickled(make: Callable[..., Awaitable[Stored[Any]]], store: FaultyStore) -> None:
    """Bytes that may be on disk and a store are not pickled; the error says so, and names the remedies."""
    handle = await make()
    if isinstance(handle, StoredFile):
        with pytest.raises(OffloadError, match=r"'Invoice 7.pdf' cannot be pickled .*: flush first, or pickle `await"):
            pickle.dumps(handle)
    else:
        assert pickle.loads(pickle.dumps(handle)) == handle
        with pytest.raises(
            OffloadError, match=f"{type(handle).__name__} with store= cannot be pickled .*: flush first"
        ):
            pickle.dumps(await make(store=store))
