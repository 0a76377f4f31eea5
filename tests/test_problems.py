"""Responses to errors."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import BackgroundTasks, FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse
from sqlalchemy.exc import NoResultFound
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.responses import Response
from starlette.routing import Route

from aioimageattach import exc
from aioimageattach.problems import RESPONSES, STATUSES, ProblemMiddleware


def raising(error: Exception) -> Callable[[], Awaitable[None]]:
    async def fail() -> None:
        raise error

    return fail


def application(error: Exception, kind: str, *, statuses: Any = STATUSES) -> Any:
    if kind == "fastapi":
        app = FastAPI()
        app.add_middleware(ProblemMiddleware, statuses=statuses)
        app.get("/")(raising(error))
        return app

    async def endpoint(request: Request) -> Response:
        raise error

    return Starlette(routes=[Route("/", endpoint)], middleware=[Middleware(ProblemMiddleware, statuses=statuses)])


async def get(app: Any, path: str = "/") -> httpx.Response:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        return await client.get(path)


@pytest.mark.parametrize("kind", ["fastapi", "starlette"])
async def test_errors_of_other_libraries_can_have_a_status(kind: str) -> None:
    """Configured errors of other libraries become problems with their own message; all others propagate."""
    app = application(NoResultFound("no such article"), kind, statuses={**STATUSES, NoResultFound: 404})
    answer = await get(app)
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")
    assert (answer.json()["code"], answer.json()["detail"]) == ("no-result-found", "no such article")
    with pytest.raises(NoResultFound):
        await get(application(NoResultFound("no such article"), kind))


@pytest.mark.parametrize("kind", ["fastapi", "starlette"])
@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (exc.UnreadableImageError("expected an image"), (422, "Unprocessable Content", "unreadable-image", {})),
        (exc.ImageError("no"), (422, "Unprocessable Content", "image", {})),
        (
            exc.UnsupportedImageError("no", mimetype="image/x", allowed=frozenset({"image/b", "image/a"})),
            (
                415,
                "Unsupported Media Type",
                "unsupported-image",
                {"mimetype": "image/x", "allowed": ["image/a", "image/b"]},
            ),
        ),
        (
            exc.ImageTooLargeError("no", limit=10, actual=float("inf")),
            (413, "Content Too Large", "image-too-large", {"limit": 10}),
        ),
        (
            exc.ImageProportionsError("no", limit=2.0, actual=3.5),
            (422, "Unprocessable Content", "image-proportions", {"limit": 2.0, "actual": 3.5}),
        ),
        (
            exc.ValueTooLargeError("no", limit=1, actual=2),
            (413, "Content Too Large", "value-too-large", {"limit": 1, "actual": 2}),
        ),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_refused_pictures_are_problems_of_the_client(kind: str, error: Exception, expected: Any) -> None:
    """An error that the client's picture causes is a 4xx response with problem details."""
    response = await get(application(error, kind))
    status, title, code, fields = expected
    assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json")
    assert response.headers["cache-control"] == "no-store"
    assert response.json() == {
        "type": "about:blank",
        "title": title,
        "status": status,
        "detail": str(error),
        "code": code,
        **fields,
    }


@pytest.mark.parametrize(
    ("error", "status", "detail"),
    [
        (exc.NoOriginalError("<SingleImageSet User.picture> has no original"), 404, "no image is attached"),
        (
            exc.StoreUnavailableError("s3://secret-bucket does not answer", store="s3://secret-bucket"),
            503,
            "images cannot be read or stored at the moment; try again later",
        ),
    ],
)
async def test_internal_details_are_not_shown(error: Exception, status: int, detail: str) -> None:
    """The response for an error that names classes or stores has another text."""
    response = await get(application(error, "starlette"))
    assert (response.status_code, response.json()["detail"]) == (status, detail)
    assert ("retry-after" in response.headers) == (status == 503)


USAGE = [
    exc.NotLoadedError("no"),
    exc.ContextError("no"),
    exc.DeclarationError("no"),
    exc.UsageError("no"),
]


@pytest.mark.parametrize(
    "error", [*USAGE, exc.ProcessingError("no"), exc.StorePermissionError("no"), ZeroDivisionError("no")], ids=repr
)
async def test_programming_errors_propagate(error: Exception) -> None:
    """Programming errors are not converted: the server logs them and responds with 500."""
    with pytest.raises(type(error)) as caught:
        await get(application(error, "fastapi"))
    assert caught.value is error


def test_usage_errors_and_refused_pictures_have_different_bases() -> None:
    """No error class derives from both base classes."""
    classes = [getattr(exc, name) for name in exc.__all__]
    both = [one for one in classes if issubclass(one, exc.UsageError) and issubclass(one, exc.ImageError)]
    assert both == []
    assert [error for error in USAGE if not isinstance(error, exc.UsageError)] == []


async def test_custom_statuses() -> None:
    """An application can choose its own statuses."""
    response = await get(application(exc.ImageTooSmallError("no"), "fastapi", statuses={exc.ImageError: 400}))
    assert (response.status_code, response.json()["title"]) == (400, "Error")
    with pytest.raises(exc.NoOriginalError):
        await get(application(exc.NoOriginalError("no"), "fastapi", statuses={exc.ImageError: 400}))


async def test_an_error_after_the_response_started(caplog: pytest.LogCaptureFixture) -> None:
    """An error in the middle of a body propagates, so that the client does not take the response for complete."""
    app = FastAPI()
    app.add_middleware(ProblemMiddleware)

    @app.get("/")
    async def stream() -> StreamingResponse:
        async def body() -> AsyncIterator[bytes]:
            yield b"half"
            raise exc.StoreUnavailableError("gone")

        return StreamingResponse(body())

    with pytest.raises(exc.StoreUnavailableError):
        await get(app)
    assert caplog.records == []


def with_tasks() -> FastAPI:
    """Return the application of the guides, with a handler for refused pictures and failing background tasks."""
    app = FastAPI()
    app.add_middleware(ProblemMiddleware)

    @app.exception_handler(exc.ImageError)
    async def refuse(request: Request, error: exc.ImageError) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 422)

    @app.get("/replaced")
    async def replaced(tasks: BackgroundTasks) -> str:
        tasks.add_task(raising(exc.NoOriginalError("replaced meanwhile")))
        return "ok"

    @app.get("/damaged")
    async def damaged(tasks: BackgroundTasks) -> str:
        tasks.add_task(raising(exc.UnreadableImageError("broken pixels")))
        return "ok"

    @app.get("/usage")
    async def usage() -> Response:
        return Response("ok", background=BackgroundTask(raising(exc.NotLoadedError("not loaded"))))

    @app.get("/other")
    async def other(tasks: BackgroundTasks) -> str:
        tasks.add_task(raising(ZeroDivisionError()))
        return "ok"

    return app


@pytest.mark.parametrize("path", ["/replaced", "/damaged", "/usage"])
async def test_a_task_that_fails_is_logged(path: str, caplog: pytest.LogCaptureFixture) -> None:
    """An error of this library after the response is logged with its traceback and does not propagate."""
    with caplog.at_level(logging.ERROR, "aioimageattach.problems"):
        response = await get(with_tasks(), path)
    assert response.status_code == 200
    [record] = caplog.records
    assert (record.getMessage(), record.exc_info is not None) == (
        f"a task failed after the response to GET {path}",
        True,
    )


async def test_other_errors_of_tasks_propagate() -> None:
    """The middleware does not hide errors of the application."""
    with pytest.raises(ZeroDivisionError):
        await get(with_tasks(), "/other")


async def test_a_task_that_fails_leaves_the_connection_open() -> None:
    """After a background task has failed, a real server serves further requests over the same connection."""
    server = uvicorn.Server(uvicorn.Config(with_tasks(), port=0, log_config=None, lifespan="off"))
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    reader, writer = await asyncio.open_connection(*server.servers[0].sockets[0].getsockname())
    statuses = []
    for path in (b"/replaced", b"/damaged", b"/usage", b"/replaced"):
        writer.write(b"GET %s HTTP/1.1\r\nHost: test\r\n\r\n" % path)
        head = await reader.readuntil(b"\r\n\r\n")
        statuses.append((head.split(b" ")[1], await reader.readexactly(4 if b"json" in head else 2)))
    writer.close()
    server.should_exit = True
    await serving
    assert statuses == [(b"200", b'"ok"'), (b"200", b'"ok"'), (b"200", b"ok"), (b"200", b'"ok"')]


async def test_other_scopes_are_passed_on() -> None:
    """Lifespan and websocket scopes are passed to the application."""
    scopes = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope["type"])

    for kind in ("lifespan", "websocket"):
        await ProblemMiddleware(app)({"type": kind}, None, None)  # type: ignore[arg-type]
    assert scopes == ["lifespan", "websocket"]


async def test_openapi_describes_the_responses() -> None:
    """FastAPI documents the responses of the middleware."""
    app = FastAPI()
    app.add_middleware(ProblemMiddleware)
    error = exc.ImageTooLargeError("no", limit=1, actual=2)
    app.get("/", responses={status: RESPONSES[status] for status in (413, 415, 422)})(raising(error))
    responses = app.openapi()["paths"]["/"]["get"]["responses"]
    assert sorted(responses) == ["200", "413", "415", "422"]
    schema = responses["413"]["content"]["application/problem+json"]["schema"]
    assert set(schema["required"]) <= set((await get(app)).json()) <= set(schema["properties"])
    assert set(RESPONSES) == set(STATUSES.values())
