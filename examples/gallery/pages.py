"""What there is to look at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.templating import Jinja2Templates
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from sqlalchemy import ColumnElement, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import joinedload

from . import samples, thumbnails
from .database import collect_statements
from .dependencies import Reading
from .models import LIMITS, Author, Post
from .views import Tile, cards

PER_PAGE = 24
POLICY = "default-src 'self'; img-src 'self' blob: {}; frame-ancestors 'none'"
"""The Content-Security-Policy of the pages; pictures come from the gallery, or from its bucket."""

router = APIRouter()

environment = Environment(
    loader=FileSystemLoader(Path(__file__).with_name("templates")),
    autoescape=select_autoescape(),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    auto_reload=False,
)
shared: dict[str, Any] = {"limits": LIMITS, "thumbnails": thumbnails}
environment.globals.update(shared)
for name in environment.list_templates():
    environment.get_template(name)  # read and compiled now, not while an event loop waits
templates = Jinja2Templates(env=environment)


def page(request: Request, name: str, context: dict[str, Any], status_code: int = 200) -> Response:
    """Make a page of a template."""
    headers = {"Content-Security-Policy": POLICY.format(request.app.state.image_origin)}
    return templates.TemplateResponse(request, name, context, status_code=status_code, headers=headers)


async def newest_posts(session: AsyncSession, *conditions: ColumnElement[bool]) -> Sequence[Post]:
    """Return posts with authors and avatars, one more than a page has. The photographs come with a second statement."""
    query = (
        select(Post)
        .options(joinedload(Post.author).joinedload(Author.avatar))
        .where(*conditions)
        .order_by(Post.id.desc())
        .limit(PER_PAGE + 1)
    )
    return (await session.scalars(query)).unique().all()


@router.get("/")
async def index(request: Request, session: Reading, before: int | None = None) -> Response:
    """The newest posts, or those before a post."""
    executed = collect_statements()
    posts = await newest_posts(session, *(() if before is None else (Post.id < before,)))
    context = {
        "cards": cards(posts[:PER_PAGE]),
        "older": posts[PER_PAGE - 1].id if len(posts) > PER_PAGE else None,
        "newest": before is None,
        "samples": samples.AVAILABLE,
        "statements": executed,
    }
    return page(request, "index.html", context)


@router.get("/authors/{author_id}")
async def author(request: Request, author_id: int, session: Reading) -> Response:
    """An author and the newest of the author's posts."""
    executed = collect_statements()
    found = await session.get(Author, author_id, options=[joinedload(Author.avatar)])
    if found is None:
        raise HTTPException(404, "There is no such author.")
    posts = await newest_posts(session, Post.author == found)
    return page(request, "author.html", {"author": found, "cards": cards(posts[:PER_PAGE]), "statements": executed})


@router.get("/posts/{post_id}/photos/{order_index}")
async def photo(post_id: int, order_index: int, session: Reading) -> Tile:
    """What a page that shows a photograph without its thumbnails asks for until they are there."""
    post = await session.get(Post, post_id)
    found = post.photos.get_image_set(order_index=order_index) if post else None
    if not found:
        raise HTTPException(404, "There is no such photograph.")
    return Tile.of(found)
