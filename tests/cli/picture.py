"""Draws ``docs/_static/command-line.svg``, a terminal with a real run: ``python -m tests.cli.picture``."""

from __future__ import annotations

import asyncio
import os
import pty
import re
import subprocess
import sys
import tempfile
from io import StringIO
from pathlib import Path

from rich.console import Console
from rich.text import Text

from aioimageattach.stores.fs import FileSystemStore
from tests.cli import test_page
from tests.cli.test_program import ROOT, read

TARGET = ROOT / "docs" / "_static" / "command-line.svg"
WIDTH = 100
COMMAND = "aioimageattach migrate app.models:Base app.stores:old app.stores:new"
STORES = """
import asyncio
from aioimageattach.stores.fs import FileSystemStore


class Far(FileSystemStore):
    async def put_object(self, name, data, **options):
        await asyncio.sleep(0.4)
        await super().put_object(name, data, **options)


old = FileSystemStore("srv/media", "https://example.com/media/")
new = Far("srv/new", "https://example.com/new/")
"""
FORMAT = """\
<svg viewBox="0 0 1240 76" xmlns="http://www.w3.org/2000/svg" role="img">
<title>A terminal with a progress bar</title>
<style>
.{unique_id}-matrix {{ font-family: Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: {char_height}px; }}
{styles}
</style>
<rect fill="#292929" width="1240" height="76" rx="8"/>
<g transform="translate(12, 12)" class="{unique_id}-matrix">{matrix}</g>
</svg>
"""


def screen(text: str) -> list[str]:
    """Return the lines that a terminal shows for some output; only the last state of a redrawn line."""
    lines = text.replace("\x1b[?25l", "").replace("\x1b[?25h", "").split("\n")
    return [re.split(r"\r(?:\x1b\[2K)?", line.rstrip("\r"))[-1] for line in lines]


def run(folder: Path) -> list[str]:
    """Start to copy 300 images, and return the lines of the terminal when two thirds have been copied."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color", "COLUMNS": str(WIDTH)}
    environment["DATABASE_URL"] = "sqlite:///app.sqlite"
    master, slave = pty.openpty()
    words = [sys.executable, "-m", "aioimageattach", *COMMAND.split()[1:]]
    with subprocess.Popen(words, cwd=folder, env=environment, stdin=slave, stdout=slave, stderr=slave) as program:
        os.close(slave)
        text = ""
        while not re.search(r"m2\d\d/300.*\r\x1b\[2K", text):
            assert program.poll() is None, text
            text += read(master, "\x1b[2K")
        program.terminate()
        read(master, "to continue.")
    os.close(master)
    return screen(text.rpartition("\r\x1b[2K")[0])


def main() -> None:
    """Draw the image."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("app", "srv/media", "srv/new"):
            (folder / part).mkdir(parents=True)
        (folder / "app" / "models.py").write_text(test_page.MODELS)
        (folder / "app" / "stores.py").write_text(STORES)
        sys.path.insert(0, str(folder))
        asyncio.run(test_page.fill(folder, FileSystemStore(folder / "srv/media", "/"), 300))
        lines = run(folder)
    console = Console(record=True, width=WIDTH, file=StringIO())
    for line in (f"\x1b[1;32m$\x1b[0m {COMMAND}", *lines):
        console.print(Text.from_ansi(line), soft_wrap=True)
    drawn = console.export_svg(code_format=FORMAT, unique_id="terminal")
    drawn = re.sub(r' clip-path="[^"]*"', "", drawn)  # lines are no longer than the terminal
    TARGET.write_text(re.sub(r"<text[^>]*>\n</text>", "\n", drawn), "utf-8")


if __name__ == "__main__":
    main()
