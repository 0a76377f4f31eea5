"""The database that the command line is about, by URL or by name."""

from __future__ import annotations

import os
from contextlib import AsyncExitStack
from types import MappingProxyType
from typing import Any, Final, TypeAlias

import click
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError, InvalidRequestError, NoSuchModuleError
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine

from .loading import entered, load

__all__ = ["DatabaseParameter", "Sessions", "open_sessions"]

Sessions: TypeAlias = "async_sessionmaker[Any]"

DRIVERS: Final = MappingProxyType(
    {
        "mariadb": "mariadb+asyncmy",
        "mysql": "mysql+asyncmy",
        "postgres": "postgresql+asyncpg",
        "postgresql": "postgresql+asyncpg",
        "sqlite": "sqlite+aiosqlite",
    }
)
"""Which driver is meant where a URL names none."""


class DatabaseParameter(click.ParamType[Any]):
    """A URL, or ``module:name`` of an ``AsyncEngine`` or ``async_sessionmaker``. No message repeats the URL."""

    name = "url"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the engine of the URL, or what the name names."""
        if not isinstance(value, str):
            return value
        return self._engine(value) if "://" in value else load(value)

    def _engine(self, value: str) -> AsyncEngine:
        try:
            url = make_url(value)
            url = url.set(drivername=DRIVERS.get(url.drivername, url.drivername))
            _require_file(url)
            url, arguments = _translated(url)
            return create_async_engine(url, connect_args=arguments)
        except (InvalidRequestError, NoSuchModuleError) as error:
            self.fail(f"{error}; expected an asynchronous driver, such as postgresql+asyncpg")
        except (ArgumentError, ValueError):  # SQLAlchemy's own text may repeat it, with the password
            self.fail("the database's URL cannot be read; expected one such as postgresql+asyncpg://user@host/name")
        except ModuleNotFoundError as error:
            self.fail(f"the driver of the database is not installed: {error}")


def _translated(url: URL) -> tuple[URL, dict[str, Any]]:
    """Return a URL as hosts of PostgreSQL give it, in the words of asyncpg, which does not know those of libpq."""
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
    for name in ("channel_binding", "gssencmode"):  # which asyncpg decides by itself
        query.pop(name, None)
    if others := sorted(name for name in query if name.startswith("ssl") and name != "ssl"):
        raise click.UsageError(
            f"asyncpg does not take {', '.join(others)} from a URL: use postgresql+psycopg://, or name an AsyncEngine"
        )
    return url.set(query=query), arguments


def _require_file(url: URL) -> None:
    """SQLite would make an empty database of a name that is written wrongly."""
    if url.get_backend_name() != "sqlite" or not url.database or url.database == ":memory:" or "uri" in url.query:
        return
    if not os.path.exists(url.database):
        raise click.UsageError(f"there is no database in {url.database!r}")


async def open_sessions(stack: AsyncExitStack, target: Any) -> Sessions:
    """Return what makes sessions; its connections are closed with the stack."""
    found = await entered(stack, target, AsyncEngine, async_sessionmaker)
    sessions: Sessions = found if isinstance(found, async_sessionmaker) else async_sessionmaker(found)
    engine = sessions.kw.get("bind")
    if isinstance(engine, AsyncEngine):
        stack.push_async_callback(engine.dispose)
    return sessions
