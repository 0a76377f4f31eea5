"""A process with all modules loaded, from which workers are forked in milliseconds.

It reads commands from its standard input and writes answers, one JSON object per line. It has no event loop and no
threads, and has not used libvips, so that a forked process is equivalent to a new one.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import signal
import sys
import time
import traceback
from dataclasses import asdict
from typing import Any

from tests.faults.kill import thumbnails
from tests.faults.kill.steps import Board, Watch
from tests.faults.kill.worker import ROLES, begin

LOADED = (
    "aiosqlite",
    "asyncmy",
    "asyncpg",
    "aioimageattach.imaging._render",
    "sqlalchemy.dialects.mysql.asyncmy",
    "sqlalchemy.dialects.postgresql.asyncpg",
    "sqlalchemy.dialects.sqlite.aiosqlite",
)
PR_SET_PDEATHSIG = 1
ROLES["thumbnails"] = thumbnails.run


class Herd:
    """The workers of a round."""

    def __init__(self, specs: list[dict[str, Any]]) -> None:
        self._board = Board(len(specs))
        self._lines: dict[int, int] = {}
        self._ends: dict[int, str] = {}
        for line, spec in enumerate(specs):
            pid = os.fork()
            if pid == 0:
                self._be(line, spec)
            self._lines[pid] = line

    def _be(self, line: int, spec: dict[str, Any]) -> None:
        code = 1
        try:
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            stop = spec.get("stop")
            begin({**spec, "line": line}, Watch(self._board, line, (stop[0], stop[1]) if stop else None))
            code = 0
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(code)

    def wait(self, timeout: float, count: int | None) -> None:
        """Wait until a number of workers, or all, have stopped or exited, or until a time limit."""
        deadline = time.monotonic() + timeout
        while len(self._ends) < (count or len(self._lines)) and time.monotonic() < deadline:
            pid, status = os.waitpid(-1, os.WUNTRACED | os.WNOHANG)
            if pid:
                self._ends[pid] = _told(status)
            else:
                time.sleep(0.002)

    def signal(self, number: int) -> None:
        """Send a signal to all."""
        for pid in self._lines:
            os.kill(pid, number)

    def kill(self) -> list[dict[str, Any]]:
        """Kill all that have not exited; return the state and the last note of each."""
        for pid in self._lines:
            if self._ends.get(pid, "stopped") == "stopped":
                os.kill(pid, signal.SIGKILL)
        for pid in self._lines:
            if self._ends.get(pid, "stopped") == "stopped":
                _, status = os.waitpid(pid, 0)
                self._ends.setdefault(pid, "busy" if _told(status) == "SIGKILL" else _told(status))
        return [{"end": self._ends[pid], **asdict(self._board.read(line))} for pid, line in sorted(self._lines.items())]


def _told(status: int) -> str:
    if os.WIFSTOPPED(status):
        return "stopped"
    if os.WIFSIGNALED(status):
        return signal.Signals(os.WTERMSIG(status)).name
    return f"exit {os.WEXITSTATUS(status)}"


def main() -> None:
    """Execute commands until the input ends."""
    for name in LOADED:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    herd = Herd([])
    for line in iter(sys.stdin.readline, ""):
        command = json.loads(line)
        answer: Any = None
        if "fork" in command:
            herd = Herd(command["fork"])
        elif "wait" in command:
            herd.wait(command["wait"], command["count"])
        elif "signal" in command:
            herd.signal(command["signal"])
        else:
            answer = herd.kill()
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
