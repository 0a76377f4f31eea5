"""Loading objects by ``module:name``."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Run

MODELS = "tests.cli.models"


@pytest.mark.parametrize("store", ["media", "entering", "memory"])
def test_objects_that_resolve_to_a_store(store: str, run: Run, folder: Path) -> None:
    """A store, a function that returns one, and an asynchronous context manager are accepted."""
    done = run("doctor", "-s", f"{MODELS}:{store}", DATABASE_URL="")
    assert done.exit_code == 0, done.output
    assert "Store" in done.stdout
    assert not (folder / "entering").exists()


@pytest.mark.parametrize("database", ["engine", "sessions", "unbound"])
def test_objects_that_resolve_to_a_database(database: str, run: Run, filled: Path) -> None:
    """An engine or a session maker is accepted, directly or from a function or coroutine function."""
    done = run("verify", f"{MODELS}:Base", "-s", f"{MODELS}:media", DATABASE_URL=f"{MODELS}:{database}")
    assert (done.exit_code, done.stdout) == (0, ""), done.output


def test_modules_in_the_current_directory(run: Run, folder: Path) -> None:
    """Modules in the current directory are found, and the directory is added to ``sys.path`` once."""
    (folder / "here_alone.py").write_text(
        "from aioimageattach.stores._memory import MemoryStore\nstore = MemoryStore()"
    )
    assert run("doctor", "-s", "here_alone:store", DATABASE_URL="").exit_code == 0
    assert sys.path[0] == str(folder)
    assert run("doctor", "-s", "here_alone:store", DATABASE_URL="").exit_code == 0
    assert sys.path.count(str(folder)) == 1


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("models", "expected MODULE:NAME"),
        ("no.such.module:Base", "No module named 'no'"),
        (f"{MODELS}:Missing", "expected an attribute 'Missing'"),
        ("broken:Base", "ZeroDivisionError: division by zero"),
        ("leaving:Base", "module 'leaving' cannot be imported: SystemExit: no amqp://***@host/"),
        (".broken:Base", "expected MODULE:NAME"),
        ("broken:Base.", "expected MODULE:NAME"),
        (f"{MODELS}:lazy.base", "cannot be read: RuntimeError: postgresql://***@host/name is not connected"),
        (f"{MODELS}:none", f"expected an object, '{MODELS}:none' is None"),
    ],
)
def test_objects_that_cannot_be_loaded(spec: str, message: str, run: Run, folder: Path) -> None:
    """The message states the reason without passwords, and the exit code is that of wrong arguments."""
    (folder / "broken.py").write_text("1 / 0")
    (folder / "leaving.py").write_text("raise SystemExit('no amqp://user:hunter2@host/')")
    done = run("verify", spec, "-s", f"{MODELS}:memory")
    assert (done.exit_code, message in done.stderr) == (2, True), done.output


@pytest.mark.parametrize("option", ["-m", "-d", "-s"])
def test_none_is_not_a_missing_option(option: str, run: Run) -> None:
    """An option whose object is ``None`` is rejected, not ignored."""
    done = run("doctor", option, f"{MODELS}:none", DATABASE_URL="")
    assert (done.exit_code, f"'{MODELS}:none' is None" in done.stderr) == (2, True), done.output


@pytest.mark.parametrize(
    ("store", "found"),
    [
        ("nothing", "int"),
        ("engine", "AsyncEngine"),
        ("Base", "Base"),
        ("named", "a function that requires arguments: named() missing 1 required positional argument: 'name'"),
        ("FileSystemStore", "a class that requires arguments: FileSystemStore.__init__() missing 2 required"),
        ("Store", "a class that requires arguments: Can't instantiate abstract class Store"),
    ],
)
def test_objects_that_are_not_stores(store: str, found: str, run: Run) -> None:
    """The message contains the type, or the reason why the object cannot be called."""
    done = run("doctor", "-s", f"{MODELS}:{store}", DATABASE_URL="")
    message = f"expected Store, or a function without arguments that returns one, got {found}"
    assert (done.exit_code, message in done.stderr) == (2, True), done.output


@pytest.mark.parametrize("command", [["verify"], ["own"], ["undo", "--list"]], ids=lambda words: words[0])
def test_models_without_images(command: list[str], run: Run, filled: Path) -> None:
    """The message of the library is shown."""
    name, *options = command
    done = run(name, f"{MODELS}:User", "-s", f"{MODELS}:media", *options)
    assert (done.exit_code, "got User, which has none" in done.stderr) == (2, True), done.output


@pytest.mark.parametrize("command", [["doctor"], ["verify", f"{MODELS}:Base"]], ids=lambda words: words[0])
def test_errors_in_the_application_keep_their_traceback(command: list[str], run: Run, filled: Path) -> None:
    """Only expected errors of databases and stores are shortened to a message."""
    with pytest.raises(RuntimeError, match="an error in the application"):
        run(*command, "-s", f"{MODELS}:broken")
    with pytest.raises(TypeError, match=r"named\(\) missing 1 required"):
        run(*command, "-s", f"{MODELS}:mistaken")
