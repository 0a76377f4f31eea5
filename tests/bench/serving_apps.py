"""The applications of the benchmark of serving, each as its own documentation has it."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from typing import Any

from aioimageattach.stores.fs import StaticServerMiddleware

ROOT = os.environ["BENCH_ROOT"]


class Lag:
    """How late the event loop comes to a task that wants to run every two milliseconds."""

    def __init__(self) -> None:
        self.late: list[float] = []
        self.ticking: asyncio.Task[None] | None = None

    async def tick(self) -> None:
        while True:
            wanted = time.perf_counter() + 0.002
            await asyncio.sleep(0.002)
            self.late.append(1e3 * (time.perf_counter() - wanted))

    async def tell(self, request: Any) -> Any:
        """Answer what was measured since the last time, in milliseconds, and go on."""
        from starlette.responses import JSONResponse

        late, self.late = sorted(self.late), []
        self.ticking = self.ticking or asyncio.create_task(self.tick())
        return JSONResponse(
            {"p50": late[len(late) // 2], "p99": late[int(len(late) * 0.99)], "max": late[-1]} if late else {}
        )


def application(*routes: Any) -> Any:
    """An application with routes, one of which tells the lag."""
    from starlette.applications import Starlette
    from starlette.routing import Route

    return Starlette(routes=[*routes, Route("/lag", Lag().tell)])


def __getattr__(name: str) -> Any:
    if name in ("ours", "pathsend"):
        return StaticServerMiddleware(application(), "/files/", ROOT, pathsend=name == "pathsend")
    if name == "starlette":
        from starlette.routing import Mount
        from starlette.staticfiles import StaticFiles

        return application(Mount("/files", app=StaticFiles(directory=ROOT)))
    raise AttributeError(name)


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    """Answers nothing: the server has the files."""


def aiohttp_server(port: int) -> None:
    """Serve the files by aiohttp."""
    from aiohttp import web

    app = web.Application()
    app.router.add_static("/files", ROOT)
    web.run_app(app, host="127.0.0.1", port=port, print=None, access_log=None)


if __name__ == "__main__":
    aiohttp_server(int(sys.argv[1]))
