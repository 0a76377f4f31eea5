"""For ASGI applications: FastAPI, Starlette, Litestar and any other."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

from .context import store_context
from .store import Store

__all__ = ["ASGIApp", "StoreContextMiddleware"]

Message: TypeAlias = MutableMapping[str, Any]
ASGIApp: TypeAlias = Callable[
    [MutableMapping[str, Any], Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]
]


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

    async def __call__(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        """Run the application; the context ends with it, whatever it raises."""
        with store_context(self.store):
            await self.app(scope, receive, send)
