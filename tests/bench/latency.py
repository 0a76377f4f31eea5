"""A proxy with latency: it delays all data. Runs as a separate program, and prints its port."""

from __future__ import annotations

import asyncio
import sys

BIND = "127.0.0.1"


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float) -> None:
    """Forward data, delaying each piece by the same time: this simulates distance, not low bandwidth."""
    loop = asyncio.get_running_loop()
    while data := await reader.read(64 * 1024):
        loop.call_later(delay, writer.write, data)
    loop.call_later(delay, writer.close)


async def serve(target: int, seconds: float) -> None:
    """Serve forever.

    Args:
        target: The port to forward to.
        seconds: The delay of a response.
    """

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection(BIND, target)
        await asyncio.gather(
            _pass(reader, up_writer, seconds / 2), _pass(up_reader, writer, seconds / 2), return_exceptions=True
        )

    server = await asyncio.start_server(connected, BIND, 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), float(sys.argv[2])))
