"""Messages between this process and its workers: a head and a body over a socket, each led by its length."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable
from typing import Final

__all__ = ["receive", "send"]

_LENGTHS: Final = struct.Struct(">QQ")
_MOST_HEAD: Final = 10_000_000


def send(sock: socket.socket, head: bytes, body: Iterable[bytes | memoryview]) -> None:
    """Send a message; the pieces of the body are not joined."""
    pieces = list(body)
    sock.sendall(_LENGTHS.pack(len(head), sum(map(len, pieces))) + head)
    for piece in pieces:
        sock.sendall(piece)


def receive(sock: socket.socket, most: int) -> tuple[bytes, memoryview]:
    """Return the head and the body of the next message.

    Args:
        sock: Where from.
        most: Bytes that a body may have.

    Raises:
        EOFError: The other side has closed, or sends what cannot be a message.
    """
    head, body = _LENGTHS.unpack(_exactly(sock, _LENGTHS.size))
    if head > _MOST_HEAD or body > most:
        raise EOFError
    return bytes(_exactly(sock, head)), _exactly(sock, body)


def _exactly(sock: socket.socket, size: int) -> memoryview:
    view = memoryview(bytearray(size))
    at = 0
    while at < size:
        count = sock.recv_into(view[at:])
        if not count:
            raise EOFError
        at += count
    return view
