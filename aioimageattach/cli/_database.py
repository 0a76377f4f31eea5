"""The database of a command, by URL or by name."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

import click
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker

from ._loading import load, resolve
from ._urls import open_engine

__all__ = ["DatabaseParameter", "open_sessions"]


class DatabaseParameter(click.ParamType[Any]):
    """A URL, or ``module:name`` of an ``AsyncEngine`` or ``async_sessionmaker``. No message repeats the URL."""

    name = "url"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the engine for a URL, or the named object."""
        if not isinstance(value, str):
            return value
        if "://" not in value:
            return load(value)
        try:
            url = make_url(value)
        except (ArgumentError, ValueError):  # SQLAlchemy's message may contain the URL with the password
            self.fail("expected a URL such as postgresql+asyncpg://user@host/name, got an invalid one")
        return open_engine(url)


async def open_sessions(stack: AsyncExitStack, target: Any) -> async_sessionmaker[Any]:
    """Return a session maker; its connections are closed with the stack."""
    found = await resolve(stack, target, AsyncEngine, async_sessionmaker)
    sessions: async_sessionmaker[Any] = found if isinstance(found, async_sessionmaker) else async_sessionmaker(found)
    engine = sessions.kw.get("bind")
    if isinstance(engine, AsyncEngine):
        stack.push_async_callback(engine.dispose)
    return sessions
