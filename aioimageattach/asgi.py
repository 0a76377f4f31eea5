"""For ASGI applications: FastAPI, Starlette, Litestar and any other."""

from __future__ import annotations

from ._http.messages import ASGIApp, Receive, Scope, Send
from .context import store_context
from .store import Store

__all__ = ["ASGIApp", "StoreContextMiddleware"]


class StoreContextMiddleware:
    """Sets the current store for every request and websocket, and for the code of the application's lifespan.

    A context that the lifespan code sets itself is not visible to requests, which run in other tasks; this one is.

    Args:
        app: The application.
        store: The store; a :class:`~aioimageattach.context.LocalProxyStore` is asked at each request.
    """

    def __init__(self, app: ASGIApp, store: Store) -> None:
        self.app = app
        self.store = store

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application; the context ends with it, whatever it raises."""
        with store_context(self.store):
            await self.app(scope, receive, send)
