"""Two versions of an application, which run side by side in a rolling deployment: ``VERSION`` is ``old`` or ``new``."""

from __future__ import annotations

import json
import os
from typing import Any

from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from starlette.applications import Starlette
from starlette.routing import Mount

from aioimageattach import FocalPoint, Image, Recipe, Srcset
from aioimageattach.thumbnails import ThumbnailServer
from tests.faults.kill.worker import store_of
from tests.thumbnails.models import Photo


class Base(DeclarativeBase):
    """The base of the new version."""


class New(Base, Image, FocalPoint):
    """A class with other widths of ``icon``, formats and look of ``card``, and size of ``share``."""

    __tablename__ = "photo"
    __thumbnails__ = {
        "icon": Srcset([24, 40], aspect=(1, 1), sizes="24px"),
        "card": Srcset([50, 120, 200], formats=["webp", "png"], quality=50, sizes="100vw"),
        "share": Recipe(width=100, height=50, format="jpeg"),
    }
    id: Mapped[int] = mapped_column(primary_key=True)


VERSIONS: dict[str, type[Any]] = {"old": Photo, "new": New}


def __getattr__(name: str) -> Any:
    if name != "app":
        raise AttributeError(name)
    store = store_of(json.loads(os.environ["STORE"]))
    server = ThumbnailServer(store, [VERSIONS[os.environ["VERSION"]]], base_url="/thumbnails/")
    return Starlette(routes=[Mount("/thumbnails", server)])
