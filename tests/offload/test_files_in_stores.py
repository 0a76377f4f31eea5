"""Attached files in a directory and a bucket: URLs, serving, maintenance, memory, and killed processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from sqlalchemy import text

from aioimageattach.exc import DeclarationError
from aioimageattach.maintenance import sweep, verify
from aioimageattach.migration import migrate, retire
from aioimageattach.offload import StoredFile, load_stored
from aioimageattach.store import KeyedStore
from aioimageattach.stores import MemoryStore
from aioimageattach.stores.fs import FileSystemStore, HttpExposedFileSystemStore
from tests.databases import Database
from tests.offload.letters import PDF, Letter, attach, prepared, scan_of
from tests.servers.gate import ACCESS_KEY, SECRET_KEY, Gate
from tests.servers.nginx import nginx_before, store_directory
from tests.stores.s3.conftest import BUCKET, REGION, MakeStore
from tests.stores.s3.conftest import gate as gate
from tests.stores.s3.conftest import make_store as make_store
from tests.stores.s3.conftest import s3_server as s3_server

HOSTILE = ["日本語 🎉 100%.pdf", "a+b&c=d;e#f.txt", "../../x", "evil.html", "x" * 300 + ".svg", "CON"]
NGINX, NGINX_HTTP, NGINX_FILES = (
    (Path(__file__).parents[2] / "docs" / "howto" / f"{name}.conf").read_text()
    for name in ("nginx", "nginx-http", "nginx-files")
)
SECRET = "a secret of many bytes"


@pytest.fixture(params=["directory", "bucket"])
async def real_store(request: pytest.FixtureRequest, tmp_path: Path, gate: Gate, make_store: MakeStore) -> KeyedStore:
    """A store in a directory, and one in a bucket."""
    if request.param == "bucket":
        return make_store(gate.url, url_expires_in=3600)
    return FileSystemStore(tmp_path / "files", "http://test/")


async def names(store: KeyedStore) -> set[str]:
    return {info.name async for info in store.list_objects() if not info.name.startswith(".")}


@pytest.mark.parametrize("filename", HOSTILE)
async def test_each_store(sqlite_database: Database, real_store: KeyedStore, filename: str) -> None:
    """Under any name, a file is stored, read, listed, replaced and deleted."""
    sessions = await prepared(sqlite_database, real_store)
    await attach(sessions, PDF, filename)
    found = await scan_of(sessions)
    assert await names(real_store) == {found.name}
    assert await found.read() == PDF
    assert [chunk async for chunk in found.chunks(5000)] == [PDF[:5000], PDF[5000:10000], PDF[10000:]]
    async with sessions() as session, session.begin():
        (await session.get_one(Letter, 1)).scan = await StoredFile.from_blob(b"", filename=filename)
    assert await names(real_store) == {(await scan_of(sessions)).name}
    async with sessions() as session, session.begin():
        await session.delete(await session.get_one(Letter, 1))
    assert await names(real_store) == set()


@pytest.mark.parametrize("filename", HOSTILE)
async def test_urls_of_a_bucket(sqlite_database: Database, gate: Gate, make_store: MakeStore, filename: str) -> None:
    """A signed URL returns the file with a type that no browser runs; a download has its name, or another one."""
    sessions = await prepared(sqlite_database, make_store(gate.url, url_expires_in=3600))
    await attach(sessions, PDF, filename)
    found = await scan_of(sessions)
    async with httpx.AsyncClient() as client:
        shown = await client.get(found.locate())
        assert (shown.status_code, shown.content) == (200, PDF)
        assert shown.headers["content-type"] == found.headers["Content-Type"]
        assert shown.headers["content-disposition"] == "attachment"
        saved = await client.get(found.locate(download=True))
        assert (saved.status_code, saved.content) == (200, PDF)
        assert saved.headers["content-disposition"] == found.headers["Content-Disposition"]
        other = await client.get(found.locate(download="other.pdf"))
        assert 'filename="other.pdf"' in other.headers["content-disposition"]
    with pytest.raises(ValueError, match="download"):
        found.locate(download="")


async def served(store: HttpExposedFileSystemStore, url: str, **headers: str) -> httpx.Response:
    transport = httpx.ASGITransport(store.server)
    async with httpx.AsyncClient(transport=transport) as client:
        return await client.get(url.replace("/__images__", ""), headers=headers)


def exposed(tmp_path: Path, **options: Any) -> HttpExposedFileSystemStore:
    return HttpExposedFileSystemStore(tmp_path / "files", host_url_getter=lambda: "http://test/", **options)


@pytest.mark.parametrize("filename", HOSTILE)
@pytest.mark.parametrize("signed", [False, True])
async def test_urls_of_a_directory(sqlite_database: Database, tmp_path: Path, filename: str, signed: bool) -> None:
    """The server of the application sends a file as a download, with a type that no browser runs."""
    store = exposed(tmp_path, url_secret=SECRET if signed else None)
    sessions = await prepared(sqlite_database, store)
    await attach(sessions, PDF, filename)
    found = await scan_of(sessions)
    response = await served(store, found.locate())
    assert (response.status_code, response.content) == (200, PDF)
    for header in ("Content-Type", "Content-Length", "Content-Disposition", "X-Content-Type-Options"):
        assert response.headers[header] == found.headers[header]
    assert "sandbox" in response.headers["content-security-policy"]
    part = await served(store, found.locate(), range="bytes=5-9")
    assert (part.status_code, part.content) == (206, PDF[5:10])
    assert (await served(store, found.locate(), **{"if-none-match": response.headers["etag"]})).status_code == 304
    if signed:
        saved = await served(store, found.locate(download="other.pdf"))
        assert 'filename="other.pdf"' in saved.headers["content-disposition"]
        assert (await served(store, found.locate().partition("?")[0])).status_code == 403
    else:
        with pytest.raises(DeclarationError, match="url_secret"):
            found.locate(download=True)


async def test_pictures_are_displayed(sqlite_database: Database, tmp_path: Path) -> None:
    """An attached image may be displayed, and active content behind its extension cannot run."""
    store = exposed(tmp_path)
    sessions = await prepared(sqlite_database, store)
    await attach(sessions, b"<script>alert(1)</script>", "cat.PNG")
    response = await served(store, (await scan_of(sessions)).locate())
    assert response.headers["content-type"] == "image/png"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert "content-disposition" not in response.headers


async def test_a_front_end_server_sends_the_file(sqlite_database: Database, tmp_path: Path) -> None:
    """The path in the header is percent-encoded, because web servers decode it."""
    store = exposed(tmp_path, x_accel_redirect="/internal/")
    sessions = await prepared(sqlite_database, store)
    await attach(sessions, PDF, "日本語 1%.pdf")
    found = await scan_of(sessions)
    response = await served(store, found.locate())
    path = response.headers["x-accel-redirect"]
    assert path.endswith("/%E6%97%A5%E6%9C%AC%E8%AA%9E%201%25.pdf")
    assert response.headers["content-disposition"] == found.headers["Content-Disposition"]


async def test_nginx(sqlite_database: Database) -> None:
    """With the configuration in the guide, browsers save each file under its name, and other names are not served."""
    server = f"{NGINX} {NGINX_FILES}"
    with store_directory() as root, nginx_before("http://127.0.0.1:1", root, server, NGINX_HTTP) as url:
        store = FileSystemStore(root, f"{url}/images/")
        sessions = await prepared(sqlite_database, store)
        async with httpx.AsyncClient() as client:
            for number, filename in enumerate(HOSTILE, 1):
                async with sessions() as session, session.begin():
                    session.add(Letter(id=number, scan=await StoredFile.from_blob(PDF, filename=filename)))
                found = await scan_of(sessions, number)
                response = await client.get(found.locate())
                assert (response.status_code, response.content) == (200, PDF)
                assert response.headers["content-disposition"] == "attachment"
                assert response.headers["x-content-type-options"] == "nosniff"
                assert "sandbox" in response.headers["content-security-policy"]
                assert response.headers["content-type"] == "application/octet-stream"
                name = found.name or ""
                for other in (name.replace("~", "."), name.rpartition("/")[0] + "/", name.replace("letter", ".letter")):
                    assert (await client.get(store.base_url + quote(other))).status_code == 404


@pytest.mark.parametrize(
    "change",
    [
        lambda name: name.replace("Invoice", "In\u202evoice"),
        lambda name: name.replace("Invoice", "In:voice"),
        lambda name: name.replace("letter.scan", "con"),
        lambda name: name.replace("letter.scan", ".letter"),
        lambda name: name.replace("Invoice", "x" * 400),
        lambda name: name.replace("pdf/", "pdf/../"),
        lambda name: name.replace("~", "/"),
    ],
)
async def test_other_paths(sqlite_database: Database, tmp_path: Path, change: Callable[[str], str]) -> None:
    """A path that this library cannot have generated is not looked up."""
    store = exposed(tmp_path)
    sessions = await prepared(sqlite_database, store)
    await attach(sessions)
    name = (await scan_of(sessions)).name or ""
    path = tmp_path / "files" / change(name)
    if len(path.name) < 255:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"secret")
    response = await served(store, store.base_url + change(name))
    assert response.status_code == 404


# --- maintenance -----------------------------------------------------------------------------------------------------


async def test_maintenance(database: Database, real_store: KeyedStore) -> None:
    """Verification, sweep and migration include the files, and copies have the same names and types."""
    sessions = await prepared(database, real_store)
    await attach(sessions, PDF, "日本語.pdf")
    async with sessions() as session, session.begin():
        session.add(Letter(id=2, scan=await StoredFile.from_blob(b"gone", filename="gone.html")))
    kept = (await scan_of(sessions)).name
    orphan = (await scan_of(sessions, 2)).name
    async with sessions() as session, session.begin():
        await session.execute(text("DELETE FROM letter WHERE id = 2"))
    assert kept is not None
    assert orphan is not None
    assert [one async for one in verify(sessions, Letter, real_store, deep=True)] == []
    swept = [one.name async for one in sweep(sessions, Letter, real_store, grace=timedelta(0), delete=True, force=True)]
    assert swept == [orphan]
    assert await names(real_store) == {kept}
    other = MemoryStore()
    await migrate(sessions, Letter, real_store, other).execute()
    assert await names(other) == {kept}
    assert other._files[kept][0] == PDF
    async with sessions() as session:
        rows = [await session.get_one(Letter, 1)]
        await load_stored(rows, Letter.scan, store=other)
    await retire(sessions, Letter, real_store, other, delete=True).execute()
    assert await names(real_store) == set()
    await other.delete_object(kept)
    [mismatch] = [one async for one in verify(sessions, Letter, other)]
    assert (mismatch.problem, mismatch.reference.name, mismatch.reference.mimetype) == (
        "missing",
        kept,
        "application/pdf",
    )


# --- processes -------------------------------------------------------------------------------------------------------

PROGRAM = """
import asyncio, json, os, signal, sys

from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from aioimageattach.context import bind_store
from aioimageattach.offload import StoredFile
from aioimageattach.stores.fs import FileSystemStore
from aioimageattach.stores.s3 import S3Store
from tests.offload.letters import Letter

MEBIBYTE = 1024 * 1024
url, where, task = sys.argv[1:]
where = json.loads(where)
store = S3Store(**where) if "bucket" in where else FileSystemStore(**where)

def memory(name):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(name)) / 1024

async def stream(mebibytes):
    for number in range(mebibytes):
        yield bytes([number % 256]) * MEBIBYTE

async def attach(sessions, number, mebibytes):
    async with sessions() as session:
        file = await StoredFile.from_file(stream(mebibytes), filename="large.mov")
        session.add(Letter(id=number, scan=file))
        await session.flush()
        if task == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        await session.commit()

async def read(sessions, number):
    async with sessions() as session:
        file = (await session.get_one(Letter, number)).scan
        return sum([len(chunk) async for chunk in file.chunks()])

async def main():
    engine = create_async_engine(url)
    sessions = async_sessionmaker(engine, expire_on_commit=False)
    bind_store(sessions, store)
    await attach(sessions, 1, 20)
    await read(sessions, 1)
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    before = memory("VmRSS")
    await attach(sessions, 2, 200)
    size = await read(sessions, 2)
    print(json.dumps([size, memory("VmHWM") - before]))
    await engine.dispose()
    if hasattr(store, "aclose"):
        await store.aclose()

asyncio.run(main())
"""


def place_of(store: KeyedStore, gate: Gate) -> str:
    if isinstance(store, FileSystemStore):
        return json.dumps({"path": store.path, "base_url": "http://test/"})
    keys = {"access_key": ACCESS_KEY, "secret_key": SECRET_KEY}
    return json.dumps({"bucket": BUCKET, "region": REGION, "endpoint_url": gate.url, **keys})


def run(database: Database, store: KeyedStore, gate: Gate, task: str) -> subprocess.CompletedProcess[str]:
    url = database.url.render_as_string(hide_password=False)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", PROGRAM, url, place_of(store, gate), task]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process's memory can be reset on Linux only")
async def test_a_large_file_takes_little_memory(sqlite_database: Database, real_store: KeyedStore, gate: Gate) -> None:
    """Attaching and reading a stream of 200 MiB takes less than 64 MiB of memory with each store."""
    sessions = await prepared(sqlite_database, real_store)
    done = run(sqlite_database, real_store, gate, "measure")
    assert done.returncode == 0, done.stderr
    size, grown = json.loads(done.stdout)
    assert size == 200 * 1024 * 1024
    assert grown < 64
    found = await scan_of(sessions, 2)
    assert found.name is not None
    assert (await real_store.head_object(found.name)).size == size
    assert found.headers["Content-Type"] == "video/quicktime"


async def test_a_killed_process(database: Database, real_store: KeyedStore, gate: Gate) -> None:
    """A process killed between the flush and the commit leaves a file without a row, which a sweep deletes."""
    sessions = await prepared(database, real_store)
    assert run(database, real_store, gate, "die").returncode < 0
    [left] = await names(real_store)
    async with sessions() as session:
        assert await session.get(Letter, 1) is None
    swept = [one.name async for one in sweep(sessions, Letter, real_store, grace=timedelta(0), delete=True, force=True)]
    assert swept == [left]
    assert await names(real_store) == set()
