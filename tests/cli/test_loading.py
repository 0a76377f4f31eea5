"""What ``module:name`` stands for."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Run

MODELS = "tests.cli.models"


@pytest.mark.parametrize("store", ["media", "entered", "memory"])
def test_a_store_is_what_is_named_or_what_it_returns(store: str, run: Run, folder: Path) -> None:
    """A store, a function that returns one, an asynchronous context that gives one."""
    done = run("doctor", "-s", f"{MODELS}:{store}", DATABASE_URL="")
    assert done.exit_code == 0, done.output
    assert "Store" in done.stdout
    assert not (folder / "entered").exists()


@pytest.mark.parametrize("database", ["engine", "sessions", "unbound"])
def test_a_database_is_what_is_named_or_what_it_returns(database: str, run: Run, filled: Path) -> None:
    """An engine, or what makes sessions, from a function that is asynchronous or not."""
    done = run("verify", f"{MODELS}:Base", "-s", f"{MODELS}:media", DATABASE_URL=f"{MODELS}:{database}")
    assert (done.exit_code, done.stdout) == (0, ""), done.output


def test_the_present_folder_is_looked_into(run: Run, folder: Path) -> None:
    """As other programs do that are told where the models are."""
    (folder / "here_alone.py").write_text("from aioimageattach.stores.memory import MemoryStore\nstore = MemoryStore()")
    assert run("doctor", "-s", "here_alone:store", DATABASE_URL="").exit_code == 0
    assert sys.path[0] == str(folder)
    assert run("doctor", "-s", "here_alone:store", DATABASE_URL="").exit_code == 0
    assert sys.path.count(str(folder)) == 1


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("models", "expected MODULE:NAME"),
        ("no.such.module:Base", "No module named 'no'"),
        (f"{MODELS}:Missing", "there is no 'Missing' in it"),
        ("broken:Base", "ZeroDivisionError: division by zero"),
    ],
)
def test_what_cannot_be_loaded_is_a_wrong_argument(spec: str, message: str, run: Run, folder: Path) -> None:
    """The message says what is wrong with it, and the code is that of wrong arguments."""
    (folder / "broken.py").write_text("1 / 0")
    done = run("verify", spec, "-s", f"{MODELS}:memory")
    assert (done.exit_code, message in done.stderr) == (2, True), done.output


@pytest.mark.parametrize("store", ["nothing", "engine", "Base"])
def test_what_is_no_store_is_a_wrong_argument(store: str, run: Run) -> None:
    """The message says what came."""
    done = run("doctor", "-s", f"{MODELS}:{store}", DATABASE_URL="")
    assert (done.exit_code, "expected Store, or what returns one, got" in done.stderr) == (2, True), done.output


def test_models_without_pictures_are_a_wrong_argument(run: Run, filled: Path) -> None:
    """As the library says it."""
    done = run("verify", f"{MODELS}:User", "-s", f"{MODELS}:media")
    assert (done.exit_code, "no mapped class of User has files" in done.stderr) == (2, True), done.output


@pytest.mark.parametrize("command", [["doctor"], ["verify", f"{MODELS}:Base"]], ids=lambda words: words[0])
def test_faults_of_the_application_keep_their_traceback(command: list[str], run: Run, filled: Path) -> None:
    """What neither a database nor a store refuses is somebody's fault, who wants to see where."""
    with pytest.raises(RuntimeError, match="of the application's own"):
        run(*command, "-s", f"{MODELS}:broken")
