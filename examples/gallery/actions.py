"""The forms: post, replace and delete photographs, and choose an avatar."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Form, HTTPException, Request, UploadFile
from fastapi.responses import RedirectResponse, Response
from pydantic import StringConstraints
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from aioimageattach import ImageSubset
from aioimageattach.entity import BaseImageSet
from aioimageattach.exc import ImageError

from . import samples
from .dependencies import Writing, same_origin
from .models import Author, Avatar, Photo, Post

router = APIRouter(dependencies=[Depends(same_origin)])

Name = Annotated[str, Form(), StringConstraints(strip_whitespace=True, min_length=1, max_length=60)]
Title = Annotated[str, Form(), StringConstraints(strip_whitespace=True, min_length=1, max_length=120)]


@router.post("/posts")
async def add_post(
    request: Request, session: Writing, author: Name, title: Title, photos: list[UploadFile]
) -> Response:
    """Post photographs: all of them, or none if one is rejected."""
    post = Post(title=title)
    for order_index, upload in enumerate(photos):
        # Attached before the post is added to the session: no transaction is open while images are decoded.
        await attach(post.photos.get_image_set(order_index=order_index), upload)
    post.author = await author_named(session, author)
    session.add(post)
    await session.flush()  # assigns the id
    return done(request, f"/#post-{post.id}")


@router.post("/posts/{post_id}/photos")
async def add_photos(request: Request, post_id: int, session: Writing, photos: list[UploadFile]) -> Response:
    """Add photographs to a post."""
    post = await get_post(session, post_id)
    first = max((photo.identity["order_index"] for photo in post.photos), default=-1) + 1
    for order_index, upload in enumerate(photos, first):
        await attach(post.photos.get_image_set(order_index=order_index), upload)
    return done(request, f"/#post-{post_id}")


@router.post("/posts/{post_id}/photos/{order_index}")
async def replace_photo(
    request: Request, post_id: int, order_index: int, session: Writing, photo: UploadFile
) -> Response:
    """Replace a photograph. The commit deletes the files of the old one after it has stored the new one."""
    await attach(await get_photo(session, post_id, order_index), photo)
    return done(request, f"/#post-{post_id}")


@router.post("/posts/{post_id}/photos/{order_index}/delete")
async def delete_photo(request: Request, post_id: int, order_index: int, session: Writing) -> Response:
    """Delete a photograph with its thumbnails."""
    photo = await get_photo(session, post_id, order_index)
    await photo.delete()
    return done(request, f"/#post-{post_id}")


@router.post("/posts/{post_id}/delete")
async def delete_post(request: Request, post_id: int, session: Writing) -> Response:
    """Delete a post with its photographs, rows and files."""
    await session.delete(await get_post(session, post_id))
    return done(request, "/")


@router.post("/authors/{author_id}/avatar")
async def set_avatar(request: Request, author_id: int, session: Writing, avatar: UploadFile) -> Response:
    """Set or replace the avatar of an author."""
    author = await session.get(Author, author_id)
    if author is None:
        raise HTTPException(404, "There is no such author.")
    await attach(author.avatar, avatar)
    await author.avatar.generate_thumbnails()  # the commit stores them with the original
    return done(request, f"/authors/{author_id}")


@router.post("/samples")
async def add_samples(request: Request, session: Writing) -> Response:
    """Fill an empty gallery."""
    if await session.scalar(select(Post.id).limit(1)) is not None:
        raise HTTPException(409, "There are photographs already.")
    await samples.load(session)
    return done(request, "/")


async def attach(images: BaseImageSet[Photo] | BaseImageSet[Avatar], upload: UploadFile) -> None:
    """Attach an upload without its metadata, which may contain a location; add the file name to an error."""
    try:
        await images.from_file(upload, strip_metadata=True)
    except ImageError as error:
        error.add_note(upload.filename or "The file")
        raise


async def author_named(session: AsyncSession, name: str) -> Author:
    """Return the author with a name; add an author to the session if there is none."""
    author = await session.scalar(select(Author).where(Author.name == name))
    if author is None:
        session.add(author := Author(name=name))
    return author


async def get_post(session: AsyncSession, post_id: int) -> Post:
    """Return a post, or respond with 404."""
    post = await session.get(Post, post_id)
    if post is None:
        raise HTTPException(404, "There is no such post, it may have been deleted.")
    return post


async def get_photo(session: AsyncSession, post_id: int, order_index: int) -> ImageSubset[Photo]:
    """Return a photograph, or respond with 404."""
    photo = (await get_post(session, post_id)).photos.get_image_set(order_index=order_index)
    if not photo:
        raise HTTPException(404, "There is no such photograph, it may have been deleted.")
    return photo


def done(request: Request, url: str) -> Response:
    """Respond to a script without a body, and redirect a browser without scripts to a page."""
    if "application/json" in request.headers.get("Accept", ""):
        return Response(status_code=204)
    return RedirectResponse(url, 303)
