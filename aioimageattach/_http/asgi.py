"""Types of the ASGI interface, and helpers for its scopes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

__all__ = ["ASGIApp", "Message", "Receive", "Scope", "Send", "rejects_event_loop", "route_path"]

Message: TypeAlias = MutableMapping[str, Any]
Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[Any, Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Awaitable[None]]
"""An ASGI application of any framework. Frameworks use different types for scopes and messages."""


def route_path(scope: Scope) -> str:
    """Return the path relative to the application, without the path at which the application is mounted.

    Some servers include ``root_path`` in ``path``, others do not; it is removed if present. uvicorn keeps the trailing
    slash of a ``root_path`` such as ``/shop/`` and sends ``/shop//path``.
    """
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    if not root.strip("/"):
        return path
    if root.endswith("/") and path.startswith(f"{root}/"):
        return path[len(root) :]
    root = root.rstrip("/")
    rest = path[len(root) :]
    return rest if path.startswith(root) and rest[:1] in ("", "/") else path


async def rejects_event_loop(receive: Receive, send: Send) -> bool:
    """Make the lifespan startup fail if the server does not run asyncio; return whether it failed.

    SQLAlchemy's asyncio extension and this library need asyncio. Without this check, a server on trio would start and
    then respond to every request with 500.
    """
    if asyncio._get_running_loop() is not None:
        return False
    await receive()
    reason = "aioimageattach requires a server that runs asyncio; with hypercorn, omit '-k trio'"
    await send({"type": "lifespan.startup.failed", "message": reason})
    return True
