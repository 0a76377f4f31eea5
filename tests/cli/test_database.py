"""The database by URL: the default driver, and secrets."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.databases import Database

SECRET = "hunter2"


@pytest.fixture
def driverless_url(database: Database) -> str:
    url = database.url.set(drivername=database.url.drivername.partition("+")[0])
    if url.database is not None and database.name == "sqlite":
        Path(url.database).touch()
    return url.render_as_string(hide_password=False)


def test_urls_without_a_driver_get_the_default(driverless_url: str, run: Run) -> None:
    """URLs as hosting providers give them are sufficient."""
    done = run("doctor", "-d", driverless_url)
    assert done.exit_code == 0, done.output
    assert "connected to" in done.stdout


def test_a_missing_sqlite_file_is_refused(run: Run, folder: Path) -> None:
    """A mistyped name does not create an empty database."""
    done = run("doctor", "-d", "sqlite:///no.sqlite")
    assert (done.exit_code, "expected an existing SQLite database, found no file 'no.sqlite'" in done.stderr) == (
        2,
        True,
    )
    assert not (folder / "no.sqlite").exists()


@pytest.mark.parametrize("url", ["sqlite://", "sqlite+aiosqlite:///:memory:", "sqlite:///file:app.sqlite?uri=true"])
def test_databases_without_a_file(url: str, run: Run) -> None:
    """Databases in memory, and file names that are URIs, are not checked."""
    assert run("doctor", "-d", url).exit_code == 0


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (f"postgresql://app:{SECRET}@host:port/name", "invalid database URL"),
        (f"://app:{SECRET}@host/name", "invalid database URL"),
        (f"postgresql//app:{SECRET}@host/name", "expected MODULE:NAME"),
        (f"nosuch://app:{SECRET}@host/name", "nosuch"),
        (f"mysql+pymysql://app:{SECRET}@host/name", "asynchronous driver"),
        (f"postgresql+psycopg2://app:{SECRET}@host/name", "psycopg2"),
    ],
)
def test_messages_do_not_repeat_invalid_urls(url: str, message: str, run: Run) -> None:
    """No message contains the password."""
    done = run("doctor", "-d", url)
    assert (done.exit_code, message in done.stderr) == (2, True), done.output
    assert SECRET not in done.output


def test_a_database_that_does_not_respond(run: Run) -> None:
    """The exit code is not that of wrong arguments, and the password is not shown."""
    url = f"postgresql://app:{SECRET}@127.0.0.1:1/name"
    done = run("verify", "tests.cli.models:Base", "-s", "tests.cli.models:memory", "-d", url)
    assert (done.exit_code, done.stderr.startswith("Error: ")) == (3, True), done.output
    assert SECRET not in done.output


@pytest.mark.parametrize("database", ["postgresql", "mariadb"], indirect=True)
def test_a_wrong_password(database: Database, run: Run) -> None:
    """The database's message is shown, and the password is not."""
    url = database.url.set(username="nobody_known", password=SECRET).render_as_string(hide_password=False)
    done = run("verify", "tests.cli.models:Base", "-s", "tests.cli.models:memory", "-d", url)
    assert (done.exit_code, "nobody_known" in done.stderr) == (3, True), done.output
    assert SECRET not in done.output


def test_database_errors_are_shown_without_the_statement(run: Run, folder: Path) -> None:
    """Only the driver's message is shown."""
    Path("app.sqlite").touch()
    done = run("verify", "tests.cli.models:Base", "-s", "tests.cli.models:memory")
    assert (done.exit_code, done.stderr.splitlines()[-1]) == (3, "Error: no such table: post_photo"), done.output


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_options_of_libpq(database: Database, run: Run) -> None:
    """URLs as PostgreSQL hosting providers give them are accepted."""
    url = database.url.set(drivername="postgres").render_as_string(hide_password=False)
    query = "?sslmode=prefer&connect_timeout=10&application_name=app&channel_binding=prefer"
    done = run("doctor", "-d", url + query)
    assert done.exit_code == 0, done.output
    done = run("doctor", "-d", f"{url}?sslrootcert=/etc/ssl/ca.pem")
    assert (
        done.exit_code,
        "asyncpg does not support sslrootcert in a URL: use postgresql+psycopg://" in done.stderr,
    ) == (
        2,
        True,
    )


def test_ctrl_c_during_an_import(run: Run, folder: Path) -> None:
    """The exit code is 130, as it is later."""
    Path("stopped_here.py").write_text("raise KeyboardInterrupt")
    done = run("verify", "stopped_here:Base", "-s", "tests.cli.models:memory")
    assert (done.exit_code, done.stderr) == (130, "Stopped.\n")
