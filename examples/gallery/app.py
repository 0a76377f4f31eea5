"""The application, put together."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from aioimageattach import set_default_store
from aioimageattach.exc import ImageError, ImageTooLargeError, StoreError, UnreadableImageError, UnsupportedImageError
from aioimageattach.stores.fs import LOCAL_HOSTS, HttpExposedFileSystemStore

from . import actions, pages, thumbnails
from .database import Database

if TYPE_CHECKING:
    from aioimageattach.stores.s3 import S3Store

STATUS: dict[type[Exception], int] = {
    ImageTooLargeError: 413,
    UnsupportedImageError: 415,
    UnreadableImageError: 422,
    StoreError: 503,
}
MAX_BODY = 200_000_000
"""Bytes of one form with all its files: the library bounds each picture, but by then the form is on disk."""


def create_app(data: Path, bucket: S3Store | None = None, hosts: Iterable[str] = LOCAL_HOSTS) -> FastAPI:
    """Return the gallery.

    Args:
        data: The directory of its database and its files; it is made where there is none.
        bucket: Keeps the files instead, whose URLs then lead to it; closed with the application.
        hosts: What the gallery may be reached as.
    """
    data.mkdir(parents=True, exist_ok=True)
    directory = HttpExposedFileSystemStore(data / "files", "files", allowed_hosts=hosts)
    store = bucket or directory
    database = Database(data / "gallery.sqlite")

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncGenerator[None, None]:
        set_default_store(store)
        await database.create_tables()
        await thumbnails.catch_up(database)
        yield
        await database.aclose()
        set_default_store(None)  # several tests create an application in one process
        if bucket is not None:
            await bucket.aclose()

    app = FastAPI(title="Gallery", lifespan=lifespan, max_body_size=MAX_BODY)
    app.state.database = database
    app.state.image_origin = "" if bucket is None else "{0.scheme}://{0.netloc}".format(urlsplit(bucket.url_of("a")))
    # The outermost middleware, so that no other one changes the responses with files.
    app.add_middleware(directory.asgi_middleware)
    app.mount("/static", StaticFiles(directory=Path(__file__).with_name("static")), name="static")
    app.include_router(pages.router)
    app.include_router(actions.router)
    app.add_exception_handler(HTTPException, refused)
    app.add_exception_handler(RequestValidationError, incomplete)
    for error in (ImageError, StoreError):
        app.add_exception_handler(error, not_attached)
    return app


async def refused(request: Request, error: Any) -> Response:
    """Say what the routes had to say."""
    return problem(request, error.status_code, str(error.detail))


async def incomplete(request: Request, error: Any) -> Response:
    """Say which fields are missing."""
    fields = ", ".join(sorted({str(one["loc"][1]) for one in error.errors()}))
    return problem(request, 422, f"Please check: {fields}.")


async def not_attached(request: Request, error: Any) -> Response:
    """Say what was wrong with a picture, in the library's words: they are meant to be read."""
    status = next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 422)
    name = "".join(f"{note}: " for note in getattr(error, "__notes__", ()))
    return problem(request, status, f"{name}{error}")


def problem(request: Request, status: int, message: str) -> Response:
    """Answer a script with the message, and a browser with a page of it."""
    if "application/json" in request.headers.get("Accept", ""):
        return JSONResponse({"message": message}, status)
    return pages.page(request, "problem.html", {"message": message}, status)
