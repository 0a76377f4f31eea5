"""The program, run as a module and in a terminal, and its response to keys."""

from __future__ import annotations

import os
import pty
import re
import runpy
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from aioimageattach import cli
from aioimageattach.cli._app import app
from aioimageattach.version import VERSION
from tests.cli import models
from tests.cli.conftest import files

ROOT = Path(__file__).parent.parent.parent
PROGRAM = [sys.executable, "-W", "error", "-m", "aioimageattach"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color", "COLUMNS": "140"}
BASE = "tests.cli.models:Base"
MEDIA = "tests.cli.models:media"
PATIENT = """
import asyncio
from pathlib import Path
from aioimageattach.stores.fs import FileSystemStore


class Patient(FileSystemStore):
    puts = 0

    async def put_object(self, name, data, **options):
        self.puts += 1
        if self.puts == 3 and not Path("again").exists():
            Path("begun").touch()
            await asyncio.sleep(3600)
        await super().put_object(name, data, **options)


store = Patient("new", "https://example.com/")
"""


def read(terminal: int, until: str) -> str:
    """Read from a terminal until a string appears, or to the end."""
    text, deadline = "", time.monotonic() + 60
    while until not in text and time.monotonic() < deadline:
        if not select.select([terminal], [], [], 1)[0]:
            continue
        try:
            piece = os.read(terminal, 65536)
        except OSError:  # the other side was closed
            break
        text += piece.decode(errors="replace")
    return text


def test_the_module_runs_as_a_program(filled: Path) -> None:
    """``python -m aioimageattach`` does the same as the command, without a warning."""
    environment = {**ENVIRONMENT, "DATABASE_URL": f"sqlite:///{models.DATABASE}"}
    arguments = [*PROGRAM, "verify", BASE, "-s", MEDIA]
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert done.stderr.startswith("verify: 7 of 7, ")


def test_ctrl_c_stops_a_command_and_another_run_continues(filled: Path) -> None:
    """Only complete files are left, the command explains how to continue, and a second run copies the rest."""
    (filled / "patient.py").write_text(PATIENT)
    environment = {**ENVIRONMENT, "DATABASE_URL": f"sqlite:///{models.DATABASE}"}
    arguments = [*PROGRAM, "migrate", BASE, MEDIA, "patient:store", "--concurrency", "1"]
    master, slave = pty.openpty()
    enter = f"import os, sys; os.login_tty({slave}); os.execv(sys.argv[1], sys.argv[1:])"
    with subprocess.Popen(
        [sys.executable, "-c", enter, *arguments], env=environment, pass_fds=[slave], stdin=subprocess.DEVNULL
    ) as program:
        os.close(slave)
        while not (filled / "begun").exists():
            assert program.poll() is None, read(master, "never")
            time.sleep(0.01)
        os.write(master, b"\x03")  # the terminal sends SIGINT to its foreground processes
        text = read(master, "to continue.")
        assert program.wait(30) == 130
    os.close(master)
    assert "Stopped. Copied files stay; run the same command again to continue." in text
    assert re.search(r"migrate.*[━╸].*/7", text), text
    copied = files(filled / "new")
    assert len(copied) == 2
    assert all((filled / "new" / name).read_bytes() == models.SMALL for name in copied)
    (filled / "again").touch()
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, files(filled / "new")) == (0, files(filled / models.MEDIA)), done.stderr


def test_a_terminal_shows_a_progress_bar(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bar shows the number of files, the rate and the remaining time, and results are written above it."""
    for name in files(filled / models.MEDIA)[:2]:
        (filled / models.MEDIA / name).unlink()
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "140")
    master, slave = pty.openpty()
    with os.fdopen(slave, "w", encoding="utf-8") as terminal:
        monkeypatch.setattr(sys, "stdout", terminal)
        monkeypatch.setattr(sys, "stderr", terminal)
        with pytest.raises(SystemExit) as ended:
            app(["verify", BASE, "-s", MEDIA])
        monkeypatch.undo()
    text = read(master, "5 sound, 2 mismatched\r\n")
    os.close(master)
    assert ended.value.code == 1
    assert text.count("missing UserPicture") == 2
    assert text.index("missing UserPicture") < text.index("7/7")
    assert re.search(r"verify: 7 of 7, .*5 sound, 2 mismatched\r\n$", text), text


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the extra, but only if the missing package belongs to it."""
    for name in [name for name in sys.modules if name.startswith("aioimageattach.cli.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "click", None)
    with pytest.raises(SystemExit, match=r"the command line requires click: pip install 'aioimageattach\[cli\]'"):
        cli.main()
    monkeypatch.delitem(sys.modules, "click")
    monkeypatch.setitem(sys.modules, "sqlalchemy.exc", None)
    with pytest.raises(ModuleNotFoundError):
        cli.main()


def test_importing_the_module_does_not_run_the_program(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only running the module starts the program."""
    monkeypatch.setattr(sys, "argv", ["aioimageattach", "--version"])
    runpy.run_module("aioimageattach.__main__", run_name="imported")
    assert capsys.readouterr().out == ""
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("aioimageattach", run_name="__main__")
    assert (ended.value.code, capsys.readouterr().out) == (0, f"aioimageattach {VERSION}\n")


@pytest.mark.parametrize("command", ["", *app.commands])
def test_each_command_has_help(command: str) -> None:
    """The help of each command has a summary, and a description of each option."""
    done = CliRunner().invoke(app, [*([command] if command else []), "--help"])
    assert (done.exit_code, done.stdout.startswith("Usage: ")) == (0, True)
    assert not re.search(r"^  -[^ ]*(, --\S+)?( [A-Z]+)?$\n^  -", done.stdout, re.MULTILINE), done.stdout
