"""The dependencies of the routes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, HTTPException, Request
from sqlalchemy.ext.asyncio import AsyncSession

from .database import Database


async def reading(request: Request) -> AsyncIterator[AsyncSession]:
    """Yield a session for reading."""
    database: Database = request.app.state.database
    async with database.reading() as session:
        yield session


async def writing(request: Request) -> AsyncIterator[AsyncSession]:
    """Yield a session that commits when the route returns, and rolls back when it raises.

    The scope ``"function"`` makes FastAPI commit before it responds: a client that gets a success can see the image,
    and a client whose image could not be stored gets an error.
    """
    database: Database = request.app.state.database
    async with database.writing.begin() as session:
        yield session


def same_origin(request: Request) -> None:
    """Reject requests that pages of other sites make a visitor's browser send."""
    if request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
        raise HTTPException(403, "this form was sent by another site")


Reading = Annotated[AsyncSession, Depends(reading, scope="function")]
Writing = Annotated[AsyncSession, Depends(writing, scope="function")]
