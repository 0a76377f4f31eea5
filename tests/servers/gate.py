"""A gateway in front of the S3 server that checks and records each request, and simulates failures."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import aiohttp
from aiohttp import web
from yarl import URL

from tests.servers.judge import Asked, Judge, Key, Refusal
from tests.servers.ministack import BIND, Ministack, authorization

ACCESS_KEY = "AKIDEXAMPLE"
SECRET_KEY = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
SIGNED_BY = {
    "AWSAccessKeyId",
    "Expires",
    "Signature",
    "X-Amz-Algorithm",
    "X-Amz-Credential",
    "X-Amz-Date",
    "X-Amz-Expires",
    "X-Amz-Security-Token",
    "X-Amz-Signature",
    "X-Amz-SignedHeaders",
    "x-amz-security-token",
}
CHECKSUM = re.compile(r"x-amz-checksum-(crc32|crc32c|crc64nvme|sha1|sha256)")
FORM_REGION = re.compile(rb"/\d{8}/([^/\s]+)/s3/aws4_request\r\n")
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "date", "server", "content-length", "expect"}


@dataclass(frozen=True)
class Answer:
    """A response."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""


@dataclass(frozen=True)
class Noted:
    """A recorded request with the status of its response."""

    asked: Asked
    status: int

    def __str__(self) -> str:
        return f"{self.asked.method} {self.asked.target.partition('?')[0]} {self.status}"


Before = Callable[[Asked], "Answer | Refusal | None"]
After = Callable[[Asked, Answer], "Answer | Awaitable[Answer] | None"]


class Gate:
    """An HTTP server in a thread, shared by all tests.

    Attributes:
        judge: Checks the credentials and signatures.
        before: Functions that receive each request before it is checked, and may respond to it.
        after: Functions that receive each response, and may change it; ``None`` breaks the connection.
        ahead: How far the server's clock is ahead.
        page: The number of entries on a page of a listing; ``None`` for the requested number.
        log: The requests since the last reset, in order.
    """

    def __init__(self, backend: Ministack) -> None:
        self.backend = backend
        self.log: list[Noted] = []
        self._under_way = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="gate", daemon=True)
        self._thread.start()
        self.port: int = self._call(self._start())
        self.reset()

    @property
    def url(self) -> str:
        """The URL of the gateway."""
        return f"http://{BIND}:{self.port}"

    def _call(self, work: Awaitable[Any]) -> Any:
        async def run() -> Any:
            return await work

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(30)

    async def _start(self) -> int:
        self._session = aiohttp.ClientSession(
            auto_decompress=False,
            skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
            connector=aiohttp.TCPConnector(limit=0),
        )
        self._runner = web.ServerRunner(web.Server(self._handle))
        await self._runner.setup()
        site = web.TCPSite(self._runner, BIND, 0)
        await site.start()
        return int(self._runner.addresses[0][1])

    def reset(self) -> None:
        """Discard requests, failures and files, after the last request of a former client has ended."""
        deadline = time.monotonic() + 10
        while self._under_way and time.monotonic() < deadline:
            time.sleep(0.01)
        self.backend.reset()
        self.judge = Judge({ACCESS_KEY: Key(SECRET_KEY)})
        self.before: list[Before] = []
        self.after: list[After] = []
        self.ahead = timedelta(0)
        self.page: int | None = None
        self.log.clear()

    def close(self) -> None:
        """Stop the server."""

        async def close() -> None:
            await self._runner.cleanup()
            await self._session.close()

        self._call(close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    # --- for tests -------------------------------------------------------------------------------------------------

    def fail(self, times: int, status: int, code: str, *, method: str = "", headers: Mapping[str, str] = {}) -> None:
        """Respond to the next requests of a method with an error."""
        left = times

        def play(asked: Asked) -> Refusal | None:
            nonlocal left
            if left <= 0 or (method and asked.method != method):
                return None
            left -= 1
            return Refusal(status, code, headers=headers)

        self.before.append(play)

    @contextmanager
    def noting(self) -> Iterator[list[Noted]]:
        """Collect the requests of a block."""
        start = len(self.log)
        found: list[Noted] = []
        yield found
        found.extend(self.log[start:])

    # --- requests --------------------------------------------------------------------------------------------------

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self._under_way += 1
        try:
            return await self._serve(request)
        finally:
            self._under_way -= 1

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        at = datetime.now(UTC) + self.ahead
        headers = {name.decode().lower(): value.decode() for name, value in request.raw_headers}
        body = await request.content.read()
        asked = Asked(request.method, request.raw_path, headers, body, at)
        answer = await self._answer(asked)
        if answer is None:
            self.log.append(Noted(asked, 0))
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        self.log.append(Noted(asked, answer.status))
        return await self._send(request, answer, at)

    async def _answer(self, asked: Asked) -> Answer | None:
        for play in tuple(self.before):
            played = play(asked)
            if isinstance(played, Refusal):
                return self._refused(asked, played)
            if played is not None:
                return played
        try:
            self.judge.check(asked)
        except Refusal as refusal:
            return self._refused(asked, refusal)
        answer: Answer | None = await self._forward(asked)
        assert answer is not None
        if asked.method == "PUT" and answer.status == 200:  # unlike S3, the server behind does not confirm checksums
            confirmed = {name: value for name, value in asked.headers.items() if CHECKSUM.fullmatch(name)}
            answer = replace(answer, headers={**answer.headers, **confirmed})
        for change in tuple(self.after):
            assert answer is not None
            changed = change(asked, answer)
            answer = await changed if isinstance(changed, Awaitable) else changed
            if answer is None:
                return None
        return answer

    @staticmethod
    def _refused(asked: Asked, refusal: Refusal) -> Answer:
        body = b"" if asked.method == "HEAD" else refusal.body
        return Answer(refusal.status, {"content-type": "application/xml", **refusal.headers}, body)

    async def _forward(self, asked: Asked) -> Answer:
        headers = {name: value for name, value in asked.headers.items() if name not in HOP_BY_HOP}
        path, _, query = asked.target.partition("?")
        if "authorization" not in headers or headers["authorization"].startswith("AWS "):
            # The server behind knows no keys and reads only the region, so the checked signature is replaced.
            region = asked.query.get("X-Amz-Credential", "//us-east-1").split("/")[2]
            if form := FORM_REGION.search(asked.body):
                region = form[1].decode()
            query = "&".join(pair for pair in query.split("&") if pair.partition("=")[0] not in SIGNED_BY)
            headers["authorization"] = authorization(region)
        if self.page is not None:
            query = re.sub(r"(max-(?:keys|uploads))=\d+", rf"\1={self.page}", query)
        target = f"{path}?{query}" if query else path
        url = URL(f"http://{BIND}:{self.backend.port}{target}", encoded=True)
        data = asked.body if len(asked.body) < 500_000 else _pieces(asked.body)
        headers["content-length"] = str(len(asked.body))
        async with self._session.request(
            asked.method, url, headers=headers, data=data, allow_redirects=False
        ) as answer:
            found = {name.lower(): value for name, value in answer.headers.items()}
            return Answer(answer.status, found, await answer.read())

    @staticmethod
    async def _send(request: web.BaseRequest, answer: Answer, at: datetime) -> web.StreamResponse:
        headers = {name: value for name, value in answer.headers.items() if name not in HOP_BY_HOP - {"content-length"}}
        headers["date"] = format_datetime(at, usegmt=True)
        if request.method != "HEAD":
            headers["content-length"] = str(len(answer.body))
        response = web.StreamResponse(status=answer.status, headers=headers)
        await response.prepare(request)
        if request.method != "HEAD" and answer.body:
            await response.write(answer.body)
        await response.write_eof()
        return response


async def _pieces(body: bytes) -> Any:
    for start in range(0, len(body), 256 * 1024):
        yield body[start : start + 256 * 1024]


def changed(answer: Answer, **changes: Any) -> Answer:
    """Return the response with some fields replaced."""
    return replace(answer, **changes)
