"""A process that serves declared thumbnails while images are replaced and deleted, until it is killed."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Hashable
from random import Random
from typing import Any

from PIL import Image as PillowImage
from sqlalchemy import ForeignKey, String, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from aioimageattach import FocalPoint, Image, Srcset, ThumbnailMarks, bind_store, image_attachment, store_context
from aioimageattach.entity._derived import declared_files
from aioimageattach.exc import ImageAttachError, StoreFileNotFoundError
from aioimageattach.store import KeyedStore
from aioimageattach.thumbnails import ThumbnailServer
from tests.faults.kill.steps import Watch, WatchedStore
from tests.faults.kill.worker import database_of, store_of
from tests.servers.asking import Client, Told

BASE = "/thumbnails/"
SIZE = (64, 32)
LEVELS = (0, 64, 128, 192, 255)
NEARLY = 30
VIEWERS = 3

Colour = tuple[int, ...]


class Base(DeclarativeBase):
    """The declarative base."""


class Owner(Base):
    """An owner of one image."""

    __tablename__ = "owner"
    id: Mapped[int] = mapped_column(primary_key=True)
    picture = image_attachment["Picture"]("Picture")


class Picture(Base, Image, FocalPoint, ThumbnailMarks):
    """An image with a different colour on each side; ``icon`` shows the side with the focal point."""

    __tablename__ = "picture"
    __thumbnails__ = {
        "card": Srcset([32, 64], sizes="100vw"),
        "icon": Srcset([16], aspect=(1, 2), fallback=None),
    }
    owner_id: Mapped[int] = mapped_column(ForeignKey("owner.id"), primary_key=True)


class Given(Base):
    """The colours of every image that was ever committed."""

    __tablename__ = "given"
    revision: Mapped[str] = mapped_column(String(64), primary_key=True)
    left: Mapped[int]
    right: Mapped[int]


def colour_of(number: int) -> Colour:
    """Return one of 125 colours that differ by more than compression can cause."""
    return tuple(LEVELS[number // 5**place % 5] for place in range(3))


def picture_of(left: int, right: int) -> bytes:
    """Return an image with two colours."""
    image = PillowImage.new("RGB", SIZE, colour_of(left))
    image.paste(PillowImage.new("RGB", (SIZE[0] // 2, SIZE[1]), colour_of(right)), (SIZE[0] // 2, 0))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def check_picture(blob: bytes, name: str, point: str, given: Given) -> None:
    """Assert that a thumbnail shows the colours of the right part of its original."""
    with PillowImage.open(io.BytesIO(blob)) as image:
        pixels = image.convert("RGB")
    sides = [given.left, given.right]
    if name == "icon":
        sides = [given.right if point.startswith("100") else given.left] * 2
    for place, side in zip((1, 3), sides, strict=True):
        found: Any = pixels.getpixel((pixels.width * place // 4, pixels.height // 2))
        wanted = colour_of(side)
        assert all(abs(one - other) <= NEARLY for one, other in zip(found, wanted, strict=True)), (name, found, wanted)


class Watched(WatchedStore):
    """A store at the same location that notifies a watch of puts of thumbnails and of all deletions."""

    def location_of(self, object_type: str | None = None) -> frozenset[Hashable]:
        """Return a location that is the same in every process."""
        return self.inner.location_of(object_type)

    def _passing(self, step: str) -> Any:
        passing = super()._passing(step)

        async def action(name: str) -> None:
            if "put" not in step or ".t/" in name:
                await passing(name)

        return action


class Site:
    """A thumbnail server, and the images in a database.

    Args:
        sessions: Sessions on the database.
        store: The store.
    """

    def __init__(self, sessions: async_sessionmaker[AsyncSession], store: KeyedStore) -> None:
        self.sessions = sessions
        self.store = store
        self.server = ThumbnailServer(store, [Picture], base_url=BASE)
        self.client = Client(self.server)

    async def rows(self) -> list[Picture]:
        """Return all current images."""
        async with self.sessions() as session:
            return [*await session.scalars(select(Picture).order_by(Picture.owner_id))]

    def urls(self, row: Picture, name: str) -> list[str]:
        """Return the URLs of a thumbnail."""
        with store_context(self.store, thumbnails=self.server):
            return [one.url for one in row.candidates(name)]

    async def ask(self, url: str) -> Told:
        """Request a URL, and follow a redirect."""
        told = await self.client.ask(url.removeprefix("/thumbnails"))
        if told.status == 302:
            told = await self.client.ask(told.headers["location"].removeprefix("/thumbnails"))
        return told

    async def view(self, row: Picture, name: str, url: str) -> int:
        """Request a thumbnail, and return the status. For a URL of the store, request all files of the thumbnail."""
        async with self.sessions() as session:
            given = await session.get_one(Given, row.revision)
        files = [one for one in declared_files(row) if one.declaration.name == name]
        if url.startswith(BASE):
            told = await self.ask(url)
            assert told.status in (200, 404, 503), (told.status, url)
            if told.status == 200:
                check_picture(told.body, name, files[0].framing.text, given)
            return told.status
        for one in files:
            try:
                async with await self.store.get_object(self.store.name_of(one.key_for(row))) as file:
                    check_picture(await file.read(), name, one.framing.text, given)
            except StoreFileNotFoundError:
                return 404
        return 200

    async def is_attached(self, row: Picture) -> bool:
        """Return whether an image is still attached, with the same focal point."""
        async with self.sessions() as session:
            query = select(Picture.owner_id).where(Picture.revision == row.revision, Picture.focal_x == row.focal_x)
            return await session.scalar(query) is not None


class Program:
    """Attaches, replaces, changes and deletes images, and requests thumbnails, until the process ends."""

    def __init__(self, spec: dict[str, Any], watch: Watch) -> None:
        self.random = Random(spec["seed"])
        self.watch = watch
        self.owners: list[int] = spec["users"]
        self.database = database_of(spec)
        store = store_of(spec["store"])
        self.store: KeyedStore = Watched(store, watch) if watch.stop else store
        self.site = Site(async_sessionmaker(self.database.engine(), expire_on_commit=False), self.store)

    async def write(self, session: AsyncSession) -> None:
        """Change a random image."""
        number = self.random.choice(self.owners)
        owner = await session.get(Owner, number)
        if owner is None:
            session.add(owner := Owner(id=number))
            await session.flush()
        await owner.picture.load()
        choice = self.random.random()
        point = self.random.choice([(0.0, 0.5), (1.0, 0.5)])
        if choice < 0.15:
            await owner.picture.delete()
        elif choice < 0.3 and owner.picture:
            owner.picture.require_original().focal_point = point
        else:
            left, right = self.random.randrange(125), self.random.randrange(125)
            row = await owner.picture.from_blob(picture_of(left, right))
            row.focal_point = point
            if self.random.random() < 0.5:
                await owner.picture.generate_thumbnails()
            await session.flush()
            session.add(Given(revision=row.revision, left=left, right=right))
        if self.random.random() < 0.1:
            await session.rollback()
        await session.commit()

    async def writer(self) -> None:
        """Run transactions; those that the database refuses are skipped."""
        while True:
            self.watch.begun += 1
            self.watch.note()
            try:
                async with self.site.sessions() as session:
                    bind_store(session, self.store, thumbnails=self.site.server)
                    await self.write(session)
            except (SQLAlchemyError, ImageAttachError):
                self.watch.refused += 1

    async def viewer(self) -> None:
        """Request thumbnails; only those of replaced or deleted images may be missing."""
        while True:
            try:
                for row in self.random.sample(rows := await self.site.rows(), min(3, len(rows))):
                    name = self.random.choice(["card", "icon"])
                    url = self.random.choice(self.site.urls(row, name))
                    if await self.site.view(row, name, url) == 404:
                        assert not await self.site.is_attached(row), url
                    self.watch.acknowledged += 1
                    self.watch.note()
            except SQLAlchemyError:
                self.watch.refused += 1
            await asyncio.sleep(0)


async def run(spec: dict[str, Any], watch: Watch) -> None:
    """Write and view until the process is terminated."""
    program = Program(spec, watch)
    async with asyncio.TaskGroup() as group:
        group.create_task(program.writer())
        for _ in range(VIEWERS):
            group.create_task(program.viewer())
