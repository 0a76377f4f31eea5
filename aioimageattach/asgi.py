"""For ASGI applications: FastAPI, Starlette, Litestar and others."""

from __future__ import annotations

from ._http.asgi import ASGIApp, Receive, Scope, Send, rejects_event_loop
from .context import overriding_store, store_context
from .store import Store

__all__ = ["ASGIApp", "StoreContextMiddleware"]


class StoreContextMiddleware:
    """Sets the current store for every request and websocket, and for the code of the application's lifespan.

    A context that the lifespan's code sets itself is not visible to requests, because they run in other tasks.

    Args:
        app: The application.
        store: The store; a :class:`~aioimageattach.context.LocalProxyStore` is evaluated at each request.
    """

    def __init__(self, app: ASGIApp, store: Store) -> None:
        self.app = app
        self.store = store

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the application in the store's context, which ends with the call, also after an exception.

        On a server that does not run asyncio, the start of the lifespan fails.
        """
        if scope["type"] == "lifespan" and await rejects_event_loop(receive, send):
            return
        with store_context(overriding_store() or self.store):
            await self.app(scope, receive, send)
