"""Async files: sources, proxies and the spool."""

from __future__ import annotations

import asyncio
import copy
import errno
import hashlib
import io
import os
import pickle
import resource
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiofiles
import aiohttp
import anyio
import httpx
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from aioimageattach.exc import DeclarationError, ImageTooLargeError, StoreUnavailableError
from aioimageattach.file import FileProxy, ReusableFileProxy, SeekableFileProxy, Source, Spool
from aioimageattach.file._source import CHUNK, as_reader
from aioimageattach.file._spool import as_blocks, measure
from tests.descriptors import count_all, falls_to, targets
from tests.stores import kernel

SMALL = bytes(range(256)) * 10
LARGE = (os.urandom(499) + b"\n" + os.urandom(500)) * 5500


# Sources: each function opens one with the bytes, and an exit stack closes it

Opener = Callable[[bytes, Path, AsyncExitStack], Awaitable[Any]]


async def _pieces(blob: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(blob), 300_000):
        yield blob[start : start + 300_000]
        yield b""


async def a_file(blob: bytes, path: Path, stack: AsyncExitStack) -> Any:
    path.write_bytes(blob)
    return stack.enter_context(open(path, "rb"))


async def an_unbuffered_file(blob: bytes, path: Path, stack: AsyncExitStack) -> Any:
    path.write_bytes(blob)
    return stack.enter_context(open(path, "rb", buffering=0))


async def a_spooled_temporary_file(blob: bytes, path: Path, stack: AsyncExitStack) -> Any:
    file = tempfile.SpooledTemporaryFile(max_size=1_000_000)  # noqa: SIM115 - closed by the stack
    stack.enter_context(file)
    file.write(blob)
    file.seek(0)
    return file


async def an_aiofiles_file(blob: bytes, path: Path, stack: AsyncExitStack) -> Any:
    path.write_bytes(blob)
    return await stack.enter_async_context(aiofiles.open(path, "rb"))


async def an_anyio_file(blob: bytes, path: Path, stack: AsyncExitStack) -> Any:
    path.write_bytes(blob)
    return await stack.enter_async_context(await anyio.open_file(path, "rb"))


async def an_upload(blob: bytes, path: Path, stack: AsyncExitStack) -> Any:
    """Return an upload as Starlette creates it from a form."""
    uploads: list[UploadFile] = []

    async def receive(request: Request) -> Response:
        form = await request.form()
        upload = form["picture"]
        assert isinstance(upload, UploadFile)
        uploads.append(upload)
        stack.push_async_callback(upload.close)
        return Response()

    app = Starlette(routes=[Route("/", receive, methods=["POST"])])
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
        await client.post("/", files={"picture": ("p.jpg", blob)})
    return uploads[0]


async def _aiohttp_response(blob: bytes, stack: AsyncExitStack) -> aiohttp.ClientResponse:
    async def serve(request: web.Request) -> web.Response:
        return web.Response(body=blob)

    app = web.Application()
    app.router.add_get("/", serve)
    runner = web.AppRunner(app)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    session = await stack.enter_async_context(aiohttp.ClientSession())
    host, port = runner.addresses[0][:2]
    return await stack.enter_async_context(session.get(f"http://{host}:{port}/"))


async def an_aiohttp_response(blob: bytes, path: Path, stack: AsyncExitStack) -> Any:
    return await _aiohttp_response(blob, stack)


async def an_aiohttp_stream(blob: bytes, path: Path, stack: AsyncExitStack) -> Any:
    return (await _aiohttp_response(blob, stack)).content


async def _httpx_client(blob: bytes, stack: AsyncExitStack) -> httpx.AsyncClient:
    async def serve(request: Request) -> Response:
        return StreamingResponse(_pieces(blob))

    transport = httpx.ASGITransport(Starlette(routes=[Route("/", serve)]))
    return await stack.enter_async_context(httpx.AsyncClient(transport=transport, base_url="http://app"))


async def an_httpx_response(blob: bytes, path: Path, stack: AsyncExitStack) -> Any:
    return await (await _httpx_client(blob, stack)).get("/")


async def an_httpx_stream(blob: bytes, path: Path, stack: AsyncExitStack) -> Any:
    return await stack.enter_async_context((await _httpx_client(blob, stack)).stream("GET", "/"))


async def an_httpx_iterator(blob: bytes, path: Path, stack: AsyncExitStack) -> Any:
    return (await an_httpx_stream(blob, path, stack)).aiter_bytes()


async def an_async_iterator(blob: bytes, path: Path, stack: AsyncExitStack) -> Any:
    return _pieces(blob)


async def an_async_iterator_of_other_buffers(blob: bytes, path: Path, stack: AsyncExitStack) -> Any:
    async def buffers() -> AsyncIterator[Any]:
        for n, piece in enumerate([p async for p in _pieces(blob)]):
            yield (bytearray, memoryview)[n % 2](piece)

    return buffers()


async def a_bytes(blob: bytes, path: Path, stack: AsyncExitStack) -> Any:
    return blob


async def a_bytearray(blob: bytes, path: Path, stack: AsyncExitStack) -> Any:
    return bytearray(blob)


async def a_memoryview(blob: bytes, path: Path, stack: AsyncExitStack) -> Any:
    return memoryview(blob)


async def a_memoryview_with_gaps(blob: bytes, path: Path, stack: AsyncExitStack) -> Any:
    spread = bytearray(2 * len(blob))
    spread[::2] = blob
    return memoryview(spread)[::2]


async def a_bytes_io(blob: bytes, path: Path, stack: AsyncExitStack) -> Any:
    return io.BytesIO(blob)


async def a_file_proxy(blob: bytes, path: Path, stack: AsyncExitStack) -> Any:
    return FileProxy(io.BytesIO(blob))


async def a_spool_file(blob: bytes, path: Path, stack: AsyncExitStack) -> Any:
    return (await Spool.fill(io.BytesIO(blob))).open()


SOURCES: list[Opener] = [
    a_bytes,
    a_bytearray,
    a_memoryview,
    a_memoryview_with_gaps,
    a_bytes_io,
    a_file,
    an_unbuffered_file,
    a_spooled_temporary_file,
    an_aiofiles_file,
    an_anyio_file,
    an_upload,
    an_aiohttp_response,
    an_aiohttp_stream,
    an_httpx_response,
    an_httpx_stream,
    an_httpx_iterator,
    an_async_iterator,
    an_async_iterator_of_other_buffers,
    a_file_proxy,
    a_spool_file,
]
every_source = pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.__name__)


@every_source
@pytest.mark.parametrize("blob", [b"", SMALL, LARGE], ids=["empty", "small", "large"])
async def test_a_spool_accepts_every_source(source: Opener, blob: bytes, tmp_path: Path) -> None:
    """A spool has the bytes of any source, with their size and checksum, and does not close the source."""
    async with AsyncExitStack() as stack:
        opened = await source(blob, tmp_path / "file", stack)
        spool = await Spool.fill(opened)
        assert getattr(opened, "closed", False) is False or source in {an_aiohttp_response, an_aiohttp_stream}
    assert spool.view == blob
    assert spool.size == len(blob)
    assert spool.sha256 == hashlib.sha256(blob).hexdigest()
    assert spool.on_disk == (len(blob) > 4 * CHUNK and source is not a_bytes)


@every_source
async def test_a_reader_accepts_every_source(source: Opener, tmp_path: Path) -> None:
    """A read returns at most the requested size, and ``b""`` only at the end."""
    async with AsyncExitStack() as stack:
        read = as_reader(await source(SMALL, tmp_path / "file", stack))
        found = []
        while piece := await read(1000):
            assert len(piece) <= 1000
            found.append(piece)
        assert await read(1000) == b""
    assert b"".join(found) == SMALL


async def test_a_proxy_closes_a_generator() -> None:
    """A proxy closes a generator that was not read to its end."""
    held = ["connection"]

    async def pieces() -> AsyncIterator[bytes]:
        try:
            yield SMALL
            yield SMALL
        finally:
            held.clear()

    async with FileProxy(pieces()) as file:
        assert await file.read(1) == SMALL[:1]
    assert held == []


@every_source
async def test_a_proxy_accepts_every_source(source: Opener, tmp_path: Path) -> None:
    """A proxy reads a source and its lines to the end, and closes it; closing twice is not an error."""
    blob = SMALL.replace(b"\n", b"x") + b"\nlast\nline"
    async with AsyncExitStack() as stack:
        async with FileProxy(await source(blob, tmp_path / "file", stack)) as file:
            assert await file.read(10) == blob[:10]
            assert [line async for line in file] == [blob[10:-9], b"last\n", b"line"]
            assert await file.read() == b""
        await file.aclose()
        for call in (file.read(), file.readline()):
            with pytest.raises(ValueError, match="closed"):
                await call


@every_source
async def test_blocks_of_synchronous_sources(source: Opener, tmp_path: Path) -> None:
    """Bytes and synchronous files are read in blocks of at most 1 MiB; an asynchronous source has no blocks."""
    async with AsyncExitStack() as stack:
        blocks = as_blocks(await source(LARGE, tmp_path / "file", stack))
        if source in SOURCES[:8] or source is a_spool_file:
            assert blocks is not None
            found = await asyncio.to_thread(list, blocks)
            assert max(map(len, found)) <= CHUNK
            assert b"".join(found) == LARGE
        else:
            assert blocks is None


async def _texts() -> AsyncIterator[Any]:
    yield "text"


class _Odd:
    """A file whose ``read`` returns an invalid type."""

    def __init__(self, given: object) -> None:
        self.given = given

    def read(self, size: int = -1, /) -> Any:
        return self.given() if callable(self.given) else self.given


async def _read_bytes() -> bytes:
    return b""


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: io.StringIO("text"), "str"),
        (lambda: io.StringIO(""), "str"),
        (lambda: _texts(), "str"),
        (lambda: _Odd(None), "NoneType"),
        (lambda: _Odd([1]), "list"),
        (lambda: _Odd(_read_bytes), "coroutine"),
        (lambda: "path/to/picture.jpg", "str: open the path and pass the file"),
        (lambda: Path("picture.jpg"), "Path: open the path and pass the file"),
        (lambda: None, "NoneType: see Source"),
        (lambda: 7, "int: see Source"),
        (lambda: [b"a list"], "list: see Source"),
    ],
)
async def test_invalid_sources_are_refused(make: Callable[[], Any], named: str) -> None:
    """Strings, paths and other objects are rejected with an error that names their type."""
    for read in (lambda source: Spool.fill(source), lambda source: FileProxy(source).read()):
        with pytest.raises(DeclarationError, match=named):
            await read(make())


# Reading


def _split(blob: bytes, sizes: list[int]) -> Iterator[bytes]:
    for size in sizes:
        yield blob[:size]
        blob = blob[size:]
    yield blob


steps = st.lists(
    st.tuples(st.sampled_from(["read", "readline", "seek", "tell", "readlines"]), st.integers(-1, 40)), max_size=12
)


@settings(deadline=None, max_examples=60)
@given(blob=st.text("ab\n", max_size=80).map(str.encode), calls=steps)
async def test_a_seekable_proxy_behaves_like_bytesio(blob: bytes, calls: list[tuple[str, int]]) -> None:
    """Any sequence of calls gives the same results as with ``io.BytesIO``."""
    model = io.BytesIO(blob)
    files = [SeekableFileProxy(io.BytesIO(blob)), (await Spool.fill(blob)).open()]
    for name, number in calls:
        arguments = {"tell": (), "seek": (abs(number),)}.get(name, (number,))
        expected = getattr(model, name)(*arguments)
        for file in files:
            assert await getattr(file, name)(*arguments) == expected


@settings(deadline=None, max_examples=60)
@given(
    blob=st.text("ab\n", max_size=80).map(str.encode),
    sizes=st.lists(st.integers(0, 9), max_size=12),
    calls=st.lists(st.tuples(st.sampled_from(["read", "readline"]), st.integers(-1, 40)), max_size=12),
)
async def test_reads_and_lines_return_all_bytes(blob: bytes, sizes: list[int], calls: list[tuple[str, int]]) -> None:
    """Reads and lines return all bytes in order, for chunks of any size."""

    async def pieces() -> AsyncIterator[bytes]:
        for piece in _split(blob, sizes):
            yield piece

    file = FileProxy(pieces())
    model = io.BytesIO(blob)
    for name, number in calls:
        found = await getattr(file, name)(number)
        if name == "readline" or number < 0:
            assert found == getattr(model, name)(number)
        else:
            assert len(found) <= number
            assert found == model.read(len(found))
            assert found or number == 0 or not model.read(1)
    assert await file.read() == model.read()


async def test_readlines_stops_at_the_hint() -> None:
    """Reading stops after the line that reaches the hint, as in ``io.BytesIO``."""
    blob = b"one\ntwo\nthree\nfour"
    for hint in (-1, 0, 1, 4, 5, 100):
        assert await FileProxy(blob).readlines(hint) == io.BytesIO(blob).readlines(hint)


async def test_chunks() -> None:
    """``chunks`` returns the rest of the file in chunks of at most the given size."""
    file = FileProxy(SMALL)
    await file.read(10)
    found = [chunk async for chunk in file.chunks(1000)]
    assert [len(chunk) for chunk in found] == [1000, 1000, 550]
    assert b"".join(found) == SMALL[10:]


async def test_reading_a_large_file_to_its_end() -> None:
    """All bytes are returned, even after a cancellation while a worker thread was joining them."""
    blob = bytes(range(256)) * (5 * 4096)
    file = FileProxy(io.BytesIO(blob))
    assert await file.read() == blob
    file = FileProxy(io.BytesIO(blob), read=io_reader(blob))
    task = asyncio.create_task(file.read())
    await asyncio.sleep(0)  # every chunk is available without waiting, so only the thread is waited for
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await file.read() == blob


def io_reader(blob: bytes) -> Callable[[int], Awaitable[bytes]]:
    source = io.BytesIO(blob)

    async def read(size: int) -> bytes:
        return source.read(size)

    return read


@pytest.mark.parametrize("method", ["read", "readline"])
async def test_a_cancelled_read_loses_no_bytes(method: str) -> None:
    """Bytes that were read before a cancellation are returned by the next call."""
    go = asyncio.Event()

    class Reader:
        def __init__(self) -> None:
            self.left = [b"first", None, b" line\nrest", b""]

        async def read(self, size: int = -1, /) -> bytes:
            if self.left[0] is None:
                await go.wait()
                self.left.pop(0)
            piece = self.left.pop(0)
            assert piece is not None
            return piece

    file = FileProxy(Reader())
    task = asyncio.create_task(getattr(file, method)())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go.set()
    assert await file.readline() == b"first line\n"


async def test_many_short_lines_are_read_in_linear_time() -> None:
    """The remaining bytes are not copied for each of sixty thousand lines."""
    blob = b"a line of a text\n" * 60_000
    began = time.process_time()
    assert len(await FileProxy(blob).readlines()) == 60_000
    assert time.process_time() - began < 4


async def test_closing_calls_the_given_function() -> None:
    """``aclose`` calls the given function once, instead of the ``close`` of the file."""
    calls: list[str] = []
    wrapped = io.BytesIO(b"x")

    async def close() -> None:
        calls.append("close")

    file = FileProxy(wrapped, close=close)
    await file.aclose()
    await file.aclose()
    assert calls == ["close"]
    assert not wrapped.closed


async def test_a_reusable_proxy_restores_the_position() -> None:
    """Leaving the context does not close the file, and restores the position at which it was entered."""
    wrapped = io.BytesIO(SMALL)
    wrapped.seek(5)
    file = ReusableFileProxy(wrapped)
    for _ in range(2):
        async with file:
            assert file.initial_offset == 5
            assert await file.readline() == SMALL[5 : SMALL.index(b"\n") + 1]
            assert await file.seek(2, os.SEEK_CUR) == SMALL.index(b"\n") + 3
            await file.read(100)
    assert wrapped.tell() == 5
    assert not wrapped.closed


@pytest.mark.parametrize("source", [a_file, an_aiofiles_file, an_anyio_file, a_bytes_io])
async def test_seeking_in_files_of_any_kind(source: Opener, tmp_path: Path) -> None:
    """Positions are correct even after reading lines, which buffers further bytes."""
    blob = b"first\nsecond\nthird"
    async with AsyncExitStack() as stack:
        file = SeekableFileProxy(await source(blob, tmp_path / "file", stack))
        assert await file.readline() == b"first\n"
        assert await file.tell() == 6
        assert await file.seek(7, os.SEEK_CUR) == 13
        assert await file.read() == b"third"
        assert await file.seek(-5, os.SEEK_END) == 13
        await file.aclose()
        for call in (file.seek(0), file.tell()):
            with pytest.raises(ValueError, match="closed"):
                await call


# The spool


def _temporary_files() -> int:
    return sum("/tmp" in target or "deleted" in target for target in targets())


@pytest.mark.parametrize("source", [a_bytes, a_bytearray, a_file, an_async_iterator])
@pytest.mark.parametrize("limit", [0, 1, len(LARGE) - 1])
async def test_a_file_beyond_the_limit(source: Opener, limit: int, tmp_path: Path) -> None:
    """A file that exceeds the limit is rejected while it is read, and no bytes are kept."""
    async with AsyncExitStack() as stack:
        opened = await source(LARGE, tmp_path / "file", stack)
        before = _temporary_files()
        with pytest.raises(ImageTooLargeError, match=f"more than {limit:,} bytes") as caught:
            await Spool.fill(opened, limit=limit)
        assert caught.value.limit == limit
        assert caught.value.actual is not None
        assert limit < caught.value.actual <= (len(LARGE) if source is a_bytes else limit + 2 * CHUNK)
        assert await falls_to(before, _temporary_files)
        if source is a_file:
            assert opened.tell() <= limit + 2 * CHUNK


@pytest.mark.parametrize("source", [a_bytes, a_bytearray, a_file, an_async_iterator])
async def test_a_file_of_exactly_the_limit(source: Opener, tmp_path: Path) -> None:
    """A file whose size equals the limit is accepted."""
    async with AsyncExitStack() as stack:
        spool = await Spool.fill(await source(LARGE, tmp_path / "file", stack), limit=len(LARGE))
    assert spool.size == len(LARGE)


@pytest.mark.parametrize("size", [10, 100_000])
async def test_a_deferred_hash(size: int) -> None:
    """A deferred checksum is calculated once: on first use, or earlier in a thread."""
    blob = bytes(size)
    spool = await Spool.fill(blob, defer_hash=True)
    spool.complete_hash()
    assert (spool.size, spool.sha256) == (size, hashlib.sha256(blob).hexdigest())
    assert (await Spool.fill(blob, defer_hash=True)).sha256 == spool.sha256


async def test_the_checksum_of_a_spool_without_one() -> None:
    """Without ``checksum``, a spool has the bytes, and reading ``sha256`` raises an error."""
    for source in (SMALL, LARGE, io.BytesIO(SMALL), _pieces(LARGE)):
        spool = await Spool.fill(source, checksum=False)
        assert bytes(spool.view) in (SMALL, LARGE)
        with pytest.raises(ValueError, match="expected a spool with a checksum"):
            _ = spool.sha256


async def test_spooled_files_are_independent() -> None:
    """Several files of a spool can be open at different positions, and the bytes are never copied."""
    spool = await Spool.fill(_pieces(LARGE))
    one, other = spool.open(), spool.open()
    assert await one.read(10) == LARGE[:10]
    assert await other.readline() == LARGE[: LARGE.index(b"\n") + 1]
    assert other.take() == LARGE[LARGE.index(b"\n") + 1 :]
    assert await other.read() == b""
    assert await one.tell() == 10
    assert await one.read() == LARGE[10:]
    for offset, whence in ((-1, os.SEEK_SET), (0, 9)):
        with pytest.raises(ValueError, match="expected"):
            await one.seek(offset, whence)
    assert copy.deepcopy(spool) is copy.copy(spool) is spool
    with pytest.raises(TypeError, match="a spool cannot be pickled"):
        pickle.dumps(spool)
    assert repr(spool) == "<Spool of 5,500,000 bytes>"
    await one.aclose()
    with pytest.raises(ValueError, match="closed"):
        one.take()


def test_an_unfilled_spool_has_no_view() -> None:
    """A spool has no bytes before it is filled."""
    with pytest.raises(ValueError, match="expected a filled spool"):
        _ = Spool().view


async def test_a_temporary_file_is_freed_with_its_last_reference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large spool has one unnamed, mapped file for as long as it is referenced."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = count_all()
    spool = await Spool.fill(_pieces(LARGE))
    file = spool.open()
    assert count_all() == before + 1
    del spool
    assert await file.read() == LARGE
    del file
    assert await falls_to(before)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("source", [a_file, an_async_iterator])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
async def test_a_full_temporary_directory(source: Opener, code: int, tmp_path: Path) -> None:
    """The error names the directory and the remedy, and nothing is left behind."""
    async with AsyncExitStack() as stack:
        opened = await source(LARGE, tmp_path / "file", stack)
        before = _temporary_files()
        with (
            kernel.in_the_worker(kernel.refused("write", code)),
            pytest.raises(StoreUnavailableError, match=r"could not be written to .*/.*set TMPDIR"),
        ):
            await Spool.fill(opened)
        assert await falls_to(before, _temporary_files)


async def test_a_partial_write_is_an_error() -> None:
    """A partial write, as on a full disk, is not taken for a complete one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_999_999, hard))
    try:
        with pytest.raises(StoreUnavailableError, match="File too large"):
            await Spool.fill(_pieces(LARGE))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("given_before", [0, 10, len(LARGE)])
async def test_filling_from_a_stream_is_cancelled(given_before: int) -> None:
    """A cancellation leaves nothing in the temporary directory."""
    before = _temporary_files()

    async def hanging() -> AsyncIterator[bytes]:
        yield LARGE[:given_before]
        await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await Spool.fill(hanging())
    assert await falls_to(before, _temporary_files)


async def test_filling_from_an_endless_file_is_cancelled() -> None:
    """The thread is notified, reads at most one more block, and has ended when the call returns."""
    before = _temporary_files()
    reads = 0
    reading = threading.Event()

    class Endless:
        def read(self, size: int = -1, /) -> bytes:
            nonlocal reads
            reads += 1
            reading.set()
            return bytes(10_000)

    task = asyncio.create_task(Spool.fill(Endless()))
    while not reading.is_set():
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    count = reads
    await asyncio.sleep(0.02)
    assert reads == count
    assert await falls_to(before, _temporary_files)


async def test_the_error_of_a_source_propagates() -> None:
    """The error of a failing source is raised unchanged."""
    before = _temporary_files()

    async def broken() -> AsyncIterator[bytes]:
        yield LARGE
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await Spool.fill(broken())
    assert await falls_to(before, _temporary_files)


@pytest.mark.parametrize("kind", [bytes, memoryview, io.BytesIO])
async def test_hashing_does_not_block_the_event_loop(kind: Callable[[bytes], Any]) -> None:
    """The event loop runs many iterations while 30 megabytes are spooled."""
    rounds = 0

    async def go_round() -> None:
        nonlocal rounds
        while True:
            await asyncio.sleep(0)
            rounds += 1

    other = asyncio.create_task(go_round())
    await Spool.fill(kind(bytes(30_000_000)))
    other.cancel()
    assert rounds > 50


def test_sources_are_typed(tmp_path: Path) -> None:
    """Type checkers accept all documented sources; this module is checked in strict mode."""
    sources: list[Source] = [b"", bytearray(), memoryview(b""), io.BytesIO(), _pieces(b""), FileProxy(b"")]
    with open(tmp_path / "file", "wb+") as file:
        sources.append(file)
        assert len(sources) == 7


async def test_a_part_of_a_multipart_request() -> None:
    """A part of a multipart request of aiohttp is read in chunks as it arrives, whatever its size."""
    found: list[bytes] = []

    async def upload(request: web.Request) -> web.Response:
        async for part in await request.multipart():
            spool = await Spool.fill(part)
            async with spool.open() as file:
                found.append(await file.read())
        return web.Response()

    application = web.Application(client_max_size=2**24)
    application.router.add_post("/", upload)
    bodies = [bytes(range(256)) * 20_000, b"", b"short"]
    form = aiohttp.FormData()
    for number, body in enumerate(bodies):
        form.add_field(f"file{number}", io.BytesIO(body), filename="a.png")
    async with TestClient(TestServer(application)) as client:
        assert (await client.post("/", data=form)).status == 200
    assert found == bodies


async def test_arguments_by_name() -> None:
    """Sizes and offsets can be passed by name, as in SQLAlchemy-ImageAttach."""
    file = SeekableFileProxy(io.BytesIO(b"one\ntwo\nthree"))
    assert await file.read(size=2) == b"on"
    assert await file.readline(size=1) == b"e"
    assert await file.seek(offset=4, whence=0) == 4
    assert await file.readlines(hint=1) == [b"two\n"]


@pytest.mark.parametrize("size", [0, 1000, 3_000_000])
async def test_a_file_is_measured(size: int) -> None:
    """``measure`` returns the size and SHA-256 of a file, reports the size of each chunk, and closes the file."""
    blob, sizes = os.urandom(size), list[int]()
    for count in (None, sizes.append):
        file = FileProxy(io.BytesIO(blob))
        assert await measure(file, count) == (size, hashlib.sha256(blob).hexdigest())
        assert file.closed
    assert sum(sizes) == size


async def test_a_spool_without_a_checksum() -> None:
    """Completing the checksum does nothing, and reading it is an error."""
    spool = await Spool.fill(b"x", checksum=False)
    spool.complete_hash()
    with pytest.raises(ValueError, match="expected a spool with a checksum"):
        _ = spool.sha256
