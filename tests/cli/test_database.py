"""Databases given by URL: the default driver, options, and secrets."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from sqlalchemy import dialects
from sqlalchemy.dialects.sqlite.aiosqlite import SQLiteDialect_aiosqlite

from aioimageattach.cli._database import DatabaseParameter
from tests.cli.conftest import Run
from tests.databases import PASSWORD, Database

SECRET = "hunter2"


@pytest.fixture
def driverless_url(database: Database) -> str:
    url = database.url.set(drivername=database.url.drivername.partition("+")[0])
    if url.database is not None and database.name == "sqlite":
        Path(url.database).touch()
    return url.render_as_string(hide_password=False)


def test_urls_without_a_driver_get_the_default(driverless_url: str, run: Run) -> None:
    """URLs as hosting providers give them, without a driver, are sufficient."""
    done = run("doctor", "-d", driverless_url)
    assert done.exit_code == 0, done.output
    assert "connected to" in done.stdout


def test_a_missing_sqlite_file_is_refused(run: Run, folder: Path) -> None:
    """A mistyped file name does not create an empty database."""
    done = run("doctor", "-d", "sqlite:///no.sqlite")
    assert (done.exit_code, "expected an existing SQLite database, found no file 'no.sqlite'" in done.stderr) == (
        2,
        True,
    )
    assert not (folder / "no.sqlite").exists()


@pytest.mark.parametrize("url", ["sqlite://", "sqlite+aiosqlite:///:memory:", "sqlite:///file:app.sqlite?uri=true"])
def test_databases_without_a_file(url: str, run: Run) -> None:
    """Databases in memory, and file names that are URIs, are accepted without a check for the file."""
    assert run("doctor", "-d", url).exit_code == 0


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (f"postgresql://app:{SECRET}@host:port/name", "got an invalid one"),
        (f"://app:{SECRET}@host/name", "got an invalid one"),
        (f"postgresql//app:{SECRET}@host/name", "expected MODULE:NAME"),
        (f"nosuch://app:{SECRET}@host/name", "got the unknown driver 'nosuch'"),
        (f"sqlite://app:{SECRET}@host", "got one with an invalid host, port or option"),
        (f"oracle://app:{SECRET}@host/name", "expected an installed driver for oracle: No module named"),
        (f"mssql+pymssql://app:{SECRET}@host/name", "pymssql"),
        (f"postgres://app:{SECRET}@host/name?connect_timeout=soon", "connect_timeout: expected an integer"),
    ],
)
def test_messages_do_not_repeat_invalid_urls(url: str, message: str, run: Run) -> None:
    """No message about an invalid URL contains the password."""
    done = run("doctor", "-d", url)
    assert (done.exit_code, message in done.stderr) == (2, True), done.output
    assert SECRET not in done.output


def test_a_database_that_does_not_respond(run: Run) -> None:
    """The exit code differs from that of wrong arguments, and the password is not shown."""
    url = f"postgresql://app:{SECRET}@127.0.0.1:1/name"
    done = run("verify", "tests.cli.models:Base", "-s", "tests.cli.models:memory", "-d", url)
    assert (done.exit_code, done.stderr.startswith("Error: ")) == (3, True), done.output
    assert SECRET not in done.output


@pytest.mark.parametrize("database", ["postgresql", "mariadb"], indirect=True)
def test_a_wrong_password(database: Database, run: Run) -> None:
    """The message of the database is shown, but not the password."""
    url = database.url.set(username="nobody_known", password=SECRET).render_as_string(hide_password=False)
    done = run("verify", "tests.cli.models:Base", "-s", "tests.cli.models:memory", "-d", url)
    assert (done.exit_code, "nobody_known" in done.stderr) == (3, True), done.output
    assert SECRET not in done.output


def test_database_errors_are_shown_without_the_statement(run: Run, folder: Path) -> None:
    """Only the message of the driver is shown."""
    Path("app.sqlite").touch()
    done = run("verify", "tests.cli.models:Base", "-s", "tests.cli.models:memory")
    assert (done.exit_code, done.stderr.splitlines()[-1]) == (3, "Error: no such table: post_photo"), done.output


PROVIDERS = {
    "Heroku": "sslmode=prefer",
    "Neon": "sslmode=prefer&channel_binding=prefer",
    "Supabase": "target_session_attrs=read-write&keepalives=1&connect_timeout=0",
    "JDBC": "ssl=false&connect_timeout=10",
}


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
@pytest.mark.parametrize("scheme", ["postgres", "postgresql+asyncpg", "postgresql+psycopg", "postgresql+psycopg2"])
@pytest.mark.parametrize("query", PROVIDERS.values(), ids=PROVIDERS)
def test_urls_of_hosting_providers(query: str, scheme: str, database: Database, run: Run) -> None:
    """URLs as PostgreSQL hosting providers give them are accepted, for each driver."""
    url = database.url.set(drivername=scheme).render_as_string(hide_password=False)
    done = run("doctor", "-d", f"{url}?{query}")
    assert (done.exit_code, "connected to postgresql" in done.stdout) == (0, True), done.output


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
@pytest.mark.parametrize("scheme", ["postgres", "postgresql+psycopg"])
async def test_options_of_libpq_take_effect(scheme: str, database: Database) -> None:
    """The options of a URL take effect on the server."""
    url = database.url.set(drivername=scheme).render_as_string(hide_password=False)
    query = "application_name=shop&options=-c%20statement_timeout%3D5s"
    engine = DatabaseParameter().convert(f"{url}?{query}", None, None)
    async with engine.connect() as connection:
        for name, value in {"application_name": "shop", "statement_timeout": "5s"}.items():
            assert (await connection.exec_driver_sql(f"SHOW {name}")).scalar() == value
    await engine.dispose()


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
@pytest.mark.parametrize("query", ["sslmode=require", "ssl=true", "sslmode=verify-full&sslrootcert=system"])
@pytest.mark.parametrize("scheme", ["postgres", "postgresql+psycopg"])
def test_required_tls_is_never_dropped(scheme: str, query: str, database: Database, run: Run) -> None:
    """A server without TLS is rejected if the URL requires TLS."""
    url = database.url.set(drivername=scheme).render_as_string(hide_password=False)
    done = run("doctor", "-d", f"{url}?{query}")
    assert (done.exit_code, "SSL" in done.stdout) == (1, True), done.output
    assert PASSWORD not in done.output


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_a_missing_root_certificate(database: Database, run: Run) -> None:
    """The certificate file that a URL names is read."""
    url = database.url.set(drivername="postgres").render_as_string(hide_password=False)
    done = run("doctor", "-d", f"{url}?sslmode=verify-full&sslrootcert=/missing.pem")
    assert (done.exit_code, "No such file" in done.stdout) == (1, True), done.output


@pytest.mark.parametrize("database", ["postgresql", "mariadb"], indirect=True)
def test_unknown_options_are_refused(driverless_url: str, run: Run) -> None:
    """The message names the option and the driver, and contains neither the value nor the password."""
    done = run(
        "verify", "tests.cli.models:Base", "-s", "tests.cli.models:memory", "-d", f"{driverless_url}?pool={SECRET}"
    )
    assert done.exit_code == 2, done.output
    assert "Invalid value for '--database': expected options that async" in done.stderr
    assert "'pool'; remove the option" in done.stderr
    assert not {SECRET, PASSWORD} & set(done.output.replace("'", " ").split())


@pytest.mark.parametrize(
    ("url", "missing", "driver"),
    [
        ("postgres://host/name", (), "asyncpg"),
        ("postgresql://host/name", ("asyncpg",), "psycopg"),
        ("postgresql+psycopg2://host/name", ("asyncpg",), "psycopg"),
        ("postgresql+psycopg://host/name", (), "psycopg"),
        ("mysql+pymysql://host/name", (), "asyncmy"),
        ("mariadb://host/name", ("asyncmy",), "aiomysql"),
        ("sqlite+pysqlite://", (), "aiosqlite"),
        ("sqlite+pysqlite_async://", (), "pysqlite_async"),
    ],
)
def test_the_driver(url: str, missing: tuple[str, ...], driver: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A URL without an asynchronous driver gets an installed one; an asynchronous driver is kept."""
    for name in missing:
        monkeypatch.setitem(sys.modules, name, None)
    dialects.registry.register("sqlite.pysqlite_async", __name__, "OtherDialect")
    assert DatabaseParameter().convert(url, None, None).dialect.driver == driver


class OtherDialect(SQLiteDialect_aiosqlite):
    """A third-party dialect for an asynchronous driver."""

    driver = "pysqlite_async"
    supports_statement_cache = True


def test_synchronous_drivers(run: Run) -> None:
    """A synchronous driver is rejected if the library knows no asynchronous one for the database."""
    dialects.registry.register("other.sync", "sqlalchemy.dialects.sqlite.pysqlite", "SQLiteDialect_pysqlite")
    done = run("doctor", "-d", "other+sync:///name")
    assert (done.exit_code, "expected an asynchronous driver" in done.stderr) == (2, True), done.output


@pytest.mark.parametrize(
    ("url", "package"),
    [
        (f"postgresql://app:{SECRET}@host/name", "asyncpg or psycopg"),
        (f"postgresql+asyncpg://app:{SECRET}@host/name", "asyncpg"),
        (f"mysql://app:{SECRET}@host/name", "asyncmy or aiomysql"),
    ],
)
def test_missing_drivers(url: str, package: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the package to install."""
    for name in ("asyncpg", "psycopg", "asyncmy", "aiomysql"):
        monkeypatch.setitem(sys.modules, name, None)
    done = run("doctor", "-d", url)
    assert (done.exit_code, done.stderr.rstrip().endswith(f"found none: pip install {package}")) == (2, True), (
        done.stderr
    )
    assert SECRET not in done.output


def test_ctrl_c_during_an_import(run: Run, folder: Path) -> None:
    """The exit code for Ctrl-C during an import is 130, as it is later."""
    Path("stopped_here.py").write_text("raise KeyboardInterrupt")
    done = run("verify", "stopped_here:Base", "-s", "tests.cli.models:memory")
    assert (done.exit_code, done.stderr) == (130, "Stopped.\n")
