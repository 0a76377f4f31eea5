"""Formatting of counts, sizes, durations and JSON."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any

import pytest

from aioimageattach.cli._output import error_text, format_counts, format_duration, format_size, plain
from aioimageattach.maintenance import Progress


def test_counts() -> None:
    """Counts that are not 0 are shown with their names, and the number of bytes with a unit."""
    progress = Progress(10, 4, {"copied": 0, "left": 1200}, failed=1, bytes=2_500_000, position="a/b")
    assert format_counts(progress) == "1,200 left, 1 failed, 2.5 MB"
    assert format_counts(Progress(10, 4)) == ""


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (22_240, "22.2 kB"), (4_321_000, "4.32 MB"), (5e12, "5,000.0 GB")],
)
def test_sizes(number: float, text: str) -> None:
    """A size has three significant digits and a decimal unit."""
    assert format_size(number) == text


@pytest.mark.parametrize(("seconds", "text"), [(0.2, "0:00:00"), (61, "0:01:01"), (36_000.6, "10:00:01")])
def test_durations(seconds: float, text: str) -> None:
    """A duration is shown as hours, minutes and seconds."""
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({1: (True, None, 1.5)}, {"1": [True, None, 1.5]}),
        (Progress, "Progress"),
        (datetime(2026, 5, 17, tzinfo=UTC), "2026-05-17T00:00:00+00:00"),
        (ValueError("no"), {"type": "ValueError", "message": "no"}),
        (OSError("amqp://user:p@ss@host"), {"type": "OSError", "message": "amqp://***@host"}),
        (uuid.UUID(int=7), "00000000-0000-0000-0000-000000000007"),
    ],
)
def test_json_values(value: Any, expected: object) -> None:
    """Values without a JSON equivalent become objects or strings."""
    assert plain(value) == expected


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            OSError("refused by http://host/a@b and by redis://:secret@host:6379/0"),
            "refused by http://***@b and by redis://***@host:6379/0",
        ),
        (OSError("'amqp://user:a b@host' is <https://token@host>"), "'amqp://user:a b@host' is <https://***@host>"),
        (OSError("host=db password=secret dbname=app"), "host=db password=*** dbname=app"),
        (
            OSError("postgresql://host/app?user=me&Password=secret&sslmode=require"),
            "postgresql://host/app?user=me&Password=***&sslmode=require",
        ),
        (OSError("mailto:me@example.com, file:///srv"), "mailto:me@example.com, file:///srv"),
        (TimeoutError(), "TimeoutError"),
    ],
)
def test_errors(error: Exception, text: str) -> None:
    """Users and passwords in URLs are not shown."""
    assert error_text(error) == text
