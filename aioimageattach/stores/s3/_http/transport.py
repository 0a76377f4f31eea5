"""The only module that sends with aiohttp: one session per event loop, and requests sent exactly as signed."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import warnings
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, TypeAlias
from urllib.request import getproxies_environment, proxy_bypass

import aiohttp
from yarl import URL

from ....exc import StoreUnavailableError
from ....version import VERSION
from .._signing.urls import Target
from .._xml import MAX_RESPONSE
from .body import Slices
from .watchdog import Watchdog

__all__ = ["BREAKS", "KEEP_ALIVE", "ConnectorFactory", "LoopState", "Transport", "read_whole"]

KEEP_ALIVE: Final = 15.0
"""How long an idle connection is kept, in seconds. Servers close idle connections soon after that."""

BREAKS: Final = (aiohttp.ClientError, ConnectionError, TimeoutError)
"""Connection errors."""

ConnectorFactory: TypeAlias = Callable[[], aiohttp.BaseConnector]
"""A callable that returns the connector of a session, for a custom resolver, proxy or socket."""

_HEADERS: Final = {
    "Accept": "*/*",
    "Accept-Encoding": "identity",  # otherwise a proxy might compress objects
    "User-Agent": f"aioimageattach/{VERSION}",
}
_UNTYPED: Final = ("Content-Type",)


@dataclass(frozen=True, slots=True)
class LoopState:
    """The session and the watchdog of one event loop."""

    loop: asyncio.AbstractEventLoop
    session: aiohttp.ClientSession
    watchdog: Watchdog


@lru_cache(maxsize=256)
def _origin(origin: str) -> URL:
    return URL(f"{origin}/", encoded=True)


def _url(target: Target) -> URL:
    """Return a URL for aiohttp; the origin is parsed once and shared by URLs that differ only in the path."""
    if target.query:
        return URL(target.url, encoded=True)
    return _origin(target.origin).with_path(target.path, encoded=True)


def _close_socket(transport: Any) -> None:
    """Close the socket of a transport whose event loop is closed; the transport's own methods need a running loop.

    Transports of asyncio's selector loops emit a warning if they are freed with an open socket. Other loops close their
    sockets themselves.
    """
    over_tls = getattr(transport, "_ssl_protocol", None)
    if over_tls is not None:
        transport._closed = True
        transport = over_tls._transport
    with contextlib.suppress(AttributeError):
        transport._sock.close()
        transport._sock = None


class Transport:
    """The connections that requests are sent over.

    Args:
        connect_timeout: Limit on establishing a connection, in seconds.
        max_connections: Largest number of connections per event loop; further requests wait.
        ssl_context: The SSL context that verifies certificates; ``None`` means Python's defaults.
        proxy: The URL of an HTTP proxy.
        trust_env: ``True`` to use the proxies in environment variables. Nothing else is read from the environment:
            aiohttp's own ``trust_env`` would replace signatures by passwords from ``.netrc``.
        connector: Returns the connector, which then determines the connections and TLS.
        label: The store's short description, for a warning.
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
        self._proxies: dict[str, str | None] = {}
        self._label = label
        self._states: dict[asyncio.AbstractEventLoop, LoopState] = {}
        self._last: LoopState | None = None

    def _make_connector(self) -> aiohttp.BaseConnector:
        if self._connector is not None:
            return self._connector()
        return aiohttp.TCPConnector(
            limit=self._max_connections,
            keepalive_timeout=KEEP_ALIVE,
            ssl=True if self._ssl is None else self._ssl,
        )

    def loop_state(self) -> LoopState:
        """Return the state of the running event loop; it is created on first use."""
        loop = asyncio.get_running_loop()
        state = self._last
        if state is None or state.loop is not loop:
            state = self._states.get(loop)
        if state is None or state.session.closed:
            self._abandon_closed_loops()
            state = self._states[loop] = LoopState(loop, self._make_session(), Watchdog(loop))
        self._last = state
        return state

    def _abandon_closed_loops(self) -> None:
        """Free the sessions and sockets of closed event loops, as when each job runs in its own loop.

        The state refers to its loop, so a weak reference to the loop would never expire, and aiohttp does not close the
        connections of a closed loop.
        """
        for loop in [loop for loop in self._states if loop.is_closed()]:
            state = self._states.pop(loop)
            if self._last is state:
                self._last = None
            connector = state.session.connector
            assert connector is not None  # only aclose() closes sessions, and it also drops them
            for protocol, _ in [one for several in connector._conns.values() for one in several]:
                _close_socket(protocol.transport)
            connector._conns.clear()
            state.session.detach()

    def _make_session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=self._make_connector(),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=_HEADERS,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._connect_timeout),
        )

    def _proxy_for(self, origin: str) -> str | None:
        """Return the proxy for a server: the configured one, or the one in the environment."""
        if not self._trust_env or self._proxy is not None:
            return self._proxy
        if origin not in self._proxies:
            scheme, _, netloc = origin.partition("://")
            found = None if proxy_bypass(netloc) else getproxies_environment().get(scheme)
            self._proxies[origin] = found
        return self._proxies[origin]

    def send(
        self,
        state: LoopState,
        method: str,
        target: Target,
        headers: Mapping[str, str],
        data: memoryview | Slices | None,
    ) -> Awaitable[aiohttp.ClientResponse]:
        """Send a request; awaiting the result returns the response once its headers arrive. The caller closes it.

        Args:
            state: The state of the running event loop.
            method: The HTTP method, such as ``"GET"``.
            target: The URL, which is sent unchanged.
            headers: The headers, which are sent unchanged.
            data: The request body.

        Raises:
            BREAKS: The connection failed.
        """
        return state.session.request(
            method,
            _url(target),
            headers=headers,
            # aiohttp would add an unsigned Content-Type; suppressing it takes time, so do so only where necessary.
            skip_auto_headers=None if data is None or "Content-Type" in headers else _UNTYPED,
            data=data,
            allow_redirects=False,
            proxy=self._proxy_for(target.origin),
        )

    async def aclose(self) -> None:
        """Close the connections of this event loop and of closed loops. Idempotent."""
        self._abandon_closed_loops()
        state = self._states.pop(asyncio.get_running_loop(), None)
        self._last = None
        if state is not None:
            state.watchdog.close()
            await state.session.close()

    def __del__(self) -> None:
        if any(not state.session.closed for state in getattr(self, "_states", {}).values()):
            message = f"{self._label} was not closed: use `async with`, or await aclose()"
            warnings.warn(message, ResourceWarning, stacklevel=2, source=self)


async def read_whole(
    response: aiohttp.ClientResponse, progress: Callable[[], object], limit: int = MAX_RESPONSE
) -> bytes:
    """Read a response to its end; ``progress`` is called for each piece.

    Raises:
        StoreUnavailableError: The response has more than ``limit`` bytes.
        BREAKS: The connection failed.
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
            raise StoreUnavailableError(f"expected a response of at most {limit:,} bytes, got more")
        pieces.append(piece)
    return b"".join(pieces)
