"""The database of a command, by URL or by name."""

from __future__ import annotations

import os
from contextlib import AsyncExitStack
from types import MappingProxyType
from typing import Any, Final

import click
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError, InvalidRequestError, NoSuchModuleError
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine

from ._loading import load, resolve

__all__ = ["DatabaseParameter", "open_sessions"]

DRIVERS: Final = MappingProxyType(
    {
        "mariadb": "mariadb+asyncmy",
        "mysql": "mysql+asyncmy",
        "postgres": "postgresql+asyncpg",
        "postgresql": "postgresql+asyncpg",
        "sqlite": "sqlite+aiosqlite",
    }
)
"""The default driver for URLs without one."""


class DatabaseParameter(click.ParamType[Any]):
    """A URL, or ``module:name`` of an ``AsyncEngine`` or ``async_sessionmaker``. No message repeats the URL."""

    name = "url"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the engine for a URL, or the named object."""
        if not isinstance(value, str):
            return value
        return self._engine(value) if "://" in value else load(value)

    def _engine(self, value: str) -> AsyncEngine:
        try:
            url = make_url(value)
            url = url.set(drivername=DRIVERS.get(url.drivername, url.drivername))
            _require_file(url)
            url, arguments = _translate(url)
            return create_async_engine(url, connect_args=arguments)
        except (InvalidRequestError, NoSuchModuleError) as error:
            self.fail(f"{error}; expected an asynchronous driver such as postgresql+asyncpg")
        except (ArgumentError, ValueError):  # SQLAlchemy's message may contain the URL with the password
            self.fail("invalid database URL; expected a URL such as postgresql+asyncpg://user@host/name")
        except ModuleNotFoundError as error:
            self.fail(f"the database driver is not installed: {error}")


def _translate(url: URL) -> tuple[URL, dict[str, Any]]:
    """Return a URL for asyncpg, without the options of libpq that hosting providers add, and the connect arguments."""
    if url.drivername != "postgresql+asyncpg":
        return url, {}
    query = dict(url.query)
    arguments: dict[str, Any] = {}
    if "sslmode" in query:
        arguments["ssl"] = query.pop("sslmode")
    if "connect_timeout" in query:
        arguments["timeout"] = float(str(query.pop("connect_timeout")))
    if "application_name" in query:
        arguments["server_settings"] = {"application_name": query.pop("application_name")}
    for name in ("channel_binding", "gssencmode"):  # asyncpg has no such options
        query.pop(name, None)
    if others := sorted(name for name in query if name.startswith("ssl") and name != "ssl"):
        raise click.UsageError(
            f"asyncpg does not support {', '.join(others)} in a URL: use postgresql+psycopg://, or name an AsyncEngine"
        )
    return url.set(query=query), arguments


def _require_file(url: URL) -> None:
    """Refuse a missing database file, because SQLite would create an empty one for a mistyped name."""
    if url.get_backend_name() != "sqlite" or not url.database or url.database == ":memory:" or "uri" in url.query:
        return
    if not os.path.exists(url.database):
        raise click.UsageError(f"expected an existing SQLite database, found no file {url.database!r}")


async def open_sessions(stack: AsyncExitStack, target: Any) -> async_sessionmaker[Any]:
    """Return a session maker; its connections are closed with the stack."""
    found = await resolve(stack, target, AsyncEngine, async_sessionmaker)
    sessions: async_sessionmaker[Any] = found if isinstance(found, async_sessionmaker) else async_sessionmaker(found)
    engine = sessions.kw.get("bind")
    if isinstance(engine, AsyncEngine):
        stack.push_async_callback(engine.dispose)
    return sessions
