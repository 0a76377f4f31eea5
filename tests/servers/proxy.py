"""A TCP proxy that resets, delays, drops and throttles connections."""

from __future__ import annotations

import asyncio
import socket
import struct
from dataclasses import dataclass, field

from tests.servers.listener import BIND, Listener


@dataclass
class Plan:
    """The treatment of one connection.

    Attributes:
        reset_up_after: Reset the connection after this many bytes from the client.
        reset_down_after: Reset the connection after this many bytes from the server.
        close_down_after: Close the connection regularly after this many bytes from the server.
        silent_down: ``True`` to discard the server's bytes.
        stall_up_after: Stop reading from the client after this many bytes.
    """

    reset_up_after: int | None = None
    reset_down_after: int | None = None
    close_down_after: int | None = None
    silent_down: bool = False
    stall_up_after: int | None = None


@dataclass
class _Connection:
    plan: Plan
    up: int = 0
    down: int = 0


@dataclass
class Proxy(Listener):
    """Forwards connections to a port, one plan for each; further connections are forwarded unchanged."""

    target: int
    plans: list[Plan] = field(default_factory=list)
    connections: list[_Connection] = field(default_factory=list)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        plan = self.plans.pop(0) if self.plans else Plan()
        connection = _Connection(plan)
        self.connections.append(connection)
        up_reader, up_writer = await asyncio.open_connection(BIND, self.target)
        ways = [
            asyncio.ensure_future(self._upwards(connection, reader, up_writer)),
            asyncio.ensure_future(self._downwards(connection, up_reader, writer)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            reset = plan.reset_up_after is not None or plan.reset_down_after is not None
            for end in (writer, up_writer):
                _end(end, reset=reset)

    async def _upwards(
        self, connection: _Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        plan = connection.plan
        limit = plan.reset_up_after
        while data := await reader.read(16 * 1024):
            if limit is not None:
                data = data[: limit - connection.up]
            writer.write(data)
            await writer.drain()
            connection.up += len(data)
            if limit is not None and connection.up >= limit:
                return
            if plan.stall_up_after is not None and connection.up >= plan.stall_up_after:
                await asyncio.Event().wait()

    async def _downwards(
        self, connection: _Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        plan = connection.plan
        limit = plan.reset_down_after if plan.reset_down_after is not None else plan.close_down_after
        while data := await reader.read(16 * 1024):
            if plan.silent_down:
                continue
            if limit is not None:
                data = data[: limit - connection.down]
            writer.write(data)
            await writer.drain()
            connection.down += len(data)
            if limit is not None and connection.down >= limit:
                return


def _end(writer: asyncio.StreamWriter, *, reset: bool) -> None:
    if reset and not writer.transport.is_closing():
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
    writer.close()
