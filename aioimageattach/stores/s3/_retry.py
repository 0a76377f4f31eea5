"""The retry policy: which responses are retried, and after how long. Does no I/O; jitter and time are passed in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["TRANSIENT_CODES", "TRANSIENT_STATUS", "RetryPolicy", "is_transient"]

TRANSIENT_STATUS: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses of transient errors."""

TRANSIENT_CODES: Final = frozenset(
    {
        "ConditionalRequestConflict",
        "InternalError",
        "OperationAborted",
        "PriorRequestNotComplete",
        "RequestTimeout",
        "RequestTimeoutException",
        "ServerBusy",
        "ServiceUnavailable",
        "SlowDown",
        "SlowDownRead",
        "SlowDownWrite",
        "Throttling",
        "ThrottlingException",
        "TooManyRequests",
    }
)
"""Codes of transient errors, regardless of the status."""


def is_transient(status: int, code: str) -> bool:
    """Return whether a response reports a transient error."""
    return status in TRANSIENT_STATUS or code in TRANSIENT_CODES


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential backoff with full jitter.

    Args:
        max_retry: How often a request is retried; 0 for never.
        timeout: Limit on all attempts of a request together, in seconds.
        first: Maximum pause after the first attempt, in seconds; it doubles with each attempt.
        longest: Upper limit of all pauses, in seconds.

    Raises:
        ValueError: A number is negative, or the timeout is not positive.
    """

    max_retry: int = 5
    timeout: float = 120.0
    first: float = 0.1
    longest: float = 10.0

    def __post_init__(self) -> None:
        if self.max_retry < 0 or self.first < 0 or self.longest < 0:
            raise ValueError(f"expected numbers of at least 0, got {self!r}")
        if not self.timeout > 0:
            raise ValueError(f"timeout: expected more than 0 seconds, got {self.timeout!r}")

    def pause(self, attempt: int, left: float, *, jitter: float, retry_after: float | None = None) -> float | None:
        """Return how long to wait before the next attempt, in seconds; ``None`` if no further attempt is made.

        Args:
            attempt: The number of attempts so far, at least 1.
            left: The remaining part of the timeout, in seconds.
            jitter: A random number from 0 to 1.
            retry_after: How long the server asks to wait, in seconds.
        """
        if attempt > self.max_retry:
            return None
        longest = min(self.longest, self.first * 2 ** min(attempt - 1, 30))
        pause = max(jitter * longest, retry_after or 0.0)
        return pause if pause < left else None
