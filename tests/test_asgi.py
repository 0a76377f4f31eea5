"""The middleware that sets the store of every request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from aioimageattach.asgi import StoreContextMiddleware
from aioimageattach.context import ContextError, LocalProxyStore, current_store, get_current_store, store_context
from aioimageattach.stores import MemoryStore


def seen() -> str:
    store = get_current_store()
    assert isinstance(store, MemoryStore)
    return store.base_url


async def show(request: Request) -> PlainTextResponse:
    await asyncio.sleep(0)
    return PlainTextResponse(seen())


async def stream(request: Request) -> StreamingResponse:
    async def body() -> AsyncIterator[str]:
        await asyncio.sleep(0)
        yield seen()

    return StreamingResponse(body())


async def fail(request: Request) -> None:
    raise ZeroDivisionError


async def socket(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_text(seen())
    await websocket.close()


def starlette(store: Any, **kwargs: Any) -> Starlette:
    return Starlette(
        routes=[
            Route("/", show),
            Route("/stream", stream),
            Route("/fail", fail),
            WebSocketRoute("/socket", socket),
        ],
        middleware=[Middleware(StoreContextMiddleware, store=store)],
        **kwargs,
    )


def client(app: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app")


@pytest.mark.parametrize("path", ["/", "/stream"])
async def test_a_request_has_the_store(path: str) -> None:
    """The store is current during a request, also while its body is streamed, but not outside of it."""
    async with client(starlette(MemoryStore("one"))) as http:
        assert (await http.get(path)).text == "one/"
    with pytest.raises(ContextError):
        get_current_store()


async def test_the_context_ends_with_an_exception() -> None:
    """An exception of the application propagates, and the store is no longer current."""
    async with client(starlette(MemoryStore("one"))) as http:
        with pytest.raises(ZeroDivisionError):
            await http.get("/fail")
    with pytest.raises(ContextError):
        get_current_store()


async def test_concurrent_requests_of_two_applications() -> None:
    """Concurrent requests of two applications each use the store of their application."""
    async with client(starlette(MemoryStore("one"))) as one, client(starlette(MemoryStore("two"))) as two:
        answers = await asyncio.gather(*(http.get("/") for _ in range(25) for http in (one, two)))
    assert [answer.text for answer in answers] == ["one/", "two/"] * 25


async def test_inside_another_context() -> None:
    """The store of the middleware is current inside the application, and the outer store again afterwards."""
    with store_context(MemoryStore("outer")):
        async with client(starlette(MemoryStore("inner"))) as http:
            assert (await http.get("/")).text == "inner/"
        assert seen() == "outer/"


async def test_a_proxy_is_resolved_at_each_request() -> None:
    """The middleware resolves a proxy store at each request."""
    stores = [MemoryStore("first"), MemoryStore("second")]
    async with client(starlette(LocalProxyStore(lambda: stores[0]))) as http:
        assert (await http.get("/")).text == "first/"
        stores.pop(0)
        assert (await http.get("/")).text == "second/"


async def talk(app: Any, scope: dict[str, Any], *messages: dict[str, Any]) -> list[dict[str, Any]]:
    """Send messages to an application as a server does, and return its responses."""
    waiting = list(messages)
    answers: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return waiting.pop(0)

    async def send(message: Any) -> None:
        answers.append(message)

    await app(scope, receive, send)
    return answers


async def test_a_lifespan_has_the_store() -> None:
    """The store is current during start-up and shutdown, and lifespan messages are passed on."""
    log: list[str] = []

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        log.append(f"start {seen()}")
        yield
        log.append(f"end {seen()}")

    app = starlette(MemoryStore("one"), lifespan=lifespan)
    answers = await talk(
        app, {"type": "lifespan", "state": {}}, {"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}
    )
    assert [answer["type"] for answer in answers] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert log == ["start one/", "end one/"]


async def test_a_websocket_has_the_store() -> None:
    """The store is current for all messages of a websocket."""
    scope = {"type": "websocket", "path": "/socket", "headers": [], "query_string": b"", "subprotocols": []}
    answers = await talk(starlette(MemoryStore("one")), scope, {"type": "websocket.connect"})
    assert [answer["type"] for answer in answers] == ["websocket.accept", "websocket.send", "websocket.close"]
    assert answers[1]["text"] == "one/"


async def test_fastapi() -> None:
    """The store is current in handlers and dependencies of FastAPI, whether or not they are coroutines."""
    app = FastAPI()
    app.add_middleware(StoreContextMiddleware, store=MemoryStore("one"))

    @app.get("/async")
    async def async_handler() -> str:
        return seen()

    @app.get("/sync")
    def sync_handler() -> str:
        return seen()

    async with client(app) as http:
        assert [(await http.get(path)).json() for path in ("/async", "/sync")] == ["one/", "one/"]
    with pytest.raises(ContextError):
        current_store.make_revision()
