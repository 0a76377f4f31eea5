"""An application for real servers: the files of a store, and a page that reports leaks of requests."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from typing import Any

from blockbuster import BlockBuster

from aioimageattach.stores.fs import HttpExposedFileSystemStore

SERVED = os.environ["SERVED"]

store = HttpExposedFileSystemStore(
    SERVED,
    cors=True,
    pathsend=bool(os.environ.get("PATHSEND")),
    x_accel_redirect=os.environ.get("ACCEL") or None,
)


def count_open_files() -> int:
    """Return the number of open files of the directory."""
    count = 0
    for fd in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            count += os.readlink(f"/proc/self/fd/{fd}").startswith(SERVED)
    return count


def count_serving_tasks() -> int:
    """Return the number of tasks that send a file, or watch for a disconnect."""
    count = 0
    for task in asyncio.all_tasks():
        awaited: Any = task.get_coro()
        while awaited is not None:
            if getattr(awaited, "__qualname__", "") in ("StaticServer.serve", "_disconnect"):
                count += 1
                break
            awaited = getattr(awaited, "cr_await", None)
    return count


async def left(scope: Any, receive: Any, send: Any) -> None:
    """Respond with the number of remaining tasks and open files of requests, and the URL of the server."""
    if scope["type"] == "lifespan":
        while (message := await receive())["type"] != "lifespan.shutdown":
            await send({"type": f"{message['type']}.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    text = f"{count_serving_tasks()} {await asyncio.to_thread(count_open_files)} {store.base_url}"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": text.encode()})


BlockBuster(["aioimageattach"]).activate()
app = store.asgi_middleware(left)
