"""The application."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from aioimageattach import FileSystemStore, ThumbnailServer, ThumbnailWorker, set_default_store
from aioimageattach.exc import ImageError, ImageTooLargeError, StoreError, UnreadableImageError, UnsupportedImageError
from aioimageattach.stores.fs import StaticServer

from . import actions, pages
from .database import Database
from .models import Avatar, Photo

if TYPE_CHECKING:
    from aioimageattach.stores.s3 import S3Store

    from .fleet import Fleet

STATUS: dict[type[Exception], int] = {
    ImageTooLargeError: 413,
    UnsupportedImageError: 415,
    UnreadableImageError: 422,
    StoreError: 503,
}
MAX_BODY = 200_000_000
"""Largest request body, in bytes. The library limits each image, but by then the form is on disk."""


def create_app(data: Path, bucket: S3Store | None = None, fleet: Fleet | None = None) -> FastAPI:
    """Return the gallery.

    Args:
        data: Directory of the database and the files; created if it does not exist.
        bucket: Keeps the files instead of the directory; closed with the application.
        fleet: Has the database, and the queue of the workers that make the thumbnails of photographs; without it, they
            are made in this process, and the database is in the directory.
    """
    (data / "files").mkdir(parents=True, exist_ok=True)
    store = bucket or FileSystemStore(data / "files", "/files/")
    thumbnails = ThumbnailServer(store, [Avatar, Photo], base_url="/thumbnails/")
    database = Database(data / "gallery.sqlite" if fleet is None else fleet.database)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncGenerator[None, None]:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(store)
            stack.push_async_callback(thumbnails.aclose)
            stack.push_async_callback(database.aclose)
            set_default_store(store, thumbnails=thumbnails)
            stack.callback(set_default_store, None)  # several tests create an application in one process
            await database.create_tables()
            worker = ThumbnailWorker(store, [Photo]) if fleet is None else fleet.tasks(store)
            app.state.worker = await stack.enter_async_context(worker)
            yield

    app = FastAPI(title="Gallery", lifespan=lifespan, max_body_size=MAX_BODY)
    app.state.database = database
    app.state.image_origin = "" if bucket is None else "{0.scheme}://{0.netloc}".format(urlsplit(bucket.url_of("a")))
    app.mount("/thumbnails", thumbnails)
    app.mount("/files", StaticServer(data / "files"))
    app.mount("/static", StaticFiles(directory=Path(__file__).with_name("static")), name="static")
    app.include_router(pages.router)
    app.include_router(actions.router)
    app.add_exception_handler(HTTPException, refused)
    app.add_exception_handler(RequestValidationError, incomplete)
    for error in (ImageError, StoreError):
        app.add_exception_handler(error, not_attached)
    return app


async def refused(request: Request, error: Any) -> Response:
    """Respond with the error that a route raised."""
    return problem(request, error.status_code, str(error.detail))


async def incomplete(request: Request, error: Any) -> Response:
    """Name the fields that are missing or invalid."""
    fields = ", ".join(sorted({str(one["loc"][1]) for one in error.errors()}))
    return problem(request, 422, f"Please check: {fields}.")


async def not_attached(request: Request, error: Any) -> Response:
    """Respond with the library's message about an image, which is written for users."""
    status = next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 422)
    name = "".join(f"{note}: " for note in getattr(error, "__notes__", ()))
    return problem(request, status, f"{name}{error}")


def problem(request: Request, status: int, message: str) -> Response:
    """Respond to a script with the message as JSON, and to a browser with a page."""
    if "application/json" in request.headers.get("Accept", ""):
        return JSONResponse({"message": message}, status)
    return pages.page(request, "problem.html", {"message": message}, status)
