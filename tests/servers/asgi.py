"""Real ASGI servers, each in a separate process, with the guard against blocking the event loop."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

SERVERS = ("uvicorn", "uvicorn-h11", "hypercorn", "granian")
ROOT = Path(__file__).parents[2]


def _command(server: str, port: int, app: str) -> list[str]:
    if server == "granian":
        return ["granian", "--interface", "asgi", "--port", str(port), "--no-log", app]
    if server == "hypercorn":
        return ["hypercorn", "--bind", f"127.0.0.1:{port}", "--log-level", "error", app]
    http = "h11" if server.endswith("h11") else "httptools"
    return ["uvicorn", "--port", str(port), "--http", http, "--loop", "asyncio", "--log-level", "error", app]


@contextmanager
def serving(
    server: str, served: Path, *, app: str = "tests.servers.served:app", options: Sequence[str] = (), **environment: str
) -> Generator[str]:
    """Run a server that serves a directory, and yield its URL. It must not print anything."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", *_command(server, port, app), *options],
        cwd=ROOT,
        env={**os.environ, "SERVED": str(served), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    said = b""
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert process.poll() is None, process.communicate()[0]
                assert time.monotonic() < deadline, f"{server} does not answer"
                time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        try:
            said, _ = process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            said, _ = process.communicate()
    assert b"Traceback" not in said, said.decode()
    assert b"BlockingError" not in said, said.decode()
