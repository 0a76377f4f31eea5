"""Files served by real ASGI servers over real sockets."""

from __future__ import annotations

import asyncio
import os
import re
import select
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import httpx
import pytest

from aioimageattach.key import ImageKey
from aioimageattach.stores.fs import FileSystemStore
from tests.servers.asgi import SERVERS, serving
from tests.servers.http2 import Http2Client

SMALL, LARGE = os.urandom(10_000), os.urandom(5 << 20)
TAG = "01jd000000000000000000000"
OLD = ("photo/7/0/7.320x200.jpe", "photo/8/0/8.320x200.jpe")
"""Names in the predecessor's layout, whose files are opened for every request."""


def key(number: int) -> ImageKey:
    return ImageKey("photo", None, 320, 200, "image/jpeg", f"{TAG}{number}")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory on a disk with a small and a large file."""
    root = tmp_path_factory.mktemp("served")

    async def put() -> None:
        store = FileSystemStore(root, "/")
        for number, blob in enumerate((SMALL, LARGE)):
            await store.put(key(number), blob, reproducible=False)

    asyncio.run(put())
    for name, blob in zip(OLD, (SMALL, LARGE), strict=True):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(blob)
    (root / "secret.jpg").write_bytes(b"secret")
    return root


@pytest.fixture(scope="module", params=[*SERVERS, "granian-pathsend"])
def url(request: pytest.FixtureRequest, served: Path) -> Iterator[str]:
    """The URL of a server that runs for all tests of this module."""
    name = request.param.removesuffix("-pathsend")
    with serving(name, served, PATHSEND="" if name == request.param else "1") as url:
        yield url


def path_of(number: int) -> str:
    return f"/__images__/{FileSystemStore('/', '/').name_of(key(number))}"


@pytest.mark.parametrize(("number", "blob"), [(0, SMALL), (1, LARGE)])
async def test_files_arrive_whole(url: str, number: int, blob: bytes) -> None:
    """Clients receive complete files one after another on one connection, and concurrently on many."""
    address = url + path_of(number)
    async with httpx.AsyncClient() as http:
        for _ in range(2):
            answer = await http.get(address)
            assert (answer.status_code, answer.content == blob) == (200, True)
            assert answer.headers["Content-Length"] == str(len(blob))
            assert answer.headers["ETag"] == f'"{TAG}{number}"'
            assert "Date" in answer.headers
            assert "Set-Cookie" not in answer.headers
        head = await http.head(address)
        assert (head.status_code, head.headers["Content-Length"], head.content) == (200, str(len(blob)), b"")
    async with aiohttp.ClientSession() as session:

        async def get() -> bool:
            async with session.get(address) as answer:
                return await answer.read() == blob

        assert all(await asyncio.gather(*(get() for _ in range(20))))


async def test_conditions_and_ranges(url: str) -> None:
    """Each status is received unchanged, and the connection can be used again."""
    async with httpx.AsyncClient(base_url=url) as http:
        for number, blob in ((0, SMALL), (1, LARGE)):
            path, size = path_of(number), len(blob)
            for headers, status, body in (
                ({"Range": "bytes=5-9"}, 206, blob[5:10]),
                ({"Range": "bytes=-2000"}, 206, blob[-2000:]),
                ({"Range": "bytes=1-"}, 206, blob[1:]),
                ({"Range": f"bytes={size}-"}, 416, b"The file has no such bytes.\n"),
                ({"If-None-Match": f'"{TAG}{number}"'}, 304, b""),
                ({"If-Match": '"x"'}, 412, b"The file has another version.\n"),
            ):
                answer = await http.get(path, headers=headers)
                assert (answer.status_code, answer.content == body) == (status, True)
        several = await http.get(path_of(1), headers={"Range": "bytes=0-1,1000000-3000000"})
        assert several.status_code == 206
        assert LARGE[1_000_000:3_000_001] in several.content
        assert (await http.post(path_of(0), content=b"x")).status_code == 405
        assert (await http.options(path_of(0))).status_code == 204


async def test_urls_use_the_host_of_the_request(url: str) -> None:
    """The URLs of files use the Host of each request."""
    async with httpx.AsyncClient(base_url=url) as http:
        assert (await http.get("/")).text.split()[2] == f"{url}/__images__/"
        answer = await http.get("/", headers={"Host": "localhost:1"})
        assert answer.text.split()[2] == "http://localhost:1/__images__/"


def raw(url: str, request: bytes) -> bytes:
    """Send bytes that no HTTP client would send; return the response."""
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=10) as connection:
        connection.sendall(request)
        answer = b""
        while data := connection.recv(65536):
            answer += data
        return answer


ATTACKS = (
    "/__images__/../secret.jpg", "/__images__/secret.jpg", "/__images__//etc/passwd", "/__images__/%2e%2e/secret.jpg",
    "/__images__/..%2fsecret.jpg", "/__images__/%252e%252e/secret.jpg", "/__images__/..\\secret.jpg",
    "/__images__/photo/%00/x", "/__images__/photo/01jd0/00/", "/__images__/.", "/__images__/", "/__images__/~root",
    "/__images__/" + "a/" * 2000, "/__images__/" + "x" * 5000, "/__images__/%ff%fe", "/__images__/%ef%bc%8fetc",
    "/__images__/photo/01jd0/00/" + TAG + "0.320x200.jpg%0d%0aX:%20y",
    "/__images__/photo/01jd0/00/" + TAG + "0.320x200.jpg/",
)  # fmt: skip


@pytest.mark.parametrize("target", ATTACKS, ids=lambda target: target[11:40])
def test_attacks_over_the_wire(url: str, target: str) -> None:
    """However the server interprets the path, no file is sent, and the response is an error."""
    answer = raw(url, f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    assert answer.split()[1] in (b"404", b"400", b"414")
    assert b"root:" not in answer
    assert b"secret" not in answer.partition(b"\r\n\r\n")[2]


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
def test_a_download_is_resumed(url: str, tmp_path: Path) -> None:
    """curl resumes a download with a range."""
    file = tmp_path / "file"
    file.write_bytes(LARGE[:1_234_567])
    subprocess.run(["curl", "-fsS", "-C", "-", "-o", file, url + path_of(1)], check=True, timeout=30)
    assert file.read_bytes() == LARGE


async def test_clients_that_disconnect(url: str) -> None:
    """After hundreds of connections that were reset in the middle of a file, no task and no descriptor is left."""
    parts = urlsplit(url)
    request = f"GET {path_of(1)} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()

    async def leave() -> None:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        writer.write(request)
        await reader.read(1000)
        connection = writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    for _ in range(8):
        await asyncio.gather(*(leave() for _ in range(25)))
    await nothing_is_left(url)
    async with httpx.AsyncClient(base_url=url) as http:
        assert (await http.get(path_of(1))).content == LARGE


def processes(url: str) -> list[int]:
    """Return the processes of the server, found by the port on which they listen."""
    port = urlsplit(url).port
    words = subprocess.run(["ss", "-Hltnp", f"sport = :{port}"], capture_output=True, text=True, check=True).stdout
    return sorted({int(pid) for pid in re.findall(r"pid=(\d+)", words)})


def resident(pids: list[int]) -> int:
    """Return the resident memory of processes, in kilobytes."""
    return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4 for pid in pids)


def work_done(pids: list[int]) -> list[str]:
    """Return the CPU time of processes. While it stays the same, they are idle."""
    return [" ".join(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]) for pid in pids]


@pytest.mark.skipif(not shutil.which("ss"), reason="ss is not installed")
async def test_slow_clients_cost_little_memory(url: str, request: pytest.FixtureRequest) -> None:
    """A hundred clients that read nothing of 500 MiB cost less than a sixth of that in memory.

    Granian has a separate queue for each client, which contains more than a block.
    """
    parts = urlsplit(url)
    asking = f"GET {path_of(1)} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    pids = processes(url)
    before = resident(pids)
    with ExitStack() as stack:
        waiting = set()
        for _ in range(100):
            connection = stack.enter_context(socket.socket())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect((parts.hostname or "", parts.port or 0))
            connection.sendall(asking)
            waiting.add(connection)
        async with asyncio.timeout(30):
            while waiting:  # for the first bytes of each
                waiting -= set(select.select(waiting, [], [], 0)[0])
                await asyncio.sleep(0.02)
            done: list[str] = []
            while done != (done := work_done(pids)):  # and until the server has buffered as much as it will
                await asyncio.sleep(0.2)
        grown = resident(pids) - before
    assert grown < (200 if "granian" in request.node.name else 80) * 1024


HTTP2 = ("hypercorn", "granian")


@pytest.fixture(scope="module", params=HTTP2)
def http2(request: pytest.FixtureRequest, served: Path) -> Iterator[str]:
    """The URL of a server that supports HTTP/2."""
    with serving(request.param, served) as url:
        yield url


async def nothing_is_left(url: str) -> None:
    """Wait until no task sends a file, and no file is open except those kept for later requests."""
    async with httpx.AsyncClient(base_url=url) as http, asyncio.timeout(20):
        while True:
            tasks, files, _ = (await http.get("/")).text.split()
            if tasks == "0" and int(files) <= 2:
                return
            await asyncio.sleep(0.05)


def test_files_over_http2(http2: str) -> None:
    """Files are received completely, several concurrently on one connection."""
    with Http2Client(http2) as http:
        numbers = [http.get(path_of(number)) for number in (1, 0, 1)]
        streams = [http.read_whole(number) for number in numbers]
        assert [stream.body for stream in streams] == [LARGE, SMALL, LARGE]
        assert streams[0].headers["etag"] == f'"{TAG}1"'
        assert http.read_whole(http.get(path_of(0), **{"if-none-match": f'"{TAG}0"'})).status == 304


@pytest.mark.parametrize("size", ["small", "large"])
@pytest.mark.parametrize("way", ["stream reset", "connection closed"])
async def test_cancelled_downloads_over_http2(http2: str, way: str, size: str) -> None:
    """A send that waits for flow control is abandoned, and no task and no descriptor is left."""
    path = f"/__images__/{OLD[size == 'large']}"
    for _ in range(10):
        with Http2Client(http2, window=0) as http:
            numbers = [http.get(path) for _ in range(10)]
            http.read_until_started()
            if way == "stream reset":
                for number in numbers:
                    http.reset(number)
                assert http.read_whole(http.get(f"{path}?", **{"if-none-match": "*"})).status == 304
    await nothing_is_left(http2)
    with Http2Client(http2) as http:
        assert http.read_whole(http.get(path)).body == (LARGE if size == "large" else SMALL)


def test_hypercorn_on_trio(served: Path) -> None:
    """Start-up on trio fails with an explanation."""
    words = ["-m", "hypercorn", "-k", "trio", "--bind", "127.0.0.1:0", "tests.servers.served:app"]
    environment = {**os.environ, "SERVED": str(served)}
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=60, env=environment)
    assert "requires a server that runs asyncio" in done.stderr


@pytest.mark.parametrize(
    ("server", "option", "prefix"),
    [("uvicorn", "--root-path", ""), ("hypercorn", "--root-path", ""), ("granian", "--url-path-prefix", "/shop")],
)
@pytest.mark.parametrize("root", ["/shop", "/shop/"])
async def test_a_root_path(served: Path, server: str, option: str, prefix: str, root: str) -> None:
    """A root path works with or without a slash at its end, whether or not the server includes it in the path."""
    with serving(server, served, options=(option, root)) as url:
        async with httpx.AsyncClient(base_url=f"{url}{prefix}") as http:
            assert (await http.get("/")).text.split()[2] == f"{url}/shop/__images__/"
            assert (await http.get(path_of(0))).content == SMALL
