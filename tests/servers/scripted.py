"""A server with scripted responses, byte by byte, for behaviour that real servers do not show on demand."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from tests.servers.listener import Listener


@dataclass(frozen=True)
class Request:
    """A received request."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


Reply = Callable[[Request, asyncio.StreamWriter], Awaitable[None]]


def answer(status: int = 200, body: bytes = b"", **headers: str) -> Reply:
    """Return a normal response; pass ``""`` to omit a header."""

    async def reply(request: Request, writer: asyncio.StreamWriter) -> None:
        sent = {"content-length": str(len(body))} | {name.replace("_", "-"): value for name, value in headers.items()}
        lines = [f"HTTP/1.1 {status} X", *(f"{name}: {value}" for name, value in sent.items() if value)]
        writer.write("\r\n".join([*lines, "", ""]).encode() + (b"" if request.method == "HEAD" else body))
        await writer.drain()

    return reply


def raw(data: bytes, *, pause: float = 0.0) -> Reply:
    """Return exactly these bytes and close the connection, optionally after a pause."""

    async def reply(_request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        await asyncio.sleep(pause)
        writer.close()

    return reply


def dripping(data: bytes, *, size: int, pause: float) -> Reply:
    """Return a response in pieces of a few bytes."""

    async def reply(_request: Request, writer: asyncio.StreamWriter) -> None:
        for start in range(0, len(data), size):
            writer.write(data[start : start + size])
            await writer.drain()
            await asyncio.sleep(pause)

    return reply


def halting(data: bytes, *, at: int, go_on: asyncio.Event) -> Reply:
    """Return a response up to a byte, and the rest when it is released."""

    async def reply(_request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(data[:at])
        await go_on.wait()
        writer.write(data[at:])
        await writer.drain()

    return reply


async def silence(_request: Request, _writer: asyncio.StreamWriter) -> None:
    """Never respond."""
    await asyncio.Event().wait()


def error(status: int, code: str, message: str = "no", *, inside: str = "", **headers: str) -> Reply:
    """Return an S3 error response."""
    body = (
        f"<Error><Code>{code}</Code><Message>{message}</Message>{inside}<RequestId>REQ</RequestId></Error>".encode()
        if code
        else b""
    )
    return answer(status, body, content_type="application/xml", **headers)


@dataclass
class Scripted(Listener):
    """Sends one reply per request in order, and repeats the last one."""

    replies: list[Reply]
    requests: list[Request] = field(default_factory=list)
    connections: int = 0

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while not writer.is_closing() and (request := await self._read(reader)) is not None:
                number = len(self.requests)
                self.requests.append(request)
                await self.replies[min(number, len(self.replies) - 1)](request, writer)
        except ConnectionError:
            pass
        finally:
            writer.close()

    @staticmethod
    async def _read(reader: asyncio.StreamReader) -> Request | None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            method, target, _ = head[0].split(" ")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:-2])}
            body = await reader.readexactly(int(headers.get("content-length", "0")))
        except asyncio.IncompleteReadError:
            return None
        return Request(method, target, headers, body)
