"""The services that the test suite needs are available. If ``CI=true``, a missing service is a failure."""

from __future__ import annotations

import os
import socket
from urllib.parse import urlsplit

import pytest

from tests.databases import REQUIRED, Servers


@pytest.mark.parametrize("name", ["postgresql", "mariadb"])
def test_the_database_server_answers(name: str, servers: Servers) -> None:
    """The server accepts a connection and provides an empty database."""
    server = servers._server(name)
    server.empty()
    assert server.url.database


def test_redis_answers() -> None:
    """Redis, with which tests of several processes share state, responds to PING."""
    address = urlsplit(os.environ.get("TEST_REDIS_URL", "redis://127.0.0.1:6379"))
    try:
        with socket.create_connection((address.hostname or "127.0.0.1", address.port or 6379), timeout=3) as connection:
            connection.sendall(b"PING\r\n")
            answer = connection.recv(64)
    except OSError as error:
        if REQUIRED:
            raise
        pytest.skip(f"Redis cannot be reached (TEST_REDIS_URL names it): {error}")
    assert answer == b"+PONG\r\n"
