"""The interface of the tests to the process from which workers are forked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.faults.kill.steps import Note

ROOT = Path(__file__).parents[3]


class Zygote:
    """A process from which workers are forked, shared by all tests. Its methods block."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.kill.zygote"],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def _ask(self, **command: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the zygote has ended"
        return json.loads(answer)

    def fork(self, specs: list[dict[str, Any]]) -> None:
        """Start a round with a worker for each description."""
        self._ask(fork=specs)

    def wait(self, timeout: float = 300, *, count: int | None = None) -> None:
        """Wait until each worker has stopped itself or exited."""
        self._ask(wait=timeout, count=count)

    def signal(self, number: int) -> None:
        """Send a signal to each worker."""
        self._ask(signal=number)

    def kill(self) -> list[tuple[str, Note]]:
        """Kill all workers.

        Returns:
            The state of each, ``"stopped"``, ``"busy"``, or the signal or exit status with which it had ended, and its
            last note.
        """
        return [(answer.pop("end"), Note(**answer)) for answer in self._ask(kill=True)]

    def run(self, *specs: dict[str, Any], seconds: float | None = None) -> list[tuple[str, Note]]:
        """Run a round until each worker has stopped or exited, or for a number of seconds."""
        self.fork(list(specs))
        if seconds is None:
            self.wait()
        else:
            time.sleep(seconds)
        return self.kill()

    def close(self) -> None:
        """Terminate the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(10)
