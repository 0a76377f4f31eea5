"""What ASGI applications are made of, and what a scope says."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

__all__ = ["ASGIApp", "Message", "Receive", "Scope", "Send", "route_path"]

Message: TypeAlias = MutableMapping[str, Any]
Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]


def route_path(scope: Scope) -> str:
    """Return the path below the application, without what it is mounted under.

    Servers differ in whether they put ``root_path`` before ``path``; it is taken away where it is there.
    """
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    if root:
        root = root.rstrip("/")
        rest = path.removeprefix(root)
        if len(rest) < len(path) and rest[:1] in ("", "/"):
            return rest
    return path
