"""A worker that runs a web application on a real server."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from sqlalchemy.ext.asyncio import async_sessionmaker
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from aioimageattach.context import bind_store
from aioimageattach.store import KeyedStore
from tests.faults.models import User
from tests.faults.rig import PNG, SIZE
from tests.faults.stores import FaultyStore

SLOW = 0.3
"""Delay before and after each put, in seconds."""


def application(sessions: async_sessionmaker[Any], inner: KeyedStore, folder: Path) -> Starlette:
    """Return an application that receives images, and makes thumbnails in background tasks.

    Args:
        sessions: The sessionmaker.
        inner: The store, which is slowed down.
        folder: A file ``reached`` is created here when a put starts.
    """
    store = FaultyStore(inner)
    tasks: set[asyncio.Task[None]] = set()

    async def slowly(name: str) -> None:
        (folder / "reached").touch()
        await asyncio.sleep(SLOW)

    store.at("put", slowly)
    store.at("put", slowly, after=True)

    async def attach(number: int, source: Any, **options: Any) -> None:
        async with sessions() as session, session.begin():
            bind_store(session, store)
            user = await session.get(User, number) or User(id=number)
            session.add(user)
            await user.picture.from_raw_file(source, None, options.pop("size", SIZE), PNG, **options)

    async def upload(request: Request) -> PlainTextResponse:
        await attach(request.path_params["number"], request.stream())
        return PlainTextResponse("stored")

    async def thumbnail(request: Request) -> PlainTextResponse:
        work = attach(request.path_params["number"], b"thumbnail", size=(3, 2), original=False)
        task = asyncio.create_task(work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        return PlainTextResponse("later")

    return Starlette(
        routes=[
            Route("/pictures/{number:int}", upload, methods=["POST"]),
            Route("/thumbnails/{number:int}", thumbnail, methods=["POST"]),
        ]
    )


async def by_uvicorn(app: Starlette, port: int) -> None:
    """Serve with uvicorn, which waits a tenth of a second for requests when it is stopped."""
    import uvicorn

    options: dict[str, Any] = {"log_level": "critical", "timeout_graceful_shutdown": 1, "lifespan": "off"}
    await uvicorn.Server(uvicorn.Config(app, port=port, **options)).serve()


async def by_hypercorn(app: Starlette, port: int) -> None:
    """Serve with hypercorn, likewise."""
    import signal

    from hypercorn.asyncio import serve
    from hypercorn.config import Config

    config = Config()
    config.bind = [f"127.0.0.1:{port}"]
    config.graceful_timeout = 1.0
    config.loglevel = "CRITICAL"
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    await serve(app, config, shutdown_trigger=ended.wait)  # type: ignore[arg-type]


SERVERS = {"uvicorn": by_uvicorn, "hypercorn": by_hypercorn}
