"""Originals for backfills, and a program that runs a backfill until it kills itself."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from aioimageattach import FocalPoint, Image, Recipe, Srcset, ThumbnailMarks
from aioimageattach.entity._image import utcnow
from aioimageattach.file import Source
from aioimageattach.key import ImageKey, make_revision
from aioimageattach.store import KeyedStore, ObjectInfo
from aioimageattach.stores.fs import FileSystemStore
from aioimageattach.stores.s3 import S3Store
from aioimageattach.thumbnails import backfill
from tests.photos import opened, saved

SMALL = saved(opened("chelsea", (60, 40)), "JPEG")
BEGIN = 1_700_000_000
STEP = 300.0
FILES = 4
"""Number of declared files of each original."""


class Base(DeclarativeBase):
    """The declarative base."""


class Picture(Base, Image, FocalPoint, ThumbnailMarks):
    """An image with four files."""

    __tablename__ = "backfilled"
    __thumbnails__ = {
        "icon": Srcset([24], aspect=(1, 1), fallback=None),
        "card": Srcset([20, 40], sizes="100vw"),
    }
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)


class Bare(Base, Image):
    """An image without marks and a focal point."""

    __tablename__ = "bare"
    __thumbnails__ = {"card": Recipe(width=10)}
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)


class CountingStore(FileSystemStore):
    """A store that counts its calls."""

    def __init__(self, path: Path) -> None:
        path.mkdir()
        super().__init__(path, "https://example.com/", fsync=False)
        self.listings = 0
        self.listed = 0
        self.reads = 0

    async def list_objects(self, prefix: str = "", *, start_after: str = "") -> AsyncIterator[ObjectInfo]:
        self.listings += 1
        async for info in super().list_objects(prefix, start_after=start_after):
            self.listed += 1
            yield info

    async def get_object(self, name: str, **options: Any) -> Any:
        self.reads += 1
        return await super().get_object(name, **options)


def values(number: int, **others: Any) -> dict[str, Any]:
    """Return the columns of a row whose image was uploaded five minutes after the previous one."""
    return {
        "id": number,
        "width": 60,
        "height": 40,
        "mimetype": "image/jpeg",
        "original": True,
        "variant": "",
        "created_at": utcnow(),
        "revision": make_revision(BEGIN + STEP * number),
        **others,
    }


async def fill(
    sessions: async_sessionmaker[AsyncSession],
    store: KeyedStore,
    count: int,
    cls: type[Any] = Picture,
    blob: bytes = SMALL,
    **others: Any,
) -> list[ImageKey]:
    """Insert rows with their files."""
    rows = [values(number, **others) for number in range(count)]
    async with sessions.begin() as session:
        await session.execute(insert(cls.__table__), rows)
    keys = [ImageKey(cls(**row).object_type, None, 60, 40, "image/jpeg", row["revision"]) for row in rows]
    for key in keys:
        await store.put(key, blob, reproducible=False)
    return keys


def bucket(url: str, access_key: str, secret_key: str, name: str, region: str) -> S3Store:
    """Return a store in a bucket of the tests."""
    return S3Store(name, access_key, secret_key, endpoint_url=url, region=region, timeout=30.0)


async def main(spec: dict[str, Any]) -> None:
    """Run the backfill, and kill this process after the given number of puts."""
    left = spec["puts"]

    def mortal(base: type[Any]) -> type[Any]:
        class Mortal(base):
            async def put_object(self, name: str, data: Source, **options: Any) -> None:
                nonlocal left
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                await super().put_object(name, data, **options)

        return Mortal

    if "folder" in spec:
        store = mortal(FileSystemStore)(spec["folder"], "/", fsync=False)
    else:
        name, *credentials = spec["bucket"]
        store = mortal(S3Store)(name, *credentials, endpoint_url=spec["endpoint"], region=spec["region"], timeout=30.0)
    sessions = async_sessionmaker(create_async_engine(spec["database"]))
    await backfill(sessions, Picture, store=store).execute()


def arguments(spec: dict[str, Any]) -> Sequence[str]:
    """Return the command that runs the program."""
    return [sys.executable, "-m", __name__, json.dumps(spec)]


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
