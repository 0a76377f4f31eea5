"""An S3 endpoint that stores nothing: ``python -m tests.bench.blackhole`` prints its port.

The last part of a path is the length of the object that is returned: ``/bucket/some-name/4096``.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from subprocess import PIPE, Popen

__all__ = ["running"]

SLICE = 256 * 1024
ETAG = "d41d8cd98f00b204e9800998ecf8427e"
_ZEROS = memoryview(bytes(SLICE))
_BEGUN = b"<InitiateMultipartUploadResult><UploadId>id</UploadId></InitiateMultipartUploadResult>"
_COMPLETED = b"<CompleteMultipartUploadResult><ETag>&quot;d41d8cd9&quot;</ETag></CompleteMultipartUploadResult>"


def _head(status: str, length: int) -> bytes:
    """Return the headers that Amazon sends, so that clients have as much to parse."""
    lines = [
        f"HTTP/1.1 {status}",
        "x-amz-id-2: Example7qoYGN7uMuFuYS6m7a4l2BHx6zPkx7gZwWdTSMrD7mhqDWVzx2rMdmAbCdEfGhIjKlMnOp=",
        "x-amz-request-id: 79104EXAMPLEB723",
        f"Date: {formatdate(usegmt=True)}",
        "Last-Modified: Sat, 01 Nov 2025 12:00:00 GMT",
        f'ETag: "{ETAG}"',
        "x-amz-server-side-encryption: AES256",
        "Accept-Ranges: bytes",
        "Content-Type: image/jpeg",
        f"Content-Length: {length}",
        "Server: AmazonS3",
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


class _Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self._pending = b""
        self._left = 0
        self._size = 0
        self._document = b""
        self._writable = asyncio.Event()
        self._writable.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        if self._left:
            self._left -= len(data)
            if not self._left:
                self._reply()
            return
        data = self._pending + data
        head, end, body = data.partition(b"\r\n\r\n")
        if not end:
            self._pending = data
            return
        self._pending = b""
        self._begin(head.decode("latin-1").split("\r\n"), len(body))

    def _begin(self, lines: list[str], received: int) -> None:
        method, target, _ = lines[0].split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        if "transfer-encoding" in headers:
            raise RuntimeError("a body without a length, which S3 refuses")
        if "expect" in headers:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._size = int(target.partition("?")[0].rpartition("/")[2]) if method == "GET" else 0
        self._document = b"" if method != "POST" else _BEGUN if "?uploads" in target else _COMPLETED
        self._left = int(headers.get("content-length", "0")) - received
        if not self._left:
            self._reply()

    def _reply(self) -> None:
        size = self._size
        if self._document:
            self._transport.write(_head("200 OK", len(self._document)) + self._document)
        elif size <= SLICE:
            self._transport.write(_head("200 OK", size) + _ZEROS[:size])
        else:
            self._transport.write(_head("200 OK", size))
            self._task = asyncio.ensure_future(self._send(size))

    async def _send(self, size: int) -> None:
        for start in range(0, size, SLICE):
            await self._writable.wait()
            self._transport.write(_ZEROS[: size - start])


async def _serve() -> None:
    server = await asyncio.get_running_loop().create_server(_Connection, "127.0.0.1", 0, backlog=512)
    print(server.sockets[0].getsockname()[1], flush=True)
    parent = os.getppid()
    while os.getppid() == parent:
        await asyncio.sleep(1)


@contextmanager
def running() -> Iterator[str]:
    """Run the endpoint in a separate process; yield its URL."""
    process = Popen([sys.executable, "-m", "tests.bench.blackhole"], stdout=PIPE, text=True)
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    asyncio.run(_serve())
