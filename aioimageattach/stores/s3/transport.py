"""The door to aiohttp: one session per event loop, and requests that are sent as they were signed."""

from __future__ import annotations

import asyncio
import ssl
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias
from weakref import WeakKeyDictionary

import aiohttp
from yarl import URL

from ...exc import StoreUnavailableError
from ...version import VERSION
from .body import Body, Slices
from .watchdog import Limit, Watchdog
from .xml import MAX_ANSWER

__all__ = ["BREAKS", "KEEP_ALIVE", "ConnectorFactory", "Lane", "Transport", "read_whole"]

KEEP_ALIVE: Final = 15.0
"""How long an idle connection is kept, in seconds: servers let go of it soon after."""

BREAKS: Final = (aiohttp.ClientError, ConnectionError, TimeoutError)
"""What is raised when a request or its answer does not get through."""

ConnectorFactory: TypeAlias = Callable[[], aiohttp.BaseConnector]
"""Makes the connector of a session, for a resolver, a proxy or a socket of one's own."""

_HEADERS: Final = {
    "Accept": "*/*",
    "Accept-Encoding": "identity",  # or a proxy might pack what was asked for
    "User-Agent": f"aioimageattach/{VERSION}",
}
_UNTYPED: Final = ("Content-Type",)


@dataclass(frozen=True, slots=True)
class Lane:
    """What belongs to one event loop."""

    loop: asyncio.AbstractEventLoop
    session: aiohttp.ClientSession
    watchdog: Watchdog

    def limit(self, until: float) -> Limit:
        """Return a ``with`` block that ends at a time of the loop's clock."""
        return Limit(self.watchdog, until)


class Transport:
    """Sends requests.

    Args:
        connect_timeout: How long it may take to connect, in seconds.
        max_connections: How many connections there may be at once in an event loop; more requests wait.
        ssl_context: What TLS is to accept; ``None`` means what Python does.
        proxy: The URL of an HTTP proxy.
        trust_env: Whether the proxies of the environment are used, and the passwords of ``.netrc``.
        connector: Makes the connector, which then decides about connections and TLS.
        label: Whose it is, for a warning.
    """

    def __init__(
        self,
        *,
        connect_timeout: float,
        max_connections: int,
        ssl_context: ssl.SSLContext | None,
        proxy: str | None,
        trust_env: bool,
        connector: ConnectorFactory | None,
        label: str,
    ) -> None:
        self._connect_timeout = connect_timeout
        self._max_connections = max_connections
        self._ssl = ssl_context
        self._proxy = proxy
        self._trust_env = trust_env
        self._connector = connector
        self._label = label
        self._lanes: WeakKeyDictionary[asyncio.AbstractEventLoop, Lane] = WeakKeyDictionary()
        self._last: Lane | None = None

    def _make_connector(self) -> aiohttp.BaseConnector:
        if self._connector is not None:
            return self._connector()
        return aiohttp.TCPConnector(
            limit=self._max_connections,
            keepalive_timeout=KEEP_ALIVE,
            ssl=True if self._ssl is None else self._ssl,
        )

    def lane(self) -> Lane:
        """Return what belongs to this event loop; made when it is needed."""
        loop = asyncio.get_running_loop()
        lane = self._last
        if lane is None or lane.loop is not loop:
            lane = self._lanes.get(loop)
        if lane is None or lane.session.closed:
            lane = self._lanes[loop] = Lane(loop, self._make_session(), Watchdog(loop))
        self._last = lane
        return lane

    def _make_session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=self._make_connector(),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=_HEADERS,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._connect_timeout),
            trust_env=self._trust_env,
        )

    async def send(
        self, method: str, url: str, headers: Mapping[str, str], body: Body, slices: Slices
    ) -> aiohttp.ClientResponse:
        """Send a request and return the answer when its headers are there; the caller closes it.

        Args:
            method: Such as ``"GET"``.
            url: Sent as it is.
            headers: Sent as they are.
            body: What follows.
            slices: How it follows if it is long.

        Raises:
            BREAKS: It did not get through.
        """
        data = (body.view if body.is_slice else slices) if body.size else None
        return await self.lane().session.request(
            method,
            URL(url, encoded=True),
            headers=headers,
            # aiohttp would add a type, which is not signed; to keep it from that is not free.
            skip_auto_headers=None if data is None or "Content-Type" in headers else _UNTYPED,
            data=data,
            allow_redirects=False,
            proxy=self._proxy,
        )

    async def aclose(self) -> None:
        """Close the connections of this event loop; doing so again changes nothing."""
        lane = self._lanes.pop(asyncio.get_running_loop(), None)
        self._last = None
        if lane is not None:
            lane.watchdog.close()
            await lane.session.close()

    def __del__(self) -> None:
        if any(not lane.session.closed for lane in getattr(self, "_lanes", {}).values()):
            message = f"{self._label} was not closed: write `async with`, or await its aclose()"
            warnings.warn(message, ResourceWarning, stacklevel=2, source=self)


async def read_whole(
    response: aiohttp.ClientResponse, progress: Callable[[], object], limit: int = MAX_ANSWER
) -> bytes:
    """Read an answer to its end; ``progress`` is called at each piece.

    Raises:
        StoreUnavailableError: It has more than ``limit`` bytes.
        BREAKS: It broke.
    """
    if response.content.at_eof():
        return b""
    pieces: list[bytes] = []
    left = limit
    async for piece in response.content.iter_any():
        progress()
        left -= len(piece)
        if left < 0:
            response.close()
            raise StoreUnavailableError(f"the server's answer has more than {limit:,} bytes")
        pieces.append(piece)
    return b"".join(pieces)
