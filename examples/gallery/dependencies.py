"""What the routes are given: sessions, the database for tasks, the page maker."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, HTTPException, Request
from sqlalchemy.ext.asyncio import AsyncSession

from .database import Database


def database(request: Request) -> Database:
    """The database of the application."""
    found: Database = request.app.state.database
    return found


async def reading(database: Tasks) -> AsyncIterator[AsyncSession]:
    """A session to look."""
    async with database.reading() as session:
        yield session


async def writing(database: Tasks) -> AsyncIterator[AsyncSession]:
    """A session that commits where the route returned, and rolls back where it raised.

    The scope ``"function"`` makes FastAPI wait for the commit before it answers: who hears of a picture can see it,
    and who cannot have it stored hears that. A task that runs after the answer needs a session of its own.
    """
    async with database.writing.begin() as session:
        yield session


def same_origin(request: Request) -> None:
    """Refuse what pages of other sites make a visitor's browser send."""
    if request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
        raise HTTPException(403, "this form was sent by another site")


Tasks = Annotated[Database, Depends(database)]
Reading = Annotated[AsyncSession, Depends(reading, scope="function")]
Writing = Annotated[AsyncSession, Depends(writing, scope="function")]
