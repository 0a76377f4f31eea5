"""A store in a directory, with an ASGI application that serves its files."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from contextvars import ContextVar
from typing import Any, Final
from urllib.parse import quote

from ..._http.asgi import ASGIApp, Receive, Scope, Send
from ...exc import ContextError, DeclarationError
from ._signing import UrlSigner
from ._static import ServerMiddleware, StaticServer, url_prefix
from ._store import BaseFileSystemStore

__all__ = ["LOCAL_HOSTS", "ExposingMiddleware", "HttpExposedFileSystemStore"]

LOCAL_HOSTS: Final = ("localhost", "127.0.0.1", "[::1]", "testserver")
"""Host names of local development and tests; the default of ``allowed_hosts``."""

_HOST: Final = re.compile(r"([a-z0-9_-]+(?:\.[a-z0-9_-]+)*\.?|\[[0-9a-f:.]+\])(:[0-9]{1,5})?", re.ASCII)

_requests: ContextVar[tuple[tuple[object, str | None, str], ...]] = ContextVar("aioimageattach.requests", default=())
"""The stores whose middleware the current request has passed through, innermost last.

Each entry consists of the store, the URL of the application, and the host of the request. The URL is ``None`` if the
host is not allowed.
"""


class HttpExposedFileSystemStore(BaseFileSystemStore):
    """A store that keeps files in a directory and serves them as part of the application.

    A URL consists of the URL of the application, the prefix and the name. The URL of the application comes from
    ``host_url_getter`` or, without one, from the current request; it is never reused for later requests.

    Args:
        path: The directory. Other programs may read it, but only this library should write to it.
        prefix: The path at which the files are served, with or without slashes around it.
        host_url_getter: Returns the URL of the application, such as ``"https://example.com/"``; called for each URL.
        cors: The origins whose pages may use the files; see :class:`~aioimageattach.stores.fs.StaticServer`.
        allowed_hosts: The hosts that URLs may contain, such as ``"example.com"``; ``"*.example.com"`` matches all
            subdomains, and ``"*"`` any host. A client can send an arbitrary ``Host`` header, and a cache may pass the
            response on to others, so by default only the hosts of local development are allowed.
        fsync: See :class:`~aioimageattach.stores.fs.FileSystemStore`.
        file_mode: See :class:`~aioimageattach.stores.fs.FileSystemStore`.
        dir_mode: See :class:`~aioimageattach.stores.fs.FileSystemStore`.
        url_secret: A secret of at least 16 bytes, shared by all processes of the application. If it is given, URLs are
            signed, and only signed URLs are served. To rotate secrets, pass several: the first one signs, and all are
            accepted.
        url_expires_in: Minimum lifetime of a signed URL, in seconds.
        url_window: How long a signed URL stays the same at most, in seconds, so that browsers can cache the file;
            ``None`` means ``url_expires_in``.
        options: The other options of :class:`~aioimageattach.stores.fs.StaticServer`.

    Attributes:
        server: The ASGI application that serves the files. Mount it at the prefix if you do not use
            :meth:`asgi_middleware`; ``host_url_getter`` is then required.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        prefix: str = "__images__",
        host_url_getter: Callable[[], str] | None = None,
        cors: bool | Iterable[str] = False,
        *,
        allowed_hosts: Iterable[str] = LOCAL_HOSTS,
        fsync: bool = True,
        file_mode: int | None = 0o644,
        dir_mode: int | None = 0o755,
        url_secret: str | bytes | Sequence[str | bytes] | None = None,
        url_expires_in: int = 3600,
        url_window: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(path, fsync=fsync, file_mode=file_mode, dir_mode=dir_mode)
        if isinstance(allowed_hosts, str):
            raise ValueError(f"allowed_hosts: expected a list of hosts, got the str {allowed_hosts!r:.80}")
        self.prefix: str = url_prefix(prefix)
        self._signer = (
            None if url_secret is None else UrlSigner(url_secret, expires_in=url_expires_in, window=url_window)
        )
        self.has_signed_urls: bool = self._signer is not None
        self.server: StaticServer = StaticServer(path, cors=cors, url_secret=url_secret, **options)
        self._host_url_getter = host_url_getter
        self._allowed = frozenset(host.lower() for host in allowed_hosts)

    def asgi_middleware(self, app: ASGIApp) -> ExposingMiddleware:
        """Wrap the application in a middleware that serves the files and lets the store derive URLs from requests.

        Make it the outermost middleware, so that no other middleware adds cookies to cacheable responses.

        Args:
            app: The application.
        """
        return ExposingMiddleware(app, self)

    @property
    def base_url(self) -> str:
        """The URL that names are appended to.

        Raises:
            ContextError: There is neither a ``host_url_getter`` nor a current request with an allowed host.
        """
        return f"{self._host_url()}{self.prefix}/"

    def url_of(self, name: str) -> str:
        """Return the URL of a file, without I/O; it is signed if the store has a ``url_secret``.

        Raises:
            ContextError: There is neither a ``host_url_getter`` nor a current request with an allowed host.
        """
        url = super().url_of(name)
        return url if self._signer is None else f"{url}?{self._signer.sign(name)}"

    def download_url_of(self, name: str, filename: str) -> str:
        """Return a signed URL that makes browsers save the file instead of displaying it, without I/O.

        Args:
            name: The name of the file.
            filename: The name that browsers save it under, such as ``"cat.jpg"``.

        Raises:
            DeclarationError: The store has no ``url_secret``; without signatures, anyone could choose the name.
            ContextError: There is neither a ``host_url_getter`` nor a current request with an allowed host.
            ValueError: ``filename`` is not a valid file name.
        """
        if self._signer is None:
            raise DeclarationError(f"{self!r}: expected a url_secret, because only signed URLs can name a download")
        return f"{super().url_of(name)}?{self._signer.sign(name, download=filename)}"

    def _host_url(self) -> str:
        if self._host_url_getter is not None:
            return f"{self._host_url_getter().removesuffix('/')}/"
        for store, url, host in reversed(_requests.get()):
            if store is self and url is not None:
                return url
            if store is self:
                raise ContextError(
                    f"{self!r}: expected a request for a host in allowed_hosts, got {host!r:.80}; add the host, or "
                    "pass a host_url_getter"
                )
        raise ContextError(
            f"{self!r}: expected a current request, which provides the host of URLs, found none; pass a "
            "host_url_getter to the store, or wrap the application: app = store.asgi_middleware(app)"
        )

    def allows(self, host: str) -> bool:
        """Return whether URLs may contain a host, given with or without a port."""
        found = _HOST.fullmatch(host.lower())
        if found is None:
            return False
        name = found[1].removesuffix(".")
        return (
            "*" in self._allowed
            or name in self._allowed
            or any(name.endswith(one[1:]) for one in self._allowed if one.startswith("*."))
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.path!r}, {self.prefix!r})"


class ExposingMiddleware:
    """A middleware that serves the files of a store and passes all other requests to the application.

    While the application handles a request, the store can derive URLs from its host.

    Args:
        app: The application.
        store: The store.
    """

    def __init__(self, app: ASGIApp, store: HttpExposedFileSystemStore) -> None:
        self.app = app
        self.store = store
        self._files = ServerMiddleware(self._call_app, store.prefix, store.server)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond to a request for a file, or call the application."""
        await self._files(scope, receive, send)

    async def _call_app(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        hosts = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
        host = ", ".join(hosts)
        url = self._url(scope, host) if self.store.allows(host) else None
        token = _requests.set((*_requests.get(), (self.store, url, host)))
        try:
            await self.app(scope, receive, send)
        finally:
            _requests.reset(token)

    @staticmethod
    def _url(scope: Scope, host: str) -> str:
        scheme = "https" if scope.get("scheme", "http") in ("https", "wss") else "http"
        root = quote(scope.get("root_path", "").strip("/"))
        return f"{scheme}://{host.lower()}/{root}/" if root else f"{scheme}://{host.lower()}/"
