"""An application that a real server runs: it serves the thumbnails of a directory."""

from __future__ import annotations

import os
from pathlib import Path

from starlette.applications import Starlette
from starlette.routing import Mount

from aioimageattach.stores.fs import FileSystemStore
from aioimageattach.thumbnails import ThumbnailServer
from tests.thumbnails.models import Photo

store = FileSystemStore(Path(os.environ["SERVED"]), "/images/", fsync=False)
thumbnails = ThumbnailServer(store, [Photo], base_url="/thumbnails/", url_secret=os.environ.get("URL_SECRET"))
app = Starlette(routes=[Mount("/thumbnails", thumbnails)])
