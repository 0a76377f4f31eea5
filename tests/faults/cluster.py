"""A separate PostgreSQL server, for settings that the shared one does not have."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import URL

from tests.servers.ministack import free_port


@contextmanager
def cluster(folder: Path, **settings: object) -> Iterator[URL]:
    """Start a server with the given settings, and yield its URL; skip the test if PostgreSQL is not installed.

    It refuses to run as root, so in that case it runs as ``postgres``.
    """
    programs = {name: shutil.which(name) for name in ("initdb", "postgres")}
    if None in programs.values():
        pytest.skip("PostgreSQL's own programs are not installed")
    options: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    data, port = folder / "data", free_port()
    if os.geteuid() == 0:
        options |= {"user": "postgres", "group": "postgres", "extra_groups": []}
        shutil.chown(folder, "postgres", "postgres")
    arguments = ["-D", str(data), "-A", "trust", "-N", "-U", "postgres"]
    subprocess.run([str(programs["initdb"]), *arguments], check=True, cwd=folder, **options)
    wanted = {"port": port, "listen_addresses": "127.0.0.1", "unix_socket_directories": "", "fsync": "off", **settings}
    told = [part for name, value in wanted.items() for part in ("-c", f"{name}={value}")]
    server = subprocess.Popen([str(programs["postgres"]), "-D", str(data), *told], cwd=folder, **options)
    url = URL.create("postgresql", "postgres", host="127.0.0.1", port=port, database="postgres")
    try:
        _wait(url)
        yield url
    finally:
        server.terminate()
        server.wait(20)


def _wait(url: URL) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            psycopg.connect(url.render_as_string(hide_password=False)).close()
        except psycopg.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return


def new_database(url: URL, name: str) -> URL:
    """Create an empty database on that server."""
    with psycopg.connect(url.render_as_string(hide_password=False), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    return url.set(database=name)
