"""A sender that re-signs each attempt, retries transient errors, and corrects the region and the clock."""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import ClassVar, Final, NamedTuple, Protocol, TypeAlias, TypeVar

import aiohttp

from ...._telemetry import log_fields
from ....exc import StoreError, StoreUnavailableError
from .._credentials.cache import CredentialCache
from .._credentials.sources import Credentials
from .._errors import ErrorResponse, SignatureVersion, options_for, to_error
from .._retry import RetryPolicy
from .._signing.policy import Condition
from .._signing.urls import Target, quote_key, quote_query, split_url
from .._signing.v4 import UNSIGNED_PAYLOAD
from .._xml import MAX_ERROR, S3ErrorInResponse
from .body import Body, Slices, Watch
from .endpoint import Endpoint
from .transport import BREAKS, Transport, read_whole
from .watchdog import Limit

__all__ = ["Progress", "Receiver", "Request", "Sender", "Signer"]

_log = logging.getLogger("aioimageattach.stores.s3")

R = TypeVar("R")

_NO_BODY: Final = Body()
_TLS: Final = (aiohttp.ClientConnectorCertificateError, aiohttp.ClientConnectorSSLError)
_FINAL: Final = (*_TLS, aiohttp.ClientHttpProxyError)
"""Connection errors that are not transient, so that a retry would fail in the same way."""
_NOT_STARTED: Final = frozenset({429, 503})
"""Statuses which show that the server did not process the request."""

Progress: TypeAlias = Callable[[], object]
Receiver: TypeAlias = Callable[[aiohttp.ClientResponse, Progress], Awaitable[R]]
"""A coroutine function that turns a response with an accepted status into a result, and verifies that it is a success.

It must call its second argument whenever bytes arrive. A status alone does not prove success: see
:mod:`~aioimageattach.stores.s3._http.receivers`.
"""


class Signer(Protocol):
    """The common interface of the signers of both signature versions."""

    version: ClassVar[SignatureVersion]

    def sign(
        self,
        method: str,
        url: str | Target,
        headers: Mapping[str, str],
        credentials: Credentials,
        *,
        now: datetime,
        payload_hash: str = ...,
    ) -> dict[str, str]: ...

    def presign(
        self,
        method: str,
        url: str,
        credentials: Credentials,
        *,
        now: datetime,
        expires_in: int,
        headers: Mapping[str, str] = ...,
    ) -> str: ...

    def presign_post(
        self,
        bucket: str,
        key: str,
        credentials: Credentials,
        *,
        now: datetime,
        expires_in: int,
        fields: Mapping[str, str] = ...,
        conditions: Sequence[Condition] = ...,
    ) -> dict[str, str]: ...


class Request(NamedTuple):
    """A request. It is a named tuple, which is cheap to create for each operation.

    Args:
        method: The HTTP method, such as ``"GET"``.
        operation: The operation as named in error messages, such as ``"put"``.
        key: The object's key; ``None`` for a request to the bucket.
        query: The query parameters.
        headers: The headers, which are sent and signed.
        body: The request body.
        accepted: The statuses for which ``receive`` is called.
        name: The object's name in error messages.
        watch: Records that the whole body was sent.
        is_repeatable: ``True`` if the request may be repeated when the server may already have processed it.
    """

    method: str
    operation: str
    key: str | None = None
    query: Mapping[str, str | None] = MappingProxyType({})
    headers: Mapping[str, str] = MappingProxyType({})
    body: Body = _NO_BODY
    accepted: frozenset[int] = frozenset({200})
    name: str | None = None
    watch: Watch | None = None
    is_repeatable: bool = True

    def __str__(self) -> str:
        return self.operation if self.name is None else f"{self.operation} {self.name!r}"


class _Refused(Exception):
    def __init__(self, response: ErrorResponse) -> None:
        self.response = response


@dataclass(slots=True)
class _Fixes:
    """The corrections that were made for one request; each is made at most once."""

    region: bool = False
    target: Target | None = None
    ahead: timedelta | None = None
    credentials: bool = False


class Sender:
    """A sender of requests to one bucket.

    Args:
        endpoint: The server.
        region: The region to sign for; ``None`` means that of the profile, or else ``us-east-1`` until the server
            reports another region.
        make_signer: Returns the signer for a region.
        credentials: The credentials to sign with.
        policy: The limits on attempts.
        transport: The connections to the server.
        read_timeout: How long a connection may make no progress in either direction, in seconds.
        sign_payload: ``True`` if signatures cover request bodies.
        headers: Headers that are sent with each request and included in each signed URL.
        clock: Returns the current time.
        label: The store's short description, for errors.

    Attributes:
        has_bucket: ``True`` if the bucket is known to exist.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        region: str | None,
        make_signer: Callable[[str], Signer],
        credentials: CredentialCache,
        *,
        policy: RetryPolicy,
        transport: Transport,
        read_timeout: float,
        sign_payload: bool,
        headers: Mapping[str, str],
        clock: Callable[[], datetime],
        label: str,
    ) -> None:
        self.endpoint = endpoint
        self.region: str = region or "us-east-1"
        self.is_region_known: bool = region is not None or not endpoint.has_region
        self.credentials = credentials
        self.policy = policy
        self.transport = transport
        self.read_timeout = read_timeout
        self.label = label
        self.headers = headers
        self._make_signer = make_signer
        self.signer: Signer = make_signer(self.region)
        self._objects = split_url(f"{endpoint.bucket_url(self.region)}/")
        self._may_have_region = region is None
        self._sign_payload = sign_payload
        self._clock = clock
        self._ahead = timedelta(0)
        self.has_bucket: bool = False

    def now(self) -> datetime:
        """Return the current time, corrected by the server's clock if its offset is known."""
        return self._clock() + self._ahead

    async def send(self, request: Request, receive: Receiver[R]) -> R:
        """Send a request and return the result of ``receive``.

        Raises:
            StoreError: The server rejected the request; see :func:`~aioimageattach.stores.s3._errors.to_error`.
            StoreUnavailableError: Every attempt failed, or the response was not one of S3.

        Effects: If it raises :class:`~aioimageattach.exc.StoreUnavailableError`, the server may still have processed
        the request.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.policy.timeout
        fixes: _Fixes | None = None
        target: Target | None = None
        if self._may_have_region:
            await self.find_region()
        payload_hash = await request.body.sha256() if self._sign_payload else UNSIGNED_PAYLOAD
        attempt = 0
        while True:
            attempt += 1
            credentials = self.credentials.current or await self.credentials.get()
            retry_after = None
            try:
                result = await self._attempt(request, credentials, payload_hash, deadline, target, receive)
                self.has_bucket = self.has_bucket or request.key is not None
                return result
            except _Refused as refused:
                response = refused.response
                fixes = fixes or _Fixes()
                if self._correct(request, response, credentials, fixes):
                    attempt -= 1
                    target = fixes.target
                    continue
                self.has_bucket = self.has_bucket or response.info.code == "NoSuchKey"
                error = self._to_error(request, response, attempt)
                if response.is_refused and fixes.ahead is not None:
                    self._ahead = fixes.ahead  # the clock was not the cause, so undo the correction
                if not response.is_transient:
                    raise error from None
                may_repeat = request.is_repeatable or response.status in _NOT_STARTED
                retry_after = response.retry_after
            except _FINAL as cause:
                raise StoreError(f"{request}: {_error_text(cause)}", store=self.label, name=request.name) from cause
            except (*BREAKS, StoreUnavailableError) as cause:
                error = StoreUnavailableError(
                    f"{request}: {_error_text(cause)}{f' in {attempt} attempts' if attempt > 1 else ''}",
                    store=self.label,
                    name=request.name,
                    attempts=attempt,
                )
                error.__cause__ = cause
                may_repeat = request.is_repeatable or isinstance(cause, aiohttp.ClientConnectorError)
                if request.method == "HEAD" and isinstance(cause, aiohttp.ClientResponseError):
                    may_repeat = False  # see look_up()
            left = deadline - loop.time()
            pause = self.policy.pause(attempt, left, jitter=random.random(), retry_after=retry_after)
            if pause is None or not may_repeat:
                raise error
            _log.info(
                "%s; the next attempt is in %.2f s", error, pause, extra=log_fields("s3.retry", error, pause=pause)
            )
            await asyncio.sleep(pause)

    async def _attempt(
        self,
        request: Request,
        credentials: Credentials,
        payload_hash: str,
        deadline: float,
        target: Target | None,
        receive: Receiver[R],
    ) -> R:
        state = self.transport.loop_state()
        with Limit(state.watchdog, deadline, self.read_timeout) as limit:
            if target is None:
                target = self.target(request)
            given = {**request.headers, **self.headers} if self.headers else request.headers
            headers = self.signer.sign(
                request.method, target, given, credentials, now=self.now(), payload_hash=payload_hash
            )
            response = await self.transport.send(
                state, request.method, target, headers, _payload(request, limit.postpone)
            )
            limit.postpone()
            try:
                if response.status not in request.accepted:
                    text = await read_whole(response, limit.postpone, MAX_ERROR)
                    raise _Refused(ErrorResponse.read(response.status, response.headers, text))
                return await receive(response, limit.postpone)
            except S3ErrorInResponse as error:
                raise _Refused(ErrorResponse.of(response.status, response.headers, error.info)) from None
            except BaseException:
                response.close()
                raise

    def object_url(self, key: str) -> str:
        """Return the unsigned URL of an object."""
        return self._objects.url + quote_key(key)

    def target(self, request: Request) -> Target:
        """Return the URL of a request."""
        if request.key is not None and not request.query:
            origin, host, path, _ = self._objects
            return Target(origin, host, path + quote_key(request.key))
        return split_url(self.endpoint.url(self.region, request.key, quote_query(request.query)))

    def _correct(self, request: Request, response: ErrorResponse, credentials: Credentials, fixes: _Fixes) -> bool:
        """Correct the region, the clock or the credentials if the server rejects them; return whether one was.

        Each is corrected at most once per request.
        """
        if not fixes.region and self._redirect(request, response, fixes):
            fixes.region = True
            return True
        offset = response.clock_offset(self.now())
        if fixes.ahead is None and offset is not None:
            fixes.ahead = self._ahead
            self._ahead += timedelta(seconds=offset)
            seconds = -self._ahead.total_seconds()
            extra = log_fields("s3.clock_skew", seconds=seconds)
            side = "ahead of" if seconds > 0 else "behind"
            _log.warning(
                "this machine's clock is %.0f s %s the S3 server's; correct it", abs(seconds), side, extra=extra
            )
            return True
        is_suspect = response.is_expired or (response.is_unexplained and credentials.token is not None)
        if is_suspect and not fixes.credentials:
            fixes.credentials = True
            self.credentials.forget(credentials)
            return True
        return False

    def _redirect(self, request: Request, response: ErrorResponse, fixes: _Fixes) -> bool:
        if not (response.is_elsewhere or response.is_unexplained):
            return False
        if response.region is not None and response.region != self.region:
            extra = log_fields("s3.other_region", region=response.region)
            _log.warning(
                "the bucket %r is in the region %s, which is used from now on; correct region=",
                self.endpoint.bucket,
                response.region,
                extra=extra,
            )
            self.set_region(response.region)
            return True
        if response.location is not None:
            url = self.endpoint.redirected(self.target(request).url, response.location)
            fixes.target = None if url is None else split_url(url)
        return fixes.target is not None

    def set_region(self, region: str) -> None:
        """Sign for another region from now on.

        Raises:
            ValueError: The name of the region is invalid.
        """
        self.signer = self._make_signer(region)
        self.region = region
        self._objects = split_url(f"{self.endpoint.bucket_url(region)}/")
        self.is_region_known = True

    async def find_region(self) -> None:
        """Use the region of the profile, if none was given and the profile has one."""
        if self._may_have_region:
            region = await self.credentials.find_region()
            if region is not None and self._may_have_region:
                self.set_region(region)
            self._may_have_region = False

    def _to_error(self, request: Request, response: ErrorResponse, attempts: int) -> StoreError:
        return to_error(
            response,
            str(request),
            store=self.label,
            name=request.name,
            attempts=attempts,
            version=self.signer.version,
            options=options_for(request.query, request.headers),
        )


def _payload(request: Request, progress: Progress) -> memoryview | Slices | None:
    """Return the request body for one attempt; a small one is sent together with the headers."""
    body, watch = request.body, request.watch
    if not body.is_slice:
        return Slices(body, progress, watch or Watch())
    if watch is not None:
        watch.all_sent = True
    return body.view if body.size else None


def _error_text(error: Exception) -> str:
    """Describe a failed request briefly, without its URL, which may contain a signature."""
    if isinstance(error, StoreUnavailableError):
        return str(error)
    if isinstance(error, TimeoutError):
        return "the server did not respond in time"
    if isinstance(error, aiohttp.ClientPayloadError):
        return "the server's response ended early"
    if isinstance(error, aiohttp.ClientHttpProxyError):
        hint = "; it requires credentials: include them in its URL; .netrc is not read" if error.status == 407 else ""
        return f"the proxy responded with {error.status}{hint}"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        reason = getattr(error.certificate_error, "verify_message", "") or type(error.certificate_error).__name__
        return f"the certificate of {error.host} is not trusted: {reason}; see AWS_CA_BUNDLE and ssl_context="
    if isinstance(error, aiohttp.ClientConnectorSSLError):
        reason = getattr(error.os_error, "reason", None) or type(error.os_error).__name__
        return f"the TLS handshake with {error.host} failed: {reason}; see endpoint_url= and ssl_context="
    if isinstance(error, aiohttp.ClientConnectorError):
        number = error.os_error.errno
        return f"{error.host} cannot be reached: {os.strerror(number) if number and number > 0 else error.os_error}"
    return f"the connection failed: {type(error).__name__}"
