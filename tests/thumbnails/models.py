"""Classes with declared thumbnails, and originals that are in no database."""

from __future__ import annotations

import io
from typing import Any

from PIL import Image as PillowImage
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from aioimageattach import FocalPoint, Image, Recipe, Srcset
from aioimageattach._declared.framing import POINT, Framing
from aioimageattach._declared.maker import Original, Thumbnail
from aioimageattach.entity._derived import declared_files
from aioimageattach.store import KeyedStore, Store
from aioimageattach.thumbnails._maker import ThumbnailMaker
from tests.photos import photo


class Base(DeclarativeBase):
    """The declarative base."""


class Photo(Base, Image, FocalPoint):
    """A photo with thumbnails of every kind."""

    __tablename__ = "photo"
    __thumbnails__ = {
        "icon": Srcset([24, 48], aspect=(1, 1), sizes="24px"),
        "card": Srcset([60, 120, 240], sizes="100vw"),
        "share": Recipe(width=120, height=63, format="jpeg"),
    }
    id: Mapped[int] = mapped_column(primary_key=True)


class Plain(Base, Image):
    """A picture without declared thumbnails."""

    __tablename__ = "plain"
    id: Mapped[int] = mapped_column(primary_key=True)


class Tenant(Base, Image):
    """A picture whose object type depends on the row."""

    __tablename__ = "tenant"
    __thumbnails__ = {"card": Srcset([60], fallback=None)}
    id: Mapped[int] = mapped_column(primary_key=True)
    tenant: Mapped[str]

    @property
    def object_type(self) -> str:
        """Return a different object type for each tenant."""
        return f"tenant-{self.tenant}"


class Links:
    """A thumbnail server that only calculates URLs."""

    is_private = False

    def __init__(self, store: Store, base_url: str = "/thumbnails/", query: str = "") -> None:
        self.store = store
        self.base_url = base_url
        self.query = query
        self.pictures: list[str] = []

    def query_of(self, picture: str) -> str:
        """Record the preparation of an image."""
        self.pictures.append(picture)
        return self.query


def row(cls: type[Any], store: Store, **values: Any) -> Any:
    """Return an original that belongs to no session."""
    usual = {"width": 451, "height": 300, "mimetype": "image/jpeg", "original": True, "revision": store.make_revision()}
    return cls(**{**usual, **values})


async def put(cls: type[Any], store: KeyedStore, blob: bytes | None = None, **values: Any) -> Any:
    """Put the file of an original, by default a photograph of Chelsea, and return its row."""
    found = row(cls, store, **values)
    await store.put(found.key, photo("chelsea") if blob is None else blob, reproducible=False)
    return found


def size_of(blob: bytes) -> tuple[int, int]:
    """Return the size of a picture."""
    return PillowImage.open(io.BytesIO(blob)).size


async def names(store: KeyedStore, prefix: str = "") -> list[str]:
    """Return the names of the files in a store."""
    return [info.name async for info in store.list_objects(prefix)]


def all_thumbnails(
    maker: ThumbnailMaker, original: Original, point: tuple[float, float] | None = None
) -> list[Thumbnail]:
    """Return all declared thumbnails of an original with a focal point."""
    framing = Framing.of(dict(zip(POINT, point or (), strict=False)))
    found = (
        Thumbnail.of(original, declaration, framing)
        for declarations in maker.declared(original.object_type)
        for declaration in declarations.values()
    )
    return list({one.stem: one for one in found}.values())


def declared(row: Image, store: KeyedStore) -> list[str]:
    """Return the names of the files that are declared for a row."""
    return sorted(store.name_of(one.key_for(row)) for one in declared_files(row))
