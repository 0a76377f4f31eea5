"""Which sizes there are, and the work after the answer that makes them."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import asynccontextmanager

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError, NoResultFound
from sqlalchemy.ext.asyncio import AsyncSession

from aioimageattach import Recipe
from aioimageattach.exc import ImageError, NoOriginalError, StoreFileNotFoundError

from .database import Database
from .models import Author, Avatar, Photo, Post

WIDTHS = (320, 640, 1280)
"""Widths of the thumbnails in pixels; browsers take the one that fits the tile and the screen."""

AVATAR = 96
"""Side of the square avatar in pixels."""

AVATARS = tuple(Recipe(width=side, height=side, fit="cover") for side in (AVATAR, 2 * AVATAR))

log = logging.getLogger("examples.gallery")


def missing(images: Iterable[Photo]) -> list[int]:
    """Return the widths of a photograph's images that are still to be made; none is larger than the original."""
    made = {image.width for image in images}
    return [width for width in WIDTHS if width < max(made, default=0) and width not in made]


def square(author: Author, scale: int = 1) -> Avatar | None:
    """Return the author's square avatar, or the whole picture until that is made; ``None`` where there is neither."""
    try:
        return author.avatar.find_thumbnail(width=AVATAR * scale, height=AVATAR * scale, fit="cover")
    except NoResultFound:
        return author.avatar.original


def waiting(author: Author) -> bool:
    """Whether the author's square avatars are still to be made."""
    return bool(author.avatar) and len(author.avatar) <= len(AVATARS)


async def for_photo(database: Database, post_id: int, order_index: int) -> None:
    """Make what one photograph still lacks, all sizes from one decode."""
    async with working(database, f"photograph {order_index} of post {post_id}") as session:
        post = await session.get_one(Post, post_id)
        await session.commit()  # nothing is locked while pixels are worked on
        photo = post.photos.get_image_set(order_index=order_index)
        await photo.generate_thumbnails(missing(photo))
        await session.commit()


async def for_photos(database: Database, post_id: int, order_indexes: Sequence[int]) -> None:
    """Make what several photographs of a post still lack, one after the other."""
    for order_index in order_indexes:
        await for_photo(database, post_id, order_index)


async def for_avatar(database: Database, author_id: int) -> None:
    """Make an author's square avatars."""
    async with working(database, f"the avatar of author {author_id}") as session:
        author = await session.get_one(Author, author_id)
        await session.commit()
        await author.avatar.generate_thumbnails(AVATARS)
        await session.commit()


@asynccontextmanager
async def working(database: Database, what: str) -> AsyncGenerator[AsyncSession, None]:
    """Give a session to a task that nobody waits for, and let no error out of it."""
    try:
        async with database.writing() as session:
            yield session
    except (NoResultFound, NoOriginalError, StoreFileNotFoundError, IntegrityError):
        # It was deleted or replaced meanwhile, or another task was faster. The library never lets a thumbnail of the
        # old picture in, and what came instead has a task of its own.
        log.info("%s has changed meanwhile, its thumbnails are not needed any more", what)
    except ImageError as error:
        log.warning("no thumbnails of %s: %s", what, error)
    except Exception:  # the response has been sent, so nobody else can handle it
        log.exception("no thumbnails of %s", what)


async def catch_up(database: Database) -> None:
    """Make what was still to be made when the gallery last ended: tasks do not survive their process."""
    async with database.reading() as session:
        posts = (await session.scalars(select(Post))).all()
        authors = (await session.scalars(select(Author))).all()
    for post in posts:
        await for_photos(database, post.id, [photo.identity["order_index"] for photo in post.photos if missing(photo)])
    for author in authors:
        if waiting(author):
            await for_avatar(database, author.id)
