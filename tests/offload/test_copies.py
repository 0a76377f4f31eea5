"""Handles that are copied and pickled, alone or with their rows."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict
from sqlalchemy import inspect

from aioimageattach.context import bind_store
from aioimageattach.exc import OffloadError
from aioimageattach.offload import Stored, StoredBinary, StoredFile, StoredJSON, StoredText
from tests.databases import Database
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
