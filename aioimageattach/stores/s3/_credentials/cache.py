"""A cache of credentials, which renews them before they expire."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final
from weakref import WeakKeyDictionary, ref

from ...._tasks import cancel_and_wait, is_in_flight, single_flight
from ....exc import ImageAttachError, StorePermissionError, StoreUnavailableError
from .sources import NO_CREDENTIALS, Credentials, CredentialSource

__all__ = ["CredentialCache"]

_log = logging.getLogger("aioimageattach.stores.s3")


def _utc_now() -> datetime:
    return datetime.now(UTC)


class CredentialCache:
    """Keeps the credentials of a source and renews them before they expire, once for all concurrent callers.

    Once they have been fetched in an event loop, they are renewed in the background there, until :meth:`aclose`: URLs
    are signed without waiting, so somebody has to wait in advance. While they are renewed, callers get the current
    ones; if that fails, these are used until they expire. Several event loops may use it.

    Args:
        source: Provides the credentials.
        ahead: How long before they expire they are renewed, in seconds; at most a quarter of their remaining life.
        clock: Returns the current time.
    """

    RETRY: Final = timedelta(seconds=30)
    """The pause after a failed renewal."""

    def __init__(
        self, source: CredentialSource, *, ahead: float = 300.0, clock: Callable[[], datetime] = _utc_now
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
        """Return valid credentials if they are known without I/O."""
        found = self._current or self._source.peek()
        return found if found is not None and self._is_valid(found) else None

    @property
    def current(self) -> Credentials | None:
        """The credentials that :meth:`get` would return without waiting."""
        current = self._current
        return current if self._due_at is None or self._clock() < self._due_at else None

    def explain(self) -> str:
        """Return the reason why :meth:`peek` has nothing to return, and what to do."""
        current, reason = self._current, "" if self._failure is None else f": {self._failure}"
        if current is not None and current.expires_at is not None:
            return f"the credentials expired at {current.expires_at:%Y-%m-%dT%H:%M:%SZ}, and were not renewed{reason}"
        if self._failure is not None:
            return f"the credentials could not be fetched{reason}"
        return "the credentials are not known: await connect() when the program starts"

    async def find_region(self) -> str | None:
        """Return the region that is configured together with the credentials."""
        return await self._source.find_region()

    def forget(self, refused: Credentials | None = None) -> None:
        """Ask the source again next time, because a server has refused the credentials.

        Args:
            refused: The ones that were refused; if others are known by now, these stay. ``None`` means any.
        """
        if refused is None or refused == self._current:
            self._current = self._due_at = None

    async def get(self) -> Credentials:
        """Return valid credentials, from the source if need be.

        Effects:
            Concurrent callers share one request to the source, which is cancelled only if all of them are.

        Raises:
            StorePermissionError: The source has none.
            StoreUnavailableError: The source failed; the cause is its own error.
        """
        if self.current is not None:
            return self.current
        current = self._current
        if current is not None and self._is_valid(current) and is_in_flight(self):
            return current
        return await single_flight(self, self._renew_and_schedule)

    async def aclose(self) -> None:
        """Stop renewing in this event loop."""
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
            _log.warning("The credentials could not be renewed and are used until %s: %s", current.expires_at, error)
            self._due_at = min(self._clock() + self.RETRY, current.expires_at)
            return current
        self._current, self._failure, self._due_at = found, None, None
        if found.expires_at is not None:
            now = self._clock()
            left = found.expires_at - now
            # Some sources return the same ones again until shortly before they expire, or even after.
            self._due_at = found.expires_at - min(self._ahead, left / 4) if found.expires_at > now else now + self.RETRY
        return found

    async def _fetch(self) -> Credentials:
        try:
            found = await self._source.fetch()
        except ImageAttachError:
            raise
        except Exception as error:
            # The message of a foreign error may hold a secret.
            raise StoreUnavailableError(f"the source of the credentials failed: {type(error).__name__}") from error
        if found is None:
            raise StorePermissionError(
                "there are no S3 credentials: give access_key and secret_key, set AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY or AWS_PROFILE, or install aioimageattach[aws] for those of containers, "
                "instances and web identities",
                code=NO_CREDENTIALS,
            )
        return found

    # --- in the background -------------------------------------------------------------------------------------------

    def _schedule(self, loop: asyncio.AbstractEventLoop, *, pause: timedelta | None = None) -> None:
        """Renew when the credentials are due; a timer, unlike a task, keeps nothing alive and needs no end."""
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
            _log.warning("The credentials have expired and could not be renewed: %s", error)
            self._schedule(loop, pause=self.RETRY)

    def _start_renewal(self, loop: asyncio.AbstractEventLoop) -> None:
        self._renewals[loop] = loop.create_task(self._keep(loop))


def _wake(cache: ref[CredentialCache], loop: asyncio.AbstractEventLoop) -> None:
    found = cache()
    if found is not None:
        found._start_renewal(loop)
