"""Contenders in separate processes, so that they do not affect each other."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from .contenders import PYTHON
from .measure import Sample, say

__all__ = ["NAMES", "Failed", "Missing", "Worker"]

HERE = Path(__file__).parent
NAMES = (*PYTHON, "sharp")


class Missing(Exception):
    """The contender is not installed."""


class Failed(Exception):
    """The contender cannot do this task."""


class Worker:
    """The process of a contender, which waits for tasks.

    Raises:
        Missing: The contender is not installed.
    """

    def __init__(self, name: str) -> None:
        command = _sharp() if name == "sharp" else [sys.executable, "-m", "tests.bench.contenders", name]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=HERE.parent.parent
        )
        hello = self._answer()
        if "missing" in hello:
            self.close()
            raise Missing(hello["missing"])
        self.version: str = hello["version"]

    def make(self, original: Path, width: int, file_format: str, output: Path | None = None) -> tuple[Sample, int]:
        """Make a thumbnail; return its cost and its size in bytes.

        Raises:
            Failed: The contender cannot do this.
        """
        task = {"original": str(original), "width": width, "format": file_format, "output": output and str(output)}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(task) + "\n")
        self._process.stdin.flush()
        answer = self._answer()
        if "error" in answer:
            raise Failed(answer["error"])
        return Sample(answer["cpu"], answer["wall"]), answer["size"]

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        return json.loads(line) if line else {"missing": "it does not start", "error": "it has ended"}

    def close(self) -> None:
        """End the process, and wait for it."""
        self._process.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()


def _sharp() -> list[str]:
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None:
        raise Missing("there is no node")
    if not (HERE / "node_modules" / "sharp").exists():
        if npm is None:
            raise Missing("there is no npm to install it with")
        say("npm install sharp")
        done = subprocess.run(
            [npm, "install", "--no-package-lock", "--no-audit", "--no-fund", "--loglevel=error"],
            cwd=HERE,
            capture_output=True,
            text=True,
            timeout=300,
        )
        if done.returncode:
            raise Missing(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "npm failed")
    return [node, str(HERE / "sharp.mjs")]
