"""When a request is sent again, and after how long. Pure: chance and time are passed in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["PASSING_CODES", "PASSING_STATUS", "RetryPolicy", "is_passing"]

PASSING_STATUS: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses that are worth another attempt."""

PASSING_CODES: Final = frozenset(
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
"""Codes that are worth another attempt, whatever the status."""


def is_passing(status: int, code: str) -> bool:
    """Whether an answer tells of a fault that may be over the next time."""
    return status in PASSING_STATUS or code in PASSING_CODES


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how long a request is tried: exponential back-off with full jitter.

    Args:
        max_retry: How often a request is sent again after the first time; 0 for never.
        timeout: How long all attempts of a request may take together, in seconds.
        first: The longest pause after the first attempt, in seconds; it doubles with each attempt.
        longest: The longest pause of all, in seconds.

    Raises:
        ValueError: A number is negative, or the timeout is not positive.
    """

    max_retry: int = 5
    timeout: float = 120.0
    first: float = 0.1
    longest: float = 10.0

    def __post_init__(self) -> None:
        if self.max_retry < 0 or self.first < 0 or self.longest < 0:
            raise ValueError(f"expected no number below 0, got {self!r}")
        if not self.timeout > 0:
            raise ValueError(f"timeout: expected more than 0 seconds, got {self.timeout!r}")

    def pause(self, attempt: int, left: float, *, chance: float, asked: float | None = None) -> float | None:
        """Return how long to wait before the next attempt, in seconds; ``None`` where there is to be none.

        Args:
            attempt: How many were made, at least 1.
            left: How much of the timeout is left, in seconds.
            chance: A number from 0 to 1 that nobody else has drawn.
            asked: How long the server asks to be left alone, in seconds.
        """
        if attempt > self.max_retry:
            return None
        longest = min(self.longest, self.first * 2 ** min(attempt - 1, 30))
        pause = max(chance * longest, asked or 0.0)
        return pause if pause < left else None
