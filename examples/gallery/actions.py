"""What visitors do: post, replace, delete."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, BackgroundTasks, Depends, Form, HTTPException, Request, UploadFile
from fastapi.responses import RedirectResponse, Response
from pydantic import StringConstraints
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from aioimageattach import ImageSubset
from aioimageattach.entity import BaseImageSet
from aioimageattach.exc import ImageError

from . import samples, thumbnails
from .dependencies import Tasks, Writing, same_origin
from .models import Author, Avatar, Photo, Post

router = APIRouter(dependencies=[Depends(same_origin)])

Name = Annotated[str, Form(), StringConstraints(strip_whitespace=True, min_length=1, max_length=60)]
Title = Annotated[str, Form(), StringConstraints(strip_whitespace=True, min_length=1, max_length=120)]


@router.post("/posts")
async def add_post(
    request: Request,
    session: Writing,
    database: Tasks,
    after: BackgroundTasks,
    author: Name,
    title: Title,
    photos: list[UploadFile],
) -> Response:
    """Post some photographs: all of them, or none where one is not acceptable."""
    post = Post(title=title)
    for order_index, upload in enumerate(photos):
        # Attached before the post meets the session: no transaction is open while pictures are read and examined.
        await attach(post.photos.get_image_set(order_index=order_index), upload)
    post.author = await author_named(session, author)
    session.add(post)
    await session.flush()  # now it has an id
    after.add_task(thumbnails.for_photos, database, post.id, range(len(photos)))
    return done(request, f"/#post-{post.id}")


@router.post("/posts/{post_id}/photos")
async def add_photos(
    request: Request, post_id: int, session: Writing, database: Tasks, after: BackgroundTasks, photos: list[UploadFile]
) -> Response:
    """Add photographs to a post."""
    post = await get_post(session, post_id)
    first = max((photo.identity["order_index"] for photo in post.photos), default=-1) + 1
    for order_index, upload in enumerate(photos, first):
        await attach(post.photos.get_image_set(order_index=order_index), upload)
    after.add_task(thumbnails.for_photos, database, post_id, range(first, first + len(photos)))
    return done(request, f"/#post-{post_id}")


@router.post("/posts/{post_id}/photos/{order_index}")
async def replace_photo(
    request: Request,
    post_id: int,
    order_index: int,
    session: Writing,
    database: Tasks,
    after: BackgroundTasks,
    photo: UploadFile,
) -> Response:
    """Put another photograph in the place of one; the old files are removed once this one is certainly there."""
    await attach(await get_photo(session, post_id, order_index), photo)
    after.add_task(thumbnails.for_photo, database, post_id, order_index)
    return done(request, f"/#post-{post_id}")


@router.post("/posts/{post_id}/photos/{order_index}/delete")
async def delete_photo(request: Request, post_id: int, order_index: int, session: Writing) -> Response:
    """Delete a photograph with its thumbnails."""
    photo = await get_photo(session, post_id, order_index)
    await photo.delete()
    return done(request, f"/#post-{post_id}")


@router.post("/posts/{post_id}/delete")
async def delete_post(request: Request, post_id: int, session: Writing) -> Response:
    """Delete a post; its photographs go with it, rows and files."""
    await session.delete(await get_post(session, post_id))
    return done(request, "/")


@router.post("/authors/{author_id}/avatar")
async def set_avatar(
    request: Request, author_id: int, session: Writing, database: Tasks, after: BackgroundTasks, avatar: UploadFile
) -> Response:
    """Give an author an avatar, or another one."""
    author = await session.get(Author, author_id)
    if author is None:
        raise HTTPException(404, "There is no such author.")
    await attach(author.avatar, avatar)
    after.add_task(thumbnails.for_avatar, database, author_id)
    return done(request, f"/authors/{author_id}")


@router.post("/samples")
async def add_samples(request: Request, session: Writing, database: Tasks, after: BackgroundTasks) -> Response:
    """Fill an empty gallery."""
    if await session.scalar(select(Post.id).limit(1)) is not None:
        raise HTTPException(409, "There are photographs already.")
    await samples.load(session)
    after.add_task(thumbnails.catch_up, database)
    return done(request, "/")


async def attach(images: BaseImageSet[Photo] | BaseImageSet[Avatar], upload: UploadFile) -> None:
    """Attach an upload, without the place where it was taken; what is wrong with it is said by its name."""
    try:
        await images.from_file(upload, strip_metadata=True)
    except ImageError as error:
        error.add_note(upload.filename or "The file")
        raise


async def author_named(session: AsyncSession, name: str) -> Author:
    """Return the author of that name, a new one if need be."""
    author = await session.scalar(select(Author).where(Author.name == name))
    if author is None:
        session.add(author := Author(name=name))
    return author


async def get_post(session: AsyncSession, post_id: int) -> Post:
    """Return a post that is there."""
    post = await session.get(Post, post_id)
    if post is None:
        raise HTTPException(404, "There is no such post, it may have been deleted.")
    return post


async def get_photo(session: AsyncSession, post_id: int, order_index: int) -> ImageSubset[Photo]:
    """Return a photograph that is there."""
    photo = (await get_post(session, post_id)).photos.get_image_set(order_index=order_index)
    if not photo:
        raise HTTPException(404, "There is no such photograph, it may have been deleted.")
    return photo


def done(request: Request, url: str) -> Response:
    """Answer a script with nothing to read, and a browser without script with the page to go to."""
    if "application/json" in request.headers.get("Accept", ""):
        return Response(status_code=204)
    return RedirectResponse(url, 303)
