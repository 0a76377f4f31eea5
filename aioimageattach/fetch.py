"""Files from URLs that users name: with limits, and from public addresses only. Needs aiohttp (the extra ``fetch``)."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from .exc import DeclarationError, FetchError, FetchTimeoutError, ForbiddenAddressError
from .file import Spool
from .version import VERSION

if TYPE_CHECKING:
    import aiohttp
    from yarl import URL

__all__ = ["MAX_REDIRECTS", "TIMEOUT", "Address", "fetch", "is_public"]

Address: TypeAlias = IPv4Address | IPv6Address
"""An IP address, as :mod:`ipaddress` has it."""

TIMEOUT: Final = 30.0
"""How long everything may take, in seconds."""

MAX_REDIRECTS: Final = 3
"""How many redirects are followed."""

_MAPPED: Final = (IPv6Network("::ffff:0:0/96"), IPv6Network("64:ff9b::/96"))  # IPv4-mapped, NAT64 (RFC 6052)
_GLOBAL: Final = IPv6Network("2000::/3")
# https://www.iana.org/assignments/iana-ipv6-special-registry: protocols such as Teredo, documentation, 6to4
_SPECIAL: Final = tuple(map(IPv6Network, ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")))
_RELAYS: Final = 0xC0586300  # 192.88.99.0/24, the relays of 6to4 (RFC 7526)
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})


def is_public(address: Address) -> bool:
    """Return whether an address belongs to the public internet.

    Addresses of this machine, of private and shared networks (RFC 1918, RFC 6598), link-local, multicast, reserved and
    documentation addresses do not. An IPv4 address in an IPv6 address (IPv4-mapped, NAT64) is judged itself; other
    transition addresses (6to4, Teredo) are refused.
    """
    if isinstance(address, IPv6Address):
        if any(address in network for network in _MAPPED):
            return is_public(IPv4Address(int(address) & 0xFFFFFFFF))
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
    is_allowed: Callable[[Address], bool] = is_public,
) -> Spool:
    """Fetch a file from an ``http`` or ``https`` URL.

    Each address is checked when a socket for it is about to be connected, at each redirect again. So it does not matter
    what the names in the DNS stand for, or for how long. Proxies of the environment are not used, and no cookies or
    credentials are sent.

    Args:
        url: The URL.
        max_bytes: Largest file accepted; ``None`` for no limit.
        timeout: How long everything may take, in seconds.
        max_redirects: How many redirects are followed.
        is_allowed: Whether an address may be connected to.

    Raises:
        ForbiddenAddressError: An address is not allowed; nothing was sent to it.
        FetchTimeoutError: It took too long.
        ImageTooLargeError: The file has more than ``max_bytes`` bytes; at most one chunk beyond it was read.
        FetchError: The URL is not valid, or the server does not answer with a file.
        DeclarationError: aiohttp is not installed.

    Effects: However the call ends, no connection stays open.
    """
    try:
        import aiohttp
        from yarl import URL
    except ImportError as error:
        raise DeclarationError("from_url needs aiohttp: pip install 'aioimageattach[fetch]'") from error
    refused: list[Address] = []
    try:
        async with asyncio.timeout(timeout), _opened(refused, is_allowed) as session:
            target = _checked(URL, url)
            for _ in range(max_redirects + 1):
                async with session.get(target, allow_redirects=False) as response:
                    if response.status not in _REDIRECTS:
                        _check_response(response, target)
                        return await Spool.fill(response.content, limit=max_bytes)
                    target = _checked(URL, response.headers.get("Location", ""), target)
            raise FetchError(f"{_shown(target)}: there are more than {max_redirects} redirects (max_redirects)")
    except TimeoutError as error:
        raise FetchTimeoutError(f"the server did not send the file within {timeout:g} seconds (timeout)") from error
    except (aiohttp.ClientError, OSError, UnicodeError) as error:
        if refused:
            raise ForbiddenAddressError(
                f"{refused[-1]} is not a public address, so nothing is fetched from it"
            ) from error
        if isinstance(error, FetchError):
            raise
        raise FetchError(f"the file cannot be fetched: {type(error).__name__}") from error


@asynccontextmanager
async def _opened(
    refused: list[Address], is_allowed: Callable[[Address], bool]
) -> AsyncGenerator[aiohttp.ClientSession]:
    import aiohttp

    def make_socket(info: tuple[Any, ...]) -> socket.socket:
        """Make the socket for an address that is about to be connected to."""
        family, kind, protocol, _, where = info
        address = ip_address(where[0].partition("%")[0])
        if not is_allowed(address):
            refused.append(address)
            raise PermissionError(f"{address} is not allowed")
        made = socket.socket(family, kind, protocol)
        made.setblocking(False)
        return made

    connector = aiohttp.TCPConnector(socket_factory=make_socket, force_close=True, use_dns_cache=False)
    async with aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,  # a few bytes can become very many
        headers={"Accept": "image/*", "Accept-Encoding": "identity", "User-Agent": f"aioimageattach/{VERSION}"},
        timeout=aiohttp.ClientTimeout(total=None),
    ) as session:
        yield session


def _checked(parse: type[URL], text: str, base: URL | None = None) -> URL:
    try:
        url = parse(text) if base is None else base.join(parse(text))
        valid = bool(text) and url.scheme in ("http", "https") and bool(url.host) and url.port is not None
    except (ValueError, TypeError) as error:
        raise FetchError("expected an http or https URL, got one that cannot be parsed") from error
    if not valid:
        raise FetchError(f"expected an http or https URL, got {_shown(url)}")
    if url.user is not None or url.password is not None:
        raise FetchError(f"expected a URL without a user name and a password, got one of {_shown(url)}")
    return url


def _check_response(response: aiohttp.ClientResponse, url: URL) -> None:
    if response.status != 200:
        raise FetchError(f"{_shown(url)}: expected status 200, got {response.status}", status=response.status)
    encoding = response.headers.get("Content-Encoding", "identity").lower()
    if encoding != "identity":
        raise FetchError(f"{_shown(url)}: expected a file that is not encoded, got {encoding!r:.40}")


def _shown(url: URL) -> str:
    """A URL for messages, without what may be secret."""
    return f"{url.scheme}://{url.host}"[:200]
