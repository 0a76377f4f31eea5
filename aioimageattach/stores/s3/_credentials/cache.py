"""A cache of credentials that renews them before they expire."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final
from weakref import WeakKeyDictionary, ref

from ...._tasks import cancel_and_wait, is_in_flight, single_flight
from ...._telemetry import log_fields
from ....exc import ImageAttachError, StorePermissionError, StoreUnavailableError
from .sources import NO_CREDENTIALS, Credentials, CredentialSource

__all__ = ["CredentialCache", "utc_now"]

_NOT_RENEWED: Final = "s3.credentials_not_renewed"

_log = logging.getLogger("aioimageattach.stores.s3")


def utc_now() -> datetime:
    """Return the current time."""
    return datetime.now(UTC)


class CredentialCache:
    """A cache that renews the credentials of a source before they expire, once for all concurrent callers.

    After the first fetch in an event loop, a background timer of that loop renews the credentials until :meth:`aclose`
    is called. Signing a URL is synchronous and cannot wait for credentials, so they must be fetched in advance. During
    a renewal, callers get the current credentials. If the renewal fails, these are used until they expire. Several
    event loops may share the cache.

    Args:
        source: Provides the credentials.
        ahead: How long before expiry credentials are renewed, in seconds; at most a quarter of their remaining
            lifetime.
        clock: Returns the current time.
    """

    RETRY: Final = timedelta(seconds=30)
    """How long to wait after a failed renewal."""

    def __init__(
        self, source: CredentialSource, *, ahead: float = 300.0, clock: Callable[[], datetime] = utc_now
    ) -> None:
        self._source = source
        self._ahead = timedelta(seconds=ahead)
        self._clock = clock
        self._current: Credentials | None = None
        self._due_at: datetime | None = None
        self._failure: ImageAttachError | None = None
        self._timers: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.TimerHandle] = WeakKeyDictionary()
        self._renewals: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Task[None]] = WeakKeyDictionary()

    def __repr__(self) -> str:
        return f"CredentialCache({self._current!r})"

    def peek(self) -> Credentials | None:
        """Return valid credentials if they are available without I/O, or else ``None``."""
        found = self._current or self._source.peek()
        return found if found is not None and self._is_valid(found) else None

    @property
    def current(self) -> Credentials | None:
        """The cached credentials, unless they are missing or due for renewal."""
        current = self._current
        return current if self._due_at is None or self._clock() < self._due_at else None

    def explain(self) -> str:
        """Return why :meth:`peek` returns ``None``, and how to fix it."""
        current, reason = self._current, "" if self._failure is None else f": {self._failure}"
        if current is not None and current.expires_at is not None:
            return f"the credentials expired at {current.expires_at:%Y-%m-%dT%H:%M:%SZ}, and were not renewed{reason}"
        if self._failure is not None:
            return f"the credentials could not be fetched{reason}"
        return "the credentials have not been fetched: await connect() when the program starts"

    async def find_region(self) -> str | None:
        """Return the region that is configured together with the credentials, or ``None``."""
        return await self._source.find_region()

    def forget(self, refused: Credentials | None = None) -> None:
        """Drop the cached credentials, because a server has rejected them; the next call asks the source again.

        Args:
            refused: The credentials that were rejected; if the cache holds others by now, they are kept. ``None`` drops
                any.
        """
        if refused is None or refused == self._current:
            self._current = self._due_at = None

    async def get(self) -> Credentials:
        """Return valid credentials, fetching them from the source if necessary.

        Effects:
            Concurrent callers share one call of the source, which is cancelled only if all of them are cancelled.

        Raises:
            StorePermissionError: The source has no credentials.
            StoreUnavailableError: The source failed; ``__cause__`` is the original error.
        """
        if self.current is not None:
            return self.current
        current = self._current
        if current is not None and self._is_valid(current) and is_in_flight(self):
            return current
        return await single_flight(self, self._renew_and_schedule)

    async def aclose(self) -> None:
        """Stop renewing credentials in this event loop."""
        loop = asyncio.get_running_loop()
        timer = self._timers.pop(loop, None)
        if timer is not None:
            timer.cancel()
        renewal = self._renewals.pop(loop, None)
        if renewal is not None:
            await cancel_and_wait([renewal])

    def _is_valid(self, credentials: Credentials) -> bool:
        return credentials.expires_at is None or self._clock() < credentials.expires_at

    async def _renew_and_schedule(self) -> Credentials:
        found = await self._renew()
        self._schedule(asyncio.get_running_loop())
        return found

    async def _renew(self) -> Credentials:
        current = self._current
        try:
            found = await self._fetch()
        except ImageAttachError as error:
            self._failure = error
            if current is None or current.expires_at is None or not self._is_valid(current):
                raise
            extra = log_fields(_NOT_RENEWED, error)
            _log.warning(
                "the credentials could not be renewed, and the present ones are used until %s: %s",
                current.expires_at,
                error,
                extra=extra,
            )
            self._due_at = min(self._clock() + self.RETRY, current.expires_at)
            return current
        self._current, self._failure, self._due_at = found, None, None
        if found.expires_at is not None:
            now = self._clock()
            left = found.expires_at - now
            # Some sources return the same credentials until shortly before they expire, or even after that.
            self._due_at = found.expires_at - min(self._ahead, left / 4) if found.expires_at > now else now + self.RETRY
        return found

    async def _fetch(self) -> Credentials:
        try:
            found = await self._source.fetch()
        except ImageAttachError:
            raise
        except Exception as error:
            # The message of another library's error may contain a secret.
            raise StoreUnavailableError(f"the source of the credentials failed: {type(error).__name__}") from error
        if found is None:
            raise StorePermissionError(
                "expected S3 credentials, found none: pass access_key and secret_key, set AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY or AWS_PROFILE, or install aioimageattach[aws] for those of containers, "
                "instances and web identities",
                code=NO_CREDENTIALS,
            )
        return found

    # --- in the background -------------------------------------------------------------------------------------------

    def _schedule(self, loop: asyncio.AbstractEventLoop, *, pause: timedelta | None = None) -> None:
        """Schedule the renewal. A timer, unlike a sleeping task, does not keep the cache alive or need cancelling."""
        if self._due_at is not None:
            timer = self._timers.pop(loop, None)
            if timer is not None:
                timer.cancel()
            delay = self._due_at - self._clock() if pause is None else pause
            cache: ref[CredentialCache] = ref(self)
            self._timers[loop] = loop.call_later(max(1.0, delay.total_seconds()), _wake, cache, loop)

    async def _keep(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            await self.get()
        except ImageAttachError as error:
            extra = log_fields(_NOT_RENEWED, error)
            _log.warning("the credentials have expired and could not be renewed: %s", error, extra=extra)
            self._schedule(loop, pause=self.RETRY)

    def _start_renewal(self, loop: asyncio.AbstractEventLoop) -> None:
        self._renewals[loop] = loop.create_task(self._keep(loop))


def _wake(cache: ref[CredentialCache], loop: asyncio.AbstractEventLoop) -> None:
    found = cache()
    if found is not None:
        found._start_renewal(loop)
