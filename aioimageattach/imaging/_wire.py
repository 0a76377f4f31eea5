"""Messages between this process and its workers: a length-prefixed head and body, sent over a socket."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterable
from typing import Final

__all__ = ["receive", "send"]

_LENGTHS: Final = struct.Struct(">QQ")
_MOST_HEAD: Final = 10_000_000


def send(sock: socket.socket, head: bytes, body: Iterable[bytes | memoryview]) -> None:
    """Send a message, without joining the pieces of the body in memory."""
    pieces = list(body)
    sock.sendall(_LENGTHS.pack(len(head), sum(map(len, pieces))) + head)
    for piece in pieces:
        sock.sendall(piece)


def receive(sock: socket.socket, most: int, seconds: float | None = None) -> tuple[bytes, memoryview]:
    """Return the head and the body of the next message.

    Args:
        sock: The socket to read from.
        most: Largest body accepted, in bytes.
        seconds: Time limit for the whole message; ``None`` means no limit.

    Raises:
        EOFError: The peer closed the connection, or sent an invalid message.
        TimeoutError: The message did not arrive within ``seconds``.
    """
    end = None if seconds is None else time.monotonic() + seconds
    head, body = _LENGTHS.unpack(_exactly(sock, _LENGTHS.size, end))
    if head > _MOST_HEAD or body > most:
        raise EOFError
    return bytes(_exactly(sock, head, end)), _exactly(sock, body, end)


def _exactly(sock: socket.socket, size: int, end: float | None) -> memoryview:
    view = memoryview(bytearray(size))
    at = 0
    while at < size:
        if end is not None:  # shortened before each read, so that many small pieces cannot extend the time limit
            sock.settimeout(max(end - time.monotonic(), 0.001))
        count = sock.recv_into(view[at:])
        if not count:
            raise EOFError
        at += count
    return view
