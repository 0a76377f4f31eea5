"""Handles: their attributes without the store, and loading on request."""

from __future__ import annotations

import asyncio
import copy
import hashlib
import pickle
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, ValidationError
from sqlalchemy import select, text

from aioimageattach.context import store_context
from aioimageattach.exc import (
    ContextError,
    DamagedValueError,
    DeclarationError,
    NotLoadedError,
    OffloadError,
    StoreFileNotFoundError,
    StoreUnavailableError,
    ValueTooLargeError,
)
from aioimageattach.offload import Stored, StoredBinary, StoredJSON, StoredText
from tests.faults.stores import FaultyStore, fails
from tests.offload.conftest import Sessions
from tests.offload.models import Article, StoredPacked

LONG = "some text, " * 20_000
VALUES: dict[str, Any] = {
    "body": LONG,
    "note": "a note that is too long for the row",
    "data": bytes(range(256)),
    "outline": {"heads": ["one", "zwei"], "deep": [[1, None, 2.5]]},
    "packed": {"a": [1, b"2"]},
}


async def fresh(sessions: Sessions, **values: Any) -> Article:
    """Return an article as another session reads it."""
    async with sessions() as session, session.begin():
        session.add(article := Article(**values))
    async with sessions() as session:
        return await session.get_one(Article, article.id)


@pytest.mark.parametrize("key", VALUES)
async def test_each_kind(sessions: Sessions, store: FaultyStore, key: str) -> None:
    """A handle that was read has a size and checksum, and its value is loaded once, on request."""
    value = VALUES[key]
    handle: Stored[Any] = getattr(await fresh(sessions, **{key: value}), key)
    plain = type(handle).encode(value)
    assert not handle.loaded
    assert (handle.size, handle.sha256) == (len(plain), hashlib.sha256(plain).hexdigest())
    assert "not loaded" in repr(handle)
    with pytest.raises(NotLoadedError, match=r"await handle\.load\(\)"):
        assert handle.value
    assert bool(handle)
    assert handle == type(handle)(value)
    assert handle == value
    assert store.counts["get"] == 0
    assert await handle.load(store) == value
    assert handle.loaded
    assert handle.value == await handle.load() == value
    assert store.counts["get"] == 1


@pytest.mark.parametrize("key", VALUES)
async def test_streams(sessions: Sessions, store: FaultyStore, key: str) -> None:
    """The plain bytes can be read completely, in pieces and by line, even before they are stored."""
    handle: Stored[Any] = getattr(await fresh(sessions, **{key: VALUES[key]}), key)
    plain = type(handle).encode(VALUES[key])
    async with await handle.open(store) as file:
        assert await file.read() == plain
        assert await file.read() == b""
    async with await handle.open(store) as file:
        pieces = [piece async for piece in file]
    assert b"".join(pieces) == plain
    async with await handle.open(store) as file:
        assert await file.read(3) == plain[:3]
    async with await type(handle)(VALUES[key]).open() as file:
        assert await file.read() == plain
    assert not handle.loaded


async def test_values_in_the_row_need_no_store(sessions: Sessions, store: FaultyStore) -> None:
    """Values in the row are available without a store."""
    article = await fresh(sessions, note="short")
    assert article.note is not None
    assert await article.note.load() == "short"
    article = await fresh(sessions, note="short")
    assert article.note is not None
    assert article.note.loaded
    assert (article.note.value, article.note.size, article.note.name) == ("short", 5, None)
    assert article.note.sha256 == hashlib.sha256(b"short").hexdigest()
    async with await article.note.open() as file:
        assert await file.read() == b"short"
    assert store.counts["get"] == 0


async def test_none_differs_from_empty_values(sessions: Sessions) -> None:
    """``None`` is no value; an empty string, empty bytes, null and an empty list are values."""
    article = await fresh(sessions, note="", data=b"", outline=StoredJSON(None))
    assert article.body is None
    assert article.note is not None
    assert article.data is not None
    assert article.outline is not None
    assert (article.note.value, bool(article.note), article.note == "") == ("", False, True)
    assert (article.data == b"", bool(article.data)) == (True, False)
    assert article.outline
    assert article.outline != None  # noqa: E711 - this comparison is tested
    assert article.outline == StoredJSON(None)


async def test_equality_is_that_of_bytes(sessions: Sessions) -> None:
    """Handles of one kind and plain values are compared by bytes; other objects are unequal without an error."""
    article = await fresh(sessions, body="same", data=b"same")
    assert article.body == StoredText("same")
    assert hash(article.body) == hash(StoredText("same"))
    assert article.body != article.data
    assert article.body != "other"
    assert article.body not in (3, None, b"same")
    assert StoredJSON({"a": 1}) == {"a": 1}
    assert StoredJSON({"a": 1}) != {1, 2}
    assert StoredBinary(bytearray(b"x")) == memoryview(b"x")
    assert repr(StoredText("secret")) == "<StoredText, not stored yet>"


def test_values_of_other_types_are_refused() -> None:
    """The message states the expected type."""
    wrong: Any = b"bytes"
    with pytest.raises(DeclarationError, match="StoredText: expected str or a StoredText, got bytes"):
        StoredText(wrong)
    with pytest.raises(DeclarationError, match="expected bytes"):
        StoredBinary(wrong.decode())
    with pytest.raises(DeclarationError, match="expected str"):
        Article(body=wrong)
    with pytest.raises(DeclarationError, match="expected a StoredText or a plain value, got a StoredBinary"):
        Article(body=StoredBinary(wrong))


def test_the_base_class_has_no_serializer() -> None:
    """The error states that a serializer is required."""
    for call in (lambda: Stored.encode(1), lambda: Stored.decode(b"")):
        with pytest.raises(NotImplementedError):
            call()


async def test_errors_of_serializers(sessions: Sessions) -> None:
    """Errors of a serializer become the cause of an error of this library, in a flush and in a load."""
    with pytest.raises(OffloadError, match="a dict could not be encoded") as caught:
        await fresh(sessions, packed={"a": object()})
    assert isinstance(caught.value.__cause__, TypeError)
    with pytest.raises(OffloadError, match="a str could not be encoded"):
        await fresh(sessions, body="\ud800")
    with pytest.raises(DamagedValueError, match="StoredPacked: the content could not be decoded") as damaged:
        StoredPacked({})._decode(b"\xc1")
    assert damaged.value.__cause__ is not None
    with pytest.raises(DamagedValueError, match="StoredText: the content could not be decoded"):
        StoredText("")._decode(b"\xff")
    with pytest.raises(DamagedValueError, match="not valid JSON"):
        StoredJSON("")._decode(b"\xff")


async def altered(store: FaultyStore, change: Any) -> None:
    """Change the only file without the library."""
    [name] = await store.names()
    async with await store.inner.get_object(name) as file:
        blob = await file.read()
    await store.inner.delete_object(name)
    await store.inner.put_object(name, change(blob))


@pytest.mark.parametrize("key", ["body", "data", "outline"])
@pytest.mark.parametrize(
    "change",
    [
        lambda blob: blob[:-1],
        lambda blob: blob + b"x",
        lambda blob: b"",
        lambda blob: blob * 1000,
        lambda blob: blob[:-6] + bytes([blob[-6] ^ 1]) + blob[-5:],
        lambda blob: bytes(len(blob)),
    ],
    ids=["cut", "longer", "empty", "much longer", "flipped", "zeros"],
)
async def test_files_that_were_altered(sessions: Sessions, store: FaultyStore, key: str, change: Any) -> None:
    """Loading and streaming raise an error, and the handle is unchanged."""
    handle: Stored[Any] = getattr(await fresh(sessions, **{key: VALUES[key]}), key)
    await altered(store, change)
    with pytest.raises(DamagedValueError, match="is not what was stored"):
        await handle.load(store)
    assert not handle.loaded
    with pytest.raises(DamagedValueError, match="is not what was stored"):
        async with await handle.open(store) as file:
            await file.read()


async def test_missing_files(sessions: Sessions, store: FaultyStore) -> None:
    """The errors of the store are raised; afterwards the same handle can be loaded."""
    handle = (await fresh(sessions, body=LONG)).body
    assert handle is not None
    store.at("get", fails)
    with pytest.raises(StoreUnavailableError):
        await handle.load(store)
    store.heal()
    assert await handle.load(store) == LONG
    for name in await store.names():
        await store.delete_object(name)
    async with sessions() as session:
        again = (await session.get_one(Article, 1)).body
    assert again is not None
    with pytest.raises(StoreFileNotFoundError):
        await again.load(store)


async def test_foreign_content_of_a_row(sessions: Sessions) -> None:
    """Other rows can be listed; loading the handle raises an error, and nothing is read."""
    await fresh(sessions, data=b"x")
    async with sessions() as session, session.begin():
        await session.execute(text("UPDATE article SET body = '@s3://other/secret', data = 'gASVCwAAAA=='"))
    async with sessions() as session:
        article = await session.get_one(Article, 1)
    for handle in (article.body, article.data):
        assert handle is not None
        assert "damaged" in repr(handle)
        for ask in (lambda: handle.size, lambda: handle.value, lambda: handle.loaded):  # noqa: B023
            with pytest.raises(DamagedValueError, match="not written by this column"):
                ask()
        with pytest.raises(DamagedValueError):
            await handle.load()
        with pytest.raises(DamagedValueError):
            await handle.open()


async def test_values_that_are_too_large(sessions: Sessions, store: FaultyStore) -> None:
    """A value is refused before it is put; a row with such a size is refused before anything is read."""
    with pytest.raises(ValueTooLargeError, match="1,000,000 are allowed") as caught:
        await fresh(sessions, data=bytes(1_000_001))
    assert (caught.value.limit, caught.value.actual) == (1_000_000, 1_000_001)
    handle = (await fresh(sessions, data=b"x")).data
    assert handle is not None
    assert handle.name is not None
    forged = handle.name.replace(".1.1.", ".2000000.2000000.")
    async with sessions() as session, session.begin():
        await session.execute(text(f"UPDATE article SET data = '@{forged}'"))
    async with sessions() as session:
        handle = (await session.get_one(Article, 1)).data
    assert handle is not None
    with pytest.raises(ValueTooLargeError):
        await handle.load(store)
    assert store.counts["get"] == 0


async def test_the_order_of_stores(sessions: Sessions, store: FaultyStore) -> None:
    """The argument, the handle, the context, and the current or former session are used in this order."""
    other = FaultyStore()
    article = await fresh(sessions, body=StoredText("there", store=other))
    handle = article.body
    assert handle is not None
    assert [len(await one.names()) for one in (store, other)] == [0, 1]
    with pytest.raises(StoreFileNotFoundError):
        await handle.load()
    with store_context(other):
        assert await handle.load() == "there"
    async with sessions() as session:
        found = await session.scalar(select(Article.body))
        assert found is not None
        with pytest.raises(ContextError):  # a handle that belongs to no row
            await found.load()
        article = await session.get_one(Article, 1)
        assert article.body is not None
        with pytest.raises(StoreFileNotFoundError):
            await article.body.load()
        assert await article.body.load(other) == "there"


async def test_handles_are_copied(sessions: Sessions, store: FaultyStore) -> None:
    """Copies keep everything except the store."""
    article = await fresh(sessions, body=LONG)
    assert article.body is not None
    for twin in (copy.copy(article.body), copy.deepcopy(article.body), pickle.loads(pickle.dumps(article.body))):
        assert not twin.loaded
        assert twin == article.body
        assert await twin.load(store) == LONG
        assert pickle.loads(pickle.dumps(twin)).value == LONG
    assert pickle.loads(pickle.dumps(StoredText("new"))).value == "new"


async def test_a_read_is_cancelled(sessions: Sessions, store: FaultyStore) -> None:
    """A stream that is read further after a cancellation has lost no bytes."""
    handle = (await fresh(sessions, body=LONG)).body
    assert handle is not None
    async with await handle.open(store) as file:
        task = asyncio.ensure_future(file.read(10))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        first = b""
        try:
            first = await task
        except asyncio.CancelledError:
            pass
        assert first + await file.read() == LONG.encode()


class ArticleOut(BaseModel):
    """The response of an API."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    body: StoredText | None
    outline: StoredJSON | None = None
    packed: StoredPacked | None = None


async def test_pydantic(sessions: Sessions, store: FaultyStore) -> None:
    """A loaded handle is serialised as its value, an unloaded one raises an error, and plain values become handles."""
    article = await fresh(sessions, body="text", outline=[1])
    out = ArticleOut.model_validate(article)
    with pytest.raises(Exception, match="is in the store"):
        out.model_dump_json()
    assert article.body is not None
    assert article.outline is not None
    await article.body.load(store)
    await article.outline.load(store)
    assert out.model_dump() == {"id": 1, "body": "text", "outline": [1], "packed": None}
    assert ArticleOut.model_validate_json(out.model_dump_json()) == out
    assert ArticleOut(id=1, body="plain").body == "plain"  # type: ignore[arg-type]
    with pytest.raises(ValidationError):
        ArticleOut.model_validate({"id": 1, "body": 3})
    schema = ArticleOut.model_json_schema(mode="serialization")["properties"]["body"]
    assert schema["anyOf"] == [{"type": "string"}, {"type": "null"}]
