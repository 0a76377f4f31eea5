"""A bound on what one request may send, before anything of it is kept."""

from __future__ import annotations

from typing import Any

from starlette.responses import PlainTextResponse

from aioimageattach.asgi import ASGIApp


class BodyLimitMiddleware:
    """Refuses forms that are too large or do not say how large they are.

    The library bounds each picture while it is read. By then the framework has spooled the whole form to disk.

    Args:
        app: The application.
        limit: In bytes.
    """

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self.app = app
        self.limit = limit

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Let the request through, or answer in the application's place."""
        if scope["type"] == "http" and scope["method"] == "POST":
            headers = dict(scope["headers"])
            if b"transfer-encoding" in headers:
                return await PlainTextResponse("Please say how large that is.", 411)(scope, receive, send)
            if int(headers.get(b"content-length", 0)) > self.limit:
                return await PlainTextResponse("That is too much at once.", 413)(scope, receive, send)
        return await self.app(scope, receive, send)
