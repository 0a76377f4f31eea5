"""The applications of the benchmark of serving, each as its own documentation has it."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from typing import Any

from aioimageattach.stores.fs import StaticServer

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


def mounted(server: Any) -> Any:
    """An application in whose mount the files are."""
    from starlette.applications import Starlette
    from starlette.routing import Mount, Route

    return Starlette(routes=[Mount("/files", app=server), Route("/lag", Lag().tell)])


def __getattr__(name: str) -> Any:
    if name == "ours":
        return mounted(StaticServer(ROOT, block_size=int(os.environ.get("BENCH_BLOCK", 128 * 1024))))
    if name == "pathsend":
        return mounted(StaticServer(ROOT, pathsend=True))
    if name == "starlette":
        from starlette.staticfiles import StaticFiles

        return mounted(StaticFiles(directory=ROOT))
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
