"""A TCP proxy between a driver and its database, which can interfere with a COMMIT like a network does."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from typing import Literal

from sqlalchemy import URL

from tests.servers.listener import BIND, Listener

Fault = Literal["lose the reply", "swallow", "delay the reply"]

_COMMIT = re.compile(rb"(?<!AUTO)COMMIT", re.IGNORECASE)  # asyncmy starts with SET AUTOCOMMIT
_PORTS = {"postgresql": 5432, "mysql": 3306, "mariadb": 3306}


class Proxy(Listener):
    """Forwards everything until a fault is set, which affects the next COMMIT.

    Attributes:
        fault: What happens at the next COMMIT; ``None`` for nothing. ``"lose the reply"``: COMMIT is forwarded; once
            the database has replied, the driver's connection is reset. ``"swallow"``: both connections are reset, and
            COMMIT never arrives. ``"delay the reply"``: the reply of the database waits for :attr:`go`.
        met: Set when a COMMIT was affected; for the first and the last fault, when the database has replied.
        go: Set it to release the delayed reply.
    """

    def __init__(self) -> None:
        self.fault: Fault | None = None
        self.met = asyncio.Event()
        self.go = asyncio.Event()
        self._waiting = False
        self._target = ("", 0)

    @contextlib.asynccontextmanager
    async def before(self, url: URL) -> AsyncIterator[URL]:
        """Start a proxy for the database at a URL, and yield the URL of the proxy."""
        self._target = (url.host or BIND, url.port or _PORTS[url.get_backend_name()])
        async with self:
            yield url.set(host=BIND, port=self.port)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        database, to_database = await asyncio.open_connection(*self._target)
        ways = [
            asyncio.create_task(self._upstream(reader, to_database)),
            asyncio.create_task(self._downstream(database, writer)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            pass  # the test has ended
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            for side in (to_database, writer):
                side.transport.abort()

    async def _upstream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(65536):
            if self.fault == "swallow" and _COMMIT.search(piece):
                self.met.set()
                return
            if self.fault is not None and _COMMIT.search(piece):
                self._waiting = True
            writer.write(piece)
            await writer.drain()

    async def _downstream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(65536):
            if self._waiting:
                self._waiting = False
                self.met.set()
                if self.fault == "lose the reply":
                    return
                await self.go.wait()
            writer.write(piece)
            await writer.drain()
