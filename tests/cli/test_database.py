"""The database by URL: its driver, and its secrets."""

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


def test_each_database_has_a_driver_of_its_own(driverless_url: str, run: Run) -> None:
    """A URL that names none, as hosts give it, is enough."""
    done = run("doctor", "-d", driverless_url)
    assert done.exit_code == 0, done.output
    assert "answers" in done.stdout


def test_a_missing_file_of_sqlite_is_not_made(run: Run, folder: Path) -> None:
    """A name that is written wrongly is said to be."""
    done = run("doctor", "-d", "sqlite:///no.sqlite")
    assert (done.exit_code, "there is no database in 'no.sqlite'" in done.stderr) == (2, True)
    assert not (folder / "no.sqlite").exists()


@pytest.mark.parametrize("url", ["sqlite://", "sqlite+aiosqlite:///:memory:", "sqlite:///file:app.sqlite?uri=true"])
def test_a_database_in_memory_needs_no_file(url: str, run: Run) -> None:
    """Nor does one whose name is a URI."""
    assert run("doctor", "-d", url).exit_code == 0


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (f"postgresql://app:{SECRET}@host:port/name", "cannot be read"),
        (f"://app:{SECRET}@host/name", "cannot be read"),
        (f"postgresql//app:{SECRET}@host/name", "expected MODULE:NAME"),
        (f"nosuch://app:{SECRET}@host/name", "nosuch"),
        (f"mysql+pymysql://app:{SECRET}@host/name", "asynchronous driver"),
        (f"postgresql+psycopg2://app:{SECRET}@host/name", "psycopg2"),
    ],
)
def test_wrong_urls_are_refused_without_being_repeated(url: str, message: str, run: Run) -> None:
    """No password stands in a message."""
    done = run("doctor", "-d", url)
    assert (done.exit_code, message in done.stderr) == (2, True), done.output
    assert SECRET not in done.output


def test_a_database_that_does_not_answer(run: Run) -> None:
    """It is no wrong argument, and its password is not shown."""
    url = f"postgresql://app:{SECRET}@127.0.0.1:1/name"
    done = run("verify", "tests.cli.models:Base", "-s", "tests.cli.models:memory", "-d", url)
    assert (done.exit_code, done.stderr.startswith("Error: ")) == (3, True), done.output
    assert SECRET not in done.output


@pytest.mark.parametrize("database", ["postgresql", "mariadb"], indirect=True)
def test_a_database_that_refuses(database: Database, run: Run) -> None:
    """What it says of a wrong password is said, and the password is not."""
    url = database.url.set(username="nobody_known", password=SECRET).render_as_string(hide_password=False)
    done = run("verify", "tests.cli.models:Base", "-s", "tests.cli.models:memory", "-d", url)
    assert (done.exit_code, "nobody_known" in done.stderr) == (3, True), done.output
    assert SECRET not in done.output


def test_an_error_of_the_database_is_said_without_its_statement(run: Run, folder: Path) -> None:
    """What the driver says is enough."""
    Path("app.sqlite").touch()
    done = run("verify", "tests.cli.models:Base", "-s", "tests.cli.models:memory")
    assert (done.exit_code, done.stderr.splitlines()[-1]) == (3, "Error: no such table: post_photo"), done.output


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_the_words_of_libpq(database: Database, run: Run) -> None:
    """URLs as hosts of PostgreSQL give them are understood."""
    url = database.url.set(drivername="postgres").render_as_string(hide_password=False)
    query = "?sslmode=prefer&connect_timeout=10&application_name=app&channel_binding=prefer"
    done = run("doctor", "-d", url + query)
    assert done.exit_code == 0, done.output
    done = run("doctor", "-d", f"{url}?sslrootcert=/etc/ssl/ca.pem")
    assert (done.exit_code, "does not take sslrootcert from a URL: use postgresql+psycopg://" in done.stderr) == (
        2,
        True,
    )


def test_an_import_that_is_stopped(run: Run, folder: Path) -> None:
    """Ctrl-C has the same code as later."""
    Path("stopped_here.py").write_text("raise KeyboardInterrupt")
    done = run("verify", "stopped_here:Base", "-s", "tests.cli.models:memory")
    assert (done.exit_code, done.stderr) == (130, "Stopped.\n")
