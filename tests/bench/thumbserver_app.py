"""The application for the benchmark of the thumbnail server: thumbnails, static files, and event loop delays."""

from __future__ import annotations

import os
from typing import Any

from starlette.routing import Mount

from aioimageattach.stores.fs import FileSystemStore, StaticServer
from aioimageattach.thumbnails import ThumbnailServer

from .declared import Photo
from .serving_apps import application


def __getattr__(name: str) -> Any:
    if name != "app":
        raise AttributeError(name)
    root = os.environ["BENCH_ROOT"]
    store = FileSystemStore(root, "/files/", fsync=False)
    return application(
        Mount("/thumbnails", ThumbnailServer(store, [Photo], base_url="/thumbnails/", max_wait=60)),
        Mount("/files", StaticServer(root)),
    )
