"""An application with a thumbnail worker, run by ``uvicorn tests.thumbnails.worker_app:app``."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, Request
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from aioimageattach import ThumbnailWorker, set_default_store
from aioimageattach.stores.fs import FileSystemStore
from tests.thumbnails.test_worker import Cover, Product

FOLDER = Path(os.environ.get("WORKER_APP", "."))
engine = create_async_engine(f"sqlite+aiosqlite:///{FOLDER / 'app.db'}", connect_args={"timeout": 60})
sessions = async_sessionmaker(engine, expire_on_commit=False)
store = FileSystemStore(FOLDER, "/files/", fsync=False)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Start the worker."""
    set_default_store(store)
    async with ThumbnailWorker(store, [Cover], sessions=sessions):
        yield
    await engine.dispose()


app = FastAPI(lifespan=lifespan)


@app.put("/covers/{number}")
async def put_cover(number: int, request: Request) -> int:
    """Attach an image; return the process id."""
    async with sessions.begin() as session:
        session.add(product := Product(id=number))
        await product.cover.from_blob(await request.body())
    return os.getpid()
