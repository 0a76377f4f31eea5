"""When a request is sent again."""

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
def test_what_may_pass(status: int, code: str, expected: bool) -> None:
    """Faults of the server and requests to slow down; no refusals."""
    assert is_transient(status, code) is expected


def test_pauses_double_up_to_a_limit() -> None:
    """The longest pause is drawn with chance 1; any chance below gives its share."""
    policy = RetryPolicy(max_retry=9, first=0.1, longest=2.0)
    pauses = [policy.pause(attempt, 100, jitter=1.0) for attempt in range(1, 10)]
    assert pauses == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0, 2.0])
    assert policy.pause(3, 100, jitter=0.25) == pytest.approx(0.1)
    assert policy.pause(1, 100, jitter=0.0) == 0


def test_after_the_last_attempt_there_is_none() -> None:
    """max_retry counts the attempts after the first."""
    assert RetryPolicy(max_retry=2).pause(2, 100, jitter=0) == 0
    assert RetryPolicy(max_retry=2).pause(3, 100, jitter=0) is None
    assert RetryPolicy(max_retry=0).pause(1, 100, jitter=0) is None


def test_no_pause_outlasts_the_timeout() -> None:
    """An attempt that could not be made in time is not waited for."""
    policy = RetryPolicy(first=1.0)
    assert policy.pause(1, 0.6, jitter=0.5) == pytest.approx(0.5)
    assert policy.pause(1, 0.4, jitter=0.5) is None


def test_a_server_that_asks_for_time_gets_it() -> None:
    """Retry-After is the least, and the timeout still holds."""
    policy = RetryPolicy()
    assert policy.pause(1, 100, jitter=1.0, retry_after=3.0) == 3.0
    assert policy.pause(1, 100, jitter=1.0, retry_after=0.0) == pytest.approx(0.1)
    assert policy.pause(1, 2, jitter=0, retry_after=3.0) is None


def test_an_endless_number_of_attempts_does_not_overflow() -> None:
    """The pause stays at its limit."""
    assert RetryPolicy(max_retry=10**6).pause(10**6, 100, jitter=1.0) == 10.0


@pytest.mark.parametrize(
    "arguments", [{"max_retry": -1}, {"first": -1}, {"longest": -1}, {"timeout": 0}, {"timeout": float("nan")}]
)
def test_what_is_no_policy(arguments: dict[str, Any]) -> None:
    """Numbers below zero, and no time at all."""
    with pytest.raises(ValueError, match="expected"):
        RetryPolicy(**arguments)
