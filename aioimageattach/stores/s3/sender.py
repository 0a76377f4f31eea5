"""Sends a request until it is answered: signed anew each time, tried again after faults that pass, put right once."""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Final, NamedTuple, Protocol, TypeAlias, TypeVar

import aiohttp

from ...exc import StoreError, StoreUnavailableError
from .body import Body, Slices
from .credentials import CredentialCache, Credentials
from .endpoint import Endpoint
from .errors import Refusal, as_error
from .policy import Condition
from .retry import RetryPolicy
from .signer import UNSIGNED_PAYLOAD
from .transport import BREAKS, Transport, read_whole
from .urls import quote_query
from .xml import MAX_ERROR, S3ErrorInAnswer

__all__ = ["Progress", "Receiver", "Request", "Sender", "Signer", "Watch", "utc_now"]

_log = logging.getLogger(__name__)

R = TypeVar("R")

_NO_BODY: Final = Body()
_TLS: Final = (aiohttp.ClientConnectorCertificateError, aiohttp.ClientConnectorSSLError)

Progress: TypeAlias = Callable[[], object]
Receiver: TypeAlias = Callable[[aiohttp.ClientResponse, Progress], Awaitable[R]]
"""Makes a result of an answer whose headers are there; told how to say that it gets on."""


class Signer(Protocol):
    """What both versions of signatures offer."""

    def sign(
        self,
        method: str,
        url: str,
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


def utc_now() -> datetime:
    """Return the present time."""
    return datetime.now(UTC)


class Watch:
    """Knows whether a server may have received a body whole, in any attempt."""

    __slots__ = ("_slices",)

    def __init__(self) -> None:
        self._slices: list[Slices] = []

    def add(self, slices: Slices) -> None:
        """Watch one more attempt."""
        self._slices.append(slices)

    @property
    def all_sent(self) -> bool:
        """Whether some attempt has handed over the last slice."""
        return any(slices.all_sent for slices in self._slices)


class Request(NamedTuple):
    """What to ask of a server. A tuple, since one is made for each request.

    Args:
        method: Such as ``"GET"``.
        what: What it does, for messages, such as ``"put"``.
        key: Of the object; ``None`` where it is about the bucket.
        query: The parameters.
        headers: To be sent and signed.
        body: What follows.
        accepted: Which statuses are success.
        name: What messages call the object.
        watch: Told of each attempt.
    """

    method: str
    what: str
    key: str | None = None
    query: Mapping[str, str | None] = MappingProxyType({})
    headers: Mapping[str, str] = MappingProxyType({})
    body: Body = _NO_BODY
    accepted: frozenset[int] = frozenset({200})
    name: str | None = None
    watch: Watch | None = None


class _Refused(Exception):
    def __init__(self, refusal: Refusal) -> None:
        self.refusal = refusal


@dataclass(slots=True)
class _Fixes:
    """What was put right for one request, each at most once."""

    done: set[str] = field(default_factory=set)
    url: str | None = None


class Sender:
    """Sends requests about one bucket.

    Args:
        endpoint: Where it is.
        region: Its region; corrected when the server names another.
        make_signer: Returns what signs for a region.
        credentials: Whose requests they are.
        policy: How often and how long they are tried.
        transport: What carries them.
        read_timeout: How long a server may do nothing, in seconds.
        sign_payload: Whether the signature covers the body.
        clock: Returns the present time.
        label: The store's short description, for errors.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        region: str,
        make_signer: Callable[[str], Signer],
        credentials: CredentialCache,
        *,
        policy: RetryPolicy,
        transport: Transport,
        read_timeout: float,
        sign_payload: bool,
        clock: Callable[[], datetime],
        label: str,
    ) -> None:
        self.endpoint = endpoint
        self.region: str = region
        self.credentials = credentials
        self.policy = policy
        self.transport = transport
        self.read_timeout = read_timeout
        self.label = label
        self._make_signer = make_signer
        self.signer: Signer = make_signer(region)
        self._sign_payload = sign_payload
        self._clock = clock
        self._ahead = timedelta(0)

    def now(self) -> datetime:
        """Return the present time by the server's clock, as far as it is known."""
        return self._clock() + self._ahead

    async def send(self, request: Request, receive: Receiver[R]) -> R:
        """Send a request and return what ``receive`` makes of the answer.

        Raises:
            StoreError: It was refused; see :func:`~aioimageattach.stores.s3.errors.as_error`.
            StoreUnavailableError: There was no answer in all attempts, or none that made sense.

        Effects: A request that changes something may have done so although it raises
        :class:`~aioimageattach.exc.StoreUnavailableError`.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.policy.timeout
        fixes = _Fixes()
        payload_hash = await request.body.sha256() if self._sign_payload else UNSIGNED_PAYLOAD
        attempt = 0
        while True:
            attempt += 1
            credentials = await self.credentials.get()
            asked = None
            try:
                return await self._attempt(request, credentials, payload_hash, deadline, fixes.url, receive)
            except _Refused as refused:
                refusal = refused.refusal
                if self._correct(request, refusal, credentials, fixes):
                    attempt -= 1
                    continue
                error = self._as_error(request, refusal, attempt)
                if not refusal.is_passing:
                    raise error from None
                asked = refusal.retry_after
            except _TLS as cause:
                raise StoreError(
                    f"{self._what(request)}: {_reason(cause)}; give ssl_context= if it is to be trusted all the same",
                    store=self.label,
                    name=request.name,
                ) from cause
            except (*BREAKS, StoreUnavailableError) as cause:
                error = StoreUnavailableError(
                    f"{self._what(request)}: {_reason(cause)}{f' in {attempt} attempts' if attempt > 1 else ''}",
                    store=self.label,
                    name=request.name,
                    attempts=attempt,
                )
                error.__cause__ = cause
            pause = self.policy.pause(attempt, deadline - loop.time(), chance=random.random(), asked=asked)
            if pause is None:
                raise error
            _log.info("%s; the next attempt is in %.2f s", error, pause)
            await asyncio.sleep(pause)

    async def _attempt(
        self,
        request: Request,
        credentials: Credentials,
        payload_hash: str,
        deadline: float,
        url: str | None,
        receive: Receiver[R],
    ) -> R:
        lane = self.transport.lane()
        time = lane.loop.time

        def progress() -> None:
            limit.at = min(deadline, time() + self.read_timeout)

        with lane.limit(min(deadline, time() + self.read_timeout)) as limit:
            if url is None:
                url = self.url(request)
            headers = self.signer.sign(
                request.method, url, request.headers, credentials, now=self.now(), payload_hash=payload_hash
            )
            slices = Slices(request.body, progress)
            if request.watch is not None:
                request.watch.add(slices)
            response = await self.transport.send(request.method, url, headers, request.body, slices)
            progress()
            try:
                if response.status not in request.accepted:
                    body = await read_whole(response, progress, MAX_ERROR)
                    raise _Refused(Refusal.read(response.status, response.headers, body))
                return await receive(response, progress)
            except S3ErrorInAnswer as error:
                raise _Refused(Refusal.of(response.status, response.headers, error.info)) from None
            except BaseException:
                response.close()
                raise

    def url(self, request: Request) -> str:
        """Return the URL of a request."""
        return self.endpoint.url(self.region, request.key, quote_query(request.query) if request.query else "")

    def _correct(self, request: Request, refusal: Refusal, credentials: Credentials, fixes: _Fixes) -> bool:
        """Put right what the server says is wrong with the region, the clock or the credentials; whether it was."""
        if "place" not in fixes.done and self._move(request, refusal, fixes):
            fixes.done.add("place")
            return True
        offset = refusal.offset(self.now())
        if "clock" not in fixes.done and offset is not None:
            fixes.done.add("clock")
            self._ahead += timedelta(seconds=offset)
            _log.warning("This machine's clock is %.0f s off the S3 server's: set it", -self._ahead.total_seconds())
            return True
        if "token" not in fixes.done and (refusal.is_expired or (refusal.is_mute and credentials.token is not None)):
            fixes.done.add("token")
            self.credentials.forget(credentials)
            return True
        return False

    def _move(self, request: Request, refusal: Refusal, fixes: _Fixes) -> bool:
        if not (refusal.is_elsewhere or refusal.is_mute):
            return False
        if refusal.region is not None and refusal.region != self.region:
            _log.warning("The bucket %s is in the region %s", self.endpoint.bucket, refusal.region)
            self.move(refusal.region)
            return True
        if refusal.location is not None:
            fixes.url = self.endpoint.redirected(self.url(request), refusal.location)
        return fixes.url is not None

    def move(self, region: str) -> None:
        """Sign for another region from now on.

        Raises:
            ValueError: It is no name of a region.
        """
        self.signer = self._make_signer(region)
        self.region = region

    def _what(self, request: Request) -> str:
        return request.what if request.name is None else f"{request.what} {request.name!r}"

    def _as_error(self, request: Request, refusal: Refusal, attempts: int) -> StoreError:
        return as_error(refusal, self._what(request), store=self.label, name=request.name, attempts=attempts)


def _reason(error: Exception) -> str:
    """Say in a few words what broke; nothing of the request, whose URL may hold a signature."""
    if isinstance(error, StoreUnavailableError):
        return str(error)
    if isinstance(error, TimeoutError):
        return "the server did not answer in time"
    if isinstance(error, aiohttp.ClientPayloadError):
        return "the server's answer was cut off"
    if isinstance(error, aiohttp.ClientConnectorError):
        number = error.os_error.errno
        return f"{error.host} cannot be reached: {os.strerror(number) if number and number > 0 else error.os_error}"
    return f"the connection broke: {type(error).__name__}"
