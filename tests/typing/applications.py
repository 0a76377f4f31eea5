"""Types of middlewares and of functions that an application passes. Checked, never run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI
from litestar import Litestar
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from starlette.applications import Starlette
from starlette.middleware import Middleware

from aioimageattach import Image, Recipe, SingleImageSet
from aioimageattach.asgi import StoreContextMiddleware
from aioimageattach.problems import ProblemMiddleware
from aioimageattach.stores import MemoryStore
from aioimageattach.stores.fs import HttpExposedFileSystemStore, StaticServer, StaticServerMiddleware
from aioimageattach.thumbnails import backfill


def of_every_framework(store: HttpExposedFileSystemStore) -> None:
    for app in (FastAPI(), Starlette(), Litestar([])):
        store.asgi_middleware(app)
        StaticServerMiddleware(app, "/pictures/", "images")
        StoreContextMiddleware(app, store)
        ProblemMiddleware(store.asgi_middleware(app))
    StaticServerMiddleware(StaticServer("images"), "/pictures/", "images")


def added(app: FastAPI, store: HttpExposedFileSystemStore) -> None:
    app.add_middleware(store.asgi_middleware)
    app.add_middleware(ProblemMiddleware)
    app.add_middleware(StoreContextMiddleware, store=store)
    app.add_middleware(StaticServerMiddleware, url_path="/pictures/", dir_path="images", open_files=10)
    Middleware(StaticServerMiddleware, url_path="/pictures/", dir_path="images")
    app.mount("/pictures", StaticServer("images"))


def mistaken(app: FastAPI) -> None:
    app.add_middleware(StaticServerMiddleware, url_path="/", dir_path="x", open=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    StaticServerMiddleware(MemoryStore("/"), "/", "x")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def with_lists(original: str, thumbnails: list[str]) -> None: ...


async def with_sequences(original: str, thumbnails: Sequence[str]) -> int:
    return len(thumbnails)


async def backfills(sessions: async_sessionmaker[AsyncSession], image_class: type[Image]) -> None:
    backfill(sessions, image_class, enqueue=with_lists)
    backfill(sessions, image_class, enqueue=with_sequences)
    backfill(sessions, image_class, enqueue=print)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def thumbnails(pictures: SingleImageSet[Any]) -> None:
    await pictures.generate_thumbnails([160, Recipe(width=400, format="webp")])
