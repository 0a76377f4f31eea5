"""Engines for database URLs, as applications and hosting providers write them."""

from __future__ import annotations

import os
import ssl
from importlib.util import find_spec
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import urlencode

import click
from sqlalchemy import URL, Dialect, event
from sqlalchemy.exc import ArgumentError, InvalidRequestError, NoSuchModuleError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

__all__ = ["open_engine"]

DRIVERS: Final = MappingProxyType(
    {
        "mariadb": ("asyncmy", "aiomysql"),
        "mysql": ("asyncmy", "aiomysql"),
        "postgresql": ("asyncpg", "psycopg"),
        "sqlite": ("aiosqlite",),
    }
)
"""The asynchronous drivers, in order of preference. Each is also the name of its package."""

# libpq reads these options, and so does asyncpg, but only in its argument ``dsn``.
_DSN_OPTIONS: Final = frozenset(
    {"application_name", "dbname", "gsslib", "krbsrvname", "options", "passfile", "service", "sslcert", "sslcrl"}
    | {"sslkey", "sslmode", "sslnegotiation", "sslpassword", "sslrootcert", "ssl_max_protocol_version"}
    | {"ssl_min_protocol_version", "target_session_attrs"}
)
# asyncpg has no such features.
_IGNORED_OPTIONS: Final = frozenset(
    {"channel_binding", "client_encoding", "fallback_application_name", "gssdelegation", "gssencmode"}
    | {"keepalives", "keepalives_count", "keepalives_idle", "keepalives_interval", "load_balance_hosts"}
    | {"sslcompression", "sslsni", "tcp_user_timeout"}
)


def open_engine(url: URL) -> AsyncEngine:
    """Return an engine for a URL; a URL without an asynchronous driver gets one that is installed.

    Raises:
        BadParameter: The database file does not exist, no driver is installed, or the database is not supported. The
            message contains neither the password nor the value of an option.
    """
    try:
        url = _choose_driver(url)
        _require_file(url)
        url, arguments = _translate_options(url)
        engine = create_async_engine(url, connect_args=arguments)
    except ModuleNotFoundError as error:
        raise click.BadParameter(f"expected an installed driver for {url.drivername}: {error}") from None
    except NoSuchModuleError:
        raise click.BadParameter(
            f"expected a URL such as postgresql+asyncpg://user@host/name, got the unknown driver {url.drivername!r}"
        ) from None
    except ArgumentError:  # the message may contain the values of options
        raise click.BadParameter(
            f"expected a URL such as {url.drivername}://user@host/name, got one with an invalid host, port or option"
        ) from None
    except InvalidRequestError:
        raise click.BadParameter(
            f"expected an asynchronous driver, as in postgresql+asyncpg://user@host/name, got {url.drivername!r}"
        ) from None
    event.listen(engine.sync_engine, "do_connect", _connect)
    return engine


def _choose_driver(url: URL) -> URL:
    """Return the URL with an asynchronous driver: that of the URL, or the first one that is installed."""
    backend, _, driver = url.drivername.partition("+")
    backend = "postgresql" if backend == "postgres" else backend
    candidates = DRIVERS.get(backend, ())
    if driver in candidates:
        candidates = (driver,)
    elif not candidates or (driver and url.set(drivername=f"{backend}+{driver}").get_dialect().is_async):
        return url
    for candidate in candidates:
        if find_spec(candidate) is not None:
            return url.set(drivername=f"{backend}+{candidate}")
    raise click.BadParameter(
        f"expected an installed asynchronous driver for {backend}, found none: pip install {' or '.join(candidates)}"
    )


def _require_file(url: URL) -> None:
    """Reject a missing database file, because SQLite would create an empty one for a mistyped name."""
    if url.get_backend_name() != "sqlite" or not url.database or url.database == ":memory:" or "uri" in url.query:
        return
    if not os.path.exists(url.database):
        raise click.BadParameter(f"expected an existing SQLite database, found no file {url.database!r}")


def _translate_options(url: URL) -> tuple[URL, dict[str, Any]]:
    """Return the URL without the options of libpq that its driver cannot read in a URL, and its connect arguments."""
    if url.get_backend_name() != "postgresql":
        return url, {}
    query: dict[str, Any] = dict(url.query)
    if query.get("ssl") in ("true", "false"):  # libpq reads this name of JDBC in a URL, but not as an argument
        query["sslmode"] = "require" if query.pop("ssl") == "true" else "disable"
    if url.get_driver_name() != "asyncpg":
        return url.set(query=query), {}
    arguments: dict[str, Any] = {}
    if "connect_timeout" in query:
        arguments["timeout"] = _read_timeout(query.pop("connect_timeout"))
    if query.get("sslrootcert") == "system":  # it implies verify-full
        del query["sslrootcert"]
        query.pop("sslmode", None)
        arguments["ssl"] = ssl.create_default_context()
    in_dsn = {name: query.pop(name) for name in sorted(_DSN_OPTIONS.intersection(query))}
    if in_dsn:
        arguments["dsn"] = f"postgresql://?{urlencode(in_dsn, doseq=True)}"
    for name in _IGNORED_OPTIONS.intersection(query):
        del query[name]
    return url.set(query=query), arguments


def _read_timeout(value: object) -> float | None:
    """Return the seconds of ``connect_timeout``; ``None`` for 0 and less, as for libpq."""
    try:
        seconds = int(str(value))
    except ValueError:
        raise click.BadParameter("connect_timeout: expected an integer, the number of seconds") from None
    return seconds if seconds > 0 else None


def _connect(dialect: Dialect, _record: object, args: list[Any], kwargs: dict[str, Any]) -> Any:
    """Connect, and name the option that the driver does not know.

    Raises:
        BadParameter: The URL has an option that is not an argument of the driver's function.
    """
    try:
        return dialect.connect(*args, **kwargs)
    except TypeError as error:
        text = f"expected options that {dialect.driver} supports: {error}; remove the option, or name an AsyncEngine"
        raise click.BadParameter(text, param_hint="'--database'") from error
