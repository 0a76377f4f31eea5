"""Fetch files from URLs supplied by users, with limits and only from public addresses.

Requires aiohttp (the extra ``fetch``).
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from .exc import DeclarationError, FetchError, ForbiddenAddressError
from .file import Spool
from .version import VERSION

if TYPE_CHECKING:
    import aiohttp
    from yarl import URL

__all__ = ["fetch"]

Address: TypeAlias = IPv4Address | IPv6Address
"""An IP address of :mod:`ipaddress`."""

TIMEOUT: Final = 30.0
"""Default time limit for a whole fetch, in seconds."""

MAX_REDIRECTS: Final = 3
"""Default number of redirects to follow."""

_MAPPED: Final = (IPv6Network("::ffff:0:0/96"), IPv6Network("64:ff9b::/96"))  # IPv4-mapped, NAT64 (RFC 6052)
_GLOBAL: Final = IPv6Network("2000::/3")
# https://www.iana.org/assignments/iana-ipv6-special-registry: protocols such as Teredo, documentation, 6to4
_SPECIAL: Final = tuple(map(IPv6Network, ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")))
_RELAYS: Final = 0xC0586300  # 192.88.99.0/24, the relays of 6to4 (RFC 7526)
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})


def _is_public(address: Address) -> bool:
    """Return whether an address belongs to the public internet.

    Loopback, private and shared (RFC 1918, RFC 6598), link-local, multicast, reserved and documentation addresses are
    not public. For an IPv6 address that embeds an IPv4 address (IPv4-mapped, NAT64), the embedded address is checked.
    Other transition addresses (6to4, Teredo) are not public.
    """
    if isinstance(address, IPv6Address):
        if any(address in network for network in _MAPPED):
            return _is_public(IPv4Address(int(address) & 0xFFFFFFFF))
        return address in _GLOBAL and not any(address in network for network in _SPECIAL)
    return (
        address.is_global and not address.is_multicast and not address.is_reserved and int(address) & ~0xFF != _RELAYS
    )


async def fetch(
    url: str,
    *,
    max_bytes: int | None,
    timeout: float = TIMEOUT,
    max_redirects: int = MAX_REDIRECTS,
    is_allowed: Callable[[Address], bool] | None = None,
) -> Spool:
    """Fetch a file from an ``http`` or ``https`` URL.

    Each IP address is checked immediately before a socket connects to it, also after redirects. A DNS record that
    changes between lookups (DNS rebinding) therefore cannot bypass the check. Proxy settings in the environment are
    ignored, and no cookies or credentials are sent.

    Args:
        url: The URL to fetch.
        max_bytes: Largest file accepted, in bytes; ``None`` means no limit.
        timeout: Time limit for the whole call, redirects included, in seconds.
        max_redirects: Number of redirects to follow.
        is_allowed: Function that returns whether connecting to an address that is not public is allowed, such as one
            of the own network; ``None`` to allow public addresses only.

    Returns:
        The content of the response.

    Raises:
        ForbiddenAddressError: An address is not allowed. Nothing was sent to it.
        ImageTooLargeError: The file is larger than ``max_bytes``. At most one chunk beyond the limit was read.
        FetchError: The URL is invalid, the server could not be reached or did not respond with status 200, there are
            too many redirects, or the fetch took longer than ``timeout``.
        DeclarationError: aiohttp is not installed.

    Effects: No connection stays open, whether the call returns, raises or is cancelled.
    """
    try:
        import aiohttp
        from yarl import URL
    except ImportError as error:
        raise DeclarationError("from_url requires aiohttp: pip install 'aioimageattach[fetch]'") from error
    refused: list[Address] = []
    try:
        async with asyncio.timeout(timeout), _opened(refused, is_allowed) as session:
            target = _validate_url(URL, url)
            for _ in range(max_redirects + 1):
                async with session.get(target, allow_redirects=False) as response:
                    if response.status not in _REDIRECTS:
                        _check_response(response, target)
                        return await Spool.fill(response.content, limit=max_bytes)
                    target = _validate_url(URL, response.headers.get("Location", ""), target)
            raise FetchError(f"{_redact(target)}: expected at most {max_redirects} redirects (max_redirects), got more")
    except TimeoutError as error:
        raise FetchError(f"the server did not send the file within {timeout:g} seconds (timeout)") from error
    except (aiohttp.ClientError, OSError, UnicodeError) as error:
        if refused:
            raise ForbiddenAddressError(
                f"expected a public address, got {refused[-1]}; nothing was sent to it"
            ) from error
        if isinstance(error, FetchError):
            raise
        raise FetchError(f"the file cannot be fetched: {type(error).__name__}") from error


@asynccontextmanager
async def _opened(
    refused: list[Address], is_allowed: Callable[[Address], bool] | None
) -> AsyncGenerator[aiohttp.ClientSession]:
    import aiohttp

    def make_socket(info: tuple[Any, ...]) -> socket.socket:
        """Create the socket for a connection, after checking its address."""
        family, kind, protocol, _, where = info
        address = ip_address(where[0].partition("%")[0])
        if not _is_public(address) and not (is_allowed is not None and is_allowed(address)):
            refused.append(address)
            raise PermissionError(f"{address} is not allowed")
        made = socket.socket(family, kind, protocol)
        made.setblocking(False)
        return made

    connector = aiohttp.TCPConnector(socket_factory=make_socket, force_close=True, use_dns_cache=False)
    async with aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,  # a small response could decompress to gigabytes
        headers={"Accept": "image/*", "Accept-Encoding": "identity", "User-Agent": f"aioimageattach/{VERSION}"},
        timeout=aiohttp.ClientTimeout(total=None),
    ) as session:
        yield session


def _validate_url(parse: type[URL], text: str, base: URL | None = None) -> URL:
    try:
        url = parse(text) if base is None else base.join(parse(text))
        valid = bool(text) and url.scheme in ("http", "https") and bool(url.host) and url.port is not None
    except (ValueError, TypeError) as error:
        raise FetchError("expected an http or https URL, got one that cannot be parsed") from error
    if not valid:
        raise FetchError(f"expected an http or https URL, got {_redact(url)}")
    if url.user is not None or url.password is not None:
        raise FetchError(f"expected a URL without a user name and a password, got one for {_redact(url)}")
    return url


def _check_response(response: aiohttp.ClientResponse, url: URL) -> None:
    if response.status != 200:
        raise FetchError(f"{_redact(url)}: expected status 200, got {response.status}", status=response.status)
    encoding = response.headers.get("Content-Encoding", "identity").lower()
    if encoding != "identity":
        raise FetchError(f"{_redact(url)}: expected no Content-Encoding, got {encoding!r:.40}")


def _redact(url: URL) -> str:
    """Return a URL for messages, without its credentials, path and query, which may be secret."""
    return f"{url.scheme}://{url.host}"[:200]
