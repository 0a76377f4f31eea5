"""Middleware for ASGI applications: FastAPI, Starlette, Litestar and others."""

from __future__ import annotations

from ._http.asgi import ASGIApp, Receive, Scope, Send, rejects_event_loop
from .context import store_context
from .context._current import overriding_store
from .store import Store

__all__ = ["StoreContextMiddleware"]


class StoreContextMiddleware:
    """Middleware that sets the current store for every request and websocket, and for the lifespan.

    A ``store_context`` that is entered in the lifespan does not apply to requests, because they run in other tasks.

    Args:
        app: The application.
        store: The store. To choose the store at each request, pass a :class:`~aioimageattach.context.LocalProxyStore`.
    """

    def __init__(self, app: ASGIApp, store: Store) -> None:
        self.app = app
        self.store = store

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the application with the store as the current store. On a server without asyncio, start-up fails."""
        if scope["type"] == "lifespan" and await rejects_event_loop(receive, send):
            return
        with store_context(overriding_store() or self.store):
            await self.app(scope, receive, send)
