"""The pages."""

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

from . import samples
from .database import collect_statements
from .dependencies import Reading
from .models import LIMITS, Author, Post

PER_PAGE = 24
POLICY = "default-src 'self'; img-src 'self' blob: {}; style-src-attr 'unsafe-inline'; frame-ancestors 'none'"
"""The Content-Security-Policy: images from the gallery or its bucket, and colours until they are loaded."""

router = APIRouter()

environment = Environment(
    loader=FileSystemLoader(Path(__file__).with_name("templates")),
    autoescape=select_autoescape(),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    auto_reload=False,
)
shared: dict[str, Any] = {"limits": LIMITS}
environment.globals.update(shared)
for name in environment.list_templates():
    environment.get_template(name)  # compile all templates now, so that no request waits for the disk
templates = Jinja2Templates(env=environment)


def page(request: Request, name: str, context: dict[str, Any], status_code: int = 200) -> Response:
    """Render a template."""
    headers = {"Content-Security-Policy": POLICY.format(request.app.state.image_origin)}
    return templates.TemplateResponse(request, name, context, status_code=status_code, headers=headers)


async def newest_posts(session: AsyncSession, *conditions: ColumnElement[bool]) -> Sequence[Post]:
    """Load posts, one more than a page shows. A second statement loads all of their photographs."""
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
    """Show the newest posts, or those before a post."""
    statements = collect_statements()
    posts = await newest_posts(session, *(() if before is None else (Post.id < before,)))
    context = {
        "posts": posts[:PER_PAGE],
        "older": posts[PER_PAGE - 1].id if len(posts) > PER_PAGE else None,
        "newest": before is None,
        "samples": samples.AVAILABLE,
        "statements": statements,
    }
    return page(request, "index.html", context)


@router.get("/authors/{author_id}")
async def author(request: Request, author_id: int, session: Reading) -> Response:
    """Show an author with the newest posts."""
    statements = collect_statements()
    found = await session.get(Author, author_id, options=[joinedload(Author.avatar)])
    if found is None:
        raise HTTPException(404, "There is no such author.")
    posts = await newest_posts(session, Post.author == found)
    return page(request, "author.html", {"author": found, "posts": posts[:PER_PAGE], "statements": statements})
