"""Helpers for ASGI scopes."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from aioimageattach._http.asgi import route_path
from aioimageattach.asgi import StoreContextMiddleware
from aioimageattach.stores import MemoryStore
from aioimageattach.stores.fs import HttpExposedFileSystemStore, StaticServer, StaticServerMiddleware


@pytest.mark.parametrize(
    ("path", "root", "expected"),
    [
        ("/a/b", "", "/a/b"),
        ("/shop/a", "/shop", "/a"),
        ("/shop/a", "/shop/", "/a"),
        ("/shop//a", "/shop/", "/a"),  # uvicorn with --root-path /shop/
        ("/shop///a/b", "/shop//", "/a/b"),
        ("//a", "//", "//a"),
        ("/shop", "/shop", ""),
        ("/a", "/shop", "/a"),
        ("/shopping/a", "/shop", "/shopping/a"),
        ("/a/shop/b", "/shop", "/a/shop/b"),
        ("/a", "/", "/a"),
    ],
)
def test_the_path_relative_to_the_application(path: str, root: str, expected: str) -> None:
    """The path is the same whether or not the server includes the root path."""
    assert route_path({"path": path, "root_path": root}) == expected
    assert route_path({"path": expected}) == expected


@pytest.mark.parametrize("kind", ["server", "server's middleware", "store's middleware", "context's middleware"])
def test_servers_without_asyncio(kind: str) -> None:
    """Start-up fails with an explanation, instead of each later request."""
    app = {
        "server": StaticServer("/"),
        "server's middleware": StaticServerMiddleware(never_called, "/images/", "/"),
        "store's middleware": HttpExposedFileSystemStore("/").asgi_middleware(never_called),
        "context's middleware": StoreContextMiddleware(never_called, MemoryStore()),
    }[kind]
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "lifespan.startup"}

    async def send(message: Any) -> None:
        sent.append(message)

    trio.run(app, {"type": "lifespan"}, receive, send)
    assert [message["type"] for message in sent] == ["lifespan.startup.failed"]
    assert "requires a server that runs asyncio" in sent[0]["message"]


async def never_called(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError
