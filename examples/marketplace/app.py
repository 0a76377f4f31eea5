"""The application and its pages, whose forms use the JSON API."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles
from jinja2 import DictLoader, Environment
from sqlalchemy.exc import NoResultFound
from sqlalchemy.ext.asyncio import async_sessionmaker

from aioimageattach import KeyedStore, S3Store, ThumbnailServer, bind_store
from aioimageattach.problems import STATUSES, ProblemMiddleware
from aioimageattach.stores import SplitStore
from aioimageattach.stores.fs import HttpExposedFileSystemStore

from . import accounts, api
from .accounts import Session, Visitor
from .models import Photo, Product, User, create_engine

pages = APIRouter(include_in_schema=False)
templates = {file.name: file.read_text("utf-8") for file in Path(__file__).with_name("templates").iterdir()}
environment = Environment(loader=DictLoader(templates), autoescape=True)


def create_app(settings: Mapping[str, str] = os.environ) -> FastAPI:
    stores = open_stores(settings)
    sessions = async_sessionmaker(engine := create_engine(settings["DATABASE_URL"]), expire_on_commit=False)
    thumbnails = ThumbnailServer(SplitStore(*stores), [Photo], base_url="/thumbnails/")
    bind_store(sessions, thumbnails.store, thumbnails=thumbnails)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncGenerator[None]:
        async with thumbnails.store as store:
            await store.connect()
            yield
            await thumbnails.aclose()
            await engine.dispose()

    app = FastAPI(title="Marketplace", lifespan=lifespan, max_body_size=250_000_000)
    app.state.sessions, app.state.pictures = sessions, settings.get("THUMBNAILS_URL", "")
    for router in (accounts.router, api.router, pages):
        app.include_router(router)
    app.mount("/static", StaticFiles(directory=Path(__file__).with_name("static")))
    app.mount("/thumbnails", thumbnails)
    app.add_middleware(ProblemMiddleware, statuses={**STATUSES, NoResultFound: 404})
    for directory in [store for store in stores if isinstance(store, HttpExposedFileSystemStore)]:
        app.add_middleware(directory.asgi_middleware)
    return app


def open_stores(settings: Mapping[str, str]) -> tuple[KeyedStore, KeyedStore]:  # private originals, public thumbnails
    if "ORIGINALS_BUCKET" in settings:
        public = S3Store(settings["THUMBNAILS_BUCKET"], public_base_url=settings["THUMBNAILS_URL"])
        return S3Store(settings["ORIGINALS_BUCKET"], url_expires_in=600), public
    data, secret = Path(settings["DATA_DIR"]), settings["SECRET_KEY"]
    originals = HttpExposedFileSystemStore(data / "originals", "originals", url_secret=secret)
    return originals, HttpExposedFileSystemStore(data / "thumbnails", "pictures")


def page(request: Request, name: str, user: User | None, **context: object) -> Response:
    policy = f"default-src 'self'; img-src 'self' {request.app.state.pictures}; style-src-attr 'unsafe-inline'"
    headers = {"Content-Security-Policy": f"{policy}; frame-ancestors 'none'", "Cache-Control": "no-store"}
    return HTMLResponse(environment.get_template(name).render(request=request, user=user, **context), headers=headers)


@pages.get("/")
async def index(request: Request, user: Visitor, session: Session) -> Response:
    return page(request, "index.html", user, products=(await session.scalars(api.NEWEST)).all())


@pages.get("/products/{product_id}")
async def product(request: Request, product_id: int, user: Visitor, session: Session) -> Response:
    return page(request, "product.html", user, product=await session.get_one(Product, product_id))
