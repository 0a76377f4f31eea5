"""The retry policy."""

from __future__ import annotations

from typing import Any

import pytest

from aioimageattach.stores.s3._retry import RetryPolicy, is_transient


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (500, "", True),
        (502, "", True),
        (503, "SlowDown", True),
        (504, "", True),
        (429, "", True),
        (400, "RequestTimeout", True),
        (409, "ConditionalRequestConflict", True),
        (200, "InternalError", True),
        (409, "BucketAlreadyExists", False),
        (400, "InvalidRequest", False),
        (403, "AccessDenied", False),
        (404, "", False),
        (412, "PreconditionFailed", False),
        (501, "NotImplemented", False),
    ],
)
def test_transient_errors(status: int, code: str, expected: bool) -> None:
    """Server errors and requests to slow down are transient, and other refusals are not."""
    assert is_transient(status, code) is expected


def test_pauses_double_up_to_a_limit() -> None:
    """With a jitter of 1, the pause is the longest; otherwise it is proportional to the jitter."""
    policy = RetryPolicy(max_retry=9, first=0.1, longest=2.0)
    pauses = [policy.pause(attempt, 100, jitter=1.0) for attempt in range(1, 10)]
    assert pauses == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0, 2.0])
    assert policy.pause(3, 100, jitter=0.25) == pytest.approx(0.1)
    assert policy.pause(1, 100, jitter=0.0) == 0


def test_no_pause_after_the_last_attempt() -> None:
    """``max_retry`` is the number of attempts after the first."""
    assert RetryPolicy(max_retry=2).pause(2, 100, jitter=0) == 0
    assert RetryPolicy(max_retry=2).pause(3, 100, jitter=0) is None
    assert RetryPolicy(max_retry=0).pause(1, 100, jitter=0) is None


def test_no_pause_outlasts_the_timeout() -> None:
    """No further attempt is made if the pause would exceed the timeout."""
    policy = RetryPolicy(first=1.0)
    assert policy.pause(1, 0.6, jitter=0.5) == pytest.approx(0.5)
    assert policy.pause(1, 0.4, jitter=0.5) is None


def test_retry_after_is_the_minimum() -> None:
    """The pause is at least Retry-After, within the timeout."""
    policy = RetryPolicy()
    assert policy.pause(1, 100, jitter=1.0, retry_after=3.0) == 3.0
    assert policy.pause(1, 100, jitter=1.0, retry_after=0.0) == pytest.approx(0.1)
    assert policy.pause(1, 2, jitter=0, retry_after=3.0) is None


def test_an_endless_number_of_attempts_does_not_overflow() -> None:
    """The pause of any attempt is at most the limit."""
    assert RetryPolicy(max_retry=10**6).pause(10**6, 100, jitter=1.0) == 10.0


@pytest.mark.parametrize(
    "arguments", [{"max_retry": -1}, {"first": -1}, {"longest": -1}, {"timeout": 0}, {"timeout": float("nan")}]
)
def test_invalid_policies(arguments: dict[str, Any]) -> None:
    """Negative numbers and a timeout of zero are rejected."""
    with pytest.raises(ValueError, match="expected"):
        RetryPolicy(**arguments)
