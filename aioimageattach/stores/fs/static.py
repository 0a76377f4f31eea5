"""Serves the files of a directory store to browsers, as an ASGI application and as a middleware."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from typing import Any, Final
from urllib.parse import quote

from ..._http.messages import ASGIApp, Receive, Scope, Send, route_path
from ...exc import StoreError, StoreFileNotFoundError
from .serving.answers import Answer, Asked, name_answer, offloaded, refusal
from .serving.headers import Cors
from .serving.names import Shown, shown
from .serving.reader import Reader, Reply

__all__ = ["BLOCK_SIZE", "ServerMiddleware", "StaticServer", "StaticServerMiddleware", "url_prefix"]

BLOCK_SIZE: Final = 128 * 1024
"""Bytes that are read and sent at a time."""

_PATHSEND: Final = "http.response.pathsend"
_PATHSEND_FROM: Final = 1024 * 1024

_log = logging.getLogger(__name__)


class StaticServer:
    """An ASGI application that serves the files of a :class:`~aioimageattach.stores.fs.FileSystemStore`.

    It shows the files of pictures and nothing else that may lie in the directory: neither unfinished or hidden files,
    nor what other programs put there under other names, nor what a link leads to. The guide *Serve pictures* has a
    table of what is answered how.

    Mount it under a path of an application, or run it alone.

    Args:
        dir_path: The directory of the store.
        block_size: Bytes that are read and sent at a time, for each client whose file is larger.
        cors: Which pages of other origins may use files: ``False`` for none (those of the same site may show them),
            ``True`` for all, or a list of origins such as ``"https://shop.example.com"``.
        open_files: How many files may stay open for the next request.
        pathsend: Whether to let the ASGI server read files of a mebibyte and more, where it offers to. That takes less
            of the processor; but the server opens them by their path, later, and follows links: nobody else may write
            to the directory.
        x_accel_redirect: Lets nginx send the files: the path of an internal location that leads to the directory, such
            as ``"/stored/"``.
        x_sendfile: Lets Apache or lighttpd send the files, by the header ``X-Sendfile``.

    Raises:
        ValueError: An argument cannot be so; the message says which, and what was expected.
    """

    def __init__(
        self,
        dir_path: str | os.PathLike[str],
        *,
        block_size: int = BLOCK_SIZE,
        cors: bool | Iterable[str] = False,
        open_files: int = 256,
        pathsend: bool = False,
        x_accel_redirect: str | None = None,
        x_sendfile: bool = False,
    ) -> None:
        for name, value in (("block_size", block_size), ("open_files", open_files)):
            if value < 1:
                raise ValueError(f"{name}: expected at least 1, got {value}")
        self.dir_path: str = os.fspath(dir_path).rstrip("/") or "/"
        if (pathsend or x_sendfile) and not self.dir_path.startswith("/"):
            raise ValueError(
                f"dir_path: expected an absolute path, as another program opens the files, got {self.dir_path!r}"
            )
        self._cors = Cors(cors)
        self._reader = Reader(self.dir_path, block_size, open_files)
        self._pathsend = pathsend
        self._offload = _offload(self.dir_path, x_accel_redirect, x_sendfile)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. A websocket is closed; at start and end of the server there is nothing to do."""
        if scope["type"] == "http":
            await self.serve(route_path(scope).removeprefix("/"), scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})
        else:
            await _live(receive, send)

    async def serve(self, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request for a file.

        Args:
            path: The name of the file within the store, unescaped, as it stands in the URL.
            scope: Of the HTTP request.
            receive: Asked whether the client has left, while a large file is sent.
            send: Given the answer.

        Raises:
            StoreError: The disk failed, or the file was cut off, while it was being sent. The server is to close the
                connection, so that nobody takes what came for the whole.

        Effects: However it ends, also when the client leaves or the task is cancelled, it leaves no task, and no files
        open but those that are kept for the next request.
        """
        asked = Asked.of(scope)
        file = name_answer(asked, shown(path), self._cors)
        if isinstance(file, Answer):
            await _send_short(file, send)
            return
        cors = self._cors.to(asked.origin)
        if self._offload is not None:
            await _send_short(offloaded(file, cors, *self._offload), send)
            return
        try:
            reply = await self._reader.look(asked, file, cors)
        except StoreFileNotFoundError:
            await _send_short(refusal(asked, 404, cors), send)
            return
        except StoreError as error:
            _log.warning("not served: %s", error)
            await _send_short(refusal(asked, 503, cors), send)
            return
        try:
            await self._send(reply, file, scope, receive, send)
        finally:
            reply.let_go()

    async def _send(self, reply: Reply, file: Shown, scope: Scope, receive: Receive, send: Send) -> None:
        if reply.is_complete:
            await _start(reply.answer, send)
            await send({"type": "http.response.body", "body": reply.first or b""})
        elif self._is_for_server(reply, scope):
            await _start(reply.answer, send)
            await send({"type": _PATHSEND, "path": f"{self.dir_path.rstrip('/')}/{file.name}"})
        else:
            await self._stream(reply, file, receive, send)

    async def _stream(self, reply: Reply, file: Shown, receive: Receive, send: Send) -> None:
        async with _leaving(receive) as left:
            await _start(reply.answer, send)
            body = reply.first
            for piece in self._reader.cut(reply.answer.pieces):
                if body is None:
                    body = piece if isinstance(piece, bytes) else await self._reader.read(file, reply.file, piece)
                if left.done():
                    return
                await send({"type": "http.response.body", "body": body, "more_body": True})
                body = None
                await asyncio.sleep(0)  # others shall have their turn, however fast this client reads
            await send({"type": "http.response.body"})

    def _is_for_server(self, reply: Reply, scope: Scope) -> bool:
        size = reply.file.size
        whole = reply.answer.pieces == [(0, size)]
        return self._pathsend and whole and size >= _PATHSEND_FROM and _PATHSEND in (scope.get("extensions") or {})


class ServerMiddleware:
    """Lets a :class:`StaticServer` answer the requests under a path, and leaves everything else to the application.

    Make it the outermost one, so that nothing adds cookies to answers that everybody may keep. Websockets and the
    lifespan pass.

    Args:
        app: The application.
        url_path: The path, such as ``"/images/"``; below ``root_path``, if the server has one.
        server: What answers.

    Raises:
        ValueError: ``url_path`` is no path.
    """

    def __init__(self, app: ASGIApp, url_path: str, server: StaticServer) -> None:
        self.app = app
        self.url_path: str = f"/{url_prefix(url_path)}/"
        self.server = server

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request for a file, or hand it on."""
        if scope["type"] == "http":
            path = route_path(scope)
            if path.startswith(self.url_path):
                await self.server.serve(path[len(self.url_path) :], scope, receive, send)
                return
        await self.app(scope, receive, send)


class StaticServerMiddleware(ServerMiddleware):
    """Serves the files of a directory under a path, and leaves everything else to the application.

    Args:
        app: The application.
        url_path: The path, such as ``"/images/"``; below ``root_path``, if the server has one.
        dir_path: The directory of the store.
        block_size: As for :class:`StaticServer`.
        cors: As for :class:`StaticServer`.
        options: Further ones of :class:`StaticServer`.

    Raises:
        ValueError: An argument cannot be so.
    """

    def __init__(
        self,
        app: ASGIApp,
        url_path: str,
        dir_path: str | os.PathLike[str],
        block_size: int = BLOCK_SIZE,
        cors: bool | Iterable[str] = False,
        **options: Any,
    ) -> None:
        super().__init__(app, url_path, StaticServer(dir_path, block_size=block_size, cors=cors, **options))


def url_prefix(text: str) -> str:
    """Return a path without the slashes around it.

    Raises:
        ValueError: It is empty, or no path that a URL can have as it stands.
    """
    prefix = text.strip("/")
    if not prefix or prefix != quote(prefix, safe="/") or {"", ".", ".."} & set(prefix.split("/")):
        raise ValueError(
            f"expected a path such as '/images/', of letters, digits, '-', '.', '_' and '~', got {text!r:.80}"
        )
    return prefix


def _offload(dir_path: str, x_accel_redirect: str | None, x_sendfile: bool) -> tuple[bytes, str] | None:
    if x_accel_redirect is None:
        return (b"x-sendfile", f"{dir_path.rstrip('/')}/") if x_sendfile else None
    if x_sendfile:
        raise ValueError("expected x_accel_redirect or x_sendfile, not both: one server sends the file")
    return b"x-accel-redirect", f"/{url_prefix(x_accel_redirect)}/"


@asynccontextmanager
async def _leaving(receive: Receive) -> AsyncGenerator[asyncio.Future[None], None]:
    """Watch for the client to leave: servers do not tell whoever sends."""
    left = asyncio.ensure_future(_until_left(receive))
    try:
        yield left
    finally:
        left.cancel()
        await asyncio.wait([left])
        if not left.cancelled():
            left.exception()  # a server that fails to tell has been left, too


async def _until_left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _live(receive: Receive, send: Send) -> None:
    while (message := await receive())["type"] != "lifespan.shutdown":
        await send({"type": f"{message['type']}.complete"})
    await send({"type": "lifespan.shutdown.complete"})


async def _start(answer: Answer, send: Send) -> None:
    await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})


async def _send_short(answer: Answer, send: Send) -> None:
    """Send an answer whose body needs no file."""
    body = b"".join(piece for piece in answer.pieces if isinstance(piece, bytes))
    await _start(answer, send)
    await send({"type": "http.response.body", "body": body})
