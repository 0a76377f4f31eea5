"""An ASGI application and a middleware that serve the files of a directory store."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterable, Sequence
from typing import Final
from urllib.parse import quote

from ..._http.asgi import ASGIApp, Message, Receive, Scope, Send, rejects_event_loop, route_path
from ..._tasks import cancelled_after
from ..._telemetry import log_fields
from ...exc import InvalidKeyError, StoreError, StoreFileNotFoundError
from ._paths import absolute_path
from ._serving.names import ServableFile, parse_path
from ._serving.reader import Delivery, FileReader, Reader
from ._serving.responses import (
    Cors,
    RequestInfo,
    Response,
    error_response,
    make_private,
    offloaded_response,
    options_response,
)
from ._signing import UrlSigner

__all__ = [
    "BLOCK_SIZE",
    "FileServer",
    "ServerMiddleware",
    "StaticServer",
    "StaticServerMiddleware",
    "offload",
    "url_prefix",
]

BLOCK_SIZE: Final = 128 * 1024
"""Default size of the blocks that are read and sent, in bytes."""

_PATHSEND: Final = "http.response.pathsend"
_PATHSEND_FROM: Final = 1024 * 1024
_HTTP_1: Final = ("1.0", "1.1")

_log = logging.getLogger("aioimageattach.stores.fs")


class FileServer:
    """An ASGI application that serves files from a reader: the part of :class:`StaticServer` that needs no directory.

    Args:
        reader: Finds and reads files.
        cors: As for :class:`StaticServer`.
        pathsend: The directory whose files the ASGI server may read itself; ``None`` disables this.
        signer: If given, serve only URLs with a valid signature of this signer, and respond to all others with 403.
        offload: The header that makes a front-end server send the file, and the start of its value.
    """

    def __init__(
        self,
        reader: FileReader,
        *,
        cors: bool | Iterable[str] = False,
        pathsend: str | None = None,
        signer: UrlSigner | None = None,
        offload: tuple[bytes, str] | None = None,
    ) -> None:
        self._reader = reader
        self._cors = Cors(cors)
        self._pathsend = pathsend
        self._signer = signer
        self._offload = offload

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond to an HTTP request, close a websocket, or acknowledge lifespan events."""
        if scope["type"] == "http":
            await self.serve(route_path(scope).removeprefix("/"), scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})
        elif not await rejects_event_loop(receive, send):
            await _run_lifespan(receive, send)

    async def serve(self, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond to a request for a file.

        Args:
            path: The name of the file within the store, which is the percent-decoded path of the URL.
            scope: The scope of the HTTP request.
            receive: Called while sending may block, to detect that the client has disconnected.
            send: Called with the response.

        Raises:
            StoreError: The disk failed while the body was being sent, or the file was truncated. The server then closes
                the connection, so that the client can tell that the response is incomplete.

        Effects: On return, on error and on cancellation, no task is left running, and no file stays open except those
        kept for later requests.
        """
        delivery = await self._prepare(RequestInfo.from_scope(scope, self._cors), parse_path(path))
        try:
            body = delivery.single_body()
            if body is not None and scope.get("http_version", "1.1") in _HTTP_1:
                # HTTP/1 servers release a blocked send when the connection closes, so no watcher task is needed.
                await send(_start(delivery.response))
                await send({"type": "http.response.body", "body": body})
                return
            async with cancelled_after(_disconnect, receive):
                if body is None:
                    await self._stream(delivery, scope, send)
                else:
                    await send(_start(delivery.response))
                    await send({"type": "http.response.body", "body": body})
        finally:
            delivery.release()

    async def _prepare(self, request: RequestInfo, file: ServableFile | None) -> Delivery:
        if request.method == "OPTIONS":
            return Delivery(options_response(request, self._cors))
        if request.method not in ("GET", "HEAD"):
            return Delivery(error_response(request, 405))
        if file is None:
            return Delivery(error_response(request, 404))
        allowed = None
        if self._signer is not None:
            allowed = self._signer.verify(self._signed_name(file), request.query)
            if allowed is None:
                return Delivery(error_response(request, 403))
        delivery = self._peek(request, file) or await self._find(request, file)
        if allowed is not None:
            make_private(delivery.response, allowed.seconds_left, allowed.content_disposition)
        return delivery

    def _signed_name(self, file: ServableFile) -> str:
        """Return the name that the signature of a URL covers."""
        return file.name

    def _peek(self, request: RequestInfo, file: ServableFile) -> Delivery | None:
        """Return the response to a request if it is available without blocking."""
        if self._offload is not None and not request.needs_etag():
            return Delivery(offloaded_response(request, file, *self._offload))
        return self._reader.peek(request, file)

    async def _find(self, request: RequestInfo, file: ServableFile) -> Delivery:
        try:
            return await self._reader.prepare(request, file)
        except (StoreFileNotFoundError, InvalidKeyError):
            return Delivery(error_response(request, 404))
        except StoreError as error:
            _log.warning("file not served: %s", error, extra=log_fields("serving.failed", error))
            return Delivery(error_response(request, 503))

    async def _stream(self, delivery: Delivery, scope: Scope, send: Send) -> None:
        response, size = delivery.response, delivery.opened.info.size
        await send(_start(response))
        root = self._pathsend
        if root is not None and response.body == [(0, size)] and _offers_pathsend(scope, size):
            await send({"type": _PATHSEND, "path": f"{root.rstrip('/')}/{delivery.opened.name}"})
            return
        data = delivery.first
        for block in self._reader.blocks(response):
            if data is None:
                data = block if isinstance(block, bytes) else await self._reader.read(delivery, block)
            await send({"type": "http.response.body", "body": data, "more_body": True})
            data = None
            await asyncio.sleep(0)  # let other requests run, even if this client reads so fast that send() never blocks
        await send({"type": "http.response.body"})


class StaticServer(FileServer):
    """An ASGI application that serves the files of a :class:`~aioimageattach.stores.fs.FileSystemStore`.

    It serves only images and attached files of the store. It never serves unfinished or hidden files, files of other
    programs, or targets of symbolic links. The guide *Serve images* lists the response to each kind of request.

    Mount it in an application, or run it on its own.

    Args:
        dir_path: The directory of the store. A relative path is resolved when the server is created.
        block_size: Size of the blocks in which larger files are read and sent, in bytes; each client uses one block at
            a time.
        cors: The origins whose pages may use the files: ``False`` for none (pages of the same site may display them),
            ``True`` for all, or a list of origins such as ``"https://shop.example.com"``.
        open_files: How many files may stay open for later requests.
        pathsend: ``True`` if the ASGI server may read files of at least 1 MiB itself, if it supports the ``pathsend``
            extension. This saves CPU time. But the server opens the file later, by its path, and follows symbolic
            links, so no other program may have write access to the directory.
        url_secret: The secret of the :class:`~aioimageattach.stores.fs.HttpExposedFileSystemStore` that signs the URLs,
            or several secrets. If it is given, serve only signed URLs, and respond to all others with 403.
        x_accel_redirect: Let nginx send the files, with the header ``X-Accel-Redirect``: the path of an internal
            location that maps to the directory, such as ``"/stored/"``.
        x_sendfile: Let Apache or lighttpd send the files, with the header ``X-Sendfile``.

    Raises:
        ValueError: An argument is invalid; the message names it and the expected value.
    """

    def __init__(
        self,
        dir_path: str | os.PathLike[str],
        *,
        block_size: int = BLOCK_SIZE,
        cors: bool | Iterable[str] = False,
        open_files: int = 256,
        pathsend: bool = False,
        url_secret: str | bytes | Sequence[str | bytes] | None = None,
        x_accel_redirect: str | None = None,
        x_sendfile: bool = False,
    ) -> None:
        for name, value in (("block_size", block_size), ("open_files", open_files)):
            if value < 1:
                raise ValueError(f"{name}: expected at least 1, got {value}")
        self.dir_path: str = absolute_path(dir_path)
        super().__init__(
            Reader(self.dir_path, block_size, open_files),
            cors=cors,
            pathsend=self.dir_path if pathsend else None,
            signer=None if url_secret is None else UrlSigner(url_secret),
            offload=offload(self.dir_path, x_accel_redirect, x_sendfile),
        )


class ServerMiddleware:
    """A middleware that passes requests below a path to a file server, and all others to the application.

    Make it the outermost middleware, so that no other middleware adds cookies to cacheable responses. Websockets
    and lifespan events go to the application.

    Args:
        app: The application.
        url_path: The path, such as ``"/images/"``, relative to ``root_path`` if the server sets one.
        server: The file server.

    Raises:
        ValueError: ``url_path`` is not a valid path.
    """

    def __init__(self, app: ASGIApp, url_path: str, server: FileServer) -> None:
        self.app = app
        self.url_path: str = f"/{url_prefix(url_path)}/"
        self.server = server

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond to a request for a file, or call the application."""
        if scope["type"] == "http":
            path = route_path(scope)
            if path.startswith(self.url_path):
                await self.server.serve(path[len(self.url_path) :], scope, receive, send)
                return
        elif scope["type"] == "lifespan" and await rejects_event_loop(receive, send):
            return
        await self.app(scope, receive, send)


class StaticServerMiddleware(ServerMiddleware):
    """A middleware that serves the files of a directory below a path, and passes all other requests to the application.

    Args:
        app: The application.
        url_path: The path, such as ``"/images/"``, relative to ``root_path`` if the server sets one.
        dir_path: The directory of the store.
        block_size: As for :class:`StaticServer`, like all other options.

    Raises:
        ValueError: An argument is invalid.
    """

    def __init__(
        self,
        app: ASGIApp,
        url_path: str,
        dir_path: str | os.PathLike[str],
        block_size: int = BLOCK_SIZE,
        cors: bool | Iterable[str] = False,
        *,
        open_files: int = 256,
        pathsend: bool = False,
        url_secret: str | bytes | Sequence[str | bytes] | None = None,
        x_accel_redirect: str | None = None,
        x_sendfile: bool = False,
    ) -> None:  # no **options: mypy then rejects it as an argument of Starlette's add_middleware()
        server = StaticServer(
            dir_path,
            block_size=block_size,
            cors=cors,
            open_files=open_files,
            pathsend=pathsend,
            url_secret=url_secret,
            x_accel_redirect=x_accel_redirect,
            x_sendfile=x_sendfile,
        )
        super().__init__(app, url_path, server)


def url_prefix(text: str) -> str:
    """Return a path without the slashes around it.

    Raises:
        ValueError: The path is empty or not normalized, or contains a character that a URL must escape.
    """
    prefix = text.strip("/")
    if not prefix or prefix != quote(prefix, safe="/") or {"", ".", ".."} & set(prefix.split("/")):
        raise ValueError(
            f"expected a path such as '/images/' of letters, digits, '-', '.', '_' and '~', got {text!r:.80}"
        )
    return prefix


def offload(dir_path: str, x_accel_redirect: str | None, x_sendfile: bool) -> tuple[bytes, str] | None:
    """Return the header that makes a front-end server send the file, and the start of its value; ``None`` if disabled.

    Raises:
        ValueError: Both options are given.
    """
    if x_accel_redirect is None:
        return (b"x-sendfile", f"{dir_path.rstrip('/')}/") if x_sendfile else None
    if x_sendfile:
        raise ValueError("x_sendfile: expected False with x_accel_redirect, because only one server can send the file")
    return b"x-accel-redirect", f"/{url_prefix(x_accel_redirect)}/"


def _offers_pathsend(scope: Scope, size: int) -> bool:
    return size >= _PATHSEND_FROM and _PATHSEND in (scope.get("extensions") or {})


async def _disconnect(receive: Receive) -> None:
    """Wait until the client disconnects.

    This must be watched for: servers accept a send to a client that has disconnected, and a send that waits for HTTP/2
    flow control may never return.
    """
    try:
        while (await receive())["type"] != "http.disconnect":
            pass
    except Exception:
        _log.debug("the server does not report whether the client is connected", exc_info=True)


async def _run_lifespan(receive: Receive, send: Send) -> None:
    while (message := await receive())["type"] != "lifespan.shutdown":
        await send({"type": f"{message['type']}.complete"})
    await send({"type": "lifespan.shutdown.complete"})


def _start(response: Response) -> Message:
    return {"type": "http.response.start", "status": response.status, "headers": response.headers}
