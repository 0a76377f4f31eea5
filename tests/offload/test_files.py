"""Attached files are stored with the row, from any source, and read, located, replaced and deleted with it."""

from __future__ import annotations

import asyncio
import io
import pickle
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp import ClientSession, FormData, web
from aiohttp.test_utils import TestServer
from pydantic import BaseModel, ConfigDict, TypeAdapter
from sqlalchemy import MetaData, String, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedAsDataclass, mapped_column
from sqlmodel import Field, SQLModel
from starlette.datastructures import Headers, UploadFile

from aioimageattach.exc import (
    DamagedValueError,
    DeclarationError,
    NotLoadedError,
    OffloadError,
    StoreFileNotFoundError,
    StoreUnavailableError,
    ValueTooLargeError,
)
from aioimageattach.file import Spool
from aioimageattach.file._spool import SPOOL_MEMORY
from aioimageattach.offload import (
    StoredBinary,
    StoredFile,
    StoredText,
    load_stored,
    stored,
    stored_binary,
    stored_file,
)
from tests.databases import Database
from tests.entity.models import started
from tests.faults.stores import FaultyStore, fails
from tests.offload.conftest import Sessions
from tests.offload.letters import PDF, Letter, attach, prepared, scan_of


@pytest.fixture
async def sessions(sqlite_database: Database, store: FaultyStore) -> Sessions:
    """Sessions of SQLite, with tables and the store."""
    return await prepared(sqlite_database, store)


@pytest.fixture
async def each_sessions(database: Database, store: FaultyStore) -> Sessions:
    """Sessions on each of three databases, with tables and the store."""
    return await prepared(database, store)


# --- sources ---------------------------------------------------------------------------------------------------------


async def pieces() -> AsyncIterator[bytes]:
    for start in range(0, len(PDF), 1000):
        yield PDF[start : start + 1000]


def upload(filename: str | None = "a.pdf", content_type: str = "application/pdf") -> UploadFile:
    return UploadFile(io.BytesIO(PDF), filename=filename, headers=Headers({"content-type": content_type}))


@pytest.mark.parametrize(
    ("source", "filename", "mimetype"),
    [
        (PDF, "file", "application/octet-stream"),
        (bytearray(PDF), "file", "application/octet-stream"),
        (memoryview(PDF), "file", "application/octet-stream"),
        (io.BytesIO(PDF), "file", "application/octet-stream"),
        (upload(), "a.pdf", "application/pdf"),
        (upload("a.pdf", "Text/HTML; charset=utf-8"), "a.pdf", "text/html"),
        (upload("../../a.csv", "application/octet-stream"), "a.csv", "text/csv"),
        (upload("a\r\nb: c.pdf", "x\r\ny: z"), "a b_ c.pdf", "application/pdf"),
        (upload("x" * 300 + ".pdf"), "x" * 196 + ".pdf", "application/pdf"),
        (upload(""), "file", "application/pdf"),
        (upload(None), "file", "application/pdf"),
    ],
)
async def test_sources(source: Any, filename: str, mimetype: str) -> None:
    """The name and the type of an upload are cleaned; a missing or generic type is guessed from the name."""
    file = await StoredFile.from_file(source)
    assert (file.filename, file.mimetype, file.size) == (filename, mimetype, len(PDF))
    assert await file.read() == PDF


async def test_a_stream_and_a_path(tmp_path: Path) -> None:
    """An iterator has no name, and a file on disk has the name of its path, whoever opens it."""
    path = tmp_path / "Märchen.TXT"
    path.write_bytes(PDF)
    streamed = await StoredFile.from_file(pieces())
    assert (streamed.filename, await streamed.read()) == ("file", PDF)
    for found in (await StoredFile.from_path(path), await StoredFile.from_path(str(path))):
        assert (found.filename, found.mimetype, await found.read()) == ("Märchen.TXT", "text/plain", PDF)
    with path.open("rb") as opened:
        found = await StoredFile.from_file(opened, mimetype="application/pdf")
        assert (found.filename, found.mimetype, await found.read()) == ("Märchen.TXT", "application/pdf", PDF)
        assert not opened.closed
    named = await StoredFile.from_path(path, filename="other.pdf")
    assert (named.filename, named.mimetype) == ("other.pdf", "application/pdf")
    with pytest.raises(FileNotFoundError):
        await StoredFile.from_path(tmp_path / "none")


async def test_responses_and_parts() -> None:
    """Responses of httpx and aiohttp, and a part of a form of aiohttp, have a name and a type, too."""
    found: list[StoredFile] = []

    async def receive(request: web.Request) -> web.Response:
        part = await (await request.multipart()).next()
        found.append(await StoredFile.from_file(part))  # type: ignore[arg-type]
        return web.Response()

    async def send(request: web.Request) -> web.Response:
        headers = {"Content-Disposition": 'attachment; filename="named.csv"'} if request.query else {}
        return web.Response(body=PDF, content_type="application/pdf", headers=headers)

    app = web.Application()
    app.add_routes([web.post("/", receive), web.get("/files/{name}", send)])
    async with TestServer(app) as server, ClientSession() as client:
        form = FormData()
        form.add_field("file", PDF, filename="part.pdf", content_type="application/pdf")
        await (await client.post(server.make_url("/"), data=form)).release()
        for path in ("/files/My%20scan.pdf", "/files/x?named=1"):
            async with client.get(server.make_url(path)) as response:
                found.append(await StoredFile.from_file(response))
        async with httpx.AsyncClient() as other, other.stream("GET", str(server.make_url("/files/y.pdf"))) as answer:
            found.append(await StoredFile.from_file(answer))
    assert [file.filename for file in found] == ["part.pdf", "My scan.pdf", "named.csv", "y.pdf"]
    assert {file.mimetype for file in found} == {"application/pdf"}
    assert [await file.read() for file in found] == [PDF] * 4


async def test_too_large() -> None:
    """A source that exceeds the limit is refused, and at most one chunk more is read."""
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        while True:
            read += 1000
            yield bytes(1000)

    for source in (endless(), PDF):
        with pytest.raises(ValueTooLargeError) as info:
            await StoredFile.from_file(source, max_size=5000)
        assert info.value.limit == 5000
    assert read <= 7000
    with pytest.raises(DeclarationError, match="max_size"):
        await StoredFile.from_file(PDF, max_size=-1)


async def test_the_column_has_a_limit(sessions: Sessions, store: FaultyStore) -> None:
    """A file that exceeds the limit is refused in the flush, before anything is put."""
    async with sessions() as session:
        session.add(Letter(id=1, stamp=await StoredFile.from_blob(bytes(1001), filename="x")))
        with pytest.raises(ValueTooLargeError, match=r"letter\.stamp"):
            await session.flush()
    assert store.counts["put"] == 0


async def test_a_source_that_fails(sessions: Sessions, store: FaultyStore) -> None:
    """The error propagates, and neither the row nor the store is changed."""

    async def broken() -> AsyncIterator[bytes]:
        yield bytes(SPOOL_MEMORY + 1)
        raise ConnectionResetError("gone")

    async with sessions() as session, session.begin():
        session.add(row := Letter(id=1))
        with pytest.raises(ConnectionResetError):
            row.scan = await StoredFile.from_file(broken())
    async with sessions() as session:
        assert (await session.get_one(Letter, 1)).scan is None
    assert await store.names() == set()


async def test_reading_is_cancelled() -> None:
    """A cancelled upload ends immediately."""
    waiting = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield bytes(1000)
        waiting.set()
        await asyncio.Event().wait()

    task = asyncio.ensure_future(StoredFile.from_file(slow()))
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


# --- rows ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("filename", ["Invoice 7.pdf", "日本語 🎉.html", "x" * 300 + ".svg", "%2e%2e#?&=+;'.txt"])
async def test_the_row_contains_the_metadata(each_sessions: Sessions, store: FaultyStore, filename: str) -> None:
    """Name, type, size, checksum and time are read from the row with each database; the store has the bytes."""
    async with each_sessions() as session, session.begin():
        file = await StoredFile.from_blob(PDF, filename=filename, mimetype="application/x-anything")
        session.add(Letter(id=1, scan=file))
    found = await scan_of(each_sessions)
    assert found == file
    assert hash(found) == hash(file)
    assert (found.filename, found.mimetype, found.size) == (file.filename, "application/x-anything", len(PDF))
    assert found.sha256 == (await Spool.fill(PDF)).sha256
    assert found.created_at is not None
    assert abs(found.created_at - datetime.now(UTC)) < timedelta(minutes=5)
    assert (store.counts["put"], store.counts["get"]) == (1, 0)
    assert {found.name} == await store.names()
    assert await found.read() == PDF
    async with each_sessions() as session, session.begin():
        await session.delete(await session.get_one(Letter, 1))
    assert await store.names() == set()


async def test_an_empty_file(sessions: Sessions, store: FaultyStore) -> None:
    """An empty file is stored like any other."""
    await attach(sessions, b"", "empty.txt")
    found = await scan_of(sessions)
    assert (found.size, bool(found), found.filename) == (0, False, "empty.txt")
    assert await found.read() == b""
    assert len(await store.names()) == 1


async def test_reading(sessions: Sessions, store: FaultyStore) -> None:
    """A file is read as a stream, in chunks, as bytes, or loaded into a spool that no longer needs the store."""
    await attach(sessions)
    found = await scan_of(sessions)
    async with await found.open() as file:
        assert await file.read(8) == PDF[:8]
    assert [len(chunk) async for chunk in found.chunks(4000)] == [4000, 4000, len(PDF) - 8000]
    with pytest.raises(NotLoadedError):
        _ = found.value
    spool = await found.load()
    gets = store.counts["get"]
    assert bytes(spool.view) == PDF
    assert (found.loaded, found.value, await found.load()) == (True, spool, spool)
    assert await found.read() == PDF
    assert [chunk async for chunk in found.chunks()] == [PDF]
    assert store.counts["get"] == gets
    assert await found.read(store) == PDF
    assert store.counts["get"] == gets + 1
    async with sessions() as session:
        rows = list(await session.scalars(select(Letter)))
        await load_stored(rows, Letter.scan, Letter.stamp)
        assert [bytes(row.scan.value.view) for row in rows if row.scan is not None] == [PDF]


async def test_before_the_flush(sessions: Sessions) -> None:
    """A file that is not stored yet can be read and described, but not located or pickled."""
    file = await StoredFile.from_blob(PDF, filename="a.pdf")
    assert (file.name, file.created_at, file.loaded) == (None, None, True)
    assert [chunk async for chunk in file.chunks()] == [PDF]
    with pytest.raises(OffloadError, match="flush"):
        file.locate()
    with pytest.raises(OffloadError, match="flush"):
        pickle.dumps(file)
    assert file == await StoredFile.from_blob(PDF, filename="a.pdf")
    assert file != await StoredFile.from_blob(PDF, filename="b.pdf")
    assert file != await StoredFile.from_blob(PDF, filename="a.pdf", mimetype="text/plain")
    assert file != await StoredFile.from_blob(PDF + b"x", filename="a.pdf")
    assert file != PDF
    assert file != StoredBinary(PDF)


async def test_pickled(sessions: Sessions) -> None:
    """A pickled handle of a stored file has the metadata in the row, without the bytes."""
    await attach(sessions)
    found = await scan_of(sessions)
    await found.load()
    again = pickle.loads(pickle.dumps(found))
    assert (again.filename, again.mimetype, again.size, again.loaded) == (
        "Invoice 7.pdf",
        "application/pdf",
        len(PDF),
        False,
    )


async def test_replaced(each_sessions: Sessions, store: FaultyStore) -> None:
    """An equal file changes nothing; another name, type or content replaces the file after the commit."""
    await attach(each_sessions)
    for change, puts in (
        ({"blob": PDF}, 1),
        ({"filename": "b.pdf"}, 2),
        ({"filename": "b.pdf", "mimetype": "text/plain"}, 3),
        ({"filename": "b.pdf", "mimetype": "text/plain", "blob": b"x"}, 4),
    ):
        before = await store.names()
        async with each_sessions() as session, session.begin():
            row = await session.get_one(Letter, 1)
            arguments: dict[str, Any] = {"blob": PDF, "filename": "Invoice 7.pdf", **change}
            row.scan = await StoredFile.from_blob(**arguments)
            await session.flush()
            assert before <= await store.names()
        assert store.counts["put"] == puts
        assert (await store.names() == before) is (puts == 1)
        assert len(await store.names()) == 1
    async with each_sessions() as session, session.begin():
        (await session.get_one(Letter, 1)).scan = None
    assert await store.names() == set()


async def test_rolled_back(each_sessions: Sessions, store: FaultyStore) -> None:
    """After a rollback, also of a savepoint, or an error of the store, no file is left; the handle stays usable."""
    file = await StoredFile.from_blob(PDF, filename="a.pdf")
    async with each_sessions() as session:
        session.add(unsaved := Letter(id=1, scan=file))
        await session.flush()
        assert len(await store.names()) == 1
        await session.rollback()
    assert await store.names() == set()
    assert unsaved.scan is not None
    assert await unsaved.scan.read() == PDF
    async with each_sessions() as session, session.begin():
        session.add(row := Letter(id=1, scan=file))
        await session.flush()
        kept = await store.names()
        nested = await session.begin_nested()
        row.scan = await StoredFile.from_blob(b"other", filename="other.txt")
        await session.flush()
        assert len(await store.names()) == 2
        await nested.rollback()
    assert await store.names() == kept
    assert await (await scan_of(each_sessions)).read() == PDF
    store.at("put", fails)
    async with each_sessions() as session:
        (await session.get_one(Letter, 1)).scan = await StoredFile.from_blob(b"other", filename="other.txt")
        with pytest.raises(StoreUnavailableError):
            await session.commit()
    assert await store.names() == kept
    assert await (await scan_of(each_sessions)).read() == PDF


async def test_copied_to_another_row(sessions: Sessions, store: FaultyStore) -> None:
    """Each row has its own file, with the same name, type and bytes."""
    await attach(sessions, bytes(SPOOL_MEMORY + 1), "large.pdf")
    async with sessions() as session, session.begin():
        first = await session.get_one(Letter, 1)
        session.add(Letter(id=2, scan=first.scan))
    one, two = await scan_of(sessions, 1), await scan_of(sessions, 2)
    assert one == two
    assert one.name != two.name
    assert (two.filename, two.size) == ("large.pdf", SPOOL_MEMORY + 1)
    async with sessions() as session, session.begin():
        await session.delete(await session.get_one(Letter, 1))
    assert await store.names() == {two.name}
    assert len(await two.read()) == SPOOL_MEMORY + 1
    async with sessions() as session:
        session.add(Letter(id=3, stamp=(await session.get_one(Letter, 2)).scan))
        with pytest.raises(ValueTooLargeError):
            await session.flush()


async def test_a_damaged_file(sessions: Sessions, store: FaultyStore) -> None:
    """Altered bytes, a lost file, and a row that names another column's file are errors."""
    await attach(sessions)
    found = await scan_of(sessions)
    assert found.name is not None
    await store.delete_object(found.name)
    with pytest.raises(StoreFileNotFoundError):
        await found.read()
    await store.put_object(found.name, bytes(len(PDF)))
    with pytest.raises(DamagedValueError):
        await found.load()
    assert not found.loaded
    async with sessions() as session, session.begin():
        await session.execute(text("UPDATE letter SET stamp = scan"))
    async with sessions() as session:
        stamp = (await session.get_one(Letter, 1)).stamp
        assert stamp is not None
        with pytest.raises(DamagedValueError):
            _ = stamp.filename
        assert repr(stamp) == "<StoredFile, damaged>"


# --- declarations ----------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("error")
async def test_other_values_are_refused() -> None:
    """Bytes, uploads and calls that were not awaited are refused with an error that names the right call."""
    row = Letter(id=1)
    for value in (PDF, upload(), StoredFile.from_blob(PDF, filename="x"), "text"):
        with pytest.raises(DeclarationError, match=r"await StoredFile\.from_file"):
            row.scan = value  # type: ignore[assignment]
    with pytest.raises(DeclarationError, match="expected a StoredFile"):
        row.scan = StoredText("text")  # type: ignore[assignment]
    assert row.scan is None
    for argument in ("filename", "mimetype"):
        with pytest.raises(DeclarationError, match=f"{argument}: expected a str, got PosixPath"):
            await StoredFile.from_file(PDF, **{argument: Path("a.pdf")})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options", [{"compression": "gzip"}, {"inline_below": 10}, {"dedupe": True}, {"default": b"x"}]
)
def test_invalid_options(options: dict[str, Any]) -> None:
    """Invalid options are refused when the column is declared."""
    with pytest.raises(DeclarationError, match="attached files"):
        stored(StoredFile, **options)


def test_columns() -> None:
    """The column is wide enough for any name, and can be optional in a dataclass."""

    class DataBase(MappedAsDataclass, DeclarativeBase):
        pass

    class Ticket(DataBase):
        __tablename__ = "ticket"
        id: Mapped[int] = mapped_column(primary_key=True)
        proof: Mapped[StoredFile | None] = stored_file(default=None)

    assert Ticket(id=1).proof is None
    assert repr(Ticket.__table__.c.proof.type) == "String(length=512)"
    assert Ticket.__table__.c.proof.index


async def test_sqlmodel(sqlite_database: Database, store: FaultyStore) -> None:
    """A model of SQLModel can have a file."""

    class Receipt(SQLModel, table=True):
        metadata = MetaData()
        model_config = ConfigDict(arbitrary_types_allowed=True)  # type: ignore[assignment]

        id: int | None = Field(default=None, primary_key=True)
        scan: StoredFile | None = Field(default=None, sa_column=stored_file(name="scan").column)  # type: ignore[attr-defined]

    sessions = await started(sqlite_database, Receipt.metadata, store, expire_on_commit=False)
    async with sessions() as session, session.begin():
        session.add(Receipt(id=1, scan=await StoredFile.from_blob(PDF, filename="a.pdf")))
    async with sessions() as session:
        found = (await session.get_one(Receipt, 1)).scan
        assert found is not None
        assert (found.filename, await found.read()) == ("a.pdf", PDF)


async def test_a_column_of_bytes_is_changed_to_files(sqlite_database: Database, store: FaultyStore) -> None:
    """Values that were stored as bytes can be read as files, and are replaced by attached ones."""

    class OldBase(DeclarativeBase):
        pass

    class Before(OldBase):
        __tablename__ = "letter"
        id: Mapped[int] = mapped_column(primary_key=True)
        title: Mapped[str | None] = mapped_column(String(40))
        scan: Mapped[StoredBinary | None] = stored_binary()
        stamp: Mapped[StoredBinary | None] = stored_binary(inline_below=100)

    sessions = await prepared(sqlite_database, store)
    async with sessions() as session, session.begin():
        session.add(Before(id=1, scan=StoredBinary(PDF), stamp=StoredBinary(b"small")))
    async with sessions() as session, session.begin():
        row = await session.get_one(Letter, 1)
        assert row.scan is not None
        assert row.stamp is not None
        assert (row.scan.filename[-4:], row.scan.mimetype) == (".bin", "application/octet-stream")
        assert row.scan.headers["Content-Length"] == str(len(PDF))
        assert await row.scan.read() == PDF
        assert (row.stamp.filename, await row.stamp.read()) == ("file", b"small")
        session.add(copy := Letter(id=2, scan=row.scan, stamp=row.stamp))
        assert copy.stamp == row.stamp
        assert bytes((await row.stamp.load()).view) == b"small"
        row.stamp = await StoredFile.from_file(await row.stamp.open(), filename="small.txt")
    assert await (await scan_of(sessions, 2)).read() == PDF
    async with sessions() as session:
        stamp = (await session.get_one(Letter, 2)).stamp
        assert stamp is not None
        assert (stamp.filename, await stamp.read()) == ("file", b"small")
        stamp = (await session.get_one(Letter, 1)).stamp
        assert stamp is not None
        assert (stamp.filename, await stamp.read()) == ("small.txt", b"small")


async def test_pydantic(sessions: Sessions, store: FaultyStore) -> None:
    """A response model has the URL, name, type and size, and accepts only handles."""

    class LetterOut(BaseModel):
        model_config = ConfigDict(from_attributes=True, arbitrary_types_allowed=False)

        id: int
        scan: StoredFile | None
        stamp: StoredFile | None

    await attach(sessions)
    async with sessions() as session:
        row = await session.get_one(Letter, 1)
        found = LetterOut.model_validate(row).model_dump(mode="json")
        assert row.scan is not None
        assert found == {
            "id": 1,
            "scan": {
                "url": row.scan.locate(),
                "filename": "Invoice 7.pdf",
                "mimetype": "application/pdf",
                "size": len(PDF),
            },
            "stamp": None,
        }
    schema = TypeAdapter(StoredFile).json_schema(mode="serialization")
    assert (schema["type"], sorted(schema["required"])) == ("object", ["filename", "mimetype", "size", "url"])
    with pytest.raises(ValueError, match="StoredFile"):
        LetterOut(id=1, scan=b"bytes", stamp=None)  # type: ignore[arg-type]
