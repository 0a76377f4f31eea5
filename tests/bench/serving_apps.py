"""The applications of the benchmark of serving, each written as its documentation shows."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from typing import Any

from aioimageattach.stores.fs import StaticServerMiddleware

ROOT = os.environ["BENCH_ROOT"]


class Lag:
    """Measures the delay of a task that wants to run every two milliseconds."""

    def __init__(self) -> None:
        self.late: list[float] = []
        self.ticking: asyncio.Task[None] | None = None

    async def tick(self) -> None:
        while True:
            wanted = time.perf_counter() + 0.002
            await asyncio.sleep(0.002)
            self.late.append(1e3 * (time.perf_counter() - wanted))

    async def tell(self, request: Any) -> Any:
        """Return the delays since the last request, in milliseconds, and continue to measure."""
        from starlette.responses import JSONResponse

        late, self.late = sorted(self.late), []
        self.ticking = self.ticking or asyncio.create_task(self.tick())
        return JSONResponse(
            {"p50": late[len(late) // 2], "p99": late[int(len(late) * 0.99)], "max": late[-1]} if late else {}
        )


def application(*routes: Any) -> Any:
    """Return an application with routes, one of which returns the delays."""
    from starlette.applications import Starlette
    from starlette.routing import Route

    return Starlette(routes=[*routes, Route("/lag", Lag().tell)])


class Overhead:
    """Serves a file with this library, and below ``/bare/`` the same messages from memory."""

    def __init__(self) -> None:
        self.files = StaticServerMiddleware(nothing, "/files/", ROOT)
        self.messages: list[Any] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await nothing(scope, receive, send)
        elif not scope["path"].startswith("/bare/"):
            await self.files(scope, receive, send)
        else:
            if not self.messages:
                await self.files({**scope, "path": scope["path"].replace("/bare/", "/files/")}, receive, self.keep)
            for message in self.messages:
                await send(message)

    async def keep(self, message: Any) -> None:
        self.messages.append(message)


def __getattr__(name: str) -> Any:
    if name == "overhead":
        return Overhead()
    if name in ("ours", "pathsend"):
        return StaticServerMiddleware(application(), "/files/", ROOT, pathsend=name == "pathsend")
    if name == "starlette":
        from starlette.routing import Mount
        from starlette.staticfiles import StaticFiles

        return application(Mount("/files", app=StaticFiles(directory=ROOT)))
    raise AttributeError(name)


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    """Do not respond: the server itself serves the files."""
    while scope["type"] == "lifespan":
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return


def aiohttp_server(port: int) -> None:
    """Serve the files with aiohttp."""
    from aiohttp import web

    app = web.Application()
    app.router.add_static("/files", ROOT)
    web.run_app(app, host="127.0.0.1", port=port, print=None, access_log=None)


if __name__ == "__main__":
    aiohttp_server(int(sys.argv[1]))
