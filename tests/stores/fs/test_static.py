"""The ASGI application that serves the files of a directory: its responses, and its protection of other files."""

from __future__ import annotations

import asyncio
import email
import errno
import logging
import os
import threading
from collections.abc import Callable
from email.utils import formatdate, parsedate_to_datetime
from inspect import signature
from pathlib import Path
from typing import Any

import pytest

from aioimageattach import _threads
from aioimageattach.exc import StoreUnavailableError
from aioimageattach.key import ImageKey, make_revision
from aioimageattach.stores.fs import FileSystemStore, StaticServer, StaticServerMiddleware
from aioimageattach.stores.fs._serving import files
from tests.descriptors import count_all, falls_to
from tests.servers.asking import Client, Told
from tests.stores import kernel

BLOCK = 4096
SMALL, LARGE = os.urandom(1000), os.urandom(10 * BLOCK + 17)


async def put(root: Path, blob: bytes = SMALL, mimetype: str = "image/jpeg", revision: str | None = None) -> str:
    """Put a file, and return its name."""
    store = FileSystemStore(root, "/", fsync=False)
    key = ImageKey("photo", None, 320, 200, mimetype, revision or make_revision())
    await store.put(key, blob, reproducible=False)
    return store.name_of(key)


def old(root: Path, blob: bytes = SMALL, name: str = "photo/7/0/7.320x200.jpe", age: int = 100) -> str:
    """Write a file at the path that SQLAlchemy-ImageAttach would use, and return its name."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(blob)
    os.utime(path, (path.stat().st_mtime - age,) * 2)
    return name


def client(root: Path, **options: Any) -> Client:
    return Client(StaticServer(root, **{"block_size": BLOCK, **options}))


def complete(told: Told, body: bytes) -> bool:
    return told.ended and told.body == body and told.headers["content-length"] == str(len(body))


# --- whole files -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("blob", [SMALL, LARGE, b"", os.urandom(BLOCK), os.urandom(BLOCK + 1)], ids=len)
async def test_a_file_is_sent_whole(tmp_path: Path, blob: bytes) -> None:
    """A file is sent completely, from disk and from memory; HEAD returns the same headers without a body."""
    name = await put(tmp_path, blob)
    http = client(tmp_path)
    for _ in range(2):
        told = await http.ask(f"/{name}")
        assert told.status == 200
        assert complete(told, blob)
        assert all(len(body) <= BLOCK for body in told.bodies)
        head = await http.ask(f"/{name}", method="HEAD")
        assert (head.status, head.headers, head.body) == (200, told.headers, b"")


async def test_the_headers_of_a_file(tmp_path: Path) -> None:
    """A response has exactly the headers that browsers and caches need."""
    revision = make_revision()
    told = await client(tmp_path).ask(f"/{await put(tmp_path, revision=revision)}")
    modified = told.headers.pop("last-modified")
    assert abs(parsedate_to_datetime(modified).timestamp() - files.time.time()) < 60
    assert told.headers == {
        "content-type": "image/jpeg",
        "content-length": "1000",
        "cache-control": "public, max-age=31536000, immutable",
        "etag": f'"{revision}"',
        "accept-ranges": "bytes",
        "x-content-type-options": "nosniff",
        "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox",
        "cross-origin-resource-policy": "same-site",
    }


@pytest.mark.parametrize(
    ("mimetype", "kind"),
    [
        ("image/svg+xml", "image/svg+xml"),
        ("application/pdf", "application/pdf"),
        ("text/html", "application/octet-stream"),
        ("image/x-unknown", "application/octet-stream"),
    ],
)
async def test_active_content_is_downloaded(tmp_path: Path, mimetype: str, kind: str) -> None:
    """A file that may contain scripts is sent as a download with a harmless name, in a sandbox."""
    name = await put(tmp_path, b"<svg onload='alert(1)'/>", mimetype)
    told = await client(tmp_path).ask(f"/{name}")
    assert told.headers["content-type"] == kind
    assert told.headers["content-disposition"] == f'attachment; filename="{name.rpartition("/")[2]}"'
    assert "sandbox" in told.headers["content-security-policy"]
    assert told.headers["x-content-type-options"] == "nosniff"


async def test_legacy_files_are_revalidated(tmp_path: Path) -> None:
    """A legacy file can change, so caches must revalidate it; a replaced file has another version immediately."""
    http = client(tmp_path)
    name = old(tmp_path)
    first = await http.ask(f"/{name}", query_string=b"_ts=20260101000000000000")
    assert complete(first, SMALL)
    assert first.headers["cache-control"] == "no-cache"
    tag = first.headers["etag"]
    assert (await http.ask(f"/{name}", ("If-None-Match", tag))).status == 304
    old(tmp_path, LARGE)
    second = await http.ask(f"/{name}", ("If-None-Match", tag))
    assert complete(second, LARGE)
    assert second.headers["etag"] != tag


# --- conditions and ranges -------------------------------------------------------------------------------------------


async def test_an_open_file_that_is_not_in_memory(tmp_path: Path) -> None:
    """An open file that is not in the page cache is read in a thread and sent completely."""
    name = await put(tmp_path, LARGE)
    http = client(tmp_path)
    with (tmp_path / name).open("rb") as file:
        os.fsync(file.fileno())
        for _ in range(20):  # the system may first keep pages that have just been written
            assert complete(await http.ask(f"/{name}"), LARGE)
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


async def test_a_client_with_the_current_version(tmp_path: Path) -> None:
    """The response is 304 with the headers that update the cache, whatever the other headers request."""
    revision = make_revision()
    name = await put(tmp_path, revision=revision)
    http = client(tmp_path)
    for value in (f'"{revision}"', f'W/"{revision}"', f'"x", "{revision}"'):
        for method in ("GET", "HEAD"):
            told = await http.ask(f"/{name}", ("If-None-Match", value), ("Range", "bytes=0-1"), method=method)
            assert told.status == 304
            assert told.headers == {
                "cache-control": "public, max-age=31536000, immutable",
                "etag": f'"{revision}"',
                "cross-origin-resource-policy": "same-site",
            }
            assert told.body == b""


@pytest.mark.parametrize("opened_before", [True, False])
async def test_conditional_requests_for_a_deleted_file(tmp_path: Path, opened_before: bool) -> None:
    """Conditions apply only if the request without them would succeed (RFC 9110, section 13.2.1)."""
    revision = make_revision()
    name = await put(tmp_path, revision=revision)
    http = client(tmp_path)
    if opened_before:
        assert (await http.ask(f"/{name}")).status == 200
    (tmp_path / name).unlink()
    for header in (("If-None-Match", f'"{revision}"'), ("If-None-Match", "*"), ("If-Match", '"other"')):
        for method in ("GET", "HEAD"):
            assert (await http.ask(f"/{name}", header, method=method)).status == 404


@pytest.mark.parametrize("layout", ["new", "old"])
@pytest.mark.parametrize(
    ("name", "value", "status"),
    [
        ("If-None-Match", "{tag}", 304),
        ("If-None-Match", "*", 304),
        ("If-None-Match", '"other"', 200),
        ("If-Modified-Since", "{modified}", 304),
        ("If-Modified-Since", "{before}", 200),
        ("If-Modified-Since", "yesterday", 200),
        ("If-Match", "{tag}", 200),
        ("If-Match", "*", 200),
        ("If-Match", '"other"', 412),
        ("If-Unmodified-Since", "{modified}", 200),
        ("If-Unmodified-Since", "{before}", 412),
    ],
)
async def test_conditions(tmp_path: Path, layout: str, name: str, value: str, status: int) -> None:
    """Conditional requests are answered as in RFC 9110, for both layouts and both methods."""
    path = await put(tmp_path) if layout == "new" else old(tmp_path)
    os.utime(tmp_path / path, (10**9, 10**9))
    http = client(tmp_path)
    tag = (await http.ask(f"/{path}")).headers["etag"]
    text = value.format(tag=tag, modified=formatdate(10**9, usegmt=True), before=formatdate(10**9 - 1, usegmt=True))
    if tag.startswith("W/") and name == "If-Match" and value == "{tag}":
        status = 412  # a weak tag never matches in a strong comparison
    for method in ("GET", "HEAD"):
        told = await http.ask(f"/{path}", (name, text), method=method)
        assert told.status == status
        assert told.ended
        assert told.body == {200: SMALL, 304: b"", 412: b"The file has another version.\n"}[status] * (method == "GET")


async def test_conditions_with_a_tag_and_a_date(tmp_path: Path) -> None:
    """Conditions are evaluated in the order of RFC 9110, section 13.2.2."""
    revision = make_revision()
    name = await put(tmp_path, revision=revision)
    http = client(tmp_path)
    known = ("If-None-Match", f'"{revision}"')
    assert (await http.ask(f"/{name}", known, ("If-Match", '"other"'))).status == 412
    assert (await http.ask(f"/{name}", known, ("If-Match", "*"))).status == 304
    assert (await http.ask(f"/{name}", known, ("If-Unmodified-Since", formatdate(0, usegmt=True)))).status == 412


@pytest.mark.parametrize("blob", [SMALL, LARGE], ids=len)
@pytest.mark.parametrize(
    ("header", "start", "end"), [("0-9", 0, 10), ("10-", 10, None), ("-10", -10, None), ("0-", 0, None)]
)
async def test_a_range(tmp_path: Path, blob: bytes, header: str, start: int, end: int | None) -> None:
    """The requested bytes are sent with their position."""
    name = await put(tmp_path, blob)
    http = client(tmp_path)
    for _ in range(2):
        told = await http.ask(f"/{name}", ("Range", f"bytes={header}"))
        assert told.status == 206
        assert complete(told, blob[start:end])
        first = start % len(blob)
        assert told.headers["content-range"] == f"bytes {first}-{first + len(told.body) - 1}/{len(blob)}"
        assert told.headers["content-type"] == "image/jpeg"


async def test_several_ranges(tmp_path: Path) -> None:
    """Several ranges are sent as a multipart body of the announced length."""
    name = await put(tmp_path, LARGE)
    told = await client(tmp_path).ask(f"/{name}", ("Range", "bytes=0-9, 100-20000, -5"))
    assert told.status == 206
    assert complete(told, told.body)
    message = email.message_from_bytes(f"Content-Type: {told.headers['content-type']}\r\n".encode() + told.body)
    parts = [(part["Content-Range"], part.get_payload(decode=True)) for part in message.get_payload()]  # type: ignore[union-attr]
    size = len(LARGE)
    assert parts == [
        (f"bytes 0-9/{size}", LARGE[:10]),
        (f"bytes 100-20000/{size}", LARGE[100:20001]),
        (f"bytes {size - 5}-{size - 1}/{size}", LARGE[-5:]),
    ]


async def test_a_range_beyond_the_file(tmp_path: Path) -> None:
    """The 416 response contains the size of the file, and cannot be cached."""
    told = await client(tmp_path).ask(f"/{await put(tmp_path)}", ("Range", "bytes=1000-"))
    assert told.status == 416
    assert told.headers["content-range"] == "bytes */1000"
    assert told.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "headers",
    [
        [("Range", "bytes=5-2")],
        [("Range", "items=0-1")],
        [("Range", "bytes=0-1"), ("Range", "bytes=2-3")],
        [("Range", "bytes=0-1"), ("If-Range", '"other"')],
        [("Range", "bytes=0-1"), ("If-Range", formatdate(10**9 + 1, usegmt=True))],
        [("Range", f"bytes={','.join(f'{place}-{place}' for place in range(0, 1000, 2))}")],
    ],
    ids=str,
)
async def test_an_ignored_range(tmp_path: Path, headers: list[tuple[str, str]]) -> None:
    """The whole file is sent if the range must be ignored."""
    name = await put(tmp_path)
    os.utime(tmp_path / name, (10**9, 10**9))
    told = await client(tmp_path).ask(f"/{name}", *headers)
    assert told.status == 200
    assert complete(told, SMALL)


async def test_if_range(tmp_path: Path) -> None:
    """``If-Range`` with the tag or the date permits a partial response; a HEAD request has no ranges."""
    revision = make_revision()
    name = await put(tmp_path, revision=revision)
    os.utime(tmp_path / name, (10**9, 10**9))
    http = client(tmp_path)
    for value in (f'"{revision}"', formatdate(10**9, usegmt=True)):
        assert (await http.ask(f"/{name}", ("Range", "bytes=0-1"), ("If-Range", value))).status == 206
    assert (await http.ask(f"/{name}", ("Range", "bytes=0-1"), method="HEAD")).status == 200


# --- methods and other origins ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "TRACE", "CONNECT", "get", "G\xcbT", ""])
async def test_files_can_only_be_read(tmp_path: Path, method: str) -> None:
    """All methods except GET, HEAD and OPTIONS are refused, for existing and for missing files."""
    for name in (await put(tmp_path), "nothing"):
        told = await client(tmp_path).ask(f"/{name}", ("X-HTTP-Method-Override", "GET"), method=method)
        assert (told.status, told.headers["allow"]) == (405, "GET, HEAD, OPTIONS")


async def test_options(tmp_path: Path) -> None:
    """The response to OPTIONS lists the permitted methods and has no body."""
    told = await client(tmp_path).ask(f"/{await put(tmp_path)}", method="OPTIONS")
    assert (told.status, told.headers["allow"], told.body) == (204, "GET, HEAD, OPTIONS", b"")


SHOP = "https://shop.example.com"


@pytest.mark.parametrize(
    ("cors", "origin", "granted", "policy"),
    [
        (False, SHOP, None, "same-site"),
        (True, SHOP, "*", "cross-origin"),
        (True, "null", "*", "cross-origin"),
        ([SHOP], SHOP, SHOP, "cross-origin"),
        ([SHOP], "https://shop.example.com.evil.org", None, "cross-origin"),
        ([SHOP], None, None, "cross-origin"),
    ],
)
async def test_other_origins(
    tmp_path: Path, cors: bool | list[str], origin: str | None, granted: str | None, policy: str
) -> None:
    """Each response has the same CORS headers: files, ranges, 304 and errors; ``Vary`` names the origin."""
    name = await put(tmp_path)
    http = client(tmp_path, cors=cors)
    headers = [] if origin is None else [("Origin", origin)]
    tag = (await http.ask(f"/{name}")).headers["etag"]
    for path, more, method, status in (
        (name, [], "GET", 200),
        (name, [("Range", "bytes=0-1")], "GET", 206),
        (name, [("If-None-Match", tag)], "GET", 304),
        (name, [("If-Match", '"x"')], "GET", 412),
        (name, [("Range", "bytes=9999-")], "GET", 416),
        ("nothing", [], "GET", 404),
        (name, [], "POST", 405),
        (name, [], "OPTIONS", 204),
    ):
        told = await http.ask(f"/{path}", *headers, *more, method=method)
        assert told.status == status
        assert told.headers.get("access-control-allow-origin") == granted
        assert ("access-control-expose-headers" in told.headers) is (granted is not None)
        assert told.headers["cross-origin-resource-policy"] == policy
        assert told.headers.get("vary") == ("Origin" if isinstance(cors, list) else None)
        assert "set-cookie" not in told.headers
        assert "access-control-allow-credentials" not in told.headers


@pytest.mark.parametrize(
    ("cors", "allowed"), [(True, True), ([SHOP], True), (False, False), (["https://other.org"], False)]
)
async def test_preflight_requests(tmp_path: Path, cors: bool | list[str], allowed: bool) -> None:
    """A preflight response contains the permitted methods and headers, or nothing."""
    asked = [("Origin", SHOP), ("Access-Control-Request-Method", "GET"), ("Access-Control-Request-Headers", "range")]
    told = await client(tmp_path, cors=cors).ask("/any", *asked, method="OPTIONS")
    assert told.status == 204
    assert ("access-control-allow-origin" in told.headers) is allowed
    assert ("access-control-allow-methods" in told.headers) is allowed
    assert ("Range" in told.headers.get("access-control-allow-headers", "")) is allowed
    assert told.headers["vary"].split(", ") == [
        "Origin",
        "Access-Control-Request-Method",
        "Access-Control-Request-Headers",
    ]


# --- what no request can get -----------------------------------------------------------------------------------------


def fifo(path: Path, _: Path) -> None:
    os.mkfifo(path)


def directory(path: Path, _: Path) -> None:
    path.mkdir()


def link(path: Path, secret: Path) -> None:
    path.symlink_to(secret)


def loop(path: Path, _: Path) -> None:
    path.symlink_to(path.name)


def device(path: Path, _: Path) -> None:
    os.mknod(path, 0o20666, os.makedev(1, 5))  # an endless file of zeros


@pytest.mark.parametrize("make", [fifo, directory, link, loop, device])
async def test_only_regular_files_are_opened(tmp_path: Path, make: Callable[[Path, Path], None]) -> None:
    """Anything but a regular file is treated as missing, and opening it never blocks."""
    (secret := tmp_path / "secret").write_bytes(b"secret")
    root = tmp_path / "root"
    path = root / await put(root)
    path.unlink()
    try:
        make(path, secret)
    except PermissionError:
        pytest.skip("only the superuser makes devices")
    told = await asyncio.wait_for(client(root).ask(f"/{path.relative_to(root)}"), 10)
    assert (told.status, told.body) == (404, b"There is no such file.\n")


@pytest.mark.parametrize("depth", [1, 2, 3])
async def test_symbolic_links_are_not_followed(tmp_path: Path, depth: int) -> None:
    """Links to files or directories are not followed at any level; only the root itself may be a link."""
    outside = tmp_path / "outside"
    name = await put(outside)
    root = tmp_path / "root"
    top = Path(*Path(name).parts[:depth])
    (root / top).parent.mkdir(parents=True)
    (root / top).symlink_to(outside / top)
    assert (await client(root).ask(f"/{name}")).status == 404
    (tmp_path / "alias").symlink_to(outside)
    assert (await client(tmp_path / "alias").ask(f"/{name}")).status == 200


async def test_a_directory_that_is_repeatedly_replaced_by_a_link(tmp_path: Path) -> None:
    """Whatever the timing is, only files below the root are sent."""
    root, outside = tmp_path / "root", tmp_path / "outside"
    name = await put(root, b"inside")
    kind = Path(name).parts[0]
    (outside / Path(name).parent).mkdir(parents=True)
    (outside / name).write_bytes(b"secret")
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            (root / kind).rename(root / "away")
            (root / kind).symlink_to(outside / kind)
            (root / kind).unlink()
            (root / "away").rename(root / kind)

    thread = threading.Thread(target=swap)
    thread.start()
    seen = set()
    try:
        for _ in range(300):
            seen.add((await client(root).ask(f"/{name}")).body)
    finally:
        stop.set()
        thread.join()
    assert b"secret" not in seen


async def test_files_that_the_store_did_not_put(tmp_path: Path) -> None:
    """Hidden and unfinished files, and files of other programs, are never sent."""
    root = tmp_path / "images"
    name = await put(root)
    (tmp_path / "images-2").mkdir()
    for path in (
        "page.html",
        ".hidden",
        ".aioimageattach-0123",
        "photo/notes.txt",
        "../images-2/x.jpg",
        "../secret.jpg",
    ):
        (root / path).write_bytes(b"secret")
        for asked in (path, f"/{path}", f"{name}/../../../../{path}", path.upper(), path.replace("/", "\\")):
            assert (await client(root).ask(f"/{asked}")).status == 404


async def test_a_deleted_file_is_gone_immediately(tmp_path: Path) -> None:
    """A deleted file is missing even if it was open; a client that is reading it receives all of it."""
    store = FileSystemStore(tmp_path, "/")
    name = await put(tmp_path, LARGE)
    http = client(tmp_path)
    assert (await http.ask(f"/{name}")).status == 200
    told: list[Told] = []

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        async def wait(message: Any) -> None:
            await send(message)
            await store.delete_object(name)

        await http.app(scope, receive, wait)

    told.append(await Client(slow).ask(f"/{name}"))
    assert complete(told[0], LARGE)
    again = await http.ask(f"/{name}")
    assert (again.status, again.headers["cache-control"]) == (404, "no-store")


# --- a failing disk --------------------------------------------------------------------------------------------------


async def test_a_root_that_is_missing(tmp_path: Path) -> None:
    """Without the directory, every file is missing; the store creates it with the first put."""
    name = await put(tmp_path / "first")
    http = client(tmp_path / "second")
    assert (await http.ask(f"/{name}")).status == 404
    (tmp_path / "first").rename(tmp_path / "second")
    assert (await http.ask(f"/{name}")).status == 200


async def test_a_root_that_is_a_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The log contains the reason; the client gets a server error that reveals nothing about the disk."""
    name = await put(tmp_path / "first")
    (tmp_path / "file").touch()
    with caplog.at_level(logging.WARNING, "aioimageattach"):
        told = await client(tmp_path / "file").ask(f"/{name}", method="HEAD")
    assert (told.status, told.body, told.headers["cache-control"]) == (503, b"", "no-store")
    assert "expected a directory, got the file" in caplog.text
    assert str(tmp_path) not in (await client(tmp_path / "file").ask(f"/{name}")).body.decode()


@pytest.mark.parametrize("name", [f"photo/{'1' * 3}/1/{'1' * 250}.1x1.jpe", "photo/111/{}/{}.1x1.jpe"])
async def test_names_that_no_file_can_have(tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str) -> None:
    """A name that is too long is treated as missing and not logged, so that clients cannot fill the log."""
    number = 10**251 + 111
    told = await client(tmp_path).ask(f"/{name.format(number // 1000, number)}")
    assert (told.status, caplog.text) == (404, "")


@pytest.mark.parametrize("error", [errno.ENAMETOOLONG, errno.EILSEQ, errno.ELOOP])
async def test_names_that_the_file_system_refuses(tmp_path: Path, caplog: pytest.LogCaptureFixture, error: int) -> None:
    """Narrower limits of the file system are treated in the same way."""
    name = await put(tmp_path)
    http = client(tmp_path)
    with kernel.in_the_worker(kernel.refused("openat", error)):
        assert (await http.ask(f"/{name}")).status == 404
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [("openat", errno.EACCES, "grant the process access"), ("preadv2", errno.EIO, "check the disk")],
)
async def test_a_failing_disk(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, call: str, error: int, words: str
) -> None:
    """The log contains the reason and the remedy, and the client can retry."""
    name = await put(tmp_path)
    http = client(tmp_path)
    with kernel.in_the_worker(kernel.refused(call, error)):
        told = await http.ask(f"/{name}")
    assert (told.status, told.headers["cache-control"]) == (503, "no-store")
    assert words in caplog.text
    assert (await http.ask(f"/{name}")).status == 200


async def test_a_file_that_is_truncated_while_it_is_sent(tmp_path: Path) -> None:
    """The response ends with an error, so the server closes the connection and the client notices the truncation."""
    name = await put(tmp_path, LARGE)
    server = StaticServer(tmp_path, block_size=BLOCK)

    async def cutting(scope: Any, receive: Any, send: Any) -> None:
        async def cut(message: Any) -> None:
            await send(message)
            os.truncate(tmp_path / name, BLOCK + 1)

        await server(scope, receive, cut)

    with pytest.raises(StoreUnavailableError, match="was truncated"):
        await Client(cutting).ask(f"/{name}")


async def test_a_system_without_non_blocking_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same responses are sent from worker threads."""
    monkeypatch.setattr(files, "_NOWAIT", 0)
    http = client(tmp_path)
    name = await put(tmp_path, LARGE)
    for _ in range(2):
        assert complete(await http.ask(f"/{name}"), LARGE)
        assert (await http.ask(f"/{name}", ("Range", "bytes=5-9"))).body == LARGE[5:10]


# --- clients that leave ----------------------------------------------------------------------------------------------


async def test_clients_that_disconnect(tmp_path: Path) -> None:
    """After a thousand disconnects, no task and no descriptor is left, and no file is read further."""
    name = old(tmp_path, LARGE)  # a legacy file, which is opened for each request
    http = client(tmp_path)
    await http.ask(f"/{name}")
    before, tasks = count_all(), len(asyncio.all_tasks())
    for start in range(0, 1000, 50):
        for told in await asyncio.gather(
            *(http.ask(f"/{name}", leave_after=1 + n % 5) for n in range(start, start + 50))
        ):
            assert not told.ended
            assert len(told.bodies) < 10
    assert await falls_to(before)
    assert len(asyncio.all_tasks()) == tasks


@pytest.mark.parametrize("messages", range(1, 6))
async def test_requests_that_are_cancelled(tmp_path: Path, messages: int) -> None:
    """A request that is cancelled at any message leaves no task and no descriptor."""
    name = old(tmp_path, LARGE)
    server = StaticServer(tmp_path, block_size=BLOCK)
    await Client(server).ask(f"/{name}")
    before, tasks = count_all(), len(asyncio.all_tasks())

    async def stuck(scope: Any, receive: Any, send: Any) -> None:
        count = 0

        async def wait(message: Any) -> None:
            nonlocal count
            count += 1
            if count == messages:
                await asyncio.sleep(3600)

        await server(scope, receive, wait)

    asking = [asyncio.create_task(Client(stuck).ask(f"/{name}")) for _ in range(5)]
    await asyncio.sleep(0.05)
    for task in asking:
        task.cancel()
    outcomes = await asyncio.gather(*asking, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [asyncio.CancelledError] * 5
    del asking, outcomes, task  # their tracebacks refer to the open files
    assert await falls_to(before)
    assert len(asyncio.all_tasks()) == tasks


@pytest.mark.parametrize(("version", "blob"), [("1.1", LARGE), ("2", SMALL), ("2", LARGE)], ids=["1", "2s", "2"])
@pytest.mark.parametrize("blocked_at", ["http.response.start", "http.response.body"])
async def test_a_send_that_is_blocked_when_the_client_disconnects(
    tmp_path: Path, version: str, blob: bytes, blocked_at: str
) -> None:
    """The send is abandoned, and the file is closed. (HTTP/1 servers end the send of a single block themselves.)"""
    name = old(tmp_path, blob)
    server = StaticServer(tmp_path, block_size=BLOCK)
    blocked = asyncio.Event()
    before, tasks = count_all(), len(asyncio.all_tasks())

    async def stuck(scope: Any, receive: Any, send: Any) -> None:
        async def wait(message: Any) -> None:
            if message["type"] == blocked_at:
                blocked.set()
                await asyncio.Event().wait()
            await send(message)

        async def disconnect() -> Any:
            await blocked.wait()
            return {"type": "http.disconnect"}

        await server(scope, disconnect, wait)

    told = await Client(stuck, http_version=version).ask(f"/{name}")
    assert not told.ended
    assert await falls_to(before)
    assert len(asyncio.all_tasks()) == tasks


@pytest.mark.parametrize("blob", [SMALL, LARGE], ids=len)
async def test_files_over_http2(tmp_path: Path, blob: bytes) -> None:
    """Files are sent over HTTP/2 as over HTTP/1."""
    name = await put(tmp_path, blob)
    assert complete(await Client(StaticServer(tmp_path, block_size=BLOCK), http_version="2").ask(f"/{name}"), blob)


async def test_a_server_whose_receive_fails(tmp_path: Path) -> None:
    """The client is treated as disconnected, and no error is left unretrieved."""
    name = await put(tmp_path, LARGE)
    server = StaticServer(tmp_path, block_size=BLOCK)

    async def failing(scope: Any, receive: Any, send: Any) -> None:
        async def fail() -> Any:
            raise RuntimeError("no such request")

        await server(scope, fail, send)

    told = await Client(failing).ask(f"/{name}")
    assert not told.ended


async def test_request_bodies_are_not_disconnects(tmp_path: Path) -> None:
    """The body of a GET request is ignored, and not taken for a disconnect."""
    name = await put(tmp_path, LARGE)
    server = StaticServer(tmp_path, block_size=BLOCK)
    waiting = [{"type": "http.request", "body": b"x", "more_body": True}, {"type": "http.request", "body": b""}]

    async def talkative(scope: Any, receive: Any, send: Any) -> None:
        async def bodies() -> Any:
            return waiting.pop(0) if waiting else await receive()

        await server(scope, bodies, send)

    assert complete(await Client(talkative).ask(f"/{name}"), LARGE)


async def test_a_fast_client_does_not_block_the_event_loop(tmp_path: Path) -> None:
    """The event loop runs other tasks between the blocks of a file, however fast the client reads."""
    name = await put(tmp_path, LARGE)
    http = client(tmp_path)
    await http.ask(f"/{name}")
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    await http.ask(f"/{name}")
    counting.cancel()
    assert turns >= len(LARGE) // BLOCK


# --- other servers that send the file --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["x_accel_redirect", "x_sendfile"])
async def test_the_front_end_server_sends_the_file(tmp_path: Path, kind: str) -> None:
    """The header names the file. The disk is not accessed, so missing files get the same response."""
    option: Any = "/stored/" if kind == "x_accel_redirect" else True
    http = client(tmp_path / "nowhere", **{kind: option})
    name = await put(tmp_path)
    told = await http.ask(f"/{name}")
    place = f"/stored/{name}" if kind == "x_accel_redirect" else f"{tmp_path}/nowhere/{name}"
    assert (told.status, told.body) == (200, b"")
    assert told.headers[kind.replace("_", "-")] == place
    assert told.headers["content-type"] == "image/jpeg"
    assert "content-length" not in told.headers
    before = (await http.ask(f"/{old(tmp_path)}")).headers
    assert (before["cache-control"], "etag" in before) == ("no-cache", False)
    assert (await http.ask("/../secret")).status == 404
    assert (await http.ask(f"/{name}", method="POST")).status == 405


@pytest.mark.parametrize("kind", ["x_accel_redirect", "x_sendfile"])
async def test_requests_that_depend_on_the_tag(tmp_path: Path, kind: str) -> None:
    """A front-end server does not know the tag, so requests that depend on it are answered from the file."""
    http = client(tmp_path, **{kind: "/stored/" if kind == "x_accel_redirect" else True})
    revision = make_revision()
    name = await put(tmp_path, revision=revision)
    handed = kind.replace("_", "-")
    for header, status in (
        (("If-Match", f'"{revision}"'), 200),
        (("If-Match", '"other"'), 412),
        (("If-None-Match", f'"{revision}"'), 304),
        (("If-None-Match", '"other"'), 200),
    ):
        told = await http.ask(f"/{name}", header)
        assert (told.status, handed in told.headers, told.ended) == (status, False, True)
        assert (told.body == SMALL) is (status == 200)
    part = await http.ask(f"/{name}", ("Range", "bytes=1-4"), ("If-Range", f'"{revision}"'))
    assert (part.status, part.body) == (206, SMALL[1:5])
    date = formatdate(10**9, usegmt=True)
    for header in (("Range", "bytes=1-4"), ("If-Modified-Since", date), ("If-Unmodified-Since", date)):
        assert handed in (await http.ask(f"/{name}", header)).headers
    (tmp_path / name).unlink()
    assert (await http.ask(f"/{name}", ("If-None-Match", f'"{revision}"'))).status == 404


@pytest.mark.parametrize(
    ("size", "offered", "handed"), [(2 << 20, True, True), (2 << 20, False, False), (1000, True, False)]
)
async def test_the_server_reads_large_files(tmp_path: Path, size: int, offered: bool, handed: bool) -> None:
    """The ASGI server reads a large file itself if it offers and is allowed to; ranges are read by the application."""
    blob = os.urandom(size)
    name = await put(tmp_path, blob)
    http = client(tmp_path, pathsend=True)
    scope = {"extensions": {"http.response.pathsend": {}}} if offered else {"extensions": None}
    told = await http.ask(f"/{name}", **scope)
    assert told.headers["content-length"] == str(size)
    if handed:
        assert told.messages[1:] == [{"type": "http.response.pathsend", "path": str(tmp_path / name)}]
    else:
        assert complete(told, blob)
    assert (await http.ask(f"/{name}", ("Range", "bytes=1-"), **scope)).body == blob[1:]
    assert complete(await client(tmp_path).ask(f"/{name}", **scope), blob)


# --- as an application and as a middleware ---------------------------------------------------------------------------


async def behind(scope: Any, receive: Any, send: Any) -> None:
    """An application that returns the scope that it received."""
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 299, "headers": [(b"set-cookie", b"a=b")]})
        await send({"type": "http.response.body", "body": scope["path"].encode()})
    else:
        await send({"type": f"seen {scope['type']}"})


@pytest.mark.parametrize("root", ["", "/shop"])
async def test_as_a_middleware(tmp_path: Path, root: str) -> None:
    """Requests below the path are served from files; all others reach the application unchanged."""
    name = await put(tmp_path)
    http = Client(StaticServerMiddleware(behind, "images", tmp_path), root_path=root)
    assert complete(await http.ask(f"{root}/images/{name}"), SMALL)
    for path in ("/images/", "/images/nothing", f"/images//{name}", f"/images/../images/{name}"):
        told = await http.ask(root + path)
        assert (told.status, "set-cookie" in told.headers) == (404, False)
    for path in ("/", "/images", f"/{name}", f"/images-2/{name}", f"/x/images/{name}", f"//images/{name}"):
        told = await http.ask(root + path)
        assert (told.status, told.body.decode()) == (299, root + path)


async def test_a_middleware_has_the_options_of_the_server(tmp_path: Path) -> None:
    """Each option has the same default, and is passed on."""
    options = signature(StaticServer).parameters.keys() - {"dir_path"}
    known = signature(StaticServerMiddleware).parameters
    assert {name: known[name].default for name in options} == {
        name: signature(StaticServer).parameters[name].default for name in options
    }
    assert known.keys() == options | {"app", "url_path", "dir_path"}

    path = f"/images/{await put(tmp_path, os.urandom(1 << 20))}"

    async def ask(**given: Any) -> Told:
        http = Client(StaticServerMiddleware(behind, "/images/", tmp_path, **given))
        return await http.ask(path, ("Origin", "https://example.com"), extensions={"http.response.pathsend": {}})

    assert (await ask(block_size=1 << 18)).messages[1]["body"] == (await ask()).body[: 1 << 18]
    assert "access-control-allow-origin" in (await ask(cors=True)).headers
    assert (await ask(pathsend=True)).messages[1]["type"] == "http.response.pathsend"
    assert (await ask(url_secret=b"a secret of sixteen bytes")).status == 403
    assert "x-accel-redirect" in (await ask(x_accel_redirect="/stored/")).headers
    assert "x-sendfile" in (await ask(x_sendfile=True)).headers
    with pytest.raises(ValueError, match="open_files"):
        await ask(open_files=0)


@pytest.mark.parametrize("kind", ["lifespan", "websocket"])
async def test_other_scopes_are_passed_on(tmp_path: Path, kind: str) -> None:
    """The middleware passes lifespan and websocket scopes to the application."""
    told = await Client(StaticServerMiddleware(behind, "/images/", tmp_path)).ask("/images/x", type=kind)
    assert told.messages == [{"type": f"seen {kind}"}]


async def test_as_a_standalone_application(tmp_path: Path) -> None:
    """The application handles lifespan events and closes websockets."""
    server = StaticServer(tmp_path)
    sent: list[Any] = []
    waiting = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]

    async def receive() -> Any:
        return waiting.pop(0)

    async def send(message: Any) -> None:
        sent.append(message["type"])

    await server({"type": "lifespan"}, receive, send)
    await server({"type": "websocket", "path": "/"}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete", "websocket.close"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"block_size": 0}, "block_size: expected at least 1, got 0"),
        ({"open_files": 0}, "open_files: expected at least 1"),
        ({"cors": "https://example.com"}, "a list of origins"),
        ({"cors": ["example.com"]}, "https://shop.example.com"),
        ({"cors": ["https://example.com/"]}, "without a slash"),
        ({"cors": ["https://example.com\r\nX: y"]}, "expected origins"),
        ({"cors": [1]}, "expected origins"),
        ({"x_accel_redirect": ""}, "expected a path"),
        ({"x_accel_redirect": "/a b/"}, "expected a path"),
        ({"x_accel_redirect": "/a/\r\nX: y"}, "expected a path"),
        ({"x_accel_redirect": "/a/", "x_sendfile": True}, "only one server"),
        ({"dir_path": ""}, "expected a directory"),
    ],
)
def test_invalid_options(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    """An invalid option is refused immediately, and the message states what was expected."""
    with pytest.raises(ValueError, match=words):
        StaticServer(**{"dir_path": tmp_path, **options})


@pytest.mark.parametrize(
    "path", ["", "/", "//", "/a/../b/", "/./", "/a//b/", "/a b/", "/a?b/", "/a#b/", "/ä/", "/a%20b/"]
)
def test_invalid_paths(tmp_path: Path, path: str) -> None:
    """The path of a middleware must be normalized and contain only characters that URLs need not escape."""
    with pytest.raises(ValueError, match="expected a path such as '/images/'"):
        StaticServerMiddleware(behind, path, tmp_path)


def test_loops_in_several_threads(tmp_path: Path) -> None:
    """One server can serve several event loops in different threads."""
    names = asyncio.run(put_many(tmp_path))
    server = StaticServer(tmp_path, block_size=BLOCK, open_files=2)
    wrong: list[object] = []

    async def ask_all() -> None:
        for _ in range(10):
            for name, blob in names.items():
                told = await Client(server).ask(f"/{name}")
                if not complete(told, blob):
                    wrong.append(name)

    threads = [threading.Thread(target=lambda: asyncio.run(ask_all())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


async def put_many(root: Path) -> dict[str, bytes]:
    blobs = [os.urandom(size) for size in (10, 5000, 20_000, 30_000)]
    return {await put(root, blob): blob for blob in blobs}


def test_a_new_pool_of_threads(tmp_path: Path) -> None:
    """An existing server works after the number of worker threads has changed."""

    async def ask() -> None:
        name = await put(tmp_path)
        _threads.set_workers(io=2)
        assert complete(await client(tmp_path).ask(f"/{name}"), SMALL)

    try:
        asyncio.run(ask())
    finally:
        _threads.set_workers(io=32)
